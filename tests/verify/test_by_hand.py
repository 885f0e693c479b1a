"""What somebody changed on a node by hand, and `break` does not: where a walk stops, and what verify notices."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from ipaddress import ip_network

import pytest

from components.sandbox import life
from components.sandbox.requirements import examine
from components.spec.load import parse_lab
from components.verify.faults.inject import inject, mend
from components.verify.faults.symptoms import aim, symptoms
from components.verify.faults.table import FAULTS
from components.verify.model import Pod
from components.verify.read.namespace import NamespaceAccess
from components.verify.read.reading import LiveLab, observed, read_cluster, read_lab
from components.verify.report import verify
from components.verify.walk.live import walk_live
from components.verify.walk.model import Walk

if examine().problem:
    pytest.skip(f"no sandbox can be built here: {examine().problem}", allow_module_level=True)

HERE, THERE = "ip-10-0-2-200", "ip-10-0-2-201"
LAB = {
    "machines": {"provider": "local"},
    # Two ways between the workers.
    "calico": {
        "pools": [
            {"name": "first", "cidr": "10.244.0.0/17", "blockSize": 24},
            {"name": "second", "cidr": "10.244.128.0/17", "blockSize": 24, "encapsulation": "VXLANCrossSubnet"},
        ]
    },
    "workloads": [{"name": "web", "image": "docker.io/library/busybox:1.37", "replicas": 4}],
}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveLab]:
    running = life.build("hand", parse_lab(LAB), tmp_path_factory.mktemp("sandbox"), stay=False)
    try:
        yield LiveLab.of(running.plan.lab, running.outputs, None)
    finally:
        running.stop()


def walked(live: LiveLab, source: str, target: str) -> Walk:
    return asyncio.run(walk_live(live, source, target)).walk


def failed(live: LiveLab) -> dict[str, str]:
    """Key → difference of what verify does not let pass."""
    found = verify(live, asyncio.run(read_lab(live)))
    return {it.expectation.key: it.difference for it in found if it.status != "passed"}


def changed(live: LiveLab, node: str, script: str) -> str:
    """What a script prints that changes a node."""
    access = live.access[node]
    assert isinstance(access, NamespaceAccess)
    done = subprocess.run(access.command(["bash", "-ec", script]), capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout


def pod_mac(live: LiveLab, pod: Pod) -> str:
    [link] = json.loads(changed(live, pod.node, f"ip -n {pod.netns} -j link show eth0"))
    return str(link["address"])


def test_an_entry_with_another_mac_than_the_pod_s(live: LiveLab) -> None:
    """The node's, which it has learnt or somebody wrote: the pod drops what comes."""
    pod = walked(live, f"web@{HERE}", f"web@{THERE}").target
    assert pod is not None
    there = f"{pod.address} dev {pod.interface}"
    changed(live, THERE, f"ip neigh replace {there} lladdr 02:00:00:00:00:99 nud permanent")
    try:
        found = walked(live, f"web@{HERE}", f"web@{THERE}")
    finally:
        changed(live, THERE, f"ip neigh del {there}")
    assert found.ping.status == "failed" and found.stopped is not None
    assert (found.stopped.kind, found.stopped.node) == ("delivery", THERE)
    assert [it.difference for it in found.stopped.checks if it.status == "failed"] == [
        f"lladdr is 02:00:00:00:00:99, expected {pod_mac(live, pod)}"
    ]


def test_a_node_without_a_default_route_answers_for_no_gateway(live: LiveLab) -> None:
    """The kernel answers for others only what it would forward."""
    pod = walked(live, f"web@{HERE}", f"web@{THERE}").source
    route = changed(live, HERE, "ip route show default").strip()
    changed(live, HERE, f"ip route del default; ip netns exec {pod.netns} ip neigh flush dev eth0")
    try:
        found = walked(live, f"web@{HERE}", f"web@{THERE}")
    finally:
        changed(live, HERE, f"ip route add {route}")
    assert found.stopped is not None and found.stopped.kind == "gateway arp"
    assert "no route leads to 169.254.1.1" in [it.difference for it in found.stopped.checks]
    assert walked(live, f"web@{HERE}", f"web@{THERE}").holds


def test_a_host_side_that_takes_smaller_packets_than_the_pod_sends(live: LiveLab) -> None:
    pod = walked(live, f"web@{HERE}", f"web@{THERE}").source
    changed(live, HERE, f"ip link set {pod.interface} mtu 1000")
    try:
        found, of_verify = walked(live, f"web@{HERE}", f"web@{THERE}"), failed(live)
    finally:
        changed(live, HERE, f"ip link set {pod.interface} mtu 8951")
    assert found.stopped is not None and found.stopped.kind == "host veth"
    assert of_verify == {pod.interface: "mtu is 1000, expected 8951"}


def test_a_route_that_comes_before_the_right_one(live: LiveLab) -> None:
    block = live.blocks[THERE][0]
    changed(live, HERE, f"ip route prepend blackhole {block}")
    try:
        of_verify = failed(live)
    finally:
        changed(live, HERE, f"ip route del blackhole {block}")
    assert of_verify[block].startswith("via is (nothing)")
    assert failed(live) == {}


@pytest.mark.parametrize("own", [0, 2])
def test_the_larger_rp_filter_counts(own: int, live: LiveLab) -> None:
    """Ubuntu and systemd set 2 on every interface. Then a 1 of `all` alone drops nothing, and `break` sets both."""
    both = "/proc/sys/net/ipv4/conf/{eth0,vxlan.calico}/rp_filter"
    changed(live, HERE, f"echo {own} | tee {both}")
    try:
        assert failed(live) == {}
        changed(live, HERE, "echo 1 >/proc/sys/net/ipv4/conf/all/rp_filter")
        strict = {"eth0": "value is 1, expected 0 or 2", "vxlan.calico": "value is 1, expected 0 or 2"}
        assert {key: text for key, text in failed(live).items() if key in strict} == ({} if own else strict)
        changed(live, HERE, "echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter")
        fault, of = FAULTS["rp-filter-strict"], observed(live, asyncio.run(read_cluster(live)))
        target = aim(fault, of, HERE)
        seen = symptoms(fault, of, target)
        asyncio.run(inject(live, "hand", fault, target))
        assert seen.walk is not None
        assert set(strict) <= set(failed(live))
        found = walked(live, *seen.walk)
        assert found.ping.status == "failed" and found.stopped is not None
        assert (found.stopped.kind, found.stopped.node) == ("arrival", HERE)
        assert not asyncio.run(mend(live, "hand")).failed
        assert changed(live, HERE, f"cat {both}").split() == [str(own)] * 2
        assert failed(live) == {}
    finally:
        changed(live, HERE, f"echo 0 | tee {both}")


def test_one_interface_that_drops_what_comes_another_way(live: LiveLab) -> None:
    changed(live, HERE, "echo 1 >/proc/sys/net/ipv4/conf/vxlan.calico/rp_filter")
    try:
        assert failed(live)["vxlan.calico"] == "value is 1, expected 0 or 2"
    finally:
        changed(live, HERE, "echo 0 >/proc/sys/net/ipv4/conf/vxlan.calico/rp_filter")


def test_an_address_of_a_block_that_no_pod_has(live: LiveLab) -> None:
    """As that of a pod which is gone. Its node drops what is sent there; another node sends it on."""
    [(here, address), (_, of_other)] = [(n, str(ip_network(live.blocks[n][0])[-2])) for n in (HERE, THERE)]
    found = walked(live, f"web@{here}", address)
    assert found.stopped is not None and (found.stopped.kind, found.stopped.node) == ("host route", here)
    [check] = found.stopped.checks
    assert check.difference == "this route drops the packet (blackhole)"
    assert check.seen.startswith(f"blackhole {live.blocks[here][0]}")
    further = walked(live, f"web@{here}", of_other)
    assert further.hops[-1].sentence == f"vxlan.calico takes it, and no pod of the lab has {of_other}"
