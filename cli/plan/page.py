"""The page of `./lab plan`: the lab in a dozen lines, then the tree of its resources and how they wait for each other.

It fits the console's width without cutting a word.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Sequence
from itertools import zip_longest

from rich.console import Console
from rich.text import Text

from engine.graph import Graph, Node, Row
from engine.model import Deployment

WIDTH = 100
_BEFORE_LABEL = 7
"""Columns of the waves and the space after them."""


def show(
    introduction: Iterable[Text], deployment: Deployment, graph: Graph, notes: Sequence[str], console: Console
) -> None:
    """Introduction, tree with waves, counts by type, longest chain, outputs, and the program's log."""
    for line in introduction:
        _line(console, line)
    _line(console)
    for sentence in sizes(graph):
        _paragraph(console, sentence, "")
    if graph.idle:
        phases = sorted({str(step.inputs.get("phase")) for node in graph.idle if (step := graph.step_of(node))})
        _paragraph(
            console,
            f"Not shown: {count(len(graph.idle), 'step')} ({', '.join(phases)}) that a first `up` passes over; "
            "they run when a version changes.",
            "",
        )
    _line(console)
    _tree(list(graph.tree()), console)

    _heading(console, "Resources by type")
    columns = [f"{number:>5}  {kind}" for kind, number in graph.counts()]
    width = max(map(len, columns), default=0) + 2
    half = (len(columns) + 1) // 2 if 2 * width <= console.width else len(columns)
    for one, other in zip_longest(columns[:half], columns[half:], fillvalue=""):
        _line(console, f"{one:{width}}{other}".rstrip())

    _heading(console, "Longest chain", ": each resource waits for the one before")
    for node in graph.longest_chain():
        _line(console, (f"{node.wave:>5}  ", "cyan"), _short_title(graph, node))

    if deployment.outputs:
        _heading(console, "Outputs")
        for key, value in deployment.outputs.items():
            _paragraph(console, f"{key}: {json.dumps(value, ensure_ascii=False)}")
    if notes:
        _heading(console, "Notes")
        for note in notes:
            _paragraph(console, note)


def sizes(graph: Graph) -> list[str]:
    """How many resources of what kind there are, and what a wave is."""
    providers = sum(node.package == "pulumi" for node in graph.active)
    kinds = [
        f"{len(graph.custom) - providers} made",
        count(len(graph.nodes) - len(graph.custom), "component"),
        count(providers, "provider"),
    ]
    size = f"{count(len(graph.nodes), 'resource')} in {count(graph.wave_count, 'wave')} ({', '.join(kinds)})"
    return [f"{size}. Waves are the order: resources of a wave wait for earlier waves, and not for each other."]


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _tree(rows: Sequence[Row], console: Console) -> None:
    room = console.width - _BEFORE_LABEL - 2
    widest = max((len(row.label) for row in rows), default=0)
    kinds = [row.kind for row in rows]
    if rows and widest + max(map(len, kinds)) > room:
        # The API group of a Kubernetes object is in the list of types.
        kinds = [row.kind.partition(" ")[0] if row.node.package == "kubernetes" else row.kind for row in rows]
    narrow = max((len(kind) for kind in kinds), default=0)
    width = widest if widest + narrow <= room else max(room - narrow, 20)
    _line(console, (f"{'wave':>5}  {'resource':{width}}  type", "dim"))
    for row, kind in zip(rows, kinds, strict=True):
        style = "" if row.node.custom else "bold"
        if len(row.label) <= width:
            _line(console, (f"{row.waves:>5}  ", "cyan"), (f"{row.label:{width}}", style), (f"  {kind}", "dim"))
        else:
            stem = "".join("   " if last else "│  " for last in row.last)
            _line(console, (f"{row.waves:>5}  ", "cyan"), (row.label, style))
            _line(console, " " * _BEFORE_LABEL, f"{stem:{width}}", (f"  {kind}", "dim"))


def _short_title(graph: Graph, node: Node) -> str:
    """The title without the name of the lab, with which the names of all its resources begin."""
    *_, outermost = graph.lineage(node)
    return graph.title(node).replace(f" {outermost.name}-", " ", 1)


def _heading(console: Console, title: str, remark: str = "") -> None:
    _line(console)
    _line(console, (title, "bold"), remark)


def _paragraph(console: Console, text: str, indent: str = "  ") -> None:
    for line in textwrap.wrap(
        text,
        console.width,
        initial_indent=indent,
        subsequent_indent=f"{indent}  " if indent else "",
        break_long_words=False,
        break_on_hyphens=False,
    ):
        _line(console, line)


def _line(console: Console, *parts: str | Text | tuple[str, str]) -> None:
    console.print(Text.assemble(*parts), soft_wrap=True)
