"""What makes a sandbox in a process of its own. Such a process is forked from one that has imported this module."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from components.sandbox import life
from tests.verify import replica_labs as labs

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


def build_and_end(home: Path, name: str) -> None:
    """Have a process build a sandbox, and end when that stands."""
    process = _context.Process(target=_build, args=(home, name))
    process.start()
    process.join(120)
    assert process.exitcode == 0


def _build(home: Path, name: str) -> None:
    life.build(name, labs.CROSS_SUBNET, home)


def begin_to_build(home: Path) -> ForkServerProcess:
    """A process that has just begun to build a sandbox, which ends with it."""
    here, there = _context.Pipe()
    process = _context.Process(target=_build_and_wait, args=(home, there))
    process.start()
    there.close()
    here.recv()
    return process


def _build_and_wait(home: Path, begun: Connection) -> None:
    begun.send("begun")
    life.build("lab", labs.CROSS_SUBNET, home, stay=False)
    time.sleep(3600)
