"""The commands that break a lab on purpose, let somebody find the fault, and repair it. Each imports its module only
when it runs."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.completion import candidates
from cli.errors import USAGE, CommandError
from cli.group import RUNNING
from cli.parameters import SANDBOX, Stack


def add_to(app: typer.Typer) -> None:
    """Add the commands to the program."""
    app.command("break", rich_help_panel=RUNNING)(break_)
    app.command(rich_help_panel=RUNNING)(exercise)
    app.command(rich_help_panel=RUNNING)(mend)


def break_(
    stack: Stack,
    fault: Annotated[
        str | None,
        typer.Argument(
            metavar="FAULT", help="what to break; --list shows the faults", autocompletion=candidates.faults
        ),
    ] = None,
    node: Annotated[
        str | None,
        typer.Option(help="where; by default, where a ping of verify shows it", autocompletion=candidates.nodes),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="do not ask for confirmation")] = False,
    listed: Annotated[bool, typer.Option("--list", help="list the faults, and which this lab can have")] = False,
    sandbox: Annotated[bool, SANDBOX] = False,
) -> None:
    """Break one thing on purpose, and show what verify and walk will find; `mend` undoes it."""
    from cli.live.faults import break_ as run

    raise typer.Exit(run(stack, fault, node=node, yes=yes, listed=listed, sandbox=sandbox))


def exercise(
    stack: Stack,
    seed: Annotated[int | None, typer.Option(min=0, help="which one; the same for a whole class")] = None,
    level: Annotated[int | None, typer.Option(min=1, max=3, help="how hard; by default, any level")] = None,
    hint: Annotated[bool, typer.Option("--hint", help="show the next hint, with a command to type")] = False,
    check: Annotated[bool, typer.Option("--check", help="check whether it is solved; exit 1 if it is not")] = False,
    solution: Annotated[bool, typer.Option("--solution", help="explain it, and repair it")] = False,
    answers: Annotated[
        bool, typer.Option("--answers", help="for a teacher: the exercise of --seed, or of each of the first 20 seeds")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="print JSON; alone: the results so far")] = False,
    sandbox: Annotated[bool, SANDBOX] = False,
) -> None:
    """Break something without saying what: find it by what a user reports, with hints, and have it checked."""
    if answers:
        from cli.live.answers import run as show_answers

        if hint or check or solution:
            raise CommandError("--answers begins no exercise: leave --hint, --check and --solution out", USAGE)
        raise typer.Exit(show_answers(stack, seed, level, as_json=json, sandbox=sandbox))
    from cli.live.exercise import run

    do = {"hint": hint, "check": check, "solution": solution, "as_json": json, "sandbox": sandbox}
    raise typer.Exit(run(stack, seed, level, **do))


def mend(stack: Stack, sandbox: Annotated[bool, SANDBOX] = False) -> None:
    """Undo every fault of `break` on every node that answers."""
    from cli.live.faults import mend as run

    raise typer.Exit(run(stack, sandbox=sandbox))
