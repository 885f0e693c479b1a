"""`python -m cli`."""

import io
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from engine.garbage import collect_rarely

collect_rarely()

from cli.main import app  # noqa: E402

if "_LAB_COMPLETE" in os.environ:
    # Typer registers its shells only for programs whose completion it installs itself.
    from typer._completion_classes import completion_init

    completion_init()
for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
        # A terminal of another encoding than UTF-8 shows a question mark where it has no arrow.
        stream.reconfigure(errors="replace")

# Every signal writes its number here, whoever handles it. Ctrl-C is KeyboardInterrupt from here on (see the script
# `lab`), and a library may turn that into another error: a regular expression that is interrupted does not match.
_numbers, _written = socket.socketpair()
_numbers.setblocking(False)
_written.setblocking(False)
signal.set_wakeup_fd(_written.fileno(), warn_on_full_buffer=False)
signal.signal(signal.SIGINT, signal.default_int_handler)


def _interrupted() -> bool:
    """Whether Ctrl-C was pressed."""
    try:
        return signal.SIGINT in _numbers.recv(4096, socket.MSG_PEEK)
    except BlockingIOError:
        return False


def _unless_interrupted(hook: Callable[[Any], object]) -> Callable[[Any], None]:
    def quiet(what: Any) -> None:
        if not _interrupted():
            hook(what)

    return quiet


# What is destroyed after its event loop has ended.
sys.unraisablehook = _unless_interrupted(sys.unraisablehook)
try:
    app(prog_name="lab")
except (Exception, KeyboardInterrupt):
    if not _interrupted():
        raise
    sys.exit(128 + signal.SIGINT)
