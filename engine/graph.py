"""The graph of a deployment, as values: order, waves, longest chain, tree, and its drawings in Mermaid and SVG.

Input is the list of resources of `plan --json`. Only custom resources take time, so only they have a wave: 1 for
those that wait for nothing, else one more than the latest wave they wait for. They wait for their dependencies,
their provider, and what their components' inputs come from. A component in a dependency list stands for the custom
resources below it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any
from xml.sax.saxutils import escape, quoteattr

STEP_TYPE = "cnilab:node:Step"
STACK_TYPE = "pulumi:pulumi:Stack"
_OWN_PACKAGE = "cnilab"


class GraphError(ValueError):
    """The resources form no graph: an unknown URN, or a cycle."""


@dataclass(frozen=True)
class Node:
    """One resource. `waits_for` holds URNs of custom resources only; `wave` is 0 for components."""

    urn: str
    type: str
    name: str
    parent: str | None
    custom: bool
    inputs: Mapping[str, Any]
    children: tuple[str, ...] = ()
    waits_for: tuple[str, ...] = ()
    wave: int = 0

    @property
    def package(self) -> str:
        return self.type.split(":")[0]

    @property
    def short_type(self) -> str:
        """The type as people say it: aws:ec2/vpc:Vpc is aws:ec2:Vpc, kubernetes:apps/v1:DaemonSet DaemonSet apps/v1."""
        package, _, rest = self.type.partition(":")
        module, _, name = rest.rpartition(":")
        if package == "kubernetes" and module:
            return f"{name} {module.removeprefix('core/')}"
        head, slash, tail = module.rpartition("/")
        if slash and tail.lower() == name.lower():
            module = head
        return ":".join(part for part in (package, "" if module == "index" else module, name) if part)


@dataclass(frozen=True)
class Row:
    """A line of the tree: `depth` 0 is right below the stack, `last` says for each depth whether it ends its branch."""

    node: Node
    waves: str
    kind: str
    last: tuple[bool, ...]

    @property
    def label(self) -> str:
        stem = "".join("   " if last else "│  " for last in self.last[:-1])
        return f"{stem}{'└─ ' if self.last[-1] else '├─ '}{self.node.name}"


@dataclass(frozen=True)
class Graph:
    """`nodes` by URN, in creation order; without the stack itself."""

    nodes: Mapping[str, Node]

    @classmethod
    def of(cls, resources: Sequence[Mapping[str, Any]]) -> Graph:
        """Raises GraphError where a dependency is not among the resources, or where they form a cycle."""
        listed = {r["urn"]: r for r in resources if r["type"] != STACK_TYPE}
        children: dict[str, list[str]] = defaultdict(list)
        for urn, r in listed.items():
            if r["parent"] in listed:
                children[r["parent"]].append(urn)
        custom = {urn: tuple(_custom_below(urn, listed, children)) for urn in listed}

        def waits_for(urn: str) -> tuple[str, ...]:
            wanted: dict[str, None] = {}
            for ancestor in _lineage(urn, listed):
                r = listed[ancestor]
                for dependency in [*r["dependencies"], *([r["provider"]] if r.get("provider") else [])]:
                    if dependency not in custom:
                        raise GraphError(f"{urn} depends on {dependency}, which is not in the graph")
                    wanted |= dict.fromkeys(custom[dependency])
            return tuple(dependency for dependency in wanted if dependency != urn)

        waits = {urn: waits_for(urn) for urn, r in listed.items() if r["custom"]}
        waves = _waves(waits)
        return cls(
            {
                urn: Node(
                    urn=urn,
                    type=r["type"],
                    name=r["name"],
                    parent=r["parent"] if r["parent"] in listed else None,
                    custom=r["custom"],
                    inputs=r["inputs"],
                    children=tuple(children[urn]),
                    waits_for=waits.get(urn, ()),
                    wave=waves.get(urn, 0),
                )
                for urn, r in listed.items()
            }
        )

    @cached_property
    def custom(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes.values() if node.custom)

    @cached_property
    def wave_count(self) -> int:
        return max((node.wave for node in self.custom), default=0)

    def longest_chain(self) -> list[Node]:
        """The custom resources that decide how many waves there are, first to last; the earliest made where equal."""
        chain: list[Node] = []
        candidates: Iterable[Node] = self.custom
        while found := max(candidates, key=lambda node: node.wave, default=None):
            chain.append(found)
            candidates = [self.nodes[urn] for urn in found.waits_for]
        return chain[::-1]

    def counts(self) -> list[tuple[str, int]]:
        """How many resources of each short type, most first."""
        return sorted(Counter(n.short_type for n in self.nodes.values()).items(), key=lambda item: (-item[1], item[0]))

    def step_of(self, node: Node) -> Node | None:
        """The Step whose one command this is."""
        parent = self.nodes.get(node.parent or "")
        return parent if parent and parent.type == STEP_TYPE and len(parent.children) == 1 else None

    def title(self, node: Node) -> str:
        """What a reader calls the resource: a Step by its node and phase, a Kubernetes object by kind and name."""
        step = node if node.type == STEP_TYPE else self.step_of(node)
        if step:
            when = " (when changed)" if step.inputs.get("forChanges") else ""
            return f"{step.inputs.get('phase', step.name)} on {step.inputs.get('node', '?')}{when}"
        metadata = node.inputs.get("metadata")
        name = metadata.get("name") if node.package == "kubernetes" and isinstance(metadata, dict) else None
        return f"{node.type.rpartition(':')[2]} {name or node.name}"

    def room(self, node: Node) -> str:
        """The room of the innermost of our components around it (a Step belongs to who makes it); else its package."""
        for ancestor in self.lineage(node):
            if ancestor.package == _OWN_PACKAGE and ancestor.type != STEP_TYPE:
                _, room, kind = ancestor.type.split(":")
                return kind.lower() if room == "index" else room
        return node.package

    def tree(self) -> Iterator[Row]:
        """Components and what is below them, in the order in which work begins; a Step and its command are one row."""
        yield from self._rows([urn for urn, node in self.nodes.items() if node.parent is None], ())

    def _rows(self, urns: Sequence[str], last: tuple[bool, ...]) -> Iterator[Row]:
        # Components without work come last; the sort keeps creation order where waves are equal.
        urns = sorted(urns, key=lambda urn: self._spans[urn][0] or self.wave_count + 1)
        for urn in urns:
            node = self.nodes[urn]
            here = (*last, urn == urns[-1])
            folded = len(node.children) == 1 and self.step_of(self.nodes[node.children[0]]) is node
            kind = f"Step: {self.title(node)}" if folded else node.short_type
            first, final = self._spans[urn]
            waves = "" if not first else str(first) if first == final else f"{first}-{final}"
            yield Row(node, waves, kind, here)
            if not folded:
                yield from self._rows(node.children, here)

    @cached_property
    def _spans(self) -> dict[str, tuple[int, int]]:
        """The first and the last wave of each resource and what is below it; (0, 0) where nothing is made."""
        spans = {urn: (node.wave, node.wave) for urn, node in self.nodes.items()}
        for node in self.nodes.values():
            for ancestor in self.lineage(node):
                if node.custom and not ancestor.custom:
                    first, final = spans[ancestor.urn]
                    spans[ancestor.urn] = (min(first or node.wave, node.wave), max(final, node.wave))
        return spans

    def lineage(self, node: Node) -> Iterator[Node]:
        """The resource, its parent, and so on up to below the stack."""
        yield node
        while node.parent is not None:
            node = self.nodes[node.parent]
            yield node


def _lineage(urn: str, listed: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The resource, its parent, and so on up."""
    while urn in listed:
        yield urn
        urn = listed[urn]["parent"] or ""


def _custom_below(
    urn: str, listed: Mapping[str, Mapping[str, Any]], children: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """What a dependency on the resource means: itself, or the custom resources of a component (not their children)."""
    if listed[urn]["custom"]:
        yield urn
        return
    for child in children.get(urn, ()):
        yield from _custom_below(child, listed, children)


def _waves(waits: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """Kahn's algorithm: each wave is what waits only for earlier ones."""
    missing = {urn: len(dependencies) for urn, dependencies in waits.items()}
    dependents: dict[str, list[str]] = defaultdict(list)
    for urn, dependencies in waits.items():
        for dependency in dependencies:
            dependents[dependency].append(urn)
    waves: dict[str, int] = {}
    wave, ready = 1, [urn for urn, count in missing.items() if count == 0]
    while ready:
        waves |= dict.fromkeys(ready, wave)
        following = []
        for urn in ready:
            for dependent in dependents[urn]:
                missing[dependent] -= 1
                if missing[dependent] == 0:
                    following.append(dependent)
        wave, ready = wave + 1, following
    if len(waves) < len(waits):
        raise GraphError(f"these resources wait for each other: {' -> '.join(_cycle(waits, waves))}")
    return waves


def _cycle(waits: Mapping[str, Sequence[str]], done: Mapping[str, int]) -> list[str]:
    path: list[str] = []
    urn = next(urn for urn in waits if urn not in done)
    while urn not in path:
        path.append(urn)
        urn = next(dependency for dependency in waits[urn] if dependency not in done)
    return [*path[path.index(urn) :], urn]


# --- blocks: what a drawing shows as one box -------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """One box of a drawing: one or more resources of one wave and room."""

    urns: tuple[str, ...]
    title: str
    lines: tuple[str, ...]
    room: str
    wave: int
    on_chain: bool
    waits_for: tuple[int, ...] = field(default=())
    """Numbers of the blocks it waits for, without those that another of them implies."""


_FEW = 150
"""Up to this many boxes a drawing shows each command, machine and so on by itself."""

_LISTED = 5
"""This many of a group's resources are named in its box."""


def blocks(graph: Graph) -> list[Block]:
    """The boxes: Kubernetes objects that one component makes at one time share one; in a large graph equals do."""

    def alike(node: Node) -> tuple[object, ...]:
        if node.package == "kubernetes":
            return (node.parent, node.wave)
        if len(graph.custom) > _FEW:
            step = graph.step_of(node)
            return (graph.room(node), node.wave, node.type, step.inputs.get("phase") if step else None)
        return (node.urn,)

    groups: dict[tuple[object, ...], list[Node]] = defaultdict(list)
    for node in graph.custom:
        groups[alike(node)].append(node)
    boxes: list[list[Node]] = []
    for group in groups.values():
        boxes += [group] if len(group) > 2 else [[node] for node in group]
    number = {node.urn: index for index, box in enumerate(boxes) for node in box}
    waits = [sorted({number[urn] for node in box for urn in node.waits_for}) for box in boxes]
    waits = _reduced(waits, [box[0].wave for box in boxes])
    chain = {node.urn for node in graph.longest_chain()}
    return [
        Block(
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
    """Transitive reduction: drop what another dependency waits for anyway. Sets of boxes are bits of an integer."""
    behind = [0] * len(waits)
    reduced: list[list[int]] = [[] for _ in waits]
    for index in sorted(range(len(waits)), key=lambda i: waves[i]):
        for dependency in sorted(waits[index], key=lambda i: -waves[i]):
            if not behind[index] >> dependency & 1:
                reduced[index].append(dependency)
                behind[index] |= behind[dependency] | 1 << dependency
    return reduced


_COLOURS = (
    "#cfe3ff", "#d5f0d8", "#ffe3c2", "#ecd9ff", "#ffd6dc", "#d0f2f2", "#fff3b8", "#e3e3e3", "#f5d7ee", "#dde8c4",
)  # fmt: skip


def _room_colours(boxes: Sequence[Block]) -> dict[str, str]:
    rooms = dict.fromkeys(box.room for box in boxes)
    return {room: _COLOURS[index % len(_COLOURS)] for index, room in enumerate(rooms)}


# --- Mermaid ---------------------------------------------------------------------------------------------------------


def mermaid(graph: Graph) -> str:
    """A flowchart with one subgraph for each room."""
    boxes = blocks(graph)
    lines = ["flowchart LR"]
    colours = _room_colours(boxes)
    for room in colours:
        lines.append(f"  subgraph room_{_word(room)}[{_quoted(room)}]")
        for index, box in enumerate(boxes):
            if box.room == room:
                text = "<br/>".join([box.title, *box.lines, f"wave {box.wave}"])
                lines.append(f"    n{index}[{_quoted(text)}]")
        lines.append("  end")
    for index, box in enumerate(boxes):
        for source in sorted(box.waits_for):
            arrow = "==>" if box.on_chain and boxes[source].on_chain else "-->"
            lines.append(f"  n{source} {arrow} n{index}")
    for room, colour in colours.items():
        lines.append(f"  style room_{_word(room)} fill:{colour},stroke:#888,color:#222")
    return "\n".join(lines) + "\n"


def _word(text: str) -> str:
    return re.sub(r"\W", "_", text)


def _quoted(text: str) -> str:
    text = text.replace("&", "#amp;").replace('"', "#quot;")
    # Angle brackets are markup to Mermaid, but for the line breaks we mean.
    return '"' + re.sub(r"<(?!br/>)", "#lt;", text) + '"'


# --- SVG -------------------------------------------------------------------------------------------------------------

_FONT, _CHAR, _LINE = 11, 6.8, 14
_PAD, _COLUMN_GAP, _ROW_GAP, _TOP = 8, 56, 12, 74
_LONGEST_LABEL = 38


@dataclass
class _Cell:
    """A place in a column: a box, or (without one) a point where an edge crosses the column."""

    column: int
    height: float
    block: Block | None = None
    before: list[_Cell] = field(default_factory=list)
    after: list[_Cell] = field(default_factory=list)
    y: float = 0.0

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


def svg(graph: Graph, title: str) -> str:
    """Columns are waves, left to right; edges run through free places in between; the longest chain is bold."""
    boxes = blocks(graph)
    columns, edges = _cells(boxes)
    _order(columns)
    _place(columns)
    widths = [max(_box_width(cell.block) for cell in column if cell.block) for column in columns]
    lefts = [_COLUMN_GAP / 2 + sum(widths[:i]) + i * _COLUMN_GAP for i in range(len(columns))]
    colours = _room_colours(boxes)
    legend_width = sum(len(room) * _CHAR + 34 for room in colours)
    columns_width = lefts[-1] + widths[-1] + _COLUMN_GAP / 2 if columns else 0
    width = max(legend_width + 20, len(title) * 9 + 20, columns_width)
    height = max((cell.y + cell.height for column in columns for cell in column), default=_TOP) + 20
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="sans-serif" font-size="{_FONT}">',
        f"<title>{escape(title)}</title>",
        '<defs><marker id="tip" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="6" markerHeight="6" orient="auto">'
        '<path d="M0 0 6 3 0 6z" fill="context-stroke"/></marker></defs>',
        # Its own background, so that it reads the same on a dark page.
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#fcfcfd"/>',
        f'<text x="10" y="22" font-size="16" font-weight="bold" fill="#1f2328">{escape(title)}</text>',
        *_legend(colours),
        *(
            f'<text x="{left:.0f}" y="{_TOP - 8}" fill="#6b7280">wave {index + 1}</text>'
            for index, left in enumerate(lefts)
        ),
        *(_edge(path, lefts, widths, bold) for path, bold in sorted(edges, key=lambda edge: edge[1])),
    ]
    for column, left, box_width in zip(columns, lefts, widths, strict=True):
        out += [_box(cell, cell.block, left, box_width, colours) for cell in column if cell.block]
    return "\n".join([*out, "</svg>"]) + "\n"


def _cells(boxes: Sequence[Block]) -> tuple[list[list[_Cell]], list[tuple[list[_Cell], bool]]]:
    """Columns of cells, and each edge as the cells it runs through, with whether it is on the longest chain."""
    columns: list[list[_Cell]] = [[] for _ in range(max((box.wave for box in boxes), default=0))]
    cells = [_Cell(box.wave - 1, _LINE * (1 + len(box.lines)) + _PAD, box) for box in boxes]
    for cell in cells:
        columns[cell.column].append(cell)
    edges: list[tuple[list[_Cell], bool]] = []
    for target in cells:
        for source in (cells[index] for index in (target.block.waits_for if target.block else ())):
            between = [_Cell(column, 2) for column in range(source.column + 1, target.column)]
            for cell in between:
                columns[cell.column].append(cell)
            path = [source, *between, target]
            for left, right in pairwise(path):
                left.after.append(right)
                right.before.append(left)
            bold = bool(source.block and target.block and source.block.on_chain and target.block.on_chain)
            edges.append((path, bold))
    return columns, edges


def _order(columns: list[list[_Cell]]) -> None:
    """Fewer crossings: each cell at the mean place of its neighbours, swept forth and back (barycentre heuristic)."""
    for _ in range(6):
        for sweep, side in ((columns, "before"), (columns[::-1], "after")):
            rank = {id(cell): float(index) for column in columns for index, cell in enumerate(column)}
            for column in sweep:
                wished = {id(c): _mean([rank[id(n)] for n in getattr(c, side)], rank[id(c)]) for c in column}
                # What has no edge at all goes below the rest.
                column.sort(key=lambda cell: (not cell.before and not cell.after, wished[id(cell)]))
                rank |= {id(cell): float(index) for index, cell in enumerate(column)}


def _place(columns: list[list[_Cell]]) -> None:
    """Heights: each cell as near the mean of its neighbours as order and distance allow."""
    for column in columns:
        _stack(column, 0.0)
    for _ in range(8):
        for sweep, side in ((columns, "before"), (columns[::-1], "after")):
            for column in sweep:
                linked = [cell for cell in column if cell.before or cell.after]
                _settle(linked, [_mean([n.middle for n in getattr(c, side)], c.middle) - c.height / 2 for c in linked])
                _stack(column[len(linked) :], linked[-1].y + linked[-1].height + _ROW_GAP if linked else 0.0)
    top = min((cell.y for column in columns for cell in column), default=0.0)
    for column in columns:
        for cell in column:
            cell.y += _TOP - top


def _stack(cells: Sequence[_Cell], y: float) -> None:
    for cell in cells:
        cell.y, y = y, y + cell.height + _ROW_GAP


def _settle(cells: Sequence[_Cell], wished: Sequence[float]) -> None:
    """The places nearest to the wished ones (least squares) at which no two cells overlap.

    Less the height of what is above, places must only not decrease: isotonic regression by pooling neighbours.
    """
    above = 0.0
    pools: list[tuple[float, int]] = []  # mean and size
    offsets = []
    for cell, wish in zip(cells, wished, strict=True):
        offsets.append(above)
        pool = (wish - above, 1)
        while pools and pools[-1][0] > pool[0]:
            mean, size = pools.pop()
            pool = ((mean * size + pool[0] * pool[1]) / (size + pool[1]), size + pool[1])
        pools.append(pool)
        above += cell.height + _ROW_GAP
    places = [mean for mean, size in pools for _ in range(size)]
    for cell, place, offset in zip(cells, places, offsets, strict=True):
        cell.y = place + offset


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _legend(colours: Mapping[str, str]) -> Iterator[str]:
    x = 10.0
    for room, colour in colours.items():
        yield f'<rect x="{x:.0f}" y="32" width="14" height="12" rx="2" fill="{colour}" stroke="#8b949e"/>'
        yield f'<text x="{x + 19:.0f}" y="42" fill="#1f2328">{escape(room)}</text>'
        x += len(room) * _CHAR + 34


def _edge(path: Sequence[_Cell], lefts: Sequence[float], widths: Sequence[float], bold: bool) -> str:
    x, y = lefts[path[0].column] + widths[path[0].column], path[0].middle
    d = f"M{x:.1f} {y:.1f}"
    for cell in path[1:]:
        left, bend = lefts[cell.column], _COLUMN_GAP / 2
        d += f"C{x + bend:.1f} {y:.1f} {left - bend:.1f} {cell.middle:.1f} {left:.1f} {cell.middle:.1f}"
        x, y = left, cell.middle
        if cell.block is None:
            x += widths[cell.column]
            d += f"H{x:.1f}"
    stroke = 'stroke="#b42318" stroke-width="1.8"' if bold else 'stroke="#8b949e" stroke-width="1"'
    return f'<path d="{d}" fill="none" {stroke} marker-end="url(#tip)"/>'


def _box(cell: _Cell, block: Block, left: float, width: float, colours: Mapping[str, str]) -> str:
    border = 'stroke="#b42318" stroke-width="1.6"' if block.on_chain else 'stroke="#8b949e"'
    texts = [
        f'<text x="{left + _PAD:.1f}" y="{cell.y + _LINE:.1f}" font-weight="600" fill="#1f2328">'
        f"{escape(_cut(block.title))}</text>"
    ]
    for index, line in enumerate(block.lines):
        texts.append(
            f'<text x="{left + _PAD:.1f}" y="{cell.y + _LINE * (index + 2):.1f}" fill="#57606a">'
            f"{escape(_cut(line))}</text>"
        )
    return (
        f"<g id={quoteattr(block.urns[0])}><title>{escape(chr(10).join(block.urns))}</title>"
        f'<rect x="{left:.1f}" y="{cell.y:.1f}" width="{width:.1f}" height="{cell.height:.1f}" rx="4" '
        f'fill="{colours[block.room]}" {border}/>{"".join(texts)}</g>'
    )


def _box_width(block: Block) -> float:
    return max(len(_cut(text)) for text in (block.title, *block.lines)) * _CHAR + 2 * _PAD


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 1] + "…"
