"""What several modules of expectations use: commands to type, and expectations inside a pod."""

from __future__ import annotations

from collections.abc import Mapping

from components.verify.model import Expectation, ObservedLab, Pod, Topic, Value

IN_A_SANDBOX = "`./lab mend STACK` undoes what `./lab break` did; `./lab sandbox STACK --rebuild` builds all of it anew"
"""How to repair a sandbox, in which there is no `up`, no kubectl exec and no Felix."""


def in_pod(pod: Pod) -> str:
    """Runs what follows in the pod. In a sandbox it is a command of the pod's node."""
    return f"ip netns exec {pod.netns}" if pod.netns else f"kubectl -n {pod.namespace} exec {pod.name} --"


def renew(pod: Pod) -> str:
    """Replaces the pod by a new one."""
    if pod.netns:
        return IN_A_SANDBOX
    return f"kubectl -n {pod.namespace} delete pod {pod.name}: its successor is set up from the start"


def restart_felix(observed: ObservedLab, node: str) -> str:
    """Restarts a node's calico-node, in which Felix and BIRD run."""
    namespace = "calico-system" if observed.spec.calico.install == "operator" else "kube-system"
    return (
        f"restart calico-node on {node}: kubectl -n {namespace} delete pod -l k8s-app=calico-node "
        f"--field-selector spec.nodeName={node}"
    )


def inside(
    pod: Pod,
    *,
    topic: Topic,
    key: str,
    expected: Mapping[str, Value] | None,
    sentence: str,
    command: str,
    because: str,
    cause: str,
) -> Expectation:
    """Something inside a pod. A pod that replaces it is set up again."""
    return Expectation(
        topic=topic,
        key=key,
        expected=expected,
        sentence=sentence,
        command=f"{in_pod(pod)} {command}",
        because=because,
        cause=cause,
        advice=renew(pod),
        node=pod.node,
        pod=pod.interface,
        about=pod.id,
    )
