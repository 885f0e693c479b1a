"""The real parsers, asked through a small Go program: Go's regexp and Calico's selector language.

It is built once for a test run. Without Go, or where its modules cannot be fetched, the tests that need it are skipped.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parent / "oracle"
BUILD_TIMEOUT_SECONDS = 280
ANSWER_TIMEOUT_SECONDS = 60


def build(directory: Path) -> Path:
    """The program, built into the directory. Skips the test if it cannot be built."""
    if shutil.which("go") is None:
        pytest.skip("go is not installed")
    fetched = subprocess.run(
        ["go", "mod", "download"], cwd=SOURCE, capture_output=True, text=True, timeout=BUILD_TIMEOUT_SECONDS
    )
    if fetched.returncode:
        pytest.skip(f"Calico's Go module cannot be fetched: {fetched.stderr.strip()[-200:]}")
    program = directory / "oracle"
    subprocess.run(["go", "build", "-o", str(program), "."], cwd=SOURCE, check=True, timeout=BUILD_TIMEOUT_SECONDS)
    return program


def ask(program: Path, questions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The answers, in order: {"valid": bool, "matches": [bool for each of the question's labels]}."""
    text = "".join(json.dumps(question) + "\n" for question in questions)
    done = subprocess.run(
        [str(program)], input=text, capture_output=True, text=True, check=True, timeout=ANSWER_TIMEOUT_SECONDS
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(questions)
    return answers
