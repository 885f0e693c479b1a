"""The same packet at every hop: tcpdump at each place at once, one ping, and what each saw of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.slowdown import scaled
from components.spec.modes import WIREGUARD, Tunnel, tunnel_of
from components.verify.expect.probes import Ping
from components.verify.model import ObservedLab
from components.verify.read.connection import NETNS, Connection, Process, Unreachable, render
from components.verify.read.facts import sections
from components.verify.walk.model import Packet, Walk

_LISTEN_SECONDS = 15.0
_SCRIPT = Path(__file__).with_name("capture.sh")


@dataclass(frozen=True)
class Point:
    """Where to listen. `pod`: the host side of the eth0 of the pod to listen in, "" for the node itself. `filter`:
    as in pcap-filter(7)."""

    node: str
    pod: str
    device: str
    filter: str
    masqueraded: bool = False
    """Whether a node has translated the packet's source before, and perhaps its id."""

    @property
    def where(self) -> str:
        return f"{self.device}{f' of the pod behind {self.pod}' if self.pod else ''} on {self.node}"


@dataclass(frozen=True)
class Sighting:
    """What was seen of the ping at a point. `at`: seconds since the first sighting of the request, None where it was
    not seen. `request`, `reply`: tcpdump's lines, empty where there are none."""

    point: Point
    at: float | None
    request: str
    reply: str

    def to_json(self) -> dict[str, Any]:
        return {
            "node": self.point.node,
            "device": self.point.device,
            "insidePod": self.point.pod or None,
            "filter": self.point.filter,
            "at": self.at,
            "request": self.request,
            "reply": self.reply,
        }


# --- where to listen -------------------------------------------------------------------------------------------------


def points(walk: Walk, lab: ObservedLab) -> Iterator[Point]:
    """Where the packet can be seen on its way out, in the way's order."""
    # What leaves by a bridge, or is masqueraded, has another source address, and on the way out yet another.
    changed = any(hop.kind in ("bridge", "firewall", "outside", "masquerade") for hop in walk.hops)
    sender = "" if changed or walk.source.host_network else f" and host {walk.source.address}"

    def inner_of(packet: Packet) -> str:
        port = f" port {packet.port}" if packet.port else ""
        return f"{packet.protocol}{port} and host {packet.destination}{sender}"

    out = [hop for hop in walk.hops if hop.direction == "out"]
    tunnel = next((tunnel_of(hop.device) for hop in out if hop.kind == "tunnel"), None)
    inside_of = {pod.id: pod.interface for pod in lab.pods}
    listened: set[tuple[str, str, str]] = set()
    translators = {(hop.node, hop.device) for hop in out if hop.kind == "masquerade"}
    masqueraded = False
    for hop in out:
        # What is seen at the device by which the packet leaves the node is translated already.
        masqueraded = masqueraded or (hop.node, hop.device) in translators
        on_the_wire = tunnel is not None and hop.kind in ("underlay", "arrival")
        wrapped = _outer_filter(tunnel) if tunnel and on_the_wire else None
        if wrapped is not None:
            wrapped += f" and host {hop.packet.outer_source} and host {hop.packet.outer_destination}"
        elif on_the_wire and hop.kind == "underlay":
            continue
        if hop.kind == "arrival" and wrapped is not None:
            yield Point(hop.node, "", lab.nics.get(hop.node, ""), wrapped)
            wrapped = None
        inside = inside_of.get(hop.where, "")
        place = (hop.node, inside, hop.device)
        if hop.device and place not in listened:
            listened.add(place)
            yield Point(hop.node, inside, hop.device, wrapped or inner_of(hop.packet), masqueraded)
    if walk.target is not None and not walk.target.host_network and out:
        yield Point(walk.target.node, walk.target.interface, "eth0", inner_of(out[-1].packet), masqueraded)


def _outer_filter(tunnel: Tunnel) -> str | None:
    """A tunnel's packets between the nodes; None where one ping cannot be told from another, being encrypted."""
    if tunnel == WIREGUARD:
        return None
    return f"{tunnel.protocol} port {tunnel.ports[0]}" if tunnel.ports else f"ip proto {tunnel.protocol}"


# --- listening -------------------------------------------------------------------------------------------------------


async def capture(
    connections: Mapping[str, Connection], points: Sequence[Point], source: str, ping: Ping
) -> list[Sighting]:
    """Listen at all points, then ping once from a pod of node `source`. Raises Unreachable."""
    outputs = [""] * len(points)
    processes: dict[str, Process] = {}
    listen = scaled(_LISTEN_SECONDS)
    try:
        for node in dict.fromkeys([*(p.node for p in points if p.node != source), source]):
            lines = [f"{n}|{p.pod}|{p.device}|{p.filter}\n" for n, p in enumerate(points) if p.node == node]
            variables = {
                "POINTS": "".join(lines) or "|||\n",
                "LISTEN_SECONDS": f"{listen:.0f}",
                "PING": ping.key if node == source else "",
            }
            program = render([NETNS, _SCRIPT], variables, stdin="")
            process = await connections[node].start(program, timeout_seconds=4 * listen)
            processes[node] = process
            ready = await asyncio.wait_for(process.readline(), 2 * listen)
            if ready.strip() != "ready":
                printed = (await process.stderr()).strip().splitlines()
                raise Unreachable(f"{node} cannot listen: {printed[-1] if printed else 'it printed nothing'}")
        # The source's was started last, so all listen when it is told to ping.
        for node in reversed(processes):
            processes[node].write("\n")
            processes[node].write_eof()
            text = await asyncio.wait_for(processes[node].read(), 2 * listen)
            for name, section in sections(text).items():
                if name.isdigit():
                    outputs[int(name)] = section.output
    except TimeoutError:
        raise Unreachable(f"the capture ended early: no answer within {2 * listen:.0f} s") from None
    finally:
        for process in processes.values():
            await process.close()
    return sightings(points, outputs)


# --- what tcpdump printed --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CapturedPacket:
    """A ping's packet as `tcpdump -v -e` prints it, its lines joined. `time`: seconds since 1970."""

    time: float
    kind: str
    id: int
    sequence: int
    text: str


_ECHO = re.compile(r"ICMP echo (request|reply), id (\d+), seq (\d+)")


def packets(output: str) -> list[CapturedPacket]:
    """The pings, and the first packets of TCP connections, in tcpdump's output; other packets, and those that were cut
    off, are left out. A connection's `id` is its first sequence number, which no translation changes."""
    joined: list[str] = []
    for line in output.splitlines():
        if re.match(r"\d+\.\d+ ", line):
            joined.append(line.strip())
        elif joined:
            joined[-1] += " " + line.strip()
    found = []
    for text in joined:
        time, _, rest = text.partition(" ")
        if match := _ECHO.search(text):
            found.append(CapturedPacket(float(time), match[1], int(match[2]), int(match[3]), rest))
        elif match := re.search(r"Flags \[S\],.*?\bseq (\d+)", text):
            found.append(CapturedPacket(float(time), "request", int(match[1]), 0, rest))
        elif match := re.search(r"Flags \[(?:S\.|R\.)\],.*?\back (\d+)", text):
            found.append(CapturedPacket(float(time), "reply", (int(match[1]) - 1) % (1 << 32), 0, rest))
    return found


def sightings(points: Sequence[Point], outputs: Sequence[str]) -> list[Sighting]:
    """Each point's view of one and the same ping: the first that the first point saw. `outputs`: tcpdump's, by
    point."""
    captured = [packets(output) for output in outputs]
    first = next((p for of_point in captured for p in of_point if p.kind == "request"), None)
    if first is None:
        return [Sighting(point, None, "", "") for point in points]
    found = []
    for point, of_point in zip(points, captured, strict=True):
        same = {
            p.kind: p
            for p in reversed(of_point)
            if p.sequence == first.sequence and (p.id == first.id or point.masqueraded)
        }
        request, reply = same.get("request"), same.get("reply")
        at = round(request.time - first.time, 6) if request else None
        found.append(Sighting(point, at, request.text if request else "", reply.text if reply else ""))
    return found


_FRAME = re.compile(r"((?:[0-9a-f]{2}:){5}[0-9a-f]{2}) > ((?:[0-9a-f]{2}:){5}[0-9a-f]{2})")
_IP = re.compile(r"ttl (\d+).*?\) (\d+(?:\.\d+){3,4}) > (\d+(?:\.\d+){3,4}):")


def digest(text: str) -> str:
    """tcpdump's line, cut down to MACs, addresses and TTL; the outer header before the inner, and the tunnel's name
    between them."""
    outer, vxlan, inner = text.partition("VXLAN")
    parts: list[str] = []
    for header in (outer, inner) if vxlan else (text,):
        frame = _FRAME.search(header)
        macs = f"{frame[1]} > {frame[2]}" if frame else ""
        packets_in = [f"{ip[2]} > {ip[3]} ttl {ip[1]}" for ip in _IP.finditer(header)]
        if macs and packets_in:
            packets_in[0] = f"{macs}  {packets_in[0]}"
        parts += packets_in or ([macs] if macs else [])
    if not vxlan:
        return "  IPIP  ".join(parts)
    vni = re.search(r"vni (\d+)", inner)
    return f"  VXLAN vni {vni[1] if vni else '?'}  ".join(parts)
