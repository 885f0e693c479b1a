"""How the nodes of a live lab are reached: the stack's secret output `access`, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Jump:
    """The host that SSH goes through. `host_key` None: the stack file named none."""

    host: str
    port: int
    user: str
    private_key: str | None
    host_key: str | None


@dataclass(frozen=True)
class Access:
    """SSH to one node. Keys are text; `host_key` is "TYPE BASE64". `private_key` None: the SSH agent is asked."""

    node: str
    host: str
    port: int
    user: str
    private_key: str | None
    host_key: str
    jump: Jump | None = None

    @classmethod
    def of(cls, node: str, value: Mapping[str, Any]) -> Access:
        """From a node's entry of the stack output: keys host, port, user, privateKey, hostKey, jump."""
        jump = value.get("jump")
        return cls(
            node,
            str(value["host"]),
            int(value.get("port") or 22),
            str(value["user"]),
            value.get("privateKey"),
            str(value["hostKey"]).strip(),
            jump
            and Jump(
                str(jump["host"]),
                int(jump.get("port") or 22),
                str(jump["user"]),
                jump.get("privateKey"),
                jump.get("hostKey") and str(jump["hostKey"]).strip(),
            ),
        )
