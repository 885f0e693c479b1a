"""The interfaces and routes of a sandbox: input for `ip -batch` and `bridge -batch`.

They are what Felix, BIRD, Multus and the CNI plugins leave behind on a node; the router is the lab's network.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network

from components.sandbox.model import (
    IPIP_DEVICE,
    IPIP_OVERHEAD,
    OUTSIDE,
    VXLAN_DEVICE,
    VXLAN_ID,
    VXLAN_OVERHEAD,
    VXLAN_PORT,
    WIREGUARD_DEVICE,
    WIREGUARD_OVERHEAD,
    WIREGUARD_PORT,
    Extra,
    Plan,
    Pod,
    gateway_of,
    mac_of,
    tunnel_mac,
)
from components.spec.addresses import attached_mtu, given_mtu, network_of
from components.spec.gateways import forwards
from components.spec.models import (
    BridgeNetwork,
    CustomNetwork,
    HostDeviceNetwork,
    IpvlanNetwork,
    MacvlanNetwork,
    Node,
    Pool,
)

BIRD = "12"
"""Protocol `bird` by its number: /etc/iproute2/rt_protos need not name it. Felix's own is 80."""
BIRD_METRIC = 1024
"""Of the routes that BIRD learns from other nodes: ipv4NormalRoutePriority of BGPConfiguration, which Calico's import
filter sets (confd/pkg/backends/calico/bgp_processor.go). The blackhole of a node's own block has none."""
WIREGUARD_MARK = "0x100000"
"""Felix marks WireGuard's own packets, so that they are not encrypted once more."""


def subnets(plan: Plan) -> list[IPv4Network]:
    """The subnets that have nodes."""
    return list(dict.fromkeys(plan.lab.network.subnets[node.subnet] for node in plan.lab.nodes))


def router_address(plan: Plan, subnet: IPv4Network) -> IPv4Address:
    """The router's address in a subnet: the first, or the last that no node has."""
    taken = {node.address for node in plan.lab.nodes}
    return next(address for n in (1, *range(-2, 1 - subnet.num_addresses, -1)) if (address := subnet[n]) not in taken)


def router_batch(plan: Plan) -> list[str]:
    """A bridge for each subnet with the router's address and a port for each node, and one for each further segment."""
    mtu, order = plan.lab.link_mtu, subnets(plan)
    lines = ["link set lo up", f"address add {OUTSIDE}/32 dev lo"]
    for i, subnet in enumerate(order):
        lines += [
            f"link add sub{i} mtu {mtu} address {mac_of('router', str(subnet))} type bridge",
            f"address add {router_address(plan, subnet)}/{subnet.prefixlen} broadcast + dev sub{i}",
            f"link set sub{i} up",
        ]
    for i, segment in enumerate(plan.segments):
        lines += [f"link add seg{i} mtu {mtu} address {mac_of('segment', segment)} type bridge", f"link set seg{i} up"]
    for i, node in enumerate(plan.lab.nodes):
        bridge = f"sub{order.index(plan.lab.network.subnets[node.subnet])}"
        ports = [(f"port{i}", bridge, plan.nic, mac_of("node", node.name))]
        for j, segment in enumerate(plan.segments):
            ports.append((f"port{i}s{j}", f"seg{j}", segment, mac_of("segment", segment, node.name)))
        lines.append(f"netns add {node.name}")
        for port, bridge, interface, mac in ports:
            lines += [
                f"link add {port} mtu {mtu} type veth peer name {interface} mtu {mtu} address {mac} netns {node.name}",
                f"link set {port} master {bridge} up",
            ]
        if plan.router_knows_pods:
            # Only where packets carry pod addresses: elsewhere it would hide that a tunnel is not used.
            bare = [pool.cidr for pool in plan.lab.calico.pools if pool.encapsulation == "None"]
            for block in plan.blocks[node.name]:
                if any(network_of(block).subnet_of(cidr) for cidr in bare):
                    lines.append(f"route add {block} via {node.address}")
    return lines


def node_batch(plan: Plan, node: Node) -> list[str]:
    """The node's own interfaces, tunnels, routes to the other nodes' blocks, and the host sides of its pods."""
    subnet = plan.lab.network.subnets[node.subnet]
    lines = [
        "link set lo up",
        f"link set {plan.nic} up",
        f"address add {node.address}/{subnet.prefixlen} broadcast + dev {plan.nic}",
        f"route add default via {router_address(plan, subnet)} dev {plan.nic} proto static metric 100",
    ]
    lines += [f"link set {segment} up" for segment in plan.segments]
    lines += _tunnels(plan, node)
    for pool in plan.lab.calico.pools:
        lines += _pool_routes(plan, node, pool)
    lines += _bridges(plan, node)
    for pod in plan.on(node.name):
        lines += _host_side(plan, pod)
    return lines


def _bridges(plan: Plan, node: Node) -> list[str]:
    """The bridges of the networks that the node's pods are attached to, as the bridge plugin makes them."""
    lines: list[str] = []
    networks = {extra.network.name: extra.network for pod in plan.on(node.name) for extra in pod.extras}
    made: set[str] = set()
    for network in networks.values():
        if not isinstance(network, BridgeNetwork):
            continue
        if network.bridge not in made:
            lines.append(f"link add {network.bridge} mtu {attached_mtu(plan.lab, network) or 1500} type bridge")
            lines.append(f"link set {network.bridge} up")
            made.add(network.bridge)
        if network.is_gateway:
            gateway = gateway_of(network)
            lines.append(f"address add {gateway}/{network.subnet.prefixlen} broadcast + dev {network.bridge}")
    return lines


def _tunnels(plan: Plan, node: Node) -> list[str]:
    lines: list[str] = []
    if address := plan.tunnel_address(node.name, "VXLAN"):
        mtu = given_mtu(plan.lab) or plan.lab.link_mtu - VXLAN_OVERHEAD
        lines += [
            f"link add {VXLAN_DEVICE} mtu {mtu} address {tunnel_mac(node.name)} type vxlan id {VXLAN_ID}"
            f" local {node.address} dev {plan.nic} dstport {VXLAN_PORT} nolearning",
            f"address add {address}/32 dev {VXLAN_DEVICE}",
            f"link set {VXLAN_DEVICE} up",
        ]
        for other in plan.lab.nodes:
            there = plan.tunnel_address(other.name, "VXLAN")
            if other.name != node.name and there:
                lines.append(f"neigh add {there} lladdr {tunnel_mac(other.name)} dev {VXLAN_DEVICE} nud permanent")
    if address := plan.tunnel_address(node.name, "IPIP"):
        # machine.sh has seen to it that tunl0 is there.
        lines += [
            f"link set {IPIP_DEVICE} mtu {given_mtu(plan.lab) or plan.lab.link_mtu - IPIP_OVERHEAD} up",
            f"address add {address}/32 dev {IPIP_DEVICE}",
        ]
    if address := plan.tunnel_address(node.name, "WireGuard"):
        mtu = given_mtu(plan.lab) or plan.lab.link_mtu - WIREGUARD_OVERHEAD
        lines += [
            f"link add {WIREGUARD_DEVICE} mtu {mtu} type wireguard",
            f"address add {address}/32 dev {WIREGUARD_DEVICE}",
            f"link set {WIREGUARD_DEVICE} up",
            f"rule add pref 99 not fwmark {WIREGUARD_MARK}/{WIREGUARD_MARK} lookup 1",
        ]
        for other in plan.lab.nodes:
            if other.name != node.name:
                blocks = plan.blocks[other.name]
                lines += [f"route add {block} dev {WIREGUARD_DEVICE} table 1 proto 80 scope link" for block in blocks]
    return lines


def wireguard_configurations(plan: Plan) -> dict[str, str]:
    """Node → input for `wg setconf`, with fresh keys; empty where the lab has no WireGuard."""
    if not plan.lab.calico.wireguard:
        return {}
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    keys = {node.name: X25519PrivateKey.generate() for node in plan.lab.nodes}
    private = {name: base64.b64encode(key.private_bytes_raw()).decode() for name, key in keys.items()}
    public = {name: base64.b64encode(key.public_key().public_bytes_raw()).decode() for name, key in keys.items()}
    return {node.name: _wireguard(plan, node, private[node.name], public) for node in plan.lab.nodes}


def _wireguard(plan: Plan, node: Node, private: str, public: Mapping[str, str]) -> str:
    mark = int(WIREGUARD_MARK, 16)
    lines = ["[Interface]", f"PrivateKey = {private}", f"ListenPort = {WIREGUARD_PORT}", f"FwMark = {mark}"]
    for other in plan.lab.nodes:
        if other.name != node.name:
            allowed = [*plan.blocks[other.name], f"{plan.tunnel_address(other.name, 'WireGuard')}/32"]
            lines += ["[Peer]", f"PublicKey = {public[other.name]}", f"Endpoint = {other.address}:{WIREGUARD_PORT}"]
            lines.append(f"AllowedIPs = {', '.join(allowed)}")
    return "".join(f"{line}\n" for line in lines)


def fdb_batch(plan: Plan, node: Node) -> list[str]:
    """`bridge -batch`: where each other node's vxlan.calico is."""
    if plan.tunnel_address(node.name, "VXLAN") is None:
        return []
    return [
        f"fdb add {tunnel_mac(other.name)} dev {VXLAN_DEVICE} dst {other.address} self permanent"
        for other in plan.lab.nodes
        if other.name != node.name and plan.tunnel_address(other.name, "VXLAN")
    ]


def _pool_routes(plan: Plan, node: Node, pool: Pool) -> list[str]:
    felix = pool.encapsulation.startswith("VXLAN")
    lines = []
    for other in plan.lab.nodes:
        for block in plan.blocks[other.name]:
            if not network_of(block).subnet_of(pool.cidr):
                continue
            if other.name == node.name:
                # A block of one address has no address that no pod has.
                if network_of(block).prefixlen < 32:
                    lines.append(f"route add blackhole {block} proto {'80' if felix else BIRD}")
            else:
                lines.append(_route_to(plan, node, other, pool, block))
    return lines


def _route_to(plan: Plan, node: Node, other: Node, pool: Pool, block: str) -> str:
    near = node.subnet == other.subnet
    if pool.encapsulation in ("VXLAN", "VXLANCrossSubnet") and not (near and pool.encapsulation.endswith("Subnet")):
        mtu = given_mtu(plan.lab) or plan.lab.link_mtu - VXLAN_OVERHEAD
        return f"route add {block} via {plan.tunnel_address(other.name, 'VXLAN')} dev {VXLAN_DEVICE} onlink mtu {mtu}"
    if pool.encapsulation == "VXLANCrossSubnet":
        return f"route add {block} via {other.address} dev {plan.nic} proto 80 onlink"
    if pool.encapsulation.startswith("IPIP") and not (near and pool.encapsulation.endswith("Subnet")):
        return f"route add {block} via {other.address} dev {IPIP_DEVICE} proto {BIRD} metric {BIRD_METRIC} onlink"
    if near:
        return f"route add {block} via {other.address} dev {plan.nic} proto {BIRD} metric {BIRD_METRIC}"
    # BIRD resolves a next hop that is not on the link through the route to it: by the subnet's gateway.
    gateway = router_address(plan, plan.lab.network.subnets[node.subnet])
    return f"route add {block} via {gateway} dev {plan.nic} proto {BIRD} metric {BIRD_METRIC}"


def _host_side(plan: Plan, pod: Pod) -> list[str]:
    """The pod's network namespace, and on the node what the pod hangs on."""
    if pod.host_network:
        # CRI-O binds the node's own network namespace under a name of the pod's.
        return [f"netns attach {pod.netns} 1"]
    mtu = pod_mtu(plan)
    lines = [
        f"netns add {pod.netns}",
        f"link add {pod.interface} mtu {mtu} address ee:ee:ee:ee:ee:ee type veth"
        f" peer name eth0 mtu {mtu} address {pod.mac} netns {pod.netns}",
        f"link set {pod.interface} up",
        # Felix writes 0 into proxy_delay, so that the answer comes at once.
        f"ntable change name arp_cache dev {pod.interface} proxy_delay 0",
        f"route add {pod.address} dev {pod.interface} scope link metric 1024",
    ]
    for extra in pod.extras:
        lines += _attachment(plan, pod, extra)
    return lines


def _attachment(plan: Plan, pod: Pod, extra: Extra) -> list[str]:
    net, inside = extra.network, f"name {extra.interface} address {extra.mac} netns {pod.netns}"
    match net:
        case BridgeNetwork():
            mtu = attached_mtu(plan.lab, net) or 1500
            return [
                f"link add {extra.host_interface} mtu {mtu} type veth"
                f" peer name {extra.interface} mtu {mtu} address {extra.mac} netns {pod.netns}",
                f"link set {extra.host_interface} master {net.bridge} up",
                f"link set {extra.host_interface} type bridge_slave hairpin {'on' if net.hairpin_mode else 'off'}",
            ]
        case MacvlanNetwork():
            mtu = net.mtu or plan.lab.link_mtu
            return [f"link add link {net.master} {inside} mtu {mtu} type macvlan mode {net.mode}"]
        case IpvlanNetwork():
            # It has its master's MAC address.
            inside = f"name {extra.interface} netns {pod.netns}"
            return [
                f"link add link {net.master} {inside} mtu {net.mtu or plan.lab.link_mtu} type ipvlan mode {net.mode}"
            ]
        case HostDeviceNetwork():
            return [f"link set dev {net.device} netns {pod.netns} name {extra.interface}"]
        case CustomNetwork():
            # No CNI plugin runs here: a bridge without ports stands for what the plugin would make.
            return [f"link add {inside} type bridge"]


def pod_mtu(plan: Plan) -> int:
    """MTU of a pod's eth0 in bytes: the link's less the largest overhead of the tunnels in use."""
    calico = plan.lab.calico
    overheads = [VXLAN_OVERHEAD] if any(pool.encapsulation.startswith("VXLAN") for pool in calico.pools) else []
    overheads += [IPIP_OVERHEAD] if any(pool.encapsulation.startswith("IPIP") for pool in calico.pools) else []
    overheads += [WIREGUARD_OVERHEAD] if calico.wireguard else []
    return calico.mtu or plan.lab.link_mtu - max(overheads, default=0)


def pod_batch(pod: Pod) -> list[str]:
    """Inside the pod: Calico's /32 and 169.254.1.1, then what Multus and the networks' plugins add."""
    lines = [
        "link set lo up",
        "link set eth0 up",
        f"address add {pod.address}/32 dev eth0",
        "route add 169.254.1.1 dev eth0 scope link",
    ]
    routes = [str(dst) for dst in pod.delegate.routes] if pod.delegate else []
    if not routes and not any(extra.default_route for extra in pod.extras):
        routes = ["default"]
    lines += [f"route add {dst} via 169.254.1.1 dev eth0" for dst in routes]
    for extra in pod.extras:
        net = extra.network
        if isinstance(net, HostDeviceNetwork) and net.mtu:
            lines.append(f"link set {extra.interface} mtu {net.mtu}")
        lines.append(f"link set {extra.interface} up")
        if not extra.addresses or isinstance(net, CustomNetwork):
            continue
        lines += [f"address add {address} broadcast + dev {extra.interface}" for address in extra.addresses]
        for route in net.routes:
            next_hop = route.gateway or gateway_of(net)
            via = f"via {next_hop} " if next_hop else ""
            # As the plugin adds it: before a route to the same destination, not instead of it.
            lines.append(f"route prepend {route.dst} {via}dev {extra.interface}")
        if extra.default_route:
            lines.append(f"route add default via {extra.default_route} dev {extra.interface}")
    return lines


def forwarding(plan: Plan, node: Node) -> list[str]:
    """The namespaces of the pods that Calico's plugin lets forward packets."""
    lab = plan.lab
    found = []
    for pod in plan.on(node.name):
        workload = next((w for w in lab.workloads if pod.labels.get("cni-lab/workload") == w.name), None)
        if workload is not None and forwards(lab, workload):
            found.append(pod.netns)
    return found
