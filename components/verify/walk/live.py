"""A walk through a live lab: read the two nodes, ping, walk, and capture the packet where that is asked or needed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from components.verify.expect.probes import Ping, ping_of
from components.verify.model import Topic
from components.verify.policy.model import Policies
from components.verify.policy.read import KINDS, policies
from components.verify.read import api
from components.verify.read.api import NoApi
from components.verify.read.connection import Connection, Unreachable
from components.verify.read.reading import LiveLab, Reading, observed, read_cluster, read_ec2, read_node
from components.verify.walk.capture import Sighting, capture, points
from components.verify.walk.ends import choose_endpoint, ends_on_node, find_ends
from components.verify.walk.model import Walk
from components.verify.walk.route import walk


@dataclass(frozen=True)
class LiveWalk:
    """`sightings`: the packet at each place, where it was captured. `notes`: what could not be read or captured."""

    walk: Walk
    sightings: Sequence[Sighting]
    notes: Sequence[str]


async def walk_live(
    live: LiveLab, source: str, target: str, *, tcp: int | None = None, captured: bool = False
) -> LiveWalk:
    """Walk between two pods or nodes, or from one to an address or a Service, each as a person types it. Raises NoWalk;
    NoApi, because without the API no pod is known. `tcp`: the port of a TCP connection instead of a ping. `captured`:
    capture the packet also where the walk itself shows where it ends."""
    reading, all_policies = await asyncio.gather(read_cluster(live), _policies(live))
    if reading.no_api:
        raise NoApi(reading.no_api)
    nodes = {node.name: str(node.address) for node in live.spec.nodes}
    of_tunnels = observed(live, reading).tunnel_addresses
    tunnels = {address.partition("/")[0]: node for node, found in of_tunnels.items() for address in found.values()}
    ends = find_ends(reading.pods, source, target, nodes=nodes, tunnels=tunnels, services=reading.services, tcp=tcp)
    ping = ping_of(ends.source, ends.address, ends.port)
    notes = [f"policies: {all_policies.unread}"] if all_policies.unread else []
    chosen = ""
    async with AsyncExitStack() as stack:
        connections: dict[str, Connection] = {}

        async def read(node: str, *sent: Ping) -> None:
            try:
                connections[node] = await stack.enter_async_context(live.connect(node))
                await read_node(live, reading, node, connections[node], sent)
            except Unreachable as error:
                reading.unreachable[node] = str(error)
                notes.append(f"{node}: {error}")

        # The source first, which pings: the target then shows what it has learnt from the ping.
        here = ends.source.node
        await read(here, *([ping] if ends.protocol != "udp" else []))
        if here in reading.nodes:
            ends = ends_on_node(ends, reading.nodes[here].interface_with(ends.address) is not None)
        if ends.service is not None:
            seen = reading.nodes[here].field_of(Topic.PROBE, ping.key, "endpoint") if here in reading.nodes else ""
            ends = choose_endpoint(ends, reading.pods, nodes, seen)
            chosen = seen
        for node in ends.nodes:
            if node != here:
                await read(node)
        if live.spec.sends_plain:
            await read_ec2(live, reading)
        found = walk(live, reading, ends, all_policies, chosen=chosen)
        sightings: Sequence[Sighting] = ()
        # Where every hop holds and the packet is lost all the same, only the packet itself can show where.
        if captured or (found.ping.status == "failed" and found.stopped is None):
            try:
                sightings = await _capture(live, reading, found, ping, connections)
            except Unreachable as error:
                notes.append(str(error))
    return LiveWalk(found, sightings, notes)


async def _policies(live: LiveLab) -> Policies:
    try:
        return policies(await api.read(live.kubeconfig, KINDS))
    except NoApi as error:
        return Policies(unread=str(error))


async def _capture(
    live: LiveLab, reading: Reading, found: Walk, ping: Ping, connections: Mapping[str, Connection]
) -> list[Sighting]:
    source = found.source.node
    if found.protocol == "udp":
        raise Unreachable("no capture: UDP gives no answer of its own, so nothing is sent")
    if source not in connections:
        raise Unreachable(f"no capture: {source} does not answer")
    places = [point for point in points(found, observed(live, reading)) if point.node in connections]
    return await capture(connections, places, source, ping)
