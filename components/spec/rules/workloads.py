"""Workloads: the networks they name, the gateways they choose, and addresses enough for their pods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, collapse_addresses

from components.spec.findings import Finding, nearest, shown
from components.spec.links import ipam_of, is_shared, plugin_of, static_addresses
from components.spec.models import (
    AddressedNetwork,
    AttachedNetwork,
    BridgeNetwork,
    CustomNetwork,
    HostLocal,
    Lab,
    Node,
    StaticAddresses,
)
from components.spec.placement import nodes_for
from components.spec.rules.cluster import label_findings
from components.spec.rules.core import listed, repeated, rule
from components.spec.rules.multus import not_a_delegate
from components.spec.rules.networks import gateway, handed_out, last_host


@rule("workloads[].name", each="workloads[]")
def workload_names(lab: Lab) -> Iterator[Finding]:
    names = [workload.name for workload in lab.workloads]
    for index, first in repeated(names):
        problem = f"is workloads[{first}]'s name already"
        yield Finding(f"workloads[{index}].name", names[index], problem, "give it its own name")


@rule("workloads[].nodeSelector", each="workloads[]")
def node_selectors(lab: Lab) -> Iterator[Finding]:
    for index, workload in enumerate(lab.workloads):
        yield from label_findings(f"workloads[{index}].nodeSelector", workload.node_selector)


@rule("workloads[].defaultNetwork", "multus.delegates[].name", "multus", each="workloads[]")
def default_networks(lab: Lab) -> Iterator[Finding]:
    for index, workload in enumerate(lab.workloads):
        name, key = workload.default_network, f"workloads[{index}].defaultNetwork"
        if name is None:
            continue
        if lab.multus is None:
            yield Finding(key, name, "only Multus knows delegates, and there is no multus", "add multus:, or remove it")
        else:
            yield from not_a_delegate(key, name, lab.multus)


@rule("workloads[].networks", "networks[].name", each="workloads[]")
def attached_networks(lab: Lab) -> Iterator[Finding]:
    """Names are looked up over all namespaces: one that stands in several could mean any of them."""
    spaces = Counter(network.name for network in lab.networks)
    for index, workload in enumerate(lab.workloads):
        for number, attachment in enumerate(workload.networks):
            key, name = f"workloads[{index}].networks[{number}].name", attachment.name
            if name not in spaces:
                meant = nearest(name, spaces)
                fix = f"did you mean {meant}?" if meant else f"write {listed(list(spaces))}, or add it to networks"
                yield Finding(key, name, "is not one of networks", fix)
            elif spaces[name] > 1:
                problem = f"is the name of {spaces[name]} networks in different namespaces"
                yield Finding(key, name, problem, "give the networks names of their own")


@rule(
    "workloads[].networks",
    "networks[].name",
    "networks[].type",
    "networks[].subnet",
    "networks[].ipam",
    "networks[].isGateway",
    each="workloads[]",
)
def default_routes(lab: Lab) -> Iterator[Finding]:
    """A gateway that a pod may get as its own address is a black hole for that pod."""
    networks = {network.name: network for network in lab.networks}
    for index, workload in enumerate(lab.workloads):
        chosen = [n for n, attachment in enumerate(workload.networks) if attachment.default_route is not None]
        for number in chosen[1:]:
            key = f"workloads[{index}].networks[{number}].defaultRoute"
            given = str(workload.networks[number].default_route)
            yield Finding(key, given, "is a second default route, which Multus refuses", "keep one of them")
        for number in chosen:
            attachment = workload.networks[number]
            network, route = networks.get(attachment.name), attachment.default_route
            if network is not None and route is not None and (fault := _gateway_fault(network, route)):
                yield Finding(f"workloads[{index}].networks[{number}].defaultRoute", str(route), *fault)


def _gateway_fault(network: AttachedNetwork, route: IPv4Address) -> tuple[str, str] | None:
    """Problem and fix of a gateway that pods of the network cannot use; None where nothing speaks against it."""
    if not isinstance(network, AddressedNetwork) or network.subnet.prefixlen > 30:
        return None
    subnet, (first, last) = network.subnet, handed_out(network)
    on_bridge = isinstance(network, BridgeNetwork) and network.is_gateway
    fix = f"write {gateway(network)}, the bridge's own address" if on_bridge else f"choose another in {subnet}"
    if not subnet[1] <= route <= last_host(subnet):
        return f"is not a host of the network's subnet {subnet}", fix
    if isinstance(network.ipam, StaticAddresses):
        return ("is the pod's own address: a black hole", fix) if route in static_addresses(network) else None
    # host-local hands out everything in its range but the gateway; whereabouts hands out that, too.
    if not first <= route <= last or (isinstance(network.ipam, HostLocal) and route == gateway(network)):
        return None
    wider = f", or let the network's ipam.rangeStart be {route + 1}" if route < last else ""
    return f"may be a pod's own address, for pods get {first} to {last}: a black hole", fix + wider


@rule(
    "workloads[].networks",
    "workloads[].defaultNetwork",
    "networks",
    "multus",
    "kubernetes.podCidr",
    "kubernetes.serviceCidr",
)
def default_routes_keep_the_cluster(lab: Lab) -> Iterator[Finding]:
    """Multus deletes the default route of eth0, by which pods and Services are reached, where another network gives one
    (k8snetworkplumbingwg/multus-cni#584, #847)."""
    delegates = {delegate.name: delegate for delegate in lab.multus.delegates} if lab.multus else {}
    networks = {network.name: network for network in lab.networks}
    for index, workload in enumerate(lab.workloads):
        eth0 = delegates.get(workload.default_network or (lab.multus.cluster_network if lab.multus else ""))
        attached = [networks[a.name] for a in workload.networks if a.name in networks]
        routes = [*(eth0.routes if eth0 else ())]
        routes += [
            route.dst for network in attached if isinstance(network, AddressedNetwork) for route in network.routes
        ]
        lost = [
            f"{what} ({cidr})"
            for what, cidr in (("pods", lab.kubernetes.pod_cidr), ("Services", lab.kubernetes.service_cidr))
            if not any(cidr.subnet_of(route) for route in collapse_addresses(routes))
        ]
        for number, attachment in enumerate(workload.networks):
            network, route = networks.get(attachment.name), attachment.default_route
            if eth0 is None or network is None or route is None or not lost:
                continue
            if _gateway_fault(network, route) or _leads_back(lab, network, route):
                continue
            key = f"workloads[{index}].networks[{number}].defaultRoute"
            problem = f"takes eth0's default route away, and no other route leads to {' and '.join(lost)}"
            wanted = f"routes: [{lab.kubernetes.pod_cidr}, {lab.kubernetes.service_cidr}]"
            fix = f"give a delegate {wanted} and name it as the workload's defaultNetwork"
            if isinstance(network, BridgeNetwork) and network.is_gateway and route == gateway(network):
                fix += ", or set ipMasq: true at the network, so that answers find back"
            yield Finding(key, str(route), problem, fix)


def _leads_back(lab: Lab, network: AttachedNetwork, route: IPv4Address) -> bool:
    """Whether packets by this gateway reach the cluster, and their answers the pod.

    The node's own bridge forwards them, and must masquerade: every node's bridge has the same range, so an answer to
    the pod's own address would end on another node. A firewall forwards them, too: a pod of the lab with a static
    address on the same bridge. What it lets through is its own affair.
    """
    if not isinstance(network, BridgeNetwork):
        return False
    if network.is_gateway and route == gateway(network):
        return network.ip_masq
    same_bridge = {n.name for n in lab.networks if isinstance(n, BridgeNetwork) and n.bridge == network.bridge}
    fixed = {n.name: static_addresses(n) for n in lab.networks if n.name in same_bridge}
    return any(
        route in fixed.get(attachment.name, ())
        for workload in lab.workloads
        if workload.replicas
        for attachment in workload.networks
    )


_PLACES = (
    "workloads[].networks",
    "workloads[].replicas",
    "workloads[].nodeSelector",
    "workloads[].onControlPlane",
    "nodes[].name",
    "nodes[].role",
    "nodes[].labels",
    "nodes[].taints",
    "networks[].name",
    "networks[].type",
    "networks[].ipam",
    "networks[].config",
)


@rule(*_PLACES, each="networks[]")
def host_local_stays_on_its_node(lab: Lab) -> Iterator[Finding]:
    """On a shared link the first pods of two nodes get the same address (k8snetworkplumbingwg/multus-cni#1150)."""
    for index, network in enumerate(lab.networks):
        if not is_shared(network) or ipam_of(network) != "host-local":
            continue
        users = [w for w in lab.workloads for a in w.networks if a.name == network.name and w.replicas]
        nodes = {node.name for workload in users for node in nodes_for(lab, workload)}
        if len(nodes) < 2 or sum(workload.replicas for workload in users) < 2:
            continue
        names = " and ".join(list(dict.fromkeys(workload.name for workload in users))[:3])
        problem = (
            f"keeps a list of its own on each node, and {plugin_of(network)} puts pods of all nodes on one link: "
            f"pods of {names} on different nodes get the same address"
        )
        fix = (
            "set ipam: {type: whereabouts}, or make a network for each node, with ranges apart, and workloads with "
            "nodeSelector: {kubernetes.io/hostname: NODE}"
        )
        config = "config.ipam" if isinstance(network, CustomNetwork) else "ipam"
        yield Finding(f"networks[{index}].{config}", "host-local", problem, fix)


@rule(*_PLACES, each="workloads[]")
def static_addresses_once(lab: Lab) -> Iterator[Finding]:
    """A static address stands once on a shared link, and once on each node where the link ends at the node."""
    networks = {network.name: network for network in lab.networks if static_addresses(network)}
    users: dict[str, list[int]] = {}
    for index, workload in enumerate(lab.workloads):
        for number, attachment in enumerate(workload.networks):
            network = networks.get(attachment.name)
            if network is None or not workload.replicas:
                continue
            key = f"workloads[{index}].networks[{number}].name"
            nodes = nodes_for(lab, workload)
            if is_shared(network) and workload.replicas > 1:
                problem = f"gives all {workload.replicas} pods the same static address on one link"
                fix = "set replicas: 1, or the network's ipam: {type: whereabouts}"
                yield Finding(key, attachment.name, problem, fix)
            elif nodes and workload.replicas > len(nodes):
                problem = (
                    f"gives every pod of a node the same static address: {workload.replicas} pods, {len(nodes)} nodes"
                )
                fix = f"set replicas: {len(nodes)} or fewer, or the network's ipam: {{type: host-local}}"
                yield Finding(key, attachment.name, problem, fix)
            for other in users.get(attachment.name, ()):
                if is_shared(network) or _meet(nodes, nodes_for(lab, lab.workloads[other])):
                    problem = f"gives the static address that workloads[{other}] has already"
                    yield Finding(key, attachment.name, problem, "give each workload a network of its own")
                    break
            users.setdefault(attachment.name, []).append(index)


def _meet(some: Sequence[Node], others: Sequence[Node]) -> bool:
    return bool({node.name for node in some} & {node.name for node in others})


@rule(
    "workloads[].replicas",
    "workloads[].defaultNetwork",
    "workloads[].onControlPlane",
    "workloads[].nodeSelector",
    "multus.clusterNetwork",
    "multus.delegates",
    "nodes[].name",
    "nodes[].role",
    "nodes[].labels",
    "nodes[].taints",
    each="workloads[]",
)
def addresses_enough(lab: Lab) -> Iterator[Finding]:
    """A delegate's range has so many addresses on each node that takes the pods."""
    if lab.multus is None:
        return
    sizes = {d.name: d.range_end - d.range_start + 1 for d in lab.multus.delegates if d.range_start <= d.range_end}
    wanted: Counter[str] = Counter()
    for index, workload in enumerate(lab.workloads):
        name = workload.default_network or lab.multus.cluster_network
        if name not in sizes:
            continue
        wanted[name] += workload.replicas
        # Where no node takes its pods, another rule says so.
        nodes = len(nodes_for(lab, workload)) or len(lab.nodes)
        if workload.replicas and wanted[name] > sizes[name] * nodes:
            problem = f"with it {wanted[name]} pods want addresses of {name}: {sizes[name]} on each of {nodes} nodes"
            fix = "lower it, or widen the delegate's range"
            yield Finding(f"workloads[{index}].replicas", shown(workload.replicas), problem, fix)


RULES = (
    workload_names,
    node_selectors,
    default_networks,
    attached_networks,
    default_routes,
    default_routes_keep_the_cluster,
    host_local_stays_on_its_node,
    static_addresses_once,
    addresses_enough,
)
