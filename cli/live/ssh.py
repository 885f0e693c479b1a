"""`./lab ssh`: OpenSSH to a node with the lab's own key and the host keys that the lab pinned."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.errors import MISSING, USAGE, CommandError
from cli.live.machines import MachinesDown
from cli.project import not_up, stack_file
from cli.sandbox.choice import chosen_outputs
from cli.signals import wait_for
from components.verify.read.connection import Unreachable
from components.verify.read.namespace import NamespaceAccess

if TYPE_CHECKING:
    from components.verify.read.ssh import Jump, SshAccess

JUMP = ".jump"
"""Suffix of the jump host's name. A node's name has no dot."""


def run(stack: str, node: str, command: list[str], *, sandbox: bool = False) -> int:
    """ssh's exit code: the command's own, or 255 where there is no connection. Raises CommandError, SpecError."""
    # Options after the node belong to the remote command; a `--` between them does not.
    words = command[1:] if command[:1] == ["--"] else command
    try:
        access = access_of(stack, node, sandbox)
    except MachinesDown as error:
        print(f"lab ssh: {error}", file=sys.stderr)
        return 255
    if isinstance(access, NamespaceAccess):
        try:
            return enter(access, words)
        except Unreachable as error:
            print(f"lab ssh: {str(error).replace('STACK', stack)}", file=sys.stderr)
            return 255
    if shutil.which("ssh") is None:
        raise CommandError("ssh is not on PATH: install OpenSSH's client", MISSING)
    if access.jump is not None and not access.jump.host_key:
        print("lab ssh: the jump host's key is not pinned; set machines.jumpHost.hostKey", file=sys.stderr)
    return connect(access, words)


def access_of(stack: str, node: str, sandbox: bool) -> SshAccess | NamespaceAccess:
    """How to reach a node, by the stack's outputs. Raises CommandError, which names the nodes that exist."""
    stack_file(stack)
    known = chosen_outputs(stack, sandbox=sandbox).get("access")
    if not known:
        raise not_up(stack, "access")
    if node not in known:
        nodes = f"{stack} has no node {node!r}; it has: {', '.join(known)}"
        raise CommandError(nodes + _into_pod(stack, node, known), USAGE)
    if known[node].get("kind") == "namespace":
        return NamespaceAccess.of(node, known[node])
    # It loads asyncssh, which takes longer than a sandbox to answer.
    from components.verify.read.ssh import SshAccess

    return SshAccess.of(node, known[node])


def _into_pod(stack: str, name: str, known: Mapping[str, Mapping[str, Any]]) -> str:
    """How to enter the pod of a sandbox that was named in place of a node, or the first one of a workload; empty where
    there is none."""
    for node, entry in known.items():
        for pod, netns in entry.get("pods", {}).items():
            own = pod.partition("/")[2]
            if name in (pod, own) or own.startswith(f"{name}-"):
                return f". {pod} is a pod: `./lab ssh {stack} {node} -- ip netns exec {netns} bash` enters it"
    return ""


def enter(access: NamespaceAccess, command: Sequence[str]) -> int:
    """Run a shell on a sandbox's node in the foreground. Raises Unreachable where the sandbox has ended."""
    # As sshd does: the words make one line for the shell.
    line = " ".join(command) if command else "exec bash -i"
    return wait_for(subprocess.Popen(access.command(["bash", "-c", f"cd && {line}"])))


def connect(access: SshAccess, command: Sequence[str]) -> int:
    """Run ssh in the foreground. No secret is among its arguments, and its files are gone afterwards."""
    # The folder has mode 0700.
    with tempfile.TemporaryDirectory(prefix="cni-lab-ssh-") as name:
        config = write_files(Path(name), access)
        # After `--` ssh reads no more options.
        return wait_for(subprocess.Popen(["ssh", "-F", str(config), "--", access.node, *command]))


def write_files(folder: Path, access: SshAccess) -> Path:
    """Write keys (0600), known hosts and the ssh_config(5) that names them; returns the path of the latter."""
    config = folder / "config"
    lines = _host(folder, access.node, access)
    if access.jump is not None:
        # As ProxyJump does, which does not quote paths.
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
        # As pulumi's command provider does: without a key in the stack file, a jump host's key is accepted.
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
    """Quoted for ssh_config(5), where a percent sign starts a token."""
    return '"' + str(path).replace("%", "%%") + '"'
