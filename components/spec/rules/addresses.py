"""Address ranges that are large enough and do not overlap, and nodes whose addresses are in their subnets."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Network

from components.spec.findings import Finding, nearest
from components.spec.models import CustomNetwork, Lab
from components.spec.rules.core import listed, overlaps, repeated, rule

# Ranges that cannot be used for a private network (RFC 6890). Calico's gateway is in the link-local one.
SPECIAL = {
    IPv4Network("0.0.0.0/8"): "this network",
    IPv4Network("127.0.0.0/8"): "loopback",
    IPv4Network("169.254.0.0/16"): "link-local",
    IPv4Network("224.0.0.0/3"): "multicast or reserved",
}
NODE_MASK = 24
"""kube-controller-manager's --node-cidr-mask-size: every node gets a /24 of podCidr, in addition to Calico's blocks."""

LARGEST_PREFIX = 29
"""The longest prefix of a subnet that has room for a gateway and some machines."""


def machine_ranges(lab: Lab) -> list[tuple[str, IPv4Network]]:
    """The ranges that the machines' addresses come from: the whole VPC if there is one, else each subnet."""
    if lab.machines.in_vpc:
        return [("network.vpcCidr", lab.network.vpc_cidr)]
    return [(f"network.subnets.{name}", cidr) for name, cidr in lab.network.subnets.items()]


@rule("machines.provider", "network.vpcCidr", "network.subnets", "kubernetes.podCidr", "kubernetes.serviceCidr")
def ranges_apart(lab: Lab) -> Iterator[Finding]:
    machines = machine_ranges(lab)
    cluster = [
        ("kubernetes.podCidr", lab.kubernetes.pod_cidr),
        ("kubernetes.serviceCidr", lab.kubernetes.service_cidr),
    ]
    for key, other, cidr, taken in overlaps([*machines, *cluster]):
        if key.startswith("kubernetes."):
            yield Finding(key, str(cidr), f"overlaps {other} {taken}", "choose a range apart from it")


@rule("network.subnets")
def subnets_apart(lab: Lab) -> Iterator[Finding]:
    subnets = [(f"network.subnets.{name}", cidr) for name, cidr in lab.network.subnets.items()]
    for key, other, cidr, taken in overlaps(subnets):
        yield Finding(key, str(cidr), f"overlaps {other} {taken}", "choose a range apart from it")


@rule("network.vpcCidr", "network.subnets", "machines.provider")
def subnets_in_vpc(lab: Lab) -> Iterator[Finding]:
    """A VPC and its subnets have 16 to 65536 addresses (AWS, "VPC CIDR blocks")."""
    if not lab.machines.in_vpc:
        return
    vpc = lab.network.vpc_cidr
    ranges = [("network.vpcCidr", vpc), *((f"network.subnets.{n}", c) for n, c in lab.network.subnets.items())]
    for key, cidr in ranges:
        if not cidr.subnet_of(vpc):
            yield Finding(key, str(cidr), f"lies outside network.vpcCidr {vpc}", f"choose a range inside {vpc}")
        elif not 16 <= cidr.prefixlen <= 28:
            problem = "has a size that AWS does not accept"
            yield Finding(key, str(cidr), problem, "choose a prefix length from /16 to /28")


@rule("network.subnets", "nodes[].subnet")
def subnets_hold_hosts(lab: Lab) -> Iterator[Finding]:
    for name, cidr in lab.network.subnets.items():
        if cidr.prefixlen > LARGEST_PREFIX:
            fix = f"choose a prefix length of at most /{LARGEST_PREFIX}"
            yield Finding(f"network.subnets.{name}", str(cidr), "has no room for machines and their gateway", fix)


@rule("network.vpcCidr", "network.subnets", "kubernetes.podCidr", "kubernetes.serviceCidr", "machines.provider")
def ranges_usable(lab: Lab) -> Iterator[Finding]:
    ranges = [
        *machine_ranges(lab),
        ("kubernetes.podCidr", lab.kubernetes.pod_cidr),
        ("kubernetes.serviceCidr", lab.kubernetes.service_cidr),
    ]
    for key, cidr in ranges:
        yield from unusable(key, cidr)


def unusable(key: str, cidr: IPv4Network) -> Iterator[Finding]:
    """A finding if the range contains addresses with a special meaning."""
    for special, what in SPECIAL.items():
        if cidr.overlaps(special):
            problem = f"contains {what} addresses ({special})"
            yield Finding(key, str(cidr), problem, "choose a private range, e.g. in 10.0.0.0/8")
            return


@rule("kubernetes.serviceCidr")
def service_range_size(lab: Lab) -> Iterator[Finding]:
    """kubeadm accepts at most 20 host bits and needs ten addresses, because the DNS Service has the tenth."""
    cidr, problem = lab.kubernetes.service_cidr, None
    if cidr.prefixlen < 12:
        problem = "is larger than kube-apiserver accepts"
    elif cidr.prefixlen > 28:
        problem = "has no room for the DNS Service"
    if problem is not None:
        yield Finding("kubernetes.serviceCidr", str(cidr), problem, "choose a prefix length from /12 to /28")


@rule("kubernetes.podCidr", "nodes[].name")
def pod_range_size(lab: Lab) -> Iterator[Finding]:
    key, cidr = "kubernetes.podCidr", lab.kubernetes.pod_cidr
    room = 1 << max(0, NODE_MASK - cidr.prefixlen)
    needed = len(lab.nodes)
    if not 8 <= cidr.prefixlen <= NODE_MASK:
        problem = f"kubeadm needs a prefix length from /8 to /{NODE_MASK}"
        yield Finding(key, str(cidr), problem, "choose a range of such a size, e.g. 10.244.0.0/16")
    elif room < needed:
        fitting = NODE_MASK - (needed - 1).bit_length()
        problem = f"has room for {room} ranges of /{NODE_MASK}, one for each node, and there are {needed} nodes"
        yield Finding(key, str(cidr), problem, f"choose a prefix length of at most /{fitting}")


@rule("nodes[].name", each="nodes[]")
def node_names(lab: Lab) -> Iterator[Finding]:
    names = [node.name for node in lab.nodes]
    for index, first in repeated(names):
        yield Finding(f"nodes[{index}].name", names[index], f"is nodes[{first}]'s name already", "give it its own name")
    for index, name in enumerate(names):
        if name == "localhost":
            problem = "is every host's name for itself"
            yield Finding(f"nodes[{index}].name", name, problem, "give the node a name of its own, e.g. worker1")


@rule("nodes[].subnet", "network.subnets", each="nodes[]")
def node_subnets(lab: Lab) -> Iterator[Finding]:
    for index, node in enumerate(lab.nodes):
        if node.subnet not in lab.network.subnets:
            meant = nearest(node.subnet, lab.network.subnets)
            fix = f"did you mean {meant}?" if meant else f"write {listed(list(lab.network.subnets))}"
            yield Finding(f"nodes[{index}].subnet", node.subnet, "is not one of network.subnets", fix)


@rule("nodes[].address", "nodes[].subnet", "network.subnets", "machines.provider", each="nodes[]")
def node_addresses(lab: Lab) -> Iterator[Finding]:
    first = lab.machines.first_node_host
    for index, node in enumerate(lab.nodes):
        cidr = lab.network.subnets.get(node.subnet)
        if cidr is None or cidr.prefixlen > LARGEST_PREFIX:
            continue
        problem = None
        if node.address not in cidr:
            problem = f"lies outside its subnet {node.subnet}, {cidr}"
        elif node.address == cidr.network_address:
            problem = f"is the network address of {cidr}"
        elif node.address == cidr.broadcast_address:
            problem = f"is the broadcast address of {cidr}"
        elif int(node.address) - int(cidr.network_address) < first:
            problem = f"is reserved for {lab.machines.subnet_owner} in {cidr}"
        if problem is not None:
            yield Finding(
                f"nodes[{index}].address", str(node.address), problem, f"choose from {cidr[first]} to {cidr[-2]}"
            )


@rule("nodes[].address", each="nodes[]")
def node_addresses_unique(lab: Lab) -> Iterator[Finding]:
    addresses = [node.address for node in lab.nodes]
    for index, first in repeated(addresses):
        problem = f"is nodes[{first}]'s address already"
        yield Finding(f"nodes[{index}].address", str(addresses[index]), problem, "give it its own address")


@rule(
    "machines.provider",
    "network.vpcCidr",
    "network.subnets",
    "kubernetes.podCidr",
    "kubernetes.serviceCidr",
    "networks[].subnet",
    "networks[].type",
    each="networks[]",
)
def attached_ranges_apart(lab: Lab) -> Iterator[Finding]:
    """A bridge needs a range of its own. A network on an interface of the node may use the machines' range."""
    cluster = [
        ("kubernetes.podCidr", lab.kubernetes.pod_cidr),
        ("kubernetes.serviceCidr", lab.kubernetes.service_cidr),
    ]
    for index, network in enumerate(lab.networks):
        if isinstance(network, CustomNetwork):
            continue
        key = f"networks[{index}].subnet"
        yield from unusable(key, network.subnet)
        others = [*cluster, *machine_ranges(lab)] if network.type == "bridge" else cluster
        for other, cidr in others:
            if network.subnet.overlaps(cidr):
                problem = f"overlaps {other} {cidr}"
                yield Finding(key, str(network.subnet), problem, "choose a range apart from it")
                break


RULES = (
    ranges_apart,
    subnets_apart,
    subnets_in_vpc,
    subnets_hold_hosts,
    ranges_usable,
    service_range_size,
    pod_range_size,
    node_names,
    node_subnets,
    node_addresses,
    node_addresses_unique,
    attached_ranges_apart,
)
