"""Two plans of one stack, held against each other: pure values in, pure values out.

A resource is the same one where its URN is. A Step and the command below it are one row, told by the Step's inputs:
they are there leaf by leaf where the command's program is one secret. Other components do nothing by themselves.
"""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher, unified_diff
from functools import cached_property
from typing import Any, Literal

from cli.plan.command import ordered, yaml_text
from cli.review.rules import matching, replacing
from components.node.script import text_of
from components.spec import names
from engine.graph import STEP_TYPE, Graph, Node
from engine.model import SECRET, STACK_TYPE

Json = Mapping[str, Any]
Action = Literal["replaced", "removed", "changed", "added"]
ACTIONS: tuple[Action, ...] = ("replaced", "removed", "changed", "added")
"""In the order in which a reviewer wants them."""

HIDDEN = "<was not secret>"
CONTEXT = 3
DETAILS = 4
PASSAGE = 20
"""Lines. What is longer and known already is cut short."""

NO_LIMIT = 1 << 20  # a wrapped line moves others


@dataclass(frozen=True)
class Part:
    """A changed piece of a resource: a file, a script, its variables or its inputs. `diff`: lines that begin with a
    space, - or +, and @@ lines between hunks."""

    name: str
    diff: tuple[str, ...]


@dataclass(frozen=True)
class Change:
    """What becomes of one resource. `detail`: what differs, in a few words. `reasons`: why it is replaced; `follows`:
    it is replaced, or changed, only because another one is replaced."""

    action: Action
    urn: str
    type: str
    title: str
    detail: str = ""
    parts: tuple[Part, ...] = ()
    reasons: tuple[str, ...] = ()
    follows: bool = False


@dataclass(frozen=True)
class Comparison:
    """A stack on both sides. `control_planes`: what happens to each one that would not survive, with the reason.
    `notes`: what the reader should know beside it, one line each. `failed`: the working tree's side has no plan.
    `judged`: it is known what becomes of its control planes.
    """

    stack: str
    changes: tuple[Change, ...] = ()
    same: int = 0
    control_planes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    failed: bool = False
    judged: bool = True

    @property
    def touched(self) -> bool:
        return bool(self.changes or self.notes)

    def count(self, action: Action) -> int:
        return sum(change.action == action for change in self.changes)


def compare(stack: str, before: Json, after: Json) -> Comparison:
    """Hold two plans (plan's JSON with `controlPlanes`) of a stack against each other."""
    old, new = _Side(before["resources"]), _Side(after["resources"])
    replaced = _replaced(old, new)
    known = old.scripts
    changes: list[Change] = []
    for urn, row in new.rows.items():
        if urn not in old.rows:
            parts = _parts({}, _without(_view(new, row), known))
            if like := old.like(row):
                parts = _shortened(parts, _view(old, like), old.title(like))
            changes.append(_change("added", new, row, parts=parts))
            continue
        views = _alike(_view(old, old.rows[urn]), _view(new, row))
        parts, detail = _parts(*views), _detail(*views)
        command = new.command(row)
        if command in replaced:
            told = replaced[command]
            follows = all(reason.follows for reason in told)
            reasons = tuple(reason.text for reason in told)
            changes.append(_change("replaced", new, row, detail=detail, parts=parts, reasons=reasons, follows=follows))
        elif parts:
            changes.append(_change("changed", new, row, detail=detail, parts=parts))
        elif reasons := _fed_by(new, command, replaced):
            changes.append(_change("changed", new, row, reasons=reasons, follows=True))
    changes += [_change("removed", old, row) for urn, row in old.rows.items() if urn not in new.rows]
    outputs = _parts(*_alike({"outputs": before["outputs"]}, {"outputs": after["outputs"]}))
    notes = () if not outputs else (f"outputs change: {', '.join(_changed_keys(before['outputs'], after['outputs']))}",)
    return Comparison(
        stack,
        tuple(sorted(changes, key=lambda change: (ACTIONS.index(change.action), change.follows))),
        same=len(new.rows) - sum(change.action != "removed" for change in changes),
        control_planes=tuple(_lost(old, new, before["controlPlanes"], replaced)),
        notes=notes,
    )


def _change(action: Action, side: _Side, row: Node, **what: Any) -> Change:
    kind = "Step" if row.type == STEP_TYPE else row.short_type
    return Change(action, row.urn, kind, side.title(row), **what)


class _Side:
    """One plan: its resources as they come, its graph, and its rows (URN → Step, or resource that `up` makes)."""

    def __init__(self, resources: Sequence[Json]) -> None:
        self.resources = {r["urn"]: r for r in resources if r["type"] != STACK_TYPE}
        self.graph = Graph.of(resources)
        self.rows: dict[str, Node] = {}
        for node in self.graph.custom:
            row = self.graph.step_of(node) or node
            self.rows[row.urn] = row

    def command(self, row: Node) -> str:
        """URN of what the engine makes for a row."""
        return row.children[0] if row.type == STEP_TYPE else row.urn

    def row(self, urn: str) -> Node:
        """The row that tells of a resource."""
        node = self.graph.nodes[urn]
        return self.graph.step_of(node) or node

    def title(self, row: Node) -> str:
        """What a reader calls it: a step by phase and node; else by kind and name. With its own name where several
        are called alike, as the admissions on a control plane are."""
        title = self.graph.title(row)
        return title if self.titles[title] == 1 or title.endswith(row.name) else f"{title} ({row.name})"

    @cached_property
    def titles(self) -> Counter[str]:
        return Counter(self.graph.title(row) for row in self.rows.values())

    def like(self, row: Node) -> Node | None:
        """The last row of the same type, and of the same phase if it is a step."""
        alike = [
            r for r in self.rows.values() if (r.type, r.inputs.get("phase")) == (row.type, row.inputs.get("phase"))
        ]
        return alike[-1] if alike else None

    @cached_property
    def scripts(self) -> frozenset[tuple[str, str]]:
        """Every script by name and text."""
        return frozenset(
            (name, text)
            for row in self.rows.values()
            if row.type == STEP_TYPE
            for name, text in row.inputs["scripts"].items()
        )


# --- what is replaced ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reason:
    text: str
    follows: bool = True


def _replaced(old: _Side, new: _Side) -> dict[str, list[_Reason]]:
    """URN of each resource that would be replaced, with the reasons. The program makes a resource after all it refers
    to, so one pass in that order sees every consequence."""
    replaced: dict[str, list[_Reason]] = {}
    # After any change the output of a local command is unknown; of the others only the id is used where it counts.
    uncertain: set[str] = set()

    def named(urn: str) -> str:
        return new.title(new.row(urn))

    for urn, resource in new.resources.items():
        before = old.resources.get(urn)
        if before is None or not resource["custom"]:
            continue
        changed = _changed_paths(before, resource)
        rules = replacing(resource)
        reasons = [_Reason(f"change of {path}", follows=False) for path in _short(matching(changed, rules))]
        if (owner := resource.get("deletedWith")) in replaced:
            reasons.append(_Reason(f"{named(owner)} is replaced, and this lives and dies with it"))
        reasons += [
            _Reason(f"{named(other)} is replaced, and this with it")
            for other in resource.get("replaceWith", ())
            if other in replaced
        ]
        if (provider := resource.get("provider")) in replaced:
            reasons.append(_Reason(f"its provider {new.graph.nodes[provider].name} is replaced"))
        for property_, sources in resource.get("propertyDependencies", {}).items():
            if not _any_rule(property_, rules):
                continue
            for source in sources:
                if source in replaced and source != owner:
                    reasons.append(_Reason(f"{property_} comes from {named(source)}, which is replaced"))
                elif source in uncertain:
                    reasons.append(_Reason(f"{property_} comes from {named(source)}, whose answer may change"))
        if reasons:
            replaced[urn] = [r for i, r in enumerate(reasons) if r not in reasons[:i]]
        elif changed and resource["type"] == "command:local:Command":
            uncertain.add(urn)
    return replaced


def _fed_by(side: _Side, urn: str, replaced: Mapping[str, Sequence[_Reason]]) -> tuple[str, ...]:
    """Why an update follows for what stays as it is written: an input comes from a resource that is replaced."""
    fed = side.resources[urn].get("propertyDependencies", {})
    return tuple(
        f"{property_} comes from {side.title(side.row(source))}, which is replaced"
        for property_, sources in fed.items()
        for source in sources
        if source in replaced
    )


def _any_rule(property_: str, rules: Sequence[str]) -> bool:
    """Some rule is about this property or a part of it."""
    return bool(matching([property_], rules)) or any(
        rule.startswith((f"{property_}.", f"{property_}[")) for rule in rules
    )


def _changed_paths(before: Json, after: Json) -> list[str]:
    """Paths of inputs that differ, without what the program tells the engine to ignore."""
    paths = list(_different(before["inputs"], after["inputs"]))
    ignored = set(matching(paths, after.get("ignoreChanges", ())))
    return [path for path in paths if path not in ignored]


def _different(before: Any, after: Any) -> dict[str, tuple[Any, Any]]:
    """Each leaf that differs, by path, as it was and as it is; None where there was, or is, none."""
    old, new = dict(_leaves(before)), dict(_leaves(after))
    return {path: (old.get(path), new.get(path)) for path in {**old, **new} if old.get(path) != new.get(path)}


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _leaves(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def _short(paths: Sequence[str]) -> list[str]:
    """Each changed thing once: triggers[0] and triggers[3] are the triggers."""
    return list(dict.fromkeys(path.partition("[")[0] for path in paths))


def _lost(old: _Side, new: _Side, names: Sequence[str], replaced: Mapping[str, Sequence[_Reason]]) -> Iterator[str]:
    """For each control plane that does not survive, one line: its machine, or what made the cluster on it, goes."""
    for name in names:
        urns: dict[str, None] = {}
        for row in old.rows.values():
            if row.type == STEP_TYPE and row.inputs["node"] == name and row.inputs["phase"] in _MAKING:
                command = old.resources[old.command(row)]
                if machine := command.get("deletedWith"):
                    urns[machine] = None
                if row.inputs["phase"] == "init":
                    urns[command["urn"]] = None
        for urn in urns:
            if urn not in new.resources:
                yield f"{name} would be removed: {old.title(old.row(urn))} is no longer there"
                break
            if urn in replaced:
                yield f"{name} would be replaced: {replaced[urn][0].text} ({new.title(new.row(urn))})"
                break


_MAKING: tuple[names.StepPhase, ...] = ("prepare", "init", "join")
"""Phases that a control plane's own machine runs."""


# --- what differs ----------------------------------------------------------------------------------------------------


def _view(side: _Side, row: Node) -> dict[str, Any]:
    """A row's parts by name, each a value still: to be shown as text once secrets are hidden on both sides."""
    if row.type != STEP_TYPE:
        resource = side.resources[row.urn]
        seen = {key: value for key, value in row.inputs.items() if key not in resource.get("ignoreChanges", ())}
        return {"inputs": _unfolded(seen)} if seen else {}
    inputs = row.inputs
    command = side.resources[side.command(row)]["inputs"]
    view: dict[str, Any] = {}
    if variables := inputs.get("variables"):
        view["variables"] = variables
    files = inputs.get("files")
    # Known after `up` as a whole, or a list.
    listed: list[Json] = files if isinstance(files, list) else [{"path": "files", "content": files}]
    for file in listed:
        view[file["path"]] = _File(file["path"], file.get("mode"), file["content"])
    view |= {name: _Script(text) for name, text in inputs["scripts"].items()}
    # The program on stdin is all of the above; where it is plain it may still differ in how that is put together.
    view["command"] = {key: value for key, value in command.items() if key != "stdin"}
    return view


@dataclass(frozen=True)
class _File:
    path: str
    mode: str | None
    content: Any


@dataclass(frozen=True)
class _Script:
    text: str


def _without(view: dict[str, Any], known: frozenset[tuple[str, str]]) -> dict[str, Any]:
    """Less the scripts that the other side has too: of a new step it matters what is new."""
    return {
        name: value for name, value in view.items() if not (isinstance(value, _Script) and (name, value.text) in known)
    }


def _alike(old: dict[str, Any], new: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both views, with what is secret on one side hidden on the other too."""
    pairs = {name: _hide(old.get(name), new.get(name)) for name in {**old, **new}}
    return (
        {name: pair[0] for name, pair in pairs.items() if name in old},
        {name: pair[1] for name, pair in pairs.items() if name in new},
    )


def _hide(old: Any, new: Any) -> tuple[Any, Any]:
    if SECRET in (old, new) and old != new:
        return (old if old in (SECRET, None) else HIDDEN), (new if new in (SECRET, None) else HIDDEN)
    if isinstance(old, _File) and isinstance(new, _File):
        one, other = _hide(old.content, new.content)
        return _File(old.path, old.mode, one), _File(new.path, new.mode, other)
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


def _shortened(parts: Sequence[Part], like: Mapping[str, Any], title: str) -> tuple[Part, ...]:
    """The parts of a new resource without long passages that one of its kind has already."""
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


def _parts(old: dict[str, Any], new: dict[str, Any]) -> tuple[Part, ...]:
    """The parts that differ."""
    parts = []
    for name in {**old, **new}:
        if old.get(name) == new.get(name):
            continue
        one = _text(old[name]) if name in old else ""
        other = _text(new[name]) if name in new else ""
        if one != other:
            lines = unified_diff(one.splitlines(), other.splitlines(), n=CONTEXT, lineterm="")
            diff = list(lines)[2:]  # without the names of the files
            if name in _NO_LINES:  # the number of a line says something in a file only
                diff = ["@@" if line.startswith("@@") else line for line in diff]
            if diff.count("@@") == 1 or not one or not other:
                diff = diff[1:]
            parts.append(Part(name, tuple(diff)))
    return tuple(parts)


def _detail(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What differs in a few words: the one value if it is short, else the keys and files."""
    words: dict[str, None] = {}
    for name in {**old, **new}:
        one, other = old.get(name), new.get(name)
        if one == other:
            continue
        if not isinstance(one, dict) or not isinstance(other, dict):
            words[name] = None
            continue
        leaves = _different(one, other)
        if len(leaves) == 1 and all(_is_short(value) for pair in leaves.values() for value in pair):
            [(path, (was, now))] = leaves.items()
            words[f"{path}: {was} → {now}"] = None
        else:
            words |= dict.fromkeys(_short(list(leaves)))
    listed = list(words)
    return ", ".join(listed[:DETAILS]) + (f" and {len(listed) - DETAILS} more" if len(listed) > DETAILS else "")


def _is_short(value: Any) -> bool:
    return value is None or (not isinstance(value, dict | list) and len(str(value)) <= 40 and "\n" not in str(value))


def _text(value: Any) -> str:
    if isinstance(value, _Script):
        return value.text
    if isinstance(value, _File):
        mode = f"# mode {value.mode}\n" if value.mode else ""
        return mode + text_of(value.path, ordered(value.content))
    if isinstance(value, dict) and all(_is_name(key) for key in value):
        return "".join(f"{key}={shlex.quote(item) if isinstance(item, str) else item}\n" for key, item in value.items())
    return yaml_text(value, NO_LIMIT)


def _is_name(key: str) -> bool:
    """A shell variable's."""
    return key.isupper()


def _unfolded(value: Any) -> Any:
    """The value with JSON inside text opened up, so that one changed word is one changed line."""
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


def _changed_keys(old: Json, new: Json) -> list[str]:
    return [key for key in {**old, **new} if old.get(key) != new.get(key)]
