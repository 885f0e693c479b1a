"""Every shell script of the project passes shellcheck and keeps the line length."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = sorted(
    script
    for room in ("components", "engine", "cli", ".ci", ".github")
    for script in (ROOT / room).rglob("*.sh")
    if not script.is_symlink()
)


# Prefer the pinned version beside this Python, because versions find different things.
SHELLCHECK = shutil.which("shellcheck", path=str(Path(sys.executable).parent)) or shutil.which("shellcheck")


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) > 5


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_shellcheck(script: Path) -> None:
    if SHELLCHECK is None:
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(
        [SHELLCHECK, "--external-sources", "--source-path=SCRIPTDIR", str(script)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_line_length(script: Path) -> None:
    long = [n for n, line in enumerate(script.read_text().splitlines(), 1) if len(line) > 120]
    assert not long, f"longer than 120: lines {long}"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_hidden_failure(script: Path) -> None:
    text = script.read_text()
    assert "2>/dev/null" not in text
    assert not re.search(r"\|\s*(sudo\s+)?(ba)?sh\b", text), "a download is not piped into a shell"
