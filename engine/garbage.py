"""How often Python searches for garbage: rarely in every command, and never while a program runs."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


def collect_rarely() -> None:
    """Search only after many new objects. Modules and their objects live to the end, and with Python's own threshold of
    700 they are searched hundreds of times while they load: a sixth of a command's time."""
    gc.set_threshold(100_000)


@contextmanager
def no_collection() -> Iterator[None]:
    """Search for no garbage meanwhile. Reference counting goes on.

    The SDK and a lab's resources are a million objects that live to the end. While they are made, Python searches all
    of them again and again: a third of a run's time. A command that ends soon begins before the SDK is imported, and
    saves a tenth of a plan's time more.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
