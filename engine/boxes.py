"""The boxes of a drawing: which resources share one, what is in it, and which boxes it waits for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

from engine.graph import Graph, Node


@dataclass(frozen=True)
class Box:
    """One box of a drawing: one or more resources of one wave and room."""

    urns: tuple[str, ...]
    title: str
    lines: tuple[str, ...]
    room: str
    wave: int
    on_chain: bool
    waits_for: tuple[int, ...] = ()
    """Indexes of the boxes that it waits for, without those that another of them implies."""


_JOIN_ABOVE = 150
"""In a graph with more active resources than this, similar ones share a box."""

_LISTED = 5
"""A box names this many of its resources."""


def boxes_of(graph: Graph) -> list[Box]:
    """Kubernetes objects of one component and wave share a box; in a large graph, so do other similar resources."""

    def group_of(node: Node) -> tuple[object, ...]:
        if node.package == "kubernetes":
            return (node.parent, node.wave)
        if len(graph.active) > _JOIN_ABOVE:
            step = graph.step_of(node)
            return (graph.room(node), node.wave, node.type, step.inputs.get("phase") if step else None)
        return (node.urn,)

    groups: dict[tuple[object, ...], list[Node]] = defaultdict(list)
    for node in graph.active:
        groups[group_of(node)].append(node)
    boxes: list[list[Node]] = []
    for group in groups.values():
        boxes += [group] if len(group) > 2 else [[node] for node in group]
    number = {node.urn: index for index, box in enumerate(boxes) for node in box}
    waits = [sorted({number[urn] for node in box for urn in node.waits_for}) for box in boxes]
    waits = _reduced(waits, [box[0].wave for box in boxes])
    chain = {node.urn for node in graph.longest_chain()}
    return [
        Box(
            urns=tuple(node.urn for node in box),
            title=_title(graph, box),
            lines=_lines(graph, box),
            room=graph.room(box[0]),
            wave=box[0].wave,
            on_chain=any(node.urn in chain for node in box),
            waits_for=tuple(waits[index]),
        )
        for index, box in enumerate(boxes)
    ]


def _title(graph: Graph, box: Sequence[Node]) -> str:
    if len(box) == 1:
        return graph.title(box[0]) if graph.step_of(box[0]) else box[0].name
    phases = {step.inputs.get("phase") for node in box if (step := graph.step_of(node))}
    kinds = phases or {node.short_type for node in box}
    return f"{len(box)} × {kinds.pop() if len(kinds) == 1 else f'{box[0].package} objects'}"


def _lines(graph: Graph, box: Sequence[Node]) -> tuple[str, ...]:
    if len(box) == 1:
        step = graph.step_of(box[0])
        return (step.name if step else box[0].short_type,)
    named = [graph.title(node) for node in box[:_LISTED]]
    return (*named, f"and {len(box) - _LISTED} more") if len(box) > _LISTED else tuple(named)


def _reduced(waits: Sequence[Sequence[int]], waves: Sequence[int]) -> list[list[int]]:
    """Transitive reduction: drops each dependency that another one waits for. Sets of boxes are bits of an integer."""
    behind = [0] * len(waits)
    reduced: list[list[int]] = [[] for _ in waits]
    for index in sorted(range(len(waits)), key=lambda i: waves[i]):
        for dependency in sorted(waits[index], key=lambda i: -waves[i]):
            if not behind[index] >> dependency & 1:
                reduced[index].append(dependency)
                behind[index] |= behind[dependency] | 1 << dependency
    return reduced


ROOM_COLOURS = {
    "machines": "#cfe3ff",
    "network": "#d0f2f2",
    "cluster": "#d5f0d8",
    "calico": "#ffe3c2",
    "multus": "#ecd9ff",
    "workloads": "#ffd6dc",
    "verify": "#fff3b8",
    "pulumi": "#e3e3e3",
}
"""The colour of each room of the lab, the same in every picture."""

_OTHER_COLOURS = ("#f5d7ee", "#dde8c4", "#e6ddd0", "#d3dce6")


def room_colours(boxes: Sequence[Box]) -> dict[str, str]:
    """The colour of every room of a picture, in the order in which they appear. A room without a fixed colour has one
    that follows from its name."""

    def colour(room: str) -> str:
        return ROOM_COLOURS.get(room) or _OTHER_COLOURS[crc32(room.encode()) % len(_OTHER_COLOURS)]

    return {room: colour(room) for room in dict.fromkeys(box.room for box in boxes)}
