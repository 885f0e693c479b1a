"""Where faults can be made: in which labs, and at which places of a lab."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

from components.spec import addresses, models
from components.spec.gateways import firewalls
from components.spec.modes import VXLAN, Tunnel
from components.spec.placement import pod_count
from components.verify.expect.egress import by_name, firewall_of, users
from components.verify.expect.multus import MULTUS_FILE, default_interface, delegate_file, destination
from components.verify.expect.probes import Ping
from components.verify.faults.model import Target
from components.verify.model import EntryKey, ObservedLab, Pod, Topic, tunnel_mac
from components.verify.read.filters import FORWARDED

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
    """The last delegate first, as in seed 000: pods ask for it by name."""
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
                    gone = [destination(route.dst) for route in of.network.routes]
                    breaks = [EntryKey(Topic.ROUTE, key, node, pod.interface) for key in gone]
                    breaks.append(EntryKey(Topic.LINK, of.interface, node, pod.interface))
                    breaks.append(EntryKey(Topic.PROBE, Ping(user.interface, str(of.address)).key, node))
                    sentence = f"take {of.interface} of {pod.id} on {node} down, the gateway {of.address} of other pods"
                else:
                    breaks = [EntryKey(Topic.FILTER, FORWARDED, node, pod.interface)]
                    sentence = f"let {pod.id} on {node} drop every packet that it would forward"
                yield Target(node, sentence, tuple(breaks), variables, user)

    return targets


def default_route(lab: ObservedLab) -> Iterator[Target]:
    """Pods whose default route goes through an attached network, as in seed 000. Only there does a wrong gateway lose
    packets: on eth0 the host side's proxy ARP answers for every address."""
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
