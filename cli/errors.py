"""The error of a command, and the exit codes that a caller can rely on."""

from __future__ import annotations

FAILED = 1
"""The command ran, and what it does failed."""

USAGE = 2
"""The caller can correct it: in the command's arguments, or in a file that it names."""

MISSING = 3
"""This computer lacks something: a program, credentials, an answer from the state's backend."""


class CommandError(Exception):
    """A command cannot go on. str() is one line that names the fix; `code` is FAILED, USAGE or MISSING.

    cli.main prints it as `lab COMMAND: …` and exits with the code.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code
