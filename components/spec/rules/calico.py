"""Calico: pools and blocks, encapsulation and routing, BGP, MTU.

What tigera/operator and Calico would refuse (pkg/controller/installation/validation.go, pkg/controller/ippool) is
refused here, before anything is made.
"""

from __future__ import annotations

from collections.abc import Iterator

from components.spec.findings import Finding, nearest, shown
from components.spec.grammar import regexp, selector
from components.spec.models import Lab
from components.spec.placement import perhaps_selected, selected
from components.spec.rules.core import listed, overlaps, repeated, rule


@rule("calico.pools[].name", each="calico.pools[]")
def pool_names(lab: Lab) -> Iterator[Finding]:
    names = [pool.name for pool in lab.calico.pools]
    for index, first in repeated(names):
        problem = f"is pools[{first}]'s name already"
        yield Finding(f"calico.pools[{index}].name", names[index], problem, "give it its own name")


@rule("calico.pools[].cidr", "kubernetes.podCidr", each="calico.pools[]")
def pools_in_pod_range(lab: Lab) -> Iterator[Finding]:
    pods = lab.kubernetes.pod_cidr
    for index, pool in enumerate(lab.calico.pools):
        if not pool.cidr.subnet_of(pods):
            problem = f"lies outside kubernetes.podCidr {pods}"
            fix = f"choose a range inside {pods}, or widen kubernetes.podCidr"
            yield Finding(f"calico.pools[{index}].cidr", str(pool.cidr), problem, fix)


@rule("calico.pools[].cidr", each="calico.pools[]")
def pools_apart(lab: Lab) -> Iterator[Finding]:
    pools = [(f"calico.pools[{index}].cidr", pool.cidr) for index, pool in enumerate(lab.calico.pools)]
    for key, other, cidr, taken in overlaps(pools):
        yield Finding(key, str(cidr), f"overlaps {other} {taken}", "choose a range apart from it")


@rule(
    "calico.pools[].cidr",
    "calico.pools[].blockSize",
    "calico.pools[].nodeSelector",
    "nodes[].name",
    "nodes[].role",
    "nodes[].labels",
    each="calico.pools[]",
)
def blocks_fit(lab: Lab) -> Iterator[Finding]:
    """Every node that a pool selects claims a block of its own."""
    for index, pool in enumerate(lab.calico.pools):
        key = f"calico.pools[{index}].blockSize"
        if pool.block_size < pool.cidr.prefixlen:
            problem = f"a block of /{pool.block_size} is larger than the pool {pool.cidr}"
            yield Finding(key, str(pool.block_size), problem, f"make it {pool.cidr.prefixlen} or more")
            continue
        blocks = 1 << (pool.block_size - pool.cidr.prefixlen)
        nodes = len(selected(lab, pool.node_selector) or ())
        if blocks < nodes:
            smaller = pool.cidr.prefixlen + (nodes - 1).bit_length()
            problem = f"{pool.cidr} has {blocks} blocks of /{pool.block_size}, and the pool selects {nodes} nodes"
            fix = "widen the pool" + (f", or make blockSize {smaller} or more" if smaller <= 32 else "")
            yield Finding(key, str(pool.block_size), problem, fix)


@rule("calico.pools[].nodeSelector", each="calico.pools[]")
def pool_selectors(lab: Lab) -> Iterator[Finding]:
    for index, pool in enumerate(lab.calico.pools):
        yield from selector_findings(f"calico.pools[{index}].nodeSelector", pool.node_selector)


@rule("calico.peers[].nodeSelector", each="calico.peers[]")
def peer_selectors(lab: Lab) -> Iterator[Finding]:
    for index, peer in enumerate(lab.calico.peers):
        yield from selector_findings(f"calico.peers[{index}].nodeSelector", peer.node_selector)


def selector_findings(key: str, text: str) -> Iterator[Finding]:
    """What is wrong with a selector of Calico. The operator refuses an empty one as well."""
    if not text.strip():
        yield Finding(key, shown(text), "is empty", "write all(), or e.g. rack == 'a'")
        return
    try:
        selector.parse(text)
    except selector.SelectorError as error:
        fix = (
            f"write {error.suggestion}"
            if error.suggestion
            else "write e.g. rack == 'a', rack in {'a', 'b'} or has(rack)"
        )
        yield Finding(key, shown(text), f"is not in Calico's selector language: {error.problem}", fix)


@rule("calico.pools[].encapsulation", "calico.bgp", each="calico.pools[]")
def encapsulation_needs_bgp(lab: Lab) -> Iterator[Finding]:
    """BIRD writes the routes of pools with IPIP or without a tunnel, Felix those of VXLAN."""
    if lab.calico.bgp == "Enabled":
        return
    for index, pool in enumerate(lab.calico.pools):
        if pool.mode.routes_by == "BIRD":
            problem = "needs BGP, and calico.bgp is Disabled"
            fix = "set calico.bgp: Enabled, or encapsulation: VXLAN"
            yield Finding(f"calico.pools[{index}].encapsulation", pool.encapsulation, problem, fix)


@rule("calico.pools[].encapsulation", "calico.ipam", each="calico.pools[]")
def encapsulation_needs_calico_ipam(lab: Lab) -> Iterator[Finding]:
    if lab.calico.ipam != "HostLocal":
        return
    for index, pool in enumerate(lab.calico.pools):
        if pool.mode.routes_by == "Felix":
            problem = "needs Calico's blocks for its routes, and with calico.ipam HostLocal there are none"
            fix = "set calico.ipam: Calico, or encapsulation: None or IPIP with BGP"
            yield Finding(f"calico.pools[{index}].encapsulation", pool.encapsulation, problem, fix)


@rule(
    "calico.pools[].encapsulation",
    "calico.wireguard",
    "calico.peers",
    "machines.provider",
    "nodes[].subnet",
    "nodes[].role",
    "nodes[].labels",
    each="calico.pools[]",
)
def plain_packets_stay_in_subnet(lab: Lab) -> Iterator[Finding]:
    """The router between subnets does not know pod addresses, unless it is a BGP peer."""
    subnets = sorted({node.subnet for node in lab.nodes})
    peered = {node.name for peer in lab.calico.peers for node in perhaps_selected(lab, peer.node_selector)}
    routed = lab.machines.router_may_peer and len(peered) == len(lab.nodes)
    if len(subnets) < 2 or lab.calico.wireguard or routed:
        return
    for index, pool in enumerate(lab.calico.pools):
        if pool.mode.tunnel is None:
            router = lab.machines.subnet_router
            problem = f"the nodes are in {len(subnets)} subnets, and {router} drops packets with pod addresses"
            fix = "set IPIPCrossSubnet or VXLANCrossSubnet, or put all nodes into one subnet"
            yield Finding(f"calico.pools[{index}].encapsulation", pool.encapsulation, problem, fix)


@rule("calico.routeReflectors", "calico.bgp", "nodes[].name")
def route_reflectors(lab: Lab) -> Iterator[Finding]:
    names = {node.name: index for index, node in enumerate(lab.nodes)}
    if lab.calico.route_reflectors and lab.calico.bgp == "Disabled":
        given = shown(list(lab.calico.route_reflectors))
        fix = "set calico.bgp: Enabled, or remove them"
        yield Finding("calico.routeReflectors", given, "need BGP, and calico.bgp is Disabled", fix)
    for index, name in enumerate(lab.calico.route_reflectors):
        if name not in names:
            meant = nearest(name, names)
            fix = f"did you mean {meant}?" if meant else f"write {listed(list(names))}"
            yield Finding(f"calico.routeReflectors[{index}]", name, "is not a node's name", fix)
    for index, first in repeated(lab.calico.route_reflectors):
        name = lab.calico.route_reflectors[index]
        yield Finding(f"calico.routeReflectors[{index}]", name, f"is routeReflectors[{first}] already", "remove it")


@rule("calico.peers", "calico.bgp")
def peers_need_bgp(lab: Lab) -> Iterator[Finding]:
    if lab.calico.peers and lab.calico.bgp == "Disabled":
        given = shown([peer.name for peer in lab.calico.peers])
        fix = "set calico.bgp: Enabled, or remove them"
        yield Finding("calico.peers", given, "need BGP, and calico.bgp is Disabled", fix)


@rule("calico.nodeToNodeMesh", "calico.routeReflectors", "calico.bgp")
def mesh(lab: Lab) -> Iterator[Finding]:
    key, given = "calico.nodeToNodeMesh", lab.calico.node_to_node_mesh
    if given is not None and lab.calico.bgp == "Disabled":
        yield Finding(key, shown(given), "is about BGP, and calico.bgp is Disabled", "set calico.bgp: Enabled")
    elif given and lab.calico.route_reflectors:
        # confd leaves them out of the mesh (projectcalico/calico, confd/pkg/backends/calico/bgp_processor.go).
        problem = "does not go with calico.routeReflectors, which take no part in a mesh"
        yield Finding(key, shown(given), problem, "remove one of the two")


@rule("nodes[].asNumber", "calico.bgp")
def as_numbers_need_bgp(lab: Lab) -> Iterator[Finding]:
    for index, node in enumerate(lab.nodes):
        if node.as_number is not None and lab.calico.bgp == "Disabled":
            problem = "is about BGP, and calico.bgp is Disabled"
            fix = "set calico.bgp: Enabled, or remove it"
            yield Finding(f"nodes[{index}].asNumber", str(node.as_number), problem, fix)


@rule("calico.peers[].name", each="calico.peers[]")
def peer_names(lab: Lab) -> Iterator[Finding]:
    names = [peer.name for peer in lab.calico.peers]
    for index, first in repeated(names):
        problem = f"is peers[{first}]'s name already"
        yield Finding(f"calico.peers[{index}].name", names[index], problem, "give it its own name")


@rule("calico.mtu", "calico.wireguard", "calico.pools[].encapsulation", "network.mtu", "machines.provider")
def pod_mtu_fits(lab: Lab) -> Iterator[Finding]:
    largest = max(lab.tunnels, key=lambda tunnel: tunnel.overhead, default=None)
    most = lab.link_mtu - (largest.overhead if largest else 0)
    if lab.calico.mtu is not None and lab.calico.mtu > most:
        why = f" less {largest.overhead} bytes for {largest.name}" if largest else ""
        problem = f"is more than the {lab.link_mtu} bytes of the link{why}"
        yield Finding("calico.mtu", str(lab.calico.mtu), problem, f"make it at most {most}, or leave it out")


@rule("network.mtu", "machines.provider")
def link_mtu(lab: Lab) -> Iterator[Finding]:
    given, largest = lab.network.mtu, lab.machines.largest_link_mtu
    if given is not None and given > largest:
        yield Finding(
            "network.mtu", str(given), "is more than the machines' links can carry", f"make it at most {largest}"
        )


# Methods that Calico's environment variable may name. calico.interface has the name of an interface alone.
_METHODS = ("interface=", "skip-interface=", "can-reach=", "cidr=", "first-found", "kubernetes-internal-ip")


@rule("calico.interface", "calico.canReach", "calico.skipInterface", "calico.cidrs", "nodes[].address")
def one_autodetection(lab: Lab) -> Iterator[Finding]:
    calico = lab.calico
    given = {
        "calico.interface": calico.interface,
        "calico.canReach": calico.can_reach,
        "calico.skipInterface": calico.skip_interface,
        "calico.cidrs": calico.cidrs or None,
    }
    chosen = [key for key, value in given.items() if value is not None]
    for key in chosen[1:]:
        problem = f"is a second way to find the nodes' addresses, beside {chosen[0]}"
        yield Finding(key, shown(given[key]), problem, "keep one of them")
    for index, node in enumerate(lab.nodes):
        if calico.cidrs and not any(node.address in cidr for cidr in calico.cidrs):
            problem = f"is outside of calico.cidrs ({listed(calico.cidrs)}), so Calico does not find the node's address"
            yield Finding(f"nodes[{index}].address", str(node.address), problem, "add its range to calico.cidrs")
    if calico.skip_interface is not None:
        try:
            regexp.check(calico.skip_interface)
        except regexp.RegexpError as error:
            problem = f"is not a regular expression of Go: {error}"
            yield Finding("calico.skipInterface", shown(calico.skip_interface), problem, "write e.g. docker.*")


@rule("calico.interface")
def interface(lab: Lab) -> Iterator[Finding]:
    """Go compiles each of the comma-separated patterns (projectcalico/calico, node/pkg/lifecycle/startup)."""
    key, given = "calico.interface", lab.calico.interface
    if given is None:
        return
    if given.startswith(_METHODS):
        name = given.removeprefix("interface=")
        fix = f"write {name}" if name != given else "write the interface's name, e.g. eth1, or leave it out"
        yield Finding(key, shown(given), "is a method, and this key takes the name of an interface alone", fix)
        return
    if not given.strip():
        yield Finding(key, shown(given), "names no interface", "write e.g. eth1, or leave it out")
        return
    for pattern in given.split(","):
        try:
            regexp.check(pattern)
        except regexp.RegexpError as error:
            problem = f"is not a regular expression of Go: {error}"
            yield Finding(key, shown(given), problem, "write e.g. eth1 or eth.*, without lookaround")


RULES = (
    pool_names,
    pools_in_pod_range,
    pools_apart,
    blocks_fit,
    pool_selectors,
    peer_selectors,
    encapsulation_needs_bgp,
    encapsulation_needs_calico_ipam,
    plain_packets_stay_in_subnet,
    route_reflectors,
    peers_need_bgp,
    mesh,
    as_numbers_need_bgp,
    peer_names,
    pod_mtu_fits,
    link_mtu,
    one_autodetection,
    interface,
)
