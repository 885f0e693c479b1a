"""The middle of a way: the node's routing table, and from one node to another."""

from __future__ import annotations

from ipaddress import IPv4Address

from components.spec.addresses import network_of
from components.spec.modes import VXLAN, VXLAN_VNI, WIREGUARD, Tunnel, tunnel_of
from components.verify.expect.datapath import any_route, underlay
from components.verify.expect.node import interface_up
from components.verify.model import Expectation, Pod, Topic, tunnel_mac
from components.verify.routes import best_route, destination_of
from components.verify.walk.trace import Trace, texts
from components.verify.walk.translate import masquerade


def cross(trace: Trace, target: Pod) -> None:
    """From the source's node to the target's."""
    here, there = trace.source.node, target.node
    # A pod's, or that of a tunnel's own address.
    blocks = trace.lab.affinities.get(there, ())
    block = next((cidr for cidr in blocks if IPv4Address(trace.address) in network_of(cidr)), None)
    key = destination_of(network_of(block)) if block else ""
    wanted = [e for topic in (Topic.ENCRYPTED, Topic.ROUTE) if block for e in trace.expected(topic, key, here)]
    if trace.address == trace.lab.addresses.get(there):
        wanted = [underlay(trace.lab, here, trace.address)]
    route = host_route(trace, here, wanted[0] if wanted else any_route(here, trace.address))
    device = route.get("dev", "")
    nic = trace.lab.nics.get(here, "")
    masquerade(trace, here, device)
    tunnel = tunnel_of(device)
    outer: dict[str, str] = {}
    if tunnel is None:
        trace.add("plain", here, device or nic, "no tunnel: the packet travels as it is", [])
    else:
        outer = {
            "outer_source": trace.lab.addresses.get(here, ""),
            "outer_destination": trace.lab.addresses.get(there, ""),
        }
        _tunnel(trace, tunnel, route.get("via", ""), there, outer)
    _underlay(trace, nic, trace.lab.addresses.get(there, ""), outer)
    _arrive(trace, there, tunnel, outer)
    trace.inbound = tunnel.device if tunnel else trace.lab.nics.get(there, "")


def host_route(trace: Trace, node: str, wanted: Expectation) -> dict[str, str]:
    """The node's routing tables, in the kernel's order: WireGuard's first, where there is one. Returns the route's
    fields; those that must be, where another route was found or none."""
    scope = trace.scope(node)
    tables = (scope.topics.get(topic, {}) for topic in (Topic.ENCRYPTED, Topic.ROUTE))
    found = next((route for table in tables if (route := best_route(table, trace.address))), None)
    result = trace.compared_route(wanted, scope, found)
    fields = dict(found.entry.fields) if found and result.status == "passed" else texts(wanted)
    via = f"via {fields['via']} " if "via" in fields else ""
    device = fields.get("dev", "")
    sends = f"the TTL is {trace.ttl} now"
    if trace.source.host_network:
        # Chosen when the connection is made, before any translation.
        trace.sender = trace.sender or fields.get("src") or trace.address_of(node, device)
        sends = f"it sends with its address {trace.sender}"
    trace.add(
        "host route",
        node,
        device,
        f"{node} looks for {trace.address}: {via}dev {device or '?'}; {sends}",
        [result],
    )
    return fields


def _tunnel(trace: Trace, tunnel: Tunnel, via: str, there: str, outer: dict[str, str]) -> None:
    here, device, peer = trace.source.node, tunnel.device, outer["outer_destination"]
    checks = trace.expected(Topic.LINK, device, here)
    macs: dict[str, str] = {}
    if tunnel == VXLAN:
        mac = tunnel_mac(there)
        checks += trace.expected(Topic.NEIGHBOUR, f"{device} {via}", here)
        checks += trace.expected(Topic.FDB, f"{device} {mac}", here)
        macs = {"source_mac": tunnel_mac(here), "destination_mac": mac}
        how = (
            f"{via} is at {mac} (neighbour), {mac} is at {peer} (FDB); "
            f"wrapped in {tunnel.packet_title}, VNI {VXLAN_VNI}"
        )
    elif tunnel == WIREGUARD:
        how = f"encrypted for {there} and wrapped in {tunnel.packet_title} for {peer}"
    else:
        how = f"wrapped in {tunnel.packet_title} for {peer}"
    trace.add("tunnel", here, device, f"{device}: {how}", trace.compared(*checks), packet=macs | outer)


def _underlay(trace: Trace, nic: str, peer: str, outer: dict[str, str]) -> None:
    node = trace.source.node
    scope = trace.scope(node)
    found = best_route(scope.topics.get(Topic.ROUTE, {}), peer)
    result = trace.compared_route(underlay(trace.lab, node, peer), scope, found)
    on_the_wire = f"{outer['outer_source']} → {outer['outer_destination']}" if outer else "the packet's own addresses"
    via = found.entry.fields.get("via", "") if found else ""
    how = f"to the router {via}" if via else "straight to it"
    if via and not outer:
        how += ", which may lower the TTL too"
    checks = [result, *trace.compared(*trace.expected(Topic.QUEUE, nic, node))]
    trace.add(
        "underlay", node, nic, f"{nic} sends it to {peer} ({how}); on the wire: {on_the_wire}", checks, packet=outer
    )


def _arrive(trace: Trace, node: str, tunnel: Tunnel | None, outer: dict[str, str]) -> None:
    nic = trace.lab.nics.get(node, "")
    device = tunnel.device if tunnel else nic
    if tunnel is None:
        unwrapped = "nothing to unwrap"
        # EC2 asks whose address it is: a node's own passes.
        of_pods = trace.address not in trace.lab.addresses.values() or trace.sender not in trace.lab.addresses.values()
        checks = trace.expected(Topic.SOURCE_DEST, node, None) if of_pods else []
        checks = checks or [interface_up(node, nic)]
    else:
        unwrapped = f"{tunnel.device} removes the outer header"
        checks = trace.expected(Topic.FILTER, tunnel.packet, node) + trace.expected(Topic.LINK, tunnel.device, node)
    trace.add(
        "arrival",
        node,
        device,
        f"{nic} of {node} receives it, no packet filter drops it; {unwrapped}",
        trace.compared(*(checks or [interface_up(node, nic)]), *trace.expected(Topic.RP_FILTER, device, node)),
        packet=outer,
    )
