"""`./lab break` and `./lab mend`: deliberate faults, and what verify and walk must find then."""

from __future__ import annotations

import asyncio
import shlex
import sys
import textwrap
from collections.abc import Sequence
from functools import partial

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from cli.console import page
from cli.errors import FAILED, USAGE, CommandError
from cli.live import last_verify
from cli.project import stack_file
from cli.sandbox.choice import chosen_live, sandbox_of
from components.spec import models
from components.spec.load import load_stack_file
from components.verify.faults.inject import inject
from components.verify.faults.inject import mend as undo
from components.verify.faults.model import Fault, Refused, Symptoms, Target
from components.verify.faults.symptoms import aim, symptoms
from components.verify.faults.table import FAULTS, find
from components.verify.read.connection import Unreachable
from components.verify.read.reading import LiveLab, observed, read_cluster


def break_(
    stack: str,
    name: str | None,
    *,
    node: str | None = None,
    yes: bool = False,
    listed: bool = False,
    sandbox: bool = False,
) -> int:
    """Break one thing of a lab. Returns 0. Raises CommandError, SpecError."""
    if listed:
        chosen = sandbox_of(stack, sandbox)
        lab_listed = load_stack_file(stack_file(stack)).lab if chosen is None else chosen.lab
        show_list(lab_listed, page(), sandbox=chosen is not None)
        return 0
    if name is None:
        raise CommandError(f"name a fault; ./lab break {stack} --list shows them", USAGE)
    try:
        # What the stack file alone decides comes first: it needs no state.
        fault = find(name, load_stack_file(stack_file(stack)).lab)
        lab = chosen_live(stack, sandbox=sandbox)
        # A sandbox may have less to break than the file says.
        fault = find(name, lab.spec, sandbox=lab.sandbox)
        target, expected, no_api = asyncio.run(_aim(lab, fault, node))
    except Refused as error:
        raise CommandError(str(error), USAGE) from None
    console = page()
    console.print(f"{fault.id}: {escape(target.sentence)}", soft_wrap=True)
    if not yes:
        _ask(stack)
    last_verify.forget(stack, sandbox=lab.sandbox)
    try:
        asyncio.run(inject(lab, stack, fault, target))
    except Refused as error:
        raise CommandError(str(error), FAILED) from None
    except Unreachable as error:
        raise CommandError(f"{target.node}: {error}", FAILED) from None
    show_symptoms(stack, fault, expected, no_api, console, sandbox=lab.sandbox)
    return 0


async def _aim(lab: LiveLab, fault: Fault, node: str | None) -> tuple[Target, Symptoms, str]:
    """Where the fault goes, its symptoms, and why the API could not be read (empty where it could)."""
    reading = await read_cluster(lab)
    of = observed(lab, reading)
    try:
        target = aim(fault, of, node)
    except Refused as error:
        # Without the API no pod is known, which may be why there is no target.
        raise CommandError(f"{error}; {reading.no_api}", FAILED) if reading.no_api else error from None
    return target, symptoms(fault, of, target), reading.no_api


def _ask(stack: str) -> None:
    if not sys.stdin.isatty():
        raise CommandError("nothing was broken: without a terminal, confirm with --yes", USAGE)
    try:
        answer = input(f"Break it? `./lab mend {stack}` undoes it. [y/N] ")
    except EOFError:
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise CommandError("nothing was broken", USAGE)


def show_symptoms(
    stack: str, fault: Fault, expected: Symptoms, no_api: str, console: Console, *, sandbox: bool
) -> None:
    """What verify and walk will find, and how to undo the fault. `no_api`: why no pod is known, else empty."""
    quoted = shlex.quote(stack)
    if expected.failed:
        console.print(f"\n[bold]./lab verify {quoted}[/] must now report exactly these failures:")
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
        console.print(f"[yellow]What pings and walk will say is not known[/]: {escape(no_api)}", soft_wrap=True)
    elif fault.hop:
        console.print("No two pods of the lab send packets over that path, so none is lost.")
    else:
        console.print("Running pods lose no packet, and walk goes through. Pods created from now on show the fault.")
    console.print(f"[bold]./lab mend {quoted}[/] undoes it. {_without_mend(fault, sandbox=sandbox)}.", soft_wrap=True)


def _without_mend(fault: Fault, *, sandbox: bool) -> str:
    return f"Without mend {'it stays, because no Felix runs in a sandbox' if sandbox else fault.without_mend}"


def show_list(lab: models.Lab, console: Console, *, sandbox: bool) -> None:
    """Every fault: what it does, where walk stops, what becomes of it without mend. Then those that the lab, or its
    sandbox, cannot have."""
    width = max(map(len, FAULTS))
    absent = []
    for fault in FAULTS.values():
        if why := (fault.not_in_sandbox if sandbox else "") or fault.refusal(lab):
            absent.append((fault.id, why))
            continue
        where = f"walk stops at: {fault.hop}" if fault.hop else "walk passes"
        texts = [fault.title, where if sandbox else f"{where}. {_without_mend(fault, sandbox=False)}"]
        if fault.not_in_sandbox:
            texts.append(f"not in a sandbox: {fault.not_in_sandbox}")
        _entry(console, fault.id, texts, width)
    if absent:
        console.print(f"\n[bold]Not in this {'sandbox' if sandbox else 'lab'}[/]")
        for name, why in absent:
            _entry(console, name, [why], width, style="dim")


def _entry(console: Console, name: str, texts: Sequence[str], width: int, style: str = "") -> None:
    """A name and, beside it, texts that are wrapped without a cut in a word."""
    indent = " " * (width + 2)
    room = max(console.width, width + 30)
    wrap = partial(textwrap.wrap, width=room - len(indent), break_long_words=False, break_on_hyphens=False)
    lines = [line for text in texts for line in wrap(text)]
    for number, line in enumerate(lines):
        head = Text(f"{name:{width}}  " if number == 0 else indent, style=style or "bold")
        console.print(head.append(Text(line, style=style)), soft_wrap=True)


def mend(stack: str, *, sandbox: bool = False) -> int:
    """Undo every fault of `break`. Returns 0, or 1 where a node does not answer. Raises CommandError, SpecError."""
    lab = chosen_live(stack, sandbox=sandbox)
    last_verify.forget(stack, sandbox=lab.sandbox)
    mended = asyncio.run(undo(lab, stack))
    for entry in mended.undone:
        print(f"{entry.node}: {entry.fault}: {entry.result}")
    for node, why in mended.failed.items():
        print(f"lab mend: {node}: {why}", file=sys.stderr)
    if mended.failed:
        print(
            f"lab mend: {', '.join(mended.failed)} may still be broken: repeat ./lab mend {shlex.quote(stack)}",
            file=sys.stderr,
        )
        return 1
    if not mended.undone:
        print("nothing was broken")
    return 0
