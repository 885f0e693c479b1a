"""`./lab list`: every stack, whether it stands, and what it costs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import cli.project
from cli.list import command as module
from components.spec.load import StackFile
from tests.support import fake_pulumi
from tests.support.cli import lab
from tests.support.graphs import ROOT

STACK = {"type": "pulumi:pulumi:Stack", "urn": "urn:stack"}
MADE = [
    STACK,
    {"type": "cnilab:index:Lab", "urn": "urn:lab", "created": "2026-11-20T09:30:00Z"},
    {"type": "tls:index/privateKey:PrivateKey", "urn": "urn:key", "created": "2026-11-19T23:00:00Z"},
]


def entry(name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "current": False,
        "updateInProgress": False,
        "lastUpdate": "2026-11-21T10:00:00.000Z",
        "resourceCount": 3,
        **more,
    }


@pytest.fixture
def stacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "project"
    (root / "stacks").mkdir(parents=True)
    for stack in ("local", "cfos-egress"):
        shutil.copy(ROOT / f"stacks/Pulumi.{stack}.yaml", root / "stacks")
    monkeypatch.setattr(cli.project, "ROOT", root)
    monkeypatch.setenv("TZ", "UTC")

    def price(file: StackFile) -> float:
        return 0.2745 if file.lab.machines.in_vpc else 0.0

    monkeypatch.setattr(module, "hourly", price)
    return root / "stacks"


def rows(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, Any]]:
    assert lab("list", "--json") == 0
    return {row["stack"]: row for row in json.loads(capsys.readouterr().out)}


def test_what_stands_and_since_when(
    stacks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = [entry("local"), entry("gone", resourceCount=0), entry("elsewhere", updateInProgress=True)]
    resources = {"local": MADE, "gone": [STACK], "elsewhere": MADE[:2]}
    fake_pulumi.install(tmp_path, monkeypatch, list=known, resources=resources)
    found = rows(capsys)
    assert list(found) == ["cfos-egress", "local", "elsewhere"]
    assert found["local"] == {
        "stack": "local",
        "where": "this computer",
        "nodes": 3,
        "up": True,
        "since": "2026-11-19T23:00:00Z",
        "updating": False,
        "sandboxSince": None,
        "usdPerHour": 0.0,
        "problem": "",
    }
    assert found["cfos-egress"]["up"] is False and found["cfos-egress"]["where"] == "EC2 us-west-2"
    assert found["elsewhere"]["updating"] and found["elsewhere"]["problem"] == "no file in stacks/"
    assert lab("list") == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == "cfos-egress EC2 us-west-2 3 - - 0.27"
    assert lines[2] == "local this computer 3 2026-11-19 23:00 - -"


def test_without_a_state_it_needs_no_pulumi(
    stacks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli.project, "HOME", tmp_path / "nothing")
    monkeypatch.setenv("PATH", "/nowhere")
    assert [row["up"] for row in rows(capsys).values()] == [False, False]


def test_a_file_that_is_not_valid_is_one_row(
    stacks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_pulumi.install(tmp_path, monkeypatch)
    (stacks / "Pulumi.bad.yaml").write_text("config: {'cni-lab:lab': {machines: {provider: azure}}}\n")
    found = rows(capsys)
    assert found["bad"]["problem"] == "not valid: 1 finding; ./lab plan bad shows them"
    assert found["local"]["problem"] == ""


def test_a_state_that_cannot_be_read_is_named_and_the_rest_is_listed(
    stacks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_pulumi.install(tmp_path, monkeypatch, list=[entry("local")])
    (tmp_path / "answers.json").write_text("{}")
    assert lab("list") == 0
    out = capsys.readouterr().out
    assert "not known" in out and "note: the state cannot be read" in out


def test_a_sandbox_is_listed(
    stacks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_pulumi.install(tmp_path, monkeypatch)

    def found(_: list[str]) -> dict[str, str]:
        return {"local": "2026-11-22T08:15:00Z", "tidy": ""}

    monkeypatch.setattr(module, "_sandboxes", found)
    listed = rows(capsys)
    assert listed["local"]["sandboxSince"] == "2026-11-22T08:15:00Z"
    assert listed["tidy"]["problem"] == "no file in stacks/"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_another_users_state_is_not_taken_for_an_empty_one(
    stacks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / "closed"
    home.mkdir(mode=0o000)
    monkeypatch.setattr(cli.project, "HOME", home)
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    assert lab("list") == 0
    out = capsys.readouterr().out
    assert "not known" in out and "Permission denied" in out
