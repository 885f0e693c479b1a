"""The stack's secret output `access`: node → how it is reached, as values."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from components.verify.read.connection import Access, Connection, Unreachable
from components.verify.read.namespace import NamespaceAccess


@dataclass(frozen=True)
class NoAccess:
    """A node that cannot be reached. `reason`: why, and what to do."""

    node: str
    reason: str

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        """Raises Unreachable."""
        raise Unreachable(self.reason)
        yield  # makes this a generator


def access_of(node: str, entry: Mapping[str, Any]) -> Access:
    """How a node is reached, from its entry of the stack output. `kind` names the transport; SSH where it is absent."""
    kind = entry.get("kind", "ssh")
    try:
        if kind == "namespace":
            return NamespaceAccess.of(node, entry)
        if kind == "ssh":
            # asyncssh takes longer to import than a sandbox to answer.
            from components.verify.read.ssh import SshAccess

            return SshAccess.of(node, entry)
    except (KeyError, TypeError, ValueError) as error:
        why = f"{type(error).__name__}: {error}"
        return NoAccess(node, f"its entry in the stack's output `access` cannot be used ({why}): run `up` again")
    return NoAccess(
        node, f"the stack's output `access` names {kind!r} as its way there, which this version does not know"
    )
