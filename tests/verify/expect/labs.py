"""Labs, and what verify expects of them as tables that a test can compare with a table written by hand.

The API's objects come from the sandbox's plan, which reads nothing from the expectations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from components.sandbox.objects import make_objects
from components.sandbox.plan import make_plan
from components.spec.load import load_stack_file
from components.spec.models import Lab
from components.verify.expect import expectations
from components.verify.model import Expectation, ObservedLab, Pod, Topic
from components.verify.read import facts
from components.verify.read.api import KINDS, Objects
from components.verify.services import service_ports

ROOT = Path(__file__).resolve().parents[3]
IMAGE = "docker.io/library/busybox:1.37"

Fields = Mapping[str, str] | None
"""The fields that an entry must have; None: there must be no such entry."""


@dataclass(frozen=True)
class Expected:
    """A lab and everything that is expected of it."""

    observed: ObservedLab
    all: Sequence[Expectation]

    def of(self, topic: Topic, node: str | None = None, pod: Pod | None = None) -> list[Expectation]:
        """The expectations of one topic: of a pod, of a node itself, or of the cluster."""
        place = (topic, pod.node if pod else node, pod.interface if pod else None)
        return [e for e in self.all if (e.topic, e.node, e.pod) == place]

    def rows(self, topic: Topic, node: str | None = None, pod: Pod | None = None) -> list[tuple[str, Fields]]:
        """Their keys and fields, in their order."""
        return [(e.key, fields(e)) for e in self.of(topic, node, pod)]

    def table(self, topic: Topic, node: str | None = None, pod: Pod | None = None) -> dict[str, Fields]:
        """Their fields by key. A key may be expected twice, but not with different fields."""
        found: dict[str, Fields] = {}
        for key, wanted in self.rows(topic, node, pod):
            assert found.setdefault(key, wanted) == wanted, f"{topic} {key}: {found[key]} and {wanted}"
        return found

    def one(self, topic: Topic, key: str, node: str | None = None, pod: Pod | None = None) -> Expectation:
        """The only expectation about an entry."""
        (found,) = (e for e in self.of(topic, node, pod) if e.key == key)
        return found

    def pod(self, workload: str, node: str) -> Pod:
        """The first pod of a workload on a node, whether it runs or not."""
        return next(pod for pod in self.observed.pods if (pod.workload, pod.node) == (workload, node))


def fields(expectation: Expectation) -> Fields:
    """Its fields as text: a range as FIRST-LAST, alternatives as ONE or OTHER."""
    wanted = expectation.expected
    return None if wanted is None else {key: str(value) for key, value in wanted.items()}


@cache
def shipped(stack: str) -> Expected:
    """What is expected of a lab in stacks/."""
    return expected(load_stack_file(ROOT / "stacks" / f"Pulumi.{stack}.yaml").lab)


def expected(
    lab: Lab, blocks: Mapping[str, Sequence[str]] | None = None, now: datetime | None = None, **changed: Any
) -> Expected:
    """What is expected of a lab that stands as its file says. `blocks`: by default as Calico would choose. `now`: when
    it was read. `changed`: fields of ObservedLab that are otherwise than the sandbox's plan has them."""
    plan = make_plan(lab, blocks=blocks)
    objects = make_objects(plan)
    read = Objects({kind: tuple(objects.get(path, ())) for kind, path in KINDS.items()})
    services = service_ports(read.of("services"), read.of("endpointslices"))
    cluster = facts.cluster(read, host_local=lab.calico.ipam == "HostLocal")
    observed = ObservedLab.of(lab, plan.blocks, cluster, facts.pods(read), {}, services, now)
    observed = replace(observed, **changed)
    return Expected(observed, expectations(observed))


def again(before: Expected, **changed: Any) -> Expected:
    """What is expected if some fields of the ObservedLab are others."""
    observed = replace(before.observed, **changed)
    return Expected(observed, expectations(observed))


NODES: list[dict[str, Any]] = [
    {"name": "control1", "role": "control-plane", "subnet": "control", "address": "10.0.1.20"},
    {"name": "worker1", "subnet": "workers", "address": "10.0.2.30"},
    {"name": "worker2", "subnet": "workers", "address": "10.0.2.31"},
]
"""Two nodes in one subnet, the third behind a router."""

BLOCKS = {"control1": ["10.244.0.0/26"], "worker1": ["10.244.0.64/26"], "worker2": ["10.244.0.128/26"]}
FIRST: dict[str, Any] = {"name": "first", "cidr": "10.244.0.0/20", "blockSize": 26}
SECOND: dict[str, Any] = {"name": "second", "cidr": "10.244.128.0/20", "blockSize": 26}
BOTH_BLOCKS = {
    "control1": ["10.244.0.0/26", "10.244.128.0/26"],
    "worker1": ["10.244.0.64/26", "10.244.128.64/26"],
    "worker2": ["10.244.0.128/26", "10.244.128.128/26"],
}
"""A block of each pool on each node."""

VXLAN_MAC = {"control1": "66:b8:59:27:60:4d", "worker1": "66:3c:05:84:20:98", "worker2": "66:54:bd:6c:19:2d"}
"""The letter f (66) and the first five bytes of SHA-1 of the node's name: `printf worker1 | sha1sum`."""


def document(*pools: Mapping[str, Any], **keys: Any) -> dict[str, Any]:
    """The key `lab` of a stack file: three nodes on EC2, where a link's MTU is 9001, and one pod on each. `keys`: those
    of a lab, such as `workloads`, and those of its `calico`."""
    own = {key: keys.pop(key) for key in set(keys) & set(Lab.model_fields)}
    return {
        "machines": {"provider": "aws", "operatorCidrs": ["203.0.113.7/32"]},
        "nodes": NODES,
        "calico": {"pools": list(pools) or [FIRST], **keys},
        "workloads": [{"name": "app", "image": IMAGE, "replicas": 3, "onControlPlane": True}],
        **own,
    }


def of(*pools: Mapping[str, Any], blocks: Mapping[str, Sequence[str]] = BLOCKS, **keys: Any) -> Expected:
    """What is expected of such a lab."""
    return expected(Lab.model_validate(document(*pools, **keys)), blocks)
