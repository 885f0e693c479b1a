"""A node or an API that cannot be reached: one sentence that says why, never a traceback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncssh
import httpx
import pytest

from components.verify.model import Scope
from components.verify.read import api, ssh
from components.verify.read.access import access_of
from components.verify.read.connection import Access, Completed, Process, Unreachable
from components.verify.read.reading import LiveLab, Reading, read_nodes
from components.verify.read.ssh import Jump, SshAccess, SshConnection
from tests.verify import replica_labs as labs

KEY = asyncssh.generate_private_key("ssh-ed25519")
PRIVATE = KEY.export_private_key().decode()
PUBLIC = KEY.export_public_key().decode().strip()


def access(**what: Any) -> SshAccess:
    given = {"node": "a", "host": "127.0.0.1", "port": 1, "user": "u", "private_key": PRIVATE, "host_key": PUBLIC}
    return SshAccess(**(given | what))


def refused(to: Access) -> str:
    async def go() -> None:
        async with to.connect():
            raise AssertionError("nothing listens there")

    with pytest.raises(Unreachable) as error:
        asyncio.run(go())
    return str(error.value)


def test_a_key_that_cannot_be_used_is_named_and_not_quoted() -> None:
    locked = KEY.export_private_key("pkcs8-pem", passphrase="open").decode()
    for key in ("garbage", locked):
        said = refused(access(private_key=key))
        assert said.startswith("u@127.0.0.1:1: its SSH key or host key cannot be used: ") and key not in said


def test_a_node_needs_a_host_key_and_a_jump_host_does_not() -> None:
    assert "host key cannot be used" in refused(access(host_key=""))
    jump = Jump("127.0.0.1", 1, "j", PRIVATE, None)
    assert refused(access(jump=jump)).startswith("the jump host j@127.0.0.1:1 does not answer")


class Connection:
    """asyncssh's, with a command that never ends, or ends with an error that has no text."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def get_extra_info(self, name: str) -> str:
        return "root"

    async def create_process(self, *arguments: object, **options: object) -> None:
        if self.error:
            raise self.error
        await asyncio.sleep(60)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (None, "no answer within 0 s"),
        (ConnectionResetError(), "the connection broke: ConnectionResetError"),
    ],
)
def test_a_command_that_does_not_end_is_not_called_a_broken_connection(
    monkeypatch: pytest.MonkeyPatch, error: Exception | None, said: str
) -> None:
    real = asyncio.wait_for
    monkeypatch.setattr(ssh.asyncio, "wait_for", lambda it, timeout: real(it, 0.05))
    connection: Any = Connection(error)
    with pytest.raises(Unreachable) as raised:
        asyncio.run(SshConnection(connection).run("true", timeout_seconds=0))
    assert str(raised.value) == said


class Refusal(asyncssh.SSHServerSession[str]):
    """Of a program that ends as soon as it has begun, as sudo does where it asks for a password."""

    def connection_made(self, chan: asyncssh.SSHServerChannel[str]) -> None:
        self.channel = chan

    def exec_requested(self, command: str) -> bool:
        return True

    def session_started(self) -> None:
        self.channel.write_stderr("sudo: a password is required\n")
        self.channel.exit(1)


class Refusing(asyncssh.SSHServer):
    """Lets everybody in, and refuses every program."""

    def begin_auth(self, username: str) -> bool:
        return False

    def session_requested(self) -> Refusal:
        return Refusal()


def test_a_program_that_ended_before_its_input_was_sent_says_why() -> None:
    async def go() -> None:
        server = await asyncssh.listen(
            "127.0.0.1", 0, server_factory=Refusing, server_host_keys=[KEY], encoding="utf-8"
        )
        async with server, access(port=server.get_port()).connect() as connection:
            done = await connection.run("true", timeout_seconds=10)
            assert (done.status, done.stdout, done.stderr) == (1, "", "sudo: a password is required\n")
            process = await connection.start("true", timeout_seconds=10)
            assert await process.stderr() == "sudo: a password is required\n"
            process.write("more")
            process.write_eof()

    asyncio.run(go())


def test_an_api_that_takes_too_long_is_reported_as_a_timeout() -> None:
    def slow(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("")

    async def go() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(slow), base_url="https://api") as client:
            await api.list_objects(client, "/api/v1/nodes", {})

    with pytest.raises(api.NoApi, match=r"does not answer \(ReadTimeout\)"):
        asyncio.run(go())


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"kind": "pigeon"}, "names 'pigeon' as its way there, which this version does not know"),
        ({"host": "127.0.0.1"}, "cannot be used (KeyError: 'user'): run `up` again"),
        ({"host": "127.0.0.1", "port": "ssh", "user": "u"}, "run `up` again"),
    ],
)
def test_an_access_entry_that_cannot_be_used_is_a_node_that_cannot_be_reached(entry: dict[str, Any], said: str) -> None:
    assert said in refused(access_of("a", entry))


class Recorded:
    """A transport of another kind: it keeps every program, and gives the same answer to all of them."""

    node = "control1"

    def __init__(self, answer: Completed) -> None:
        self.answer = answer
        self.programs: list[str] = []

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Recorded]:
        yield self

    async def run(self, program: str, *, timeout_seconds: float) -> Completed:
        self.programs.append(program)
        return self.answer

    async def start(self, program: str, *, timeout_seconds: float) -> Process:
        raise NotImplementedError


def test_a_lab_is_read_over_any_transport() -> None:
    recorded = Recorded(Completed("\x1eip_forward\n1\n\x1f0\n", "", 0))
    live = LiveLab(labs.VXLAN, {}, {recorded.node: recorded}, "")
    reading = Reading(Scope(), [])
    asyncio.run(read_nodes(live, reading, ["control1", "worker1"]))
    assert reading.nodes["control1"].get("ip_forward", "all")[0].line == "1"
    assert "`up` has not made it yet" in reading.unreachable["worker1"]
    assert len(recorded.programs) == 1 and "section link" in recorded.programs[0]
    recorded.answer = Completed("", "bash: not found", 127)
    asyncio.run(read_nodes(live, reading, ["control1"]))
    assert reading.unreachable["control1"] == "the node cannot be read (status 127): bash: not found"
