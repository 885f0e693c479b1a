"""Where a fault is made, and what verify and walk must then report."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from components.verify.expect import expectations
from components.verify.expect.pod import route_for
from components.verify.expect.probes import Ping, pairs
from components.verify.faults.model import Fault, Refused, Symptoms, Target
from components.verify.faults.targets import pods
from components.verify.model import EntryKey, Expectation, ObservedLab, Pod, Topic


def aim(fault: Fault, lab: ObservedLab, node: str | None = None) -> Target:
    """The first place where one of verify's pings shows the fault, else the first place. Raises Refused."""
    names = [n.name for n in lab.spec.nodes]
    if node is not None and node not in names:
        raise Refused(f"--node {node}: there is no such node; there are: {', '.join(names)}")
    targets = [target for target in fault.targets(lab) if node in (None, target.node)]
    if not targets:
        where = f" on {node}" if node else ""
        raise Refused(f"{fault.id} finds nothing to break{where}: it needs a running pod of the lab, or a node's block")
    pinged = pairs(lab)
    return next((t for t in targets if any(_loses_ping(fault, lab, t, *pair) for pair in pinged)), targets[0])


def _loses_ping(fault: Fault, lab: ObservedLab, target: Target, source: Pod, destination: Pod) -> bool:
    """On its way out, or back."""
    return fault.cuts(lab, target, source, destination) or fault.cuts(lab, target, destination, source)


def symptoms(fault: Fault, lab: ObservedLab, target: Target, expected: Sequence[Expectation] | None = None) -> Symptoms:
    """What verify and walk must report while the fault is there. `expected`: all expectations of the lab, from a caller
    that asks about several places and makes them once."""
    broken = set(target.breaks)
    for source, destination in pairs(lab):
        if _loses_ping(fault, lab, target, source, destination):
            broken.add(EntryKey(Topic.PROBE, Ping(source.interface, destination.address).key, source.node))
    failed = tuple(e for e in expected or expectations(lab) if e.entry in broken)
    return Symptoms(failed, _example(fault, lab, target), fault.hop, target.node)


def _example(fault: Fault, lab: ObservedLab, target: Target) -> tuple[str, str] | None:
    """Two ends between which a walk shows the fault, on the way out if possible."""
    if fault.hop is None:
        return None
    own = list(pods(lab))
    cut = [(a, b) for a, b in product(own, own) if a.id != b.id and fault.cuts(lab, target, a, b)]
    # Where only one node has pods, two of these.
    lost = [(a, b) for a, b in cut if a.node != b.node] or cut
    lost = lost or [(a, b) for a, b in product(own, own) if a.node != b.node and fault.shown(lab, target, a, b)]
    if lost:
        # The hop is on the node of the one or of the other.
        end = 1 if fault.hop == "arrival" else 0
        source, destination = next((pair for pair in lost if pair[end].node == target.node), lost[0])
        return source.id, destination.id
    if target.pod is None or not (target.end or route_for(lab, target.pod, lab.outside).expected):
        return None
    return target.pod.id, target.end or lab.outside
