"""The drawing of a lab: the way out, the router, subnets with their nodes, and what runs from node to node below."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from components.spec.models import AwsMachines, Lab, LocalMachines
from components.spec.modes import VXLAN, VXLAN_VNI
from page.content.things import NodeView
from page.picture.cards import Detail, Numbers, Ranges, card, detail_for, height
from page.picture.svg import attribute, fitted, line, rect, text, title

_GAP, _PAD, _HEAD = 12, 14, 34
_TOP, _BAND = 78, 30
_MANY = 48
"""With more nodes, their tiles are narrower."""


@dataclass(frozen=True)
class Size:
    """The width of a drawing, and the narrowest card for each amount of detail; `dense`: a tile among very many."""

    width: float
    full: float
    short: float
    tile: float

    dense: float

    def narrowest(self, detail: Detail, nodes: int) -> float:
        if detail == "tile" and nodes > _MANY:
            return self.dense
        return {"full": self.full, "short": self.short, "tile": self.tile}[detail]


WIDE = Size(width=820, full=228, short=180, tile=100, dense=82)
NARROW = Size(width=372, full=300, short=156, tile=98, dense=98)


@dataclass(frozen=True)
class _Subnet:
    """A subnet's frame: where it is, how many columns of cards, and its nodes by their numbers."""

    name: str
    cidr: str
    x: float
    y: float
    width: float
    height: float
    columns: int
    nodes: tuple[int, ...]


@dataclass(frozen=True)
class Band:
    """Something that runs from node to node. `kind`: a class of the style sheet."""

    kind: str
    name: str
    words: str


def topology(lab: Lab, stack: str, views: Sequence[NodeView], size: Size, *, sandbox: bool = False) -> str:
    """The drawing. Nodes and pods carry their places in the page's lists as data-node and data-pod. `sandbox`: the
    nodes are network namespaces."""
    detail = detail_for(len(views))
    bands_found = bands(lab, views)
    subnets = _layout(lab, views, detail, size)
    bottom = max(subnet.y + subnet.height for subnet in subnets)
    frame_bottom = bottom + _PAD + (_BAND + 8) * len(bands_found)
    total = frame_bottom + 12
    label = f"The network of {stack}: {len(views)} nodes in {len(subnets)} subnet{'' if len(subnets) == 1 else 's'}"
    described = "; ".join(
        f"subnet {subnet.name} {subnet.cidr} with {', '.join(views[n].name for n in subnet.nodes)}"
        for subnet in subnets
    )
    pods = Numbers.fresh()
    parts = [
        f'<svg class="topology" viewBox="0 0 {size.width:g} {total:g}" role="group"{attribute("aria-label", label)}>',
        f"{title(label)}<desc>{_described(described, bands_found)}</desc>",
        *_outside(_network_words(lab, sandbox), size, frame_bottom),
        *(_frame(subnet, size) for subnet in subnets),
        *_bands(bands_found, size, bottom + _PAD),
    ]
    cards: dict[int, str] = {}
    places = {n: box for subnet in subnets for n, box in _places(subnet, views, detail)}
    ranges: dict[str, list[Ranges]] = {}
    for delegate in lab.multus.delegates if lab.multus else ():
        part = Ranges(delegate.range_start, delegate.range_end)
        ranges.setdefault(lab.pool_of(delegate).name, []).append(part)
    # In the order of the page's lists, which the numbers of pods follow.
    for n, view in enumerate(views):
        cards[n] = card(n, view, detail, places[n], ranges, pods)
    return "\n".join([*parts, *cards.values(), "</svg>"])


def _described(subnets: str, found: Sequence[Band]) -> str:
    words = "; ".join([subnets, *(f"{band.name}, {band.words}" for band in found)])
    return words.replace("&", "&amp;").replace("<", "&lt;")


# --- subnets and cards -----------------------------------------------------------------------------------------------


def _layout(lab: Lab, views: Sequence[NodeView], detail: Detail, size: Size) -> list[_Subnet]:
    """Subnets from left to right as long as their cards fit beside each other, then further down."""
    narrowest = size.narrowest(detail, len(views))
    # Narrow enough that as many subnets as have a node each fit beside each other.
    room = size.width - 2 * _PAD
    columns = max(1, int((room + _GAP) // (narrowest + _GAP)))
    members = {name: tuple(n for n, view in enumerate(views) if view.subnet == name) for name in lab.network.subnets}
    rows: list[list[tuple[str, int]]] = []
    left = 0
    for name, nodes in members.items():
        if not nodes:
            continue
        wanted = min(len(nodes), columns)
        # A frame costs room of its own.
        if wanted > left or not rows:
            rows.append([])
            left = columns
        rows[-1].append((name, wanted))
        left -= wanted
    found: list[_Subnet] = []
    y = float(_TOP)
    for row in rows:
        used = sum(wanted for _, wanted in row)
        gaps = _GAP * (len(row) - 1) + sum(2 * _PAD + _GAP * (wanted - 1) for _, wanted in row)
        width = (room - gaps) / used
        x, tallest = float(_PAD), 0.0
        for name, wanted in row:
            nodes = members[name]
            frame = wanted * width + _GAP * (wanted - 1) + 2 * _PAD
            tall = _HEAD + sum(h + _GAP for h in _row_heights(nodes, wanted, views, detail)) - _GAP + _PAD
            found.append(_Subnet(name, str(lab.network.subnets[name]), x, y, frame, tall, wanted, nodes))
            x, tallest = x + frame + _GAP, max(tallest, tall)
        y += tallest + _GAP
    return found


def _row_heights(nodes: Sequence[int], columns: int, views: Sequence[NodeView], detail: Detail) -> list[float]:
    rows = [nodes[at : at + columns] for at in range(0, len(nodes), columns)]
    return [max(height(views[n], detail) for n in row) for row in rows]


def _places(
    subnet: _Subnet, views: Sequence[NodeView], detail: Detail
) -> Iterator[tuple[int, tuple[float, float, float, float]]]:
    """Each node's box."""
    width = (subnet.width - 2 * _PAD - _GAP * (subnet.columns - 1)) / subnet.columns
    heights = _row_heights(subnet.nodes, subnet.columns, views, detail)
    y = subnet.y + _HEAD
    for row, tall in enumerate(heights):
        for column, n in enumerate(subnet.nodes[row * subnet.columns : (row + 1) * subnet.columns]):
            yield n, (subnet.x + _PAD + column * (width + _GAP), y, width, tall)
        y += tall + _GAP


def _frame(subnet: _Subnet, size: Size) -> str:
    right = subnet.x + subnet.width - _PAD
    return (
        rect("subnet", subnet.x, subnet.y, subnet.width, subnet.height, 10)
        + text("subnet-name", subnet.x + _PAD, subnet.y + 22, f"{subnet.name}")
        + f'<text class="mono dim end" x="{right:g}" y="{subnet.y + 22:g}">{subnet.cidr}</text>'
        + line("wire", subnet.x + subnet.width / 2, _TOP - 16, subnet.x + subnet.width / 2, subnet.y)
    )


# --- above and below -------------------------------------------------------------------------------------------------


def _outside(words: tuple[str, str], size: Size, bottom: float) -> Iterator[str]:
    """The frame of the machines' network, with the router as its upper edge and the way out above it."""
    width = size.width
    name, router = words
    yield rect("vpc", 2, 40, width - 4, bottom - 40, 12)
    yield line("wire", width / 2, 22, width / 2, 46)
    yield rect("outside", width / 2 - 70, 2, 140, 24, 12)
    yield f'<text class="middle outside-text" x="{width / 2:g}" y="18">outside</text>'
    yield rect("router", _PAD, 46, width - 2 * _PAD, 18, 4)
    label = f"{router}; {name}" if width > 500 else router
    yield f'<text class="middle router-text" x="{width / 2:g}" y="59">{fitted(label, width - 60, 11.5)}</text>'


def _network_words(lab: Lab, sandbox: bool) -> tuple[str, str]:
    """What the machines' network is, and what joins its subnets."""
    many = len(lab.network.subnets) > 1
    if sandbox:
        return "network namespaces on one computer", "the sandbox's router"
    if isinstance(lab.machines, AwsMachines):
        return f"VPC {lab.network.vpc_cidr}, internet gateway", "the VPC's router"
    if isinstance(lab.machines, LocalMachines):
        return "containers on this computer", "the router between the subnets" if many else "a bridge of this computer"
    return "existing hosts", "the router between the subnets" if many else "the hosts' switch"


def bands(lab: Lab, views: Sequence[NodeView]) -> list[Band]:
    """What runs from node to node: tunnels, BGP, and networks that several nodes share."""
    found = []
    for tunnel in lab.tunnels:
        words = f"{tunnel.device}, {tunnel.packet_title}" + (f", VNI {VXLAN_VNI}" if tunnel == VXLAN else "")
        pools = [pool for pool in lab.calico.pools if pool.mode.tunnel == tunnel]
        where = (
            "between subnets only"
            if pools and all(p.mode.across_subnets_only for p in pools)
            else "every node to every node"
        )
        found.append(Band("tunnel", tunnel.name, f"{words}: {where}"))
    if not lab.tunnels:
        found.append(Band("plain", "no tunnel", "packets travel with the pods' own addresses"))
    if lab.calico.bgp == "Enabled":
        found.append(Band("bgp", "BGP", f"AS {lab.calico.as_number}: {', '.join(_sessions(lab))}"))
    for network in lab.networks:
        master = getattr(network, "master", None) or getattr(network, "device", None)
        if master is not None:
            pods = sum(a.network == network.name for view in views for pod in view.pods for a in pod.attached)
            subnet = getattr(network, "subnet", "")
            count = f"{pods} pod{'' if pods == 1 else 's'}"
            found.append(Band("shared", network.name, f"{network.type} on {master}, {subnet}: {count}"))
    return found


def _sessions(lab: Lab) -> Iterator[str]:
    """Who is whose BGP peer."""
    calico = lab.calico
    if calico.route_reflectors:
        yield f"every node with {' and '.join(calico.route_reflectors)}"
    elif calico.mesh:
        yield "every node with every node"
    for peer in calico.peers:
        nodes = "nodes" if peer.node_selector == "all()" else f"nodes of {peer.node_selector}"
        yield f"{nodes} with {peer.name} {peer.peer_ip} in AS {peer.as_number}"


def _bands(found: Sequence[Band], size: Size, y: float) -> Iterator[str]:
    for n, band in enumerate(found):
        top = y + n * (_BAND + 8)
        room = size.width - 2 * _PAD
        name_width = 9.4 * len(band.name) + 24
        yield rect(f"band {band.kind}", _PAD, top, room, _BAND, 6)
        yield text("band-name", _PAD + 12, top + 20, band.name)
        yield text("band-words", _PAD + name_width, top + 20, _whole_clauses(band.words, room - name_width - 8))


def _whole_clauses(words: str, width: float) -> str:
    """As many clauses from the beginning as there is room for: a clause that is cut says nothing."""
    size = 12
    ends = [match.start() for match in re.finditer(r"[,:] |$", words)]
    fitting = [words[:end] for end in ends if fitted(words[:end], width, size) == words[:end]]
    return fitting[-1] if fitting else fitted(words, width, size)
