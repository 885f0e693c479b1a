"""`./lab stop` and `./lab start` of EC2 machines, on moto."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from cli import project
from cli.errors import FAILED, MISSING, CommandError
from cli.lifecycle.backend import Backend, BackendError
from cli.lifecycle.power import switch
from components.aws_client import AwsSettings
from tests.support.cli import lab
from tests.support.moto_ec2 import REGION, Cloud, cloud

HERE = AwsSettings(REGION)


@pytest.fixture
def aws() -> Iterator[Cloud]:
    with cloud() as made:
        yield made


def machines(aws: Cloud, *names: str) -> dict[str, str]:
    made = aws.ec2.run_instances(ImageId=aws.image, MinCount=len(names), MaxCount=len(names))["Instances"]
    return {name: instance["InstanceId"] for name, instance in zip(names, made, strict=True)}


def states(aws: Cloud, nodes: dict[str, str]) -> set[str]:
    found: Any = aws.ec2.describe_instances(InstanceIds=list(nodes.values()))["Reservations"]
    return {instance["State"]["Name"] for reservation in found for instance in reservation["Instances"]}


def test_stop_and_start_and_a_second_time_changes_nothing(aws: Cloud) -> None:
    nodes, other = machines(aws, "one", "two"), machines(aws, "somebody's")
    address = aws.ec2.allocate_address(Domain="vpc")
    aws.ec2.associate_address(InstanceId=nodes["one"], AllocationId=address["AllocationId"])
    assert switch("stop", nodes, HERE) == ["one", "two"]
    assert states(aws, nodes) == {"stopped"} and states(aws, other) == {"running"}
    assert switch("stop", nodes, HERE) == []
    assert switch("start", nodes, HERE) == ["one", "two"]
    assert states(aws, nodes) == {"running"}
    assert switch("start", nodes, HERE) == []
    (kept,) = aws.ec2.describe_addresses()["Addresses"]
    assert (kept["PublicIp"], kept["InstanceId"]) == (address["PublicIp"], nodes["one"]), "the API's address stays"


def test_a_half_stopped_lab_is_finished(aws: Cloud) -> None:
    nodes = machines(aws, "one", "two")
    aws.ec2.stop_instances(InstanceIds=[nodes["one"]])
    assert switch("stop", nodes, HERE) == ["two"]


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_lost_machine_is_named_and_nothing_is_changed(aws: Cloud, forgotten: bool) -> None:
    nodes = machines(aws, "one", "two")
    if forgotten:
        nodes["two"] = "i-0123456789abcdef0"
    else:
        aws.ec2.terminate_instances(InstanceIds=[nodes["two"]])
    with pytest.raises(CommandError, match="machines of two are gone"):
        switch("stop", nodes, HERE)
    assert states(aws, {"one": nodes["one"]}) == {"running"}


def test_an_instance_that_is_still_stopping_is_started_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """EC2 refuses to start an instance that is still stopping."""
    calls: list[str] = []

    class Ec2:
        def get_paginator(self, _: str) -> Any:
            class Pages:
                def paginate(self, **_: object) -> list[dict[str, Any]]:
                    return [{"Reservations": [{"Instances": [{"InstanceId": "i-1", "State": {"Name": "stopping"}}]}]}]

            return Pages()

        def get_waiter(self, name: str) -> Any:
            class Waiter:
                def wait(self, **_: object) -> None:
                    calls.append(name)

            return Waiter()

        def start_instances(self, **_: object) -> None:
            calls.append("start")

    monkeypatch.setattr(boto3.Session, "get_credentials", lambda self: object())
    monkeypatch.setattr(boto3.Session, "client", lambda self, name, **_: Ec2())
    assert switch("start", {"one": "i-1"}, HERE) == ["one"]
    assert calls == ["instance_stopped", "start", "instance_running"]


def test_without_credentials_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boto3.Session, "get_credentials", lambda self: None)
    with pytest.raises(CommandError, match="no AWS credentials") as caught:
        switch("stop", {"one": "i-1"}, HERE)
    assert caught.value.code == MISSING


def test_an_unknown_profile_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(CommandError, match="nobody") as caught:
        switch("stop", {"one": "i-1"}, HERE)
    assert caught.value.code == FAILED


@pytest.mark.parametrize(
    ("stack", "reason"),
    [
        ("components", "machines.provider: existing"),
        ("nightly", "spot instance cannot be stopped"),
        ("nosuch", "there is no stack 'nosuch'"),
    ],
)
def test_a_lab_that_cannot_be_stopped_is_refused_with_the_reason(
    stack: str, reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lab("stop", stack) == 2
    said = capsys.readouterr().err
    assert said.startswith("lab stop: ") and reason in said and said.count("\n") == 1


@pytest.fixture
def a_stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Replaces the backend by one with the outputs, or the error, that the test sets."""
    monkeypatch.setattr(Backend, "__init__", lambda self, folder: None)
    monkeypatch.setattr("cli.lifecycle.power.is_known_absent", lambda stack: False)

    def answer(outputs: dict[str, Any] | BackendError) -> None:
        def read(self: Backend, stack: str) -> dict[str, Any]:
            if isinstance(outputs, BackendError):
                raise outputs
            return outputs

        monkeypatch.setattr(Backend, "outputs", read)

    yield answer


def test_a_whole_run_says_what_to_do_next(aws: Cloud, a_stack: Any, capsys: pytest.CaptureFixture[str]) -> None:
    a_stack({"nodes": machines(aws, "one", "two")})
    assert lab("stop", "cfos-egress") == 0
    assert "2 of 2 machines stopped now" in capsys.readouterr().out
    assert lab("start", "cfos-egress") == 0
    assert "2 of 2 machines running now" in capsys.readouterr().out


def test_a_stack_that_is_not_up_and_a_failing_backend(a_stack: Any, capsys: pytest.CaptureFixture[str]) -> None:
    a_stack({})
    assert lab("stop", "cfos-egress") == 2
    assert capsys.readouterr().err == "lab stop: cfos-egress has no machines yet; run ./lab up cfos-egress\n"
    assert lab("start", "nightly") == 2, "whether a spot instance still exists is for EC2 to say"
    assert "nightly has no machines yet" in capsys.readouterr().err
    a_stack(BackendError("no such bucket"))
    assert lab("start", "cfos-egress") == 1
    assert capsys.readouterr().err == "lab start: no such bucket\n"


@pytest.mark.parametrize("command", ["stop", "start", "unlock"])
@pytest.mark.parametrize("stack", ["cfos-egress", "local"])
def test_a_stack_that_was_never_up_needs_no_pulumi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, stack: str
) -> None:
    monkeypatch.setattr(project, "HOME", tmp_path)
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    for module in ("backend", "locks"):
        monkeypatch.setattr(f"cli.lifecycle.{module}.find_pulumi", lambda: pytest.fail("it looks for pulumi"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert lab(command, stack) == 2
    assert f"./lab up {stack}" in capsys.readouterr().err


def test_a_bad_stack_file_is_shown_as_plan_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stacks").mkdir()
    bad = {"config": {"cni-lab:lab": {"machines": {"provider": "azure"}}}}
    (tmp_path / "stacks" / "Pulumi.bad.yaml").write_text(yaml.safe_dump(bad))
    monkeypatch.setattr(project, "ROOT", tmp_path)
    assert lab("stop", "bad") == 2
    assert "azure" in capsys.readouterr().err
