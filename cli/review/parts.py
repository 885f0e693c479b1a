"""What differs between two rows, as text: files, scripts, variables and inputs, with secrets hidden on both sides."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher, unified_diff
from typing import Any

from cli.plan.folder import ordered, yaml_text
from cli.review.paths import different, top_level
from cli.review.planned import Json, Planned
from components.node.script import text_of
from components.spec import names
from engine.graph import Node
from engine.model import SECRET

HIDDEN = "<was not secret>"
CONTEXT = 3
"""Unchanged lines that are shown around a change."""

DETAILS = 4
"""A summary names this many keys and files."""

PASSAGE = 20
"""Lines. A longer passage that the reader knows already is shortened."""

NO_LIMIT = 1 << 20
"""Columns. A line of YAML that is wrapped would shift the others."""


@dataclass(frozen=True)
class Part:
    """A changed part of a resource: a file, a script, its variables or its inputs.

    `diff`: lines that start with a space, - or +, and @@ lines between hunks.
    """

    name: str
    diff: tuple[str, ...]


def values_of(side: Planned, row: Node, *, whole: bool = False) -> dict[str, Any]:
    """A row's parts by name, still as values; they become text once secrets are hidden on both sides.

    Inputs whose changes the program ignores are left out, unless the `whole` is asked for: a new resource gets them.
    """
    if row.type != names.STEP:
        resource = side.resources[row.urn]
        ignored = () if whole else resource.get("ignoreChanges", ())
        seen = {key: value for key, value in row.inputs.items() if key not in ignored}
        return {"inputs": _unfolded(seen)} if seen else {}
    inputs = row.inputs
    command = side.resources[side.command(row)]["inputs"]
    view: dict[str, Any] = {}
    if variables := inputs.get("variables"):
        view["variables"] = variables
    files = inputs.get("files")
    # A list, unless it is only known after `up`.
    listed: list[Json] = files if isinstance(files, list) else [{"path": "files", "content": files}]
    for file in listed:
        view[file["path"]] = File(file["path"], file.get("mode"), file["content"])
    view |= {name: Script(text) for name, text in inputs["scripts"].items()}
    # The program on stdin contains all of the above.
    view["command"] = {key: value for key, value in command.items() if key != "stdin"}
    return view


@dataclass(frozen=True)
class File:
    path: str
    mode: str | None
    content: Any


@dataclass(frozen=True)
class Script:
    text: str


def without_scripts(view: dict[str, Any], known: frozenset[tuple[str, str]]) -> dict[str, Any]:
    """The parts without the known scripts: in a new Step a reader looks for what is new."""
    return {
        name: value for name, value in view.items() if not (isinstance(value, Script) and (name, value.text) in known)
    }


def hide_secrets(old: dict[str, Any], new: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parts of both sides. What is secret on one side is hidden on the other too."""
    pairs = {name: _hide(old.get(name), new.get(name)) for name in {**old, **new}}
    return (
        {name: pair[0] for name, pair in pairs.items() if name in old},
        {name: pair[1] for name, pair in pairs.items() if name in new},
    )


def _hide(old: Any, new: Any) -> tuple[Any, Any]:
    if SECRET in (old, new) and old != new:
        return (old if old in (SECRET, None) else HIDDEN), (new if new in (SECRET, None) else HIDDEN)
    if isinstance(old, File) and isinstance(new, File):
        one, other = _hide(old.content, new.content)
        return File(old.path, old.mode, one), File(new.path, new.mode, other)
    if isinstance(old, dict) and isinstance(new, dict):
        pairs = {key: _hide(old.get(key), new.get(key)) for key in {**old, **new}}
        return (
            {key: pairs[key][0] for key in old},
            {key: pairs[key][1] for key in new},
        )
    if isinstance(old, list) and isinstance(new, list):
        both = [_hide(one, other) for one, other in zip(old, new, strict=False)]
        count = len(both)
        return [pair[0] for pair in both] + old[count:], [pair[1] for pair in both] + new[count:]
    return old, new


def shorten(parts: Sequence[Part], like: Mapping[str, Any], title: str) -> tuple[Part, ...]:
    """The parts of a new resource, without the long passages that a similar resource, `title`, has already."""
    shortened = []
    for part in parts:
        old = _text(like[part.name]).splitlines() if part.name in like else []
        lines: list[str] = []
        matcher = SequenceMatcher(None, old, [line[1:] for line in part.diff], autojunk=False)
        for kind, _, _, start, end in matcher.get_opcodes():
            passage = part.diff[start:end]
            if kind == "equal" and len(passage) > PASSAGE:
                passage = (
                    *passage[:CONTEXT],
                    f" … {len(passage) - 2 * CONTEXT} lines as of {title}",
                    *passage[-CONTEXT:],
                )
            lines += passage
        shortened.append(Part(part.name, tuple(lines)))
    return tuple(shortened)


_NO_LINES = ("inputs", "variables", "command")


def differing_parts(old: dict[str, Any], new: dict[str, Any]) -> tuple[Part, ...]:
    """The parts that differ."""
    found = []
    for name in {**old, **new}:
        if old.get(name) == new.get(name):
            continue
        one = _text(old[name]) if name in old else ""
        other = _text(new[name]) if name in new else ""
        if one != other:
            lines = unified_diff(one.splitlines(), other.splitlines(), n=CONTEXT, lineterm="")
            diff = list(lines)[2:]  # without the two lines of file names
            if name in _NO_LINES:  # line numbers only mean something in files
                diff = ["@@" if line.startswith("@@") else line for line in diff]
            if diff.count("@@") == 1 or not one or not other:
                diff = diff[1:]
            found.append(Part(name, tuple(diff)))
    return tuple(found)


def summarize(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What differs, in a few words: the value if there is only one and it is short, else the keys and files."""
    words: dict[str, None] = {}
    for name in {**old, **new}:
        one, other = old.get(name), new.get(name)
        if one == other:
            continue
        if not isinstance(one, dict) or not isinstance(other, dict):
            words[name] = None
            continue
        leaves = different(one, other)
        if len(leaves) == 1 and all(_is_short(value) for pair in leaves.values() for value in pair):
            [(path, (was, now))] = leaves.items()
            words[f"{path}: {was} → {now}"] = None
        else:
            words |= dict.fromkeys(top_level(list(leaves)))
    listed = list(words)
    return ", ".join(listed[:DETAILS]) + (f" and {len(listed) - DETAILS} more" if len(listed) > DETAILS else "")


def _is_short(value: Any) -> bool:
    return value is None or (not isinstance(value, dict | list) and len(str(value)) <= 40 and "\n" not in str(value))


def _text(value: Any) -> str:
    if isinstance(value, Script):
        return value.text
    if isinstance(value, File):
        mode = f"# mode {value.mode}\n" if value.mode else ""
        return mode + text_of(value.path, ordered(value.content))
    if isinstance(value, dict) and all(_is_name(key) for key in value):
        return "".join(f"{key}={shlex.quote(item) if isinstance(item, str) else item}\n" for key, item in value.items())
    return yaml_text(value, NO_LIMIT)


def _is_name(key: str) -> bool:
    """Whether it is the name of a shell variable."""
    return key.isupper()


def _unfolded(value: Any) -> Any:
    """The value with JSON texts parsed, so that one changed word is one changed line."""
    if isinstance(value, dict):
        return {key: _unfolded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unfolded(item) for item in value]
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value
