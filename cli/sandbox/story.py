"""The pages of `./lab demo`: plain lines of at most 80 columns, coloured for a terminal."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.text import Text

from components.verify.faults.model import Fault, Symptoms, Target
from components.verify.model import Result, Topic
from components.verify.report import count
from components.verify.walk.capture import Sighting, digest
from components.verify.walk.model import Walk

WIDTH = 80
RECORDING = Path(__file__).parents[2] / "docs" / "demo.txt"
"""What `./lab demo` showed on another computer."""
_COUNTED = (
    Topic.AFFINITY,
    Topic.LINK,
    Topic.ROUTE,
    Topic.NEIGHBOUR,
    Topic.FDB,
    Topic.PROXY_ARP,
    Topic.FILE,
    Topic.ADDRESS,
    Topic.PROBE,
)
"""The topics of verify that are counted by name; the others are counted together."""


def heading(number: int, title: str) -> Text:
    return Text(f"{number}  {title}", style="bold")


def _fit(text: str, width: int = WIDTH) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _wrapped(text: str, indent: str = "  ", style: str = "") -> Iterator[Text]:
    for line in textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False):
        yield Text(line, style=style)


def command(text: str) -> Iterator[Text]:
    """What a person types, in lines that fit."""
    lines = textwrap.wrap(f"$ ./lab {text}", WIDTH - 4, subsequent_indent="    ", break_on_hyphens=False)
    for number, line in enumerate(lines, 1):
        yield Text(f"  {line}" + (" \\" if number < len(lines) else ""), style="bold")


def paragraph(text: str) -> Iterator[Text]:
    """A note in lines that fit."""
    return _wrapped(text)


# --- verify -----------------------------------------------------------------------------------------------------------


def summary(results: Sequence[Result], seconds: float) -> Iterator[Text]:
    """How many checks passed, by topic."""
    total, passed = Counter[str](), Counter[str]()
    for result in results:
        topic = result.expectation.topic
        name = topic.heading if topic in _COUNTED else "others"
        total[name] += 1
        passed[name] += result.status == "passed"
    numbers = count(results)
    bad = len(results) - numbers["passed"]
    verdict = "all hold" if not bad else f"{numbers['failed']} failed, {numbers['unknown']} unknown"
    yield Text(
        f"  {len(results)} expectations against the live machines: {verdict}, in {seconds:.1f} s",
        style="green" if not bad else "red",
    )
    names = [name for name in (*(topic.heading for topic in _COUNTED), "others") if total[name]]
    yield from _wrapped(", ".join(f"{name} {passed[name]}/{total[name]}" for name in names), "    ", "dim")


def failures(results: Sequence[Result], expected: Symptoms) -> Iterator[Text]:
    """What verify found, and whether that is what the fault promised."""
    failed = [result for result in results if result.status != "passed"]
    for result in failed:
        yield from _wrapped(f"FAILED {result.expectation.sentence}", style="red")
        if result.seen or result.difference:
            yield from _wrapped(f"but {result.difference or result.seen}", "         ", "dim")
    wanted = {e.id for e in expected.failed}
    if {result.expectation.id for result in failed} == wanted:
        yield from _wrapped(f"These {len(wanted)}, and nothing else, are what this fault must break.")
    else:
        yield from _wrapped(f"Expected were: {', '.join(sorted(wanted))}", style="yellow")


# --- walk -------------------------------------------------------------------------------------------------------------


def way(walk: Walk) -> Iterator[Text]:
    """The hops of the way out, and at the one that stops the packet what is wrong there."""
    target = walk.target
    yield from _wrapped(f"from {walk.source.id} ({walk.source.address}) on {walk.source.node}")
    if target is not None:
        yield from _wrapped(f"to   {target.id} ({walk.address}) on {target.node}")
    for hop in walk.hops:
        if hop.direction != "out":
            break
        if not hop.reached:
            yield Text(f"          {hop.kind:12} not reached", style="dim")
            continue
        mark, style = {"passed": ("ok  ", "green"), "failed": ("STOP", "red")}.get(hop.status, ("?   ", "yellow"))
        sentence = hop.sentence
        for pod, name in ((walk.source, "the pod"), (target, "the other pod")):
            sentence = sentence.replace(pod.id, name) if pod is not None else sentence
        head = Text("    ").append(mark, style=style).append(f"  {hop.kind:12} ", style="bold")
        indent = len(head.plain)
        wrong = next((check for check in hop.checks if check.status == "failed"), None)
        first, *rest = _columns(wrong.difference if wrong else sentence, indent) or [""]
        yield head.append(first)
        yield from (Text(" " * indent + line) for line in rest)
        if wrong is not None:
            yield from _wrong(wrong, indent)
    passed = walk.ping.status == "passed"
    yield Text(f"  The ping is {'answered' if passed else 'lost'}.", style="green" if passed else "red")


def _wrong(check: Result, indent: int) -> Iterator[Text]:
    e = check.expectation
    prompt = f"{e.node}$ " if e.node and not e.command.startswith("kubectl") else ""
    rows = (("command", prompt + e.command), ("seen", check.seen), ("expected", e.sentence), ("cause", e.cause))
    for name, text in rows:
        for number, line in enumerate(_columns(text, indent + 10)):
            yield Text(" " * indent + f"{'' if number else name:10}{line}", style="red")


def _columns(text: str, indent: int) -> list[str]:
    return textwrap.wrap(text, WIDTH - indent, break_on_hyphens=False)


def caught(seen: Sequence[Sighting]) -> Iterator[Text]:
    """One and the same packet at each place, as tcpdump saw it."""
    yield Text("  The same packet, caught by tcpdump at each place:")
    start = next((it.at for it in seen if it.at is not None), None)
    for sighting in seen:
        at = "not seen" if sighting.at is None or start is None else f"+{(sighting.at - start) * 1000:.2f} ms"
        point = sighting.point
        where = f"{'pod ' if point.pod else ''}{point.device}, {point.node}"
        yield Text(_fit(f"    {at:>9}  {where}"), style="bold")
        if sighting.request:
            for part in _headers(sighting.request):
                yield Text(_fit(f"               {part}"), style="cyan")


def _headers(line: str) -> list[str]:
    """The addresses of a packet, the outer header before the inner one; without MAC addresses."""
    text = digest(line)
    for tunnel in ("VXLAN", "IPIP"):
        outer, found, inner = text.partition(f"  {tunnel}")
        if found:
            return [
                _addresses(outer),
                f"{tunnel}{inner[: inner.find('  ')] if 'vni' in inner else ''}: {_addresses(inner)}",
            ]
    return [_addresses(text)]


def _addresses(text: str) -> str:
    """The part with IP addresses: after the MAC addresses, which end with two spaces."""
    return text.split("  ")[-1].strip()


def recorded_walk() -> list[str]:
    """The walk of the recording, without its command."""
    text = RECORDING.read_text(encoding="utf-8")
    return text[text.index("3  Follow a packet") : text.index("4  Break it")].strip().splitlines()[2:]


# --- the fault --------------------------------------------------------------------------------------------------------


def broken(stack: str, fault: Fault, target: Target) -> Iterator[Text]:
    yield from command(f"break {stack} {fault.id}")
    yield from _wrapped(f"{target.sentence[0].upper()}{target.sentence[1:]}.")


def next_steps(stack: str, kept: bool) -> Iterator[Text]:
    rows = [
        (f"./lab sandbox {stack}", "the same lab, until you remove it"),
        (f"./lab break {stack} --list", "what else can be broken"),
        ("./lab plan " + stack, "the whole cluster that `up` would make of it"),
        ("docs/labs/", "lessons for each lab"),
    ]
    if kept:
        rows[0] = (f"./lab sandbox {stack} --down", "removes it")
        rows.insert(0, (f"./lab walk {stack} POD POD", "every hop with its commands"))
    width = max(len(command) for command, _ in rows)
    for command, what in rows:
        line = Text("  ")
        line.append(f"{command:{width}}", style="bold")
        line.append(f"  {what}")
        yield line
