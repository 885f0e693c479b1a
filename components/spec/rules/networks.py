"""Attached networks: names, interfaces, address ranges, gateways, and custom configurations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network

from components.spec.findings import Finding, shown
from components.spec.grammar import cni
from components.spec.links import gateway, plugin_of
from components.spec.models import (
    AddressedNetwork,
    BridgeNetwork,
    CustomNetwork,
    HostDeviceNetwork,
    HostLocal,
    IpvlanNetwork,
    Lab,
    MacvlanNetwork,
    StaticAddresses,
    Whereabouts,
)
from components.spec.modes import TUNNELS
from components.spec.rules.core import overlaps, repeated, rule

DELEGATES_NAMESPACE = "kube-system"
REFUSED_INTERFACES = (".", "..", "all", "default")
"""Names that the kernel gives to no interface: its settings are in a directory, beside those of `all` and `default`."""
TAKEN_INTERFACES = (*(tunnel.device for tunnel in TUNNELS), "lo", "eth0", "docker0", "podman0", "cni0")
"""Names of interfaces that exist already or that Calico makes. The bridge plugin would use such an interface."""


def handed_out(network: AddressedNetwork) -> tuple[IPv4Address, IPv4Address]:
    """The first and last address that the network's pods may get. host-local leaves out the gateway between them."""
    subnet, ipam = network.subnet, network.ipam
    if isinstance(ipam, StaticAddresses):
        return min(a.ip for a in ipam.addresses), max(a.ip for a in ipam.addresses)
    return ipam.range_start or subnet[min(1, subnet.num_addresses - 1)], ipam.range_end or last_host(subnet)


def may_hand_out(network: AddressedNetwork, address: IPv4Address) -> bool:
    """Whether the IPAM plugin host-local or whereabouts may give the address to a pod.

    host-local keeps the gateway. whereabouts does not, and keeps the ranges in `exclude`.
    """
    first, last = handed_out(network)
    kept = address == gateway(network)
    if isinstance(network.ipam, Whereabouts):
        kept = any(address in cidr for cidr in network.ipam.exclude)
    return first <= address <= last and not kept


def how_to_keep(network: AddressedNetwork, address: IPv4Address) -> str:
    """What to change so that the IPAM plugin keeps an address that it may hand out."""
    if isinstance(network.ipam, Whereabouts):
        return f"add {address}/32 to the network's ipam.exclude"
    if address < handed_out(network)[1]:
        return f"let the network's ipam.rangeStart be {address + 1}"
    return "end ipam.rangeEnd before it"


def last_host(subnet: IPv4Network) -> IPv4Address:
    """The last address of the subnet that a host may have."""
    return subnet[max(0, subnet.num_addresses - 2)]


@rule("networks", "multus")
def networks_need_multus(lab: Lab) -> Iterator[Finding]:
    if lab.networks and lab.multus is None:
        given = shown([network.name for network in lab.networks])
        fix = "add multus: {clusterNetwork: k8s-pod-network}, or remove the networks"
        yield Finding("networks", given, "need Multus, and there is no multus", fix)


@rule("networks[].name", "networks[].namespace", each="networks[]")
def network_names(lab: Lab) -> Iterator[Finding]:
    names = [(network.namespace, network.name) for network in lab.networks]
    for index, first in repeated(names):
        problem = f"is networks[{first}]'s name in namespace {names[index][0]} already"
        yield Finding(f"networks[{index}].name", names[index][1], problem, "give it its own name")


@rule("networks[].name", "networks[].namespace", "multus.delegates[].name", each="networks[]")
def names_of_delegates(lab: Lab) -> Iterator[Finding]:
    """The definition of a delegate is in kube-system and has the delegate's name."""
    taken = {delegate.name for delegate in lab.multus.delegates} if lab.multus else set()
    for index, network in enumerate(lab.networks):
        if network.namespace == DELEGATES_NAMESPACE and network.name in taken:
            problem = f"is the name of a delegate, whose definition is in {DELEGATES_NAMESPACE} too"
            yield Finding(f"networks[{index}].name", network.name, problem, "give it its own name")


@rule("networks[].bridge", "networks[].type", each="networks[]")
def bridge_names(lab: Lab) -> Iterator[Finding]:
    for index, network in enumerate(lab.networks):
        if not isinstance(network, BridgeNetwork):
            continue
        problem = ""
        if network.bridge in TAKEN_INTERFACES or network.bridge.startswith("cali"):
            problem = "is the name of an interface that exists already or that Calico makes"
        elif network.bridge in REFUSED_INTERFACES:
            problem = "is a name that the kernel gives to no interface"
        if problem:
            yield Finding(f"networks[{index}].bridge", network.bridge, problem, "choose another name, e.g. cni5")


@rule("networks[].device", "networks[].type", "calico.interface", "machines.provider", each="networks[]")
def devices_are_not_the_nodes_own(lab: Lab) -> Iterator[Finding]:
    """host-device moves the interface into the pod, and nothing reaches the node any more."""
    own = lab.calico.interface or ("eth0" if lab.machines.provider == "local" else "")
    for index, network in enumerate(lab.networks):
        if isinstance(network, HostDeviceNetwork) and network.device == own:
            problem = "has the node's own address, and would leave the node with its pod"
            yield Finding(f"networks[{index}].device", network.device, problem, "name another interface, e.g. eth1")


@rule("networks[].bridge", "networks[].subnet", "networks[].type", each="networks[]")
def bridges_have_one_subnet(lab: Lab) -> Iterator[Finding]:
    """The bridge plugin refuses a bridge that has the gateway of another network."""
    first: dict[str, tuple[int, IPv4Network]] = {}
    for index, network in enumerate(lab.networks):
        if not isinstance(network, BridgeNetwork):
            continue
        before, subnet = first.setdefault(network.bridge, (index, network.subnet))
        if subnet != network.subnet:
            problem = f"is the bridge of networks[{before}] too, which has the subnet {subnet}"
            fix = "give each subnet a bridge of its own"
            yield Finding(f"networks[{index}].bridge", network.bridge, problem, fix)


@rule("networks[].subnet", "networks[].type", "networks[].bridge", each="networks[]")
def subnets_apart(lab: Lab) -> Iterator[Finding]:
    """Different subnets share no address. For two subnets on one bridge, bridges_have_one_subnet has the finding."""
    first: dict[IPv4Network, int] = {}
    for index, network in enumerate(lab.networks):
        if isinstance(network, AddressedNetwork):
            first.setdefault(network.subnet, index)
    indices = {f"networks[{index}].subnet": index for index in first.values()}
    for key, other, cidr, taken in overlaps([(f"networks[{index}].subnet", cidr) for cidr, index in first.items()]):
        one, two = lab.networks[indices[key]], lab.networks[indices[other]]
        if not (isinstance(one, BridgeNetwork) and isinstance(two, BridgeNetwork) and one.bridge == two.bridge):
            yield Finding(key, str(cidr), f"overlaps {other} {taken}", "choose a range apart from it")


@rule(
    "networks[].subnet",
    "networks[].type",
    "networks[].ipam",
    "networks[].bridge",
    "networks[].master",
    "networks[].device",
    each="networks[]",
)
def addresses_handed_out_once(lab: Lab) -> Iterator[Finding]:
    """Networks may share a subnet on one interface if their ranges do not overlap.

    host-local has a list of addresses for each network name: two networks would both hand out a common address.
    """
    sharing: dict[IPv4Network, list[tuple[int, AddressedNetwork]]] = {}
    for index, network in enumerate(lab.networks):
        if isinstance(network, AddressedNetwork):
            sharing.setdefault(network.subnet, []).append((index, network))
    for subnet, members in sharing.items():
        first, leader = members[0]
        for index, member in members:
            if _link(member) != _link(leader):
                problem = f"is the subnet of networks[{first}] too, on another interface"
                yield Finding(f"networks[{index}].subnet", str(subnet), problem, "choose a range apart from it")
        mine = [member for member in members if _link(member[1]) == _link(leader)]
        for index, before in _shared(mine):
            problem = f"is the subnet of networks[{before}] too, and both hand out the same addresses"
            fix = "give both an ipam range, without a common address"
            yield Finding(f"networks[{index}].subnet", str(subnet), problem, fix)


def _shared(networks: Sequence[tuple[int, AddressedNetwork]]) -> Iterator[tuple[int, int]]:
    """The index of each network that hands out addresses of an earlier one, and the index of that one."""
    reached: tuple[IPv4Address, int] | None = None
    # whereabouts has one list of addresses for all its networks, so these may share a range among themselves.
    reached_by_others = reached
    reported: set[int] = set()
    for index, network in sorted(networks, key=lambda item: handed_out(item[1])):
        start, end = handed_out(network)
        one_list = isinstance(network.ipam, Whereabouts)
        rival = reached_by_others if one_list else reached
        if rival is not None and start <= rival[0]:
            earlier, later = sorted((index, rival[1]))
            if later not in reported:
                reported.add(later)
                yield later, earlier
        if reached is None or end > reached[0]:
            reached = (end, index)
        if not one_list and (reached_by_others is None or end > reached_by_others[0]):
            reached_by_others = (end, index)


def _link(network: AddressedNetwork) -> tuple[str, str]:
    """The interface of the node that the network uses, and the key that names it."""
    match network:
        case BridgeNetwork():
            return "bridge", network.bridge
        case MacvlanNetwork() | IpvlanNetwork():
            return "master", network.master
        case HostDeviceNetwork():
            return "device", network.device
    raise TypeError(f"unknown kind of network: {type(network).__name__}")


@rule("networks[].subnet", "networks[].type", each="networks[]")
def subnets_hold_pods(lab: Lab) -> Iterator[Finding]:
    for index, network in enumerate(lab.networks):
        if isinstance(network, AddressedNetwork) and network.subnet.prefixlen > 30:
            fix = "choose a prefix length of at most /30"
            key = f"networks[{index}].subnet"
            yield Finding(key, str(network.subnet), "has no room for a gateway and a pod", fix)


@rule("networks[].ipam", "networks[].subnet", "networks[].type", each="networks[]")
def ipam_in_subnet(lab: Lab) -> Iterator[Finding]:
    for index, network in enumerate(lab.networks):
        if not isinstance(network, AddressedNetwork) or network.subnet.prefixlen > 30:
            continue
        key, subnet, ipam = f"networks[{index}].ipam", network.subnet, network.ipam
        fix = f"choose from {subnet[1]} to {last_host(subnet)}"
        if ipam.gateway is not None and not subnet[1] <= ipam.gateway <= last_host(subnet):
            yield Finding(f"{key}.gateway", str(ipam.gateway), f"is not a host of the subnet {subnet}", fix)
        if isinstance(ipam, HostLocal | Whereabouts):
            ends = {"rangeStart": ipam.range_start, "rangeEnd": ipam.range_end}
            outside = {name: a for name, a in ends.items() if a is not None and not subnet[1] <= a <= last_host(subnet)}
            for name, address in outside.items():
                yield Finding(f"{key}.{name}", str(address), f"is not a host of the subnet {subnet}", fix)
            for number, cidr in enumerate(ipam.exclude if isinstance(ipam, Whereabouts) else ()):
                if not cidr.subnet_of(subnet):
                    place = f"{key}.exclude[{number}]"
                    yield Finding(place, str(cidr), f"is not inside the subnet {subnet}", "choose a range inside it")
            start, end = handed_out(network)
            if not outside and start > end:
                yield Finding(f"{key}.rangeStart", str(start), f"comes after the last address, {end}", "swap the two")
            continue
        for number, address in enumerate(ipam.addresses):
            place = f"{key}.addresses[{number}]"
            if not subnet[1] <= address.ip <= last_host(subnet):
                yield Finding(place, str(address), f"is not a host of the subnet {subnet}", fix)
            elif address.network != subnet:
                problem = f"has another prefix length than the subnet {subnet}"
                yield Finding(place, str(address), problem, f"write {address.ip}/{subnet.prefixlen}")
        for number, before in repeated([address.ip for address in ipam.addresses]):
            problem = f"is addresses[{before}] already"
            yield Finding(f"{key}.addresses[{number}]", str(ipam.addresses[number]), problem, "remove it")


@rule("networks[].routes", "networks[].subnet", "networks[].type", each="networks[]")
def route_gateways(lab: Lab) -> Iterator[Finding]:
    for index, network in enumerate(lab.networks):
        if not isinstance(network, AddressedNetwork):
            continue
        for number, route in enumerate(network.routes):
            if route.gateway is not None and route.gateway not in network.subnet:
                problem = f"lies outside the subnet {network.subnet}, so pods cannot reach it directly"
                key = f"networks[{index}].routes[{number}].gateway"
                yield Finding(key, str(route.gateway), problem, f"write e.g. {gateway(network)}, or leave it out")


@rule("networks[].mtu", "networks[].type", "network.mtu", "machines.provider", each="networks[]")
def mtu_fits(lab: Lab) -> Iterator[Finding]:
    for index, network in enumerate(lab.networks):
        if not isinstance(network, AddressedNetwork) or network.mtu is None or isinstance(network, BridgeNetwork):
            continue
        if network.mtu > lab.link_mtu:
            problem = f"is more than the {lab.link_mtu} bytes of the link"
            yield Finding(f"networks[{index}].mtu", str(network.mtu), problem, f"make it at most {lab.link_mtu}")


@rule("networks[].type", "networks[].config", "machines.provider", each="networks[]")
def links_that_a_vpc_carries(lab: Lab) -> Iterator[Finding]:
    """A VPC delivers only to the IP and MAC addresses that it assigned to an interface.

    Sources: AWS, "Elastic network interfaces"; k8snetworkplumbingwg/multus-cni#767.
    """
    problems = {
        "macvlan": "a VPC drops frames from MAC addresses that it did not assign",
        "ipvlan": "a VPC drops packets to addresses that it did not assign, so pods reach only pods of their own node",
    }
    if lab.machines.provider != "aws":
        return
    for index, network in enumerate(lab.networks):
        plugin = plugin_of(network)
        if plugin in problems:
            key = f"networks[{index}].{'config' if isinstance(network, CustomNetwork) else 'type'}"
            yield Finding(key, plugin, problems[plugin], "use bridge, or local machines")


@rule("networks[].config", "networks[].type", each="networks[]")
def custom_configs(lab: Lab) -> Iterator[Finding]:
    for index, network in enumerate(lab.networks):
        if isinstance(network, CustomNetwork):
            for found in cni.problems(network.config):
                seen = "missing" if found.value is None else shown(found.value)
                yield Finding(f"networks[{index}].config.{found.key}", seen, found.problem, found.fix)


RULES = (
    networks_need_multus,
    network_names,
    names_of_delegates,
    bridge_names,
    devices_are_not_the_nodes_own,
    bridges_have_one_subnet,
    subnets_apart,
    addresses_handed_out_once,
    subnets_hold_pods,
    ipam_in_subnet,
    route_gateways,
    mtu_fits,
    links_that_a_vpc_carries,
    custom_configs,
)
