"""`./lab walk`: the hops of a packet between two pods and of its reply, as a page, JSON or a picture."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from cli.console import page
from cli.errors import FAILED, USAGE, CommandError
from cli.live.picture import picture
from cli.sandbox.choice import chosen_live
from components.sandbox.model import OUTSIDE
from components.verify.model import Result, Status
from components.verify.read.api import NoApi
from components.verify.walk.capture import Sighting, digest
from components.verify.walk.live import walk_live
from components.verify.walk.model import Hop, NoWalk, Walk

_MARKS: dict[Status, tuple[str, str]] = {
    "passed": ("ok", "green"),
    "failed": ("STOP", "red"),
    "unknown": ("?", "yellow"),
}
_ONLY_MTU = re.compile(r"mtu is \d+, expected \d+")
"""The difference of an interface that is as expected but for its MTU."""
_INDENT = " " * 10
"""Where the kind of a hop begins: behind its number and its mark."""


def end_of(words: Sequence[str]) -> str:
    """What a person typed as target, in one or two words: `service NAME` is service/NAME. Raises CommandError."""
    if len(words) == 1:
        return words[0]
    if len(words) == 2 and words[0] in ("service", "svc", "node", "pod"):
        return "/".join(words)
    raise CommandError(f"{' '.join(words)}: name one target; of two words the first is service, node or pod", USAGE)


def run(
    stack: str,
    source: str,
    target: str,
    *,
    tcp: int | None = None,
    as_json: bool = False,
    svg: Path | None = None,
    captured: bool = False,
    sandbox: bool = False,
) -> int:
    """Walk. Returns 0, or 1 if the ping is lost or a hop is not as expected. Raises CommandError, SpecError."""
    lab = chosen_live(stack, sandbox=sandbox)
    try:
        live_walk = asyncio.run(walk_live(lab, source, target, tcp=tcp, captured=captured))
    except NoWalk as error:
        raise CommandError(str(error), USAGE) from None
    except NoApi as error:
        raise CommandError(f"the pods are not known: {error}", FAILED) from None
    found, seen, notes = live_walk.walk, live_walk.sightings, live_walk.notes
    if svg is not None:
        try:
            svg.parent.mkdir(parents=True, exist_ok=True)
            svg.write_text(picture(stack, found), encoding="utf-8")
        except OSError as error:
            raise CommandError(f"--svg {svg}: {error.strerror}", USAGE) from None
    if as_json:
        document = {"stack": stack, **found.to_json(stack), "capture": [sighting.to_json() for sighting in seen]}
        print(json.dumps(document | {"notes": list(notes), "sandbox": lab.sandbox}, indent=2, ensure_ascii=False))
    else:
        show(stack, found, seen, notes, page())
        goes_outside = found.target is None and found.service is None and found.address != OUTSIDE
        if lab.sandbox and goes_outside and found.ping.status == "failed":
            print(f"In a sandbox, {OUTSIDE} is the only address outside of the lab that answers.")
        if svg is not None:
            print(f"\nwritten to {svg}")
    return 0 if found.holds else 1


# --- the page --------------------------------------------------------------------------------------------------------


def show(stack: str, found: Walk, seen: Sequence[Sighting], notes: Sequence[str], console: Console) -> None:
    """The hops in order, each with the command to type and its output; then the ping, and the capture."""
    end = found.target
    target = f"{end.id} ({found.address}) on {end.node}" if end else found.address
    if found.service is not None:
        target = f"service {found.service.proxy_name} ({found.address}:{found.port})"
        target += f", endpoint {end.id} ({end.address}) on {end.node}" if end else ""
    elif found.port:
        target += f", {found.protocol.upper()} port {found.port}"
    console.print(
        f"[bold]{stack}[/]: {found.source.id} ({found.source.address}) on {found.source.node} → {target}",
        soft_wrap=True,
    )
    for note in notes:
        console.print(f"[yellow]{escape(note)}[/]", soft_wrap=True)
    direction = ""
    for number, hop in enumerate(found.hops, 1):
        if hop.direction != direction:
            direction = hop.direction
            console.print(f"\n[bold]{'The way out' if direction == 'out' else 'The way back'}[/]")
        _show_hop(number, hop, console)
    what = "The connection" if found.port else "The ping"
    said = escape(found.ping.seen or found.ping.difference)
    console.print(f"\n[bold]{what}[/]  {_mark(found.ping.status)} {said}", soft_wrap=True)
    if found.stopped is not None:
        stopped = found.stopped
        bad = next(check for check in stopped.checks if check.status == "failed")
        why = bad.difference if bad.expectation.expected is not None else f"{bad.seen}: {bad.difference}"
        console.print(f"\n[red]It stops at the {stopped.kind} of {stopped.node}[/]: {escape(why)}", soft_wrap=True)
        e = bad.expectation
        for name, text in (("expected", e.sentence), ("cause", e.cause), ("fix", e.fix.replace("STACK", stack))):
            console.print(f"  {name:8} {escape(text)}", soft_wrap=True)
        if found.ping.status == "passed":
            console.print(f"  The packet still passes{_why_it_passes(stopped, bad)}", soft_wrap=True)
    if seen:
        how = "tcpdump, by each node's own clock; --json has the whole lines"
        console.print(f"\n[bold]The same packet at each place[/] ({how})")
        for sighting in seen:
            _show_sighting(sighting, console)
    if found.ping.status == "failed" and found.stopped is None:
        if nobody_listens(seen):
            where = f"port {found.port} of {found.target.id if found.target else found.address}"
            console.print(f"\n[yellow]The network is in order, but nothing listens[/] at {where}: it answers RST")
        else:
            lost = last_seen(seen)
            console.print(f"\n[red]Every hop is as expected, but the packet is lost[/]: {lost}", soft_wrap=True)


def _why_it_passes(stopped: Hop, bad: Result) -> str:
    if stopped.kind == "policy":
        return ": nothing enforces policies in a sandbox; on a cluster Felix may not have followed."
    if _ONLY_MTU.fullmatch(bad.difference):
        return ", because it is small. A large one may not."
    return ", because the kernel uses what it learnt before until that expires."


def nobody_listens(seen: Sequence[Sighting]) -> bool:
    """Whether a reset was captured at the last place, where the packet ends: the target itself refuses it."""
    return bool(seen) and "Flags [R" in seen[-1].reply


def last_seen(seen: Sequence[Sighting]) -> str:
    """Where a lost packet was seen last, when no hop explains the loss."""
    requests = [sighting for sighting in seen if sighting.request]
    replies = [sighting for sighting in seen if sighting.reply]
    if seen and seen[0].reply:
        return "the next ping, which was captured, was answered"
    if replies:
        return f"the reply came back as far as {replies[0].point.where}"
    if requests:
        return f"the request came as far as {requests[-1].point.where}, and there was no reply"
    return "it was not captured anywhere"


def _mark(status: Status, width: int = 0) -> str:
    word, colour = _MARKS[status]
    return f"[{colour}]{word:{width}}[/]"


def _show_hop(number: int, hop: Hop, console: Console) -> None:
    if not hop.reached:
        console.print(f"{number:3}       [dim]{hop.kind:12} {hop.node}: not reached[/]", soft_wrap=True)
        return
    mtu = f"  (mtu {hop.packet.mtu})" if hop.packet.mtu else ""
    console.print(
        f"{number:3} {_mark(hop.status, 4)}  [bold]{hop.kind:12}[/] {escape(hop.sentence)}{mtu}", soft_wrap=True
    )
    for check in hop.checks:
        e = check.expectation
        prompt = f"{e.node}$ " if e.node and not e.command.startswith("kubectl") else ""
        console.print(f"{_INDENT}[dim]{escape(prompt + e.command)}[/]", soft_wrap=True)
        colour = {"passed": "cyan", "failed": "red", "unknown": "yellow"}[check.status]
        console.print(f"{_INDENT}[{colour}]{escape(check.seen or check.difference)}[/]", soft_wrap=True)
        if check.status == "failed":
            console.print(f"{_INDENT}[red]{escape(check.difference)}[/]", soft_wrap=True)


def _show_sighting(sighting: Sighting, console: Console) -> None:
    at = f"{f'{sighting.at * 1000:+.3f} ms':>12}" if sighting.at is not None else f"[red]{'not seen':>12}[/]"
    console.print(f"  {at}  {sighting.point.where}", soft_wrap=True)
    for name, line in (("request", sighting.request), ("reply", sighting.reply)):
        if line:
            console.print(f"               [dim]{name:8}[/][cyan]{escape(digest(line))}[/]", soft_wrap=True)
