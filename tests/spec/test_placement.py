"""The nodes that selectors select and that accept pods, as Kubernetes and Calico would decide."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.spec.findings import SpecError
from components.spec.load import parse_lab
from components.spec.models import Lab, Workload
from components.spec.placement import (
    POOLS_ANNOTATION,
    is_on_each,
    node_labels,
    node_taints,
    nodes_for,
    perhaps_selected,
    pod_count,
    pools_for,
    selected,
)
from tests.support.examples import examples

NODES = [
    {"name": "cp", "role": "control-plane", "subnet": "control", "address": "10.0.1.10"},
    {"name": "w1", "subnet": "control", "address": "10.0.1.11", "labels": {"rack": "a"}},
    {
        **{"name": "w2", "subnet": "control", "address": "10.0.1.12", "labels": {"rack": "b"}},
        "taints": [{"key": "gpu", "effect": "NoExecute"}, {"key": "old", "effect": "PreferNoSchedule"}],
    },
]


def lab(nodes: list[dict[str, Any]] = NODES) -> Lab:
    return parse_lab({"machines": {"provider": "local"}, "nodes": nodes})


def workload(**keys: Any) -> Workload:
    return Workload.model_validate({"name": "a", "image": "docker.io/library/busybox", **keys})


def names(nodes: Any) -> list[str]:
    return [node.name for node in nodes]


def test_the_labels_that_every_node_gets() -> None:
    labels = node_labels(lab().nodes[0])
    assert labels["kubernetes.io/hostname"] == "cp"
    assert labels["kubernetes.io/os"] == "linux"
    assert labels["node-role.kubernetes.io/control-plane"] == ""
    assert "node-role.kubernetes.io/control-plane" not in node_labels(lab().nodes[1])


def test_the_taints_of_a_node() -> None:
    assert [taint.key for taint in node_taints(lab().nodes[0])] == ["node-role.kubernetes.io/control-plane"]
    assert node_taints(lab().nodes[1]) == ()
    assert node_taints(lab([{**NODES[0], "taints": []}]).nodes[0]) == (), "an empty list takes kubeadm's taint away"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("all()", ["cp", "w1", "w2"]),
        ("!all()", []),
        ("has(node-role.kubernetes.io/control-plane)", ["cp"]),
        ("rack in {'a', 'c'} || kubernetes.io/hostname == 'w2'", ["w1", "w2"]),
        # This label is known on the live node alone.
        ("kubernetes.io/arch == 'amd64'", None),
        ("has(cni-lab/route-reflector)", None),
        ("rack=a", None),
    ],
)
def test_the_selected_nodes(text: str, found: list[str] | None) -> None:
    nodes = selected(lab(), text)
    assert (nodes if nodes is None else names(nodes)) == found


@pytest.mark.parametrize(
    ("text", "found"),
    [("rack == 'a'", ["w1"]), ("!all()", []), ("kubernetes.io/arch == 'amd64'", ["cp", "w1", "w2"])],
)
def test_where_a_selector_cannot_be_evaluated_every_node_may_be_selected(text: str, found: list[str]) -> None:
    assert names(perhaps_selected(lab(), text)) == found


@pytest.mark.parametrize("key", ["another", "zebra"])
def test_on_the_control_plane_only_its_own_taint_is_tolerated(key: str) -> None:
    tainted = lab([{**NODES[0], "taints": [{"key": key, "effect": "NoSchedule"}]}, NODES[1]])
    assert names(nodes_for(tainted, workload(onControlPlane=True))) == ["w1"]


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ({}, ["w1"]),
        ({"onControlPlane": True}, ["cp", "w1"]),
        ({"nodeSelector": {"rack": "b"}}, []),
        ({"nodeSelector": {"kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64"}}, ["w1"]),
        ({"nodeSelector": {"kubernetes.io/hostname": "cp"}}, []),
    ],
)
def test_the_nodes_for_a_workload(keys: dict[str, Any], found: list[str]) -> None:
    assert names(nodes_for(lab(), workload(**keys))) == found


def test_a_workload_may_select_every_label_of_a_node() -> None:
    labels = dict(node_labels(lab().nodes[1]))
    assert names(nodes_for(lab(), workload(nodeSelector=labels))) == ["w1"]


@pytest.mark.parametrize(
    ("keys", "count", "on_w1", "on_both"),
    [
        ({"kind": "Pod", "onControlPlane": True}, 1, False, False),
        ({"kind": "Pod"}, 1, True, False),
        ({"kind": "DaemonSet"}, 1, True, False),
        ({"kind": "DaemonSet", "onControlPlane": True}, 2, True, True),
        ({"onControlPlane": True}, 1, False, False),
        ({"onControlPlane": True, "replicas": 2}, 2, True, True),
        ({"onControlPlane": True, "replicas": 3}, 3, True, True),
        ({"replicas": 3}, 3, True, False),
        ({"replicas": 0}, 0, False, False),
    ],
)
def test_the_number_of_pods_and_the_nodes_that_surely_have_one(
    keys: dict[str, Any], count: int, on_w1: bool, on_both: bool
) -> None:
    """w1 accepts every pod, and the control plane those with onControlPlane. A Deployment's pods are spread evenly."""
    spec, given = lab(), workload(**keys)
    assert pod_count(spec, given) == count
    assert is_on_each(spec, given, [spec.nodes[1]]) is on_w1
    assert is_on_each(spec, given, spec.nodes[:2]) is on_both


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, ["p0", "p1"]),
        ('["p1"]', ["p1"]),
        ('["10.244.0.0/18"]', ["p0"]),
        ('["p1", "p0"]', ["p0", "p1"]),
        ('["p2"]', []),
        ("p1", ["p0", "p1"]),
        ('"p1"', ["p0", "p1"]),
    ],
)
def test_the_pools_for_a_workload(text: str | None, found: list[str]) -> None:
    pools = [{"name": f"p{index}", "cidr": f"10.244.{index * 64}.0/18"} for index in (0, 1)]
    spec = parse_lab({"machines": {"provider": "local"}, "nodes": NODES, "calico": {"pools": pools}})
    annotations = {} if text is None else {POOLS_ANNOTATION: text}
    assert names(pools_for(spec, workload(annotations=annotations))) == found


WORDS = st.sampled_from(
    ["has(", "rack", ")", "==", "=", "'a'", "a", "in", "{", "}", ",", "&&", "||", "!", "all()", " "]
)


@examples(40)
@given(st.lists(st.lists(WORDS, max_size=7).map(" ".join), min_size=1, max_size=2))
def test_every_node_has_a_pool_in_an_accepted_lab(texts: list[str]) -> None:
    pools = [
        {"name": f"p{index}", "cidr": f"10.244.{index * 64}.0/18", "nodeSelector": text}
        for index, text in enumerate(texts)
    ]
    try:
        spec = parse_lab({"machines": {"provider": "local"}, "nodes": NODES, "calico": {"pools": pools}})
    except SpecError as error:
        keys = {finding.key.split("[")[0] for finding in error.findings}
        assert keys <= {"calico.pools", "nodes"}, error
        return
    chosen = [selected(spec, text) for text in texts]
    assert None not in chosen
    assert {node.name for nodes in chosen for node in nodes or ()} == {"cp", "w1", "w2"}


@examples(40)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"key": st.sampled_from(["a", "node-role.kubernetes.io/control-plane"])},
            optional={"effect": st.sampled_from(["NoSchedule", "PreferNoSchedule", "NoExecute"])},
        ),
        max_size=3,
    ),
    st.booleans(),
    st.sampled_from([{}, {"rack": "a"}, {"kubernetes.io/hostname": "cp"}, {"kubernetes.io/arch": "arm64"}]),
)
def test_an_accepted_workload_has_a_node(taints: list[Any], on_control_plane: bool, selector: dict[str, str]) -> None:
    """With any taints of the two nodes, the lab is refused or one of them accepts the pods."""
    nodes = [node | {"taints": taints} for node in NODES[:2]]
    workload = {"name": "a", "image": "docker.io/library/busybox", "onControlPlane": on_control_plane}
    raw = {"machines": {"provider": "local"}, "nodes": nodes, "workloads": [workload | {"nodeSelector": selector}]}
    try:
        spec = parse_lab(raw)
    except SpecError as error:
        assert all(finding.key.startswith(("nodes[", "workloads[0].")) for finding in error.findings), error
        return
    assert nodes_for(spec, spec.workloads[0])
