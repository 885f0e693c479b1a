"""Runs a step's program on this computer, as the remote command runs it on a node."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.node.script import File, compose


def run_step(
    folder: Path,
    phase: str,
    variables: Mapping[str, str],
    *,
    files: Sequence[File] = (),
    env: Mapping[str, str] | None = None,
    timeout: float = 120,
) -> subprocess.CompletedProcess[str]:
    """A program with the one script `<phase>.sh`, for at most `timeout` seconds."""
    return run_program(folder, compose(phase, variables, files, [f"{phase}.sh"]), env=env, timeout=timeout)


def run_program(
    folder: Path, program: str, *, env: Mapping[str, str] | None = None, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """What `compose` made, with its state and its lock in `folder`."""
    return subprocess.run(
        ["bash", "-s"],
        input=with_own_lock(folder, program),
        env=os.environ | {"CNI_LAB_STATE": str(folder / "state")} | (env or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def with_own_lock(folder: Path, program: str) -> str:
    """What `compose` made, with its lock in `folder`. A program names a lock of the whole host, for which another run
    of the tests on this computer would wait."""
    changed, count = re.subn(r"^CNI_LAB_LOCK=/run/lock/.*$", f"CNI_LAB_LOCK={folder}/lock", program, flags=re.M)
    assert count == 1, "a program names its lock once"
    return changed
