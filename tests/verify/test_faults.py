"""Faults on replicas: verify reports exactly what the fault's symptoms say, and mend undoes all of it.

Over SSH where that may matter: what refuses, what does not answer, a fault of the kernel and one of a file. The others
enter the nodes, which takes half the time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import boto3
import pytest
from boto3 import Session
from botocore.exceptions import ClientError

import cli.live.faults
from components.aws_client import AwsSettings
from components.sandbox import requirements
from components.sandbox.objects import make_objects
from components.sandbox.plan import make_plan
from components.spec.models import Lab as LabSpec
from components.verify.exercise.choose import candidates
from components.verify.faults import source_dest
from components.verify.faults.inject import inject, mend
from components.verify.faults.model import Fault, Refused, Target, Undone
from components.verify.faults.symptoms import aim, symptoms
from components.verify.faults.table import FAULTS, find
from components.verify.model import ObservedLab, Scope, Topic
from components.verify.read import facts
from components.verify.read.access import access_of
from components.verify.read.api import KINDS, Objects
from components.verify.read.ec2 import NoEc2
from components.verify.read.reading import LiveLab, observed, read_cluster, read_lab
from components.verify.walk.live import walk_live
from tests.support.cli import lab
from tests.verify import replica_labs as labs
from tests.verify.bed import REGION, bad, bed, read
from tests.verify.replica import Replica
from tests.vm.machine import HINT

STACK = "replica"
Bed = tuple[Replica, LiveLab]

LOOK = Path(__file__).with_name("look.sh").read_text(encoding="utf-8")


def standing(spec: LabSpec, *, ssh: bool = False) -> Any:
    """A fixture: the lab's replica, for all tests of the module."""

    @pytest.fixture(scope="module")
    def made() -> Iterator[Bed]:
        if spec.calico.linux_dataplane == "Nftables" and requirements.find("nft") is None:
            pytest.skip("nft is not installed")
        with bed(spec, ssh=ssh) as it:
            yield it

    return made


egress = standing(labs.EGRESS, ssh=True)
vxlan = standing(labs.VXLAN)
mixed = standing(labs.MIXED)
cross = standing(labs.CROSS_SUBNET)
plain = standing(labs.NONE)
served = standing(labs.SERVED)
nftables = standing(labs.NFTABLES)


@pytest.fixture(scope="module")
def entered(egress: Bed) -> Bed:
    """The replica of egress without SSH."""
    replica, live = egress
    return replica, replace(live, access={node: access_of(node, it) for node, it in replica.running.access.items()})


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Bed:
    """What the commands see as the stack: the fixture that the test's parameter names, else egress."""
    found: Bed = request.getfixturevalue(getattr(request, "param", "egress"))
    stand_for(monkeypatch, found[1])
    return found


def stand_for(monkeypatch: pytest.MonkeyPatch, live: LiveLab) -> None:
    monkeypatch.setattr(cli.live.faults, "chosen_live", lambda _, sandbox: live)
    monkeypatch.setattr(cli.live.faults, "stack_file", Path)
    monkeypatch.setattr(cli.live.faults, "load_stack_file", lambda _: SimpleNamespace(lab=live.spec))


def snapshot(replica: Replica, node: str) -> str:
    done = replica.exec(node, ["bash", "-c", f"{LOOK}\nlook_at_all"])
    assert not done.stderr, done.stderr
    return done.stdout


def snapshots(replica: Replica) -> dict[str, str]:
    return {node.name: snapshot(replica, node.name) for node in replica.lab.nodes}


@cache
def sound(replica: Replica) -> dict[str, str]:
    """Its nodes before the first fault. Each test leaves them so."""
    return snapshots(replica)


def aimed(live: LiveLab, name: str, node: str | None = None) -> tuple[Fault, Target, ObservedLab]:
    of = observed(live, asyncio.run(read_cluster(live)))
    fault = find(name, live.spec)
    return fault, aim(fault, of, node), of


def failed(live: LiveLab) -> list[str]:
    """The ids of what fails; nothing may be unknown."""
    _, results = read(live)
    assert not [r for r in results if r.status == "unknown"], bad(results)
    return sorted(r.expectation.id for r in results if r.status == "failed")


def stops_at(live: LiveLab, ends: tuple[str, str]) -> tuple[str, str] | None:
    """The hop and the node at which walk stops."""
    found = asyncio.run(walk_live(live, *ends)).walk.stopped
    return (found.kind, found.node) if found else None


# --- each fault -------------------------------------------------------------------------------------------------------

EGRESS_FAULTS = ["source-dest-check", *labs.NODE_FAULTS]
# A lab that is entered through namespaces counts as a sandbox, whose nodes are no EC2 instances.
OVER_SSH = {"source-dest-check", "fdb-gone", "multus-emptied"}
OTHER_FAULTS = ["mtu-too-large", "stale-neighbour", "nat-off", "ip-forward-off"]


@pytest.mark.parametrize(
    ("stack", "name"),
    [
        *(("egress" if name in OVER_SSH else "entered", name) for name in EGRESS_FAULTS),
        ("vxlan", "vxlan-dropped"),
        ("vxlan", "fdb-gone"),
        ("vxlan", "proxy-arp-off"),
        *(("vxlan", name) for name in OTHER_FAULTS),
        ("plain", "proxy-arp-off"),
        ("plain", "nat-off"),
        ("plain", "ip-forward-off"),
        ("mixed", "rp-filter-strict"),
        ("served", "service-without-endpoints"),
        ("nftables", "nat-off"),
        ("mixed", "vxlan-dropped"),
        ("cross", "vxlan-dropped"),
        ("cross", "fdb-gone"),
    ],
    indirect=["stack"],
)
def test_verify_reports_a_faults_symptoms_and_nothing_else(
    stack: Bed, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    replica, live = stack
    fault, target, of = aimed(live, name)
    wanted = symptoms(fault, of, target)
    before = sound(replica)
    assert lab("break", STACK, name, "--yes") == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    try:
        assert failed(live) == sorted(e.id for e in wanted.failed) != []
        assert all(e.id in said for e in wanted.failed)
        assert (wanted.walk is None) == (fault.hop is None or name == "source-dest-check")
        if wanted.walk is not None:
            assert wanted.hop is not None and f"{wanted.hop}, {target.node}" in said
            assert stops_at(live, wanted.walk) == (wanted.hop, target.node)
        if name in ("vxlan-dropped", "fdb-gone", "proxy-arp-off", "stale-neighbour", "ip-forward-off"):
            assert any(e.topic == Topic.PROBE for e in wanted.failed), "a ping shows it where one can"
    finally:
        assert lab("mend", STACK) == 0
    assert capsys.readouterr().out == f"{target.object or target.node}: {name}: put back\n"
    assert snapshots(replica) == before
    assert failed(live) == []


def test_several_faults_are_undone_newest_first(stack: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    replica, _ = stack
    node = "ip-10-0-2-201"
    names = ["vxlan-dropped", "multus-emptied", "fdb-gone", "delegate-renamed"]
    before = sound(replica)
    for name in names:
        assert lab("break", STACK, name, "--node", node, "--yes") == 0
    capsys.readouterr()
    assert lab("break", STACK, "fdb-gone", "--node", node, "--yes") == 1
    assert "fdb-gone is broken here already, or was cut while it broke: mend first" in capsys.readouterr().err
    assert lab("mend", STACK) == 0
    assert capsys.readouterr().out.splitlines() == [f"{node}: {name}: put back" for name in reversed(names)]
    assert lab("mend", STACK) == 0
    assert capsys.readouterr().out == "nothing was broken\n"
    assert snapshots(replica) == before


def test_what_was_repaired_meanwhile_is_left_alone(stack: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    """Felix may have written its entry again, and `up` its file."""
    replica, live = stack
    node = "ip-10-0-2-200"
    before = sound(replica)[node]
    path = "/etc/cni/net.d/00-multus.conf"
    text, changed = (replica.exec(node, words).stdout for words in (["cat", path], ["stat", "--format", "%Y", path]))
    for name in ("fdb-gone", "multus-emptied", "delegate-renamed", "vxlan-dropped", "proxy-arp-off"):
        assert lab("break", STACK, name, "--node", node, "--yes") == 0
    fault, target, _ = aimed(live, "fdb-gone", node)
    assert fault.id == "fdb-gone"
    peer = next(n for n in live.spec.nodes if n.name == target.peer)
    script = (
        f"bridge fdb add {target.variables['MAC']} dev vxlan.calico dst {peer.address} self permanent; "
        "cd /etc/cni/multus/net.d; cp -p default-calico.conf.bak default-calico.conf; "
        f"iptables -t raw -D PREROUTING -p udp --dport 4789 -m comment --comment 'cni-lab fault' -j DROP; "
        f'printf %s "$1" >{path}; touch -r default-calico.conf {path}'
    )
    assert replica.exec(node, ["bash", "-ec", script, "-", text]).returncode == 0
    capsys.readouterr()
    assert lab("mend", STACK) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[1] for line in said] == [
        "proxy-arp-off",
        "vxlan-dropped",
        "delegate-renamed",
        "multus-emptied",
        "fdb-gone",
    ]
    assert said[0].endswith("put back") and not any(line.endswith("put back") for line in said[1:])
    # `up` has written it at another time.
    assert replica.exec(node, ["touch", "--date", f"@{changed.strip()}", path]).returncode == 0
    assert snapshot(replica, node) == before


def test_ipip_dropped_is_seen_as_protocol_4(vxlan: Bed) -> None:
    """Only the rule, aimed as in a lab with IPIP: this kernel may have no such tunnel."""
    replica, live = vxlan
    fault = find("ipip-dropped", labs.IPIP)
    target = aim(fault, ObservedLab.of(labs.IPIP, {}, Scope(), [], {}))
    wanted = symptoms(fault, ObservedLab.of(labs.IPIP, {}, Scope(), [], {}), target)
    assert [e.id for e in wanted.failed] == ["worker1/filter/4"]
    before = sound(replica)[target.node]
    asyncio.run(inject(live, STACK, fault, target))
    try:
        reading = asyncio.run(read_lab(live))
        (rule,) = reading.nodes[target.node].topics[Topic.FILTER]["4"]
        assert rule.line.endswith("-j DROP") and "cni-lab fault" in rule.line
    finally:
        assert asyncio.run(mend(live, STACK)).undone == (Undone(target.node, "ipip-dropped", "put back"),)
    assert snapshot(replica, target.node) == before


@pytest.mark.parametrize(
    ("name", "program", "package"),
    [
        ("vxlan-dropped", "iptables", "iptables"),
        ("fdb-gone", "bridge", "iproute2"),
        ("link-slow", "tc", "iproute2"),
    ],
)
def test_a_program_that_the_node_lacks_is_named_and_nothing_is_broken(
    entered: Bed,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    program: str,
    package: str,
) -> None:
    found = requirements.find(program)
    if found is None:
        pytest.skip(f"{program} is not installed")
    file = str(Path(found).resolve())
    replica, live = entered
    stand_for(monkeypatch, live)
    node = aimed(live, name)[1].node
    before = sound(replica)[node]
    assert replica.exec(node, ["mount", "--bind", "/dev/null", file]).returncode == 0
    try:
        assert lab("break", STACK, name, "--yes") == 1
    finally:
        assert replica.exec(node, ["umount", file]).returncode == 0
    said = capsys.readouterr().err
    assert (
        f"{node}: this fault is made with {program}, which is not installed here: apt-get install {package}\n" in said
    )
    assert lab("mend", STACK) == 0
    assert capsys.readouterr().out == "nothing was broken\n"
    assert snapshot(replica, node) == before


# --- refused ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("fdb-lost",), 2, "there is no fault 'fdb-lost'; there are: source-dest-check, vxlan-dropped"),
        ((), 2, "name a fault"),
        (("ipip-dropped",), 2, "ipip-dropped cannot be made in this lab: calico.pools: no pool uses IPIP"),
        (
            ("vxlan-dropped", "--node", "node-9"),
            2,
            "--node node-9: there is no such node; there are: ip1001100, ip-10-0-2-200",
        ),
        (("wrong-default-route", "--node", "ip1001100"), 2, "finds nothing to break on ip1001100"),
    ],
)
def test_a_wrong_command_is_one_line(
    stack: Bed, arguments: tuple[str, ...], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab("break", STACK, *arguments, "--yes") == code
    said = capsys.readouterr().err
    assert words in said and said.startswith("lab break: ") and said.count("\n") == 1


def test_nothing_is_broken_unasked(stack: Bed, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab("break", STACK, "fdb-gone") == 2
    assert "confirm with --yes" in capsys.readouterr().err
    assert lab("mend", STACK) == 0
    assert capsys.readouterr().out == "nothing was broken\n"


@pytest.mark.parametrize("owner", [None, "cni-lab/another\n"])
def test_a_machine_of_another_lab_or_of_none_is_not_changed(
    stack: Bed, owner: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    replica, _ = stack
    node, path = "ip-10-0-2-200", "/var/lib/cni-lab/owner"
    text = replica.exec(node, ["cat", path]).stdout
    put = f'if [ -n "$1" ]; then printf "%s\\n" "$1" >{path}; else rm {path}; fi'
    assert replica.exec(node, ["sh", "-c", put, "-", (owner or "").strip()]).returncode == 0
    before = snapshot(replica, node)
    try:
        assert lab("break", STACK, "vxlan-dropped", "--node", node, "--yes") == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and "is not changed" in said
        assert snapshot(replica, node) == before
        assert lab("mend", STACK) == 1
        assert f"lab mend: {node}: " in capsys.readouterr().err
    finally:
        replica.exec(node, ["sh", "-c", put, "-", text.strip()])


def test_a_node_that_does_not_answer_is_named_and_the_others_are_mended(
    stack: Bed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, live = stack
    near, far = "ip-10-0-2-200", "ip-10-0-2-201"
    assert lab("break", STACK, "vxlan-dropped", "--node", near, "--yes") == 0
    capsys.readouterr()
    away = replace(live, access={**live.access, far: replace(live.access[far], port=1)})
    stand_for(monkeypatch, away)
    assert lab("break", STACK, "vxlan-dropped", "--node", far, "--yes") == 1
    assert f"lab break: {far}: root@127.0.0.1:1 does not answer" in capsys.readouterr().err
    assert lab("mend", STACK) == 1
    said = capsys.readouterr()
    assert said.out == f"{near}: vxlan-dropped: put back\n"
    assert f"lab mend: {far}: root@127.0.0.1:1 does not answer" in said.err
    assert f"{far} may still be broken: repeat ./lab mend {STACK}" in said.err


def test_a_lab_that_is_not_up_cannot_be_broken(
    stack: Bed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, live = stack
    stand_for(monkeypatch, replace(live, access={}))
    assert lab("break", STACK, "vxlan-dropped", "--yes") == 1
    assert "`up` has not made it yet" in capsys.readouterr().err


def test_without_the_api_a_node_can_be_broken_and_a_pod_cannot(
    stack: Bed, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    replica, live = stack
    stand_for(monkeypatch, replace(live, kubeconfig=replica.expired_kubeconfig))
    assert lab("break", STACK, "proxy-arp-off", "--yes") == 1
    assert "expired" in capsys.readouterr().err
    assert lab("break", STACK, "multus-emptied", "--yes") == 0
    assert "/crio/default" in capsys.readouterr().out
    assert lab("mend", STACK) == 0


# --- EC2 --------------------------------------------------------------------------------------------------------------


def checks(live: LiveLab) -> dict[str, bool]:
    ec2 = boto3.client("ec2", REGION)
    found = ec2.describe_instances(InstanceIds=list(live.instances.values()))["Reservations"]
    by_id = {i["InstanceId"]: i["SourceDestCheck"] for reservation in found for i in reservation["Instances"]}
    return {node: by_id[machine] for node, machine in live.instances.items()}


def test_a_tag_records_the_check_before_it_is_switched_on(plain: Bed) -> None:
    _, live = plain
    sound = checks(live)
    assert not any(sound.values())
    fault, target, of = aimed(live, "source-dest-check")
    wanted = symptoms(fault, of, target)
    # Without encapsulation EC2 drops every packet of the node's pods. The replica's network does not.
    assert sorted(e.topic for e in wanted.failed) == ["probe", "probe", "source_dest"]
    assert wanted.walk is not None and wanted.hop == "arrival"
    with patch.object(Session, "client", cut("modify_instance_attribute")), pytest.raises(NoEc2, match="EC2 did not"):
        source_dest.switch_on(live.instances, target.node, STACK, AwsSettings(REGION))
    assert checks(live) == sound
    with pytest.raises(Refused, match="mend first"):
        source_dest.switch_on(live.instances, target.node, STACK, AwsSettings(REGION))
    assert source_dest.switch_back(live.instances, STACK, AwsSettings(REGION)) == [
        Undone(target.node, "source-dest-check", "the check is off again, or was not on yet")
    ]
    asyncio.run(inject(live, STACK, fault, target))
    assert checks(live) == sound | {target.node: True}
    assert failed(live) == [f"{target.node}/source_dest/{target.node}"]
    assert stops_at(live, wanted.walk) == ("arrival", target.node)
    with patch.object(Session, "client", cut("delete_tags")), pytest.raises(NoEc2, match="EC2 did not do it"):
        source_dest.switch_back(live.instances, STACK, AwsSettings(REGION))
    mended = asyncio.run(mend(live, STACK))
    assert mended.failed == {}
    assert [(entry.node, entry.fault) for entry in mended.undone] == [(target.node, "source-dest-check")]
    assert checks(live) == sound
    assert asyncio.run(mend(live, STACK)).undone == ()


def test_an_instance_of_another_lab_is_not_changed(plain: Bed) -> None:
    _, live = plain
    with pytest.raises(Refused, match="it is not this lab's"):
        source_dest.switch_on(live.instances, "worker1", "another", AwsSettings(REGION))
    assert not any(checks(live).values())
    gone = {**live.instances, "worker1": "i-0123456789abcdef0"}
    with pytest.raises(Refused, match="is gone"):
        source_dest.switch_on(gone, "worker1", STACK, AwsSettings(REGION))


def cut(call: str) -> Callable[..., object]:
    """boto3's Session.client, but one call of the client it makes is answered by an error."""
    real = Session.client
    return lambda self, *arguments, **options: Cut(real(self, *arguments, **options), call)


class Cut:
    """An EC2 client that answers one call with an error, as when the connection is cut."""

    def __init__(self, real: object, call: str) -> None:
        self._real, self._call = real, call

    def __getattr__(self, name: str) -> object:
        if name == self._call:
            return self._fail
        return getattr(self._real, name)

    def _fail(self, **_: object) -> None:
        raise ClientError({"Error": {"Code": "RequestLimitExceeded", "Message": "cut"}}, self._call)


# --- what follows from the lab alone ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lab",
    [
        labs.EGRESS,
        labs.VXLAN,
        labs.NONE,
        labs.CROSS_SUBNET,
        labs.MIXED,
        labs.IPIP,
        labs.PEERED,
        labs.PEERED_TWICE,
        labs.PEERED_MESH,
    ],
)
def test_wherever_a_fault_is_made_verify_reports_it(lab: LabSpec) -> None:
    """In every mode and on every node. Where a ping is lost, a walk between two pods shows it."""
    of = planned(lab)
    here = [fault for fault in FAULTS.values() if fault.refusal(lab) is None]
    assert here
    for fault in here:
        targets = list(fault.targets(of))
        assert targets and aim(fault, of) in targets
        for target in targets:
            assert aim(fault, of, target.node).node == target.node
            wanted = symptoms(fault, of, target)
            reported = {e.entry for e in wanted.failed}
            assert set(target.breaks) <= reported
            pings = [e for e in wanted.failed if e.topic == Topic.PROBE]
            assert len(reported - set(target.breaks)) == len(pings)
            assert wanted.walk is not None or not pings


def test_a_kernel_that_cannot_delay_packets_says_so(vxlan: Bed) -> None:
    """Where it can, verify and walk name the queue."""
    replica, live = vxlan
    fault, target, of = aimed(live, "link-slow")
    able = replica.exec(target.node, ["unshare", "--net", "tc", "qdisc", "add", "dev", "lo", "root", "netem"])
    before = sound(replica)
    if able.returncode:
        with pytest.raises(Refused, match="this kernel has no sch_netem"):
            asyncio.run(inject(live, STACK, fault, target))
        assert snapshots(replica) == before
        pytest.skip(f"this kernel has no sch_netem, so the delay itself was not made. {HINT}")
    asyncio.run(inject(live, STACK, fault, target))
    try:
        wanted = symptoms(fault, of, target)
        assert {e.id for e in wanted.failed} <= set(failed(live))
        assert wanted.walk is not None and stops_at(live, wanted.walk) == ("underlay", target.node)
    finally:
        asyncio.run(mend(live, STACK))
    assert snapshots(replica) == before


# --- the list ---------------------------------------------------------------------------------------------------------

OF_MULTUS = {"multus-emptied", "delegate-renamed", "range-moved", "wrong-default-route"}
OF_VXLAN = {"vxlan-dropped", "fdb-gone", "stale-neighbour"}


@pytest.mark.parametrize(
    ("lab", "refused"),
    [
        (labs.EGRESS, {"ipip-dropped"}),
        (labs.VXLAN, {"ipip-dropped", *OF_MULTUS}),
        (labs.IPIP, {*OF_VXLAN, *OF_MULTUS}),
        (labs.NONE, {"ipip-dropped", "mtu-too-large", *OF_VXLAN, *OF_MULTUS}),
    ],
)
def test_a_lab_has_the_faults_of_its_mode(lab: LabSpec, refused: set[str]) -> None:
    # No lab here has a firewall; tests/sandbox/test_firewall.py has one. None has a Service or two ways either.
    assert {name for name, fault in FAULTS.items() if fault.refusal(lab)} == refused | {
        "firewall-gone",
        "firewall-drops",
        "rp-filter-strict",
        "service-without-endpoints",
        "wrong-peer-as",
    }


def planned(lab: LabSpec) -> ObservedLab:
    """The lab as verify would see it, by the plan alone."""
    objects = make_objects(make_plan(lab, system_pods=False))
    read = Objects({kind: tuple(objects.get(path, ())) for kind, path in KINDS.items()})
    return ObservedLab.of(lab, make_plan(lab).blocks, facts.cluster(read), facts.pods(read), {}, facts.services(read))


@pytest.mark.parametrize(
    ("spec", "name", "topics"),
    [
        (labs.PEERED, "tor", {"peer": 1, "bgp": 3, "route": 6, "probe": 3}),
        # worker1 still has its other router; but that one has lost the routes of the others.
        (labs.PEERED_TWICE, "tor", {"peer": 1, "bgp": 3, "route": 6, "probe": 3}),
        (labs.PEERED_TWICE, "spare", {"peer": 1, "bgp": 1}),
        (labs.PEERED_MESH, "tor", {"peer": 1, "bgp": 3}),
    ],
    ids=["the only peer", "one of two", "the spare one", "beside a mesh"],
)
def test_what_a_peer_of_another_as_takes_away(spec: LabSpec, name: str, topics: dict[str, int]) -> None:
    of, fault = planned(spec), find("wrong-peer-as", spec)
    target = next(target for target in fault.targets(of) if target.object == name)
    wanted = symptoms(fault, of, target)
    assert Counter(str(e.topic) for e in wanted.failed) == topics
    assert (wanted.walk is not None) == ("route" in topics)


def test_a_sandbox_has_no_bgp_session_to_lose() -> None:
    with pytest.raises(Refused, match="cannot be made in a sandbox: no BIRD runs in a sandbox"):
        find("wrong-peer-as", labs.PEERED, sandbox=True)
    assert find("wrong-peer-as", labs.PEERED).hop == "host route"
    names = {fault.id for fault in candidates(labs.PEERED, None, sandbox=True)}
    assert "wrong-peer-as" not in names and "proxy-arp-off" in names
    assert "wrong-peer-as" in {fault.id for fault in candidates(labs.PEERED, None, sandbox=False)}


def test_the_list_names_every_fault_and_what_heals_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli.live.faults, "stack_file", Path)
    monkeypatch.setattr(cli.live.faults, "load_stack_file", lambda _: SimpleNamespace(lab=labs.EGRESS))
    monkeypatch.setattr(cli.live.faults, "sandbox_of", lambda *_: None)
    assert lab("break", STACK, "--list") == 0
    said = capsys.readouterr().out
    assert all(name in said for name in FAULTS)
    assert "Not in this lab" in said and "within 90 s" in said
    page = (Path(__file__).parents[2] / "docs/faults.md").read_text()
    assert all(f"`{name}`" in page for name in FAULTS)
