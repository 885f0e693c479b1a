"""`./lab verify`: checks every expectation of a lab against its nodes and its API."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.console import page
from cli.errors import USAGE, CommandError
from cli.live import last_verify
from cli.sandbox.choice import chosen_live
from components.verify.model import Result
from components.verify.read.reading import Reading
from components.verify.report import count, document, junit
from components.verify.waiting import verify_until

_MARK = {"passed": "[green]ok[/]", "failed": "[red]FAILED[/]", "unknown": "[yellow]unknown[/]"}


def verify(
    stack: str,
    *,
    as_json: bool = False,
    junit_file: Path | None = None,
    verbose: bool = False,
    sandbox: bool = False,
    wait_seconds: float = 0.0,
) -> int:
    """Print the checks of a lab. Returns 0, or 1 if one fails or could not be read.

    `wait_seconds`: how long a lab may need until all pass; meanwhile stderr says what is missing. Raises CommandError,
    SpecError.
    """
    started = time.monotonic()
    lab = chosen_live(stack, sandbox=sandbox)
    reading, results = verify_until(lab, wait_seconds, lambda line: print(f"lab verify: {line}", file=sys.stderr))
    seconds = time.monotonic() - started
    last_verify.remember(stack, count(results), sandbox=lab.sandbox)
    if as_json:
        print(json.dumps(document(stack, reading, results) | {"sandbox": lab.sandbox}, indent=2, ensure_ascii=False))
    else:
        show(stack, reading, results, seconds, verbose, page())
    if junit_file is not None:
        try:
            junit_file.parent.mkdir(parents=True, exist_ok=True)
            junit_file.write_text(junit(stack, results, seconds), encoding="utf-8")
        except OSError as error:
            raise CommandError(f"--junit {junit_file}: {error.strerror}", USAGE) from None
    return 0 if count(results)["passed"] == len(results) and not reading.no_api else 1


def show(
    stack: str, reading: Reading, results: Sequence[Result], seconds: float, verbose: bool, console: Console
) -> None:
    """A table, then each failed check: what was seen, what was expected, the likely cause and the fix."""
    if reading.no_api:
        console.print(f"[yellow]{escape(reading.no_api)}[/]\n", soft_wrap=True)
    for node, why in reading.unreachable.items():
        console.print(f"[yellow]{node}: {escape(why)}[/]\n", soft_wrap=True)
    console.print(_table(results))
    for result in results:
        if verbose or result.status == "failed":
            _explain(stack, result, console)
    unknown = [result for result in results if result.status == "unknown"]
    if unknown and not verbose:
        reasons = dict.fromkeys(result.difference for result in unknown)
        console.print(f"\n[yellow]{len(unknown)} could not be read[/]:")
        for reason in reasons:
            console.print(f"  {escape(reason)}", soft_wrap=True)
    numbers = count(results)
    console.print(
        f"\n[bold]{stack}[/]: {numbers['passed']} passed, {numbers['failed']} failed, {numbers['unknown']} unknown "
        f"in {seconds:.1f} s"
    )


def _table(results: Sequence[Result]) -> Table:
    """How many checks passed, by topic and place. The columns are the places if they fit on a page, else the topics."""
    cells: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        place = result.expectation.node or "cluster"
        cells.setdefault((result.expectation.topic.heading, place), []).append(result)
    topics = list(dict.fromkeys(topic for topic, _ in cells))
    places = list(dict.fromkeys(place for _, place in cells))
    across = len(places) <= 6
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    for head in places if across else topics:
        # A shortened name could be that of several nodes.
        table.add_column(head, justify="right", overflow="fold")
    for row in topics if across else places:
        keys = [(row, place) for place in places] if across else [(topic, row) for topic in topics]
        table.add_row(row, *(_cell(cells.get(key, ())) for key in keys))
    return table


def _cell(results: Sequence[Result]) -> str:
    if not results:
        return ""
    numbers = count(results)
    colour = "red" if numbers["failed"] else "yellow" if numbers["unknown"] else "green"
    return f"[{colour}]{numbers['passed']}/{len(results)}[/]"


def _explain(stack: str, result: Result, console: Console) -> None:
    e = result.expectation
    console.print(f"\n{_MARK[result.status]} {escape(e.sentence)}", soft_wrap=True)
    prompt = f"{e.node}$ " if e.node and not e.command.startswith(("kubectl", "./lab")) else ""
    rows = [("command", prompt + e.command.replace("STACK", stack)), ("seen", result.seen)]
    if result.status != "passed":
        rows += [
            ("but", result.difference),
            ("because", e.because),
            ("cause", e.cause),
            ("fix", e.fix.replace("STACK", stack)),
        ]
    for name, text in rows:
        if text:
            console.print(f"  [dim]{name:8}[/] {escape(text)}", soft_wrap=True)
