"""`./lab` in this process, as the shell would run it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import typer.main

from cli.main import app


def lab(*words: object) -> int:
    """Run `./lab WORDS`; returns its exit code. What it prints goes to the test's captured stdout and stderr."""
    with pytest.raises(SystemExit) as ended:
        _command()([str(word) for word in words])
    return int(ended.value.code or 0)


@cache
def _command() -> Callable[..., Any]:
    """What `app` would make anew for each call, from the signatures of all commands."""
    return typer.main.get_command(app)
