"""Workloads: the networks they name, the gateways they choose, and addresses enough for their pods."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from components.spec.findings import Finding, nearest, shown
from components.spec.models import AddressedNetwork, BridgeNetwork, HostLocal, Lab, StaticAddresses
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
            if (
                network is None
                or route is None
                or not isinstance(network, AddressedNetwork)
                or network.subnet.prefixlen > 30
            ):
                continue
            key = f"workloads[{index}].networks[{number}].defaultRoute"
            subnet, (first, last) = network.subnet, handed_out(network)
            on_bridge = isinstance(network, BridgeNetwork) and network.is_gateway
            fix = f"write {gateway(network)}, the bridge's own address" if on_bridge else f"choose another in {subnet}"
            if not subnet[1] <= route <= last_host(subnet):
                yield Finding(key, str(route), f"is not a host of the network's subnet {subnet}", fix)
            elif isinstance(network.ipam, StaticAddresses):
                if route in (address.ip for address in network.ipam.addresses):
                    yield Finding(key, str(route), "is the pod's own address: a black hole", fix)
            # host-local hands out everything in its range but the gateway; whereabouts hands out that, too.
            elif first <= route <= last and not (isinstance(network.ipam, HostLocal) and route == gateway(network)):
                problem = f"may be a pod's own address, for pods get {first} to {last}: a black hole"
                wider = f", or let the network's ipam.rangeStart be {route + 1}"
                yield Finding(key, str(route), problem, fix + (wider if route < last else ""))


@rule("workloads[].networks", "workloads[].replicas", "networks[].name", "networks[].ipam", each="workloads[]")
def static_addresses(lab: Lab) -> Iterator[Finding]:
    static = {n.name for n in lab.networks if isinstance(n, AddressedNetwork) and isinstance(n.ipam, StaticAddresses)}
    users: dict[str, int] = {}
    for index, workload in enumerate(lab.workloads):
        for number, attachment in enumerate(workload.networks):
            if attachment.name not in static or not workload.replicas:
                continue
            key = f"workloads[{index}].networks[{number}].name"
            if workload.replicas > 1:
                problem = f"gives all {workload.replicas} pods the same static address"
                fix = "set replicas: 1, or the network's ipam: {type: host-local}"
                yield Finding(key, attachment.name, problem, fix)
            if attachment.name in users:
                problem = f"gives the static address that workloads[{users[attachment.name]}] has already"
                yield Finding(key, attachment.name, problem, "give each workload a network of its own")
            users.setdefault(attachment.name, index)


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
    static_addresses,
    addresses_enough,
)
