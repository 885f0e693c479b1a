"""Workloads: the networks that they name, the gateways that they choose, and enough addresses for their pods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, collapse_addresses

from components.spec.findings import Finding, nearest, shown
from components.spec.gateways import holders
from components.spec.links import fixed_addresses, gateway, ipam_of, is_shared, plugin_of
from components.spec.models import (
    CALICO_NETWORK,
    AddressedNetwork,
    AttachedNetwork,
    Attachment,
    BridgeNetwork,
    CustomNetwork,
    Lab,
    Node,
    StaticAddresses,
)
from components.spec.placement import nodes_for, pod_count, pools_for
from components.spec.rules.cluster import label_findings
from components.spec.rules.core import POD_PLACES, listed, repeated, rule
from components.spec.rules.multus import not_a_delegate
from components.spec.rules.networks import handed_out, how_to_keep, last_host, may_hand_out


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
            yield Finding(key, name, "is a choice of Multus, and there is no multus", "add multus:, or remove it")
        else:
            yield from not_a_delegate(key, name, lab.multus)


@rule("workloads[].networks", "networks[].name", each="workloads[]")
def attached_networks(lab: Lab) -> Iterator[Finding]:
    """A name is looked up in all namespaces, so it must not be used in two of them."""
    spaces = Counter(network.name for network in lab.networks)
    for index, workload in enumerate(lab.workloads):
        for number, attachment in enumerate(workload.networks):
            key, name = f"workloads[{index}].networks[{number}].name", attachment.name
            if name not in spaces:
                meant = nearest(name, spaces)
                others = f"write {listed(list(spaces))}, or " if spaces else ""
                fix = f"did you mean {meant}?" if meant else f"{others}add it to networks"
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
    """If a pod gets the gateway's address as its own, its packets go nowhere."""
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
            if network is not None and route is not None and (fault := _gateway_fault(network, attachment)):
                yield Finding(f"workloads[{index}].networks[{number}].defaultRoute", str(route), *fault)


def _gateway_fault(network: AttachedNetwork, attachment: Attachment) -> tuple[str, str] | None:
    """Problem and fix of a gateway that pods of the network cannot use; None if they can use it."""
    route = attachment.default_route
    if route is None or not isinstance(network, AddressedNetwork) or network.subnet.prefixlen > 30:
        return None
    subnet, (first, last) = network.subnet, handed_out(network)
    on_bridge = isinstance(network, BridgeNetwork) and network.is_gateway
    fix = f"write {gateway(network)}, the bridge's own address" if on_bridge else f"choose another in {subnet}"
    if not subnet[1] <= route <= last_host(subnet):
        return f"is not a host of the network's subnet {subnet}", fix
    if attachment.ips or isinstance(network.ipam, StaticAddresses):
        own = route in fixed_addresses(network, attachment)
        return ("is the pod's own address, so the packets would go nowhere", fix) if own else None
    if not may_hand_out(network, route):
        return None
    problem = f"may become a pod's own address, because pods get {first} to {last}"
    return problem, f"{fix}, or {how_to_keep(network, route)}"


@rule(
    "workloads[].networks",
    "workloads[].defaultNetwork",
    "networks",
    "multus",
    "kubernetes.podCidr",
    "kubernetes.serviceCidr",
)
def default_routes_keep_the_cluster(lab: Lab) -> Iterator[Finding]:
    """If another network has the default route, Multus deletes eth0's, which leads to pods and Services.

    Source: k8snetworkplumbingwg/multus-cni#584 and #847.
    """
    networks = {network.name: network for network in lab.networks}
    for index, workload in enumerate(lab.workloads):
        eth0 = lab.delegate_of(workload)
        if lab.multus is None or (eth0 is None and lab.default_network(workload) != CALICO_NETWORK):
            continue
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
            if network is None or route is None or not lost:
                continue
            if _gateway_fault(network, attachment) or _leads_back(lab, network, route):
                continue
            key = f"workloads[{index}].networks[{number}].defaultRoute"
            problem = f"replaces the default route of eth0, and no other route leads to {' and '.join(lost)}"
            wanted = f"routes: [{lab.kubernetes.pod_cidr}, {lab.kubernetes.service_cidr}]"
            fix = f"give a delegate {wanted} and name it as the workload's defaultNetwork"
            if isinstance(network, BridgeNetwork) and network.is_gateway and route == gateway(network):
                fix += ", or set ipMasq: true on the network, so that replies come back"
            yield Finding(key, str(route), problem, fix)


def _leads_back(lab: Lab, network: AttachedNetwork, route: IPv4Address) -> bool:
    """Whether packets through this gateway reach the cluster, and the replies reach the pod.

    The node's bridge forwards packets but must masquerade: every node's bridge has the same range, so a reply to the
    pod's own address would end up on another node. A firewall, which is a pod with a static address on the same bridge,
    also forwards packets; what it lets through is not checked.
    """
    if not isinstance(network, BridgeNetwork):
        return False
    if network.is_gateway and route == gateway(network):
        return network.ip_masq
    return any(pod_count(lab, found.workload) for found in holders(lab, network, route))


_PLACES = (
    *POD_PLACES,
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
    """On a shared link, the first pods of two nodes get the same address (k8snetworkplumbingwg/multus-cni#1150)."""
    for index, network in enumerate(lab.networks):
        if not is_shared(network) or ipam_of(network) != "host-local":
            continue
        users = [w for w in lab.workloads for a in w.networks if a.name == network.name and not a.ips]
        users = [w for w in users if pod_count(lab, w)]
        nodes = {node.name for workload in users for node in nodes_for(lab, workload)}
        if len(nodes) < 2 or sum(pod_count(lab, workload) for workload in users) < 2:
            continue
        names = " and ".join(list(dict.fromkeys(workload.name for workload in users))[:3])
        problem = (
            f"has a list of addresses on each node, and {plugin_of(network)} puts the pods of all nodes on one link: "
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
    """A static address can be used once on a shared link, or once on each node if the link ends at the node."""
    networks = {network.name: network for network in lab.networks}
    users: dict[tuple[str, object], list[int]] = {}
    for index, workload in enumerate(lab.workloads):
        nodes, count = nodes_for(lab, workload), pod_count(lab, workload)
        for number, attachment in enumerate(workload.networks):
            network = networks.get(attachment.name)
            if network is None or not count:
                continue
            key = f"workloads[{index}].networks[{number}]"
            key, value = (f"{key}.ips", shown(attachment.ips)) if attachment.ips else (f"{key}.name", attachment.name)
            addresses = fixed_addresses(network, attachment)
            if addresses and is_shared(network) and count > 1:
                problem = f"gives all {count} pods the same static address on one link"
                one = "set replicas: 1" if workload.kind == "Deployment" else "set kind: Pod"
                fix = f"{one}, or the network's ipam: {{type: whereabouts}}"
                yield Finding(key, value, problem, fix)
            elif addresses and nodes and count > len(nodes):
                problem = f"gives every pod of a node the same static address: {count} pods, {len(nodes)} nodes"
                fix = f"set replicas: {len(nodes)} or fewer, or the network's ipam: {{type: host-local}}"
                yield Finding(key, value, problem, fix)
            for address in addresses:
                place = (_link(network), address)
                for other in users.get(place, ()):
                    if is_shared(network) or _meet(nodes, nodes_for(lab, lab.workloads[other])):
                        problem = f"gives the static address that workloads[{other}] uses already"
                        yield Finding(key, value, problem, "give each workload an address of its own")
                        break
                users.setdefault(place, []).append(index)


def _link(network: AttachedNetwork) -> str:
    """Networks on one bridge share its addresses."""
    return network.bridge if isinstance(network, BridgeNetwork) else network.name


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
    """A delegate has the addresses of its range on each node that accepts the pods."""
    if lab.multus is None:
        return
    sizes = {d.name: d.range_end - d.range_start + 1 for d in lab.multus.delegates if d.range_start <= d.range_end}
    wanted: Counter[str] = Counter()
    for index, workload in enumerate(lab.workloads):
        name = lab.default_network(workload)
        if name not in sizes:
            continue
        count = pod_count(lab, workload)
        wanted[name] += count
        # If no node accepts its pods, another rule has the finding.
        nodes = len(nodes_for(lab, workload)) or len(lab.nodes)
        if count and wanted[name] > sizes[name] * nodes:
            problem = (
                f"{wanted[name]} pods in all need addresses of {name}, which has {sizes[name]} on each of {nodes} nodes"
            )
            fix = "lower it, or widen the delegate's range"
            yield Finding(f"workloads[{index}].replicas", shown(count), problem, fix)


@rule("workloads[].name", "workloads[].service", "workloads[].namespace", each="workloads[]")
def service_names(lab: Lab) -> Iterator[Finding]:
    """A Service's name is a label of RFC 1035, and two Services are there before the lab's."""
    for index, workload in enumerate(lab.workloads):
        if workload.service is None:
            continue
        key, name = f"workloads[{index}].name", workload.name
        if name[0].isdigit():
            yield Finding(key, name, "begins with a digit, which no Service's name may", "give it another name")
        elif (workload.namespace, name) in (("default", "kubernetes"), ("kube-system", "kube-dns")):
            yield Finding(key, name, "is the name of a Service of Kubernetes itself", "give it another name")


_OF_THE_CLUSTER = {
    "kube-system": {"coredns", "kube-proxy", "calico-node", "calico-kube-controllers", "kube-multus-ds", "whereabouts"},
    "tigera-operator": {"tigera-operator"},
    "calico-system": {"calico-node", "calico-kube-controllers", "calico-typha", "calico-apiserver", "csi-node-driver"},
}
"""By namespace the workloads of Kubernetes, Calico and Multus. One of the lab's would overwrite its object."""


@rule("workloads[].name", "workloads[].namespace", each="workloads[]")
def names_of_the_cluster(lab: Lab) -> Iterator[Finding]:
    for index, workload in enumerate(lab.workloads):
        if workload.name in _OF_THE_CLUSTER.get(workload.namespace, ()):
            problem = f"is the name of a workload that the cluster itself has in {workload.namespace}"
            yield Finding(f"workloads[{index}].name", workload.name, problem, "give it another name or namespace")


@rule(
    "workloads[].replicas",
    "workloads[].defaultNetwork",
    "workloads[].annotations",
    "multus.clusterNetwork",
    "multus.delegates",
    "calico.ipam",
    "calico.pools",
    each="workloads[]",
)
def pools_enough(lab: Lab) -> Iterator[Finding]:
    """calico-ipam gives addresses of the pools, and of no others."""
    if lab.calico.ipam != "Calico":
        return
    for index, workload in enumerate(lab.workloads):
        pools = pools_for(lab, workload)
        count, room = pod_count(lab, workload), sum(pool.cidr.num_addresses for pool in pools)
        if pools and lab.delegate_of(workload) is None and count > room:
            names = ", ".join(pool.name for pool in pools)
            problem = f"{count} pods need addresses of {names}, with {room} in all"
            yield Finding(f"workloads[{index}].replicas", shown(count), problem, "lower it, or widen the pool")


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
    service_names,
    names_of_the_cluster,
    pools_enough,
)
