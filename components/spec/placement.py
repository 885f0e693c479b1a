"""The nodes that a selector selects, and the nodes that accept a pod, by the lab's labels, taints and tolerations.

A node's labels are those in the stack file and those that every node gets from kubelet and kubeadm. The labels that
depend on the live node, e.g. its processor architecture, are unknown here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Final

from components.spec.grammar import selector
from components.spec.models import Lab, Node, Pool, Taint, Workload

CONTROL_PLANE: Final = "node-role.kubernetes.io/control-plane"
"""The label of a control plane, and the key of its taint (kubeadm)."""

POOLS_ANNOTATION: Final = "cni.projectcalico.org/ipv4pools"
"""A pod's annotation for calico-ipam: a JSON list of pools, by name or CIDR (Calico, "Use a specific IP pool")."""

_UNKNOWN: Final = {"kubernetes.io/arch", "beta.kubernetes.io/arch", "node.kubernetes.io/instance-type"}
_OWN_PREFIX: Final = "cni-lab/"


def node_labels(node: Node) -> Mapping[str, str]:
    """The labels of the Node that are known from the stack file."""
    found = {"kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux", "beta.kubernetes.io/os": "linux"}
    if node.role == "control-plane":
        found |= {CONTROL_PLANE: "", "node.kubernetes.io/exclude-from-external-load-balancers": ""}
    return found | node.labels


def node_taints(node: Node) -> tuple[Taint, ...]:
    """The taints of the Node. Without `taints`, kubeadm taints a control plane; with an empty list it does not."""
    if node.taints is not None:
        return node.taints
    return (Taint(key=CONTROL_PLANE, effect="NoSchedule"),) if node.role == "control-plane" else ()


def selected(lab: Lab, text: str) -> tuple[Node, ...] | None:
    """The nodes that a selector of Calico selects. None if that depends on labels that are unknown here.

    Also None for an invalid selector, which has a rule of its own.
    """
    try:
        parsed = selector.parse(text)
    except selector.SelectorError:
        return None
    if any(map(_is_unknown, parsed.labels)):
        return None
    return tuple(node for node in lab.nodes if parsed.selects(node_labels(node)))


def perhaps_selected(lab: Lab, text: str) -> tuple[Node, ...]:
    """The nodes that a selector of Calico may select: all of them where `selected` cannot tell."""
    nodes = selected(lab, text)
    return lab.nodes if nodes is None else nodes


def nodes_for(lab: Lab, workload: Workload) -> tuple[Node, ...]:
    """The nodes that accept the workload's pods. Every node counts as having an unknown label."""
    return tuple(node for node in nodes_selected_by(lab, workload) if not repelling(node, workload))


def pod_count(lab: Lab, workload: Workload) -> int:
    """The number of the workload's pods."""
    match workload.kind:
        case "DaemonSet":
            return len(nodes_for(lab, workload))
        case "Pod":
            return 1
    return workload.replicas


def is_on_each(lab: Lab, workload: Workload, nodes: Iterable[Node]) -> bool:
    """Whether each of the nodes has a pod of the workload. A Deployment's pods are spread over the nodes evenly."""
    taken = nodes_for(lab, workload)
    return pod_count(lab, workload) >= len(taken) and {n.name for n in nodes} <= {n.name for n in taken}


def pools_for(lab: Lab, workload: Workload) -> tuple[Pool, ...]:
    """The pools from which calico-ipam gives the workload's pods their addresses: those that an annotation names, else
    all. Pools that do not exist are left out, and an annotation that is no list counts as none."""
    text = workload.annotations.get(POOLS_ANNOTATION)
    try:
        wanted = json.loads(text) if text is not None else None
    except ValueError:
        wanted = None
    if not isinstance(wanted, list):
        return lab.calico.pools
    return tuple(pool for pool in lab.calico.pools if pool.name in wanted or str(pool.cidr) in wanted)


def nodes_selected_by(lab: Lab, workload: Workload) -> tuple[Node, ...]:
    """The nodes that have every label of the workload's nodeSelector, regardless of their taints."""
    wanted = {key: value for key, value in workload.node_selector.items() if not _is_unknown(key)}
    return tuple(node for node in lab.nodes if wanted.items() <= node_labels(node).items())


def repelling(node: Node, workload: Workload) -> tuple[Taint, ...]:
    """The node's taints that keep the workload's pods away."""
    return tuple(
        taint for taint in node_taints(node) if taint.effect != "PreferNoSchedule" and not _tolerates(workload, taint)
    )


def _tolerates(workload: Workload, taint: Taint) -> bool:
    return workload.on_control_plane and (taint.key, taint.effect) == (CONTROL_PLANE, "NoSchedule")


def _is_unknown(label: str) -> bool:
    return label in _UNKNOWN or label.startswith(_OWN_PREFIX)
