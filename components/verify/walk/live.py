"""A walk through a live lab: read the two nodes, ping, walk, and capture the packet where that is asked or needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from components.verify.expect.probes import Ping
from components.verify.read.api import NoApi
from components.verify.read.connection import Connection, Unreachable
from components.verify.read.reading import LiveLab, Reading, observed, read_cluster, read_ec2, read_node
from components.verify.walk.capture import Sighting, capture, points
from components.verify.walk.ends import find_ends
from components.verify.walk.model import Walk
from components.verify.walk.route import walk


@dataclass(frozen=True)
class LiveWalk:
    """`sightings`: the packet at each place, where it was captured. `notes`: what could not be read or captured."""

    walk: Walk
    sightings: Sequence[Sighting]
    notes: Sequence[str]


async def walk_live(live: LiveLab, source: str, target: str, *, captured: bool = False) -> LiveWalk:
    """Walk between two pods, or from a pod to an address, each as a person types it. Raises NoWalk; NoApi, because
    without the API no pod is known. `captured`: capture the packet also where the walk itself shows where it ends."""
    reading = await read_cluster(live)
    if reading.no_api:
        raise NoApi(reading.no_api)
    ends = find_ends(reading.pods, source, target)
    ping = Ping(ends.source.interface, ends.address)
    notes: list[str] = []
    async with AsyncExitStack() as stack:
        connections: dict[str, Connection] = {}
        for node in ends.nodes:
            # The source first, which pings: the target then shows what it has learnt from the ping.
            try:
                connections[node] = await stack.enter_async_context(live.connect(node))
                await read_node(live, reading, node, connections[node], [ping] if node == ends.source.node else [])
            except Unreachable as error:
                reading.unreachable[node] = str(error)
                notes.append(f"{node}: {error}")
        if live.spec.sends_plain:
            await read_ec2(live, reading)
        found = walk(live, reading, ends)
        sightings: Sequence[Sighting] = ()
        # Where every hop holds and the ping is lost all the same, only the packet itself can show where.
        if captured or (found.ping.status == "failed" and found.stopped is None):
            try:
                sightings = await _capture(live, reading, found, ping, connections)
            except Unreachable as error:
                notes.append(str(error))
    return LiveWalk(found, sightings, notes)


async def _capture(
    live: LiveLab, reading: Reading, found: Walk, ping: Ping, connections: Mapping[str, Connection]
) -> list[Sighting]:
    source = found.source.node
    if source not in connections:
        raise Unreachable(f"no capture: {source} does not answer")
    places = [point for point in points(found, observed(live, reading)) if point.node in connections]
    return await capture(connections, places, source, ping)
