"""Runs a step's program on this computer, as the remote command runs it on a node."""

from __future__ import annotations

import os
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
    """A program with the one script `<phase>.sh`. Its state and its lock are in `folder`."""
    program = compose(phase, variables, files, [f"{phase}.sh"])
    environment = os.environ | {"CNI_LAB_STATE": str(folder / "state"), "CNI_LAB_LOCK": str(folder / "lock")}
    return subprocess.run(
        ["bash", "-s"],
        input=program,
        env=environment | (env or {}),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
