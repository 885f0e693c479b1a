"""Changes that a live lab cannot take: each rule, what it says, and the changes that are possible."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from components.spec.changes import refused_changes
from components.spec.load import load_stack_file, parse_lab
from components.spec.models import Lab
from tests.strategies import labs

CASES = Path(__file__).parents[1] / "data" / "cases"


def node(name: str, host: int, role: str = "worker") -> dict[str, Any]:
    return {"name": name, "role": role, "subnet": "workers", "address": f"10.0.2.{host}"}


NODES = [node("cp", 10, "control-plane"), node("w1", 11), node("w2", 12)]
THREE = [*NODES, node("cp2", 13, "control-plane"), node("cp3", 14, "control-plane")]
AWS = {"provider": "aws", "operatorCidrs": ["203.0.113.7/32"]}
POOL = {"name": "a", "cidr": "10.244.0.0/17", "blockSize": 26}


def lab(**keys: Any) -> Lab:
    return parse_lab({"machines": {"provider": "local"}, "nodes": NODES, **keys})


def pools(*given: dict[str, Any], **keys: Any) -> dict[str, Any]:
    return {"calico": {"pools": [*given], **keys}}


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "an earlier version": (
        {"kubernetes": {"version": "1.36.3"}},
        {"kubernetes": {"version": "1.36.2"}},
        "kubernetes.version",
        "1.36.3 → 1.36.2 — a cluster does not go back",
    ),
    "a skipped minor": (
        {"kubernetes": {"version": "1.34.4"}},
        {"kubernetes": {"version": "1.36.3"}},
        "kubernetes.version",
        "write a version of 1.35 first, bring that up, then 1.36.3",
    ),
    "operator to manifest": ({}, {"calico": {"install": "manifest"}}, "calico.install", "operator → manifest"),
    "pod range": ({}, {"kubernetes": {"podCidr": "10.128.0.0/16"}}, "kubernetes.podCidr", "10.244.0.0/16 → 10.128"),
    "service range": ({}, {"kubernetes": {"serviceCidr": "10.112.0.0/16"}}, "kubernetes.serviceCidr", "Services have"),
    "DNS domain": ({}, {"kubernetes": {"dnsDomain": "lab.example"}}, "kubernetes.dnsDomain", "CoreDNS"),
    "dataplane": ({}, {"calico": {"linuxDataplane": "Nftables"}}, "calico.linuxDataplane", "kube-proxy's mode once"),
    "block size": (pools(POOL), pools(POOL | {"blockSize": 28}), "calico.pools[0].blockSize", "26 → 28"),
    "range of a pool": (pools(POOL), pools(POOL | {"cidr": "10.244.0.0/16"}), "calico.pools[0].cidr", "cannot change"),
    "another name for a pool": (pools(POOL), pools(POOL | {"name": "b"}), "calico.pools[0].cidr", "live pool a"),
    "another name for a node": (
        {},
        {"nodes": [*NODES[:2], node("other", 12)]},
        "nodes[2].name",
        "remove w2 from the file, bring that up, then add other",
    ),
    "another name for the control plane": (
        {},
        {"nodes": [node("other", 10, "control-plane"), *NODES[1:]]},
        "nodes[0].name",
        "the machine at 10.0.2.10 is the node cp, and a node's name cannot change. Fix: name it cp again, or give "
        "other a free address",
    ),
    "another argument of the API server": (
        {},
        {"kubernetes": {"apiServer": {"extraArgs": [{"name": "v", "value": "4"}]}}},
        "kubernetes.apiServer",
        "kubeadm reads it once",
    ),
    "another patch": (
        {},
        {"kubernetes": {"patches": [{"target": "etcd", "patch": {"metadata": {"labels": {"a": "b"}}}}]}},
        "kubernetes.patches",
        "kubeadm applies them once",
    ),
    "another architecture": (
        {"machines": AWS},
        {"machines": AWS | {"instanceType": "t4g.large"}},
        "machines.instanceType",
        "t3.large → t4g.large — an image for amd64 does not run on it, so every machine would be replaced",
    ),
    "spot to on demand": (
        {"machines": AWS | {"spot": True}},
        {"machines": AWS},
        "machines.spot",
        "true → false — EC2 cannot turn one into the other",
    ),
    "on demand to spot, and another type with it": (
        {"machines": AWS},
        {"machines": AWS | {"spot": True, "instanceType": "t3.xlarge"}},
        "machines.spot",
        "also of the control plane",
    ),
    "another type of spot machines": (
        {"machines": AWS | {"spot": True}},
        {"machines": AWS | {"spot": True, "instanceType": "t3.xlarge"}},
        "machines.instanceType",
        "t3.large → t3.xlarge — the type changes while a machine is stopped",
    ),
    "an image of their own": (
        {"machines": AWS},
        {"machines": AWS | {"image": "ami-0123456789abcdef0"}},
        "machines.image",
        "none → ami-0123456789abcdef0",
    ),
    "a smaller disk": (
        {"machines": AWS},
        {"machines": AWS | {"volumeSize": 20}},
        "machines.volumeSize",
        "30 → 20 — EC2 makes no volume smaller. Fix: write 30 or more",
    ),
    "the network of a balancer": (
        {"machines": AWS, "nodes": THREE},
        {"machines": AWS, "nodes": THREE, "network": {"vpcCidr": "10.0.0.0/17"}},
        "network.vpcCidr",
        "the load balancer of the control planes is in it",
    ),
    "the subnet of a balancer": (
        {"machines": AWS, "nodes": THREE},
        {"machines": AWS, "nodes": THREE, "network": {"subnets": {"workers": "10.0.2.0/25"}}},
        "network.subnets.workers",
        "10.0.2.0/24 → 10.0.2.0/25",
    ),
    "another role": (
        {"nodes": THREE},
        {"nodes": [*THREE[:4], node("cp3", 14)], "kubernetes": {"allowEvenControlPlanes": True}},
        "nodes[4].role",
        "control-plane → worker",
    ),
    "another endpoint": (
        {},
        {"kubernetes": {"controlPlaneEndpoint": "lb.example:6443"}},
        "kubernetes.controlPlaneEndpoint",
        "10.0.2.10:6443 → lb.example:6443",
    ),
    "one control plane to three on EC2": (
        {"machines": AWS},
        {"machines": AWS, "nodes": THREE},
        "nodes",
        "10.0.2.10:6443 → the lab's load balancer",
    ),
    "three control planes on EC2, and a label with it": (
        {"machines": AWS},
        {"machines": AWS, "nodes": [NODES[0] | {"labels": {"rack": "1"}}, *THREE[1:]]},
        "nodes",
        "10.0.2.10:6443 → the lab's load balancer",
    ),
    "three control planes to one on EC2": (
        {"machines": AWS, "nodes": THREE},
        {"machines": AWS},
        "nodes",
        "the lab's load balancer → 10.0.2.10:6443",
    ),
    "a further control plane before the first": (
        {},
        {"nodes": [node("cp0", 9, "control-plane"), *THREE[:4]]},
        "nodes[0]",
        "cp → cp0 — the cluster was made on the first control plane",
    ),
    "the control planes in another order": (
        {"machines": AWS, "nodes": THREE},
        {"machines": AWS, "nodes": [THREE[3], *THREE[:3], THREE[4]]},
        "nodes[0]",
        "Fix: keep cp first among the control planes",
    ),
    "another provider": ({}, {"machines": AWS}, "machines.provider", "local → aws"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_live_lab_cannot_take(name: str) -> None:
    before, after, key, part = REFUSED[name]
    found = refused_changes(lab(**before), lab(**after))
    assert [finding.key for finding in found] == [key]
    assert part in str(found[0])


def test_two_nodes_that_swap_their_addresses_are_both_named() -> None:
    """The new machines would be made before the old ones give their addresses back: InvalidIPAddress.InUse."""
    found = refused_changes(lab(), lab(nodes=[NODES[0], node("w1", 12), node("w2", 11)]))
    assert [str(finding).partition(" — ")[0] for finding in found] == [
        "nodes[1].name: w2 → w1",
        "nodes[2].name: w1 → w2",
    ]
    assert {str(finding).rpartition("Fix: ")[2] for finding in found} == {
        "remove w1 and w2 from the file, bring that up, then add them with their new addresses."
    }


POSSIBLE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a later patch": ({"kubernetes": {"version": "1.36.2"}}, {"kubernetes": {"version": "1.36.3"}}),
    "the next minor": ({"kubernetes": {"version": "1.35.4"}}, {"kubernetes": {"version": "1.36.3"}}),
    "another encapsulation": (pools(POOL), pools(POOL | {"encapsulation": "VXLANCrossSubnet"})),
    "a further pool": (pools(POOL), pools(POOL, {"name": "b", "cidr": "10.244.128.0/17", "blockSize": 28})),
    "a further worker": ({}, {"nodes": [*NODES, node("w3", 15)]}),
    "a worker less": ({}, {"nodes": NODES[:2]}),
    "a worker in another's place, of another address": ({}, {"nodes": [*NODES[:2], node("w3", 15)]}),
    "three control planes where the endpoint stays": ({}, {"nodes": THREE}),
    "another machine as first control plane": ({}, {"nodes": [node("new", 20, "control-plane"), *NODES[1:]]}),
    "another type of machines on demand": ({"machines": AWS}, {"machines": AWS | {"instanceType": "t3.xlarge"}}),
    "a larger disk": ({"machines": AWS}, {"machines": AWS | {"volumeSize": 40}}),
    "no image of their own, which the machines then keep": (
        {"machines": AWS | {"image": "ami-0123456789abcdef0"}},
        {"machines": AWS},
    ),
    "the network of one control plane": ({"machines": AWS}, {"machines": AWS, "network": {"vpcCidr": "10.0.0.0/17"}}),
    "other operators": ({"machines": AWS}, {"machines": AWS | {"operatorCidrs": ["198.51.100.7/32"]}}),
    "MTU": ({}, {"network": {"mtu": 1500}}),
}


@pytest.mark.parametrize("name", POSSIBLE)
def test_what_a_live_lab_can_take(name: str) -> None:
    before, after = POSSIBLE[name]
    assert refused_changes(lab(**before), lab(**after)) == []


def test_a_block_size_that_changes_in_a_stack_file() -> None:
    """A lab on existing hosts, by manifest. Source of the rule: Calico's page on the resource IPPool."""
    before, after = (load_stack_file(CASES / f"blocksize-{side}.yaml").lab for side in ("before", "after"))
    [finding] = refused_changes(before, after)
    assert finding.key == "calico.pools[0].blockSize" and finding.value == "26 → 28"


@given(labs())
def test_a_lab_is_the_same_after_it_was_stored(found: dict[str, Any]) -> None:
    lab = parse_lab(found)
    stored = lab.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert Lab.model_validate(stored) == lab
    assert refused_changes(Lab.model_validate(stored), lab) == []
