"""The last part of a way: into the pod, to the node itself, or out of the lab."""

from __future__ import annotations

from components.verify.expect import pod as expect_pod
from components.verify.expect.datapath import any_route
from components.verify.expect.node import interface_up
from components.verify.model import HOST_SIDE_MAC, Pod, Topic
from components.verify.routes import best_route
from components.verify.walk.cross import host_route
from components.verify.walk.trace import Trace
from components.verify.walk.translate import masquerade


def deliver(trace: Trace, pod: Pod) -> None:
    """To a pod behind its host side, or to the node that has the address."""
    if pod.host_network:
        _to_node(trace, pod)
        return
    node, host = pod.node, pod.interface
    scope = trace.scope(node)
    found = best_route(scope.topics.get(Topic.ROUTE, {}), pod.address)
    checks = [trace.compared_route(wanted, scope, found) for wanted in trace.expected(Topic.ROUTE, pod.address, node)]
    checks += trace.compared(*trace.expected(Topic.LINK, host, node), expect_pod.holds_address(pod))
    mac = trace.mac(node, "eth0", host)
    learnt = expect_pod.neighbour(pod, mac)
    if mac and scope.field_of(Topic.NEIGHBOUR, learnt.key, "lladdr"):
        checks += trace.compared(learnt)
    trace.add(
        "delivery",
        node,
        host,
        f"{node} has {pod.address} behind {host}; {pod.id} receives it with TTL {trace.ttl}",
        checks,
        packet={"source_mac": HOST_SIDE_MAC, "destination_mac": mac},
    )


def _to_node(trace: Trace, end: Pod) -> None:
    """To the node's own network: no route is looked up, because an interface of the node has the address."""
    node = end.node
    facts = trace.reading.nodes.get(node)
    device = (facts.interface_with(trace.address) if facts else "") or trace.lab.nics.get(node, "")
    who = f"{node} itself" if end.namespace == "node" else f"{end.id}, which is on the node's network,"
    trace.add(
        "delivery",
        node,
        device,
        f"{device} of {node} has {trace.address}: {who} receives it with TTL {trace.ttl}",
        trace.compared(interface_up(node, device)),
    )


def outside(trace: Trace) -> None:
    """Out of the lab by the node's route, with the source that its rules give it."""
    node = trace.source.node
    device = host_route(trace, node, any_route(node, trace.address)).get("dev", "")
    masquerade(trace, node, device, leaves=True)
    what = f"{device or 'nothing'} takes it out of the lab, from {trace.sender}"
    if trace.lab.pool_of(trace.address):
        what = f"{device or 'nothing'} takes it, and no pod of the lab has {trace.address}"
    trace.add(
        "outside",
        node,
        device,
        what,
        trace.compared(interface_up(node, device)) if device else [],
    )
