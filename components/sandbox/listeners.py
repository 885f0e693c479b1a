"""What listens on the ports of the Services: one process for all pods of a sandbox. A pod answers a TCP connection with
its name, as an HTTP response, so that `curl` shows which endpoint was reached.

The standard library is all it needs: holder.py runs it without the lab's virtual environment.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import socket
import threading
from collections.abc import Sequence
from typing import NamedTuple

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
_IDLE_SECONDS = 5.0


class Listener(NamedTuple):
    """A TCP port of a network namespace, and the name that it answers with. `namespace`: a path."""

    namespace: str
    port: int
    name: str


def listen(listeners: Sequence[Listener]) -> None:
    """Listen on every port, and answer until this process ends. Raises OSError."""
    selector, failed = selectors.DefaultSelector(), []

    def open_all() -> None:
        # A socket stays in the namespace in which it was made. setns changes this thread's only.
        try:
            for it in listeners:
                _enter(it.namespace)
                made = socket.create_server(("0.0.0.0", it.port))
                made.setblocking(False)
                selector.register(made, selectors.EVENT_READ, it.name)
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=open_all)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    threading.Thread(target=_serve, args=(selector,), daemon=True).start()


def _enter(namespace: str) -> None:
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
    finally:
        os.close(descriptor)


def _serve(selector: selectors.BaseSelector) -> None:
    while True:
        for key, _ in selector.select():
            with contextlib.suppress(OSError):
                assert isinstance(key.fileobj, socket.socket)
                connection, _ = key.fileobj.accept()
                threading.Thread(target=_answer, args=(connection, key.data), daemon=True).start()


def _answer(connection: socket.socket, name: str) -> None:
    with contextlib.suppress(OSError), connection:
        connection.settimeout(_IDLE_SECONDS)
        if connection.recv(4096):
            body = f"{name}\n"
            head = f"HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall((head + body).encode())
            connection.shutdown(socket.SHUT_WR)
            connection.recv(4096)
