"""A copy of the project in its own git repository, for commands that read revisions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.graphs import ROOT

LEFT_OUT = (".git", ".venv", ".lab", ".hypothesis", "*_cache", "__pycache__", "tests", "docs", "out")


class Scratch:
    """`folder` holds the project, with one commit on `main`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*LEFT_OUT), symlinks=True)
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit()

    def git(self, *arguments: str) -> str:
        # Neither the user's settings nor the repository around the tests must matter.
        quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_DIR": str(self.folder / ".git")}
        person = {
            f"GIT_{who}_{what}": "test@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        command = ["git", "-c", "commit.gpgsign=false", *arguments]
        environment = os.environ | quiet | person
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message=change")

    def clean(self) -> None:
        """Go back to main as it was committed."""
        self.git("checkout", "--quiet", "--force", "main")
        self.git("clean", "--quiet", "--force", "-d")

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.folder / path
        text = file.read_text()
        assert old in text, f"{path} has no {old!r}"
        file.write_text(text.replace(old, new, 1))

    def lab(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `./lab ARGUMENTS` with this Python on the copy's own modules."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        environment.pop("PYTHONPATH", None)
        command = [sys.executable, "-m", "cli", *arguments]
        return subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=250)
