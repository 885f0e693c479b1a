"""Which pods must run: of the lab's workloads, of Kubernetes, of Calico, of Multus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

from components.spec import models
from components.spec.placement import pod_count
from components.verify.model import Expectation, ObservedLab, Topic

Kind = Literal["Deployment", "DaemonSet", "Pod"]


class _Workload(NamedTuple):
    """`replicas`: how many pods must be Ready; None: as many as the API's object says, and one at least."""

    kind: Kind
    namespace: str
    name: str
    replicas: int | None
    because: str


def workloads(observed: ObservedLab) -> Iterator[Expectation]:
    """Every pod that must be there is Ready: first those that the others need."""
    spec = observed.spec
    for workload in (*_kubernetes(spec), *_calico(observed), *_multus(spec)):
        yield _ready(workload)
    for own in spec.workloads:
        replicas = pod_count(spec, own)
        yield _ready(_Workload(own.kind, own.namespace, own.name, replicas, f"workload {own.name} in the stack file"))


def _kubernetes(spec: models.Lab) -> Iterator[_Workload]:
    for node in spec.control_planes:
        for name in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"):
            because = f"kubelet of {node.name} runs it from /etc/kubernetes/manifests"
            yield _Workload("Pod", "kube-system", f"{name}-{node.name}", 1, because)
    yield _Workload("DaemonSet", "kube-system", "kube-proxy", len(spec.nodes), "every node has Services")
    yield _Workload("Deployment", "kube-system", "coredns", None, "pods look up names there; kubeadm makes two")


def _calico(observed: ObservedLab) -> Iterator[_Workload]:
    spec = observed.spec
    node = "Felix and BIRD of every node run in it"
    if spec.calico.install == "manifest":
        yield _Workload("DaemonSet", "kube-system", "calico-node", len(spec.nodes), node)
        yield _Workload("Deployment", "kube-system", "calico-kube-controllers", 1, "the manifest installs it")
        return
    made = "the operator installs it"
    yield _Workload("Deployment", "tigera-operator", "tigera-operator", 1, "it installs Calico and keeps it so")
    yield _Workload("DaemonSet", "calico-system", "calico-node", len(spec.nodes), node)
    yield _Workload("Deployment", "calico-system", "calico-typha", None, f"{made}; its number follows the nodes'")
    yield _Workload("Deployment", "calico-system", "calico-kube-controllers", 1, made)
    yield _Workload("DaemonSet", "calico-system", "csi-node-driver", None, made)
    # Its namespace depends on Calico's version.
    found = (pod.namespace for pod in observed.pods if pod.controller.endswith("/calico-apiserver"))
    because = "it serves projectcalico.org/v3"
    yield _Workload("Deployment", next(found, "calico-system"), "calico-apiserver", None, because)


def _multus(spec: models.Lab) -> Iterator[_Workload]:
    if spec.multus:
        because = "it puts Multus' plugin on every node"
        yield _Workload("DaemonSet", "kube-system", "kube-multus-ds", len(spec.nodes), because)


def _ready(workload: _Workload) -> Expectation:
    kind, namespace, name, replicas, because = workload
    what = f"{kind} {namespace}/{name}"
    pods = "all its pods" if replicas is None else f"{replicas} pod{'s'[: replicas != 1]}"
    return Expectation(
        topic=Topic.WORKLOAD,
        key=what,
        expected={"complete": "empty" if replicas == 0 else "yes"}
        | ({} if replicas is None else {"ready": str(replicas)}),
        sentence=f"{what} is Ready" if kind == "Pod" else f"{what} has {pods} Ready",
        command=f"kubectl -n {namespace} get {kind.lower()} {name}",
        because=because,
        cause="a pod is still starting, Kubernetes cannot start it for the reason that it gives, or somebody changed "
        "the number of pods",
        advice=f"kubectl -n {namespace} describe pods shows the events; a pod that is still starting needs time: "
        "`./lab verify STACK --wait 300`",
    )
