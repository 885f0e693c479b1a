"""Ports of 127.0.0.1 that lead to addresses inside a replica: `python replica_proxy.py NETNS HOST:PORT…`.

Prints one JSON list, the port for each address in order, and serves until standard input ends. It listens in the
namespace it was started in and then enters NETNS (a path): a socket keeps the namespace it was made in.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import socket
import sys
from functools import partial

CLONE_NEWNET = 0x40000000


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


async def main(netns: str, targets: list[str]) -> None:
    listeners = []
    for _ in targets:
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        listeners.append(listener)
    print(json.dumps([listener.getsockname()[1] for listener in listeners]), flush=True)
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(netns, os.O_RDONLY)
    if libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), f"cannot enter {netns}")

    async def serve(target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = target.split(":")
        try:
            inner_reader, inner_writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), 30)
        except OSError:
            # As a machine that does not answer: the connection ends.
            writer.transport.abort()
            return
        await asyncio.gather(copy(reader, inner_writer), copy(inner_reader, writer))
        inner_writer.close()
        writer.close()

    for listener, target in zip(listeners, targets, strict=True):
        await asyncio.start_server(partial(serve, target), sock=listener)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
