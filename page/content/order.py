"""The order in which a lab is made: the dependency graph's boxes, and the files that each node gets on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.node.script import text_of
from components.spec.names import STEP
from engine.boxes import boxes_of
from engine.graph import Graph
from engine.svg import svg

Json = dict[str, Any]


def order(graph: Graph) -> Json:
    """The drawing, and the boxes in the drawing's order: title, lines, room, wave, boxes that it waits for, whether it
    is on the longest chain."""
    boxes = boxes_of(graph)
    return {
        "resources": len(graph.custom),
        "waves": graph.wave_count,
        "boxes": [
            [box.title, list(box.lines), box.room, box.wave, list(box.waits_for), box.on_chain, box.urns[0]]
            for box in boxes
        ],
    }


def drawing(graph: Graph) -> str:
    """The graph as SVG."""
    return svg(graph, f"{len(graph.custom)} resources in {graph.wave_count} waves")


def written_files(graph: Graph) -> tuple[Mapping[str, list[list[Any]]], list[str]]:
    """The files that the program's steps write on each node: path, mode, number of the text; and the texts, each once.
    Secrets are left out, and what is known after `up` alone is marked."""
    texts: dict[str, int] = {}
    found: dict[str, dict[str, list[Any]]] = {}
    for node in graph.nodes.values():
        files = node.inputs.get("files")
        if node.type != STEP or not isinstance(files, list):
            continue
        for file in files:
            path = str(file["path"])
            text = text_of(path, file["content"])
            number = texts.setdefault(text, len(texts))
            found.setdefault(str(node.inputs["node"]), {})[path] = [path, str(file["mode"]), number]
    return {node: [files[path] for path in sorted(files)] for node, files in found.items()}, list(texts)
