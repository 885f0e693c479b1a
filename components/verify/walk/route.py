"""A packet's way from one pod to another and back, hop by hop: what each hop is, by which command a person sees it,
what was read there and what must be true.

The way is looked up in what was read, as the kernel looks it up (longest prefix first), not in what should be there.
Each hop is then compared with the lab's expectations. The packet is lost at the first hop that fails.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from components.spec.gateways import Firewall
from components.spec.modes import VXLAN, VXLAN_VNI, WIREGUARD, Tunnel, tunnel_of
from components.verify.expect import by_entry, expectations
from components.verify.expect import pod as expect_pod
from components.verify.expect.datapath import any_route, underlay
from components.verify.expect.egress import firewall_of
from components.verify.expect.multus import gateway_bridge
from components.verify.expect.node import interface_up
from components.verify.expect.probes import Ping, answered
from components.verify.model import (
    HOST_SIDE_MAC,
    EntryKey,
    Expectation,
    ObservedLab,
    Pod,
    Result,
    Scope,
    Topic,
    addresses_of,
    tunnel_mac,
)
from components.verify.read.filters import FORWARDED
from components.verify.read.reading import LiveLab, Reading, observed
from components.verify.report import compare, judge
from components.verify.routes import Route, best_route
from components.verify.walk.ends import Ends
from components.verify.walk.model import Direction, Hop, Kind, Packet, Walk

INITIAL_TTL = 64


def walk(live: LiveLab, reading: Reading, ends: Ends) -> Walk:
    """The way out, and back from a pod, between ends whose nodes were read."""
    lab = observed(live, reading)
    known = by_entry(expectations(lab))
    source, target, address = ends
    hops = _Direction(lab, reading, known, "out", source, target, address).walk()
    # What left by a bridge has another source address, so its answer does not go to the pod's own.
    if target is not None and all(hop.kind not in ("bridge", "firewall") for hop in hops):
        hops += _Direction(lab, reading, known, "back", target, source, source.address).walk()
    [ping] = compare([answered(lab, source, target, address)], reading)
    if ping.status != "passed":
        lost = next((number for number, hop in enumerate(hops) if hop.status == "failed"), None)
        if lost is not None:
            hops = [replace(hop, reached=number <= lost) for number, hop in enumerate(hops)]
    return Walk(source, target, address, ping, tuple(hops))


@dataclass
class _Direction:
    """The way in one direction, while it is walked. `ttl` and `sender`: the packet's, as it is at the present hop."""

    lab: ObservedLab
    reading: Reading
    known: Mapping[EntryKey, Expectation]
    direction: Direction
    source: Pod
    target: Pod | None
    address: str
    ttl: int = INITIAL_TTL
    sender: str = ""
    hops: list[Hop] = field(default_factory=list)

    def walk(self) -> list[Hop]:
        """Every hop, also those behind one that fails."""
        source, target = self.source, self.target
        self.sender = source.address
        device, gateway = self._leave_pod()
        if device == "eth0":
            self._gateway(gateway)
        elif (firewall := firewall_of(self.lab, source)) and gateway == str(firewall[0].address):
            if not self._firewall(device, *firewall):
                return self.hops
        elif not self._bridge(device, gateway):
            return self.hops
        self.ttl -= 1
        if target is None:
            self._outside()
        else:
            if target.node != source.node:
                self._cross(target)
                self.ttl -= 1
            self._deliver(target)
        return self.hops

    # --- what every hop needs ---

    def _scope(self, node: str, pod: str | None = None) -> Scope:
        """What was read of a node, or of a pod on it by its host side; nothing where it could not be read."""
        facts = self.reading.nodes.get(node)
        if facts is None:
            return Scope()
        return facts.pods.get(pod, Scope()) if pod else facts

    def _expected(self, topic: Topic, key: str, node: str | None) -> list[Expectation]:
        """The lab's expectation for an entry, if there is one."""
        found = self.known.get(EntryKey(topic, key, node))
        return [found] if found else []

    def _compared(self, *found: Expectation) -> list[Result]:
        return compare(found, self.reading)

    def _compared_route(self, expectation: Expectation, scope: Scope, found: Route | None) -> Result:
        """The route that was chosen, whatever its destination, against the one that must be."""
        if expectation.topic not in scope.topics:
            return self._compared(expectation)[0]
        if found is None:
            return Result(expectation, "failed", "(nothing)", f"no route leads to {self.address}")
        return judge(expectation, [found.entry])

    def _mac(self, node: str, device: str, pod: str | None = None) -> str:
        return self._scope(node, pod).field_of(Topic.LINK, device, "address")

    def _add(self, kind: Kind, node: str, device: str, sentence: str, checks: Sequence[Result], **packet: str) -> None:
        """A hop on a node; the first two of a way by eth0 are inside the source pod."""
        inside = kind in ("pod route", "gateway arp")
        scope = self._scope(node, self.source.interface if inside else None)
        sent = Packet(self.sender, self.address, self.ttl, mtu=scope.field_of(Topic.LINK, device, "mtu"), **packet)
        where = self.source.id if inside else node
        self.hops.append(Hop(self.direction, kind, node, where, device, sentence, sent, tuple(checks)))

    # --- out of the pod ---

    def _leave_pod(self) -> tuple[str, str]:
        """The pod's own routing table. Returns the device and the next hop that it names, or must name."""
        source, inside = self.source, self.source.interface
        scope = self._scope(source.node, inside)
        wanted = expect_pod.route_for(self.lab, source, self.address)
        found = best_route(scope.topics.get(Topic.ROUTE, {}), self.address)
        result = self._compared_route(wanted, scope, found)
        fields = found.entry.fields if found and result.status == "passed" else _texts(wanted)
        device, via = fields.get("dev", "eth0"), fields.get("via", self.address)
        if device != "eth0":
            held = scope.field_of(Topic.LINK, device, "addresses")
            self.sender = held.partition("/")[0] or self.sender
        self._add(
            "pod route",
            source.node,
            device,
            f"{source.id} looks for {self.address}: next hop {via} on {device}",
            [result],
            source_mac=self._mac(source.node, device, inside),
            destination_mac=HOST_SIDE_MAC if device == "eth0" else "",
        )
        return device, via

    def _gateway(self, gateway: str) -> None:
        """No interface has 169.254.1.1: the host side of the veth answers for it."""
        source, node, host = self.source, self.source.node, self.source.interface
        macs = {"source_mac": self._mac(node, "eth0", host), "destination_mac": HOST_SIDE_MAC}
        self._add(
            "gateway arp",
            node,
            "eth0",
            f"ARP: who has {gateway}? {host} answers for it: {HOST_SIDE_MAC}",
            self._compared(*self._expected(Topic.PROXY_ARP, host, node), expect_pod.gateway_known(source)),
            **macs,
        )
        self._add(
            "host veth",
            node,
            host,
            f"the packet comes out of {host}, the other end of the pod's eth0",
            self._compared(*self._expected(Topic.LINK, host, node)),
            **macs,
        )

    def _firewall(self, device: str, firewall: Firewall, pod: Pod | None) -> bool:
        """A pod on the same bridge is the gateway: it forwards the packet by its own eth0, with its own address.
        Returns whether that pod runs and the packet goes on from its node."""
        node, bridge, address = self.source.node, firewall.network.bridge, firewall.address
        if pod is None:
            ping = self._expected(Topic.PROBE, Ping(self.source.interface, str(address)).key, node)
            sentence = f"{device} is on the bridge {bridge}, where no pod has {address}: the packet ends here"
            self._add("firewall", node, bridge, sentence, self._compared(*ping))
            return False
        keys = [(Topic.LINK, firewall.interface), (Topic.IP_FORWARD, "all"), (Topic.FILTER, FORWARDED)]
        entries = [EntryKey(topic, key, node, pod.interface) for topic, key in keys]
        checks = [self.known[entry] for entry in entries if entry in self.known]
        self.sender = pod.address
        self._add(
            "firewall",
            node,
            bridge,
            f"{device} is on the bridge {bridge} beside {pod.id}, which has {address}: it forwards the packet by eth0 "
            f"and translates the source to its own address {pod.address}",
            self._compared(*checks),
            destination_mac=self._mac(node, firewall.interface, pod.interface),
        )
        self.source, self.ttl = pod, self.ttl - 1
        onward, gateway = self._leave_pod()
        if onward != "eth0":
            return self._bridge(onward, gateway)
        self._gateway(gateway)
        return True

    def _bridge(self, device: str, gateway: str) -> bool:
        """An attached network. Returns whether the node routes the packet further, because the network's bridge is the
        gateway."""
        node = self.source.node
        bridge = gateway_bridge(self.lab, self.source, device) or self._bridge_with(gateway)
        if bridge is None or not self._is_gateway(bridge, gateway):
            self._add(
                "outside",
                node,
                device,
                f"{gateway} is on the network of {device} itself: the packet goes straight there; no node routes it",
                [],
            )
            return False
        self._add(
            "bridge",
            node,
            bridge,
            f"{device} ends on the bridge {bridge}, which is the gateway {gateway}",
            self._compared(*self._expected(Topic.LINK, bridge, node)),
            destination_mac=self._mac(node, bridge),
        )
        return True

    def _bridge_with(self, address: str) -> str | None:
        """The bridge of the source's node that has an address: of a network that the stack file does not describe."""
        for name, entries in self._scope(self.source.node).topics.get(Topic.LINK, {}).items():
            if any(entry.fields["kind"] == "bridge" and address in addresses_of(entry) for entry in entries):
                return name
        return None

    def _is_gateway(self, bridge: str, gateway: str) -> bool:
        """Whether a bridge has the gateway's address, or must have it."""
        wanted = [str(_texts(e).get("addresses", "")) for e in self._expected(Topic.LINK, bridge, self.source.node)]
        return bridge == self._bridge_with(gateway) or any(cidr.partition("/")[0] == gateway for cidr in wanted)

    # --- between the nodes ---

    def _cross(self, target: Pod) -> None:
        here, there = self.source.node, target.node
        block = self.lab.block_of(target)
        wanted = [e for topic in (Topic.ENCRYPTED, Topic.ROUTE) if block for e in self._expected(topic, block, here)]
        route = self._host_route(here, wanted[0] if wanted else any_route(here, self.address))
        device = route.get("dev", "")
        nic = self.lab.nics.get(here, "")
        tunnel = tunnel_of(device)
        outer: dict[str, str] = {}
        if tunnel is None:
            self._add("plain", here, device or nic, "no tunnel: the packet travels as it is", [])
        else:
            outer = {
                "outer_source": self.lab.addresses.get(here, ""),
                "outer_destination": self.lab.addresses.get(there, ""),
            }
            self._tunnel(tunnel, route.get("via", ""), there, outer)
        self._underlay(nic, self.lab.addresses.get(there, ""), outer)
        self._arrive(there, tunnel, outer)

    def _host_route(self, node: str, wanted: Expectation) -> dict[str, str]:
        """The node's routing tables, in the kernel's order: WireGuard's first, where there is one. Returns the route's
        fields; those that must be, where another route was found or none."""
        scope = self._scope(node)
        tables = (scope.topics.get(topic, {}) for topic in (Topic.ENCRYPTED, Topic.ROUTE))
        found = next((route for table in tables if (route := best_route(table, self.address))), None)
        result = self._compared_route(wanted, scope, found)
        fields = dict(found.entry.fields) if found and result.status == "passed" else _texts(wanted)
        via = f"via {fields['via']} " if "via" in fields else ""
        device = fields.get("dev", "")
        self._add(
            "host route",
            node,
            device,
            f"{node} looks for {self.address}: {via}dev {device or '?'}; the TTL is {self.ttl} now",
            [result],
        )
        return fields

    def _tunnel(self, tunnel: Tunnel, via: str, there: str, outer: dict[str, str]) -> None:
        here, device, peer = self.source.node, tunnel.device, outer["outer_destination"]
        checks = self._expected(Topic.LINK, device, here)
        macs: dict[str, str] = {}
        if tunnel == VXLAN:
            mac = tunnel_mac(there)
            checks += self._expected(Topic.NEIGHBOUR, f"{device} {via}", here)
            checks += self._expected(Topic.FDB, f"{device} {mac}", here)
            macs = {"source_mac": tunnel_mac(here), "destination_mac": mac}
            how = (
                f"{via} is at {mac} (neighbour), {mac} is at {peer} (FDB); "
                f"wrapped in {tunnel.packet_title}, VNI {VXLAN_VNI}"
            )
        elif tunnel == WIREGUARD:
            how = f"encrypted for {there} and wrapped in {tunnel.packet_title} for {peer}"
        else:
            how = f"wrapped in {tunnel.packet_title} for {peer}"
        self._add("tunnel", here, device, f"{device}: {how}", self._compared(*checks), **macs, **outer)

    def _underlay(self, nic: str, peer: str, outer: dict[str, str]) -> None:
        node = self.source.node
        scope = self._scope(node)
        found = best_route(scope.topics.get(Topic.ROUTE, {}), peer)
        result = self._compared_route(underlay(self.lab, node, peer), scope, found)
        on_the_wire = f"{outer['outer_source']} → {outer['outer_destination']}" if outer else "the pod's own addresses"
        via = found.entry.fields.get("via", "") if found else ""
        how = f"to the router {via}" if via else "straight to it"
        if via and not outer:
            how += ", which may lower the TTL too"
        self._add(
            "underlay", node, nic, f"{nic} sends it to {peer} ({how}); on the wire: {on_the_wire}", [result], **outer
        )

    def _arrive(self, node: str, tunnel: Tunnel | None, outer: dict[str, str]) -> None:
        nic = self.lab.nics.get(node, "")
        if tunnel is None:
            unwrapped = "nothing to unwrap"
            checks = self._expected(Topic.SOURCE_DEST, node, None) or [interface_up(node, nic)]
        else:
            unwrapped = f"{tunnel.device} removes the outer header"
            checks = self._expected(Topic.FILTER, tunnel.packet, node) + self._expected(Topic.LINK, tunnel.device, node)
        self._add(
            "arrival",
            node,
            tunnel.device if tunnel else nic,
            f"{nic} of {node} receives it, no packet filter drops it; {unwrapped}",
            self._compared(*(checks or [interface_up(node, nic)])),
            **outer,
        )

    # --- the end ---

    def _deliver(self, pod: Pod) -> None:
        node, host = pod.node, pod.interface
        scope = self._scope(node)
        found = best_route(scope.topics.get(Topic.ROUTE, {}), pod.address)
        checks = [
            self._compared_route(wanted, scope, found) for wanted in self._expected(Topic.ROUTE, pod.address, node)
        ]
        checks += self._compared(*self._expected(Topic.LINK, host, node), expect_pod.holds_address(pod))
        self._add(
            "delivery",
            node,
            host,
            f"{node} has {pod.address} behind {host}; {pod.id} receives it with TTL {self.ttl}",
            checks,
            source_mac=HOST_SIDE_MAC,
            destination_mac=self._mac(node, "eth0", host),
        )

    def _outside(self) -> None:
        node = self.source.node
        device = self._host_route(node, any_route(node, self.address)).get("dev", "")
        self._add(
            "outside",
            node,
            device,
            f"{device or 'nothing'} takes it out of the lab; the node translates the pod's address to its own "
            "(natOutgoing, or the bridge's ipMasq)",
            self._compared(interface_up(node, device)) if device else [],
        )


def _texts(expectation: Expectation) -> dict[str, str]:
    """The expected fields as text."""
    return {key: str(value) for key, value in (expectation.expected or {}).items()}
