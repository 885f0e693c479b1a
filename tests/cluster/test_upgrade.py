"""A change of `kubernetes.version`: what changes in the graph, and in which order."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest

from tests.support.graphs import COMMAND, STEP, Graph, connections, differences, run_lab

NODES = ("cp1", "cp2", "cp3", "w1", "w2")


def lab(version: str, provider: str = "local", nodes: tuple[str, ...] = NODES, **kubernetes: Any) -> dict[str, Any]:
    return {
        "machines": {"provider": provider} | ({"operatorCidrs": ["203.0.113.7/32"]} if provider == "aws" else {}),
        "nodes": [
            {
                "name": name,
                "role": "control-plane" if name.startswith("cp") else "worker",
                "subnet": "workers",
                "address": f"10.0.2.{10 + NODES.index(name)}",
            }
            for name in nodes
        ],
        "kubernetes": {"version": version} | kubernetes,
    }


def graph(version: str, provider: str = "local") -> Graph:
    return run_lab(lab(version, provider))


def steps_of(names: set[str]) -> set[str]:
    """`NODE PHASE` of the cluster's steps among these resources. A step and its command have the same name."""
    return {" ".join(name.removeprefix("lab-cluster-").rsplit("-", 1)) for name in names if "-cluster-" in name}


def new_in(change: tuple[str, str]) -> set[str]:
    """The objects that the new minor brings: Kubernetes 1.36 is the first with a MutatingAdmissionPolicy of v1."""
    return set() if change[0].startswith("1.36.") else {"lab-calico-probes", "lab-calico-probes-binding"}


@pytest.mark.parametrize("provider", ["local", "aws"])
@pytest.mark.parametrize("change", [("1.36.2", "1.36.3"), ("1.35.4", "1.36.3")])
def test_only_what_depends_on_the_version_changes(provider: str, change: tuple[str, str]) -> None:
    before, after = (graph(version, provider) for version in change)
    added, removed, changed = differences(before, after)
    assert added == new_in(change) and not removed
    prepared = {f"{node} prepare" for node in NODES[1:]}
    upgraded = {f"{node} upgrade" for node in NODES[1:]} | {"w1 drain", "w2 drain"}
    assert steps_of(changed) == {"cp1 init"} | prepared | upgraded
    assert len(changed) == len(steps_of(changed)), "no machine and no object changes"


@pytest.mark.parametrize("change", [("1.36.2", "1.36.3"), ("1.35.4", "1.36.3")])
def test_nothing_is_replaced(change: tuple[str, str]) -> None:
    """Nothing that would replace a command changes, and no dependency changes."""
    before, after = map(graph, change)
    for command in before.of_type(COMMAND):
        same = after.by_urn[command.urn]
        assert same.inputs.get("triggers") == command.inputs.get("triggers"), command.name
        assert same.inputs["connection"] == command.inputs["connection"], command.name
    new = {r.urn for r in after.deployment.resources if r.name in new_in(change)}
    assert {r.urn: set(r.dependencies) for r in before.deployment.resources} == {
        r.urn: set(r.dependencies) - new for r in after.deployment.resources if r.urn not in new
    }
    first = after.step("cp1", "init")
    assert all(after.waits(after.by_urn[urn], first) for urn in new), "an older API server does not know their kind"


def test_nodes_are_upgraded_one_after_the_other() -> None:
    """The first control plane, the further ones, then each worker, which the first control plane drains before."""
    plan = graph("1.36.3")
    drains = {s.inputs["variables"]["DRAINED"]: s for s in plan.of_type(STEP) if s.inputs["phase"] == "drain"}
    assert set(drains) == {"w1", "w2"} and {s.inputs["node"] for s in drains.values()} == {"cp1"}
    order = [
        plan.step("cp1", "init"),
        plan.step("cp2", "upgrade"),
        plan.step("cp3", "upgrade"),
        plan.command(drains["w1"]),
        plan.step("w1", "upgrade"),
        plan.command(drains["w2"]),
        plan.step("w2", "upgrade"),
    ]
    for earlier, later in itertools.pairwise(order):
        assert plan.waits(later, earlier), f"{later.name} after {earlier.name}"


def test_order_on_a_node() -> None:
    up = run_lab(lab("1.36.3"), dry_run=False)
    programs = {
        (s.inputs["node"], s.inputs["phase"]): up.plain[up.command(s).urn]["stdin"].splitlines()
        for s in up.of_type(STEP)
    }
    ran = {key: [line for line in lines if re.fullmatch(r"log [a-z-]+\.sh", line)] for key, lines in programs.items()}
    upgrade = ["log upgrade-kubeadm.sh", "log drain.sh", "log upgrade-kubelet.sh"]
    assert ran["cp1", "init"] == ["log prepare.sh", "log init.sh", "log labels.sh", *upgrade]
    assert ran["cp2", "upgrade"] == upgrade
    for (_, phase), lines in programs.items():
        assert lines[-2:] == [f"log '{phase} is done'", "} </dev/null"], "an init must not end as upgrade-kubelet.sh"
    assert ran["w1", "upgrade"] == [upgrade[0], upgrade[2]]
    assert "PART=apply" in programs["cp1", "init"] and "DRAINED=cp1" in programs["cp1", "init"]
    assert "PART=node" in programs["cp2", "upgrade"] and "DRAINED=cp2" in programs["cp2", "upgrade"]


def test_no_node_joins_before_its_upgrade_step() -> None:
    """So a changed version reaches every node of the cluster, and no kubelet joins that is newer than the API."""
    plan = graph("1.36.3")
    for node in NODES[1:]:
        assert plan.waits(plan.step(node, "join"), plan.step(node, "upgrade"))
        assert not plan.waits(plan.step(node, "upgrade"), plan.step(node, "prepare"))


def test_a_first_up_needs_no_connection_for_upgrades() -> None:
    plan = graph("1.36.3")
    phases = {s.inputs["phase"] for s in plan.of_type(STEP) if plan.command(s) in connections(plan)}
    assert not phases & {"upgrade", "drain"}
    for step in plan.of_type(STEP):
        command = plan.command(step)
        late = step.inputs["phase"] in ("upgrade", "drain")
        assert (command.inputs.get("create") is None, "update" in command.inputs) == (late, late), step.name
        assert step.inputs.get("forChanges", False) == late


def test_joins_wait_for_no_other_node_on_a_first_up() -> None:
    plan = graph("1.36.3")
    ran = connections(plan)
    behind = {c.name for c in ran if plan.waits(plan.step("w2", "join"), c)}
    assert behind == {"lab-cluster-cp1-init", "lab-cluster-w2-prepare", "lab-cluster-w2-admit"}


def test_an_added_worker_changes_no_other_upgrade() -> None:
    before = run_lab(lab("1.36.3", nodes=NODES[:-1]))
    added, removed, changed = differences(before, graph("1.36.3"))
    assert {"lab-cluster-w2-drain", "lab-cluster-w2-upgrade"} <= added and not removed
    assert not {name for name in changed if name.endswith(("-upgrade", "-drain"))}


def test_a_removed_worker_changes_no_other_upgrade() -> None:
    after = run_lab(lab("1.36.3", nodes=("cp1", "cp2", "cp3", "w2")))
    added, removed, changed = differences(graph("1.36.3"), after)
    assert {"lab-cluster-w1-drain", "lab-cluster-w1-upgrade"} <= removed and not added
    assert not {name for name in changed if name.endswith(("-upgrade", "-drain"))}


def test_a_switch_of_mode_changes_no_upgrade() -> None:
    other = lab("1.36.3") | {
        "calico": {"bgp": "Enabled", "pools": [{"name": "default", "cidr": "10.244.0.0/16", "encapsulation": "IPIP"}]}
    }
    _, _, changed = differences(graph("1.36.3"), run_lab(other))
    assert changed and not {name for name in changed if name.endswith(("-upgrade", "-drain"))}
