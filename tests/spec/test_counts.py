"""Nodes given by their number: names and addresses that stay when the number changes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.spec.changes import refused_changes
from components.spec.load import SpecError, parse_lab
from components.spec.models import Lab
from tests.strategies import CONFIG
from tests.support.examples import examples

LOCAL = {"provider": "local"}
AWS = {"provider": "aws", "operatorCidrs": ["203.0.113.7/32"]}


def lab(machines: dict[str, Any] = LOCAL, **keys: Any) -> Lab:
    return parse_lab({"machines": machines, **keys}, CONFIG)


def rows(spec: Lab) -> list[tuple[str, str, str]]:
    return [(node.name, node.subnet, str(node.address)) for node in spec.nodes]


def test_workers_in_the_default_subnets() -> None:
    assert rows(lab(workers=3)) == [
        ("control1", "control", "10.0.1.10"),
        ("worker1", "workers", "10.0.2.10"),
        ("worker2", "workers", "10.0.2.11"),
        ("worker3", "workers", "10.0.2.12"),
    ]
    assert [node.role for node in lab(controlPlanes=3).nodes] == ["control-plane"] * 3 + ["worker"] * 2
    assert [node.name for node in lab(workers=0, workloads=[]).nodes] == ["control1"]


def test_one_subnet_and_several() -> None:
    one = {"subnets": {"lan": "10.20.0.0/24"}}
    assert rows(lab(network=one, workers=1))[1] == ("worker1", "lan", "10.20.0.20")
    three = {"subnets": {"control": "10.20.0.0/24", "a": "10.20.1.0/24", "b": "10.20.2.0/28"}}
    assert [subnet for _, subnet, _ in rows(lab(network=three, workers=3))] == ["control", "a", "b", "a"]
    # AWS reserves the first four addresses of a subnet.
    small = {"vpcCidr": "10.20.0.0/16", "subnets": {"control": "10.20.0.0/24", "workers": "10.20.1.0/28"}}
    assert rows(lab(AWS, network=small, workers=1))[1] == ("worker1", "workers", "10.20.1.4")


@examples(40)
@given(
    st.sampled_from([LOCAL, AWS]),
    st.lists(st.integers(24, 28), min_size=1, max_size=4),
    st.sampled_from([1, 3, 5]),
    st.integers(0, 30),
    st.sampled_from([1, 3, 5]),
    st.integers(0, 30),
)
def test_a_changed_number_moves_no_node(
    machines: dict[str, Any], sizes: list[int], before: int, old: int, after: int, new: int
) -> None:
    network = {"subnets": {f"s{index}": f"10.0.{index}.0/{size}" for index, size in enumerate(sizes)}}
    found = []
    for control_planes, workers in ((before, old), (after, new)):
        try:
            found.append(lab(machines, network=network, controlPlanes=control_planes, workers=workers))
        except SpecError as error:
            # The only reason to refuse such a lab is a full subnet, and then that is the only finding.
            assert all("network.subnets" in str(finding) for finding in error.findings), error
            return
    one, two = ({node.name: node for node in spec.nodes} for spec in found)
    assert all(one[name] == two[name] for name in one.keys() & two.keys())
    assert len({node.address for node in found[0].nodes}) == before + old
    if machines is LOCAL or before == after == 1:
        assert refused_changes(*found) == []


def test_the_same_lab_with_its_nodes_written_out() -> None:
    counted = lab(workers=2, controlPlanes=1)
    document = counted.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert "workers" not in document and len(document["nodes"]) == 3
    assert parse_lab(document) == counted


def test_a_pool_follows_the_number_of_nodes() -> None:
    assert lab(workers=30, kubernetes={"podCidr": "10.32.0.0/16"}).calico.pools[0].block_size == 24


@pytest.mark.parametrize(
    ("keys", "key", "problem"),
    [
        ({"workers": -1}, "workers", "out of range"),
        ({"workers": "3"}, "workers", "whole number"),
        ({"controlPlanes": 0}, "controlPlanes", "out of range"),
        ({"controlPlanes": 2}, "nodes", "tolerate no more losses"),
        ({"worker": 3}, "worker", "did you mean workers?"),
        ({"kubernetes": {"workers": 3}}, "kubernetes.workers", "it belongs elsewhere: write workers"),
    ],
)
def test_a_wrong_number(keys: dict[str, Any], key: str, problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        lab(**keys)
    (finding,) = caught.value.findings
    assert finding.key == key and problem in str(finding)
