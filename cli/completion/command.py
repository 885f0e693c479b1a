"""`./lab completion SHELL`: the script by which a shell completes stacks, nodes, pods, faults, commands and options.

The script runs `./lab` with _LAB_COMPLETE set, and Typer answers with the candidates (cli/completion/candidates.py).
"""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path

from cli import project


class Shell(StrEnum):
    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def run(shell: Shell) -> int:
    """Print the script. Returns 0."""
    print(script(shell), end="")
    return 0


def script(shell: Shell) -> str:
    """The script, with the path of this `lab` in it."""
    text = Path(__file__).with_name(f"lab.{shell.value}").read_text(encoding="utf-8")
    return text.replace("@LAB@", shlex.quote(str(project.ROOT / "lab")))
