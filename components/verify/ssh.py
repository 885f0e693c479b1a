"""One SSH connection to a node, its host key pinned, keys kept in memory."""

from __future__ import annotations

import asyncio
import os
import shlex
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncssh

from components.verify.access import Access, Jump

CONNECT_TIMEOUT = 10
SCRIPTS = Path(__file__).parent


class Unreachable(Exception):
    """A node that cannot be read; str() says why and what to do."""


@asynccontextmanager
async def connect(access: Access) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """An open connection, through the jump host where there is one. Raises Unreachable."""
    where = f"{access.user}@{access.host}:{access.port}"
    tunnel: asyncssh.SSHClientConnection | None = None
    try:
        try:
            if access.jump is not None:
                where = f"the jump host {access.jump.user}@{access.jump.host}:{access.jump.port}"
                tunnel = await asyncssh.connect(**_options(access.jump, None))
                where = f"{access.user}@{access.host}:{access.port} through {access.jump.host}"
            connection = await asyncssh.connect(**_options(access, tunnel))
        except asyncssh.HostKeyNotVerifiable:
            raise Unreachable(
                f"{where} shows another host key than the lab's: another machine answers there. Look at the address, "
                "and at what was last done to the machine"
            ) from None
        except asyncssh.PermissionDenied:
            raise Unreachable(
                f"{where} refuses the lab's SSH key: look at ~{access.user}/.ssh/authorized_keys"
            ) from None
        except ValueError as error:  # no message of asyncssh's quotes a key
            raise Unreachable(f"{where}: its SSH key or host key cannot be used: {error}") from None
        except (asyncssh.Error, OSError) as error:  # TimeoutError is an OSError
            # asyncio's own text names the address once more.
            known = os.strerror(error.errno) if isinstance(error, ConnectionError) and error.errno else str(error)
            reason = known or type(error).__name__
            raise Unreachable(
                f"{where} does not answer ({reason}): is the machine up, and may this computer reach its SSH port?"
            ) from None
        async with connection:
            yield connection
    finally:
        if tunnel is not None:
            tunnel.close()


def _options(target: Access | Jump, tunnel: asyncssh.SSHClientConnection | None) -> dict[str, Any]:
    # As the engine does: a jump host without a key in the stack file is taken as it is. A node never is.
    unknown = isinstance(target, Jump) and not target.host_key
    known = None if unknown else asyncssh.import_known_hosts(f"* {target.host_key}\n")
    options: dict[str, Any] = {
        "host": target.host,
        "port": target.port,
        "username": target.user,
        "known_hosts": known,
        "connect_timeout": CONNECT_TIMEOUT,
        "login_timeout": CONNECT_TIMEOUT,
        "keepalive_interval": 10,
        "tunnel": tunnel or (),
        # Nothing of the person's own configuration: the lab says how it is reached.
        "config": None,
    }
    if target.private_key is not None:
        options |= {"client_keys": [asyncssh.import_private_key(target.private_key)], "agent_path": None}
    else:
        options |= {"client_keys": (), "agent_path": os.environ.get("SSH_AUTH_SOCK")}
    return options


def program(script: str, variables: Mapping[str, str], *, stdin: str = "</dev/null") -> str:
    """A script of this room with its variables, read whole by bash before any of it runs. `stdin`: the script's own;
    "" leaves it what follows the program."""
    text = (SCRIPTS / script).read_text(encoding="utf-8")
    lines = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join(["set -euo pipefail", "{", *lines, text, "exit 0", f"}} {stdin}", ""])


def shell(connection: asyncssh.SSHClientConnection, timeout: float) -> str:
    """The command that runs a program as root on a node, for `timeout` seconds at most."""
    sudo = "" if connection.get_extra_info("username") == "root" else "sudo -n "
    return f"{sudo}timeout --kill-after=5 {timeout:.0f} bash -s"


async def run(
    connection: asyncssh.SSHClientConnection, script: str, variables: Mapping[str, str], *, timeout: float
) -> tuple[str, str, int]:
    """stdout, stderr and status of a script of this room, run as root and bounded on the node. Raises Unreachable."""
    command = shell(connection, timeout)
    try:
        done = await asyncio.wait_for(
            connection.run(command, input=program(script, variables), encoding="utf-8", errors="replace"), timeout + 15
        )
    except TimeoutError:  # before OSError, of which it is one
        raise Unreachable(f"{script} did not end within {timeout:.0f} s") from None
    except (asyncssh.Error, OSError) as error:
        raise Unreachable(f"the connection broke: {str(error) or type(error).__name__}") from None
    status = done.exit_status if done.exit_status is not None else -1
    if status == 124:
        raise Unreachable(f"{script} did not end within {timeout:.0f} s on the node")
    return str(done.stdout or ""), str(done.stderr or ""), status
