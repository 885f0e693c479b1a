"""A lock of a killed `up` does not stop the next one; anybody else's lock stays."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cli import project
from cli.errors import CommandError
from cli.lifecycle.locks import settle_locks


@pytest.fixture
def backend(tmp_path: Path) -> Path:
    return tmp_path / "a state"


def lock(backend: Path, **changed: Any) -> Path:
    """A lock as pulumi 3.274 writes it, with its attributes beside it."""
    folder = backend / ".pulumi/locks/organization" / project.NAME / "mine"
    folder.mkdir(parents=True, exist_ok=True)
    content = {"pid": os.getpid(), "username": "root", "hostname": socket.gethostname()}
    path = folder / f"{len(list(folder.iterdir()))}.json"
    path.write_text(json.dumps(content | changed))
    path.with_name(f"{path.name}.attrs").touch()
    return path


@pytest.fixture
def pulumi(tmp_path: Path) -> Iterator[int]:
    """The number of a running process that is called pulumi."""
    program = shutil.copy2(shutil.which("sleep") or "sleep", tmp_path / "pulumi")
    with subprocess.Popen([program, "60"]) as process:
        yield process.pid
        process.kill()


@contextmanager
def zombie() -> Iterator[int]:
    """The number of a killed process whose parent has not asked how it ended: it still has its number."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    yield process.pid
    process.wait()


def ended() -> int:
    """The number of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_the_lock_of_a_process_that_is_gone_is_removed(backend: Path, capsys: pytest.CaptureFixture[str]) -> None:
    number = ended()
    gone = lock(backend, pid=number)
    settle_locks("up", "mine", {"PULUMI_BACKEND_URL": backend.as_uri()})
    assert list(gone.parent.iterdir()) == []
    said = capsys.readouterr().err
    assert said == f"lab up: removed the lock of process {number} of root, which ended without releasing it\n"


def test_the_lock_of_a_killed_process_that_still_has_its_number_is_removed(backend: Path) -> None:
    with zombie() as number:
        gone = lock(backend, pid=number)
        settle_locks("up", "mine", {"PULUMI_BACKEND_URL": backend.as_uri()})
    assert not gone.exists()


def test_the_lock_is_removed_if_another_program_has_the_number_now(backend: Path) -> None:
    gone = lock(backend, pid=os.getpid())
    settle_locks("up", "mine", {"PULUMI_BACKEND_URL": backend.as_uri()})
    assert not gone.exists()


@pytest.mark.parametrize(
    "changed",
    [{"hostname": "another"}, {"pid": "many"}, {"pid": 0}, {"pid": -1}],
    ids=["another computer's", "no number", "no process", "a process group"],
)
def test_any_other_lock_stays(backend: Path, changed: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    other = lock(backend, **{"pid": ended()} | changed)
    settle_locks("up", "mine", {"PULUMI_BACKEND_URL": backend.as_uri()})
    assert other.exists() and capsys.readouterr().err == ""


def test_a_lab_that_is_being_changed_is_refused_but_for_a_preview(backend: Path, pulumi: int) -> None:
    other = lock(backend, pid=pulumi)
    settle_locks("preview", "mine", {"PULUMI_BACKEND_URL": backend.as_uri()})
    with pytest.raises(CommandError, match=f"process {pulumi} of root is changing mine at this moment: wait"):
        settle_locks("destroy", "mine", {"PULUMI_BACKEND_URL": backend.as_uri()})
    assert other.exists()


def test_the_lock_of_another_user_stays(backend: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(process: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", forbidden)
    other = lock(backend)
    settle_locks("preview", "mine", {"PULUMI_BACKEND_URL": backend.as_uri()})
    assert other.exists()


def test_a_broken_lock_and_a_bucket_are_left_alone(backend: Path) -> None:
    broken = lock(backend)
    broken.write_text("{")
    settle_locks("up", "mine", {"PULUMI_BACKEND_URL": backend.as_uri()})
    settle_locks("up", "mine", {"PULUMI_BACKEND_URL": "s3://bucket?region=eu-west-1"})
    assert broken.exists()
