"""`./lab walk`: the hops of a packet between two pods, out and back, as a table, as JSON, as a picture."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from cli.console import page
from cli.errors import FAILED, USAGE, CommandError
from cli.live.picture import picture
from cli.sandbox.choice import chosen_live
from components.verify import facts
from components.verify.capture import Point, Sighting, capture, digest
from components.verify.facts import Pod
from components.verify.read.connection import Connection, Unreachable
from components.verify.reading import Live, Reading, observe, read_cluster, read_ec2, view, with_derived
from components.verify.walk import Hop, NoWalk, Walk, find_pod, nodes_of, points, walk

_MARK = {"passed": "[green]ok[/]", "failed": "[red]STOP[/]", "unknown": "[yellow]?[/]"}


def run(
    stack: str,
    source: str,
    target: str,
    *,
    as_json: bool = False,
    svg: Path | None = None,
    captured: bool = False,
    sandbox: bool = False,
) -> int:
    """Walk. Returns 0, or 1 where the ping is lost or a hop does not hold. Raises CommandError, SpecError."""
    lab = chosen_live(stack, sandbox=sandbox)
    try:
        found, seen, notes = asyncio.run(_walk(lab, source, target, captured))
    except NoWalk as error:
        raise CommandError(str(error), USAGE) from None
    if svg is not None:
        try:
            svg.parent.mkdir(parents=True, exist_ok=True)
            svg.write_text(picture(stack, found), encoding="utf-8")
        except OSError as error:
            raise CommandError(f"--svg {svg}: {error.strerror}", USAGE) from None
    if as_json:
        document = {"stack": stack, **found.to_json(stack), "capture": [sighting.to_json() for sighting in seen]}
        print(json.dumps(document | {"notes": notes, "sandbox": lab.sandbox}, indent=2, ensure_ascii=False))
    else:
        show(stack, found, seen, notes, page())
        if svg is not None:
            print(f"\nwritten to {svg}")
    return 0 if found.ping.status == "passed" and found.stopped is None else 1


async def _walk(lab: Live, source: str, target: str, captured: bool) -> tuple[Walk, list[Sighting], list[str]]:
    reading = await read_cluster(lab)
    if reading.no_api:
        raise CommandError(f"where the pods are is not known: {reading.no_api}", FAILED)
    start, end, address = _ends(reading.pods, source, target)
    notes: list[str] = []
    async with AsyncExitStack() as stack:
        connections: dict[str, Connection] = {}
        for node in nodes_of(start, end):
            # One after the other: the ping goes out first, then the target shows what it learnt.
            try:
                connections[node] = await stack.enter_async_context(lab.connect(node))
                probes = [(start.interface, address)] if node == start.node else []
                text = await observe(lab, connections[node], probes)
                reading.nodes[node] = with_derived(lab, reading, node, facts.node_facts(text))
            except Unreachable as error:
                reading.unreachable[node] = str(error)
                notes.append(f"{node}: {error}")
        if lab.lab.sends_plain:
            await read_ec2(lab, reading)
        found = walk(lab, reading, start, end, address)
        seen: list[Sighting] = []
        # Where every hop holds and the ping is lost all the same, only the packet itself can say where.
        if captured or (found.ping.status == "failed" and found.stopped is None):
            try:
                seen = await _capture(lab, reading, found, connections)
            except Unreachable as error:
                notes.append(str(error))
    return found, seen, notes


async def _capture(lab: Live, reading: Reading, found: Walk, connections: dict[str, Connection]) -> list[Sighting]:
    places = [Point(*point) for point in points(found, view(lab, reading)) if point[0] in connections]
    if found.source.node not in connections:
        raise Unreachable(f"no capture: {found.source.node} does not answer")
    return await capture(connections, places, found.source.node, (found.source.interface, found.address))


def _ends(pods: Sequence[Pod], source: str, target: str) -> tuple[Pod, Pod | None, str]:
    start = find_pod(pods, source)
    try:
        address = str(IPv4Address(target))
    except AddressValueError:
        end = find_pod(pods, target, other_than=start)
        if end.id == start.id:
            # Of a workload and a pod of it the first may be any other.
            start = find_pod(pods, source, other_than=end)
        if end.id == start.id:
            raise NoWalk(f"{source} and {target} are one pod, {start.id}: name two") from None
        return start, end, end.address
    # An address of a pod is that pod.
    return start, next((p for p in pods if p.running and p.address == address), None), address


# --- the page --------------------------------------------------------------------------------------------------------


def show(stack: str, found: Walk, seen: Sequence[Sighting], notes: Sequence[str], console: Console) -> None:
    """The hops in order, each with what a person types and sees there; then the ping, and the capture."""
    end = found.target
    target = f"{end.id} ({found.address}) on {end.node}" if end else found.address
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
    console.print(f"\n[bold]The ping[/]  {_MARK[found.ping.status]} {escape(found.ping.seen or found.ping.difference)}")
    if found.stopped is not None:
        stopped = found.stopped
        bad = next(check for check in stopped.checks if check.status == "failed")
        what = bad.difference if bad.expectation.expected is not None else f"{bad.seen}: {bad.difference}"
        console.print(f"\n[red]It stops at the {stopped.kind} of {stopped.node}[/]: {escape(what)}", soft_wrap=True)
        e = bad.expectation
        for name, text in (("expected", e.sentence), ("cause", e.cause), ("mend", e.mend.replace("STACK", stack))):
            console.print(f"  {name:8} {escape(text)}", soft_wrap=True)
        if found.ping.status == "passed":
            console.print("  The ping still passes: what was learnt before is used until it is old.", soft_wrap=True)
    if seen:
        console.print("\n[bold]The same packet at each place[/] (tcpdump; the lines whole with --json)")
        for sighting in seen:
            _show_sighting(sighting, console)
    if found.ping.status == "failed" and found.stopped is None:
        console.print(f"\n[red]Every hop holds, and the ping is lost[/]: {_last_seen(seen)}", soft_wrap=True)


def _last_seen(seen: Sequence[Sighting]) -> str:
    """How far a packet came that no hop explains."""
    requests = [sighting for sighting in seen if sighting.request]
    replies = [sighting for sighting in seen if sighting.reply]
    if seen and seen[0].reply:
        return "the next one, which was captured, had its answer"
    if replies:
        return f"the reply came back as far as {replies[0].point.where}"
    if requests:
        return f"the request came as far as {requests[-1].point.where}, and no reply did"
    return "how far it came was not seen"


def _show_hop(number: int, hop: Hop, console: Console) -> None:
    if not hop.reached:
        console.print(f"{number:3} [dim]     {hop.kind:12} {hop.node}: not reached[/]")
        return
    mtu = f"  (mtu {hop.packet.mtu})" if hop.packet.mtu else ""
    console.print(
        f"{number:3} {_MARK[hop.status]:4}  [bold]{hop.kind:12}[/] {escape(hop.sentence)}{mtu}", soft_wrap=True
    )
    for check in hop.checks:
        e = check.expectation
        prompt = f"{e.node}$ " if e.node and not e.command.startswith("kubectl") else ""
        console.print(f"       [dim]{escape(prompt + e.command)}[/]", soft_wrap=True)
        colour = {"passed": "cyan", "failed": "red", "unknown": "yellow"}[check.status]
        console.print(f"       [{colour}]{escape(check.seen or check.difference)}[/]", soft_wrap=True)
        if check.status == "failed":
            console.print(f"       [red]{escape(check.difference)}[/]", soft_wrap=True)


def _show_sighting(sighting: Sighting, console: Console) -> None:
    at = f"+{sighting.at * 1000:.3f} ms" if sighting.at is not None else "[red]not seen[/]"
    console.print(f"  {at:>12}  {sighting.point.where}", soft_wrap=True)
    for name, line in (("request", sighting.request), ("reply", sighting.reply)):
        if line:
            console.print(f"               [dim]{name:8}[/][cyan]{escape(digest(line))}[/]", soft_wrap=True)
