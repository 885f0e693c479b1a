"""SSH to a node: the host key pinned, private keys kept in memory."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import asyncssh

from components.slowdown import scaled
from components.verify.read.connection import TIMED_OUT, Completed, Unreachable, bash

CONNECT_TIMEOUT_SECONDS = 10
# How much longer than on the node a program may take here: connection, kill-after and answer.
_GRACE_SECONDS = 15

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Jump:
    """The host that SSH goes through. `host_key` None: the stack file names none."""

    host: str
    port: int
    user: str
    private_key: str | None
    host_key: str | None


@dataclass(frozen=True)
class SshAccess:
    """SSH to one node. Keys are text; `host_key` is "TYPE BASE64". `private_key` None: the SSH agent has the key."""

    node: str
    host: str
    port: int
    user: str
    private_key: str | None
    host_key: str
    jump: Jump | None = None

    @classmethod
    def of(cls, node: str, entry: Mapping[str, Any]) -> SshAccess:
        """From a node's entry of the stack output: keys host, port, user, privateKey, hostKey, jump."""
        jump = entry.get("jump")
        return cls(
            node,
            str(entry["host"]),
            int(entry.get("port") or 22),
            str(entry["user"]),
            entry.get("privateKey"),
            str(entry["hostKey"]).strip(),
            jump
            and Jump(
                str(jump["host"]),
                int(jump.get("port") or 22),
                str(jump["user"]),
                jump.get("privateKey"),
                jump.get("hostKey") and str(jump["hostKey"]).strip(),
            ),
        )

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[SshConnection]:
        """An open connection, through the jump host where there is one. Raises Unreachable."""
        where = f"{self.user}@{self.host}:{self.port}"
        tunnel: asyncssh.SSHClientConnection | None = None
        try:
            try:
                if self.jump is not None:
                    where = f"the jump host {self.jump.user}@{self.jump.host}:{self.jump.port}"
                    tunnel = await asyncssh.connect(**_options(self.jump, None))
                    where = f"{self.user}@{self.host}:{self.port} through {self.jump.host}"
                connection = await asyncssh.connect(**_options(self, tunnel))
            except asyncssh.HostKeyNotVerifiable:
                raise Unreachable(
                    f"{where} shows another host key than the lab's: another machine answers there. Check the address, "
                    "and what was last done to the machine"
                ) from None
            except asyncssh.PermissionDenied:
                raise Unreachable(
                    f"{where} refuses the lab's SSH key: check ~{self.user}/.ssh/authorized_keys"
                ) from None
            except ValueError as error:  # no message of asyncssh's quotes a key
                raise Unreachable(f"{where}: its SSH key or host key cannot be used: {error}") from None
            except (asyncssh.Error, OSError) as error:  # TimeoutError is an OSError
                # asyncio's own text repeats the address.
                known = os.strerror(error.errno) if isinstance(error, ConnectionError) and error.errno else str(error)
                reason = known or type(error).__name__
                raise Unreachable(
                    f"{where} does not answer ({reason}): is the machine up, and may this computer reach its SSH port?"
                ) from None
            async with connection:
                yield SshConnection(connection)
        finally:
            if tunnel is not None:
                tunnel.close()


def _options(target: SshAccess | Jump, tunnel: asyncssh.SSHClientConnection | None) -> dict[str, Any]:
    # As the engine does: a jump host whose key the stack file does not name is not checked. A node always is.
    unknown = isinstance(target, Jump) and not target.host_key
    known = None if unknown else asyncssh.import_known_hosts(f"* {target.host_key}\n")
    options: dict[str, Any] = {
        "host": target.host,
        "port": target.port,
        "username": target.user,
        "known_hosts": known,
        "connect_timeout": scaled(CONNECT_TIMEOUT_SECONDS),
        "login_timeout": scaled(CONNECT_TIMEOUT_SECONDS),
        "keepalive_interval": 10,
        "tunnel": tunnel or (),
        # asyncssh prefers ChaCha20, and makes several calls for each packet of it. AES-GCM is one call, which
        # processors have instructions for.
        "encryption_algs": "^aes128-gcm@openssh.com",
        # The person's own SSH configuration does not count: the lab says how it is reached.
        "config": None,
    }
    if target.private_key is not None:
        options |= {"client_keys": [asyncssh.import_private_key(target.private_key)], "agent_path": None}
    else:
        options |= {"client_keys": (), "agent_path": os.environ.get("SSH_AUTH_SOCK")}
    return options


class SshConnection:
    """A `Connection` over SSH; sudo makes root of any other user."""

    def __init__(self, connection: asyncssh.SSHClientConnection) -> None:
        self._connection = connection

    def _command(self, timeout_seconds: float) -> str:
        sudo = [] if self._connection.get_extra_info("username") == "root" else ["sudo", "-n"]
        return shlex.join([*sudo, *bash(timeout_seconds)])

    async def run(self, program: str, *, timeout_seconds: float) -> Completed:
        """Run a bash program as root to its end. Raises Unreachable."""
        command = self._command(timeout_seconds)
        try:
            done = await asyncio.wait_for(self._run(command, program), timeout_seconds + scaled(_GRACE_SECONDS))
        except TimeoutError:  # before OSError, of which it is one
            raise Unreachable(f"no answer within {timeout_seconds:.0f} s") from None
        except (asyncssh.Error, OSError) as error:
            raise _broken(error) from None
        status = done.exit_status if done.exit_status is not None else -1
        if status == TIMED_OUT:
            raise Unreachable(f"what was started on the node did not end within {timeout_seconds:.0f} s")
        return Completed(str(done.stdout or ""), str(done.stderr or ""), status)

    async def _run(self, command: str, program: str) -> asyncssh.SSHCompletedProcess:
        process = await self._connection.create_process(command, encoding="utf-8", errors="replace")
        SshProcess(process).write(program)
        process.stdin.write_eof()
        return await process.wait()

    async def start(self, program: str, *, timeout_seconds: float) -> SshProcess:
        """Start a bash program as root, its standard input still open. Raises Unreachable."""
        process = SshProcess(
            await _unbroken(
                self._connection.create_process(self._command(timeout_seconds), encoding="utf-8", errors="replace")
            )
        )
        process.write(program)
        return process


class SshProcess:
    """A `Process` over SSH."""

    def __init__(self, process: asyncssh.SSHClientProcess[str]) -> None:
        self._process = process

    def write(self, text: str) -> None:
        """To the program's standard input. A program that has ended, such as a sudo that refuses, reads none of it;
        what it printed says why."""
        with suppress(BrokenPipeError):
            self._process.stdin.write(text)

    def write_eof(self) -> None:
        """End of the standard input."""
        self._process.stdin.write_eof()

    async def readline(self) -> str:
        """The next line of standard output; empty at the end. Raises Unreachable."""
        return await _unbroken(self._process.stdout.readline())

    async def read(self) -> str:
        """Standard output to its end. Raises Unreachable."""
        return await _unbroken(self._process.stdout.read())

    async def stderr(self) -> str:
        """Standard error to its end. Raises Unreachable."""
        return await _unbroken(self._process.stderr.read())

    async def close(self) -> None:
        """End the program if it still runs."""
        self._process.close()


async def _unbroken(answer: Awaitable[Answer]) -> Answer:
    try:
        return await answer
    except (asyncssh.Error, OSError) as error:
        raise _broken(error) from None


def _broken(error: Exception) -> Unreachable:
    return Unreachable(f"the connection broke: {str(error) or type(error).__name__}")
