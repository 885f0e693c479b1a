"""What lessons are made of: the case, the commands to type, and the layers that every lost packet has in common."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from shlex import quote

from components.spec import addresses
from components.verify.exercise.model import Hint
from components.verify.expect import pod as expect_pod
from components.verify.faults.model import Symptoms, Target
from components.verify.model import ObservedLab, Pod


@dataclass(frozen=True)
class Case:
    """One fault at one place. `source`, `destination`: the two ends of a walk that shows it, as far as there are
    any."""

    lab: ObservedLab
    target: Target
    source: Pod | None
    destination: Pod | None

    @classmethod
    def of(cls, lab: ObservedLab, target: Target, wanted: Symptoms) -> Case:
        by_id = {pod.id: pod for pod in lab.pods}
        first, second = wanted.walk or ("", "")
        return cls(lab, target, by_id.get(first, target.pod), by_id.get(second))

    @property
    def node(self) -> str:
        return self.target.node


@dataclass(frozen=True)
class Lesson:
    """`level`: from 1, a look at one place, to 3, what no ping shows. `report` and `hints` of a case. `heals_soon`:
    Felix undoes it within minutes, so on a cluster there is no time to find it."""

    level: int
    report: Callable[[Case], str]
    hints: Callable[[Case], list[Hint]]
    heals_soon: bool = False

    def suits(self, case: Case) -> bool:
        """Whether there is a pod for the report to name, if it names one."""
        return case.source is not None or self.report not in (lost_pair, lost_outside)


# --- commands ---------------------------------------------------------------------------------------------------------


def ssh(node: str, line: str) -> str:
    return f"./lab ssh STACK {node} -- {quote(line)}"


def netns(pod: Pod) -> str:
    """The name of a pod's network namespace, as a part of a shell line on its node. CRI-O names it by a UUID."""
    return f'$(ip link show {pod.interface} | grep -oE "[0-9a-f-]{{36}}")'


def in_pod(pod: Pod, arguments: str) -> str:
    """`ip` inside a pod."""
    return ssh(pod.node, f"ip -n {netns(pod)} {arguments}")


# --- layers -----------------------------------------------------------------------------------------------------------


def pod_layer(pod: Pod) -> list[Hint]:
    # Without a packet there may be no entry to look at.
    found = f"ip netns exec {netns(pod)} ping -c 1 -W 1 {addresses.GATEWAY} >/dev/null; ip -n {netns(pod)} neigh"
    return [
        Hint(f"Begin in the pod: which next hop does {pod.id} use, and on which device?", in_pod(pod, "route")),
        Hint(f"Does it find its gateway? {addresses.GATEWAY} must be at ee:ee:ee:ee:ee:ee.", ssh(pod.node, found)),
    ]


def ends(case: Case) -> tuple[Pod, str]:
    """The sending pod and the address that it does not reach."""
    assert case.source is not None
    return case.source, case.destination.address if case.destination else case.lab.outside


def node_layer(node: str, address: str) -> list[Hint]:
    return [
        Hint(
            f"The pod is in order. Now {node}: by which device and next hop does it send to {address}?",
            ssh(node, f"ip route get {address}"),
        )
    ]


def way_out(case: Case) -> list[Hint]:
    """Pod and node of the sender, which are the first two layers of every lost ping."""
    source, address = ends(case)
    return [*pod_layer(source), *node_layer(source.node, address)]


def lost_pair(case: Case) -> str:
    source, address = ends(case)
    to = f"{case.destination.id} on {case.destination.node}" if case.destination else address
    return f"Since this morning {source.id} on {source.node} does not reach {to}. Nobody changed anything, they say."


def lost_outside(case: Case) -> str:
    source, _ = ends(case)
    return (
        f"Since this morning {source.id} on {source.node} reaches nothing outside the cluster. "
        "It does reach other pods of the cluster."
    )


def default_route_of(pod: Pod, case: Case) -> str:
    route = expect_pod.route_for(case.lab, pod, case.lab.outside).expected or {}
    return f"default via {route.get('via')} dev {route.get('dev')}"
