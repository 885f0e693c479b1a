"""Parameters that several commands of `./lab` have."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.completion import candidates

_STACK = typer.Argument(metavar="STACK", help="a lab of stacks/Pulumi.<STACK>.yaml", autocompletion=candidates.stacks)
Stack = Annotated[str, _STACK]
OptionalStack = Annotated[str | None, _STACK]
SANDBOX = typer.Option("--sandbox", help="use the stack's sandbox even if the lab is deployed too")
SKIP_DOCTOR = typer.Option("--skip-doctor", help="do not begin with the checks of `./lab doctor`")
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
