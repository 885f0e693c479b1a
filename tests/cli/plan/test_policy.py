"""`./lab plan` asks the policy: violations are notes. A mandatory one ends in exit code 1, a bad configuration in 2."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from cli import project
from policy.check import load_config
from tests.support.cli import lab
from tests.support.graphs import ROOT

PROGRAM = """
import pulumi
import pulumi_aws as aws
aws.ec2.Subnet("open", vpc_id="vpc-1", map_public_ip_on_launch=True, tags={"cni-lab:stack": "s", "cni-lab:owner": "o"})
"""
OPEN = "policy public-addresses: open: gives every machine in it a public address"


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one resource that breaks one rule. Returns the path of its policy configuration, to be written."""
    (tmp_path / "stacks").mkdir()
    shutil.copy(ROOT / "stacks" / "Pulumi.cfos-egress.yaml", tmp_path / "stacks" / "Pulumi.lab.yaml")
    (tmp_path / "__main__.py").write_text(PROGRAM)
    monkeypatch.setattr(project, "ROOT", tmp_path)
    monkeypatch.setattr(load_config, "__defaults__", (tmp_path / "config.json",))
    return tmp_path / "config.json"


@pytest.mark.parametrize(("level", "word", "code"), [("mandatory", "error", 1), ("advisory", "warning", 0)])
def test_a_violation_is_a_note(
    config: Path, level: str, word: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    config.write_text(json.dumps({"public-addresses": {"enforcementLevel": level}}))
    assert lab("plan", "lab") == code
    assert f"  {word}: {OPEN}" in capsys.readouterr().out
    assert lab("plan", "lab", "--json") == code
    out, err = capsys.readouterr()
    assert json.loads(out)["stack"] == "lab" and f"{word}: {OPEN}" in err


def test_a_rule_that_is_switched_off_says_nothing(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text('{"public-addresses": {"enforcementLevel": "disabled"}}')
    assert lab("plan", "lab") == 0
    assert "policy" not in capsys.readouterr().out


@pytest.mark.parametrize("text", ['{"publik-addresses": {}}', "{", None], ids=["no rule", "no JSON", "no file"])
def test_a_configuration_that_cannot_be_used_is_one_line(
    config: Path, text: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        config.write_text(text)
    assert lab("plan", "lab") == 2
    assert capsys.readouterr().err.startswith(f"lab plan: {config}: ")
