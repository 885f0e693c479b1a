"""`./lab`, as the shell would run it: in this process, or its script where it need not install anything first."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from cli.main import app
from tests.support.graphs import ROOT

needs_venv = pytest.mark.skipif(
    not (ROOT / ".venv/.installed-requirements").exists(), reason="./lab has made no .venv here yet"
)


def lab(*words: object) -> int:
    """Run `./lab WORDS`; returns its exit code. What it prints goes to the test's captured stdout and stderr."""
    with pytest.raises(SystemExit) as ended:
        _command()([str(word) for word in words])
    return int(ended.value.code or 0)


@dataclass(frozen=True)
class Invoked:
    """What a command printed, on its streams and on both together, and its exit code."""

    exit_code: int
    stdout: str
    stderr: str
    output: str


def invoke(*words: object) -> Invoked:
    """The same with what it prints. It sees no terminal, and lines of 80 characters."""
    with CliRunner().isolation() as streams:
        code = lab(*words)
        sys.stdout.flush()
        sys.stderr.flush()
        texts = [stream.getvalue().decode().replace("\r\n", "\n") for stream in streams]
    return Invoked(code, *texts)


@cache
def _command() -> Callable[..., Any]:
    """What `app` would make anew for each call, from the signatures of all commands."""
    return typer.main.get_command(app)
