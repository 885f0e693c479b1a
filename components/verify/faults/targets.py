"""Where faults can be made: in which labs, and at which places of a lab."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

from components.spec import addresses, models
from components.spec.gateways import firewalls
from components.spec.modes import VXLAN, Tunnel
from components.spec.placement import pod_count, selected
from components.verify.expect import pod as expect_pod
from components.verify.expect.egress import by_name, firewall_of, users
from components.verify.expect.multus import MULTUS_FILE, default_interface, delegate_file
from components.verify.expect.node import inbound_devices, mixed
from components.verify.expect.probes import Ping
from components.verify.faults.model import Target
from components.verify.model import EntryKey, ObservedLab, Pod, Topic, tunnel_mac
from components.verify.read.filters import FORWARDED
from components.verify.routes import destination_of

# --- in which labs ---------------------------------------------------------------------------------------------------


def only_on_ec2(lab: models.Lab) -> str | None:
    if isinstance(lab.machines, models.AwsMachines):
        return None
    return f"machines.provider is {lab.machines.provider}: only EC2 has a source/destination check"


def only_with(tunnel: Tunnel) -> Callable[[models.Lab], str | None]:
    """Labs whose packets between nodes travel in a tunnel."""

    def refusal(lab: models.Lab) -> str | None:
        if lab.calico.wireguard:
            return f"calico.wireguard: packets between nodes travel inside WireGuard, not in {tunnel.name}"
        if tunnel not in lab.tunnels:
            modes = ", ".join(sorted(lab.encapsulations))
            return f"calico.pools: no pool uses {tunnel.name} (encapsulation: {modes}), so no packet travels in it"
        return None if len(lab.nodes) > 1 else "nodes: there is only one, so no packet leaves it"

    return refusal


def only_with_multus(lab: models.Lab) -> str | None:
    return None if lab.multus else "multus: the lab has none"


def only_with_delegates(lab: models.Lab) -> str | None:
    if lab.multus is None:
        return only_with_multus(lab)
    return None if lab.multus.delegates else "multus.delegates: the lab has none"


def only_with_smaller_mtu(lab: models.Lab) -> str | None:
    if addresses.pod_mtu(lab) >= lab.link_mtu:
        return "calico.mtu: pods have the MTU of the link between the nodes, so none is too large"
    return only_with_pods(lab)


def only_with_nat(lab: models.Lab) -> str | None:
    if not any(pool.nat_outgoing for pool in lab.calico.pools):
        return "calico.pools: no pool has natOutgoing"
    return only_with_pods(lab)


def only_with_two_ways(lab: models.Lab) -> str | None:
    """Labs in which the answer may travel otherwise than the packet: two pools by two ways."""
    if mixed(lab):
        return None if len(lab.nodes) > 1 else "nodes: there is only one, so no packet leaves it"
    return "calico.pools: every answer travels as the packet did, so nothing comes in by another device"


def only_with_several_nodes(lab: models.Lab) -> str | None:
    return None if len(lab.nodes) > 1 else "nodes: there is only one, so no packet leaves it"


def only_with_services(lab: models.Lab) -> str | None:
    if any(workload.service and pod_count(lab, workload) for workload in lab.workloads):
        return None
    return "workloads: none has a service"


def only_with_peers(lab: models.Lab) -> str | None:
    if lab.calico.bgp != "Enabled" or not lab.calico.peers:
        return "calico.peers: the lab has none"
    return None


def only_with_pods(lab: models.Lab) -> str | None:
    has_pods = any(pod_count(lab, workload) for workload in lab.workloads)
    return None if has_pods else "workloads: the lab has no pods of its own"


def only_with_firewall(lab: models.Lab) -> str | None:
    """Labs in which a pod is the gateway of other pods."""
    return None if firewalls(lab) else "workloads: no pod's defaultRoute is the fixed address (ips) of another pod"


def only_with_default_route(lab: models.Lab) -> str | None:
    """Labs with pods whose default route goes through an attached network."""
    routed = [w for w in lab.workloads if default_interface(lab, w) not in (None, "eth0")]
    if any(pod_count(lab, workload) for workload in routed):
        return None
    return (
        "workloads: no pod's default route goes through an attached network (defaultRoute), "
        f"and on eth0 proxy ARP answers for every gateway, not only for {addresses.GATEWAY}"
    )


# --- at which places -------------------------------------------------------------------------------------------------


def _nodes(lab: ObservedLab) -> list[str]:
    """Workers first, because they have the lab's pods."""
    return [node.name for node in (*lab.spec.workers, *lab.spec.control_planes)]


def pods(lab: ObservedLab) -> Iterator[Pod]:
    """Pods of the lab's workloads, node by node. The first of each node is the one whose pings verify looks at."""
    for node in _nodes(lab):
        own = [pod for pod in lab.running(node) if lab.workload_of(pod)]
        yield from by_name(lab, own)


def source_dest(lab: ObservedLab) -> Iterator[Target]:
    for node in _nodes(lab):
        sentence = f"switch EC2's source/destination check of {node} on"
        yield Target(node, sentence, (EntryKey(Topic.SOURCE_DEST, node),))


def dropped(tunnel: Tunnel) -> Callable[[ObservedLab], Iterator[Target]]:
    """A packet filter on the node that receives a tunnel's packets."""
    port = f" --dport {tunnel.ports[0]}" if tunnel.ports else ""

    def targets(lab: ObservedLab) -> Iterator[Target]:
        for node in _nodes(lab):
            yield Target(
                node,
                f"drop {tunnel.packet_title} that reaches {node}",
                (EntryKey(Topic.FILTER, tunnel.packet, node),),
                {"RULE": f"-p {tunnel.protocol}{port}"},
            )

    return targets


def forwarding_entry(lab: ObservedLab) -> Iterator[Target]:
    for node, peer in product(_nodes(lab), _nodes(lab)):
        if node != peer:
            mac = tunnel_mac(peer)
            yield Target(
                node,
                f"remove {peer}'s entry ({mac}) from the forwarding table of {VXLAN.device} on {node}",
                (EntryKey(Topic.FDB, f"{VXLAN.device} {mac}", node),),
                {"MAC": mac},
                peer=peer,
            )


def proxy_arp(lab: ObservedLab) -> Iterator[Target]:
    for pod in pods(lab):
        yield Target(
            pod.node,
            f"switch proxy ARP off on {pod.interface} of {pod.node}, the host side of {pod.id}",
            (EntryKey(Topic.PROXY_ARP, pod.interface, pod.node),),
            {"INTERFACE": pod.interface},
            pod,
        )


def multus_file(lab: ObservedLab) -> Iterator[Target]:
    for node in _nodes(lab):
        breaks = (
            EntryKey(Topic.FILE, "first", node),
            EntryKey(Topic.FILE, MULTUS_FILE, node),
            EntryKey(Topic.CRIO, "default network", node),
        )
        yield Target(node, f"empty {MULTUS_FILE} on {node}", breaks, {"FILE": MULTUS_FILE})


def delegate(lab: ObservedLab) -> Iterator[Target]:
    """The last delegate first, as in the cFOS guide: pods ask for it by name."""
    for found, node in product(reversed(lab.spec.multus.delegates if lab.spec.multus else ()), _nodes(lab)):
        if addresses.block_in_pool(lab.blocks.get(node, ()), lab.spec.pool_of(found)) is not None:
            path = delegate_file(found.name)
            yield Target(
                node,
                f"rename {path} on {node} to {found.name}.conf.bak",
                (EntryKey(Topic.FILE, path, node),),
                {"FILE": path},
            )


def firewall(*, unplugged: bool) -> Callable[[ObservedLab], Iterator[Target]]:
    """Firewalls with a running pod behind them on the same node."""

    def targets(lab: ObservedLab) -> Iterator[Target]:
        for node in _nodes(lab):
            for user in users(lab, node)[:1]:
                of, pod = firewall_of(lab, user) or (None, None)
                if of is None or pod is None:
                    continue
                variables = {"INTERFACE": pod.interface, "DEVICE": of.interface}
                if unplugged:
                    gone = [destination_of(route.dst) for route in of.network.routes]
                    breaks = [EntryKey(Topic.ROUTE, key, node, pod.interface) for key in gone]
                    breaks.append(EntryKey(Topic.LINK, of.interface, node, pod.interface))
                    breaks.append(EntryKey(Topic.PROBE, Ping(user.interface, str(of.address)).key, node))
                    sentence = f"take {of.interface} of {pod.id} on {node} down, the gateway {of.address} of other pods"
                else:
                    breaks = [EntryKey(Topic.FILTER, FORWARDED, node, pod.interface)]
                    sentence = f"let {pod.id} on {node} drop every packet that it would forward"
                yield Target(node, sentence, tuple(breaks), variables, user)

    return targets


def mtu(lab: ObservedLab) -> Iterator[Target]:
    """Pods whose eth0 has a smaller MTU than the link between the nodes."""
    right, wrong = addresses.pod_mtu(lab.spec), lab.spec.link_mtu
    for pod in pods(lab):
        if right < wrong:
            yield Target(
                pod.node,
                f"give eth0 of {pod.id} on {pod.node} the MTU {wrong} instead of {right}; its host side keeps {right}",
                (EntryKey(Topic.LINK, "eth0", pod.node, pod.interface),),
                {"INTERFACE": pod.interface, "VALUE": str(wrong)},
                pod,
            )


def neighbour(lab: ObservedLab) -> Iterator[Target]:
    """The neighbour by which VXLAN finds another node; with its MAC address the peer's vxlan.calico drops nothing."""
    for node, peer in product(_nodes(lab), _nodes(lab)):
        address = lab.tunnel_address(peer, VXLAN)
        if node != peer and address:
            wrong = tunnel_mac(f"{peer}-before")
            yield Target(
                node,
                f"let {node} have an old MAC address ({wrong}) for {address}, the {VXLAN.device} of {peer}",
                (EntryKey(Topic.NEIGHBOUR, f"{VXLAN.device} {address}", node),),
                {"ADDRESS": address, "DEVICE": VXLAN.device, "MAC": wrong},
                peer=peer,
            )


def nat(lab: ObservedLab) -> Iterator[Target]:
    """A pool with natOutgoing, on a node with a pod of it that leaves by eth0."""
    for pod in pods(lab):
        pool = lab.pool_of(pod.address)
        outside = expect_pod.route_for(lab, pod, lab.outside).expected or {}
        if pool is not None and pool.nat_outgoing and str(outside.get("dev", "")) == "eth0":
            yield Target(
                pod.node,
                f"let packets that pods of pool {pool.name} send outside keep their source address on {pod.node}",
                (EntryKey(Topic.NAT, str(pool.cidr), pod.node),),
                {"CIDR": str(pool.cidr)},
                pod,
            )


def forwarding(lab: ObservedLab) -> Iterator[Target]:
    for node in _nodes(lab):
        yield Target(node, f"let {node} forward no packets", (EntryKey(Topic.IP_FORWARD, "all", node),))


def reverse_path(lab: ObservedLab) -> Iterator[Target]:
    for node in _nodes(lab):
        sentence = f"let {node} drop packets that come in by another device than the answer would leave by"
        devices = inbound_devices(lab, node)
        breaks = tuple(EntryKey(Topic.RP_FILTER, device, node) for device in devices)
        yield Target(node, sentence, breaks, {"DEVICES": " ".join(devices)})


def moved_range(lab: ObservedLab) -> Iterator[Target]:
    """A delegate's file on a node whose block has a part that is calico-ipam's."""
    for found, node in product(reversed(lab.spec.multus.delegates if lab.spec.multus else ()), _nodes(lab)):
        block = addresses.block_in_pool(lab.blocks.get(node, ()), lab.spec.pool_of(found))
        if block is None:
            continue
        path, first = delegate_file(found.name), addresses.delegate_range(block, found)[0]
        start = block[1]
        if start < first:
            yield Target(
                node,
                f"let the range of {found.name} on {node} begin at {start} instead of {first}, "
                "among the addresses that calico-ipam gives",
                (EntryKey(Topic.FILE, path, node),),
                {"FILE": path, "OLD": f'"{first}"', "NEW": f'"{start}"'},
            )


def slow_link(lab: ObservedLab) -> Iterator[Target]:
    for node in _nodes(lab):
        nic = lab.nics.get(node, "")
        yield Target(
            node,
            f"delay what {node} sends by {nic} by 200 ms, and lose 3 % of it",
            (EntryKey(Topic.QUEUE, nic, node),),
            {"DEVICE": nic, "VALUE": "delay 200ms loss 3%"},
        )


def service(lab: ObservedLab) -> Iterator[Target]:
    """The Services of the lab's own workloads."""
    own = {f"{workload.namespace}/{workload.name}" for workload in lab.spec.workloads if workload.service}
    for port in lab.services:
        if port.id in own and port.endpoints:
            source = next((pod for pod in pods(lab)), None)
            if source is not None:
                yield Target(
                    source.node,
                    f"let the selector of the Service {port.id} match no pod",
                    (EntryKey(Topic.SERVICE, port.id),),
                    pod=source,
                    end=f"service/{port.id}",
                    object=port.id,
                )


def peer(lab: ObservedLab) -> Iterator[Target]:
    """The BGPPeers of the stack file. Without a mesh and route reflectors, a node whose only peer is gone learns no
    route, and nobody learns one to its pods."""
    for found in lab.spec.calico.peers:
        chosen = {node.name for node in selected(lab.spec, found.node_selector) or ()}
        nodes = [node for node in _nodes(lab) if node in chosen]
        breaks = [EntryKey(Topic.PEER, found.name)]
        breaks += [EntryKey(Topic.BGP, str(found.peer_ip), node) for node in nodes]
        breaks += _routes_lost(lab, only_peer_of(lab.spec, found.name))
        wrong = wrong_as(found.as_number)
        for node in nodes:
            yield Target(
                node,
                f"write AS {wrong} instead of {found.as_number} into the BGPPeer {found.name} ({found.peer_ip}) of "
                f"{', '.join(nodes)}",
                tuple(breaks),
                object=found.name,
            )


def only_peer_of(lab: models.Lab, name: str) -> frozenset[str]:
    """The nodes that learn routes from this BGPPeer alone."""
    calico = lab.calico
    if calico.mesh or calico.route_reflectors:
        return frozenset()
    peers = {peer.name: {node.name for node in selected(lab, peer.node_selector) or ()} for peer in calico.peers}
    others = set[str]().union(*(nodes for peer, nodes in peers.items() if peer != name))
    return frozenset(peers.get(name, set()) - others)


def _routes_lost(lab: ObservedLab, alone: frozenset[str]) -> Iterator[EntryKey]:
    """The routes to the blocks of other nodes that BIRD no longer learns."""
    for node, other in product(_nodes(lab), _nodes(lab)):
        if node != other and alone & {node, other}:
            for cidr in lab.affinities.get(other, ()):
                pool = lab.pool_of(cidr)
                if pool is not None and pool.mode.routes_by == "BIRD":
                    yield EntryKey(Topic.ROUTE, cidr, node)


def wrong_as(number: int) -> int:
    """An AS number beside the right one."""
    return number + 1 if number < 4294967295 else number - 1


def default_route(lab: ObservedLab) -> Iterator[Target]:
    """Pods whose default route goes through an attached network, as in the cFOS guide. Only there does a wrong gateway
    lose packets: on eth0 the host side's proxy ARP answers for every address."""
    for pod in pods(lab):
        workload = lab.workload_of(pod)
        interface = default_interface(lab.spec, workload) if workload else None
        own = next(map(str, pod.networks.get(interface or "", {}).get("ips") or ()), "")
        if own and interface and interface != "eth0":
            yield Target(
                pod.node,
                f"point the default route of {pod.id} on {pod.node} at {own}, its own address on {interface}",
                (EntryKey(Topic.ROUTE, "default", pod.node, pod.interface),),
                {"INTERFACE": pod.interface, "GATEWAY": own, "DEVICE": interface},
                pod,
            )
