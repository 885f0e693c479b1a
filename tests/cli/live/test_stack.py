"""The outputs of a stack, and what is known without reading them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli import project
from cli.errors import MISSING, USAGE, CommandError
from cli.lifecycle import backend, deploy, locks, plain
from cli.live import stack as live
from tests.support.cli import lab


def test_a_lab_that_was_never_up_is_reported_without_the_cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "HOME", tmp_path)
    monkeypatch.setattr(live, "find_pulumi", lambda: pytest.fail("it was asked for"))
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    with pytest.raises(CommandError, match=r"local is not up: run `./lab up local`, or") as caught:
        live.outputs("local")
    assert caught.value.code == USAGE and list(tmp_path.iterdir()) == []


def test_a_state_of_roots_is_not_an_absent_lab(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody may be told that there is nothing to destroy. Nor is pulumi installed first, which could not help."""

    def denied(path: Path) -> Iterator[Path]:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(project, "HOME", tmp_path / ".lab")
    monkeypatch.setattr(Path, "iterdir", denied)
    for module in (backend, deploy, live, locks, plain):
        monkeypatch.setattr(module, "find_pulumi", lambda: pytest.fail("it was asked for"))
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    assert live.is_up("local")
    for words in (["destroy", "cross-node", "--yes"], ["stop", "cross-node"], ["unlock", "local"]):
        assert lab(*words) == MISSING
        assert "Permission denied. If a command that ran with sudo made it: sudo chown" in capsys.readouterr().err
    monkeypatch.setattr(Path, "chmod", lambda path, mode: next(denied(path)))
    for words in (["up", "local", "--yes", "--skip-doctor"], ["env", "local"]):
        assert lab(*words) == MISSING
        assert f"{tmp_path / '.lab'}: Permission denied." in capsys.readouterr().err
