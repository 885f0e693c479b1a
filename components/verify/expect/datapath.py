"""What carries packets between nodes: the tunnels' devices, the routes to the other nodes' blocks, VXLAN's neighbour
and forwarding entries, BGP sessions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from components.spec import models
from components.spec.addresses import network_of, tunnel_mtu
from components.spec.modes import IPIP, VXLAN, VXLAN_VNI, WIREGUARD, Tunnel
from components.spec.placement import selected
from components.verify.expect.shared import restart_felix
from components.verify.model import Expectation, ObservedLab, OneOf, Topic, Value, tunnel_mac
from components.verify.routes import destination_of

# Felix's routes have this protocol (DeviceRouteProtocol); BIRD's are called bird.
_FELIX = "80"
_BIRD_OR_FELIX = OneOf(("bird", _FELIX))


def datapath(observed: ObservedLab, node: models.Node) -> Iterator[Expectation]:
    """A node's part of the data path, in the order in which it is best read."""
    yield from _devices(observed, node)
    yield from _routes(observed, node)
    yield from _vxlan_entries(observed, node)
    yield from _bgp_sessions(observed, node)


# --- devices ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _DeviceText:
    """What the device does, as the end of a sentence; and why it is there."""

    does: str
    because: str


_DEVICE_TEXT: Mapping[str, _DeviceText] = {
    VXLAN.name: _DeviceText(
        f"wraps packets in VXLAN with VNI {VXLAN_VNI} and learns no addresses",
        "Felix makes it for VXLAN, and writes the entries that it would otherwise learn",
    ),
    IPIP.name: _DeviceText("wraps packets in IP", "Felix brings it up for IPIP"),
    WIREGUARD.name: _DeviceText("encrypts packets", "calico.wireguard in the stack file"),
}


def _devices(observed: ObservedLab, node: models.Node) -> Iterator[Expectation]:
    for tunnel in (VXLAN, IPIP, WIREGUARD):
        if observed.has_device(node.name, tunnel):
            yield _device(observed, node, tunnel)
    # The kernel makes tunl0 by itself with the module; only vxlan.calico is Felix's to remove.
    if not observed.has_device(node.name, VXLAN) and VXLAN not in observed.spec.tunnels:
        yield Expectation(
            topic=Topic.LINK,
            key=VXLAN.device,
            expected=None,
            sentence=f"{node.name} has no {VXLAN.device}",
            command=f"ip -d addr show {VXLAN.device}",
            because="no pool of the lab uses VXLAN",
            cause="the device is left from an earlier mode: Felix did not remove it",
            advice=f"{restart_felix(observed, node.name)}; Felix removes the device when it starts",
            node=node.name,
        )


def _device(observed: ObservedLab, node: models.Node, tunnel: Tunnel) -> Expectation:
    text = _DEVICE_TEXT[tunnel.name]
    mtu = str(tunnel_mtu(observed.spec, tunnel))
    fields: dict[str, Value] = {"kind": tunnel.kind, "up": "yes", "mtu": mtu}
    if tunnel == VXLAN:
        fields |= {
            "id": str(VXLAN_VNI),
            "port": str(VXLAN.ports[0] if VXLAN.ports else ""),
            "learning": "off",
            "local": str(node.address),
            "dev": observed.nics[node.name],
            "address": tunnel_mac(node.name),
        }
    address = observed.tunnel_address(node.name, tunnel)
    if address:
        fields["addresses"] = f"{address}/32"
    return Expectation(
        topic=Topic.LINK,
        key=tunnel.device,
        expected=fields,
        sentence=f"{tunnel.device} of {node.name} {text.does}; its MTU is {mtu}",
        command=f"ip -d addr show {tunnel.device}",
        because=f"{text.because}; the MTU leaves room for {tunnel.overhead} bytes of outer headers",
        cause=f"the kernel has no {tunnel.module}, calico-node does not run on the node, or another network manager "
        "changed the device",
        advice=f"modprobe {tunnel.module}; then {restart_felix(observed, node.name)}",
        node=node.name,
    )


# --- routes ----------------------------------------------------------------------------------------------------------


def _routes(observed: ObservedLab, node: models.Node) -> Iterator[Expectation]:
    for cidr in observed.affinities.get(node.name, ()):
        pool = observed.pool_of(cidr)
        if pool is not None and network_of(cidr).prefixlen < 32:
            yield Expectation(
                topic=Topic.ROUTE,
                key=cidr,
                expected={"type": "blackhole", "proto": _protocol(pool)},
                sentence=f"{node.name} drops packets for addresses of its own block {cidr} that no pod has",
                command=f"ip route show type blackhole {cidr}",
                because="without this route such packets would leave by the default route, and come back",
                cause=f"{pool.mode.routes_by} does not run on the node",
                advice=restart_felix(observed, node.name),
                node=node.name,
            )
    has_vxlan, has_wireguard = (observed.has_device(node.name, tunnel) for tunnel in (VXLAN, WIREGUARD))
    for peer in observed.spec.nodes:
        if peer.name == node.name:
            continue
        for cidr in observed.affinities.get(peer.name, ()):
            pool = observed.pool_of(cidr)
            if pool is None:
                continue
            if has_vxlan or pool.mode.tunnel != VXLAN:
                yield _to_block(observed, node, peer, cidr, pool)
            if has_wireguard:
                yield _encrypted(observed, node, peer, cidr)


def _protocol(pool: models.Pool) -> Value:
    """Who wrote a route for a block of the pool."""
    return _FELIX if pool.mode.routes_by == "Felix" else _BIRD_OR_FELIX


def _to_block(observed: ObservedLab, node: models.Node, peer: models.Node, cidr: str, pool: models.Pool) -> Expectation:
    """The route in the main table from a node to a peer's block, by the pool's mode."""
    same_subnet, address = observed.same_subnet(node.name, peer.name), observed.addresses[peer.name]
    tunnel = pool.mode.tunnel_between(same_subnet=same_subnet)
    fields: dict[str, Value]
    if tunnel is None:
        # BIRD has the peer's address as next hop; across a router the kernel replaces it by the router's.
        fields = {"dev": observed.nics[node.name], "proto": _protocol(pool)}
        if same_subnet:
            fields["via"] = address
        how = f"straight to {address}" if same_subnet else "to the router, without a tunnel"
    elif tunnel == VXLAN:
        via = observed.tunnel_address(peer.name, VXLAN) or str(network_of(cidr)[0])
        fields = {"via": via, "dev": tunnel.device, "onlink": "yes"}
        how = f"through {tunnel.device} to {via}"
    else:
        fields = {"via": address, "dev": tunnel.device, "onlink": "yes", "proto": _protocol(pool)}
        how = f"through {tunnel.device} to {address}"
    calico = observed.spec.calico
    if pool.mode.routes_by == "BIRD" and not calico.mesh and not calico.route_reflectors:
        # The peers outside the cluster choose the next hop.
        fields, how = {"proto": _protocol(pool)}, "as the BGP peers of calico.peers say"
    subnets = "one subnet" if same_subnet else f"the subnets {node.subnet} and {peer.subnet}"
    by_bgp = calico.bgp == "Enabled" and pool.mode.routes_by == "BIRD"
    return Expectation(
        topic=Topic.ROUTE,
        key=destination_of(network_of(cidr)),
        expected=fields,
        sentence=f"{node.name} sends packets for {peer.name}'s block {cidr} {how}",
        command=f"ip route show {cidr}",
        because=f"pool {pool.name} is {pool.encapsulation}, and the two nodes are in {subnets}",
        cause="BIRD's session to the peer is down (see the checks of BGP sessions)"
        if by_bgp
        else "Felix does not run on the node, the pool's mode was changed, or somebody removed the route",
        advice=restart_felix(observed, node.name),
        node=node.name,
    )


def _encrypted(observed: ObservedLab, node: models.Node, peer: models.Node, cidr: str) -> Expectation:
    """The route that the kernel looks up first: Felix's rule 99 sends all but WireGuard's own packets to a table that
    has routes into WireGuard."""
    return Expectation(
        topic=Topic.ENCRYPTED,
        key=destination_of(network_of(cidr)),
        expected={"dev": WIREGUARD.device},
        sentence=f"{node.name} encrypts packets for {peer.name}'s block {cidr}",
        command=f"ip route show table all type unicast | grep 'dev {WIREGUARD.device}'",
        because="calico.wireguard in the stack file; the main table's route to the same block is not reached",
        cause=f"{peer.name} or {node.name} has no WireGuard: its kernel lacks it, or calico-node does not run there",
        advice="kubectl get nodes -o yaml | grep WireguardPublicKey shows which has none; there modprobe wireguard, "
        f"then {restart_felix(observed, node.name)}",
        node=node.name,
    )


# --- VXLAN's tables --------------------------------------------------------------------------------------------------


def _vxlan_entries(observed: ObservedLab, node: models.Node) -> Iterator[Expectation]:
    if not observed.has_device(node.name, VXLAN):
        return
    restart = restart_felix(observed, node.name)
    for peer in observed.spec.nodes:
        tunnel_address, mac, address = (
            observed.tunnel_address(peer.name, VXLAN),
            tunnel_mac(peer.name),
            observed.addresses[peer.name],
        )
        if peer.name == node.name or not tunnel_address:
            continue
        yield Expectation(
            topic=Topic.NEIGHBOUR,
            key=f"{VXLAN.device} {tunnel_address}",
            expected={"lladdr": mac, "state": "PERMANENT"},
            sentence=f"{node.name} has a permanent entry: {peer.name}'s tunnel address {tunnel_address} is at {mac}",
            command=f"ip neigh show dev {VXLAN.device}",
            because=f"Felix writes it; the MAC follows from the name {peer.name}",
            cause="the entry was deleted, or Felix does not run on the node",
            advice=restart,
            node=node.name,
        )
        yield Expectation(
            topic=Topic.FDB,
            key=f"{VXLAN.device} {mac}",
            expected={"dst": address, "state": "permanent"},
            sentence=f"{node.name} sends frames for {mac} to {address}",
            command=f"bridge fdb show dev {VXLAN.device}",
            because=f"Felix writes it: {mac} is {peer.name}, whose address is {address}",
            cause="the forwarding entry is gone: the outer destination is unknown, and packets end at the tunnel",
            advice=f"{restart} (`./lab mend STACK` if `./lab break` removed it)",
            node=node.name,
        )


# --- BGP -------------------------------------------------------------------------------------------------------------


def _bgp_sessions(observed: ObservedLab, node: models.Node) -> Iterator[Expectation]:
    calico = observed.spec.calico
    if calico.bgp != "Enabled":
        return
    reflectors = set(calico.route_reflectors)
    for other in observed.spec.nodes:
        if other.name != node.name and (calico.mesh or reflectors & {node.name, other.name}):
            because = (
                "calico.routeReflectors in the stack file" if reflectors else "every node is a peer of every other"
            )
            cause = "TCP 179 does not reach the peer, or calico-node does not run there"
            yield _bgp_session(node, other.name, str(other.address), because, cause)
    for peer in calico.peers:
        nodes = selected(observed.spec, peer.node_selector)
        if nodes is not None and node in nodes:
            cause = "TCP 179 does not reach the peer, or one of the two has another AS number for the other"
            if peer.password is not None:
                cause += ", or another password"
            yield _bgp_session(node, peer.name, str(peer.peer_ip), "calico.peers in the stack file", cause)


def _bgp_session(node: models.Node, peer: str, address: str, because: str, cause: str) -> Expectation:
    return Expectation(
        topic=Topic.BGP,
        key=address,
        expected={"state": "Established"},
        sentence=f"{node.name}'s BGP session to {peer} ({address}) is established",
        command="calicoctl node status",
        because=because,
        cause=cause,
        advice=f"on {node.name}: nc -vz {address} 179; check the security group or the firewall",
        node=node.name,
    )


# --- for walks -------------------------------------------------------------------------------------------------------


def underlay(observed: ObservedLab, node: str, destination: str) -> Expectation:
    """The node's own way to another node's address."""
    interface = observed.nics.get(node, "")
    return Expectation(
        topic=Topic.ROUTE,
        key=destination,
        expected={"dev": interface},
        sentence=f"{node} reaches {destination} on {interface}",
        command=f"ip route get {destination}",
        because="nodes reach each other over the network that they are on",
        cause="the node's own network is broken",
        advice=f"on {node}: ping {destination}",
        node=node,
    )


def any_route(node: str, address: str) -> Expectation:
    """Some route to an address that is in no block of the lab's nodes."""
    return Expectation(
        topic=Topic.ROUTE,
        key=address,
        expected={},
        sentence=f"{node} has a route to {address}",
        command=f"ip route get {address}",
        because="no pod and no node of the lab has the address",
        cause="no pod has this address of the node's own block, no node holds the address's block, or the node has no "
        "default route",
        advice="./lab addresses STACK shows who holds which block",
        node=node,
    )
