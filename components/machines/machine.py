"""What every provider of machines gets and returns: the rest of the program sees no difference between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pulumi
from pulumi_command import remote

from components.spec.addresses import SSH_PORT
from components.spec.models import Lab, Node


@dataclass(frozen=True)
class Machine:
    """One computer that answers on SSH.

    `id` changes if, and only if, another computer takes the node's place (EC2 instance id, container id, or host key of
    an existing host); the node's steps then run again. `resource` is the resource whose deletion removes the computer,
    None for an existing host; whatever lives on the computer is `deleted_with` it. `api_host` is the address at which
    somebody outside the lab reaches a Kubernetes API on this machine. `root`: SSH logs in as root.
    """

    node: Node
    id: pulumi.Output[str]
    resource: pulumi.Resource | None
    connection: remote.ConnectionArgs
    api_host: pulumi.Output[str]
    root: bool = False

    @property
    def name(self) -> str:
        return self.node.name

    @property
    def access(self) -> pulumi.Output[dict[str, Any]]:
        """How a person, or `./lab verify`, logs in by SSH (components/verify/read/ssh.py reads it); secret."""
        jump = self.connection.proxy
        assert jump is None or isinstance(jump, remote.ProxyConnectionArgs)
        entry = {**_login(self.connection), "jump": None if jump is None else _login(jump)}
        return pulumi.Output.secret(pulumi.Output.from_input(entry))


def _login(connection: remote.ConnectionArgs | remote.ProxyConnectionArgs) -> dict[str, Any]:
    return {
        "host": connection.host,
        "port": connection.port or SSH_PORT,
        "user": connection.user,
        "privateKey": connection.private_key,
        "hostKey": connection.host_key,
    }


@dataclass(frozen=True)
class MachinesArgs:
    """`stack` names the lab's stack. It is part of every name in a cloud or on this computer, so that two stacks never
    touch each other's things. `tags` go on everything that can carry tags."""

    lab: Lab
    stack: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Machines:
    """`by_node`: one machine for each node of the lab, by node name and in the stack file's order. `api_endpoint`: the
    host:port at which the nodes reach the Kubernetes API."""

    by_node: Mapping[str, Machine]
    api_endpoint: pulumi.Input[str]


class Provider(Protocol):
    """Makes all machines of a lab. The names of its resources start with `name`; `opts` has their parent."""

    def __call__(self, name: str, args: MachinesArgs, opts: pulumi.ResourceOptions) -> Machines: ...
