"""Runs the program on a stack file, in this process: a plan needs no cloud account, no pulumi CLI and no network."""

from __future__ import annotations

import os

from cli import project
from cli.errors import FAILED, CommandError
from components.spec.load import StackFile
from engine.model import Deployment, ProgramError


def planned(file: StackFile) -> Deployment:
    """The stack's plan. Raises CommandError where the program fails.

    LAB_TRACEBACK=1 in the environment adds the program's Python traceback to the message.
    """
    # Most of what this module imports is pulumi, and a review has each side planned in a process of its own.
    from engine.run import run_program

    program = project.ROOT / project.PROGRAM
    try:
        return run_program(program, stack=file.name, config=file.config, secret_keys=file.secret_keys)
    except ProgramError as error:
        trace = f"\n{error.trace}" if os.environ.get("LAB_TRACEBACK") else ""
        raise CommandError(f"{error}{trace}", FAILED) from None
