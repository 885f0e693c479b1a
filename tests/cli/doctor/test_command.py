"""`./lab doctor`, and the same checks before `up` and `preview`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.doctor import command
from cli.doctor.command import examine_before
from cli.doctor.model import Answer, Check
from cli.errors import FAILED, USAGE, CommandError
from components.spec.load import load_stack_file
from tests.support.cli import lab
from tests.support.graphs import ROOT

LOCAL = ROOT / "stacks" / "Pulumi.local.yaml"


def give(monkeypatch: pytest.MonkeyPatch, *answers: Answer, for_preview: bool = False) -> None:
    made = [
        Check(f"made.{n}", "Is it?", lambda answer=answer: answer, for_preview)  # type: ignore[misc]
        for n, answer in enumerate(answers)
    ]
    monkeypatch.setattr(command, "checks", lambda file, state=None, labs=1: made)


FINE, ODD = Answer("ok", "fine"), Answer("warn", "odd", "look at it")
BAD, WORSE = Answer("stop", "bad", "repair it"), Answer("stop", "worse?", "leave it")


def test_the_page_has_every_check_with_question_and_fix(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give(monkeypatch, FINE, ODD, BAD, Answer("unknown", "silent", "repeat"))
    assert lab("doctor", "local") == FAILED
    out = capsys.readouterr().out
    assert "local: 4 checks, 1 ok, 1 warning, 1 STOP, 1 unknown" in out
    assert "STOP    made.2" in out and "Fix: repair it" in out and out.count("Is it?") == 3
    give(monkeypatch, FINE, ODD)
    assert lab("doctor", "local") == 0


def test_json_of_one_stack_and_of_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    give(monkeypatch, BAD)
    assert lab("doctor", "local", "--json") == FAILED
    assert json.loads(capsys.readouterr().out) == {
        "stack": "local",
        "checks": [{"name": "made.0", "question": "Is it?", "verdict": "stop", "seen": "bad", "fix": "repair it"}],
    }
    lab("doctor", "--json")
    assert {each["stack"] for each in json.loads(capsys.readouterr().out)} >= {"local", "cfos-egress", "components"}


def test_a_class_is_about_quotas_of_aws(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = []
    monkeypatch.setattr(command, "checks", lambda file, state=None, labs=1: asked.append((file.name, labs)) or [])
    assert lab("doctor", "cfos-egress", "--labs", "20") == 0
    assert asked == [("cfos-egress", 20)]
    assert lab("doctor", "local", "--labs", "20") == USAGE
    assert "--labs counts quotas of AWS, and the machines of local are local: omit it" in capsys.readouterr().err


def test_up_stops_with_all_that_surely_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give(monkeypatch, FINE, BAD, ODD, WORSE)
    with pytest.raises(CommandError) as stopped:
        examine_before("up", load_stack_file(LOCAL))
    assert str(stopped.value).splitlines() == [
        "nothing was made, because this would fail (--skip-doctor tries it anyway):",
        "  made.1: bad. Fix: repair it",
        "  made.3: worse? Fix: leave it",
    ]
    assert capsys.readouterr().err == "lab up: warning: made.2: odd. Fix: look at it\n"


def test_a_preview_goes_on_where_only_an_up_would_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    give(monkeypatch, BAD)
    examine_before("preview", load_stack_file(LOCAL))
    assert capsys.readouterr().err == "lab preview: up would stop: made.0: bad. Fix: repair it\n"
    give(monkeypatch, BAD, for_preview=True)
    with pytest.raises(CommandError, match="bad"):
        examine_before("preview", load_stack_file(LOCAL))


def test_up_asks_before_pulumi_is_touched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    give(monkeypatch, BAD)
    monkeypatch.setattr("cli.project.HOME", tmp_path / ".lab")
    monkeypatch.setattr("cli.lifecycle.deploy.find_pulumi", lambda: pytest.fail("too late"))
    assert lab("up", "local", "--yes") == FAILED
    assert "made.0: bad" in capsys.readouterr().err and not (tmp_path / ".lab").exists()
    monkeypatch.setattr("cli.lifecycle.deploy.find_pulumi", lambda: (_ for _ in ()).throw(CommandError("reached", 3)))
    assert lab("up", "local", "--yes", "--skip-doctor") == 3
    assert "reached" in capsys.readouterr().err
