"""How a program that the engine runs ends when the engine interrupts it."""

from __future__ import annotations

import os
import signal
import threading

# The language host takes this status to mean that the person has been told already (pulumi-language-python-exec).
_ALREADY_TOLD = 32


def end_quietly_on_interrupt() -> None:
    """End the process at once on SIGINT, without a traceback.

    The engine interrupts the program when a provider or a plugin fails, and Ctrl-C reaches it too. It has nothing to
    save, and a traceback would hide the engine's own message. Does nothing outside the main thread, where Python allows
    no handlers: there another program runs this one.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, lambda _number, _frame: os._exit(_ALREADY_TOLD))
