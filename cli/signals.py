"""Signal handlers for as long as a command waits for a process of its own."""

from __future__ import annotations

import signal
import subprocess
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


def wait_for(process: subprocess.Popen[bytes]) -> int:
    """The exit code of a process in the foreground, or 128 plus the number of the signal that ended it.

    What would end this program ends the process first, so that the process can clean up. The terminal sends Ctrl-C to
    both, so it is ignored here.
    """
    passed_on = dict.fromkeys((signal.SIGTERM, signal.SIGHUP), process.send_signal)
    with handling({**passed_on, signal.SIGINT: lambda _: None}):
        code = process.wait()
    return code if code >= 0 else 128 - code
