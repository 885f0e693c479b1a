"""`./lab up` after a change of Calico's settings: it waits until the nodes follow."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from cli.errors import MISSING, CommandError
from cli.lifecycle import datapath
from components.spec.load import parse_lab
from components.verify.model import Topic
from components.verify.read.reading import LiveLab
from tests.spec.raw_labs import Raw, nodes, raw
from tests.verify import replica_labs as labs
from tests.verify.bed import bed
from tests.verify.clock import ReadingClock
from tests.verify.expect.labs import of, shipped
from tests.verify.replica import Replica

Bed = tuple[Replica, LiveLab]

BEFORE: Raw = {"nodes": nodes(2), "calico": {"bgp": "Enabled"}}
NUMBERED = [node | {"asNumber": 65001} for node in nodes(2)]


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        ({}, {}, False),
        ({}, {"calico": {"bgp": "Enabled", "wireguard": True}}, True),
        # The tunnel's MTU follows from the network's, unless Calico's own is given.
        ({}, {"network": {"mtu": 1400}}, True),
        ({"network": {"mtu": 1400}}, {}, True),
        ({"calico": {"mtu": 1300}}, {"calico": {"mtu": 1300}, "network": {"mtu": 1400}}, False),
        ({}, {"nodes": [nodes(2)[0], NUMBERED[1]]}, True),
        ({"nodes": NUMBERED}, {}, True),
        ({"nodes": NUMBERED}, {"nodes": NUMBERED[:1]}, False),
        # For a node that joins, `up` waits anyway.
        ({"nodes": NUMBERED[:1]}, {"nodes": NUMBERED}, False),
        ({}, {"nodes": [node | {"labels": {"rack": "a"}} for node in nodes(2)]}, False),
        ({}, {"kubernetes": {"version": "1.36.4"}}, False),
    ],
)
def test_what_nodes_have_to_follow(before: Raw, after: Raw, wanted: bool) -> None:
    assert datapath.has_to_follow(parse_lab(raw(**BEFORE | before)), parse_lab(raw(**BEFORE | after))) is wanted


def test_what_a_node_has_by_itself_is_waited_for_and_nothing_of_a_pod() -> None:
    all_of_bgp = shipped("cross-node").all
    waited = [expectation for expectation in all_of_bgp if datapath.is_of_node(expectation)]
    assert {expectation.topic for expectation in waited} == {Topic.LINK, Topic.ROUTE, Topic.BGP}
    assert {expectation.node for expectation in waited} == {"control1", "worker1", "worker2"}
    in_pods = {expectation.topic for expectation in all_of_bgp if expectation.pod is not None}
    assert in_pods >= {Topic.LINK, Topic.ROUTE} and not any(expectation.pod for expectation in waited)
    by_vxlan = {e.topic for e in shipped("cfos-egress").all if datapath.is_of_node(e)}
    assert by_vxlan == {Topic.LINK, Topic.ROUTE, Topic.NEIGHBOUR, Topic.FDB}
    assert Topic.ENCRYPTED in {e.topic for e in of(wireguard=True).all if datapath.is_of_node(e)}


@pytest.fixture(scope="module")
def lab() -> Iterator[Bed]:
    with bed(labs.CROSS_SUBNET, ssh=False) as it:
        yield it


READING_SECONDS = 30.0


@pytest.fixture
def clock(lab: Bed, monkeypatch: pytest.MonkeyPatch) -> ReadingClock:
    made = ReadingClock(READING_SECONDS)
    made.install(monkeypatch)
    monkeypatch.setattr(datapath, "live", lambda _: lab[1])
    return made


@pytest.fixture
def tunnel(lab: Bed) -> Iterator[Callable[[str], None]]:
    """Sets the MTU of a node's tunnel: "late" is another encapsulation's, on which no ping is lost."""
    replica, _ = lab
    node = replica.lab.nodes[0].name
    right = replica.exec(node, ["cat", "/sys/class/net/vxlan.calico/mtu"]).stdout.strip()

    def set_mtu(which: str) -> None:
        mtu = "1400" if which == "late" else right
        assert replica.exec(node, ["ip", "link", "set", "vxlan.calico", "mtu", mtu]).returncode == 0

    yield set_mtu
    set_mtu("right")


def test_up_waits_for_a_node_that_follows_late(
    clock: ReadingClock, tunnel: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    tunnel("late")
    clock.before = {3: lambda: tunnel("right")}
    datapath.wait_for_datapath("lab")
    assert clock.readings == 3 and clock.now == 3 * READING_SECONDS + 2 * 5
    head, line = capsys.readouterr().err.splitlines()
    assert head == "lab up: waiting until every node follows the change of Calico's settings"
    assert line.startswith("lab up: after 30 s of 90 s: 1 of ") and "vxlan.calico" in line


def test_what_never_comes_is_named_with_the_next_command(
    clock: ReadingClock, tunnel: Callable[[str], None], capsys: pytest.CaptureFixture[str]
) -> None:
    tunnel("late")
    datapath.wait_for_datapath("lab")
    assert (clock.readings, clock.now) == (3, 100), "one reading more than the time has, at most"
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("lab up: after 90 s: 1 of ") and "vxlan.calico" in last
    assert last.endswith("Fix: ./lab verify lab")


def test_the_mtu_of_a_running_pod_is_not_waited_for(
    lab: Bed, clock: ReadingClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is that of the encapsulation in which the pod started."""
    replica, _ = lab
    pod = next(pod for pod in replica.plan.pods if not pod.host_network)
    shown = replica.pod_exec(pod, ["cat", "/sys/class/net/eth0/mtu"]).stdout.strip()
    assert replica.pod_exec(pod, ["ip", "link", "set", "eth0", "mtu", "1400"]).returncode == 0
    try:
        datapath.wait_for_datapath("lab")
    finally:
        assert replica.pod_exec(pod, ["ip", "link", "set", "eth0", "mtu", shown]).returncode == 0
    assert clock.readings == 1 and len(capsys.readouterr().err.splitlines()) == 1


def test_a_lab_that_cannot_be_read_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def down(_: str) -> LiveLab:
        raise CommandError("its machines are stopped", MISSING)

    monkeypatch.setattr(datapath, "live", down)
    datapath.wait_for_datapath("lab")
    assert "was not looked at" in (said := capsys.readouterr().err) and "its machines are stopped" in said
