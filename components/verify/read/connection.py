"""How programs run as root on a node, whatever the way there: the protocol that every transport keeps.

`Access` says how one node is reached; `connect` opens a `Connection`, which runs bash programs on it. SSH is one
transport (ssh.py); access.py tells from a stack's output which one a node has.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

TIMED_OUT = 124
"""Exit status of timeout(1) where the program did not end in time."""


NETNS = Path(__file__).with_name("netns.sh")
"""Shell functions that find the pods' network namespaces, for scripts that need them."""


class Unreachable(Exception):
    """A node cannot be reached or did not answer in time; str() says why and what to do."""


@dataclass(frozen=True)
class Completed:
    """What a program printed, and its exit status; -1 where it ended without one."""

    stdout: str
    stderr: str
    status: int


class Process(Protocol):
    """A program that runs. Every method that waits raises Unreachable where the connection breaks."""

    def write(self, text: str) -> None:
        """To the program's standard input."""

    def write_eof(self) -> None:
        """End of the standard input."""

    async def readline(self) -> str:
        """The next line of standard output, with its newline; empty at the end."""

    async def read(self) -> str:
        """Standard output to its end."""

    async def stderr(self) -> str:
        """Standard error to its end."""

    async def close(self) -> None:
        """End the program if it still runs. May be called twice."""


class Connection(Protocol):
    """An open way to one node."""

    async def run(self, program: str, *, timeout_seconds: float) -> Completed:
        """Run a bash program as root to its end. Raises Unreachable where the connection breaks or time is over."""

    async def start(self, program: str, *, timeout_seconds: float) -> Process:
        """Start a bash program as root; it is ended after `timeout_seconds`. What is written to the process follows
        the program on the same standard input. Raises Unreachable."""


class Access(Protocol):
    """How one node is reached."""

    @property
    def node(self) -> str:
        """The node's name."""

    def connect(self) -> AbstractAsyncContextManager[Connection]:
        """Open a connection, which ends with the context. Raises Unreachable."""


def bash(timeout_seconds: float) -> list[str]:
    """The command that reads a program from standard input and runs it, for `timeout_seconds` at most."""
    return ["timeout", "--kill-after=5", f"{timeout_seconds:.0f}", "bash", "-s"]


def render(scripts: Sequence[Path], variables: Mapping[str, str], *, stdin: str = "</dev/null") -> str:
    """Scripts with their variables as one program, which bash reads whole before any of it runs: a connection that
    breaks halfway runs nothing. `stdin`: a redirection for the scripts; empty: they read what follows the program."""
    texts = [script.read_text(encoding="utf-8") for script in scripts]
    lines = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join(["set -euo pipefail", "{", *lines, *texts, "exit 0", f"}} {stdin}", ""])
