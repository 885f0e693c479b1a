"""Findings of verify become options that make pulumi run the right steps again."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from cli.errors import USAGE, CommandError
from cli.lifecycle import repair
from components.verify.model import Expectation, Repair, Result, Topic
from tests.verify import replica_labs as labs
from tests.verify.bed import bed
from tests.verify.replica import Replica

STACK = "cfos-egress"
AFFINITIES = "/apis/crd.projectcalico.org/v1/blockaffinities"


def failed(topic: Topic, key: str = "x", node: str | None = "worker1", repair: Repair | None = None) -> Result:
    expectation = Expectation(
        topic=topic,
        key=key,
        expected={},
        sentence="s",
        command="c",
        because="b",
        cause="c",
        repair=repair,
        advice="a",
        node=node,
    )
    return Result(expectation, "failed", "", "gone")


def test_each_step_is_repeated_once() -> None:
    found = [
        failed(Topic.FILE, "a", repair=Repair.FILES),
        failed(Topic.FILE, "b", repair=Repair.FILES),
        failed(Topic.CRIO, repair=Repair.FILES),
        failed(Topic.AFFINITY, node=None, repair=Repair.BLOCKS),
        failed(Topic.POOL, node=None, repair=Repair.REFRESH),
        failed(Topic.RESERVATION, node=None, repair=Repair.REFRESH),
        failed(Topic.FDB),
    ]
    options, left = repair.steps_for(found)
    files, blocks = "**::lab-node-files-worker1", "**::lab-calico-blocks"
    assert options == ["--replace", files, "--replace", blocks, "--refresh"]
    assert [result.expectation.topic for result in left] == [Topic.FDB]
    assert repair.steps_for([]) == ([], [])


@pytest.fixture(scope="module")
def replica() -> Iterator[Replica]:
    with bed(labs.EGRESS, ssh=False) as (made, _):
        yield made


def stands(monkeypatch: pytest.MonkeyPatch, outputs: dict[str, Any]) -> None:
    monkeypatch.setattr(repair, "outputs", lambda stack: outputs)


def test_a_block_that_moved_is_read_again_by_the_next_up(
    replica: Replica, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stands(monkeypatch, replica.outputs)
    assert repair.moved(STACK) == []
    one = next(a for a in replica.api.objects[AFFINITIES] if a["spec"]["node"] == "ip-10-0-2-200")
    one["spec"]["cidr"] = "10.244.98.0/24"
    try:
        assert repair.moved(STACK) == ["--replace", "**::lab-calico-blocks"]
        assert "10.244.97.0/24 of ip-10-0-2-200" in capsys.readouterr().err
    finally:
        one["spec"]["cidr"] = "10.244.97.0/24"


def test_without_an_api_or_a_lab_nothing_has_moved(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    stands(monkeypatch, replica.outputs | {"kubeconfig": replica.expired_kubeconfig})
    assert repair.moved(STACK) == []
    stands(monkeypatch, {})
    assert repair.moved(STACK) == []

    def absent(stack: str) -> dict[str, Any]:
        raise CommandError("no stack", USAGE)

    monkeypatch.setattr(repair, "outputs", absent)
    assert repair.moved(STACK) == []


def test_with_host_local_a_block_is_the_nodes_pod_cidr(replica: Replica, monkeypatch: pytest.MonkeyPatch) -> None:
    host_local = SimpleNamespace(lab=SimpleNamespace(calico=SimpleNamespace(ipam="HostLocal")))
    monkeypatch.setattr(repair, "load_stack_file", lambda path: host_local)
    cidrs = {item["metadata"]["name"]: [item["spec"]["podCIDR"]] for item in replica.api.objects["/api/v1/nodes"]}
    stands(monkeypatch, replica.outputs | {"blocks": cidrs})
    assert repair.moved(STACK) == []
    stands(monkeypatch, replica.outputs | {"blocks": cidrs | {"ip1001100": ["10.244.99.0/24"]}})
    assert repair.moved(STACK) == ["--replace", "**::lab-calico-blocks"]
