"""The same packet at every hop: tcpdump at each place at once, one ping, and what each saw of it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.verify import facts
from components.verify.read.connection import Connection, Process, Unreachable, render

PATIENCE_SECONDS = 15.0
_SCRIPT = Path(__file__).with_name("capture.sh")


@dataclass(frozen=True)
class Point:
    """Where to listen. `pod`: the host side of the eth0 of the pod to listen in, "" for the node itself."""

    node: str
    pod: str
    device: str
    filter: str

    @property
    def where(self) -> str:
        return f"{self.device}{f' of the pod behind {self.pod}' if self.pod else ''} on {self.node}"


@dataclass(frozen=True)
class Sighting:
    """What a point saw of the ping: seconds since the first sighting, and tcpdump's lines (request and reply)."""

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


@dataclass(frozen=True)
class Seen:
    """One packet as tcpdump -v -e prints it, its lines joined."""

    time: float
    kind: str
    id: int
    sequence: int
    text: str


_ECHO = re.compile(r"ICMP echo (request|reply), id (\d+), seq (\d+)")


def packets(output: str) -> list[Seen]:
    """The pings in tcpdump's output; lines that are none, and packets that were cut, are passed over."""
    joined: list[str] = []
    for line in output.splitlines():
        if re.match(r"\d+\.\d+ ", line):
            joined.append(line.strip())
        elif joined:
            joined[-1] += " " + line.strip()
    found = []
    for text in joined:
        match = _ECHO.search(text)
        if match:
            time, _, rest = text.partition(" ")
            found.append(Seen(float(time), match[1], int(match[2]), int(match[3]), rest))
    return found


_FRAME = re.compile(r"^((?:[0-9a-f]{2}:){5}[0-9a-f]{2}) > ((?:[0-9a-f]{2}:){5}[0-9a-f]{2})")
_IP = re.compile(r"ttl (\d+).*?\) (\d+(?:\.\d+){3,4}) > (\d+(?:\.\d+){3,4}):")


def digest(text: str) -> str:
    """tcpdump's line cut to what a walk is about: MACs, addresses and TTL, the outer header before the inner."""
    parts = []
    outer, vxlan, inner = text.partition("VXLAN")
    for piece in (outer, inner) if vxlan else (text,):
        frame = _FRAME.search(piece) or re.search(_FRAME.pattern.lstrip("^"), piece)
        macs = f"{frame[1]} > {frame[2]}  " if frame else ""
        parts += [f"{macs}{ip[2]} > {ip[3]} ttl {ip[1]}" for ip in _IP.finditer(piece)] or (
            [macs.strip()] if macs else []
        )
        macs = ""
    vni = re.search(r"vni (\d+)", inner)
    return f"  VXLAN vni {vni[1] if vni else '?'}  ".join(parts) if vxlan else "  IPIP  ".join(parts)


def sightings(points: Sequence[Point], outputs: Sequence[str]) -> list[Sighting]:
    """Each point's view of one and the same ping: the first whose identifier the first point saw."""
    seen = [packets(output) for output in outputs]
    first = next((p for of_point in seen for p in of_point if p.kind == "request"), None)
    if first is None:
        return [Sighting(point, None, "", "") for point in points]
    found = []
    for point, of_point in zip(points, seen, strict=True):
        same = {p.kind: p for p in reversed(of_point) if (p.id, p.sequence) == (first.id, first.sequence)}
        request, reply = same.get("request"), same.get("reply")
        at = round(request.time - first.time, 6) if request else None
        found.append(Sighting(point, at, request.text if request else "", reply.text if reply else ""))
    return found


async def capture(
    connections: Mapping[str, Connection], points: Sequence[Point], source: str, ping: tuple[str, str]
) -> list[Sighting]:
    """Listen at all points, ping once from the pod behind `ping[0]` on node `source`. Raises Unreachable."""
    outputs = [""] * len(points)
    sessions: dict[str, Process] = {}
    try:
        for node in dict.fromkeys([*(p.node for p in points if p.node != source), source]):
            lines = [f"{n}|{p.pod}|{p.device}|{p.filter}\n" for n, p in enumerate(points) if p.node == node]
            variables = {
                "POINTS": "".join(lines) or "|||\n",
                "PATIENCE": f"{PATIENCE_SECONDS:.0f}",
                "PING": " ".join(ping) if node == source else "",
            }
            program = render(_SCRIPT, variables, stdin="")
            session = await connections[node].start(program, timeout_seconds=4 * PATIENCE_SECONDS)
            sessions[node] = session
            ready = await asyncio.wait_for(session.readline(), 2 * PATIENCE_SECONDS)
            if ready.strip() != "ready":
                said = (await session.stderr()).strip().splitlines()
                raise Unreachable(f"{node} cannot listen: {said[-1] if said else 'it printed nothing'}")
        # The source was made last: all listen when it is told to ping.
        for node in reversed(sessions):
            sessions[node].write("\n")
            sessions[node].write_eof()
            text = await asyncio.wait_for(sessions[node].read(), 2 * PATIENCE_SECONDS)
            for name, section in facts.sections(text).items():
                if name.isdigit():
                    outputs[int(name)] = section.output
    except TimeoutError:
        raise Unreachable(f"the capture ended early: no answer within {2 * PATIENCE_SECONDS:.0f} s") from None
    finally:
        for session in sessions.values():
            session.close()
    return sightings(points, outputs)
