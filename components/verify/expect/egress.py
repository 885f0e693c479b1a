"""Pods that are the gateway of other pods on their node's bridge: what they need to forward packets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from components.spec import models
from components.spec.gateways import Firewall, firewalls, firewalls_of
from components.verify.expect.shared import in_pod, renew
from components.verify.model import Expectation, ObservedLab, Pod, Topic
from components.verify.read.filters import FORWARDED


def firewall_pods(spec: models.Lab, pods: Sequence[Pod], node: str) -> list[Pod]:
    """The running pods of a node that are the gateway of others."""
    names = {(firewall.workload.name, firewall.workload.namespace) for firewall in firewalls(spec)}
    return [pod for pod in pods if pod.node == node and pod.running and (pod.workload, pod.namespace) in names]


def firewall_of(observed: ObservedLab, pod: Pod) -> tuple[Firewall, Pod | None] | None:
    """The firewall that has the gateway of a pod's default route, and its pod on the same node, if one runs there. None
    if the pod's gateway is no pod."""
    workload = observed.workload_of(pod)
    found = firewalls_of(observed.spec, workload) if workload is not None else []
    for firewall in found:
        mine = (firewall.workload.name, firewall.workload.namespace)
        for other in observed.running(pod.node):
            if (other.workload, other.namespace) == mine:
                return firewall, other
    return (found[0], None) if found else None


def by_name(observed: ObservedLab, pods: Iterable[Pod]) -> list[Pod]:
    """Pods by namespace and name, the firewalls last: a firewall has a path of its own."""
    names = {(firewall.workload.name, firewall.workload.namespace) for firewall in firewalls(observed.spec)}
    return sorted(pods, key=lambda pod: ((pod.workload, pod.namespace) in names, pod.namespace, pod.name))


def users(observed: ObservedLab, node: str) -> list[Pod]:
    """The running pods of a node whose default route leads through a firewall."""
    found = [pod for pod in observed.running(node) if firewall_of(observed, pod) is not None]
    return sorted(found, key=lambda pod: (pod.namespace, pod.name))


def forwarding(observed: ObservedLab, node: str) -> Iterator[Expectation]:
    """What every firewall of a node must have, beside its interfaces."""
    for pod in firewall_pods(observed.spec, observed.pods, node):
        yield Expectation(
            topic=Topic.IP_FORWARD,
            key="all",
            expected={"value": "1"},
            sentence=f"{pod.id} forwards packets",
            command=f"{in_pod(pod)} cat /proc/sys/net/ipv4/ip_forward",
            because="it is the gateway of other pods; calico.containerIPForwarding lets its pods forward",
            cause="the pod is older than that setting",
            advice=renew(pod),
            node=node,
            pod=pod.interface,
            about=pod.id,
        )
        yield Expectation(
            topic=Topic.FILTER,
            key=FORWARDED,
            expected=None,
            sentence=f"no packet filter of {pod.id} drops all that it forwards",
            command=f"{in_pod(pod)} nft list ruleset",
            because="it is the gateway of other pods, whose packets it must let through",
            cause="a rule drops every forwarded packet: the pods behind it reach nothing outside",
            advice=f"if `./lab break` did it: `./lab mend STACK`; else {renew(pod)}",
            node=node,
            pod=pod.interface,
            about=pod.id,
        )
