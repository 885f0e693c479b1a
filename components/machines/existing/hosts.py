"""Existing hosts: nothing is created, only the SSH connection to each host is described."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pulumi
from pulumi_command import remote

from components.machines.machine import Machine
from components.spec import names
from components.spec.models import ExistingMachines, Lab, Node

# The hosts run already, so one that does not answer within a minute or two is an error and not worth a longer wait.
DIAL_ATTEMPTS = 8
DIAL_TIMEOUT_SECONDS = 15


@dataclass(frozen=True)
class HostsArgs:
    lab: Lab


class Hosts(pulumi.ComponentResource):
    """`machines` by node name, in the stack file's order. Raises pulumi.RunError with every SSH key file that cannot be
    used."""

    machines: dict[str, Machine]

    def __init__(self, name: str, args: HostsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        spec = args.lab.machines
        assert isinstance(spec, ExistingMachines)
        super().__init__(names.EXISTING_MACHINES, name, {"hosts": [n.name for n in args.lab.nodes]}, opts)
        keys = _private_keys(spec, args.lab.nodes)
        self.machines = {node.name: _machine(spec, node, keys) for node in args.lab.nodes}
        self.register_outputs({})


def _machine(spec: ExistingMachines, node: Node, keys: Mapping[str | None, pulumi.Output[str] | None]) -> Machine:
    key, ssh = keys[key_file(spec, node)], node.ssh
    if ssh is None:
        raise pulumi.RunError(f"nodes ({node.name}): ssh.hostKey is missing. Fix: add the host's public key")
    host_key = " ".join(ssh.host_key.split()[:2])
    host, user = ssh.address or str(node.address), ssh.user or spec.user
    jump = spec.jump_host
    proxy = None
    if jump is not None:
        proxy = remote.ProxyConnectionArgs(
            host=jump.address,
            port=jump.port,
            user=jump.user,
            private_key=keys[jump.private_key_file] if jump.private_key_file else key,
            host_key=jump.host_key,
            dial_error_limit=DIAL_ATTEMPTS,
            per_dial_timeout=DIAL_TIMEOUT_SECONDS,
        )
    return Machine(
        node=node,
        id=pulumi.Output.from_input(f"{node.name}-{hashlib.sha256(host_key.encode()).hexdigest()[:16]}"),
        resource=None,
        connection=remote.ConnectionArgs(
            host=host,
            port=ssh.port or spec.port,
            user=user,
            private_key=key,
            host_key=host_key,
            proxy=proxy,
            dial_error_limit=DIAL_ATTEMPTS,
            per_dial_timeout=DIAL_TIMEOUT_SECONDS,
        ),
        # A loopback address is a forwarded port on this computer. It leads to SSH, but not to the API.
        api_host=pulumi.Output.from_input(str(node.address) if _is_loopback(host) else host),
        root=user == "root",
    )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def key_file(spec: ExistingMachines, node: Node) -> str | None:
    """The file with the private key for a node; None where the SSH agent has it."""
    return (node.ssh and node.ssh.private_key_file) or spec.private_key_file


def _private_keys(spec: ExistingMachines, nodes: tuple[Node, ...]) -> dict[str | None, pulumi.Output[str] | None]:
    """The text of each private key file that the nodes name. It is None where the SSH agent holds the key, and where a
    preview finds no file: a preview connects to no host, so it may run on a computer that has no key.

    Raises pulumi.RunError with every problem.
    """
    preview = pulumi.runtime.is_dry_run()
    found: dict[str | None, pulumi.Output[str] | None] = {}
    problems: list[str] = []
    needed = {node.name: key_file(spec, node) for node in nodes}
    if spec.jump_host is not None and spec.jump_host.private_key_file is not None:
        needed["the jump host"] = spec.jump_host.private_key_file
    for file in dict.fromkeys(needed.values()):
        users = ", ".join(user for user, wanted in needed.items() if wanted == file)
        found[file] = None
        try:
            if file is not None:
                found[file] = pulumi.Output.secret(read_private_key(file))
            elif not preview and not os.environ.get("SSH_AUTH_SOCK"):
                fix = "name a key file, or start an agent"
                problems.append(f"privateKeyFile: none, and no SSH agent runs. Fix: {fix} (for {users})")
        except FileNotFoundError:
            if preview:
                pulumi.warn(f"privateKeyFile: {file} is not on this computer; `up` needs it (for {users})")
            else:
                problems.append(
                    f"privateKeyFile: {file} — does not exist. Fix: create it, or correct the path (for {users})"
                )
        except ValueError as error:
            problems.append(f"privateKeyFile: {file} — {error} (for {users})")
    if problems:
        raise pulumi.RunError("\n".join(problems))
    return found


def read_private_key(file: str) -> str:
    """The text of a private key file. Raises FileNotFoundError, or ValueError with the problem and its fix."""
    try:
        path = Path(file).expanduser()
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii")
    except FileNotFoundError:
        raise
    except UnicodeDecodeError:
        text = ""
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror}). Fix: name a file that you can read") from None
    except RuntimeError as error:  # ~user, and there is no such user
        raise ValueError(f"{error}. Fix: write the path in full") from None
    if not text.startswith("-----BEGIN "):
        raise ValueError("is not a private key. Fix: name the private key, not the .pub file")
    if mode & 0o077:
        raise ValueError(f"others can read it (mode {mode & 0o777:04o}). Fix: chmod 600 {file}")
    if _is_locked(text):
        raise ValueError("has a passphrase. Fix: give it to an SSH agent (ssh-add), and remove privateKeyFile")
    return text


def _is_locked(text: str) -> bool:
    """Whether a passphrase protects the key. PEM has it in its header, OpenSSH's format in the cipher's name."""
    head, *body = text.strip().splitlines()
    if "OPENSSH" not in head:
        return "ENCRYPTED" in text
    try:
        start = base64.b64decode("".join(body)[:64])
    except ValueError:
        return False  # a broken file: the SSH client's error says so
    return start.startswith(b"openssh-key-v1\0") and not start[15:].startswith(b"\0\0\0\4none")
