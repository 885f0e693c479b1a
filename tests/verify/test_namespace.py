"""Programs in namespaces end with the command that started them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from components.verify.read.namespace import NamespaceAccess, NamespaceConnection


class Here:
    """Access to this computer, as if it were a node of a sandbox."""

    def command(self, argv: Sequence[str]) -> list[str]:
        return list(argv)


@pytest.mark.parametrize("program", ["sleep 30", "true", "trap '' HUP; read -r line; exit 3"])
def test_a_closed_program_has_ended(program: str) -> None:
    """asyncio warns on stderr, in the middle of the lab's output, where its loop closes before a child has ended."""

    async def start_and_close() -> int | None:
        process = await NamespaceConnection(cast(NamespaceAccess, Here())).start(program, timeout_seconds=20)
        await process.close()
        await process.close()
        return process._process.returncode

    assert asyncio.run(start_and_close()) is not None
