"""`./lab ssh`: OpenSSH to a node with the lab's own key and the host keys that the lab pinned; a sandbox is entered."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from cli.lifecycle.pulumi_cli import CannotRun, refuse, stack_file
from cli.live.stack import standing_outputs
from components.spec.load import SpecError
from components.verify.read.connection import Unreachable
from components.verify.read.namespace import NamespaceAccess
from components.verify.read.ssh import Jump, SshAccess

JUMP = ".jump"  # no node's name has a dot


def run(stack: str, node: str, command: list[str], *, sandbox: bool = False) -> int:
    """ssh's exit code: the command's own, 255 where there is no connection; 2 and 3 as CannotRun."""
    # What the node's shell is to run starts after the node, with or without a `--` before it.
    words = command[1:] if command[:1] == ["--"] else command
    try:
        access = reach(stack, node, sandbox)
        if isinstance(access, NamespaceAccess):
            return enter(access, words)
        if shutil.which("ssh") is None:
            raise CannotRun("ssh is not on PATH: install OpenSSH's client")
    except (CannotRun, SpecError) as error:
        return refuse("ssh", error)
    except Unreachable as error:
        print(f"lab ssh: {str(error).replace('STACK', stack)}", file=sys.stderr)
        return 255
    if access.jump is not None and not access.jump.host_key:
        print("lab ssh: the jump host's key is not pinned; set machines.jumpHost.hostKey", file=sys.stderr)
    return connect(access, words)


def reach(stack: str, node: str, sandbox: bool) -> SshAccess | NamespaceAccess:
    """How the stack's outputs say that a node is reached. Raises CannotRun, naming the nodes there are."""
    stack_file(stack)
    known = standing_outputs(stack, sandbox=sandbox).get("access")
    if not known:
        raise CannotRun(
            f"the lab {stack} does not stand: its last `up` gave out no `access`. Run `./lab up {stack}`", code=2
        )
    if node not in known:
        raise CannotRun(f"{stack} has no node {node!r}; it has: {', '.join(known)}", code=2)
    if known[node].get("kind") == "namespace":
        return NamespaceAccess.of(node, known[node])
    return SshAccess.of(node, known[node])


def enter(access: NamespaceAccess, command: Sequence[str]) -> int:
    """Run a shell on a sandbox's node in the foreground. Raises Unreachable where it has ended."""
    # As sshd does: the words make one line for the shell.
    line = " ".join(command) if command else "exec bash -i"
    with _signals_to(subprocess.Popen(access.command(["bash", "-c", f"cd && {line}"]))) as process:
        code = process.wait()
    return code if code >= 0 else 128 - code


def connect(access: SshAccess, command: Sequence[str]) -> int:
    """Run ssh in the foreground; a signal's number above 128 where one ended it. No secret is in its arguments, and
    its files are gone afterwards."""
    # The folder is the owner's alone (0700).
    with tempfile.TemporaryDirectory(prefix="cni-lab-ssh-") as name:
        config = write_files(Path(name), access)
        # After `--` nothing is an option of ssh's.
        with _signals_to(subprocess.Popen(["ssh", "-F", str(config), "--", access.node, *command])) as process:
            code = process.wait()
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _signals_to(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """What would end this program ends ssh, so that its files are removed. The terminal gives Ctrl-C to both."""

    def pass_on(number: int, _frame: FrameType | None) -> None:
        process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, lambda _number, _frame: None)
    try:
        yield process
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def write_files(folder: Path, access: SshAccess) -> Path:
    """Keys (0600), known hosts and the configuration of ssh_config(5) that names them; returns the configuration."""
    config = folder / "config"
    lines = _host(folder, access.node, access)
    if access.jump is not None:
        # What ProxyJump does, but it quotes no path.
        words = ["ssh", "-F", str(config).replace("%", "%%"), "-W", "[%h]:%p", "--", access.node + JUMP]
        lines += [f"  ProxyCommand {shlex.join(words)}", *_host(folder, access.node + JUMP, access.jump)]
    config.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return config


def _host(folder: Path, name: str, to: SshAccess | Jump) -> list[str]:
    known = folder / f"{name}.known"
    known.write_text(f"{name} {to.host_key}\n" if to.host_key else "", encoding="utf-8")
    settings = {
        "HostName": to.host,
        "Port": str(to.port),
        "User": to.user,
        "HostKeyAlias": name,
        "UserKnownHostsFile": _quoted(known),
        "GlobalKnownHostsFile": "/dev/null",
        # As the engine does: a jump host without a key in the stack file is taken as it is.
        "StrictHostKeyChecking": "yes" if to.host_key else "no",
        "UpdateHostKeys": "no",
        "PreferredAuthentications": "publickey",
        "ConnectTimeout": "15",
        "ServerAliveInterval": "15",
    }
    if not to.host_key:
        settings["LogLevel"] = "ERROR"
    if to.private_key is None:
        settings["IdentityFile"] = "none"
    else:
        key = folder / f"{name}.key"
        with open(key, "w", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(to.private_key.rstrip("\n") + "\n")
        settings |= {"IdentityFile": _quoted(key), "IdentitiesOnly": "yes", "IdentityAgent": "none"}
    return [f"Host {name}", *(f"  {key} {value}" for key, value in settings.items())]


def _quoted(path: Path) -> str:
    """As ssh_config(5) reads a path: percent signs start its tokens."""
    return '"' + str(path).replace("%", "%%") + '"'
