"""A stack file's text as plain values. Duplicate keys, aliases, tags and several documents in a file are refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from components.spec.findings import Finding, SpecError, shown
from components.spec.keypath import KeyPath, dotted
from components.spec.translate import Flaw

MAX_BYTES = 256 << 10
MAX_DEPTH = 32


class _Loader(yaml.SafeLoader):
    """Composes nodes down to MAX_DEPTH levels. Plain words are read by YAML 1.2, in which `yes` and `on` are text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="is an alias", problem_mark=mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="is nested too deeply", problem_mark=mark)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node


_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
# Each tag, the texts that get it, and the characters with which such a text may start.
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    ("null", r"~|null|Null|NULL|", [*"~nN", ""]),
    ("int", r"[-+]?(0|[1-9][0-9]*)", [*"-+0123456789"]),
    ("float", _FLOAT, [*"-+0123456789."]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), _first)


class WrittenFloat(float):
    """A number that keeps its text in the file, because the version 1.30 is not 1.3."""

    text: str

    def __str__(self) -> str:
        return self.text


class Lines:
    """The line of every key and list item of a file, by the key that a finding has for it."""

    def __init__(self) -> None:
        self._lines: dict[str, int] = {}

    def note(self, path: KeyPath, node: yaml.Node) -> None:
        self._lines.setdefault(_written(path), node.start_mark.line + 1)

    def of(self, key: str) -> int:
        """The line of `key`. If the file does not have the key, the line of the innermost mapping around it."""
        if match := re.fullmatch(r"line (\d+)", key):
            return int(match[1])
        ends = [len(key), *(index for index in reversed(range(len(key))) if key[index] in ".[")]
        found = (self._lines.get(place) for end in ends for place in (key[:end], f"config.{key[:end]}"))
        lab = (self._lines.get(place) for place in (dotted(()), "config"))
        return next((line for line in (*found, *lab) if line is not None), 1)


def _written(path: KeyPath) -> str:
    """The key that a finding has for a place. Inside the lab it starts at the lab, outside at the file."""
    return dotted(path[2:] if path[:2] == ("config", "cni-lab:lab") else path)


def read_document(path: Path) -> tuple[dict[str, Any], list[Flaw], Lines]:
    """The mapping in the file, the flaws of single values, e.g. duplicate keys and tags, and the lines of the keys.

    The path of a flaw inside the lab starts at the lab. Raises SpecError if the file has no mapping at all.
    """
    lines = Lines()

    def error_with(key: str, value: str, problem: str, fix: str) -> SpecError:
        return SpecError([Finding(key, value, problem, fix, lines.of(key))], path.name)

    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        problem = f"cannot be read: {error.strerror}"
        raise error_with(path.name, shown(str(path)), problem, "name a stack file that exists") from None
    if len(data) > MAX_BYTES:
        raise error_with(path.name, "more than 256 KiB", "is too large for a stack file", "keep only the lab in it")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line, byte = data[: error.start].count(b"\n") + 1, data[error.start]
        raise error_with(f"line {line}", f"byte 0x{byte:02x}", "is not UTF-8", "save the file as UTF-8") from None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise SpecError([_yaml_finding(error, text)], path.name) from None
    except yaml.YAMLError as error:
        problem = str(error).splitlines()[0]
        raise error_with(path.name, "a control character", problem, "remove that character") from None
    found: list[Flaw] = []
    document = _value(loader, node, (), found, lines) if node else None
    if document is None:
        raise error_with(path.name, "empty", "has no lab", "write config: with cni-lab:lab: and the lab under it")
    if not isinstance(document, dict):
        raise error_with(path.name, shown(document), "must be a mapping", "write config: with cni-lab:lab: under it")
    return document, found, lines


def _yaml_finding(error: yaml.MarkedYAMLError, text: str) -> Finding:
    """A mistake in the YAML itself. Its key is the number of the line."""
    mark = error.problem_mark or error.context_mark
    number = mark.line if mark else 0
    lines = text.splitlines()
    line = lines[number] if number < len(lines) else ""
    problem = error.problem or "is not YAML"
    if "\t" in line[: len(line) - len(line.lstrip())] or "'\\t'" in problem:
        problem, fix = "has a tab where YAML needs spaces", "indent with spaces"
    elif problem == "is an alias":
        fix = "write the value out: aliases are not supported"
    elif problem == "is nested too deeply":
        problem, fix = f"is more than {MAX_DEPTH} levels deep", "remove it: nothing in a stack file is that deep"
    elif "single document" in (error.context or ""):
        problem, fix = "starts another document", "keep one document in the file: remove the ---"
    else:
        problem, fix = f"is not YAML: {problem}", "check indentation, quotes and brackets here and on the line above"
    return Finding(f"line {number + 1}", shown(line.strip()), problem, fix, number + 1)


def _value(loader: _Loader, node: yaml.Node, path: KeyPath, found: list[Flaw], lines: Lines) -> Any:
    """The value of a node. Flaws (duplicate keys, tags, keys that are not text) go to `found`, all keys to `lines`."""

    def note(at: KeyPath, value: str, problem: str, fix: str) -> None:
        place = at[2:] if at[:2] == ("config", "cni-lab:lab") else at
        found.append(Flaw(Finding(dotted(place), value, problem, fix), place, place))

    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            lines.note((*path, index), item)
        return [_value(loader, item, (*path, index), found, lines) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                fix = "write a word before the colon, or put braces in quotes"
                note(path, "a list or mapping", "cannot be a key", fix)
                continue
            key = key_node.value
            if key in values:
                again = f"again on line {key_node.start_mark.line + 1}"
                note((*path, key), again, "is given twice", "keep one of the two")
            lines.note((*path, key), key_node)
            values[key] = _value(loader, value_node, (*path, key), found, lines)
        return values
    try:
        value = loader.construct_object(node)
    except (yaml.YAMLError, ValueError):
        if len(node.value) > 4000:
            note(path, shown(node.value), "is too large for any key here", "write a smaller number")
        else:
            note(path, shown(node.value), f"has the tag {shown(node.tag)}", "remove the tag")
        return None
    if not isinstance(value, float):
        return value
    written = WrittenFloat(value)
    written.text = node.value
    return written
