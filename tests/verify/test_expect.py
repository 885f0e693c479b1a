"""Expectations that follow from a lab alone: which tunnel, which route, which TTL, which repair."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from components.sandbox.objects import make_objects
from components.sandbox.plan import make_plan
from components.spec.models import Lab
from components.spec.modes import IPIP, VXLAN, WIREGUARD, Tunnel
from components.verify.expect import by_entry, expectations
from components.verify.expect.pod import route_for
from components.verify.expect.probes import ttl
from components.verify.model import HOST_SIDE_MAC, EntryKey, ObservedLab, OneOf, Pod, Repair, Topic
from components.verify.read import facts
from components.verify.read.api import KINDS, Objects
from tests.verify import replica_labs as labs

ALL = [labs.EGRESS, labs.VXLAN, labs.NONE, labs.NONE_ROUTED, labs.CROSS_SUBNET, labs.MIXED, labs.IPIP]


def with_wireguard(lab: Lab) -> Lab:
    return lab.model_copy(update={"calico": lab.calico.model_copy(update={"wireguard": True})})


def observed(lab: Lab) -> ObservedLab:
    plan = make_plan(lab)
    objects = make_objects(plan)
    read = Objects({kind: tuple(objects.get(path, ())) for kind, path in KINDS.items()})
    return ObservedLab.of(lab, plan.blocks, facts.cluster(read), facts.pods(read), {})


def pod(lab: ObservedLab, workload: str, node: str) -> Pod:
    return next(pod for pod in lab.running(node) if pod.workload == workload)


# --- between nodes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lab", "far", "near"),
    [
        pytest.param(labs.VXLAN, VXLAN, VXLAN, id="VXLAN"),
        pytest.param(labs.IPIP, IPIP, IPIP, id="IPIP"),
        pytest.param(labs.CROSS_SUBNET, VXLAN, None, id="VXLANCrossSubnet"),
        pytest.param(labs.NONE_ROUTED, None, None, id="None"),
        pytest.param(with_wireguard(labs.NONE_ROUTED), WIREGUARD, WIREGUARD, id="WireGuard without encapsulation"),
        pytest.param(with_wireguard(labs.CROSS_SUBNET), WIREGUARD, WIREGUARD, id="WireGuard and VXLANCrossSubnet"),
    ],
)
def test_the_tunnel_and_the_ttl_of_an_answer(lab: Lab, far: Tunnel | None, near: Tunnel | None) -> None:
    """control1 is in another subnet than the workers. A router lowers the TTL of what is in no tunnel."""
    live = observed(lab)
    source, destination, neighbour = (pod(live, "multitool", node) for node in ("worker1", "control1", "worker2"))
    assert live.tunnel_between("worker1", "control1", destination.address) == far
    assert live.tunnel_between("worker1", "worker2", neighbour.address) == near
    assert ttl(live, source, destination) == ("62" if far else OneOf(("62", "61")))
    assert ttl(live, source, neighbour) == "62"
    assert ttl(live, source, source) == "63"


def test_the_ttl_depends_on_the_way_of_the_answer() -> None:
    """Two pools, VXLAN and None, and nodes in two subnets: the answer goes to the pool of the pod that pings."""
    live = observed(labs.MIXED)
    live = replace(live, spec=live.spec.model_copy(update={"nodes": labs.NONE_ROUTED.nodes}))
    by_vxlan, plain = (
        next(p for p in live.running(node) if p.workload and live.pool_of(p.address) == pool)
        for node, pool in zip(("worker1", "control1"), live.spec.calico.pools, strict=True)
    )
    assert ttl(live, by_vxlan, plain) == "62"
    assert ttl(live, plain, by_vxlan) == OneOf(("62", "61"))


# --- a pod's routes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workload", "address", "key", "fields"),
    [
        ("normal", "8.8.8.8", "default", {"via": "169.254.1.1", "dev": "eth0"}),
        ("egress", "8.8.8.8", "default", {"via": "10.1.128.1", "dev": "net1"}),
        ("egress", "10.244.93.150", "10.0.0.0/8", {"via": "169.254.1.1", "dev": "eth0"}),
        ("egress", "10.1.128.77", "10.1.128.0/24", {"dev": "net1", "scope": "link"}),
        ("short", "10.9.0.1", "10.0.0.0/8", {"via": "169.254.1.1", "dev": "eth0"}),
    ],
)
def test_the_route_by_which_a_pod_must_send(workload: str, address: str, key: str, fields: dict[str, str]) -> None:
    live = observed(labs.EGRESS)
    route = route_for(live, pod(live, workload, "ip-10-0-2-200"), address)
    assert (route.key, route.expected) == (key, fields)


def test_an_address_that_no_route_covers_needs_one_and_the_cause_says_why_there_is_none() -> None:
    live = observed(labs.EGRESS)
    route = route_for(live, pod(live, "short", "ip-10-0-2-200"), "8.8.8.8")
    assert route.expected == {} and "its delegate names its routes" in route.cause


def test_of_two_equal_routes_an_attached_networks_is_the_first() -> None:
    document: dict[str, Any] = labs.EGRESS.model_dump(mode="json", by_alias=True)
    document["networks"][0]["routes"] = [{"dst": "10.0.0.0/8", "gateway": "10.1.128.1"}]
    live = observed(Lab.model_validate(document))
    route = route_for(live, pod(live, "egress", "ip-10-0-2-200"), "10.244.93.150")
    assert route.expected == {"via": "10.1.128.1", "dev": "net1"}


def test_a_pod_that_is_not_the_labs_own_sends_by_calicos_gateway() -> None:
    live = observed(labs.EGRESS)
    other = next(pod for pod in live.pods if pod.running and pod.workload is None)
    assert route_for(live, other, "8.8.8.8").expected == {"via": "169.254.1.1", "dev": "eth0"}


# --- every expectation ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lab", [*ALL, with_wireguard(labs.VXLAN)])
def test_every_expectation_says_why_what_went_wrong_and_what_to_do(lab: Lab) -> None:
    found = expectations(observed(lab))
    assert len({e.id for e in found}) == len({(e.entry, e.about) for e in found}), "ids must not collide"
    for e in found:
        for text in (e.sentence, e.command, e.because, e.cause, e.fix):
            assert text and text == text.strip() and "  " not in text, e.id
        assert "None" not in e.sentence.replace("None,", "").replace(", None", ""), e.sentence


def test_up_repairs_what_it_wrote_and_nothing_else() -> None:
    repairs = {e.topic: e.repair for e in expectations(observed(labs.EGRESS))}
    assert {topic for topic, repair in repairs.items() if repair == Repair.FILES} == {Topic.FILE, Topic.CRIO}
    assert {topic for topic, repair in repairs.items() if repair == Repair.BLOCKS} == {Topic.AFFINITY}
    assert {topic for topic, repair in repairs.items() if repair == Repair.REFRESH} == {
        Topic.POOL,
        Topic.RESERVATION,
        Topic.SOURCE_DEST,
    }


def test_an_expectation_is_found_by_its_entry() -> None:
    found = expectations(observed(labs.EGRESS))
    known = by_entry(found)
    assert all(known[e.entry].entry == e.entry for e in found)
    ours = pod(observed(labs.EGRESS), "egress", "ip-10-0-2-200").interface
    assert known[EntryKey(Topic.LINK, ours, "ip-10-0-2-200")].expected == {
        "kind": "veth",
        "address": HOST_SIDE_MAC,
        "up": "yes",
        "mtu": "8951",
    }
