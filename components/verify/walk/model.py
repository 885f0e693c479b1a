"""A walk as data: the hops of a packet on its way out and back, and what was checked at each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from components.verify.model import Pod, Result, Status

Kind = Literal[
    "pod route",
    "gateway arp",
    "host veth",
    "bridge",
    "firewall",
    "host route",
    "tunnel",
    "plain",
    "underlay",
    "arrival",
    "delivery",
    "outside",
]
Direction = Literal["out", "back"]


class NoWalk(ValueError):
    """The walk cannot begin; str() says why, and what can be walked."""


@dataclass(frozen=True)
class Packet:
    """The packet as it leaves a hop: its addresses, the outer header's inside a tunnel, and the device's MTU in
    bytes."""

    source: str
    destination: str
    ttl: int
    source_mac: str = ""
    destination_mac: str = ""
    outer_source: str = ""
    outer_destination: str = ""
    mtu: str = ""

    def to_json(self) -> dict[str, Any]:
        """Without what is not known or does not apply."""
        found = {
            "source": self.source,
            "destination": self.destination,
            "ttl": self.ttl,
            "sourceMac": self.source_mac,
            "destinationMac": self.destination_mac,
            "outerSource": self.outer_source,
            "outerDestination": self.outer_destination,
            "mtu": self.mtu,
        }
        return {key: value for key, value in found.items() if value != ""}


@dataclass(frozen=True)
class Hop:
    """One step. `where`: the node, or the pod inside which it happens. `reached`: False for a hop that the packet does
    not reach, because an earlier one failed."""

    direction: Direction
    kind: Kind
    node: str
    where: str
    device: str
    sentence: str
    packet: Packet
    checks: tuple[Result, ...]
    reached: bool = True

    @property
    def status(self) -> Status:
        """Failed where one check failed; else unknown where one is unknown."""
        for status in ("failed", "unknown"):
            if any(check.status == status for check in self.checks):
                return status
        return "passed"

    def to_json(self, stack: str) -> dict[str, Any]:
        return {
            "direction": self.direction,
            "hop": self.kind,
            "node": self.node,
            "where": self.where,
            "device": self.device,
            "sentence": self.sentence,
            "status": self.status if self.reached else "not reached",
            "packet": self.packet.to_json(),
            "checks": [check.to_json(stack) for check in self.checks],
        }


@dataclass(frozen=True)
class Walk:
    """A packet's way from a pod to another pod, or to an address outside of the lab (`target` None), and back.

    `ping`: what happened to a real one.
    """

    source: Pod
    target: Pod | None
    address: str
    ping: Result
    hops: tuple[Hop, ...]

    @property
    def stopped(self) -> Hop | None:
        """The hop at which the packet is lost, or will be once ARP and route caches are old."""
        return next((hop for hop in self.hops if hop.status == "failed"), None)

    def to_json(self, stack: str = "STACK") -> dict[str, Any]:
        """`stack`: its name, for the commands to type."""
        stopped = self.stopped
        return {
            "source": {"pod": self.source.id, "node": self.source.node, "address": self.source.address},
            "target": {"address": self.address}
            | ({"pod": self.target.id, "node": self.target.node} if self.target else {}),
            "ping": self.ping.to_json(stack),
            "stoppedAt": stopped and {"direction": stopped.direction, "hop": stopped.kind, "node": stopped.node},
            "hops": [hop.to_json(stack) for hop in self.hops],
        }
