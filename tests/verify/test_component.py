"""`verify: true`: the last step of `up` reads the lab and keeps the report as an output."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from components.verify import __main__ as program
from tests.support.graphs import run_lab
from tests.verify import replica_labs as labs
from tests.verify.bed import bed

LAB = {
    "machines": {"provider": "local"},
    "workloads": [{"name": "w", "image": "docker.io/library/busybox:1.37", "replicas": 2}],
}


def test_it_is_the_last_step_and_waits_for_all_it_needs() -> None:
    graph = run_lab(LAB | {"verify": True})
    read = graph.one("command:local:Command", "-verification")
    assert all(graph.waits(read, workload) for workload in graph.objects("Deployment"))
    assert read.inputs["stdin"] == "<secret>", "it contains keys and the kubeconfig"
    assert "verification" in graph.deployment.outputs
    assert not [r.name for r in graph.deployment.resources if read.urn in r.dependencies]


def test_the_report_is_an_output_and_not_secret() -> None:
    graph = run_lab(LAB | {"verify": True}, dry_run=False)
    assert graph.deployment.outputs["verification"] == {}, "what the simulated command printed"


def test_without_the_key_there_is_no_such_step() -> None:
    graph = run_lab(LAB)
    assert "verification" not in graph.deployment.outputs
    assert not [r.name for r in graph.deployment.resources if "verification" in r.name]


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stack: dict[str, Any]) -> dict[str, Any]:
    monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(stack)))
    assert program.main() == 0
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_the_report_names_what_does_not_pass_and_nothing_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(program, "WAIT_SECONDS", 0.0)
    with bed(labs.CROSS_SUBNET) as (replica, live):
        stack = replica.outputs | {
            "lab": replica.lab.model_dump(mode="json", by_alias=True),
            "name": "replica",
            "nodes": dict(live.instances),
            "region": live.aws.region,
        }
        whole = run(monkeypatch, capsys, stack)
        assert (whole["failed"], whole["unknown"], whole["checks"]) == (0, 0, [])
        assert whole["passed"] > 50
        assert replica.exec("worker1", ["sysctl", "-qw", "net.ipv4.ip_forward=0"]).returncode == 0
        broken = run(monkeypatch, capsys, stack)
    assert "worker1/ip_forward/all" in [check["id"] for check in broken["checks"]]
    assert all(check["status"] != "passed" and check["fix"] for check in broken["checks"])
    text = json.dumps(broken)
    assert "PRIVATE KEY" not in text and "client-key-data" not in text
