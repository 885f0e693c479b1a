"""Who gives which address: the blocks, the parts of them, and who has what; and the attached networks."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address
from typing import Any

from components.spec import models
from components.verify.addresses import Block, table
from components.verify.model import Topic
from page.content.source import Source

Json = dict[str, Any]


def blocks(source: Source) -> list[Json]:
    """Every block with its parts, by pool and address. Empty where the API did not say which there are."""
    if any(topic not in source.reading.cluster.topics for topic in (Topic.AFFINITY, Topic.ALLOCATION)):
        return []
    return [_block(block) for block in table(source.live, source.reading)]


def _block(block: Block) -> Json:
    given = block.host_local if block.assigner == "host-local" else block.calico
    parts = [_part(block.assigner, "the rest", given, block.free)]
    for name, (first, last) in block.delegates.items():
        mine = {a: who for a, who in block.host_local.items() if first <= IPv4Address(a) <= last}
        parts.append(_part(name, _span(first, last), mine, int(last) - int(first) + 1 - len(mine)))
    return {
        "pool": block.pool,
        "block": str(block.cidr),
        "node": block.node,
        "parts": parts,
        "collisions": [f"{address}: {why}" for address, why in block.collisions.items()],
    }


def _part(by: str, span: str, given: Mapping[str, str], free: int) -> Json:
    holders = sorted(given.items(), key=lambda entry: IPv4Address(entry[0]))
    return {"by": by, "range": span, "free": free, "given": [list(holder) for holder in holders]}


def _span(first: IPv4Address, last: IPv4Address) -> str:
    """As 10.244.97.50 – .100 where only the last part differs."""
    start, _, end = str(last).rpartition(".")
    return f"{first} – .{end}" if str(first).startswith(f"{start}.") else f"{first} – {last}"


def networks(lab: models.Lab) -> list[list[str]]:
    """The attached networks: name, type, what it is on, subnet, who gives addresses."""
    found = []
    for network in lab.networks:
        on = next((str(getattr(network, key)) for key in ("bridge", "master", "device") if hasattr(network, key)), "")
        if isinstance(network, models.AddressedNetwork):
            found.append([network.name, network.type, on, str(network.subnet), _giver(network)])
        else:
            found.append([network.name, network.type, on, "", "its own configuration"])
    return found


def _giver(network: models.AddressedNetwork) -> str:
    match network.ipam:
        case models.HostLocal():
            return "host-local, each node by itself"
        case models.Whereabouts():
            return "whereabouts, one list for the cluster"
        case models.StaticAddresses():
            return f"static: {', '.join(map(str, network.ipam.addresses))}"
