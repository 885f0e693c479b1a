"""A node that is added or removed, as one line: its resources are those of every other node of its kind."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cli.review.parts import values_of
from cli.review.planned import Json, Planned
from components.spec import names
from engine.graph import Node


@dataclass(frozen=True)
class NodeChange:
    """`rows`: the URNs of the rows that say nothing that this line does not say."""

    action: Literal["added", "removed"]
    node: str
    text: str
    rows: frozenset[str]


def node_changes(old: Planned, new: Planned, before: Json, after: Json) -> list[NodeChange]:
    """A line for each node that only one side has. Empty where a side does not say which nodes it has."""
    was, will = _nodes(before), _nodes(after)
    added = [_added(old, new, node, was, will) for name, node in will.items() if was and name not in was]
    removed = [_removed(old, new, node) for name, node in was.items() if will and name not in will]
    return [change for change in (*added, *removed) if change is not None]


def _nodes(side: Json) -> dict[str, Mapping[str, Any]]:
    return {node["name"]: node for node in (side.get("lab") or {}).get("nodes", ())}


def _added(
    old: Planned,
    new: Planned,
    node: Mapping[str, Any],
    was: Mapping[str, Mapping[str, Any]],
    will: Mapping[str, Mapping[str, Any]],
) -> NodeChange | None:
    """None where no node of the same role stays, with which it could be compared."""
    kind = [n for n in will.values() if n["name"] in was and n["role"] == node["role"]]
    same = [n for n in kind if n["subnet"] == node["subnet"]] or kind
    if not same:
        return None
    like = same[-1]
    rows = [row for urn, row in new.rows.items() if urn not in old.rows and _is_of(row, node["name"])]
    alike = [row for row in rows if _same_as(new, row, node, like)]
    text = f"{_title(node)}: {len(rows)} resources"
    if len(alike) == len(rows):
        text += f", each as {like['name']} has it"
    elif alike:
        text += f", {len(alike)} of them as {like['name']} has them"
    return NodeChange("added", node["name"], text, frozenset(row.urn for row in alike))


def _removed(old: Planned, new: Planned, node: Mapping[str, Any]) -> NodeChange:
    rows = [row for urn, row in old.rows.items() if urn not in new.rows and _is_of(row, node["name"])]
    admitted = any(row.type == names.STEP and row.inputs["phase"] == "admit" for row in rows)
    first = "it is drained and its Node is deleted, then " if admitted else ""
    text = f"{_title(node)}: {first}its {len(rows)} resources go"
    return NodeChange("removed", node["name"], text, frozenset(row.urn for row in rows))


def _title(node: Mapping[str, Any]) -> str:
    return f"{node['role']} {node['name']} ({node['address']})"


def _is_of(row: Node, node: str) -> bool:
    """Whether it is about this node: the names of a node's resources contain its name."""
    return re.search(rf"(?<![A-Za-z0-9]){re.escape(node)}(?![A-Za-z0-9])", row.name) is not None


def _same_as(side: Planned, row: Node, node: Mapping[str, Any], like: Mapping[str, Any]) -> bool:
    """Whether the row is the other node's row with this node's name and address in place of the other's."""
    name = row.name.replace(node["name"], like["name"])
    for other in side.rows.values():
        if other.type == row.type and other.name == name:
            texts = [_neutral(repr(values_of(side, each, whole=True)), of) for each, of in ((row, node), (other, like))]
            return texts[0] == texts[1]
    return False


def _neutral(text: str, node: Mapping[str, Any]) -> str:
    return text.replace(node["name"], "NODE").replace(node["address"], "ADDRESS")


def folded(changes: Sequence[NodeChange]) -> frozenset[str]:
    return frozenset().union(*(change.rows for change in changes)) if changes else frozenset()
