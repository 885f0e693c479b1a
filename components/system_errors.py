"""What the operating system refused, in one line for a person."""

from __future__ import annotations

import contextlib
import getpass
import os
from pathlib import Path


def system_message(error: OSError, otherwise: Path | None = None) -> str:
    """One line for what the operating system refused: the path, the reason, and the fix where it is known.

    `otherwise`: the path to name where the error has none, such as the folder of the file that was being written.
    """
    path = error.filename if isinstance(error.filename, str) else str(otherwise or "")
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
