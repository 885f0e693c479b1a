"""What every kind of machine looks like to the components after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_command import remote

from components.spec.models import Node


@dataclass(frozen=True)
class Machine:
    """One computer that answers on SSH.

    `id` changes when, and only when, the computer is another one (EC2 instance id, container id, host key of an
    existing host): steps run again then. `resource` is what takes the computer away when it is deleted (None for a
    host that exists already); what lives on the computer is `deleted_with` it. `api_host` is the address at which a
    person outside reaches a Kubernetes API on this machine.
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
        """How a person, or `./lab verify`, gets onto the machine by SSH (components/verify/read/ssh.py); secret."""
        connection, jump = self.connection, self.connection.proxy
        assert jump is None or isinstance(jump, remote.ProxyConnectionArgs)
        entry: dict[str, Any] = {
            "host": connection.host,
            "port": connection.port or 22,
            "user": connection.user,
            "privateKey": connection.private_key,
            "hostKey": connection.host_key,
            "jump": jump
            and {
                "host": jump.host,
                "port": jump.port or 22,
                "user": jump.user,
                "privateKey": jump.private_key,
                "hostKey": jump.host_key,
            },
        }
        return pulumi.Output.secret(pulumi.Output.from_input(entry))
