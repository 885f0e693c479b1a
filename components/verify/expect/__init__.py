"""What must be true of a live lab, as data. Nothing here reads a machine.

Everything follows from the stack file, from the blocks that the nodes hold, and from what the API says of tunnel
addresses and pods. Even the MAC address of vxlan.calico follows from its node's name, so no node has to be asked about
another.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from components.spec import models
from components.verify.expect.cluster import cluster
from components.verify.expect.datapath import datapath
from components.verify.expect.egress import forwarding
from components.verify.expect.multus import files
from components.verify.expect.node import node as node_itself
from components.verify.expect.node import source_dest_check
from components.verify.expect.pod import pod as pod_of
from components.verify.expect.probes import probes
from components.verify.expect.services import have_endpoints, rules
from components.verify.expect.shared import IN_A_SANDBOX
from components.verify.expect.workloads import workloads
from components.verify.model import EntryKey, Expectation, ObservedLab, Topic


def expectations(observed: ObservedLab) -> list[Expectation]:
    """All of a lab's, in the order in which they are best read: the cluster's, then node by node and pod by pod."""
    spec = observed.spec
    found = [*cluster(observed), *workloads(observed), *have_endpoints(observed)]
    for node in spec.nodes:
        found += [*node_itself(observed, node), *datapath(observed, node), *rules(observed, node)]
        if spec.multus:
            found += files(observed, node, spec.multus)
        found += forwarding(observed, node.name)
        for pod in observed.running(node.name):
            found += pod_of(observed, pod)
        found += _not_checked(observed, node.name)
        if isinstance(spec.machines, models.AwsMachines):
            found.append(source_dest_check(node))
    found = [*found, *_not_checked(observed, ""), *probes(observed)]
    return [_in_sandbox(e) for e in found] if observed.sandbox else found


def _in_sandbox(e: Expectation) -> Expectation:
    """The same with a fix that can be done in a sandbox. What a ping advises, a walk, can be."""
    return e if e.topic is Topic.PROBE else replace(e, repair=None, advice=IN_A_SANDBOX)


def _not_checked(observed: ObservedLab, node: str) -> Iterator[Expectation]:
    """What must be true of a node's pods once they run. It cannot be read before."""
    for pod in observed.starting(node):
        for expectation in pod_of(observed, pod):
            yield replace(expectation, unread=f"{pod.id} does not run: {pod.problem}")


def by_entry(found: Iterable[Expectation]) -> Mapping[EntryKey, Expectation]:
    """Expectations by the entry that they are about; of several (two routes to one destination) the first."""
    known: dict[EntryKey, Expectation] = {}
    for expectation in found:
        known.setdefault(expectation.entry, expectation)
    return known
