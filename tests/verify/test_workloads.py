"""Every pod that must be there: what verify says of one that is missing, waits, crashes, or finds no node."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from components.sandbox.objects import make_objects
from components.sandbox.plan import make_plan
from components.spec.models import Lab
from components.verify.expect import expectations
from components.verify.model import NodeFacts, ObservedLab, Result, Scope, Topic
from components.verify.read import facts
from components.verify.read.api import KINDS, Objects
from components.verify.read.reading import Reading
from components.verify.read.workloads import problem
from components.verify.report import compare
from tests.verify import replica_labs as labs

Json = dict[str, Any]
NODE = "ip-10-0-2-200"
CNI = (
    "Failed to create pod sandbox: rpc error: code = Unknown desc = failed to create pod network sandbox: error adding "
    'pod to CNI network "multus-cni-network": plugin type="multus" failed (add): no such file'
)


class Cluster:
    """What the API of a lab has. A test changes it, and asks for the results."""

    def __init__(self, lab: Lab = labs.EGRESS) -> None:
        self.lab, self.plan = lab, make_plan(lab)
        self.objects: dict[str, Any] = make_objects(self.plan)
        self.missing: dict[str, str] = {}

    @property
    def pods(self) -> list[Json]:
        found: list[Json] = self.objects["/api/v1/pods"]
        return found

    def pod(self, prefix: str, node: str | None = None) -> Json:
        return next(
            pod
            for pod in self.pods
            if pod["metadata"]["name"].startswith(prefix) and node in (None, pod["spec"].get("nodeName"))
        )

    def results(self) -> list[Result]:
        read = Objects(
            {k: tuple(self.objects.get(path, ())) for k, path in KINDS.items() if k not in self.missing}, self.missing
        )
        cluster, pods = facts.cluster(read), facts.pods(read)
        nodes = {node.name: NodeFacts() for node in self.lab.nodes}
        of = ObservedLab.of(self.lab, self.plan.blocks, cluster, pods, nodes)
        return compare(expectations(of), Reading(cluster, pods, nodes))

    def failed(self) -> dict[str, str]:
        """Of the workloads and nodes: key → why it failed or is unknown."""
        found = [r for r in self.results() if r.expectation.topic in (Topic.WORKLOAD, Topic.NODE)]
        return {r.expectation.key: f"{r.status}: {r.difference}" for r in found if r.status != "passed"}


def waits(pod: Json, reason: str = "", message: str = "", **more: Any) -> None:
    """The pod has a node and an address is still to come; its container waits."""
    status = pod["status"]
    status["phase"] = "Pending"
    for key in ("podIP", "podIPs"):
        status.pop(key, None)
    for condition in status["conditions"]:
        condition["status"] = "True" if condition["type"] in ("Initialized", "PodScheduled") else "False"
    status["containerStatuses"][0] |= {
        "ready": False,
        "state": {"waiting": {"reason": reason, "message": message}},
    } | more


def unscheduled(pod: Json, message: str) -> None:
    waits(pod)
    del pod["spec"]["nodeName"], pod["status"]["containerStatuses"]
    condition = next(it for it in pod["status"]["conditions"] if it["type"] == "PodScheduled")
    condition |= {"status": "False", "reason": "Unschedulable", "message": message}


def warning(cluster: Cluster, pod: Json, reason: str, message: str, at: str = "2026-11-25T21:00:00Z") -> None:
    metadata = pod["metadata"]
    cluster.objects["/api/v1/events"].append(
        {
            "metadata": {"name": f"{metadata['name']}.{reason}", "namespace": metadata["namespace"]},
            "involvedObject": {"kind": "Pod", "name": metadata["name"], "namespace": metadata["namespace"]},
            "type": "Warning",
            "reason": reason,
            "message": message,
            "lastTimestamp": at,
        }
    )


@pytest.mark.parametrize("lab", [labs.EGRESS, labs.VXLAN, labs.MIXED, labs.IPIP])
def test_in_an_intact_cluster_all_are_ready(lab: Lab) -> None:
    cluster = Cluster(lab)
    assert cluster.failed() == {}
    keys = {r.expectation.key for r in cluster.results() if r.expectation.topic == Topic.WORKLOAD}
    assert {"DaemonSet kube-system/kube-proxy", "Deployment kube-system/coredns"} <= keys
    assert ("DaemonSet kube-system/kube-multus-ds" in keys) == (lab.multus is not None)
    assert {f"{w.kind} {w.namespace}/{w.name}" for w in lab.workloads} <= keys


def test_calico_by_manifest_has_other_pods_than_by_the_operator() -> None:
    by_operator = {"Deployment tigera-operator/tigera-operator", "Deployment calico-system/calico-typha"}
    calico = labs.VXLAN.calico
    for install in ("operator", "manifest"):
        cluster = Cluster(labs.VXLAN.model_copy(update={"calico": calico.model_copy(update={"install": install})}))
        assert cluster.failed() == {}
        keys = {r.expectation.key for r in cluster.results()}
        assert (by_operator <= keys) == (install == "operator")
        namespace = "calico-system" if install == "operator" else "kube-system"
        assert f"DaemonSet {namespace}/calico-node" in keys


@pytest.mark.parametrize("lab", [labs.EGRESS, labs.MIXED, labs.IPIP])
def test_every_controller_of_the_cluster_is_expected_by_name(lab: Lab) -> None:
    """The sandbox has those of a real cluster; read on one of Calico 3.32.1."""
    cluster = Cluster(lab)
    keys = {r.expectation.key for r in cluster.results()}
    for kind in ("DaemonSet", "Deployment"):
        for item in cluster.objects[f"/apis/apps/v1/{kind.lower()}s"]:
            assert f"{kind} {item['metadata']['namespace']}/{item['metadata']['name']}" in keys


@pytest.mark.parametrize(
    ("key", "prefix"),
    [
        ("DaemonSet calico-system/calico-node", "calico-node-"),
        ("DaemonSet kube-system/kube-multus-ds", "kube-multus-ds-"),
        ("DaemonSet kube-system/kube-proxy", "kube-proxy-"),
        ("Deployment kube-system/coredns", "coredns-"),
        ("Deployment calico-system/calico-typha", "calico-typha-"),
        ("Deployment calico-system/calico-kube-controllers", "calico-kube-controllers-"),
        ("Deployment calico-system/calico-apiserver", "calico-apiserver-"),
        ("DaemonSet calico-system/csi-node-driver", "csi-node-driver-"),
        ("Deployment tigera-operator/tigera-operator", "tigera-operator-"),
        ("Deployment default/normal", "normal-"),
        ("Pod kube-system/etcd-ip1001100", "etcd-"),
    ],
)
def test_a_pod_that_is_missing_and_one_whose_image_does_not_come(key: str, prefix: str) -> None:
    cluster = Cluster()
    cluster.pods.remove(cluster.pod(prefix))
    assert list(cluster.failed()) == [key]
    cluster = Cluster()
    pod = cluster.pod(prefix)
    waits(pod, "ErrImagePull", "reading manifest 1.37 in registry.invalid:\n no such host")
    [(failed, why)] = cluster.failed().items()
    assert failed == key and why.startswith("failed: ")
    assert f"{pod['metadata']['name']} on {pod['spec']['nodeName']}: container" in why
    assert "ErrImagePull: reading manifest 1.37 in registry.invalid: no such host" in why


def test_a_controller_that_is_gone() -> None:
    cluster = Cluster()
    cluster.objects["/apis/apps/v1/daemonsets"].clear()
    assert set(cluster.failed().values()) == {"failed: it is not there"} and len(cluster.failed()) == 4


TAINTED = "0/3 nodes are available: 3 node(s) had untolerated taint(s) {node.kubernetes.io/disk-pressure: }"
CRASHED = {
    "lastState": {"terminated": {"exitCode": 1, "reason": "Error", "message": "cannot\n bind"}},
    "restartCount": 7,
}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param(lambda c, p: unscheduled(p, TAINTED), f"no node takes it: {TAINTED}", id="taints"),
        pytest.param(
            lambda c, p: waits(p, "CrashLoopBackOff", "back-off 5m0s", **CRASHED),
            "CrashLoopBackOff: back-off 5m0s; its last run ended with status 1 (Error): cannot bind; restarts: 7",
            id="crash loop",
        ),
        pytest.param(
            lambda c, p: waits(p, "CreateContainerConfigError", 'secret "x" not found'),
            'CreateContainerConfigError: secret "x" not found',
            id="configuration",
        ),
        pytest.param(
            lambda c, p: (waits(p, "ContainerCreating"), warning(c, p, "FailedCreatePodSandBox", CNI)),
            f"ContainerCreating; FailedCreatePodSandBox: {CNI}",
            id="CNI",
        ),
        pytest.param(
            lambda c, p: p["metadata"].update(deletionTimestamp="2026-11-25T21:00:00Z"), "2 of 3", id="deleted"
        ),
    ],
)
def test_the_reason_that_kubernetes_gives(change: Callable[[Cluster, Json], None], says: str) -> None:
    cluster = Cluster()
    change(cluster, cluster.pod("normal-", NODE))
    [(key, why)] = cluster.failed().items()
    assert key == "Deployment default/normal" and why.startswith("failed: 2 of 3 Ready") and says in why


def test_of_several_events_the_last_counts_and_what_the_status_says_is_not_repeated() -> None:
    cluster = Cluster()
    pod = cluster.pod("calico-node-", NODE)
    pod["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
    pod["status"]["containerStatuses"][0]["ready"] = False
    warning(cluster, pod, "Unhealthy", "Readiness probe failed: BIRD is not ready", at="2026-11-25T21:00:09Z")
    warning(cluster, pod, "Unhealthy", "Readiness probe failed: calico/node is not ready", at="2026-11-25T21:00:02Z")
    warning(cluster, pod, "BackOff", "Back-off restarting failed container", at="2026-11-25T21:00:10Z")
    [why] = cluster.failed().values()
    assert why.endswith("it runs, and is not ready; Unhealthy: Readiness probe failed: BIRD is not ready")


def test_evicted_pods_are_counted_and_pressure_is_named() -> None:
    cluster = Cluster()
    operator = cluster.pod("tigera-operator-")
    said = "The node was low on resource: ephemeral-storage."
    for number in range(2000):
        metadata = operator["metadata"] | {"name": f"{operator['metadata']['name']}{number}"}
        status = {"phase": "Failed", "reason": "Evicted", "message": said}
        cluster.pods.append(operator | {"metadata": metadata, "status": status})
    assert cluster.failed() == {}, "they were replaced"
    waits(operator, "ContainerCreating")
    node = next(it for it in cluster.objects["/api/v1/nodes"] if it["metadata"]["name"] == "ip1001100")
    for condition in node["status"]["conditions"]:
        if condition["type"] == "DiskPressure":
            condition |= {"status": "True", "reason": "KubeletHasDiskPressure", "message": "kubelet has disk pressure"}
    found = cluster.failed()
    assert found["Deployment tigera-operator/tigera-operator"].endswith(f"; 2000 more ended as Evicted: {said}")
    assert found["ip1001100"] == "failed: DiskPressure is True: KubeletHasDiskPressure: kubelet has disk pressure"


def test_a_rollout_that_is_stuck_beside_the_old_pods() -> None:
    """All replicas are Ready, and one pod more waits."""
    cluster = Cluster()
    old = cluster.pod("normal-", NODE)
    new: Json = deepcopy(old)
    new["metadata"]["name"] = "normal-new-1"
    waits(new, "ImagePullBackOff", "Back-off pulling image")
    cluster.pods.append(new)
    [why] = cluster.failed().values()
    assert "3 of 3 Ready; default/normal-new-1 on ip-10-0-2-200: container normal: ImagePullBackOff" in why


def test_a_number_that_somebody_changed() -> None:
    cluster = Cluster()
    cluster.pods.remove(cluster.pod("normal-", NODE))
    deployment = next(it for it in cluster.objects["/apis/apps/v1/deployments"] if it["metadata"]["name"] == "normal")
    deployment["spec"]["replicas"] = 2
    assert cluster.failed() == {"Deployment default/normal": "failed: ready is 2, expected 3"}
    deployment["spec"]["replicas"] = 3
    refused = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: pods"}
    deployment["status"]["conditions"] = [refused]
    [why] = cluster.failed().values()
    assert why == "failed: 2 of 3 Ready; FailedCreate: exceeded quota: pods"


def test_a_deployment_of_no_pods() -> None:
    """It is there, and it is as it must be until it asks for a pod or is gone."""
    normal, *others = labs.EGRESS.workloads
    cluster = Cluster(
        labs.EGRESS.model_copy(update={"workloads": (normal.model_copy(update={"replicas": 0}), *others)})
    )
    assert cluster.failed() == {}
    deployments = cluster.objects["/apis/apps/v1/deployments"]
    deployment = next(it for it in deployments if it["metadata"]["name"] == "normal")
    deployment["spec"]["replicas"] = 1
    assert cluster.failed() == {"Deployment default/normal": "failed: 0 of 1 Ready"}
    deployments.remove(deployment)
    assert cluster.failed() == {"Deployment default/normal": "failed: it is not there"}


def test_a_deployment_that_somebody_emptied() -> None:
    cluster = Cluster()
    cluster.objects["/api/v1/pods"] = [p for p in cluster.pods if not p["metadata"]["name"].startswith("coredns-")]
    deployments = cluster.objects["/apis/apps/v1/deployments"]
    next(it for it in deployments if it["metadata"]["name"] == "coredns")["spec"]["replicas"] = 0
    assert cluster.failed() == {"Deployment kube-system/coredns": "failed: 0 of 0 Ready"}


def test_without_the_lists_nothing_is_claimed() -> None:
    cluster = Cluster()
    cluster.missing = {"daemonsets": "/apis/apps/v1/daemonsets: HTTP 403"}
    assert set(cluster.failed().values()) == {"unknown: /apis/apps/v1/daemonsets: HTTP 403"}


@pytest.mark.parametrize("has_node", [True, False])
def test_the_checks_of_a_pod_that_does_not_run_are_unknown_with_its_reason(has_node: bool) -> None:
    """As many as before, but for those that follow from its address."""
    cluster = Cluster()
    before = [r for r in cluster.results() if "default/egress-" in r.expectation.id]
    pod = cluster.pod("egress-", NODE)
    name = f"default/{pod['metadata']['name']}"
    if has_node:
        waits(pod, "ErrImagePull", "no such host")
        why = f"{name} does not run: container egress: ErrImagePull: no such host"
    else:
        unscheduled(pod, TAINTED)
        why = f"{name} does not run: no node takes it: {TAINTED}"
    results = cluster.results()
    now = {r.expectation.entry: r for r in results if name in r.expectation.id or name in r.expectation.key}
    mine = {r.expectation.entry for r in before if name in r.expectation.id or name in r.expectation.key}
    lost = {entry.topic for entry in mine - set(now)} if has_node else set()
    assert lost <= {Topic.ROUTE, Topic.ADDRESS, Topic.PROBE}
    assert len(now) >= len(mine) - 4
    assert {(r.status, r.difference) for r in now.values()} == {("unknown", why)}
    assert {Topic.LINK, Topic.ROUTE, Topic.PROXY_ARP, Topic.STATUS} <= {entry.topic for entry in now}


def test_a_node_none_of_whose_pods_run_keeps_its_ping() -> None:
    cluster = Cluster(labs.VXLAN)
    for pod in cluster.pods:
        if pod["spec"]["nodeName"] == "worker2" and pod["metadata"]["labels"].get("app"):
            waits(pod, "ContainerCreating")
    pings = [r for r in cluster.results() if r.expectation.topic == Topic.PROBE]
    of_worker2 = [r for r in pings if r.expectation.node == "worker2"]
    assert [r.status for r in of_worker2] == ["unknown"] and "ContainerCreating" in of_worker2[0].difference
    assert len(pings) == 3


@pytest.mark.parametrize(
    "pod", [{}, {"metadata": {}, "status": {}}, {"status": {"phase": "Pending"}}, {"metadata": None, "status": None}]
)
def test_a_pod_of_which_the_api_says_little(pod: Json) -> None:
    assert problem(pod, {}) == "kubelet has not started it yet"


def test_an_api_that_does_not_answer_leaves_the_workloads_unknown() -> None:
    reading = Reading(Scope(unread=dict.fromkeys(facts.CLUSTER_TOPICS, "no answer")), [])
    of = ObservedLab.of(labs.VXLAN, {}, reading.cluster, [], {})
    found = [r for r in compare(expectations(of), reading) if r.expectation.topic == Topic.WORKLOAD]
    assert found and {(r.status, r.difference) for r in found} == {("unknown", "no answer")}
