"""A walk as data: the hops of a packet on its way out and back, and what was checked at each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from components.verify.model import Pod, Result, Status
from components.verify.services import ServicePort

Kind = Literal[
    "pod route",
    "gateway arp",
    "host veth",
    "bridge",
    "firewall",
    "service",
    "policy",
    "host route",
    "masquerade",
    "tunnel",
    "plain",
    "underlay",
    "arrival",
    "conntrack",
    "delivery",
    "outside",
]
Direction = Literal["out", "back"]


class NoWalk(ValueError):
    """The walk cannot begin; str() says why, and what can be walked."""


@dataclass(frozen=True)
class Packet:
    """The packet as it leaves a hop: its addresses, the outer header's inside a tunnel, and the device's MTU in
    bytes. `port`: the destination's on the way out, the source's on the way back; 0 for ICMP."""

    source: str
    destination: str
    ttl: int
    source_mac: str = ""
    destination_mac: str = ""
    outer_source: str = ""
    outer_destination: str = ""
    mtu: str = ""
    protocol: str = "icmp"
    port: int = 0

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
            "protocol": self.protocol,
            "port": self.port or "",
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
    """A packet's way from a pod or a node to another, or to an address outside of the lab (`target` None), and back.

    A node is a Pod of the namespace "node" on the host's network. `address`: what the packet is sent to at first; with
    `service` that is the ClusterIP, and `target` the endpoint that the walk follows. `protocol`: icmp, tcp or udp, with
    `port`. `ping`: what happened to a real packet.
    """

    source: Pod
    target: Pod | None
    address: str
    ping: Result
    hops: tuple[Hop, ...]
    service: ServicePort | None = None
    protocol: str = "icmp"
    port: int = 0

    @property
    def stopped(self) -> Hop | None:
        """The hop at which the packet is lost, or will be once ARP and route caches are old."""
        return next((hop for hop in self.hops if hop.status == "failed"), None)

    @property
    def holds(self) -> bool:
        """Whether no hop fails and the packet was answered. UDP has no answer of its own."""
        return self.stopped is None and (self.ping.status == "passed" or self.protocol == "udp")

    @property
    def title(self) -> str:
        """Where it goes, in a few words."""
        if self.service is not None:
            return f"service {self.service.id}:{self.port}"
        end = self.target.id if self.target else self.address
        return f"{end}:{self.port}" if self.port else end

    def to_json(self, stack: str = "STACK") -> dict[str, Any]:
        """`stack`: its name, for the commands to type."""
        stopped = self.stopped
        target: dict[str, Any] = {"address": self.address}
        if self.target:
            target |= {"pod": self.target.id, "node": self.target.node}
        if self.service:
            target |= {"service": self.service.id, "endpoint": self.target.address if self.target else None}
        if self.port:
            target |= {"protocol": self.protocol, "port": self.port}
        return {
            "source": {"pod": self.source.id, "node": self.source.node, "address": self.source.address},
            "target": target,
            "ping": self.ping.to_json(stack),
            "stoppedAt": stopped and {"direction": stopped.direction, "hop": stopped.kind, "node": stopped.node},
            "hops": [hop.to_json(stack) for hop in self.hops],
        }
