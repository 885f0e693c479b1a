"""Pings between pods of different nodes: who pings whom, and what the answer must be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from components.verify.expect.egress import by_name, firewall_of, users
from components.verify.expect.pod import route_for
from components.verify.expect.shared import in_pod
from components.verify.model import Expectation, ObservedLab, OneOf, Pod, Topic, Value
from components.verify.services import ServicePort


class Ping(NamedTuple):
    """A pod, by the host side of its eth0, and the address that it pings, or to which it opens a TCP connection on
    `port`. `interface` "-": the node itself sends."""

    interface: str
    address: str
    port: int = 0

    @property
    def key(self) -> str:
        """Its key in the topic PROBE, and what observe.sh is told."""
        return f"{self.interface} {self.address}{f' {self.port}' if self.port else ''}"


def ping_of(source: Pod, address: str, port: int = 0) -> Ping:
    """What a pod or a node sends."""
    return Ping("-" if source.host_network else source.interface, address, port)


class Pair(NamedTuple):
    """Who pings whom."""

    source: Pod
    destination: Pod


def pairs(observed: ObservedLab) -> list[Pair]:
    """A ring over the nodes that have pods: the number of pings grows with the nodes, and each node is a source and a
    destination. Where only one node has pods, two of these. Pods to which the stack file gives no routes to each other
    do not ping."""
    candidates: list[Sequence[Pod]] = []
    for node in observed.spec.nodes:
        # Only the lab's own pods: others may be behind a network policy.
        own = [pod for pod in observed.running(node.name) if pod.workload is not None]
        if own:
            named = by_name(observed, own)
            candidates.append([pod for pod in named if _reaches_pools(observed, pod)] or named)
    chosen = [pods[0] for pods in candidates]
    if len(candidates) == 1:
        ring = [Pair(*pair) for pair in pairwise(candidates[0][:2])]
    else:
        ring = [Pair(*pair) for pair in zip(chosen, chosen[1:] + chosen[:1], strict=True)]
    return [pair for pair in ring if _has_route(observed, *pair) and _has_route(observed, *reversed(pair))]


def _reaches_pools(observed: ObservedLab, pod: Pod) -> bool:
    """Whether the pod must have a route to the beginning of every pool: its delegate may name others only."""
    pools = observed.spec.calico.pools
    return all(route_for(observed, pod, str(pool.cidr[0])).expected for pool in pools)


def _has_route(observed: ObservedLab, source: Pod, destination: Pod) -> bool:
    return bool(route_for(observed, source, destination.address).expected)


def pings(observed: ObservedLab) -> Mapping[str, Sequence[Ping]]:
    """The pings that each node's pods send, by node."""
    found: dict[str, list[Ping]] = {}
    for source, destination in pairs(observed):
        found.setdefault(source.node, []).append(Ping(source.interface, destination.address))
    for pod, gateway in gateways(observed):
        found.setdefault(pod.node, []).append(Ping(pod.interface, gateway))
    return found


def gateways(observed: ObservedLab) -> Iterator[tuple[Pod, str]]:
    """One pod of each node whose gateway is another pod, and that gateway's address."""
    for node in observed.spec.nodes:
        for pod in users(observed, node.name)[:1]:
            found = firewall_of(observed, pod)
            if found is not None:
                yield pod, str(found[0].address)


def probes(observed: ObservedLab) -> Iterator[Expectation]:
    """An answer to every ping of the ring, and to the ping of each node whose pods do not run yet."""
    for source, destination in pairs(observed):
        yield answered(observed, source, destination, destination.address)
    for node in observed.spec.nodes:
        starting = observed.starting(node.name)
        if starting and not any(pod.workload for pod in observed.running(node.name)):
            yield _not_sent(starting[0])
    for pod, gateway in gateways(observed):
        yield _gateway_answers(observed, pod, gateway)


def _not_sent(pod: Pod) -> Expectation:
    return Expectation(
        topic=Topic.PROBE,
        key=Ping(pod.interface, "another node").key,
        expected={"received": "yes"},
        sentence=f"{pod.id} on {pod.node} reaches a pod on another node",
        command=f"kubectl -n {pod.namespace} get pod {pod.name}",
        because="the nodes that have pods of the lab ping each other in a ring",
        cause="the pod does not run",
        advice="see the check of its workload",
        unread=f"{pod.id} does not run: {pod.problem}",
        node=pod.node,
        about=pod.id,
    )


def _gateway_answers(observed: ObservedLab, pod: Pod, gateway: str) -> Expectation:
    return Expectation(
        topic=Topic.PROBE,
        key=Ping(pod.interface, gateway).key,
        expected={"received": "yes", "ttl": "64"},
        sentence=f"{pod.id} on {pod.node} reaches its gateway {gateway}, a pod on the same bridge",
        command=f"{in_pod(pod)} ping -c 1 {gateway}",
        because="no node is between the two, so the TTL stays 64",
        cause="the firewall's pod does not run on this node, or its interface is down",
        advice=f"`./lab walk STACK {pod.id} {observed.outside}` shows the hop at which a packet ends",
        node=pod.node,
        about=pod.id,
    )


def answered(observed: ObservedLab, source: Pod, destination: Pod | None, address: str) -> Expectation:
    """A pod's ping is answered. `destination`: the pod with the address; None: it is outside of the lab."""
    ping = f"{in_pod(source)} ping -c 1 {address}"
    expected: dict[str, Value] = {"received": "yes"}
    if destination is None:
        return Expectation(
            topic=Topic.PROBE,
            key=Ping(source.interface, address).key,
            expected=expected,
            sentence=f"{source.id} on {source.node} reaches {address}",
            command=ping,
            because="the node forwards what its pods send to the outside",
            cause="one of the hops does not hold, or the network outside of the lab drops the packet",
            advice=f"`./lab walk STACK {source.id} {address}` shows the hop at which it ends",
            node=source.node,
            about=source.id,
        )
    return Expectation(
        topic=Topic.PROBE,
        key=Ping(source.interface, address).key,
        expected=expected | {"ttl": ttl(observed, source, destination)},
        sentence=f"{source.id} on {source.node} reaches {destination.id} ({address}) on {destination.node}",
        command=ping,
        because="each node on the way lowers the TTL of 64 by one",
        cause=f"a packet filter between {source.node} and {destination.node}, or what another failed check names",
        advice=f"`./lab walk STACK {source.id} {destination.id}` shows the hop at which it ends",
        node=source.node,
        about=f"{source.id}->{destination.node}",
    )


def tried(
    observed: ObservedLab,
    source: Pod,
    destination: Pod | None,
    address: str,
    service: ServicePort | None = None,
    port: int = 0,
) -> Expectation:
    """A ping of a pod or a node is answered, or its TCP connection to a port is accepted."""
    on_node = source.host_network
    if not port and not on_node and (destination is None or not destination.host_network):
        return answered(observed, source, destination, address)
    enter = "" if on_node else f"{in_pod(source)} "
    command = f"{enter}ping -c 1 {address}"
    if port:
        # Not every node has nc; the pods' images have it.
        connect = f"timeout 3 bash -c '</dev/tcp/{address}/{port}'"
        command = f"{enter}{connect}" if on_node or source.netns else f"{enter}nc -zv {address} {port}"
    option = f" --tcp {port}" if port else ""
    at = f"{address}:{port}" if port else address
    name = f"the Service {service.proxy_name}" if service else (destination.id if destination else "")
    return Expectation(
        topic=Topic.PROBE,
        key=ping_of(source, address, port).key,
        expected={"received": "yes"},
        sentence=f"{source.id} on {source.node} reaches {f'{name} ({at})' if name else at}",
        command=command,
        because="a TCP connection is accepted by whoever listens there" if port else "a ping is answered",
        cause="one of the hops does not hold, or nothing listens on this port"
        if port
        else "one of the hops does not hold",
        advice=f"`./lab walk STACK {source.id} {address}{option}` shows the hop at which it ends",
        node=source.node,
        about=source.id,
    )


def ttl(observed: ObservedLab, source: Pod, destination: Pod) -> Value:
    """The TTL with which the answer to a ping arrives: 64, less one for each node. Where the answer travels without a
    tunnel, a router between the nodes lowers it too; a VPC's router does not."""
    if source.node == destination.node:
        return "63"
    tunnel = observed.tunnel_between(destination.node, source.node, source.address)
    routed = not observed.same_subnet(source.node, destination.node)
    return OneOf(("62", "61")) if routed and tunnel is None else "62"
