"""`./lab demo`: a lab built, checked, walked, broken, mended and removed, in front of a person."""

from __future__ import annotations

import asyncio
import os
import select
import sys
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack, suppress

from rich.console import Console
from rich.text import Text

from cli.console import page
from cli.plan.overview import overview
from cli.project import stack_file
from cli.sandbox import story
from cli.sandbox.choice import home
from components.calico.blocks import foreseen
from components.sandbox import life
from components.sandbox.requirements import examine, missing_tools
from components.sandbox.running import SandboxError
from components.spec.load import load_stack_file
from components.spec.models import Lab
from components.verify.expect.probes import Ping, pairs
from components.verify.faults.inject import inject, mend
from components.verify.faults.model import Fault, Refused, Target
from components.verify.faults.symptoms import aim, symptoms
from components.verify.faults.table import FAULTS
from components.verify.model import ObservedLab, Pod
from components.verify.read.connection import Unreachable
from components.verify.read.reading import LiveLab, Reading, observed, read_lab
from components.verify.report import verify
from components.verify.walk.capture import Sighting, capture, points
from components.verify.walk.ends import Ends
from components.verify.walk.model import Walk
from components.verify.walk.route import walk

_FAULTS = ("fdb-gone", "vxlan-dropped", "ipip-dropped", "proxy-arp-off")
"""Faults that lose packets, the most telling first."""
_WIDTH = 100
_LINE_SECONDS, _STEP_SECONDS = 0.08, 2.5


class Stage:
    """Where lines go: at a person's pace on a terminal, at once elsewhere."""

    def __init__(self, console: Console, paced: bool) -> None:
        self._console = console
        self._paced = paced

    def show(self, lines: Iterable[Text | str]) -> None:
        for line in lines:
            self._console.print(line, soft_wrap=True, highlight=False, markup=False)
            if self._paced:
                time.sleep(_LINE_SECONDS)

    def step(self, number: int, title: str) -> None:
        self.show(["", story.heading(number, title)])

    def pause(self) -> None:
        """Time to read; Enter goes on at once."""
        if self._paced and select.select([sys.stdin], [], [], _STEP_SECONDS)[0]:
            sys.stdin.readline()


def run(stack: str, *, fast: bool = False, keep: bool = False) -> int:
    """Returns 0, also where no sandbox can be built and a recording is shown; 1 where a step failed.

    Raises CommandError, SpecError.
    """
    lab = load_stack_file(stack_file(stack)).lab
    terminal = sys.stdout.isatty()
    stage = Stage(page(_WIDTH), terminal and sys.stdin.isatty() and not fast)
    problem = examine(lab).problem
    if problem:
        return _recorded(stack, lab, problem, stage)
    # A name of its own: it neither uses nor removes a sandbox of the stack.
    name = stack if keep else f"demo-{stack}-{os.getpid()}"
    try:
        life.sweep(home())
        if keep and life.is_up(name, home()):
            raise SandboxError(f"{stack} has a sandbox already: `./lab sandbox {stack} --down` removes it")
        started = time.monotonic()
        running = life.build(name, lab, home(), stay=keep)
        seconds = time.monotonic() - started
    except SandboxError as error:
        print(f"lab demo: {error}", file=sys.stderr)
        return 1
    try:
        live_sandbox = life.find(name, home())
        assert live_sandbox is not None
        live = LiveLab.of(live_sandbox.lab, live_sandbox.outputs, None)
        stage.show(
            [
                Text(
                    "A sandbox: all that follows happens now, in network namespaces of this computer.", style="italic"
                ),
                "",
            ]
        )
        stage.show(overview(stack, live_sandbox.lab, live.blocks, foreseen=False))
        stage.pause()
        stage.step(1, "Build it")
        real = f"{len(live.access)} machines with a kernel's real links, routes, ARP and tunnels"
        stage.show(story.command(f"sandbox {stack}"))
        stage.show([f"  {real}, in {seconds:.1f} s"])
        stage.show(line for note in live_sandbox.notes for line in story.paragraph(note))
        stage.pause()
        code = asyncio.run(_tell(stack, name, live, stage))
    except (Unreachable, Refused) as error:
        print(f"lab demo: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        stage.show(["", "stopped"])
        code = 130
    finally:
        if not keep:
            running.stop()
            with suppress(SandboxError):
                life.sweep(home())
    stage.step(6, "Next" if keep else "It is gone again; next")
    stage.show(story.next_steps(stack, keep))
    return code


async def _tell(stack: str, name: str, live: LiveLab, stage: Stage) -> int:
    reading = await _verify(stack, live, stage)
    of = observed(live, reading)
    chosen = _choose(of)
    if chosen is None:
        stage.show(["", "No two pods of this lab are on two nodes, so there is no packet to follow."])
        return 0
    fault, target, source, destination = chosen
    stage.step(3, "Follow a packet")
    ends = f"{source.workload}@{source.node} {destination.workload}@{destination.node}"
    stage.show(story.command(f"walk {stack} {ends} --capture"))
    packet = Ends(source, destination, destination.address)
    found = walk(live, reading, packet)
    stage.show(story.way(found))
    if problem := missing_tools(["tcpdump"]):
        stage.show([f"  The packet itself is not shown: {problem}"])
    else:
        seen = await _capture(live, of, found)
        if not any(sighting.request for sighting in seen):
            raise Unreachable("tcpdump caught no packet: run it on a node (`./lab ssh`) to see why")
        stage.show(story.caught(seen))
    stage.pause()
    stage.step(4, "Break it")
    expected = symptoms(fault, of, target)
    await inject(live, name, fault, target)
    stage.show(story.broken(stack, fault, target))
    started = time.monotonic()
    reading = await read_lab(live)
    results = verify(live, reading)
    stage.show(story.command(f"verify {stack}"))
    stage.show(story.summary(results, time.monotonic() - started))
    stage.show(story.failures(results, expected))
    stage.show(story.command(f"walk {stack} {ends}"))
    stage.show(story.way(walk(live, reading, packet)))
    stage.pause()
    found_it = {r.expectation.id for r in results if r.status != "passed"} == {e.id for e in expected.failed}
    stage.step(5, "Mend it")
    mended = await mend(live, name)
    stage.show(story.command(f"mend {stack}"))
    stage.show(f"  {it.node}: {it.fault}: {it.result}" for it in mended.undone)
    stage.show(story.command(f"verify {stack}"))
    started = time.monotonic()
    reading = await read_lab(live)
    results = verify(live, reading)
    whole = all(result.status == "passed" for result in results)
    stage.show(story.summary(results, time.monotonic() - started))
    stage.pause()
    return 0 if whole and found_it and not mended.failed else 1


async def _verify(stack: str, live: LiveLab, stage: Stage) -> Reading:
    stage.step(2, "Check it")
    stage.show(story.command(f"verify {stack}"))
    started = time.monotonic()
    reading = await read_lab(live)
    results = verify(live, reading)
    stage.show(story.summary(results, time.monotonic() - started))
    stage.pause()
    return reading


def _choose(of: ObservedLab) -> tuple[Fault, Target, Pod, Pod] | None:
    """A fault, where it strikes, and two pods whose ping it loses on the way out."""
    for name in _FAULTS:
        fault = FAULTS[name]
        if fault.refusal(of.spec) is not None:
            continue
        with suppress(Refused):
            target = aim(fault, of)
            for source, destination in pairs(of):
                if fault.cuts(of, target, source, destination):
                    return fault, target, source, destination
    return None


async def _capture(live: LiveLab, of: ObservedLab, found: Walk) -> list[Sighting]:
    places = list(points(found, of))
    async with AsyncExitStack() as stack:
        nodes = dict.fromkeys([*(place.node for place in places), found.source.node])
        connections = {node: await stack.enter_async_context(live.connect(node)) for node in nodes}
        return await capture(connections, places, found.source.node, Ping(found.source.interface, found.address))


def _recorded(stack: str, lab: Lab, problem: str, stage: Stage) -> int:
    """What can be shown where no sandbox can be built: the plan's summary, and a walk recorded elsewhere."""
    from cli.plan.command import summary  # the engine is not needed otherwise

    stage.show([f"No live lab here: {problem}", ""])
    stage.show(overview(stack, lab, foreseen(lab), foreseen=True))
    stage.show(["", Text(f"$ ./lab plan {stack}", style="bold")])
    stage.show(line for sentence in summary(stack) for line in story.paragraph(sentence))
    stage.show(["", Text("A walk recorded on another computer", style="bold")])
    stage.show(story.recorded_walk())
    return 0
