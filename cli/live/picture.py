"""A walk as an SVG picture: two nodes side by side, the hops down one and up the other, the wire between them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from textwrap import wrap
from xml.sax.saxutils import escape

from components.spec.modes import tunnel_of
from components.verify.walk.model import Hop, Walk

_WIDTH, _MARGIN, _GAP = 560, 24, 140
_LINE, _PAD, _ROW_GAP = 17, 9, 18
_FILL = {"passed": "#e6f4ea", "failed": "#fde7e9", "unknown": "#fff4ce", "not reached": "#f0f0f2"}
_EDGE = {"passed": "#2e7d32", "failed": "#b42318", "unknown": "#9a6700", "not reached": "#b0b4ba"}
_INK, _DIM = "#1f2328", "#57606a"
_CHARS = 74


def picture(stack: str, walk: Walk) -> str:
    """The way out as SVG; one line says whether the way back is as expected."""
    out = [hop for hop in walk.hops if hop.direction == "out"]
    far = walk.target.node if walk.target and walk.target.node != walk.source.node else None
    left = [hop for hop in out if hop.node != far]
    right = [hop for hop in out if hop.node == far]
    top = 112
    left_boxes = _stack(left, _MARGIN, top)
    # The packet goes up on the other side, so the last hop is at the top.
    right_boxes = _stack(right[::-1], _MARGIN + _WIDTH + _GAP, top)
    bottom = max([box.bottom for box in (*left_boxes, *right_boxes)], default=top)
    shift = bottom - max([box.bottom for box in right_boxes], default=bottom)
    right_boxes = [box.moved(shift) for box in right_boxes]
    width = 2 * _MARGIN + _WIDTH + (_GAP + _WIDTH if right else 0)
    back = [hop for hop in walk.hops if hop.direction == "back"]
    height = bottom + (64 if back else 38)
    title = f"{stack}: {walk.source.id} → {walk.title}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        f"<title>{escape(title)}</title>",
        '<defs><marker id="tip" viewBox="0 0 6 6" refX="5" refY="3" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 6 3 0 6z" fill="#1f2328"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="#fcfcfd"/>',
        _text(_MARGIN, 32, title, size=19, weight="bold", room=width - 2 * _MARGIN),
        _text(_MARGIN, 54, _verdict(walk), colour=_verdict_colour(walk), size=14, room=width - 2 * _MARGIN),
        *_node(_MARGIN, top, bottom, walk.source.node, f"{walk.source.id}  {walk.source.address}"),
    ]
    if far and walk.target:
        parts += _node(
            _MARGIN + _WIDTH + _GAP, top, bottom, walk.target.node, f"{walk.target.id}  {walk.target.address}"
        )
    for boxes in (left_boxes, right_boxes):
        parts += [box.svg() for box in boxes]
    parts += [_arrow(a.middle, a.bottom, b.middle, b.top) for a, b in pairwise(left_boxes)]
    parts += [_arrow(b.middle, b.top, a.middle, a.bottom) for a, b in pairwise(right_boxes)]
    if left_boxes and right_boxes:
        tunnel = next((tunnel_of(hop.device) for hop in left if hop.kind == "tunnel"), None)
        wrapped = f"{tunnel.name}, {tunnel.packet_title}" if tunnel else "not wrapped"
        parts += _wire(left_boxes[-1], right_boxes[-1], left[-1], wrapped)
    if back:
        parts.append(_text(_MARGIN, height - 20, _back(back), colour=_DIM, room=width - 2 * _MARGIN))
    return "\n".join([*parts, "</svg>"]) + "\n"


class _Box:
    """The box of one hop, in pixels."""

    def __init__(self, hop: Hop, x: int, top: int) -> None:
        self.hop, self.x, self.top = hop, x, top
        self.lines = _lines(hop)
        self.bottom = top + 2 * _PAD + _LINE * len(self.lines)
        self.middle = x + _WIDTH // 2

    def moved(self, down: int) -> _Box:
        return _Box(self.hop, self.x, self.top + down)

    def svg(self) -> str:
        status = self.hop.status if self.hop.reached else "not reached"
        out = [
            f'<rect x="{self.x + 12}" y="{self.top}" width="{_WIDTH - 24}" height="{self.bottom - self.top}" rx="5" '
            f'fill="{_FILL[status]}" stroke="{_EDGE[status]}" stroke-width="{2 if status == "failed" else 1}"/>'
        ]
        y = self.top + _PAD + 12
        for number, (text, colour, mono) in enumerate(self.lines):
            out.append(
                _text(self.x + 22, y, text, colour=colour, mono=mono, weight="bold" if number == 0 else "normal")
            )
            y += _LINE
        return "".join(out)


def _lines(hop: Hop) -> list[tuple[str, str, bool]]:
    """The text of a box: the hop, the lines seen there, and why it failed, if it did."""
    mtu = f", mtu {hop.packet.mtu}" if hop.packet.mtu else ""
    found = [(f"{hop.kind}: {hop.device}{mtu}, TTL {hop.packet.ttl}", _INK, False)]
    if not hop.reached:
        return [*found, ("not reached", _DIM, False)]
    for check in hop.checks:
        absent = check.expectation.expected is None and check.status == "passed"
        if absent:
            found += _wrapped(check.expectation.sentence, _DIM, False)
        elif check.seen:
            # Of this topic the line is only a value.
            name = f"proxy_arp of {check.expectation.key}: " if check.expectation.topic == "proxy_arp" else ""
            found += _wrapped(name + check.seen, _DIM, True)
        if check.status != "passed":
            found += _wrapped(check.difference, _EDGE[check.status], False)
    return found


def _wrapped(text: str, colour: str, mono: bool) -> list[tuple[str, str, bool]]:
    """Wrapped, because what is cut off may be what matters, but three lines at most."""
    lines = wrap(text, _CHARS, subsequent_indent="\u00a0\u00a0", break_on_hyphens=False, max_lines=3, placeholder=" …")
    return [(line, colour, mono) for line in lines]


def _stack(hops: Sequence[Hop], x: int, top: int) -> list[_Box]:
    boxes: list[_Box] = []
    for hop in hops:
        boxes.append(_Box(hop, x, boxes[-1].bottom + _ROW_GAP if boxes else top))
    return boxes


def _node(x: int, top: int, bottom: int, name: str, pod: str) -> list[str]:
    return [
        f'<rect x="{x}" y="{top - 38}" width="{_WIDTH}" height="{bottom - top + 52}" rx="8" fill="#ffffff" '
        'stroke="#8b949e"/>',
        _text(x + 14, top - 17, name, size=15, weight="bold"),
        _text(x + _WIDTH - 14, top - 17, pod, colour=_DIM, anchor="end", room=_WIDTH - 48 - 10 * len(name)),
    ]


def _arrow(x1: int, y1: int, x2: int, y2: int) -> str:
    return f'<path d="M{x1} {y1}L{x2} {y2}" stroke="{_INK}" stroke-width="1.4" marker-end="url(#tip)"/>'


def _wire(last: _Box, first: _Box, hop: Hop, wrapped: str) -> list[str]:
    """The arrow between the nodes, and the packet on the wire. `wrapped`: its encapsulation."""
    x1, x2 = last.x + _WIDTH - 12, first.x + 12
    y1, y2 = last.bottom - 26, first.bottom - 26
    middle = (x1 + x2) // 2
    packet = hop.packet
    said = [wrapped]
    if packet.outer_source:
        said += [f"{packet.outer_source} →", packet.outer_destination]
    said.append(f"[{packet.source} →")
    said.append(f"{packet.destination}]")
    y = (y1 + y2) // 2
    return [
        _arrow(x1, y1, x2, y2),
        *(
            _text(middle, y - 14 - _LINE * (len(said) - 1 - n), text, anchor="middle", size=11)
            for n, text in enumerate(said)
        ),
    ]


def _verdict(walk: Walk) -> str:
    stopped = walk.stopped
    ping = walk.ping.seen or walk.ping.difference
    if stopped is None:
        return f"ping: {ping}"
    direction = "on the way back " if stopped.direction == "back" else ""
    return f"stops {direction}at the {stopped.kind} of {stopped.node}; ping: {ping}"


def _verdict_colour(walk: Walk) -> str:
    if walk.stopped is not None or walk.ping.status == "failed":
        return _EDGE["failed"]
    return _EDGE[walk.ping.status]


def _back(hops: Sequence[Hop]) -> str:
    lost = next((hop for hop in hops if hop.status == "failed"), None)
    names = " → ".join(hop.kind for hop in hops)
    if not hops[0].reached:
        verdict = "not reached"
    elif lost:
        verdict = f"stops at {lost.kind} of {lost.node}"
    elif any(hop.status == "unknown" for hop in hops):
        verdict = "some of it could not be read"
    else:
        verdict = "holds at every hop"
    return f"The way back ({names}): {verdict}"


def _text(
    x: int,
    y: int,
    text: str,
    *,
    colour: str = _INK,
    size: int = 13,
    weight: str = "normal",
    anchor: str = "start",
    mono: bool = False,
    room: int | None = None,
) -> str:
    """`room`: pixels. A text that is wider gets a smaller font."""
    if room is not None:
        letter = 0.62 if weight == "bold" else 0.55  # of the size
        size = min(size, int(room / (letter * len(text) or 1)))
    font = ' font-family="monospace" ' if mono else " "
    return (
        f'<text x="{x}" y="{y}" fill="{colour}" font-size="{11 if mono else size}" font-weight="{weight}"{font}'
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )
