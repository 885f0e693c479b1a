"""A node in the drawing of a lab: a card with everything in a small lab, with less in a larger one, and a tile in a
very large one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from itertools import count
from typing import Literal

from page.content.things import NodeView, PodView
from page.picture.svg import MONO, attribute, fitted, line, rect, text, title

Detail = Literal["full", "short", "tile"]

_PAD = 12
_ROW, _POD, _SMALL_POD = 22, 38, 18
_MOST_SMALL_PODS, _MOST_SHORT_PODS = 3, 6
_DOT, _DOTS_IN_ROW = 9, 8


@dataclass(frozen=True)
class Ranges:
    """Where a delegate's addresses are in a block: first and last, counted from its start."""

    first: int
    last: int


RangesByPool = Mapping[str, Sequence[Ranges]]


@dataclass
class Numbers:
    """The next pod's number in the drawing, which is its place in the page's list of pods."""

    _counter: Iterator[int]

    @classmethod
    def fresh(cls) -> Numbers:
        return cls(count())

    def next(self) -> int:
        return next(self._counter)


def detail_for(nodes: int) -> Detail:
    """How much a card of a lab with so many nodes shows."""
    return "full" if nodes <= 4 else "short" if nodes <= 16 else "tile"


def height(view: NodeView, detail: Detail) -> float:
    """The height of a node's card."""
    if detail == "tile":
        return 50
    if detail == "short":
        pods = min(len(view.pods), _MOST_SHORT_PODS)
        more = len(view.pods) > _MOST_SHORT_PODS
        return 64 + _SMALL_POD * (pods + more) + 8
    own, others = _split(view.pods)
    rows = 1 + len(view.tunnels) + len(view.bridges)
    small = min(len(others), _MOST_SMALL_PODS) + (len(others) > _MOST_SMALL_PODS) + bool(view.hosted)
    return 36 + _ROW * rows + 30 * len(view.blocks) + _POD * len(own) + _SMALL_POD * small + 14


def card(
    number: int, view: NodeView, detail: Detail, box: tuple[float, float, float, float], ranges: RangesByPool,
    pods: Numbers,
) -> str:  # fmt: skip
    """A node's card in a box: left, top, width, height."""
    x, y, width, tall = box
    kind = "control plane" if view.role == "control-plane" else "worker"
    pods_word = f"{len(view.pods)} pod{'' if len(view.pods) == 1 else 's'}"
    label = f"Node {view.name}, {kind}, {view.address}, {pods_word}"
    if view.problem:
        label += ", could not be read"
    sign = ""
    if view.failed:
        label += f", {view.failed} expectation{'' if view.failed == 1 else 's'} failed"
        sign = _failed_sign(view.failed, x + width, y)
    parts = {"full": _full, "short": _short, "tile": _tile}[detail](view, x, y, width, ranges, pods)
    css = f"node {detail} {view.role}{' unread' if view.problem else ''}{' failed' if view.failed else ''}"
    return (
        f'<g class="{css}" data-node="{number}" role="button" tabindex="-1"{attribute("aria-label", label)}>'
        f"{title(label)}{rect('card', x, y, width, tall, 8)}{''.join(parts)}{sign}</g>"
    )


def _failed_sign(count: int, right: float, top: float) -> str:
    """On the upper edge of the card, over its right corner."""
    words = f"✕ {count}"
    width = 8.5 * len(words) + 10
    left = right - width + 4
    return rect("failed-sign", left, top - 10, width, 18, 9) + text("failed-words", left + 9, top + 3.5, words)


def _split(pods: Sequence[PodView]) -> tuple[list[PodView], list[PodView]]:
    """The lab's own pods and the cluster's."""
    return [pod for pod in pods if pod.own], [pod for pod in pods if not pod.own]


def _badge(view: NodeView, right: float, y: float) -> tuple[str, float]:
    """The node's role in a frame, and its width."""
    words = "control plane" if view.role == "control-plane" else "worker"
    width = 6.1 * len(words) + 12
    drawn = rect("badge", right - width, y - 12, width, 17, 8.5) + text("badge-text", right - width + 6, y, words)
    return drawn, width


# --- everything ------------------------------------------------------------------------------------------------------


def _full(
    view: NodeView, x: float, y: float, width: float, ranges: RangesByPool, pods: Numbers
) -> Iterator[str]:  # fmt: skip
    left, right, inner = x + _PAD, x + width - _PAD, width - 2 * _PAD
    badge, badge_width = _badge(view, right, y + 24)
    yield text("name", left, y + 25, fitted(view.name, inner - badge_width - 6, 15))
    yield badge
    at = y + 36
    yield _device("nic", left, at, inner, view.nic, view.address)
    yield line("wire", x + width / 2, y - 12, x + width / 2, y)
    at += _ROW
    for name, address in view.tunnels:
        yield _device("tunnel", left, at, inner, name, address)
        at += _ROW
    for name, address in view.bridges:
        yield _device("bridge", left, at, inner, name, address)
        at += _ROW
    for cidr, pool in view.blocks:
        yield from _block(cidr, view, left, at, inner, ranges.get(pool, ()))
        at += 30
    own, others = _split(view.pods)
    for pod in own:
        yield _pod(pod, pods.next(), left, at + 4, inner)
        at += _POD
    for position, pod in enumerate(others):
        number = pods.next()
        if position < _MOST_SMALL_PODS:
            yield _small_pod(pod, number, left, at + 4, inner, name=pod.name, address=pod.address or pod.phase)
            at += _SMALL_POD
    if len(others) > _MOST_SMALL_PODS:
        yield text("note", left, at + 16, f"and {len(others) - _MOST_SMALL_PODS} more of the cluster's own")
        at += _SMALL_POD
    if view.hosted:
        yield text("note", left, at + 16, f"{view.hosted} pods on the node's own network")


def _device(css: str, x: float, y: float, width: float, name: str, address: str) -> str:
    size = 11.5
    return (
        rect(f"device {css}", x, y, width, 18, 3)
        + text("device-name", x + 8, y + 13, fitted(name, width / 2, size))
        + f'<text class="mono end" x="{x + width - 8:g}" y="{y + 13:g}">{address}</text>'
    )


def _block(cidr: str, view: NodeView, x: float, y: float, width: float, ranges: Sequence[Ranges]) -> Iterator[str]:
    """A block's range, the parts of delegates, and a mark for each pod in it."""
    network = IPv4Network(cidr)
    scale = width / network.num_addresses
    yield text("block-name", x, y + 13, f"block {cidr}")
    yield rect("block", x, y + 18, width, 7, 2)
    for part in ranges:
        if part.last < network.num_addresses:
            yield rect("range", x + part.first * scale, y + 18, (part.last - part.first + 1) * scale, 7, 0)
    for pod in view.pods:
        if pod.address and IPv4Address(pod.address) in network:
            offset = int(IPv4Address(pod.address)) - int(network[0])
            yield rect("mark", x + offset * scale, y + 17, max(scale, 2), 9, 0)


def _open_pod(pod: PodView, number: int, css: str) -> str:
    extra = "".join(f", {a.interface} {a.address} on {a.network}" for a in pod.attached)
    label = f"Pod {pod.id}, {pod.address or pod.phase}{extra}"
    running = "" if pod.phase == "Running" else " waiting"
    return (
        f'<g class="{css}{running}" data-pod="{number}" role="button" tabindex="-1"{attribute("aria-label", label)}>'
        f"{title(label)}"
    )


def _pod(pod: PodView, number: int, x: float, y: float, width: float) -> str:
    size = 12.5
    attached = "  ".join(f"{a.interface} {a.address}" for a in pod.attached)
    if len(f"{pod.address}  {attached}") > (width - 18) / (11.5 * MONO):
        attached = fitted(" ".join(a.address for a in pod.attached), width - 110, 11.5, mono=True)
    extra = ""
    if attached:
        extra = f'<text class="mono end attached" x="{x + width - 8:g}" y="{y + 28:g}">{_escaped(attached)}</text>'
    return (
        _open_pod(pod, number, "pod")
        + rect("pod-box", x, y, width, 34, 6)
        + text("pod-name", x + 10, y + 14, fitted(pod.name, width - 20, size))
        + text("mono", x + 10, y + 28, pod.address or pod.phase)
        + extra
        + "</g>"
    )


def _small_pod(
    pod: PodView, number: int, x: float, y: float, width: float, *, css: str = "pod system", name: str, address: str
) -> str:
    """A pod in one line. Its whole name and address are in its title."""
    size = 11
    return (
        _open_pod(pod, number, css)
        + rect("pod-box", x, y, width, _SMALL_POD - 2, 4)
        + text("pod-name", x + 6, y + 12, fitted(name, width - 18 - 6.8 * len(address), size))
        + f'<text class="mono end" x="{x + width - 6:g}" y="{y + 12:g}">{_escaped(address)}</text></g>'
    )


def _escaped(words: str) -> str:
    return words.replace("&", "&amp;").replace("<", "&lt;")


# --- less ------------------------------------------------------------------------------------------------------------


def _short(
    view: NodeView, x: float, y: float, width: float, ranges: RangesByPool, pods: Numbers
) -> Iterator[str]:  # fmt: skip
    left, inner = x + 10, width - 20
    first = view.blocks[0][0] if view.blocks else "no block"
    more = f" +{len(view.blocks) - 1}" if len(view.blocks) > 1 else ""
    yield text("name", left, y + 21, fitted(view.name, inner - (20 if view.role == "control-plane" else 0), 13.5))
    if view.role == "control-plane":
        yield text("role end", x + width - 10, y + 20, "CP")
    yield text("mono", left, y + 37, view.address)
    yield text("mono dim", left, y + 53, first + more)
    at = y + 60
    for position, pod in enumerate(view.pods):
        number = pods.next()
        if position < _MOST_SHORT_PODS:
            css = "pod" if pod.own else "pod system"
            where = _in_block(pod.address, view) or pod.phase
            yield _small_pod(
                pod, number, left - 4, at, inner + 8, css=css, name=pod.workload or pod.name, address=where
            )
            at += _SMALL_POD
    if len(view.pods) > _MOST_SHORT_PODS:
        yield text("note", left, at + 13, f"and {len(view.pods) - _MOST_SHORT_PODS} more pods")


def _in_block(address: str, view: NodeView) -> str:
    """The last number of an address in the node's first block, which the card shows; else the whole address."""
    if address and view.blocks:
        block = IPv4Network(view.blocks[0][0])
        if block.prefixlen >= 24 and IPv4Address(address) in block:
            return f".{address.rpartition('.')[2]}"
    return address


def _tile(
    view: NodeView, x: float, y: float, width: float, ranges: RangesByPool, pods: Numbers
) -> Iterator[str]:  # fmt: skip
    yield text("name", x + 8, y + 17, fitted(view.name, width - 14 - (18 if view.role == "control-plane" else 0), 12))
    if view.role == "control-plane":
        yield text("role end", x + width - 7, y + 16, "CP")
    yield text("mono dim", x + 8, y + 31, view.address)
    own, others = _split(view.pods)
    shown = [*own, *others]
    for position, pod in enumerate(shown):
        pods.next()
        if position < _DOTS_IN_ROW:
            yield rect(
                f"dot{'' if pod.own else ' system'}", x + 8 + position * (_DOT + 1.5), y + 37, _DOT - 1, _DOT - 1, 2
            )
    if len(shown) > _DOTS_IN_ROW:
        yield text("note", x + 10 + _DOTS_IN_ROW * (_DOT + 1.5), y + 45, f"+{len(shown) - _DOTS_IN_ROW}")
