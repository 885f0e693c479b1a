"""What a pod must have: its host side on the node; inside, its address, its MTU and its routes."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address

from components.spec import addresses, models
from components.spec.placement import pools_for
from components.verify.expect import multus
from components.verify.expect.shared import in_pod, inside, renew
from components.verify.model import HOST_SIDE_MAC, Expectation, ObservedLab, Pod, Topic, Within
from components.verify.routes import destination_of, prefix_length

GATEWAY = str(addresses.GATEWAY)


def pod(observed: ObservedLab, pod: Pod) -> Iterator[Expectation]:
    """A pod's, in the order in which they are best read. What is inside is known of the lab's own pods only; what
    follows from the address, of those that have one."""
    if pod.address:
        yield _host_route(pod)
    workload = observed.workload_of(pod)
    yield from _host_side(observed, pod, own=workload is not None)
    if workload is not None:
        if pod.address:
            yield from _address(observed, pod, workload)
        yield _eth0(observed, pod)
        yield from _eth0_routes(observed, pod, workload)
        if observed.spec.multus:
            yield from multus.interfaces(observed, pod, workload)


# --- on the node -----------------------------------------------------------------------------------------------------


def _host_route(pod: Pod) -> Expectation:
    host = pod.interface
    return Expectation(
        topic=Topic.ROUTE,
        key=pod.address,
        expected={"dev": host, "scope": "link"},
        sentence=f"{pod.node} reaches {pod.id} at {pod.address} through {host}",
        command=f"ip route show {pod.address}",
        because=f"{host} is cali and 11 digits of sha1({pod.namespace}.{pod.name})",
        cause="Felix does not have the pod as a workload endpoint, or the pod's sandbox is gone",
        advice=renew(pod),
        node=pod.node,
        about=pod.id,
    )


def _host_side(observed: ObservedLab, pod: Pod, *, own: bool) -> Iterator[Expectation]:
    """`own`: whether it is the lab's. Others may be older than the last change of the encapsulation."""
    host = pod.interface
    mtu = str(addresses.pod_mtu(observed.spec))
    yield Expectation(
        topic=Topic.PROXY_ARP,
        key=host,
        expected={"value": "1"},
        sentence=f"{pod.node} answers {pod.id}'s ARP for {GATEWAY} on {host}",
        command=f"cat /proc/sys/net/ipv4/conf/{host}/proxy_arp",
        because=f"no interface has {GATEWAY}; proxy ARP answers with {HOST_SIDE_MAC}",
        cause="proxy_arp was switched off: the pod does not find its gateway once its ARP entry is old",
        advice=f"sysctl -w net/ipv4/conf/{host}/proxy_arp=1, or {renew(pod)}",
        node=pod.node,
        about=pod.id,
    )
    yield Expectation(
        topic=Topic.LINK,
        key=host,
        expected={"kind": "veth", "address": HOST_SIDE_MAC, "up": "yes"} | ({"mtu": mtu} if own else {}),
        sentence=f"{host}, the host side of {pod.id}, has the MAC {HOST_SIDE_MAC}{f' and MTU {mtu}' if own else ''}",
        command=f"ip link show {host}",
        because="Calico gives every host side the same MAC, so that a pod that is moved can keep its ARP entry, and "
        "the MTU of the pod's end: a packet that is larger than one end's MTU vanishes there",
        cause="the pod's sandbox is gone, or the interface was changed by hand",
        advice=renew(pod),
        node=pod.node,
        about=pod.id,
    )


# --- inside ----------------------------------------------------------------------------------------------------------


def _address(observed: ObservedLab, pod: Pod, workload: models.Workload) -> Iterator[Expectation]:
    """The range that its address must be in, where one is known."""
    spec, delegate = observed.spec, observed.spec.delegate_of(workload)
    span: Within | None = None
    because = "calico-ipam gives addresses of the pools"
    if delegate is not None:
        block = addresses.block_in_pool(observed.blocks.get(pod.node, ()), spec.pool_of(delegate))
        if block is not None:
            span = Within(*addresses.delegate_range(block, delegate))
            because = f"delegate {delegate.name} gives {span} on {pod.node}"
    elif spec.calico.ipam == "Calico":
        # A node may borrow an address of another node's block, but not of another pool.
        pools = pools_for(spec, workload) or spec.calico.pools
        pool = next((pool for pool in pools if IPv4Address(pod.address) in pool.cidr), pools[0])
        span = Within(pool.cidr[0], pool.cidr[-1])
    if span is not None:
        yield inside(
            pod,
            topic=Topic.ADDRESS,
            key="eth0",
            expected={"address": span},
            sentence=f"{pod.id} has an address of {span}",
            command="ip addr show eth0",
            because=because,
            cause="the pod is older than Multus' files on its node, or the node's block has moved",
        )


def _eth0(observed: ObservedLab, pod: Pod) -> Expectation:
    mtu = addresses.pod_mtu(observed.spec)
    return inside(
        pod,
        topic=Topic.LINK,
        key="eth0",
        expected={"mtu": str(mtu), "addresses": f"{pod.address}/32", "up": "yes"},
        sentence=f"{pod.id} has {pod.address or 'an address'}/32 on eth0, MTU {mtu}",
        command="ip addr show eth0",
        because="the API has this address, and the MTU is the link's less the largest encapsulation in use",
        cause="the pod is older than the last change of the encapsulation, and keeps the MTU that it was made with",
    )


def _eth0_routes(observed: ObservedLab, pod: Pod, workload: models.Workload | None) -> Iterator[Expectation]:
    """The routes by Calico's gateway. `workload` None: a pod that is not the lab's own."""
    delegate = observed.spec.delegate_of(workload) if workload else None
    other_default = any(attachment.default_route for attachment in workload.networks) if workload else False
    yield inside(
        pod,
        topic=Topic.ROUTE,
        key=GATEWAY,
        expected={"dev": "eth0", "scope": "link"},
        sentence=f"{pod.id} has {GATEWAY} as a neighbour on eth0",
        command="ip route",
        because="Calico's plugin gives this one next hop to every pod",
        cause="the pod's routes were changed by hand",
    )
    routes = delegate.routes if delegate else ()
    because = f"routes of delegate {delegate.name}" if delegate and routes else "a pod's only way out is its node"
    destinations = [destination_of(route) for route in routes] or ([] if other_default else ["default"])
    for destination in destinations:
        yield inside(
            pod,
            topic=Topic.ROUTE,
            key=destination,
            expected={"via": GATEWAY, "dev": "eth0"},
            sentence=f"{pod.id} sends {destination} by {GATEWAY} on eth0",
            command=f"ip route show {destination}",
            because=because,
            cause="the pod is older than the delegate's routes, or its routes were changed by hand",
        )
    if delegate and routes and not other_default:
        yield inside(
            pod,
            topic=Topic.ROUTE,
            key="default",
            expected=None,
            sentence=f"{pod.id} has no default route",
            command="ip route",
            because=f"delegate {delegate.name} names its routes, and default is not among them",
            cause="the pod is older than the delegate's file",
        )


# --- for walks and faults --------------------------------------------------------------------------------------------


def route_for(observed: ObservedLab, pod: Pod, address: str) -> Expectation:
    """The route by which a pod must send to an address: of those that it must have, the one with the longest prefix.
    Where none covers the address, any route, for the packet needs one."""
    workload = observed.workload_of(pod)
    candidates: list[Expectation] = []
    if workload is not None:
        # Before eth0's: of two equal routes the kernel takes the attached network's.
        candidates += multus.connected(observed, pod, workload)
        if observed.spec.multus:
            found = multus.interfaces(observed, pod, workload)
            candidates += [e for e in found if (e.topic, e.pod) == (Topic.ROUTE, pod.interface)]
    candidates += [e for e in _eth0_routes(observed, pod, workload) if e.expected is not None]
    lengths = [prefix_length(candidate.key, address) for candidate in candidates]
    longest = max((length for length in lengths if length is not None), default=None)
    if longest is not None:
        return candidates[lengths.index(longest)]
    return inside(
        pod,
        topic=Topic.ROUTE,
        key="default",
        expected={},
        sentence=f"{pod.id} has a route to {address}",
        command=f"ip route get {address}",
        because="without a route the packet does not leave the pod",
        cause=f"the stack file gives the pod no route to {address}: its delegate names its routes, and the workload "
        "has no defaultRoute",
    )


def gateway_known(pod: Pod) -> Expectation:
    """The pod's ARP entry for its gateway; it is there only after the pod has sent a packet."""
    return Expectation(
        topic=Topic.NEIGHBOUR,
        key=f"eth0 {GATEWAY}",
        expected={"lladdr": HOST_SIDE_MAC},
        sentence=f"{pod.id} has learnt that {GATEWAY} is at {HOST_SIDE_MAC}",
        command=f"{in_pod(pod)} ip neigh",
        because=f"the node answers ARP for {GATEWAY} on {pod.interface} by proxy ARP",
        cause="nobody answered the pod's ARP: proxy_arp is off on the host side, or the veth is down",
        advice=f"sysctl -w net/ipv4/conf/{pod.interface}/proxy_arp=1",
        node=pod.node,
        pod=pod.interface,
        about=pod.id,
    )


def neighbour(pod: Pod, mac: str) -> Expectation:
    """The node's ARP entry for the pod; it is there only after the node has sent the pod a packet."""
    return Expectation(
        topic=Topic.NEIGHBOUR,
        key=f"{pod.interface} {pod.address}",
        expected={"lladdr": mac},
        sentence=f"{pod.node} has learnt that {pod.address} is at {mac}, the MAC of {pod.id}'s eth0",
        command=f"ip neigh show {pod.address} dev {pod.interface}",
        because="the pod answers the node's ARP; it drops what is sent to another MAC",
        cause="the MAC of the pod's eth0 was changed, or the entry was written by hand",
        advice=f"ip neigh del {pod.address} dev {pod.interface}",
        node=pod.node,
        about=pod.id,
    )


def way_to_gateway(pod: Pod, gateway: str) -> Expectation:
    """The node's own route to the next hop that a pod asks for: to any, by its default route."""
    return Expectation(
        topic=Topic.ROUTE,
        key=gateway,
        expected={},
        sentence=f"{pod.node} has a route that covers {gateway}",
        command=f"ip route get {gateway}",
        because="by proxy ARP the kernel answers only for what it would forward by another interface",
        cause="the node has lost its default route",
        advice=f"on {pod.node}: ip route; add the default route again",
        node=pod.node,
        about=pod.id,
    )


def holds_address(pod: Pod) -> Expectation:
    """The pod has the address that packets for it are sent to."""
    return inside(
        pod,
        topic=Topic.ADDRESS,
        key="eth0",
        expected={"address": pod.address},
        sentence=f"{pod.id} has {pod.address} on eth0",
        command="ip addr show eth0",
        because="the API has this address",
        cause="the pod's interface was changed by hand",
    )
