"""The walks that a page offers: between pods of one node, of two nodes, to a Service, and to the outside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from components.verify.expect.egress import by_name, firewall_of
from components.verify.model import Pod, Result
from components.verify.read.api import NoApi
from components.verify.read.reading import LiveLab
from components.verify.services import ServicePort
from components.verify.walk.ends import choose_endpoint, find_ends
from components.verify.walk.live import walk_live
from components.verify.walk.model import Hop, NoWalk, Walk
from components.verify.walk.route import walk
from page.content.checks import command
from page.content.source import Source

Json = dict[str, Any]


@dataclass(frozen=True)
class Offer:
    """A walk to offer: its title, and the ends as `./lab walk` takes them. `across`: between pods of two nodes."""

    title: str
    source: str
    target: str
    across: bool = False


def offers(source: Source) -> list[Offer]:
    """The walks that the lab can show, the one between nodes first."""
    return list(_offers(source))


def _offers(source: Source) -> Iterator[Offer]:
    lab = source.lab
    own = by_name(lab, [pod for pod in source.reading.pods if pod.running and lab.workload_of(pod) is not None])
    order = {node.name: number for number, node in enumerate(lab.spec.nodes)}
    own.sort(key=lambda pod: order.get(pod.node, len(order)))
    plain = [pod for pod in own if not _is_attached(source, pod)] or own
    near = _pair(plain, lambda a, b: a.node != b.node and lab.same_subnet(a.node, b.node))
    far = _pair(plain, lambda a, b: a.node != b.node and not lab.same_subnet(a.node, b.node))
    if near:
        title = "To another node of the same subnet" if far else "To a pod on another node"
        yield Offer(title, near[0].id, near[1].id, across=True)
    if far:
        title = "To a node in another subnet" if near else "To a pod on another node"
        yield Offer(title, far[0].id, far[1].id, across=True)
    if same := _pair(own, lambda a, b: a.node == b.node):
        yield Offer("To a pod on the same node", same[0].id, same[1].id)
    leaving = next((pod for pod in plain if _leaves(source, pod)), None)
    if leaving and (service := _service(source)):
        # From a node without an endpoint, so that the packet goes to another node.
        behind_it = {endpoint.node for endpoint in service.endpoints}
        asking = next((pod for pod in plain if _leaves(source, pod) and pod.node not in behind_it), leaving)
        yield Offer("To a Service", asking.id, f"service/{service.id}")
    if leaving:
        yield Offer("Out of the lab", leaving.id, lab.outside)
    if behind := next((pod for pod in own if firewall_of(lab, pod)), None):
        yield Offer("Out through a firewall pod", behind.id, lab.outside)


def _service(source: Source) -> ServicePort | None:
    """A Service of one of the lab's workloads, else that of the cluster's DNS."""
    own = {(workload.namespace, workload.name) for workload in source.live.spec.workloads}
    ports = sorted(source.reading.services, key=lambda port: ((port.namespace, port.service) not in own, port.id))
    return next((port for port in ports if port.id != "default/kubernetes" and port.endpoints), None)


def _pair(pods: Sequence[Pod], fits: Callable[[Pod, Pod], bool]) -> tuple[Pod, Pod] | None:
    """The first two different pods that fit together."""
    return next(((a, b) for a, b in product(pods, pods) if a.id != b.id and fits(a, b)), None)


def _is_attached(source: Source, pod: Pod) -> bool:
    """Whether the pod has further networks."""
    workload = source.lab.workload_of(pod)
    return workload is not None and bool(workload.networks)


def _leaves(source: Source, pod: Pod) -> bool:
    """Whether the pod has a default route by its eth0."""
    workload = source.lab.workload_of(pod)
    delegate = source.live.spec.delegate_of(workload) if workload else None
    return not (delegate and delegate.routes)


# --- walking ---------------------------------------------------------------------------------------------------------


def walks(source: Source) -> list[Json]:
    """Every walk that the page offers."""
    found = []
    for offer in offers(source):
        try:
            walked = foreseen_walk(source, offer) if source.foreseen else _live_walk(source, offer)
        except (NoWalk, NoApi):
            continue
        typed = {"command": f"./lab walk {source.stack} {offer.source} {offer.target}"}
        found.append(walk_json(source, walked) | typed | {"title": offer.title, "across": offer.across})
    return found


def foreseen_walk(source: Source, offer: Offer) -> Walk:
    """A walk through what is foreseen. Raises NoWalk."""
    pods, services = source.reading.pods, source.reading.services
    nodes = {node.name: str(node.address) for node in source.live.spec.nodes}
    ends = choose_endpoint(find_ends(pods, offer.source, offer.target, nodes=nodes, services=services), pods, nodes)
    return walk(_narrowed(source.live, ends.nodes), source.reading, ends)


def _narrowed(live: LiveLab, nodes: Sequence[str]) -> LiveLab:
    """The lab with these nodes alone: a walk looks at no other, and a large lab has very many expectations."""
    kept = tuple(node for node in live.spec.nodes if node.name in nodes)
    return replace(live, spec=live.spec.model_copy(update={"nodes": kept}))


def _live_walk(source: Source, offer: Offer) -> Walk:
    """A walk as `./lab walk` makes it, with a ping. Raises NoWalk."""
    return asyncio.run(walk_live(source.live, offer.source, offer.target)).walk


# --- as JSON ---------------------------------------------------------------------------------------------------------


def walk_json(source: Source, found: Walk) -> Json:
    """A walk with its hops. Its `state` is one of the expectations' states, or "stopped"."""
    stopped = found.stopped
    return {
        "source": found.source.id,
        "sourceNode": found.source.node,
        "sourceAddress": found.source.address,
        "target": found.title,
        "targetNode": found.target.node if found.target else "",
        "targetAddress": found.address,
        "endpoint": found.target.address if found.service and found.target else "",
        "ping": "" if source.foreseen else found.ping.seen or found.ping.difference,
        "state": _state(source, found),
        "stopped": f"{stopped.kind} of {stopped.node}" if stopped else "",
        "hops": [_hop_json(source, hop) for hop in found.hops],
    }


def _state(source: Source, found: Walk) -> str:
    if found.stopped is not None or found.ping.status == "failed":
        return "failed"
    return "foreseen" if source.foreseen else found.ping.status


def _hop_json(source: Source, hop: Hop) -> Json:
    whole = hop.to_json(source.stack)
    state: str = "not reached" if not hop.reached else hop.status
    if source.foreseen and state in ("passed", "unknown"):
        state = "foreseen"
    return {
        "direction": hop.direction,
        "kind": hop.kind,
        "node": hop.node,
        "where": hop.where,
        "device": hop.device,
        "sentence": hop.sentence,
        "state": state,
        "packet": whole["packet"],
        "checks": [_check_json(source, check) for check in hop.checks],
    }


def _check_json(source: Source, result: Result) -> Json:
    e = result.expectation
    found = {
        "state": source.state(result),
        "sentence": e.sentence,
        "command": command(source, result),
        "seen": result.seen,
        "because": e.because,
    }
    if result.status == "failed":
        found |= {"difference": result.difference, "cause": e.cause, "fix": e.fix.replace("STACK", source.stack)}
    return found
