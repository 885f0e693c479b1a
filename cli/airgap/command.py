"""`./lab airgap STACK`: everything that a lab fetches, from where, and how it is checked."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import asdict
from itertools import groupby

from rich.text import Text

from cli.airgap.needs import Kind, Need, Needs, needs_of
from cli.console import page
from cli.errors import USAGE, CommandError
from cli.plan.program import planned
from cli.project import stack_file
from components.spec.load import load_stack_file
from components.spec.versions import PinsError

_HEADINGS: dict[Kind, str] = {
    "program": "On this computer: pulumi",
    "plugin": "On this computer: pulumi's plugins",
    "machine-image": "The image of the machines",
    "distribution-package": "Packages of the distribution",
    "package": "Packages of the repositories",
    "file": "Files",
    "image": "Container images",
}

# Their names are short, and many of them have one source.
_GROUPED: set[Kind] = {"plugin", "distribution-package", "package"}


def run(stack: str, *, listed: bool, as_json: bool) -> int:
    """Print what a stack's `up` fetches: a page, a line for each thing, or JSON. Returns 0.

    Raises CommandError, SpecError.
    """
    file = load_stack_file(stack_file(stack))
    try:
        found = needs_of(planned(file), file.lab)
    except PinsError as error:
        raise CommandError(f"{error}. Fix: correct that file, or remove it and run ./lab pin again", USAGE) from None
    if as_json:
        document = {"stack": stack, "needs": [asdict(need) for need in found.needs], "notes": list(found.notes)}
        print(json.dumps(document, indent=2, ensure_ascii=False))
    elif listed:
        for need in found.needs:
            print(f"{need.kind} {need.name}")
        for note in found.notes:
            print(f"lab airgap: note: {note}", file=sys.stderr)
    else:
        _show(stack, found)
    return 0


def _show(stack: str, found: Needs) -> None:
    console = page()
    console.print(f"What `./lab up {stack}` fetches:")
    for kind, heading in _HEADINGS.items():
        if needs := found.of(kind):
            console.print(f"\n{heading}", style="bold")
            for line in _grouped(needs) if kind in _GROUPED else _apart(needs):
                console.print(Text(line), soft_wrap=True)
    if found.notes:
        console.print()
    for note in found.notes:
        console.print(f"note: {note}")


def _grouped(needs: list[Need]) -> Iterator[str]:
    """The things of each source, one line or more for all their names."""
    for (source, check), group in groupby(needs, key=lambda need: (need.source, need.check)):
        yield f"  from {source}{f', signed by {check}' if check else ''}"
        names = " ".join(need.name.replace(" ", "@") for need in group)
        yield textwrap.fill(names, 100, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)


def _apart(needs: list[Need]) -> Iterator[str]:
    for need in needs:
        yield f"  {need.name}"
        if need.source != need.name:
            yield f"    from {need.source}"
        if need.check:
            yield f"    {need.check if ':' in need.check else f'the key {need.check}'}"
