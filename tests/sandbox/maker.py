"""What makes a sandbox in a process of its own, on a computer that nothing else changes. Such a process is forked from
one that has imported this module."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from components.sandbox import life
from tests.verify import replica_labs as labs

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


@contextmanager
def quiet_computer() -> Iterator[int]:
    """A network and mounts that nobody else changes meanwhile; gives a process that has them. Only root can have them:
    for others it is this process."""
    if os.geteuid() != 0:
        yield os.getpid()
        return
    command = ["unshare", "--net", "--mount", "sh", "-c", "ip link set lo up && echo ready && exec sleep 3600"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        try:
            yield process.pid
        finally:
            process.kill()


def build_and_end(home: Path, name: str, computer: int) -> None:
    """Have a process build a sandbox on the computer of a process, and end when that stands."""
    process = _context.Process(target=_build, args=(home, name, computer))
    process.start()
    process.join(120)
    assert process.exitcode == 0


def _build(home: Path, name: str, computer: int) -> None:
    _enter(computer)
    life.build(name, labs.CROSS_SUBNET, home)


def begin_to_build(home: Path, computer: int) -> ForkServerProcess:
    """A process that has just begun to build a sandbox on the computer of a process. The sandbox ends with it."""
    here, there = _context.Pipe()
    process = _context.Process(target=_build_and_wait, args=(home, there, computer))
    process.start()
    there.close()
    here.recv()
    return process


def _build_and_wait(home: Path, begun: Connection, computer: int) -> None:
    _enter(computer)
    begun.send("begun")
    life.build("lab", labs.CROSS_SUBNET, home, stay=False)
    time.sleep(3600)


def _enter(computer: int) -> None:
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    of = Path(f"/proc/{computer}/ns")
    with (of / "net").open() as network, (of / "mnt").open() as mounts:
        for namespace in (network, mounts):
            if libc.setns(namespace.fileno(), 0) != 0:
                raise OSError(ctypes.get_errno(), f"setns {namespace.name}")
