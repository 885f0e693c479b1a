"""`./lab doctor`, and the same checks before `up` and `preview`, and as notes of `plan`."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from cli.console import page
from cli.doctor import tools
from cli.doctor.model import Check, Row, Verdict, examine
from cli.errors import FAILED, USAGE, CommandError
from cli.project import stack_file, stack_files
from components.aws_client import AwsSettings
from components.spec.load import StackFile, load_stack_file
from components.spec.models import Lab

if TYPE_CHECKING:
    from cli.lifecycle.local_machines import LocalState

SKIP = "--skip-doctor"
_WORDS: dict[Verdict, tuple[str, str]] = {
    "ok": ("ok", "green"),
    "warn": ("warning", "yellow"),
    "stop": ("STOP", "bold red"),
    "unknown": ("unknown", "magenta"),
}
_NAME_WIDTH = 18


def checks(file: StackFile, state: Callable[[], LocalState] | None = None, labs: int = 1) -> list[Check]:
    """Every check of a stack, in the order of the page. `state`: of local machines, see cli/doctor/local.py.
    `labs`: how many such labs the AWS account must have room for."""
    lab = file.lab
    return [*tools.checks(lab), *_local(lab, file.name, state), *_aws(file, labs), *_hosts(lab, file.name)]


# The rooms of the other providers are imported only for a lab that has such machines.
def _local(lab: Lab, stack: str, state: Callable[[], LocalState] | None = None) -> list[Check]:
    if lab.machines.provider != "local":
        return []
    from cli.doctor import local

    return local.checks(lab, stack, state=state)


def _aws(file: StackFile, labs: int) -> list[Check]:
    if file.lab.machines.provider != "aws":
        return []
    from cli.doctor import aws

    return aws.checks(file.lab, file.name, AwsSettings.of(file.config), labs)


def _hosts(lab: Lab, stack: str) -> list[Check]:
    if lab.machines.provider != "existing":
        return []
    from cli.doctor import hosts

    return hosts.checks(lab, stack)


def run(stack: str | None, *, as_json: bool, labs: int = 1) -> int:
    """Examine one stack, or every one. Returns 1 where an `up` would surely fail, else 0.

    `labs`: how many labs like this one there are to be, such as one for each student of a class.

    Raises CommandError, SpecError.
    """
    stacks = [stack] if stack is not None else list(stack_files())
    documents = []
    stopped = False
    for name in stacks:
        file = load_stack_file(stack_file(name))
        if labs > 1 and file.lab.machines.provider != "aws":
            provider = file.lab.machines.provider
            raise CommandError(
                f"--labs counts quotas of AWS, and the machines of {name} are {provider}: omit it", USAGE
            )
        start = time.monotonic()
        rows = examine(checks(file, labs=labs))
        stopped = stopped or any(row.answer.verdict == "stop" for row in rows)
        if as_json:
            documents.append({"stack": name, "checks": [_document(row) for row in rows]})
        else:
            _show(name, rows, time.monotonic() - start)
    if as_json:
        print(json.dumps(documents if stack is None else documents[0], indent=2, ensure_ascii=False))
    return FAILED if stopped else 0


def _document(row: Row) -> dict[str, str]:
    check, answer = row.check, row.answer
    return {
        "name": check.name,
        "question": check.question,
        "verdict": answer.verdict,
        "seen": answer.seen,
        "fix": answer.fix,
    }


def _show(stack: str, rows: Sequence[Row], seconds: float) -> None:
    console = page()
    counts = Counter(row.answer.verdict for row in rows)
    counted = ", ".join(f"{counts[verdict]} {word}" for verdict, (word, _) in _WORDS.items() if counts[verdict])
    console.print(Text.assemble((stack, "bold"), f": {len(rows)} checks, {counted}, in {seconds:.1f} s"))
    for row in rows:
        word, style = _WORDS[row.answer.verdict]
        console.print(
            Text.assemble(("  ", ""), (f"{word:8}", style), f"{row.check.name:{_NAME_WIDTH}} {row.answer.seen}"),
            soft_wrap=True,
        )
        if row.answer.verdict != "ok":
            indent = " " * (_NAME_WIDTH + 11)
            console.print(Text.assemble((f"{indent}{row.check.question}", "dim")), soft_wrap=True)
            if row.answer.fix:
                console.print(Text(f"{indent}Fix: {row.answer.fix}"), soft_wrap=True)
    console.print()


# --- for other commands ----------------------------------------------------------------------------------------------


def examine_before(command: str, file: StackFile, state: Callable[[], LocalState] | None = None) -> None:
    """Before `up` and `preview`: print what may go wrong, and raise CommandError for what surely does.

    A preview makes nothing, so it goes on where only an `up` would fail. `state`: of local machines, see
    cli/doctor/local.py.
    """
    stops = []
    for row in examine(checks(file, state)):
        if row.answer.verdict == "ok":
            continue
        if row.answer.verdict == "stop" and (command == "up" or row.check.for_preview):
            stops.append(_line(row))
        else:
            print(f"lab {command}: {_note(row)}", file=sys.stderr)
    if stops:
        listed = "".join(f"\n  {line}" for line in stops)
        raise CommandError(f"nothing was made, because this would fail ({SKIP} tries it anyway):{listed}", FAILED)


def local_notes(lab: Lab, stack: str) -> list[str]:
    """For `plan`: what this computer lacks for a lab of local machines. Asks nobody else."""
    return [f"note: {_note(row)}" for row in examine(_local(lab, stack)) if row.answer.verdict != "ok"]


def _note(row: Row) -> str:
    word = "up would stop" if row.answer.verdict == "stop" else _WORDS[row.answer.verdict][0]
    return f"{word}: {_line(row)}"


def _line(row: Row) -> str:
    seen, fix = row.answer.seen, row.answer.fix
    # What a program said may end in a mark of its own.
    end = "" if seen.endswith((".", "?", "!")) else "."
    return f"{row.check.name}: {seen}{f'{end} Fix: {fix}' if fix else ''}"
