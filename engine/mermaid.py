"""The graph as a Mermaid flowchart."""

from __future__ import annotations

import re

from engine.boxes import boxes_of, room_colours
from engine.graph import Graph


def mermaid(graph: Graph) -> str:
    """A flowchart with one subgraph for each room, and a legend."""
    boxes = boxes_of(graph)
    lines = ["flowchart LR"]
    colours = room_colours(boxes)
    for room in colours:
        lines.append(f"  subgraph room_{word(room)}[{quoted(room)}]")
        for index, box in enumerate(boxes):
            if box.room == room:
                text = "<br/>".join([box.title, *box.lines, f"wave {box.wave}"])
                lines.append(f"    n{index}[{quoted(text)}]")
        lines.append("  end")
    for index, box in enumerate(boxes):
        for source in sorted(box.waits_for):
            arrow = "==>" if box.on_chain and boxes[source].on_chain else "-->"
            lines.append(f"  n{source} {arrow} n{index}")
    if boxes:
        lines += [
            '  subgraph legend["legend"]',
            '    legend_a["waits for nothing"] --> legend_b["waits for the box at the arrow\'s start"]',
            '    legend_c["on the longest chain"] ==> legend_d["on the longest chain too"]',
            "  end",
        ]
    for room, colour in colours.items():
        lines.append(f"  style room_{word(room)} fill:{colour},stroke:#888,color:#222")
    return "\n".join(lines) + "\n"


def word(text: str) -> str:
    """The text as a part of an identifier."""
    return re.sub(r"\W", "_", text)


def quoted(text: str) -> str:
    """The text as a label; `<br/>` breaks the line."""
    text = text.replace("&", "#amp;").replace('"', "#quot;")
    # Angle brackets are markup to Mermaid, but for the line breaks we mean.
    return '"' + re.sub(r"<(?!br/>)", "#lt;", text) + '"'
