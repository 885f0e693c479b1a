"""`./lab kubeconfig`: its file is private, and no other file is overwritten."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cli.live import kubeconfig
from cli.main import app
from tests.support.cli import lab

TEXT = json.dumps({"apiVersion": "v1", "kind": "Config", "users": []}, indent=2)


@pytest.fixture(autouse=True)
def outputs(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    found = {"kubeconfig": TEXT}
    monkeypatch.setattr(kubeconfig, "chosen_outputs", lambda _stack, sandbox: found)
    return found


def test_stdout_has_the_kubeconfig_and_nothing_else() -> None:
    result = CliRunner().invoke(app, ["kubeconfig", "local"])
    assert result.exit_code == 0 and json.loads(result.stdout) == json.loads(TEXT) and result.stderr == ""


def test_a_file_is_private_and_can_be_written_again(tmp_path: Path, outputs: dict[str, str]) -> None:
    file = tmp_path / "my config"
    result = CliRunner().invoke(app, ["kubeconfig", "local", "--out", str(file)])
    assert result.exit_code == 0 and result.stdout == ""
    assert result.stderr == f"export KUBECONFIG='{file}'\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert yaml.safe_load(file.read_text()) == json.loads(TEXT)
    outputs["kubeconfig"] = TEXT.replace("[]", '["another"]')
    assert lab("kubeconfig", "local", "--out", file) == 0
    assert yaml.safe_load(file.read_text())["users"] == ["another"]
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_a_file_of_somebody_else_stays_unless_forced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    theirs, edited, link = tmp_path / "theirs", tmp_path / "edited", tmp_path / "link"
    theirs.write_text(TEXT)
    kubeconfig.write(edited, TEXT, "local")
    edited.write_text(edited.read_text().replace("[]", "[1]"))
    link.symlink_to(edited)
    for file in (theirs, edited, link):
        before = file.read_text()
        assert lab("kubeconfig", "local", "--out", file) == 2
        assert file.read_text() == before
        assert "was not written by `lab kubeconfig`, or was changed since" in capsys.readouterr().err
    assert lab("kubeconfig", "local", "--out", theirs, "--force") == 0
    assert kubeconfig.is_ours(theirs)


def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file, force in ((tmp_path / "absent" / "file", False), (tmp_path, True), (tmp_path, False)):
        assert lab("kubeconfig", "local", "--out", file, *(["--force"] if force else [])) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"lab kubeconfig: --out {file}: ") and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_lab_that_is_not_up(outputs: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    outputs.clear()
    assert lab("kubeconfig", "local") == 2
    assert "returned no `kubeconfig`. Run `./lab up local`" in capsys.readouterr().err
