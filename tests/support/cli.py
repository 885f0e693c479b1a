"""`./lab` in this process, as the shell would run it."""

from __future__ import annotations

import pytest

from cli.main import app


def lab(*words: object) -> int:
    """Run `./lab WORDS`; returns its exit code. What it prints goes to the test's captured stdout and stderr."""
    with pytest.raises(SystemExit) as ended:
        app([str(word) for word in words])
    return int(ended.value.code or 0)
