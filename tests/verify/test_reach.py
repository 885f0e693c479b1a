"""A node or an API that cannot be reached: a sentence that says why, and never a traceback."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncssh
import httpx
import pytest

from components.verify import api, ssh
from components.verify.access import Access, Jump

KEY = asyncssh.generate_private_key("ssh-ed25519")
PRIVATE = KEY.export_private_key().decode()
PUBLIC = KEY.export_public_key().decode().strip()


def access(**what: Any) -> Access:
    given = {"node": "a", "host": "127.0.0.1", "port": 1, "user": "u", "private_key": PRIVATE, "host_key": PUBLIC}
    return Access(**(given | what))


def refused(to: Access) -> str:
    async def go() -> None:
        async with ssh.connect(to):
            raise AssertionError("nothing listens there")

    with pytest.raises(ssh.Unreachable) as error:
        asyncio.run(go())
    return str(error.value)


def test_a_key_that_is_none_or_asks_for_a_passphrase_is_said_so() -> None:
    locked = KEY.export_private_key("pkcs8-pem", passphrase="open").decode()
    for key in ("garbage", locked):
        said = refused(access(private_key=key))
        assert said.startswith("u@127.0.0.1:1: its SSH key or host key cannot be used: ") and key not in said


def test_a_node_without_a_host_key_is_never_taken_as_it_is_and_a_jump_host_may_be() -> None:
    assert "host key cannot be used" in refused(access(host_key=""))
    jump = Jump("127.0.0.1", 1, "j", PRIVATE, None)
    assert refused(access(jump=jump)).startswith("the jump host j@127.0.0.1:1 does not answer")


class Connection:
    """One whose command never ends, or ends with an error that has no text."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def get_extra_info(self, name: str) -> str:
        return "root"

    async def run(self, *arguments: object, **options: object) -> None:
        if self.error:
            raise self.error
        await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, "observe.sh did not end within 0 s"),
        (ConnectionResetError(), "the connection broke: ConnectionResetError"),
    ],
)
def test_a_command_that_does_not_end_is_no_broken_connection(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, said: str
) -> None:
    real = asyncio.wait_for
    monkeypatch.setattr(ssh.asyncio, "wait_for", lambda it, timeout: real(it, 0.05))
    connection: Any = Connection(error)
    with pytest.raises(ssh.Unreachable) as raised:
        asyncio.run(ssh.run(connection, "observe.sh", {}, timeout=0))
    assert str(raised.value) == said


def test_an_api_that_takes_too_long_is_said_so_by_name() -> None:
    def slow(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("")

    async def go() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(slow), base_url="https://api") as client:
            await api._list(client, "/api/v1/nodes", None)

    with pytest.raises(api.NoApi, match=r"does not answer \(ReadTimeout\)"):
        asyncio.run(go())
