"""Parameters that several commands of `./lab` have."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from cli.completion import candidates
from cli.errors import USAGE, CommandError
from components.spec.names import LOCAL_SUFFIX, base_name

_LOCAL = "cni-lab.local"
"""Where a command's context keeps that --local was given."""


def _named(context: typer.Context, stack: str | None) -> str | None:
    """The stack that is meant: with --local, the local variant of the one that was named. Raises CommandError."""
    if not context.meta.get(_LOCAL) or context.resilient_parsing:
        return stack
    if stack is None:
        raise CommandError("--local needs the name of a stack", USAGE)
    return base_name(stack) + LOCAL_SUFFIX


_STACK = typer.Argument(
    metavar="STACK",
    help="a lab of stacks/Pulumi.<STACK>.yaml, or <STACK>-local, its local variant",
    autocompletion=candidates.stacks,
    callback=_named,
)
Stack = Annotated[str, _STACK]
OptionalStack = Annotated[str | None, _STACK]
SANDBOX = typer.Option("--sandbox", help="use the stack's sandbox even if the lab is deployed too")
SKIP_DOCTOR = typer.Option("--skip-doctor", help="do not begin with the checks of `./lab doctor`")
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def _remember_local(context: typer.Context, wanted: bool) -> None:
    context.meta[_LOCAL] = wanted


def add_local(command: Any) -> None:
    """Give a command that takes a stack the option --local, once."""
    known = {name for parameter in command.params for name in parameter.opts}
    if "stack" in known and "--local" not in known:
        command.params.append(_local_option())


def _local_option() -> Any:
    """Typer makes options of a function's parameters alone, so this is the only one of a function."""
    of_one_option = typer.Typer(add_completion=False)

    @of_one_option.command()
    def _(
        local: Annotated[
            bool,
            typer.Option(
                "--local",
                # Before the argument, whose callback asks for it.
                is_eager=True,
                expose_value=False,
                callback=_remember_local,
                help="the stack's local variant: its machines are containers on this computer",
            ),
        ] = False,
    ) -> None: ...

    return typer.main.get_command(of_one_option).params[0]
