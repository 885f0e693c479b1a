"""From what a person types to the two ends of a walk."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import AddressValueError, IPv4Address
from typing import NamedTuple

from components.verify.model import Pod
from components.verify.walk.model import NoWalk


class Ends(NamedTuple):
    """Where a packet goes from and to. `target` None: the address is outside of the lab."""

    source: Pod
    target: Pod | None
    address: str

    @property
    def nodes(self) -> list[str]:
        """The nodes to read, the source's first."""
        return list(dict.fromkeys([self.source.node, *([self.target.node] if self.target else [])]))


def find_ends(pods: Sequence[Pod], source: str, target: str) -> Ends:
    """Two different pods, or a pod and an address. An address that a pod has is that pod. Raises NoWalk."""
    start = find_pod(pods, source)
    try:
        address = str(IPv4Address(target))
    except AddressValueError:
        end = find_pod(pods, target, other_than=start)
        if end.id == start.id:
            # A workload and one of its pods: any other pod of the workload may be the source.
            start = find_pod(pods, source, other_than=end)
        if end.id == start.id:
            raise NoWalk(f"{source} and {target} are one pod, {start.id}: name two") from None
        return Ends(start, end, end.address)
    return Ends(start, next((pod for pod in pods if pod.running and pod.address == address), None), address)


def find_pod(pods: Sequence[Pod], name: str, *, other_than: Pod | None = None) -> Pod:
    """A pod by [NAMESPACE/]NAME, or one of a workload's by the workload's name; @NODE chooses one on a node. Raises
    NoWalk. `other_than`: another pod is preferred, and one on another node."""
    wanted, _, node = name.partition("@")
    named = [pod for pod in pods if wanted in (pod.name, pod.id)] or [
        pod for pod in pods if pod.workload is not None and wanted in (pod.workload, f"{pod.namespace}/{pod.workload}")
    ]
    found = [pod for pod in named if not node or pod.node == node]
    if not found:
        known = ", ".join(sorted({p.workload for p in pods if p.running and p.workload})) or "none of the lab's"
        raise NoWalk(f"there is no pod {name}; pods with a network of their own: {known}, or NAMESPACE/NAME of any")
    candidates = [pod for pod in found if pod.running] or found
    if other_than is not None:
        candidates = [pod for pod in candidates if pod.id != other_than.id] or candidates
        candidates = [pod for pod in candidates if pod.node != other_than.node] or candidates
    pod = candidates[0]
    if pod.host_network:
        raise NoWalk(f"{pod.id} is on its node's network (hostNetwork): it has no path of its own to walk")
    if not pod.running:
        raise NoWalk(f"{pod.id} does not run (phase {pod.phase or 'unknown'}, address {pod.address or 'none'})")
    return pod
