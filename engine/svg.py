"""The graph as an SVG drawing, laid out here so that no other program is needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from xml.sax.saxutils import escape, quoteattr

from engine.boxes import Box, boxes_of, room_colours
from engine.graph import Graph

_FONT, _CHAR, _LINE = 11, 6.8, 14
_PAD, _COLUMN_GAP, _ROW_GAP, _TOP = 8, 56, 12, 74
_LONGEST_LABEL = 38
_LINES = {"waits for": 'stroke="#8b949e" stroke-width="1"', "longest chain": 'stroke="#b42318" stroke-width="1.8"'}
"""How each kind of edge is drawn."""


@dataclass
class _Cell:
    """An entry of a column: a box, or, without one, a point where an edge crosses the column."""

    column: int
    height: float
    box: Box | None = None
    before: list[_Cell] = field(default_factory=list)
    after: list[_Cell] = field(default_factory=list)
    y: float = 0.0

    @property
    def middle(self) -> float:
        return self.y + self.height / 2


def svg(graph: Graph, title: str) -> str:
    """Columns are waves, from left to right. Edges run through the gaps between boxes. The longest chain is bold."""
    boxes = boxes_of(graph)
    columns, edges = _cells(boxes)
    _reduce_crossings(columns)
    _set_heights(columns)
    widths = [max(_box_width(cell.box) for cell in column if cell.box) for column in columns]
    lefts = [_COLUMN_GAP / 2 + sum(widths[:i]) + i * _COLUMN_GAP for i in range(len(columns))]
    colours = room_colours(boxes)
    legend_width = sum(len(text) * _CHAR + 34 for text in (*colours, *_LINES))
    columns_width = lefts[-1] + widths[-1] + _COLUMN_GAP / 2 if columns else 0
    width = max(legend_width + 20, len(title) * 9 + 20, columns_width)
    height = max((cell.y + cell.height for column in columns for cell in column), default=_TOP) + 20
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="sans-serif" font-size="{_FONT}">',
        f"<title>{escape(title)}</title>",
        '<defs><marker id="tip" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="6" markerHeight="6" orient="auto">'
        '<path d="M0 0 6 3 0 6z" fill="context-stroke"/></marker></defs>',
        # A background of its own keeps it readable on a dark page.
        f'<rect width="{width:.0f}" height="{height:.0f}" fill="#fcfcfd"/>',
        f'<text x="10" y="22" font-size="16" font-weight="bold" fill="#1f2328">{escape(title)}</text>',
        *_legend(colours, any(bold for _, bold in edges)),
        *(
            f'<text x="{left:.0f}" y="{_TOP - 8}" fill="#6b7280">wave {index + 1}</text>'
            for index, left in enumerate(lefts)
        ),
        *(_edge(path, lefts, widths, bold) for path, bold in sorted(edges, key=lambda edge: edge[1])),
    ]
    for column, left, box_width in zip(columns, lefts, widths, strict=True):
        out += [_box(cell, cell.box, left, box_width, colours) for cell in column if cell.box]
    return "\n".join([*out, "</svg>"]) + "\n"


def _cells(boxes: Sequence[Box]) -> tuple[list[list[_Cell]], list[tuple[list[_Cell], bool]]]:
    """Columns of cells, and each edge as the cells it runs through, with whether it is on the longest chain."""
    columns: list[list[_Cell]] = [[] for _ in range(max((box.wave for box in boxes), default=0))]
    cells = [_Cell(box.wave - 1, _LINE * (1 + len(box.lines)) + _PAD, box) for box in boxes]
    for cell in cells:
        columns[cell.column].append(cell)
    edges: list[tuple[list[_Cell], bool]] = []
    for target in cells:
        for source in (cells[index] for index in (target.box.waits_for if target.box else ())):
            between = [_Cell(column, 2) for column in range(source.column + 1, target.column)]
            for cell in between:
                columns[cell.column].append(cell)
            path = [source, *between, target]
            for left, right in pairwise(path):
                left.after.append(right)
                right.before.append(left)
            bold = bool(source.box and target.box and source.box.on_chain and target.box.on_chain)
            edges.append((path, bold))
    return columns, edges


def _reduce_crossings(columns: list[list[_Cell]]) -> None:
    """Sorts each column by the mean position of its neighbours, forwards and backwards (barycentre heuristic)."""
    for _ in range(6):
        for sweep, side in ((columns, "before"), (columns[::-1], "after")):
            rank = {id(cell): float(index) for column in columns for index, cell in enumerate(column)}
            for column in sweep:
                targets = {id(c): _mean([rank[id(n)] for n in getattr(c, side)], rank[id(c)]) for c in column}
                # Cells without any edge go below the rest.
                column.sort(key=lambda cell: (not cell.before and not cell.after, targets[id(cell)]))
                rank |= {id(cell): float(index) for index, cell in enumerate(column)}


def _set_heights(columns: list[list[_Cell]]) -> None:
    """Sets each y: as near the mean of the neighbours as order and distance allow."""
    for column in columns:
        _stack(column, 0.0)
    for _ in range(8):
        for sweep, side in ((columns, "before"), (columns[::-1], "after")):
            for column in sweep:
                linked = [cell for cell in column if cell.before or cell.after]
                _fit(linked, [_mean([n.middle for n in getattr(c, side)], c.middle) - c.height / 2 for c in linked])
                _stack(column[len(linked) :], linked[-1].y + linked[-1].height + _ROW_GAP if linked else 0.0)
    top = min((cell.y for column in columns for cell in column), default=0.0)
    for column in columns:
        for cell in column:
            cell.y += _TOP - top


def _stack(cells: Sequence[_Cell], y: float) -> None:
    for cell in cells:
        cell.y, y = y, y + cell.height + _ROW_GAP


def _fit(cells: Sequence[_Cell], targets: Sequence[float]) -> None:
    """Sets each y as near as possible (least squares) to its target, without overlaps.

    Once the height of the cells above is subtracted, the values must not decrease: isotonic regression, by pooling
    neighbours that are out of order.
    """
    above = 0.0
    pools: list[tuple[float, int]] = []  # mean and size
    offsets = []
    for cell, target in zip(cells, targets, strict=True):
        offsets.append(above)
        pool = (target - above, 1)
        while pools and pools[-1][0] > pool[0]:
            mean, size = pools.pop()
            pool = ((mean * size + pool[0] * pool[1]) / (size + pool[1]), size + pool[1])
        pools.append(pool)
        above += cell.height + _ROW_GAP
    fitted = [mean for mean, size in pools for _ in range(size)]
    for cell, value, offset in zip(cells, fitted, offsets, strict=True):
        cell.y = value + offset


def _mean(values: Sequence[float], otherwise: float) -> float:
    return sum(values) / len(values) if values else otherwise


def _legend(colours: Mapping[str, str], chain: bool) -> Iterator[str]:
    x = 10.0
    for room, colour in colours.items():
        yield f'<rect x="{x:.0f}" y="32" width="14" height="12" rx="2" fill="{colour}" stroke="#8b949e"/>'
        yield f'<text x="{x + 19:.0f}" y="42" fill="#1f2328">{escape(room)}</text>'
        x += len(room) * _CHAR + 34
    for text, stroke in _LINES.items() if chain else ():
        yield f'<path d="M{x:.0f} 38h14" fill="none" {stroke}/>'
        yield f'<text x="{x + 19:.0f}" y="42" fill="#1f2328">{text}</text>'
        x += len(text) * _CHAR + 34


def _edge(path: Sequence[_Cell], lefts: Sequence[float], widths: Sequence[float], bold: bool) -> str:
    x, y = lefts[path[0].column] + widths[path[0].column], path[0].middle
    d = f"M{x:.1f} {y:.1f}"
    for cell in path[1:]:
        left, bend = lefts[cell.column], _COLUMN_GAP / 2
        d += f"C{x + bend:.1f} {y:.1f} {left - bend:.1f} {cell.middle:.1f} {left:.1f} {cell.middle:.1f}"
        x, y = left, cell.middle
        if cell.box is None:
            x += widths[cell.column]
            d += f"H{x:.1f}"
    stroke = _LINES["longest chain"] if bold else _LINES["waits for"]
    return f'<path d="{d}" fill="none" {stroke} marker-end="url(#tip)"/>'


def _box(cell: _Cell, box: Box, left: float, width: float, colours: Mapping[str, str]) -> str:
    border = 'stroke="#b42318" stroke-width="1.6"' if box.on_chain else 'stroke="#8b949e"'
    texts = [
        f'<text x="{left + _PAD:.1f}" y="{cell.y + _LINE:.1f}" font-weight="600" fill="#1f2328">'
        f"{escape(_cut(box.title))}</text>"
    ]
    for index, line in enumerate(box.lines):
        texts.append(
            f'<text x="{left + _PAD:.1f}" y="{cell.y + _LINE * (index + 2):.1f}" fill="#57606a">'
            f"{escape(_cut(line))}</text>"
        )
    return (
        f"<g id={quoteattr(box.urns[0])}><title>{escape(chr(10).join(box.urns))}</title>"
        f'<rect x="{left:.1f}" y="{cell.y:.1f}" width="{width:.1f}" height="{cell.height:.1f}" rx="4" '
        f'fill="{colours[box.room]}" {border}/>{"".join(texts)}</g>'
    )


def _box_width(box: Box) -> float:
    return max(len(_cut(text)) for text in (box.title, *box.lines)) * _CHAR + 2 * _PAD


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_LABEL else text[: _LONGEST_LABEL - 1] + "…"
