"""`./lab break` and `./lab mend`: faults on purpose, each with the symptom that verify and walk must then name."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Callable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.lifecycle.pulumi_cli import CannotRun, refuse, stack_file
from cli.live.stack import standing_live
from components.spec import models
from components.spec.load import SpecError, load_stack_file
from components.verify.faults import FAULTS, Fault, Refused, Symptoms, Target, aim, find, inject, symptoms
from components.verify.faults import mend as put_back
from components.verify.read.connection import Unreachable
from components.verify.reading import Live, read_cluster, view


def break_(
    stack: str,
    fault: str | None,
    *,
    node: str | None = None,
    yes: bool = False,
    listed: bool = False,
    sandbox: bool = False,
) -> int:
    """Break one thing of a lab. Returns 0; 1 where it failed; 2 where the command is wrong; 2 and 3 as CannotRun."""
    return _run("break", lambda: _break(stack, fault, node, yes, listed, sandbox))


def _break(stack: str, name: str | None, node: str | None, yes: bool, listed: bool, sandbox: bool) -> int:
    if listed:
        show_list(load_stack_file(stack_file(stack)).lab, _console())
        return 0
    if name is None:
        raise CannotRun(f"name a fault; ./lab break {stack} --list shows them", code=2)
    try:
        # What the stack file alone tells comes before the state is asked for.
        fault = find(name, load_stack_file(stack_file(stack)).lab)
        lab = standing_live(stack, sandbox=sandbox)
        # A sandbox may have less to break than the file says.
        fault = find(name, lab.lab)
        target, expected, no_api = asyncio.run(_aim(lab, fault, node))
    except Refused as error:
        raise CannotRun(str(error), code=2) from None
    console = _console()
    console.print(f"{fault.id}: {escape(target.what)}", soft_wrap=True)
    if not yes:
        _ask(stack)
    try:
        asyncio.run(inject(lab, stack, fault, target))
    except Refused as error:
        raise CannotRun(str(error), code=1) from None
    except Unreachable as error:
        raise CannotRun(f"{target.node}: {error}", code=1) from None
    show_symptoms(stack, fault, expected, no_api, console)
    return 0


async def _aim(lab: Live, fault: Fault, node: str | None) -> tuple[Target, Symptoms, str]:
    """Where it strikes, what is seen then, and why the API could not be read, else empty."""
    reading = await read_cluster(lab)
    of = view(lab, reading)
    try:
        target = aim(fault, of, node)
    except Refused as error:
        # Without the API no pod is known.
        raise CannotRun(f"{error}; {reading.no_api}", code=1) if reading.no_api else error from None
    return target, symptoms(fault, of, target), reading.no_api


def _ask(stack: str) -> None:
    if not sys.stdin.isatty():
        raise CannotRun("nothing was broken: say --yes where nobody can be asked", code=2)
    try:
        answer = input(f"Break it? `./lab mend {stack}` undoes it. [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise CannotRun("nothing was broken", code=2)


def show_symptoms(stack: str, fault: Fault, expected: Symptoms, no_api: str, console: Console) -> None:
    """What the person will see, and the way back. `no_api`: why no pod is known, else empty."""
    quoted = shlex.quote(stack)
    if expected.failed:
        console.print(f"\n[bold]./lab verify {quoted}[/] must now say failed, and nothing else:")
    for e in expected.failed:
        console.print(f"  {escape(e.id)}", soft_wrap=True)
        console.print(f"    [dim]{escape(e.sentence)}[/]", soft_wrap=True)
    if expected.walk is not None:
        source, target = expected.walk
        console.print(
            f"[bold]./lab walk {quoted} {source} {target}[/] must stop at: {expected.hop}, {expected.node}",
            soft_wrap=True,
        )
    elif fault.hop and no_api:
        console.print(f"[yellow]What pings and walk then say cannot be told[/]: {escape(no_api)}", soft_wrap=True)
    elif fault.hop:
        console.print("No two pods of the lab send packets that way, so none is lost.")
    else:
        console.print("No packet of a pod that runs is lost: walk goes through. Pods made from now on show it.")
    console.print(f"What heals it by itself: {fault.heals}.", soft_wrap=True)
    console.print(f"[bold]./lab mend {quoted}[/] puts it back.", soft_wrap=True)


def show_list(lab: models.Lab, console: Console) -> None:
    """Every fault: what it does, where walk stops, what heals it; or why this lab cannot have it."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("fault", "what it does", "walk stops at", "what heals it by itself"):
        table.add_column(column, overflow="fold", no_wrap=column == "fault")
    for fault in FAULTS.values():
        why = fault.refusal(lab)
        if why is None:
            table.add_row(fault.id, escape(fault.title), fault.hop or "(goes through)", escape(fault.heals))
        else:
            table.add_row(fault.id, escape(f"not in this lab: {why}"), "", "", style="dim")
    console.print(table)


def mend(stack: str, *, sandbox: bool = False) -> int:
    """Put back all that `break` broke. Returns 0; 1 where a node does not answer; 2 and 3 as CannotRun."""
    return _run("mend", lambda: _mend(stack, sandbox))


def _mend(stack: str, sandbox: bool) -> int:
    mended = asyncio.run(put_back(standing_live(stack, sandbox=sandbox), stack))
    for node, fault, how in mended.done:
        print(f"{node}: {fault}: {how}")
    for node, why in mended.failed.items():
        print(f"lab mend: {node}: {why}", file=sys.stderr)
    if mended.failed:
        print(
            f"lab mend: {', '.join(mended.failed)} may still be broken: repeat ./lab mend {shlex.quote(stack)}",
            file=sys.stderr,
        )
        return 1
    if not mended.done:
        print("nothing was broken")
    return 0


def _run(command: str, action: Callable[[], int]) -> int:
    try:
        return action()
    except (CannotRun, SpecError) as error:
        return refuse(command, error)


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else 120, highlight=False)
