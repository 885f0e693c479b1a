"""A packet on its way in one direction: where it is, what it looks like, and the hops that it has made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from components.verify.model import EntryKey, Expectation, ObservedLab, Pod, Result, Scope, Topic
from components.verify.nat.evaluate import outcomes
from components.verify.nat.model import Flow, Outcome
from components.verify.policy.model import Policies
from components.verify.read.reading import Reading
from components.verify.report import compare, judge
from components.verify.routes import Route
from components.verify.walk.model import Direction, Hop, Kind, Packet

INITIAL_TTL = 64
_DROPPING = ("blackhole", "unreachable", "prohibit")
"""Types of routes that lead nowhere."""


@dataclass
class Trace:
    """`source`: the pod or node that sends; a firewall takes its place. `address`: where the packet goes now, and
    `sender`: whom it comes from; both change where a node translates them. `sent`: whether the source is known to have
    sent it. `ttl`, `port`, `mark`: the packet's."""

    lab: ObservedLab
    reading: Reading
    known: Mapping[EntryKey, Expectation]
    policies: Policies
    direction: Direction
    source: Pod
    address: str
    sender: str = ""
    sent: bool = False
    protocol: str = "icmp"
    port: int = 0
    ttl: int = INITIAL_TTL
    mark: int = 0
    inbound: str = ""
    hops: list[Hop] = field(default_factory=list)

    # --- what was read ---

    def scope(self, node: str, pod: str | None = None) -> Scope:
        """What was read of a node, or of a pod on it by its host side; nothing where it could not be read."""
        facts = self.reading.nodes.get(node)
        if facts is None:
            return Scope()
        return facts.pods.get(pod, Scope()) if pod else facts

    def mac(self, node: str, device: str, pod: str | None = None) -> str:
        return self.scope(node, pod).field_of(Topic.LINK, device, "address")

    def address_of(self, node: str, device: str) -> str:
        """The address with which a node sends by a device: the device's own, else that of the node."""
        own = self.scope(node).field_of(Topic.LINK, device, "addresses").split()
        return own[0].partition("/")[0] if own else self.lab.addresses.get(node, "")

    # --- what must be true ---

    def expected(self, topic: Topic, key: str, node: str | None) -> list[Expectation]:
        """The lab's expectation for an entry, if there is one."""
        found = self.known.get(EntryKey(topic, key, node))
        return [found] if found else []

    def compared(self, *found: Expectation) -> list[Result]:
        return compare(found, self.reading)

    def compared_route(self, expectation: Expectation, scope: Scope, found: Route | None, address: str = "") -> Result:
        """The route that was chosen, whatever its destination, against the one that must be. `address`: which it is to
        lead to, where that is not the packet's."""
        if expectation.topic not in scope.topics:
            return self.compared(expectation)[0]
        if found is None:
            return Result(expectation, "failed", "(nothing)", f"no route leads to {address or self.address}")
        kind = found.entry.fields.get("type", "")
        if kind in _DROPPING and "type" not in (expectation.expected or {}):
            return Result(expectation, "failed", found.entry.line, f"this route drops the packet ({kind})")
        enter, get, _ = expectation.command.partition("ip route get ")
        if get:
            # That prints no line of the table. This one is shown.
            expectation = replace(expectation, command=f"{enter}ip route show {found.destination}")
        return judge(expectation, [found.entry])

    # --- translation ---

    def outcomes(self, node: str, hook: str, *, outbound: str = "", kind: str = "nat") -> list[Outcome] | None:
        """What the node's rules may do to the packet at a hook; None where they could not be read."""
        facts = self.reading.nodes.get(node)
        if facts is None or Topic.NAT in facts.unread:
            return None
        flow = Flow(self.protocol, self.sender, self.address, self.port, self.inbound, outbound, self.mark)
        return outcomes(facts.rules, flow, hook, kind)

    # --- the hops ---

    def add(
        self,
        kind: Kind,
        node: str,
        device: str,
        sentence: str,
        checks: Sequence[Result],
        *,
        inside: bool = False,
        packet: Mapping[str, str] | None = None,
    ) -> None:
        """A hop on a node; `inside`: in the sending pod. `packet`: the Packet's MACs and outer addresses."""
        scope = self.scope(node, self.source.interface if inside else None)
        mtu = scope.field_of(Topic.LINK, device, "mtu")
        sent = Packet(
            self.sender,
            self.address,
            self.ttl,
            mtu=mtu,
            protocol=self.protocol,
            port=self.port,
            **(packet or {}),
        )
        where = self.source.id if inside else node
        self.hops.append(Hop(self.direction, kind, node, where, device, sentence, sent, tuple(checks)))


def texts(expectation: Expectation) -> dict[str, str]:
    """The expected fields as text."""
    return {key: str(value) for key, value in (expectation.expected or {}).items()}
