"""A planned lab as its reading would look: it agrees with the expectations, and with a real kernel."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from components.spec.models import Lab
from components.verify.model import NodeFacts, Scope, Table, Topic
from components.verify.read.reading import LiveLab, read_lab
from components.verify.report import verify
from page.foreseen.kernel import Kernel, UnknownCommand
from page.foreseen.lab import NOT_SENT, foresee
from tests.page.pages import shipped
from tests.support.graphs import STACKS
from tests.verify import replica_labs as labs
from tests.verify.replica import standing

LABS = {
    "vxlan": labs.VXLAN,
    "none": labs.NONE,
    "none across subnets": labs.NONE_ROUTED,
    "vxlan across subnets": labs.CROSS_SUBNET,
    "mixed": labs.MIXED,
    "ipip": labs.IPIP,
    "egress": labs.EGRESS,
}


@pytest.mark.parametrize("lab", [*LABS.values(), *map(shipped, STACKS)], ids=[*LABS, *STACKS])
def test_the_plan_contradicts_no_expectation(lab: Lab) -> None:
    """The sandbox's plan and the expectations know the modes independently."""
    results = verify(*foresee(lab, "test"))
    assert len(results) > 20
    assert [f"{r.expectation.id}: {r.seen}: {r.difference}" for r in results if r.status == "failed"] == []
    assert {r.difference for r in results if r.status == "unknown"} == {NOT_SENT}


def test_an_expectation_can_contradict_the_plan() -> None:
    live, reading = foresee(labs.VXLAN, "test")
    reading.nodes["worker1"].topics[Topic.FDB].clear()
    assert {r.expectation.topic for r in verify(live, reading) if r.status == "failed"} == {Topic.FDB}


# --- beside a real kernel --------------------------------------------------------------------------------------------

# The kernel draws these at random, or adds them by itself.
_DRAWN = ("index", "peer")


@pytest.mark.parametrize("name", ["egress", "mixed", "vxlan across subnets", "ipip"])
def test_a_real_kernel_has_the_same_after_the_same_commands(name: str) -> None:
    lab = LABS[name]
    with standing(lab) as replica:
        read = asyncio.run(read_lab(LiveLab.of(lab, replica.outputs, None)))
        _, planned = foresee(replica.lab, replica.plan.stack)
    assert read.unreachable == {}
    for node in lab.nodes:
        real, foreseen = read.nodes[node.name], planned.nodes[node.name]
        for topic in (Topic.ROUTE, Topic.NEIGHBOUR, Topic.FDB, Topic.FILE, Topic.PROXY_ARP):
            assert tables(foreseen, topic) == tables(real, topic), f"{topic} of {node.name}"
        assert links(foreseen) == links(real)
        assert sorted(foreseen.host_local) == sorted(real.host_local)
        assert foreseen.pods.keys() == real.pods.keys()
        for interface, pod in foreseen.pods.items():
            assert lines(pod, Topic.ROUTE) == lines(real.pods[interface], Topic.ROUTE)
            assert links(pod) == links(real.pods[interface])


def lines(scope: Scope, topic: Topic) -> list[str]:
    return [entry.line for entries in scope.topics[topic].values() for entry in entries]


def tables(node: NodeFacts, topic: Topic) -> Mapping[str, object]:
    """What both must have: of neighbours and forwarding entries those that do not come from traffic; of files the
    JSON."""
    table: Table = node.topics[topic]
    if topic == Topic.NEIGHBOUR:
        table = {key: entries for key, entries in table.items() if entries[0].fields["state"] == "PERMANENT"}
    if topic == Topic.FDB:
        table = {key: entries for key, entries in table.items() if "dst" in entries[0].fields}
    if topic == Topic.PROXY_ARP:
        table = {key: entries for key, entries in table.items() if key.startswith("cali")}
    return {key: [entry.line for entry in entries] for key, entries in table.items()}


def links(scope: Scope) -> dict[str, dict[str, str]]:
    """Interfaces with their fields. The kernel draws the MAC addresses of bridges, and brings devices of its own."""
    found = {}
    for name, [entry] in scope.topics[Topic.LINK].items():
        fields = {key: value for key, value in entry.fields.items() if key not in _DRAWN}
        if fields["kind"] == "bridge" or name.startswith("veth"):
            del fields["address"]
        if name not in ("gre0", "gretap0", "erspan0", "sit0", "ip6tnl0", "tunl0") or fields["up"] == "yes":
            found[name] = fields
    return found


def test_an_unknown_command_is_named() -> None:
    with pytest.raises(UnknownCommand, match="link delete eth0"):
        Kernel().run("node", ["link delete eth0"])
