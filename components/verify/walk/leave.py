"""The first part of a way: out of the pod, by eth0 or by an attached network."""

from __future__ import annotations

from components.spec.gateways import Firewall
from components.verify.expect import pod as expect_pod
from components.verify.expect.egress import firewall_of
from components.verify.expect.multus import gateway_bridge
from components.verify.expect.probes import Ping
from components.verify.model import HOST_SIDE_MAC, EntryKey, Expectation, Pod, Topic, addresses_of
from components.verify.read.filters import FORWARDED
from components.verify.routes import best_route
from components.verify.walk.trace import Trace, texts


def leave(trace: Trace) -> bool:
    """From the pod to its node. Returns whether the node routes the packet further."""
    trace.sender = trace.source.address
    device, gateway = _pod_route(trace)
    if device == "eth0":
        _gateway(trace, gateway)
        on = True
    elif (firewall := firewall_of(trace.lab, trace.source)) and gateway == str(firewall[0].address) != trace.address:
        on = _firewall(trace, device, *firewall)
    else:
        on = _bridge(trace, device, gateway)
    trace.ttl -= int(on)
    return on


def _pod_route(trace: Trace) -> tuple[str, str]:
    """The pod's own routing table. Returns the device and the next hop that it names, or must name."""
    source, inside = trace.source, trace.source.interface
    scope = trace.scope(source.node, inside)
    wanted = expect_pod.route_for(trace.lab, source, trace.address)
    found = best_route(scope.topics.get(Topic.ROUTE, {}), trace.address)
    result = trace.compared_route(wanted, scope, found)
    fields = found.entry.fields if found and result.status == "passed" else texts(wanted)
    device, via = fields.get("dev", "eth0"), fields.get("via", trace.address)
    if device != "eth0":
        held = scope.field_of(Topic.LINK, device, "addresses")
        trace.sender = held.partition("/")[0] or trace.sender
    trace.add(
        "pod route",
        source.node,
        device,
        f"{source.id} looks for {trace.address}: next hop {via} on {device}",
        [result],
        inside=True,
        packet={
            "source_mac": trace.mac(source.node, device, inside),
            "destination_mac": HOST_SIDE_MAC if device == "eth0" else "",
        },
    )
    return device, via


def _gateway(trace: Trace, gateway: str) -> None:
    """No interface has 169.254.1.1: the host side of the veth answers for it."""
    source, node, host = trace.source, trace.source.node, trace.source.interface
    learnt = expect_pod.gateway_known(source)
    # A pod that has sent nothing has learnt nothing.
    has_entry = learnt.key in trace.scope(node, host).topics.get(Topic.NEIGHBOUR, {})
    macs = {"source_mac": trace.mac(node, "eth0", host), "destination_mac": HOST_SIDE_MAC}
    scope = trace.scope(node)
    covering = best_route(scope.topics.get(Topic.ROUTE, {}), gateway)
    trace.add(
        "gateway arp",
        node,
        "eth0",
        f"ARP: who has {gateway}? {host} answers for it: {HOST_SIDE_MAC}",
        # The kernel answers for others only where it forwards.
        [
            *trace.compared(
                *trace.expected(Topic.IP_FORWARD, "all", node), *trace.expected(Topic.PROXY_ARP, host, node)
            ),
            trace.compared_route(expect_pod.way_to_gateway(source, gateway), scope, covering, gateway),
            *trace.compared(*([learnt] if trace.sent or has_entry else [])),
        ],
        inside=True,
        packet=macs,
    )
    trace.add(
        "host veth",
        node,
        host,
        f"the packet comes out of {host}, the other end of the pod's eth0",
        trace.compared(*trace.expected(Topic.LINK, host, node), *_own_eth0(trace)),
        packet=macs,
    )
    trace.inbound = host


def _own_eth0(trace: Trace) -> list[Expectation]:
    """The pod's end of the veth: with a larger MTU than the host's end, its large packets vanish here."""
    found = trace.known.get(EntryKey(Topic.LINK, "eth0", trace.source.node, trace.source.interface))
    return [found] if found else []


def _firewall(trace: Trace, device: str, firewall: Firewall, pod: Pod | None) -> bool:
    """A pod on the same bridge is the gateway: it forwards the packet by its own eth0, with its own address.
    Returns whether that pod runs and the packet goes on from its node."""
    node, bridge, address = trace.source.node, firewall.network.bridge, firewall.address
    if pod is None:
        ping = trace.expected(Topic.PROBE, Ping(trace.source.interface, str(address)).key, node)
        sentence = f"{device} is on the bridge {bridge}, where no pod has {address}: the packet ends here"
        trace.add("firewall", node, bridge, sentence, trace.compared(*ping))
        return False
    keys = [(Topic.LINK, firewall.interface), (Topic.IP_FORWARD, "all"), (Topic.FILTER, FORWARDED)]
    entries = [EntryKey(topic, key, node, pod.interface) for topic, key in keys]
    checks = [trace.known[entry] for entry in entries if entry in trace.known]
    trace.sender = pod.address
    trace.add(
        "firewall",
        node,
        bridge,
        f"{device} is on the bridge {bridge} beside {pod.id}, which has {address}: it forwards the packet by eth0 "
        f"and translates the source to its own address {pod.address}",
        trace.compared(*checks),
        packet={"destination_mac": trace.mac(node, firewall.interface, pod.interface)},
    )
    trace.source, trace.ttl = pod, trace.ttl - 1
    onward, gateway = _pod_route(trace)
    if onward != "eth0":
        return _bridge(trace, onward, gateway)
    _gateway(trace, gateway)
    return True


def _bridge(trace: Trace, device: str, gateway: str) -> bool:
    """An attached network. Returns whether the node routes the packet further, because the network's bridge is the
    gateway."""
    node = trace.source.node
    bridge = gateway_bridge(trace.lab, trace.source, device) or _bridge_with(trace, gateway)
    if bridge is None or not _is_gateway(trace, bridge, gateway):
        trace.add(
            "outside",
            node,
            device,
            f"{gateway} is on the network of {device} itself: the packet goes straight there; no node routes it",
            [],
        )
        return False
    trace.add(
        "bridge",
        node,
        bridge,
        f"{device} ends on the bridge {bridge}, which is the gateway {gateway}",
        trace.compared(*trace.expected(Topic.LINK, bridge, node)),
        packet={"destination_mac": trace.mac(node, bridge)},
    )
    trace.inbound = bridge
    return True


def _bridge_with(trace: Trace, address: str) -> str | None:
    """The bridge of the source's node that has an address: of a network that the stack file does not describe."""
    for name, entries in trace.scope(trace.source.node).topics.get(Topic.LINK, {}).items():
        if any(entry.fields["kind"] == "bridge" and address in addresses_of(entry) for entry in entries):
            return name
    return None


def _is_gateway(trace: Trace, bridge: str, gateway: str) -> bool:
    """Whether a bridge has the gateway's address, or must have it."""
    wanted = [str(texts(e).get("addresses", "")) for e in trace.expected(Topic.LINK, bridge, trace.source.node)]
    return bridge == _bridge_with(trace, gateway) or any(cidr.partition("/")[0] == gateway for cidr in wanted)
