"""The signals of processes that tests start."""

from __future__ import annotations

import signal


def default_signals() -> None:
    """For `preexec_fn`: each signal does what it does by default. What nohup, or `&` in a script, set to be ignored
    would be ignored by every process that a test starts."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
