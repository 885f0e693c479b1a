"""Labels, taints and selectors: every node has a pool, and every workload has a node."""

from __future__ import annotations

from collections.abc import Iterator

from components.spec.findings import Finding, shown
from components.spec.models import Lab, Node, Taint, Workload
from components.spec.placement import CONTROL_PLANE, nodes_for, nodes_selected_by, repelling, selected
from components.spec.rules.core import listed, rule


@rule("calico.pools[].nodeSelector", "calico.ipam", "nodes[].name", "nodes[].role", "nodes[].labels", each="nodes[]")
def every_node_has_a_pool(lab: Lab) -> Iterator[Finding]:
    """A node without a pool gets no block and no tunnel address, and starts no pod (projectcalico/calico#7440)."""
    if lab.calico.ipam == "HostLocal":
        return
    chosen = [selected(lab, pool.node_selector) for pool in lab.calico.pools]
    if None in chosen:
        return
    covered = {node.name for nodes in chosen for node in nodes or ()}
    for index, node in enumerate(lab.nodes):
        if node.name not in covered:
            selectors = listed([pool.node_selector for pool in lab.calico.pools if pool.node_selector != "!all()"])
            fix = f"give it labels that one of them selects ({selectors}), or add a pool for it"
            yield Finding(
                f"nodes[{index}]", node.name, "is not selected by any of calico.pools, so its pods get no address", fix
            )


@rule(
    "workloads[].nodeSelector",
    "workloads[].replicas",
    "workloads[].onControlPlane",
    "nodes[].name",
    "nodes[].role",
    "nodes[].labels",
    "nodes[].taints",
    each="workloads[]",
)
def every_workload_has_a_node(lab: Lab) -> Iterator[Finding]:
    for index, workload in enumerate(lab.workloads):
        if not workload.replicas or nodes_for(lab, workload):
            continue
        candidates = nodes_selected_by(lab, workload)
        if not candidates:
            wanted = ", ".join(f"{key}: {value}" for key, value in workload.node_selector.items())
            fix = "give a node these labels under nodes[].labels, or remove nodeSelector"
            key = f"workloads[{index}].nodeSelector"
            yield Finding(key, shown(wanted), "selects no node, so its pods never start", fix)
            continue
        taints = {taint: node for node in candidates for taint in repelling(node, workload)}
        words = listed([f"{node.name} has the taint {_as_text(taint)}" for taint, node in taints.items()])
        key = f"workloads[{index}].onControlPlane"
        problem = f"no node accepts its pods: {words}"
        yield Finding(key, shown(workload.on_control_plane), problem, _untaint(workload, candidates))


def _untaint(workload: Workload, candidates: tuple[Node, ...]) -> str:
    """What to change so that one of the candidates accepts the workload's pods."""
    if any({taint.key for taint in repelling(node, workload)} == {CONTROL_PLANE} for node in candidates):
        return "set onControlPlane: true, set taints: [] on the control plane, or add a worker"
    return "remove the taint from one of them, or add a node without it"


def _as_text(taint: Taint) -> str:
    """The taint as kubectl writes it: key=value:effect."""
    return f"{taint.key}{'=' if taint.value else ''}{taint.value}:{taint.effect}"


RULES = (every_node_has_a_pool, every_workload_has_a_node)
