"""A planned lab as its reading would look: it agrees with the expectations, and with a real kernel."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Mapping
from typing import Any

import pytest

from components.sandbox import nat, proxy
from components.sandbox.objects import make_objects
from components.sandbox.plan import make_plan
from components.sandbox.requirements import find
from components.sandbox.services import SERVICES, SLICES
from components.spec.models import Lab
from components.verify.model import NodeFacts, Scope, Table, Topic
from components.verify.read.reading import LiveLab, read_lab
from components.verify.report import verify
from page.foreseen import nft
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
    "nftables": labs.SERVED.model_copy(update={"calico": labs.NFTABLES.calico}),
    "nftables, egress": labs.EGRESS.model_copy(
        update={"calico": labs.EGRESS.calico.model_copy(update={"linux_dataplane": "Nftables"})}
    ),
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
    with standing(lab, ssh=False) as replica:
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


# --- beside a real nft -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nftables", "nftables, egress"])
def test_a_real_nft_lists_the_same_rules(name: str) -> None:
    if find("nft") is None:
        pytest.skip("nft is not installed")
    plan = make_plan(LABS[name])
    objects = make_objects(plan)
    kubernetes = plan.lab.kubernetes
    ports = proxy.service_ports(objects[SERVICES], objects[SLICES])
    services = proxy.nft_rules(ports, str(kubernetes.pod_cidr), str(kubernetes.service_cidr))
    for node in plan.lab.nodes:
        ruleset = [*nat.nat_ruleset(plan, node), *services]
        command = ["unshare", "--net", "bash", "-c", "nft -f - && nft -j list ruleset"]
        done = subprocess.run(command, input="".join(f"{line}\n" for line in ruleset), capture_output=True, text=True)
        if "unshare" in done.stderr:
            pytest.skip(f"no network namespace of its own: {done.stderr.strip()}")
        assert done.returncode == 0, done.stderr
        assert plain(nft.listed(ruleset)) == plain(done.stdout)


def plain(listed: str) -> list[str]:
    """What nft prints, without handles, flags and comments. The elements of a set are in no order."""
    found = []
    for item in json.loads(listed)["nftables"]:
        [(kind, body)] = item.items()
        if kind in ("set", "map"):
            elements = sorted(json.dumps(without(element), sort_keys=True) for element in body.get("elem") or ())
            found.append(f"{kind} {body['table']} {body['name']} {elements}")
        elif kind in ("table", "chain", "rule"):
            found.append(f"{kind} {json.dumps(without(body), sort_keys=True)}")
    return sorted(found)


def without(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without(part) for key, part in value.items() if key not in ("handle", "flags", "comment")}
    return [without(part) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("rule", "words"),
    [("quota over 1 mbytes drop", "does not know: quota"), ("ip saddr 10.0.0.1 queue", "does not know: queue")],
)
def test_an_unknown_rule_is_named(rule: str, words: str) -> None:
    with pytest.raises(nft.UnknownRule, match=words):
        nft.listed(["table ip x {", "  chain y {", f"    {rule}", "  }", "}"])
