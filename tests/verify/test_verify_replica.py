"""verify on replicas: an intact lab passes in each mode; what cannot be read is named, and the rest is checked."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from dataclasses import replace

import pytest

from components.spec.models import Lab
from components.verify.read.reading import LiveLab, read_cluster, read_nodes
from tests.verify import replica_labs as labs
from tests.verify.bed import bad, bed, counted, give_bird, read
from tests.verify.replica import Replica, standing

MODES = {
    "vxlan": labs.VXLAN,
    "none": labs.NONE,
    "none-routed": labs.NONE_ROUTED,
    "cross-subnet": labs.CROSS_SUBNET,
    "mixed": labs.MIXED,
    "ipip": labs.IPIP,
    "wireguard": labs.WIREGUARD,
    "egress": labs.EGRESS,
}


@pytest.mark.parametrize("mode", MODES)
def test_an_intact_lab_passes_over_one_connection_for_each_node(mode: str) -> None:
    lab: Lab = MODES[mode]
    with bed(lab) as (_, live), counted() as connections:
        reading, results = read(live)
    assert bad(results) == {} and not reading.no_api and not reading.unreachable
    assert sorted(connections) == sorted((access.host, access.port) for access in live.access.values())
    topics = {result.expectation.topic for result in results}
    assert {"link", "route", "proxy_arp", "probe", "affinity", "pool", "annotation", "source_dest"} <= topics
    assert ("fdb" in topics) == any(pool.encapsulation.startswith("VXLAN") for pool in lab.calico.pools)
    assert ("file" in topics) == (lab.multus is not None)
    assert ("bgp" in topics) == (lab.calico.bgp == "Enabled")


@pytest.fixture(scope="module")
def vxlan() -> Iterator[tuple[Replica, LiveLab]]:
    with bed(labs.VXLAN) as it:
        yield it


def test_a_node_that_does_not_answer_does_not_hide_the_others(vxlan: tuple[Replica, LiveLab]) -> None:
    _, live = vxlan
    away = replace(live, access={**live.access, "worker1": replace(live.access["worker1"], port=1)})
    reading, results = read(away)
    assert set(reading.unreachable) == {"worker1"} and set(reading.nodes) == {"control1", "worker2"}
    assert "worker1" in {r.expectation.node for r in results if r.status == "unknown"}
    assert {r.expectation.node for r in results if r.status == "unknown"} == {"worker1"}
    assert all("does not answer" in r.difference for r in results if r.status == "unknown")
    assert not [r for r in results if r.status == "failed"]


def test_a_node_with_another_nodes_host_key_is_not_read(vxlan: tuple[Replica, LiveLab]) -> None:
    _, live = vxlan
    other = replace(live.access["worker1"], host_key=live.access["worker2"].host_key)
    reading, _ = read(replace(live, access={**live.access, "worker1": other}))
    assert "shows another host key than the lab's" in reading.unreachable["worker1"]


def test_a_node_that_up_has_not_made_is_named(vxlan: tuple[Replica, LiveLab]) -> None:
    _, live = vxlan
    access = {node: it for node, it in live.access.items() if node != "worker2"}
    reading, results = read(replace(live, access=access))
    assert "`up` has not made it yet" in reading.unreachable["worker2"]
    assert {r.expectation.node for r in results if r.status == "unknown"} == {"worker2"}


@pytest.mark.parametrize("how", ["expired", "dead", "garbage"])
def test_without_the_api_the_nodes_are_still_read(vxlan: tuple[Replica, LiveLab], how: str) -> None:
    replica, live = vxlan
    config = {
        "expired": replica.expired_kubeconfig,
        "dead": live.kubeconfig.replace("https://127.0.0.1:", "https://127.0.0.1:1#"),
        "garbage": "no: kubeconfig",
    }[how]
    reading, results = read(replace(live, kubeconfig=config))
    assert {"expired": "expired", "dead": "does not answer", "garbage": "cannot be used"}[how] in reading.no_api
    assert set(reading.nodes) == set(live.access)
    unknown = {r.expectation.topic for r in results if r.status == "unknown"}
    assert {"pool", "affinity", "annotation", "node"} <= unknown
    passed = {(r.expectation.node, r.expectation.topic) for r in results if r.status == "passed"}
    assert {("worker1", topic) for topic in ("link", "route", "ip_forward", "filter")} <= passed
    assert not [r for r in results if r.status == "failed"], bad(results)


def test_an_expired_server_certificate_is_named(vxlan: tuple[Replica, LiveLab]) -> None:
    replica, live = vxlan
    replica.serve_certificate(days=-2)
    try:
        reading, _ = read(live)
    finally:
        replica.serve_certificate()
    assert "expired" in reading.no_api and set(reading.nodes) == set(live.access)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b'{"a": "b\\\\n\\n\\u00e9 \xe2\x80\xa8 \\\\"}', '{"a": "b\\\\n\\n\\u00e9 \\u2028 \\\\"}'),
        (b'{\r\n"a":\r\n1}\r\n', '{"a": 1}'),
        (b"\n", "(empty)"),
        (b"", "(empty)"),
        (b'{"a": 1}\0{}', "(not JSON)"),
        (b'{"a": "\x1e\x1f0\n"}', "(not JSON)"),
        (b'{"a": "' + b"b" * 70000 + b'"}', "(not JSON)"),
    ],
    ids=["backslashes", "lines of Windows", "a line", "empty", "a NUL", "what separates sections", "long"],
)
def test_whatever_a_cni_file_has_is_read_as_it_is(vxlan: tuple[Replica, LiveLab], content: bytes, line: str) -> None:
    replica, live = vxlan
    path = "/etc/cni/net.d/99-odd.conf"
    words = base64.b64encode(content).decode()
    assert replica.exec("worker1", ["bash", "-c", f"base64 -d <<<'{words}' >{path}"]).returncode == 0
    try:
        reading = asyncio.run(read_cluster(live))
        asyncio.run(read_nodes(live, reading, ["worker1"], ping=False))
    finally:
        assert replica.exec("worker1", ["rm", path]).returncode == 0
    assert reading.nodes["worker1"].get("file", path)[0].line.startswith(line)
    assert not reading.nodes["worker1"].unread


def test_a_session_that_is_down_is_named() -> None:
    with bed(labs.NONE) as (replica, live):
        give_bird(replica, "worker1", "Active")
        _, results = read(live)
    assert sorted(bad(results)) == ["worker1/bgp/10.0.1.20", "worker1/bgp/10.0.1.31"]
    assert all("state is Active, expected Established" in it for it in bad(results).values())


def test_a_node_whose_sshd_stops_does_not_answer() -> None:
    with standing(labs.CROSS_SUBNET) as replica:
        live = replace(LiveLab.of(replica.lab, replica.outputs, None), instances={})
        replica.stop_sshd("worker2")
        reading, results = read(live)
    assert set(reading.unreachable) == {"worker2"}
    assert {r.expectation.node for r in results if r.status == "failed"} == set(), bad(results)
