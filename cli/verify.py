"""`./lab verify`: every expectation of a lab against the live cluster and its nodes."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.live import live
from cli.pulumi_cli import CannotRun
from components.spec.load import SpecError
from components.verify.reading import Reading, read_lab
from components.verify.reading import verify as check
from components.verify.report import Result, count, document, junit

_MARK = {"passed": "[green]ok[/]", "failed": "[red]FAILED[/]", "unknown": "[yellow]unknown[/]"}


def verify(stack: str, *, as_json: bool = False, junit_file: Path | None = None, verbose: bool = False) -> int:
    """Print the checks of a lab, by node. Returns 0; 1 where one fails or could not be read; 2 and 3 as CannotRun."""
    started = time.monotonic()
    try:
        lab = live(stack)
    except CannotRun as error:
        print(f"lab verify: {error}", file=sys.stderr)
        return error.code
    except SpecError as error:
        print(error, file=sys.stderr)
        return 2
    reading = asyncio.run(read_lab(lab))
    results = check(lab, reading)
    seconds = time.monotonic() - started
    if junit_file is not None:
        try:
            junit_file.parent.mkdir(parents=True, exist_ok=True)
            junit_file.write_text(junit(stack, results, seconds), encoding="utf-8")
        except OSError as error:
            print(f"lab verify: --junit {junit_file}: {error.strerror}", file=sys.stderr)
            return 2
    if as_json:
        print(json.dumps(document(stack, reading, results), indent=2, ensure_ascii=False))
    else:
        show(stack, reading, results, seconds, verbose, Console(width=None if sys.stdout.isatty() else 120))
    return 0 if count(results)["passed"] == len(results) and not reading.no_api else 1


def show(
    stack: str, reading: Reading, results: Sequence[Result], seconds: float, verbose: bool, console: Console
) -> None:
    """A table by node, then whatever did not pass: what was seen, what was expected, the likely cause, the mend."""
    if reading.no_api:
        console.print(f"[yellow]{escape(reading.no_api)}[/]\n", soft_wrap=True)
    for node, why in reading.unreachable.items():
        console.print(f"[yellow]{node}: {escape(why)}[/]\n", soft_wrap=True)
    by_node: dict[str, list[Result]] = {}
    for result in results:
        by_node.setdefault(result.expectation.node or "cluster", []).append(result)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("where", no_wrap=True)
    topics = list(dict.fromkeys(result.expectation.topic for result in results))
    for topic in topics:
        table.add_column(_HEADS.get(topic, topic), justify="right")
    for node, of_node in by_node.items():
        cells = []
        for topic in topics:
            of_topic = [r for r in of_node if r.expectation.topic == topic]
            numbers = count(of_topic)
            bad = numbers["failed"] + numbers["unknown"]
            colour = "red" if numbers["failed"] else "yellow" if bad else "green"
            cells.append(f"[{colour}]{len(of_topic) - bad}/{len(of_topic)}[/]" if of_topic else "")
        table.add_row(node, *cells)
    console.print(table)
    for result in results:
        if verbose or result.status == "failed":
            _explain(result, console)
    unknown = [result for result in results if result.status == "unknown"]
    if unknown and not verbose:
        reasons = dict.fromkeys(result.difference for result in unknown)
        console.print(f"\n[yellow]{len(unknown)} could not be read[/]:", highlight=False)
        for reason in reasons:
            console.print(f"  {escape(reason)}", soft_wrap=True, highlight=False)
    numbers = count(results)
    console.print(
        f"\n[bold]{stack}[/]: {numbers['passed']} passed, {numbers['failed']} failed, {numbers['unknown']} unknown "
        f"in {seconds:.1f} s",
        highlight=False,
    )


def _explain(result: Result, console: Console) -> None:
    e = result.expectation
    console.print(f"\n{_MARK[result.status]} {escape(e.sentence)}", soft_wrap=True, highlight=False)
    rows = [("command", f"{e.node}$ {e.command}" if e.node and not e.command.startswith("kubectl") else e.command)]
    rows.append(("seen", result.seen))
    if result.status != "passed":
        rows += [("but", result.difference), ("because", e.because), ("cause", e.cause), ("mend", e.mend)]
    for name, text in rows:
        if text:
            console.print(f"  [dim]{name:8}[/] {escape(text)}", soft_wrap=True, highlight=False)


_HEADS = {
    "proxy_arp": "arp",
    "ip_forward": "fwd",
    "reservation": "reserved",
    "neighbour": "neigh",
    "annotation": "calico",
    "source_dest": "ec2",
}
