"""A SOCKS5 proxy (RFC 1928) like that of `ssh -D`, which sends every connection to one place, wherever it is to go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: int, asked: list[str]) -> None:
    _, methods = await reader.readexactly(2)
    await reader.readexactly(methods)
    writer.write(b"\x05\x00")
    _, _, _, kind = await reader.readexactly(4)
    size = 4 if kind == 1 else (await reader.readexactly(1))[0]
    host = await reader.readexactly(size)
    port = int.from_bytes(await reader.readexactly(2), "big")
    asked.append(f"{'.'.join(map(str, host)) if kind == 1 else host.decode()}:{port}")
    inner, outer = await asyncio.open_connection("127.0.0.1", target)
    writer.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
    with suppress(ConnectionError):
        await asyncio.gather(_copy(reader, outer), _copy(inner, writer))


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
    sink.close()


@contextmanager
def socks_proxy(target: int) -> Iterator[tuple[int, list[str]]]:
    """The proxy's port, and the places that clients asked for. Every connection goes to 127.0.0.1:`target`."""
    asked: list[str] = []
    loop, ports = asyncio.new_event_loop(), []
    ready = threading.Event()

    async def run() -> None:
        server = await asyncio.start_server(lambda r, w: _serve(r, w, target, asked), "127.0.0.1", 0)
        ports.append(server.sockets[0].getsockname()[1])
        ready.set()

    def forever() -> None:
        loop.run_until_complete(run())
        loop.run_forever()

    thread = threading.Thread(target=forever, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield ports[0], asked
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
