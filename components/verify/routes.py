"""Routes as `ip route` prints them, and which of them the kernel takes for an address: the longest prefix, then the
lowest metric."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import NamedTuple

from components.spec.addresses import network_of
from components.verify.model import Entry, Table


class Route(NamedTuple):
    """A route as it was read, with the destination as `ip route` prints it."""

    destination: str
    entry: Entry


def destination_of(cidr: IPv4Network) -> str:
    """A CIDR as `ip route` prints it: a host without its prefix length, 0.0.0.0/0 as default."""
    if cidr.prefixlen == 0:
        return "default"
    return str(cidr.network_address) if cidr.prefixlen == 32 else str(cidr)


def prefix_length(destination: str, address: str) -> int | None:
    """How long a destination's prefix is; None where it does not cover the address, or is no destination of IPv4."""
    try:
        covered = network_of("0.0.0.0/0" if destination == "default" else destination)
    except ValueError:
        return None
    return covered.prefixlen if IPv4Address(address) in covered else None


def first_taken(entries: Sequence[Entry]) -> Entry:
    """Of routes to one destination the one that the kernel takes; of equal ones the first."""
    return min(entries, key=_metric)


def _metric(entry: Entry) -> int:
    text = entry.fields.get("metric", "0")
    return int(text) if text.isdigit() else 0


def best_route(table: Table, address: str) -> Route | None:
    """The route that the kernel takes for an address; of equal ones the first in the table."""
    found: list[tuple[int, int, Route]] = []
    for destination, entries in table.items():
        length = prefix_length(destination, address)
        if length is not None:
            found += [(-length, _metric(entry), Route(destination, entry)) for entry in entries]
    return min(found, key=lambda candidate: candidate[:2])[2] if found else None
