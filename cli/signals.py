"""Signal handlers for as long as a command waits for a process of its own."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def handling(handlers: Mapping[signal.Signals, Callable[[int], None]]) -> Iterator[None]:
    """Call these on their signals; the former handlers come back at the end."""

    def installed(handler: Callable[[int], None]) -> Callable[[int, object], None]:
        return lambda number, _frame: handler(number)

    before = {number: signal.signal(number, installed(handler)) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
