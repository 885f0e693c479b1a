"""A packet's way from one pod to another and back, hop by hop: what each hop is, by which command a person sees it,
what was seen and what is expected there.

The way is looked up in what was read, as the kernel looks it up (longest prefix first), and not in what ought to be;
each hop is then held against the lab's expectations. The first hop that does not hold is where the packet is lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Literal

from components.spec import addresses
from components.verify.expectations import (
    HOST_SIDE_MAC,
    IPIP,
    VNI,
    VXLAN,
    VXLAN_PORT,
    WIREGUARD,
    WIREGUARD_PORT,
    Expectation,
    Lab,
    Value,
    expectations,
    ttl,
)
from components.verify.facts import Pod, Scope, tunnel_mac
from components.verify.iproute import Seen
from components.verify.reading import Live, Reading, view
from components.verify.report import Result, Status, compare, judge

Kind = Literal[
    "pod route",
    "gateway arp",
    "host veth",
    "bridge",
    "host route",
    "tunnel",
    "plain",
    "underlay",
    "arrival",
    "delivery",
    "outside",
]
Direction = Literal["out", "back"]


@dataclass(frozen=True)
class Packet:
    """The packet as it leaves a hop: bytes of MTU there, addresses, and the outer header's inside a tunnel."""

    source: str
    destination: str
    ttl: int
    source_mac: str = ""
    destination_mac: str = ""
    outer_source: str = ""
    outer_destination: str = ""
    mtu: str = ""


@dataclass(frozen=True)
class Hop:
    """One step of the way. `checks`: what is held against it. `reached`: False behind a hop that failed."""

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
        for status in ("failed", "unknown"):
            if any(check.status == status for check in self.checks):
                return status
        return "passed"

    def to_json(self, stack: str = "STACK") -> dict[str, Any]:
        packet = {
            "source": self.packet.source,
            "destination": self.packet.destination,
            "ttl": self.packet.ttl,
            "sourceMac": self.packet.source_mac,
            "destinationMac": self.packet.destination_mac,
            "outerSource": self.packet.outer_source,
            "outerDestination": self.packet.outer_destination,
            "mtu": self.packet.mtu,
        }
        return {
            "direction": self.direction,
            "hop": self.kind,
            "node": self.node,
            "where": self.where,
            "device": self.device,
            "sentence": self.sentence,
            "status": self.status if self.reached else "not reached",
            "packet": {key: value for key, value in packet.items() if value != ""},
            "checks": [check.to_json(stack) for check in self.checks],
        }


@dataclass(frozen=True)
class Walk:
    """`ping`: what really happened. `stopped`: the hop at which the packet is lost, or would be once caches are old."""

    source: Pod
    target: Pod | None
    address: str
    ping: Result
    hops: tuple[Hop, ...]

    @property
    def stopped(self) -> Hop | None:
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


class NoWalk(ValueError):
    """The walk cannot begin; str() says why and what can be walked."""


# --- who ------------------------------------------------------------------------------------------------------------


def find_pod(pods: Sequence[Pod], name: str, *, other_than: Pod | None = None) -> Pod:
    """A pod by [NAMESPACE/]NAME, or one of a workload by its name, on a node by WORKLOAD@NODE. Raises NoWalk."""
    wanted, _, node = name.partition("@")
    exact = [pod for pod in pods if wanted in (pod.name, pod.id)]
    if not exact:
        exact = [
            pod
            for pod in pods
            if pod.workload is not None and wanted in (pod.workload, f"{pod.namespace}/{pod.workload}")
        ]
    found = [pod for pod in exact if not node or pod.node == node]
    if not found:
        there = ", ".join(sorted({p.workload or p.id for p in pods if p.running and p.workload})) or "none of the lab's"
        raise NoWalk(f"there is no pod {name}; pods with a network of their own: {there}, or NAMESPACE/NAME of any")
    good = [pod for pod in found if pod.running] or found
    # A workload twice means two of its pods, on two nodes where there are.
    if other_than is not None:
        good = [pod for pod in good if pod.id != other_than.id] or good
        good = [pod for pod in good if pod.node != other_than.node] or good
    pod = good[0]
    if pod.host_network:
        raise NoWalk(f"{pod.id} is on its node's network (hostNetwork): it has no path of its own to walk")
    if not pod.running:
        raise NoWalk(f"{pod.id} does not run (phase {pod.phase or 'unknown'}, address {pod.address or 'none'})")
    return pod


# --- the way --------------------------------------------------------------------------------------------------------


def best_route(scope: Scope, address: str, table: str = "route") -> tuple[str, Seen] | None:
    """The destination and the route that the kernel takes for an address: longest prefix, then lowest metric."""
    wanted = IPv4Address(address)
    found: list[tuple[int, int, int, str, Seen]] = []
    for order, (key, entries) in enumerate(scope.topics.get(table, {}).items()):
        try:
            network = IPv4Network("0.0.0.0/0" if key == "default" else key)
        except ValueError:
            continue
        if wanted in network:
            found += [
                (-network.prefixlen, int(s.fields.get("metric", 0)), order, key, s)
                for s in entries
                if s.fields.get("metric", "0").isdigit()
            ]
    if not found:
        return None
    best = min(found, key=lambda entry: entry[:3])
    return best[3], best[4]


@dataclass
class _Way:
    """One direction."""

    live: Lab
    reading: Reading
    known: dict[tuple[str | None, str | None, str, str], Expectation]
    direction: Direction
    source: Pod
    target: Pod | None
    address: str
    ttl: int = 64
    sender: str = ""
    hops: list[Hop] = field(default_factory=list)

    def scope(self, node: str, pod: str | None = None) -> Scope:
        facts = self.reading.nodes.get(node)
        if facts is None:
            return Scope(unread={})
        return facts.pods.get(pod, Scope()) if pod else facts

    def expected(self, node: str, topic: str, key: str, pod: str | None = None) -> list[Expectation]:
        found = self.known.get((node, pod, topic, key))
        return [found] if found else []

    def add(
        self, kind: Kind, node: str, where: str, device: str, sentence: str, checks: Sequence[Result], **packet: str
    ) -> None:
        mtu = next(
            (s.fields["mtu"] for s in self.scope(node, self._inside(where)).get("link", device)),
            "",
        )
        as_sent = Packet(self.sender, self.address, self.ttl, mtu=mtu, **packet)
        self.hops.append(Hop(self.direction, kind, node, where, device, sentence, as_sent, tuple(checks)))

    def _inside(self, where: str) -> str | None:
        for pod in (self.source, self.target):
            if pod is not None and where == pod.id:
                return pod.interface
        return None

    def judged(self, found: Sequence[Expectation]) -> list[Result]:
        return compare(found, self.reading.cluster, self.reading.nodes, self.reading.unreachable)

    # --- hop by hop ---

    def walk(self) -> list[Hop]:
        source, target = self.source, self.target
        self.sender = source.address
        device, gateway = self._leave_pod()
        if device == "eth0":
            self._gateway(gateway)
        else:
            self._bridge(device, gateway)
        self.ttl -= 1
        if target is not None and target.node == source.node:
            self._deliver(target)
        elif target is not None:
            self._across(target)
            self.ttl -= 1
            self._deliver(target)
        else:
            self._outside()
        return self.hops

    def _leave_pod(self) -> tuple[str, str]:
        """The pod's own routing table. Returns the device and the next hop that it names, or should name."""
        source, inside = self.source, self.source.interface
        scope = self.scope(source.node, inside)
        wanted = self._wanted_route()
        command = f"kubectl -n {source.namespace} exec {source.name} -- ip route get {self.address}"
        fields: dict[str, Value] = (
            dict(wanted.expected or {}) if wanted else {"via": str(addresses.GATEWAY), "dev": "eth0"}
        )
        expectation = Expectation(
            "route",
            wanted.key if wanted else "default",
            fields,
            f"{source.id} sends what goes to {self.address} by {fields.get('via', 'the link')} on {fields['dev']}",
            command,
            wanted.because if wanted else "a pod's only way out is its node",
            "the pod's routes were changed by hand, or it is older than the delegate's routes",
            f"kubectl -n {source.namespace} delete pod {source.name}: its successor gets it right",
            node=source.node,
            pod=inside,
            about=source.id,
        )
        found = best_route(scope, self.address)
        result = self._judge_route(expectation, scope, found)
        seen = found[1].fields if found and result.status == "passed" else {}
        device = seen.get("dev", str(fields["dev"]))
        via = seen.get("via", str(fields.get("via", self.address)))
        mac = next((s.fields["address"] for s in scope.get("link", device)), "")
        if device != "eth0":
            held = next((s.fields["addresses"] for s in scope.get("link", device)), "")
            self.sender = held.partition("/")[0] or self.sender
        self.add(
            "pod route",
            source.node,
            source.id,
            device,
            f"{source.id} looks for {self.address}: next hop {via} on {device}",
            [result],
            source_mac=mac,
            destination_mac=HOST_SIDE_MAC if device == "eth0" else "",
        )
        return device, via

    def _judge_route(self, expectation: Expectation, scope: Scope, found: tuple[str, Seen] | None) -> Result:
        if expectation.topic not in scope.topics:
            return self.judged([expectation])[0]
        if found is None:
            return Result(expectation, "failed", "(nothing)", f"no route leads to {self.address}")
        return judge(expectation, [found[1]])

    def _wanted_route(self) -> Expectation | None:
        """Of the routes the pod shall have, the one that this packet shall take."""
        table = Scope()
        table.topics["route"] = {}
        by_key: dict[str, Expectation] = {}
        for (node, pod, topic, key), expectation in self.known.items():
            if (node, pod, topic) == (self.source.node, self.source.interface, "route") and expectation.expected:
                plain = {name: str(value) for name, value in expectation.expected.items()}
                table.topics["route"][key] = (Seen(plain, key),)
                by_key[key] = expectation
        found = best_route(table, self.address)
        return by_key[found[0]] if found else None

    def _gateway(self, gateway: str) -> None:
        """169.254.1.1 is on no interface: the host side of the veth answers for it."""
        source, node, host = self.source, self.source.node, self.source.interface
        arp = Expectation(
            "neighbour",
            f"eth0 {gateway}",
            {"lladdr": HOST_SIDE_MAC},
            f"{source.id} has learnt that {gateway} is at {HOST_SIDE_MAC}",
            f"kubectl -n {source.namespace} exec {source.name} -- ip neigh",
            f"the node answers ARP for {gateway} on {host} by proxy ARP",
            "nobody answered the pod's ARP: proxy_arp is off on the host side, or the veth is down",
            f"sysctl -w net/ipv4/conf/{host}/proxy_arp=1",
            node=node,
            pod=host,
            about=source.id,
        )
        proxy = self.expected(node, "proxy_arp", host)
        mac = next((s.fields["address"] for s in self.scope(node, host).get("link", "eth0")), "")
        macs = {"source_mac": mac, "destination_mac": HOST_SIDE_MAC}
        self.add(
            "gateway arp",
            node,
            source.id,
            "eth0",
            f"ARP: who has {gateway}? {host} answers for it: {HOST_SIDE_MAC}",
            self.judged([*proxy, arp]),
            **macs,
        )
        self.add(
            "host veth",
            node,
            node,
            host,
            f"the packet comes out of {host}, the other end of the pod's eth0",
            self.judged(self.expected(node, "link", host)),
            **macs,
        )

    def _bridge(self, device: str, gateway: str) -> None:
        """A second network's way out: over the veth to the bridge, whose address is the next hop."""
        node = self.source.node
        facts = self.scope(node)
        bridge = next(
            (
                name
                for name, entries in facts.topics.get("link", {}).items()
                for seen in entries
                if seen.fields["kind"] == "bridge"
                and gateway in [a.partition("/")[0] for a in seen.fields["addresses"].split()]
            ),
            "",
        )
        found = Expectation(
            "link",
            bridge or "bridge",
            {"kind": "bridge", "up": "yes"},
            f"{gateway} is a bridge of {node}",
            f"ip -br addr | grep -w {gateway}",
            f"the pod's {device} ends on a bridge of its node, whose address is the gateway",
            f"{gateway} is no address of the node: nobody takes the packet (the seed's gateway was the pod's own)",
            "name the bridge's address as the workload's defaultRoute",
            node=node,
        )
        mac = next((s.fields["address"] for s in facts.get("link", bridge)), "")
        self.add(
            "bridge",
            node,
            node,
            bridge or device,
            f"{device} ends on the bridge {bridge or '(none)'}, which is the gateway {gateway}",
            self.judged([found]),
            destination_mac=mac,
        )

    def _across(self, target: Pod) -> None:
        here, there = self.source.node, target.node
        block = next(
            (cidr for cidr in self.live.affinities.get(there, ()) if IPv4Address(target.address) in IPv4Network(cidr)),
            "",
        )
        wanted = [e for topic in ("encrypted", "route") if block for e in self.expected(here, topic, block)]
        route = self._host_route(here, wanted[:1])
        device = route.get("dev", "")
        nic_here, nic_there = self.live.nics.get(here, ""), self.live.nics.get(there, "")
        address_here, address_there = self._address(here), self._address(there)
        outer: dict[str, str] = {}
        if device == VXLAN:
            tunnel = route.get("via", "")
            mac = tunnel_mac(there)
            checks = [
                *self.expected(here, "link", VXLAN),
                *self.expected(here, "neighbour", f"{VXLAN} {tunnel}"),
                *self.expected(here, "fdb", f"{VXLAN} {mac}"),
            ]
            outer = {"outer_source": address_here, "outer_destination": address_there}
            self.add(
                "tunnel",
                here,
                here,
                VXLAN,
                f"{VXLAN}: {tunnel} is at {mac} (neighbour), {mac} is at {address_there} (FDB); "
                f"wrapped in UDP 4789, VNI {VNI}",
                self.judged(checks),
                source_mac=tunnel_mac(here),
                destination_mac=mac,
                **outer,
            )
        elif device in (IPIP, WIREGUARD):
            how = "in IP (protocol 4)" if device == IPIP else f"and encrypted for {there} in UDP {WIREGUARD_PORT}"
            outer = {"outer_source": address_here, "outer_destination": address_there}
            self.add(
                "tunnel",
                here,
                here,
                device,
                f"{device}: wrapped {how} for {address_there}",
                self.judged(self.expected(here, "link", device)),
                **outer,
            )
        else:
            self.add("plain", here, here, device or nic_here, "no tunnel: the packet travels as it is", [])
        self._underlay(here, nic_here, address_there, outer)
        self._arrival(there, nic_there, device, outer)

    def _underlay(self, node: str, nic: str, peer: str, outer: dict[str, str]) -> None:
        scope = self.scope(node)
        found = best_route(scope, peer)
        expectation = Expectation(
            "route",
            found[0] if found else peer,
            {"dev": nic},
            f"{node} reaches {peer} on {nic}",
            f"ip route get {peer}",
            "nodes reach each other by the network they stand in",
            "the node's own network is broken",
            f"ping {peer} from {node}",
            node=node,
        )
        result = self._judge_route(expectation, scope, found)
        what = f"{outer['outer_source']} → {outer['outer_destination']}" if outer else "the pod's own addresses"
        via = found[1].fields.get("via", "") if found else ""
        how = f"to the router {via}" if via else "straight to it"
        if via and not outer:
            how += ", which may take one from the TTL too"
        self.add(
            "underlay", node, node, nic, f"{nic} sends it to {peer} ({how}); on the wire: {what}", [result], **outer
        )

    def _arrival(self, node: str, nic: str, device: str, outer: dict[str, str]) -> None:
        protocol = {VXLAN: f"udp {VXLAN_PORT}", IPIP: "4", WIREGUARD: f"udp {WIREGUARD_PORT}"}.get(device)
        found = self.expected(node, "filter", protocol) if protocol else []
        if protocol:
            found = [*found, *self.expected(node, "link", device)]
        ec2 = self.known.get((None, None, "source_dest", node))
        if ec2 is not None and not protocol:
            found = [ec2, *found]
        unwrapped = f"{device} takes the outer header off" if protocol else "nothing to unwrap"
        self.add(
            "arrival",
            node,
            node,
            device if protocol else nic,
            f"{nic} of {node} receives it, no packet filter drops it; {unwrapped}",
            self.judged(found) or [self._alive(node, nic)],
            **outer,
        )

    def _alive(self, node: str, nic: str) -> Result:
        expectation = Expectation(
            "link",
            nic,
            {"up": "yes"},
            f"{nic} of {node} is up",
            f"ip link show {nic}",
            "the node's own network",
            "the interface is down",
            f"ip link set {nic} up",
            node=node,
        )
        return self.judged([expectation])[0]

    def _host_route(self, node: str, wanted: list[Expectation]) -> dict[str, str]:
        """The node's routing tables, as the kernel reads them: WireGuard's first, where there is one. Returns the
        route that ought to be taken where it is."""
        scope = self.scope(node)
        found = best_route(scope, self.address, "encrypted") or best_route(scope, self.address)
        if wanted:
            result = self._judge_route(wanted[0], scope, found)
            checks = [result]
        else:
            expectation = Expectation(
                "route",
                self.address,
                {},
                f"{node} has a route to {self.address}",
                f"ip route get {self.address}",
                "the address belongs to no block that a node of the lab holds",
                "the pod's block has no owner",
                "./lab addresses STACK",
                node=node,
            )
            checks = [self._judge_route(expectation, scope, found)]
        fields = dict(found[1].fields) if found else {}
        shown = fields if checks[0].status == "passed" else _plain(wanted)
        via = f"via {shown['via']} " if "via" in shown else ""
        device = shown.get("dev", "")
        self.add(
            "host route",
            node,
            node,
            device,
            f"{node} looks for {self.address}: {via}dev {device or '?'}; the TTL is {self.ttl} now",
            checks,
        )
        return shown

    def _deliver(self, pod: Pod) -> None:
        node, host = pod.node, pod.interface
        scope = self.scope(node)
        wanted = self.expected(node, "route", pod.address)
        found = best_route(scope, pod.address)
        checks = [self._judge_route(e, scope, found) for e in wanted]
        checks += self.judged(self.expected(node, "link", host))
        inside = Expectation(
            "address",
            "eth0",
            {"address": pod.address},
            f"{pod.id} has {pod.address} on eth0",
            f"kubectl -n {pod.namespace} exec {pod.name} -- ip addr show eth0",
            "the API says so",
            "the pod's interface was changed by hand",
            f"kubectl -n {pod.namespace} delete pod {pod.name}",
            node=node,
            pod=host,
            about=pod.id,
        )
        mac = next((s.fields["address"] for s in self.scope(node, host).get("link", "eth0")), "")
        self.add(
            "delivery",
            node,
            node,
            host,
            f"{node} has {pod.address} behind {host}; {pod.id} receives it with TTL {self.ttl}",
            [*checks, *self.judged([inside])],
            source_mac=HOST_SIDE_MAC,
            destination_mac=mac,
        )

    def _outside(self) -> None:
        node = self.source.node
        route = self._host_route(node, [])
        device = route.get("dev", "")
        self.add(
            "outside",
            node,
            node,
            device,
            f"{device or 'nothing'} takes it out of the lab; the node translates the pod's address to its own "
            "(natOutgoing, or the bridge's ipMasq)",
            [self._alive(node, device)] if device else [],
        )

    def _address(self, node: str) -> str:
        return next((str(n.address) for n in self.live.lab.nodes if n.name == node), "")


def _plain(wanted: list[Expectation]) -> dict[str, str]:
    return {k: str(v) for k, v in (wanted[0].expected or {}).items()} if wanted else {}


# --- the whole ------------------------------------------------------------------------------------------------------


def walk(live: Live, reading: Reading, source: Pod, target: Pod | None, address: str) -> Walk:
    """The way out and back between two pods that were read, or to an outside address (out only)."""
    lab = view(live, reading)
    known = {(e.node, e.pod, e.topic, e.key): e for e in expectations(lab)}
    # What the API knows of a node stands without one; the walk asks for it by the node's name.
    hops = _Way(lab, reading, known, "out", source, target, address).walk()
    if target is not None and _returns(hops):
        hops += _Way(lab, reading, known, "back", target, source, source.address).walk()
    ping = _ping(lab, reading, source, target, address)
    if ping.status != "passed":
        lost = next((number for number, hop in enumerate(hops) if hop.status == "failed"), None)
        if lost is not None:
            hops = [replace(hop, reached=number <= lost) for number, hop in enumerate(hops)]
    return Walk(source, target, address, ping, tuple(hops))


def _returns(hops: Sequence[Hop]) -> bool:
    """Whether the answer goes to the pod's own address: what left by a bridge carries another."""
    return all(hop.kind != "bridge" for hop in hops)


def _ping(lab: Lab, reading: Reading, source: Pod, target: Pod | None, address: str) -> Result:
    expected: dict[str, Value] = {"received": "yes"}
    if target is not None:
        expected["ttl"] = ttl(lab, source, target)
    expectation = Expectation(
        "probe",
        f"{source.interface} {address}",
        expected,
        f"{source.id} gets an answer from {target.id if target else address}",
        f"kubectl -n {source.namespace} exec {source.name} -- ping -c 1 {address}",
        "every node on the way takes one from the TTL of 64",
        "see the first hop that does not hold",
        "see the first hop that does not hold",
        node=source.node,
    )
    return compare([expectation], reading.cluster, reading.nodes, reading.unreachable)[0]


def nodes_of(source: Pod, target: Pod | None) -> list[str]:
    """The nodes that must be read, the source's first."""
    return list(dict.fromkeys([source.node, *([target.node] if target else [])]))


_OUTER = {VXLAN: f"udp port {VXLAN_PORT}", IPIP: "ip proto 4"}
"""What a capture sees between the nodes."""


def points(walk: Walk, live: Lab) -> Iterator[tuple[str, str, str, str]]:
    """Where a capture listens: (node, host-side interface of the pod or "", device, filter), in the way's order."""
    inner = f"icmp and host {walk.address}"
    # What leaves by a bridge has another source address, and on the way out yet another.
    if all(hop.kind not in ("bridge", "outside") for hop in walk.hops):
        inner += f" and host {walk.source.address}"
    out = [hop for hop in walk.hops if hop.direction == "out"]
    tunnel = next((hop.device for hop in out if hop.kind == "tunnel"), "")
    seen: set[tuple[str, str, str]] = set()
    for hop in out:
        rule = inner
        if tunnel and hop.kind in ("underlay", "arrival"):
            if tunnel in _OUTER:
                rule = f"{_OUTER[tunnel]} and host {hop.packet.outer_source} and host {hop.packet.outer_destination}"
            elif hop.kind == "underlay":
                continue  # nobody tells one encrypted packet from another
        if hop.kind == "arrival" and rule != inner:
            yield hop.node, "", live.nics.get(hop.node, ""), rule
            rule = inner
        inside = walk.source.interface if hop.where == walk.source.id else ""
        where = (hop.node, inside, hop.device)
        if hop.device and where not in seen:
            seen.add(where)
            yield hop.node, inside, hop.device, rule
    if walk.target is not None:
        yield walk.target.node, walk.target.interface, "eth0", inner
