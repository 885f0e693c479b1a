"""Entering a node that is a set of namespaces on this computer (components/sandbox): no SSH, no key."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.slowdown import scaled
from components.verify.read.connection import TIMED_OUT, Completed, Unreachable, bash

# How much longer than in the namespaces a program may take here: kill-after and answer.
_GRACE_SECONDS = 15
_END_SECONDS = 5
# A line of tcpdump or JSON may be long.
_LINE_BYTES = 1 << 20
_PATH = (
    "/opt/sandbox/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    ":/run/current-system/sw/bin:/run/wrappers/bin"
)


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since the boot; -1 where it has ended. With its number it names a process
    for good."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return -1


@dataclass(frozen=True)
class NamespaceAccess:
    """`pid`: process 1 of the node, as this computer numbers it; `started`: its start_time. `user`: whether the node
    is in a user namespace. `stack`: the sandbox's. `pods`: NAMESPACE/NAME of each pod on a network of its own →
    the name of its network namespace on the node, as `ip netns` knows it."""

    node: str
    pid: int
    started: int
    user: bool
    stack: str = "STACK"
    pods: Mapping[str, str] = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, node: str, entry: Mapping[str, Any]) -> NamespaceAccess:
        """From a node's entry of the output `access`: keys pid, started, user, stack, pods."""
        pods = {str(pod): str(netns) for pod, netns in entry.get("pods", {}).items()}
        stack = str(entry.get("stack", "STACK"))
        return cls(node, int(entry["pid"]), int(entry["started"]), bool(entry["user"]), stack, pods)

    def command(self, argv: Sequence[str]) -> list[str]:
        """What runs `argv` as root on the node. Raises Unreachable where the node has ended."""
        if start_time(self.pid) != self.started:
            raise Unreachable(f"the sandbox has ended: `./lab sandbox {self.stack}` builds it again")
        nsenter = shutil.which("nsenter") or shutil.which("nsenter", path=_PATH) or "nsenter"
        user = ["--user", "--preserve-credentials"] if self.user else []
        enter = [nsenter, f"--target={self.pid}", *user, "--mount", "--net", "--uts", "--pid", "--root", "--wd", "--"]
        return [*enter, "/usr/bin/env", f"PATH={_PATH}", "HOME=/root", "USER=root", "LC_ALL=C.UTF-8", *argv]

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[NamespaceConnection]:
        """Nothing is held open: each program enters the namespaces by itself. Raises Unreachable."""
        self.command(["true"])
        yield NamespaceConnection(self)


class NamespaceConnection:
    """A `Connection` to namespaces of this computer."""

    def __init__(self, access: NamespaceAccess) -> None:
        self._access = access

    async def _start(self, timeout_seconds: float) -> asyncio.subprocess.Process:
        try:
            return await asyncio.create_subprocess_exec(
                *self._access.command(bash(timeout_seconds)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                limit=_LINE_BYTES,
                # Ctrl-C is for the lab's command, which ends what it started.
                start_new_session=True,
            )
        except OSError as error:
            raise Unreachable(f"the sandbox cannot be entered: {error}") from None

    async def run(self, program: str, *, timeout_seconds: float) -> Completed:
        """Run a bash program as root to its end. Raises Unreachable."""
        process = await self._start(timeout_seconds)
        try:
            output, errors = await asyncio.wait_for(
                process.communicate(program.encode()), timeout_seconds + scaled(_GRACE_SECONDS)
            )
        except TimeoutError:
            raise Unreachable(f"no answer within {timeout_seconds:.0f} s") from None
        finally:
            await _end(process)
        status = process.returncode if process.returncode is not None else -1
        if status == TIMED_OUT:
            raise Unreachable(f"what was started on the node did not end within {timeout_seconds:.0f} s")
        return Completed(output.decode(errors="replace"), errors.decode(errors="replace"), status)

    async def start(self, program: str, *, timeout_seconds: float) -> NamespaceProcess:
        """Start a bash program as root, its standard input still open. Raises Unreachable."""
        process = NamespaceProcess(await self._start(timeout_seconds))
        process.write(program)
        return process


class NamespaceProcess:
    """A `Process` in namespaces of this computer."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        self._stdin, self._stdout, self._stderr = process.stdin, process.stdout, process.stderr

    def write(self, text: str) -> None:
        """To the program's standard input."""
        self._stdin.write(text.encode())

    def write_eof(self) -> None:
        """End of the standard input."""
        self._stdin.close()

    async def readline(self) -> str:
        """The next line of standard output; empty at the end."""
        return (await self._stdout.readline()).decode(errors="replace")

    async def read(self) -> str:
        """Standard output to its end."""
        return (await self._stdout.read()).decode(errors="replace")

    async def stderr(self) -> str:
        """Standard error to its end."""
        return (await self._stderr.read()).decode(errors="replace")

    async def close(self) -> None:
        """End the program if it still runs."""
        await _end(self._process)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        # bash, which reads from here, ends; nsenter's end alone would not reach into the namespaces.
        process.stdin.close()
    with contextlib.suppress(ProcessLookupError):
        if process.returncode is None:
            # Not process.terminate(): it would reap the process, which asyncio's own watcher waits for.
            os.kill(process.pid, signal.SIGTERM)
    # asyncio prints a warning on stderr where its loop closes before it has seen the process end.
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), scaled(_END_SECONDS))
