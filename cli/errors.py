"""The error of a command, and the exit codes that a caller can rely on."""

from __future__ import annotations

import contextlib
import getpass
import os
from pathlib import Path

FAILED = 1
"""The command ran, and what it does failed."""

USAGE = 2
"""The caller can correct it: in the command's arguments, or in a file that it names."""

MISSING = 3
"""This computer lacks something: a program, credentials, an answer from the state's backend."""


def system_message(error: OSError) -> str:
    """One line for what the operating system refused: the path, the reason, and the fix where it is known."""
    path = error.filename if isinstance(error.filename, str) else ""
    reason = error.strerror or type(error).__name__
    line = f"{path}: {reason}" if path else reason
    if isinstance(error, PermissionError) and path:
        line += f". If a command that ran with sudo made it: sudo chown -R {getpass.getuser()} {_owned(Path(path))}"
    return line


def _owned(path: Path) -> Path:
    """The outermost folder on the way to a path that belongs to another user, else the path."""
    for folder in reversed(path.absolute().parents):
        with contextlib.suppress(OSError):
            if folder.name == ".lab" and folder.stat().st_uid != os.geteuid():
                return folder
    return path


class CommandError(Exception):
    """A command cannot go on. str() is one line that names the fix; `code` is FAILED, USAGE or MISSING.

    cli.main prints it as `lab COMMAND: …` and exits with the code.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
