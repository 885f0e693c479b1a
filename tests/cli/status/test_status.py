"""`./lab status`: what stands of one stack, and what comes next."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli import project
from cli.live.last_verify import last, remember
from tests.cli.list.test_list import MADE, entry
from tests.support import fake_pulumi
from tests.support.cli import lab

BLOCKS = {"ip1001100": ["10.244.6.0/24"], "ip-10-0-2-200": ["10.244.9.0/24"], "ip-10-0-2-201": ["10.244.7.0/24"]}


@pytest.fixture
def port() -> Iterator[int]:
    """A port of this computer that accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def outputs(port: int) -> dict[str, Any]:
    def machine(at: int, jump: Any = None) -> dict[str, Any]:
        return {"host": "127.0.0.1", "port": at, "user": "u", "privateKey": "", "hostKey": "", "jump": jump}

    access = {
        "ip1001100": machine(port),
        "ip-10-0-2-200": machine(closed_port()),
        "ip-10-0-2-201": machine(22, {"host": "127.0.0.1", "port": port}),
    }
    cluster = {"clusters": [{"cluster": {"server": f"https://127.0.0.1:{port}"}}]}
    return {"access": access, "kubeconfig": json.dumps(cluster), "blocks": BLOCKS}


def test_a_lab_that_is_not_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_pulumi.install(tmp_path, monkeypatch)
    assert lab("status", "local") == 0
    out = capsys.readouterr().out
    assert "lab       not up" in out and "sandbox   none" in out
    assert "pods foreseen in 10.244.6.0/24" in out
    assert out.endswith("Next\n  ./lab sandbox local\n  ./lab plan local\n  ./lab up local\n")


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The states of local machines by node. They run unless a test says otherwise."""
    found: dict[str, str] = dict.fromkeys(BLOCKS, "running")
    monkeypatch.setattr("cli.status.command.states", lambda stack, lab, nodes: {n: found[n] for n in nodes})
    return found


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, port: int, machines: dict[str, str]) -> None:
    """The stack `local` is up, and what of it answers listens on `port`."""
    known = {"resources": {"local": MADE}, "outputs": {"local": outputs(port)}}
    fake_pulumi.install(tmp_path, monkeypatch, list=[entry("local")], **known)


@pytest.mark.parametrize(("state", "follows"), [("stopped", "start local"), ("gone", "up local --repair")])
def test_machines_that_do_not_run_are_not_asked(
    state: str, follows: str, made: None, machines: dict[str, str], port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    machines["ip1001100"] = state
    assert lab("status", "local") == 0
    out = capsys.readouterr().out
    assert f"ip1001100: 127.0.0.1:{port} is {state}" in out and f"the API at 127.0.0.1:{port} answers" in out
    assert f"Next\n  ./lab {follows}\n" in out
    machines |= dict.fromkeys(machines, state)
    assert lab("status", "local") == 0
    out = capsys.readouterr().out
    assert out.count(f"is {state}") == 3 and f"the API at 127.0.0.1:{port} was not asked" in out


def stop_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To root: a docker that is installed and does not run. Comes after fake_pulumi, which sets PATH."""
    docker = tmp_path / "engine" / "docker"
    docker.parent.mkdir()
    docker.write_text("#!/bin/sh\necho 'Cannot connect to the Docker daemon' >&2\nexit 1\n")
    docker.chmod(0o755)
    monkeypatch.setenv("PATH", str(docker.parent), prepend=os.pathsep)
    monkeypatch.setattr("cli.live.machines.possible_engines", lambda settings: ("docker",))
    monkeypatch.setattr("cli.live.machines.os.geteuid", lambda: 0)


def test_a_lab_that_is_not_up_needs_no_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_pulumi.install(tmp_path, monkeypatch)
    stop_engine(tmp_path, monkeypatch)
    assert lab("status", "local") == 0
    out = capsys.readouterr().out
    assert "lab       not up" in out and "sandbox   none" in out and "Docker" not in out


def test_an_engine_that_does_not_run_is_named_and_no_machine_is_asked(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"resources": {"local": MADE}, "outputs": {"local": outputs(port)}}
    fake_pulumi.install(tmp_path, monkeypatch, list=[entry("local")], **known)
    stop_engine(tmp_path, monkeypatch)
    assert lab("status", "local") == 0
    out = capsys.readouterr().out
    said = "docker does not list its containers (Cannot connect to the Docker daemon): repair it first"
    assert f"machines  not known: {said}" in out and "lab       up since" in out and "sandbox   none" in out
    assert "half up" not in out and str(port) not in out
    assert lab("status", "local", "--json") == 0
    assert json.loads(capsys.readouterr().out)["problem"] == said


def test_a_lab_that_stands(
    made: None, port: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    remember("local", {"passed": 7, "failed": 1, "unknown": 0}, sandbox=False)
    assert lab("status", "local") == 0
    out = capsys.readouterr().out
    assert "pods in 10.244.9.0/24" in out and "foreseen" not in out
    assert "up since 2026-11-19 23:00, last changed 2026-11-21 10:00, 2 resources" in out
    assert f"ip1001100: 127.0.0.1:{port} answers" in out
    assert "does not answer within 3 s" in out
    assert f"ip-10-0-2-201: 127.0.0.1:22 through 127.0.0.1:{port} was not asked" in out
    assert f"the API at 127.0.0.1:{port} answers" in out
    assert "7 passed, 1 failed, 0 unknown" in out
    assert lab("status", "local", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["up"] is True and document["verified"]["failed"] == 1 and document["sandbox"] is None
    assert [it["answers"] for it in document["machines"].values()] == [True, False, None]
    assert "privateKey" not in json.dumps(document)


def test_a_lab_whose_up_ended_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_pulumi.install(tmp_path, monkeypatch, list=[entry("local")], resources={"local": MADE})
    assert lab("status", "local") == 0
    assert "half up: its last `up` did not get as far as the machines (2 resources)" in capsys.readouterr().out


def test_an_update_that_runs_is_named(made: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = tmp_path / "answers.json"
    known = json.loads(answers.read_text()) | {"list": [entry("local", updateInProgress=True)]}
    answers.write_text(json.dumps(known))
    assert lab("status", "local") == 0
    assert "an update runs now, or was killed" in capsys.readouterr().out


def test_a_state_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_pulumi.install(tmp_path, monkeypatch, list=[entry("local")])
    (tmp_path / "answers.json").write_text("{}")
    assert lab("status", "local") == 0
    assert "not known: " in capsys.readouterr().out


def test_what_verify_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "HOME", tmp_path / "home")
    assert last("local", sandbox=False) is None
    remember("local", {"passed": 1, "failed": 2, "unknown": 3}, sandbox=True)
    found = last("local", sandbox=True)
    assert found is not None and (found.passed, found.failed, found.unknown) == (1, 2, 3)
    assert last("local", sandbox=False) is None
    (tmp_path / "home/verify/local.sandbox.json").write_text("not JSON")
    assert last("local", sandbox=True) is None
    # What cannot be written is left out.
    monkeypatch.setattr(project, "HOME", tmp_path / "home/verify/local.sandbox.json")
    remember("local", {"passed": 1, "failed": 2, "unknown": 3}, sandbox=True)
