"""`./lab` in a fresh clone: what it installs, and what an interruption leaves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.graphs import ROOT
from tests.support.signals import default_signals


class Clone:
    """A program without requirements, so that nothing is downloaded."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.printed = folder, folder / "printed"
        shutil.copy(ROOT / "lab", folder / "lab")
        for name in ("requirements.txt", "requirements-dev.txt"):
            (folder / name).write_text("# Nothing.\n")
        (folder / "cli").mkdir()
        (folder / "cli/__main__.py").write_text("print('the program runs')\n")

    def start(self, word: str) -> subprocess.Popen[bytes]:
        with self.printed.open("wb") as file:
            return subprocess.Popen(
                [self.folder / "lab", word],
                stdout=file,
                stderr=file,
                start_new_session=True,
                preexec_fn=default_signals,
            )

    def run(self, word: str) -> str:
        """What a command prints that must succeed."""
        code = self.start(word).wait(timeout=120)
        assert code == 0, self.printed.read_text()
        return self.printed.read_text()

    def interrupt(self, word: str, ready: Callable[[], bool], seconds: float) -> str:
        """What a command prints if Ctrl-C is pressed this long after it is ready."""
        started = self.start(word)
        deadline = time.monotonic() + 60
        while not ready():
            assert started.poll() is None and time.monotonic() < deadline, self.printed.read_text()
            time.sleep(0.01)
        time.sleep(seconds)
        os.killpg(started.pid, signal.SIGINT)
        assert started.wait(timeout=60) == 130
        return self.printed.read_text()


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


def test_an_installation_is_finished_once_for_all_commands(clone: Clone) -> None:
    """After an interruption while .venv is made, and while pip starts."""
    installs, cancelled = (
        "lab: installing {} into .venv (once, about two minutes)\n",
        "ERROR: Operation cancelled by user\n",
    )
    assert clone.interrupt("plan", (clone.folder / ".venv/bin/python").exists, 0.3) == cancelled
    installing = installs.format("requirements.txt")
    printed = clone.interrupt("plan", lambda: clone.printed.read_text() == installing, 0.15)
    assert printed in (installing + cancelled, installing), "Python does not see a key that is pressed while it starts"
    assert clone.run("test") == installs.format("requirements-dev.txt") + "the program runs\n"
    assert clone.run("plan") == "the program runs\n", "requirements-dev.txt has everything of requirements.txt"
    (clone.folder / "requirements.txt").write_text("# Changed.\n")
    assert clone.run("plan") == installing + "the program runs\n"
    assert clone.run("test") == installs.format("requirements-dev.txt") + "the program runs\n"
