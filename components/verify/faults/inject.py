"""Making a fault and undoing all of them, on the nodes and on EC2."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

from components.slowdown import scaled
from components.spec.modes import VXLAN
from components.verify.faults import objects, source_dest
from components.verify.faults.model import Fault, Mended, Refused, Target, Undone
from components.verify.read.api import NoApi, NotListed
from components.verify.read.connection import NETNS, Unreachable, render
from components.verify.read.ec2 import NoEc2
from components.verify.read.reading import CONNECTIONS_AT_ONCE, LiveLab

_TIMEOUT_SECONDS = 60.0
_SCRIPT = Path(__file__).with_name("fault.sh")


def break_program(stack: str, fault: Fault, target: Target, name: str = "") -> str:
    """The program that makes a fault on a node of a stack. `name`: under which it is recorded; empty: its own."""
    return _program(stack, {"DO": "break", "FAULT": name or fault.id, "KIND": fault.kind, **target.variables})


def mend_program(stack: str) -> str:
    """The program that undoes every fault on a node of a stack."""
    return _program(stack, {"DO": "mend"})


def _program(stack: str, variables: dict[str, str]) -> str:
    # The owner is what the node's /var/lib/cni-lab/owner says.
    return render([NETNS, _SCRIPT], {"OWNER": f"cni-lab/{stack}", "VXLAN_DEVICE": VXLAN.device, **variables})


async def inject(live: LiveLab, stack: str, fault: Fault, target: Target, name: str = "") -> None:
    """Make a fault, after what is needed to undo it was recorded, under `name` instead of its own, where one is given.
    Raises Refused where the node or an API does not do it; Unreachable."""
    if target.object:
        try:
            await objects.change(live, fault.id, target.object)
        except (NoApi, NotListed) as error:
            raise Refused(str(error)) from None
        return
    if not fault.kind:
        try:
            await asyncio.to_thread(source_dest.switch_on, live.instances, target.node, stack, live.aws)
        except NoEc2 as error:
            raise Refused(str(error)) from None
        return
    async with live.connect(target.node) as connection:
        try:
            program = break_program(stack, fault, target, name)
            done = await connection.run(program, timeout_seconds=scaled(_TIMEOUT_SECONDS))
        except Unreachable as error:
            raise Unreachable(
                f"{error}. What it did is recorded on the node: `./lab mend {shlex.quote(stack)}` undoes it"
            ) from None
    if done.status:
        raise Refused(f"{target.node}: {_last_lines(done.stderr) or f'status {done.status}'}")


async def mend(live: LiveLab, stack: str) -> Mended:
    """Undo every fault on every node that answers, the newest first; then EC2's."""
    gate = asyncio.Semaphore(CONNECTIONS_AT_ONCE)
    failed: dict[str, str] = {}

    async def mend_node(node: str) -> list[Undone]:
        async with gate:
            try:
                async with live.connect(node) as connection:
                    done = await connection.run(mend_program(stack), timeout_seconds=scaled(_TIMEOUT_SECONDS))
            except Unreachable as error:
                failed[node] = str(error)
                return []
        if done.status:
            failed[node] = _last_lines(done.stderr) or f"status {done.status}"
        lines = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
        return [Undone(node, name.partition("-")[2], result) for name, result, *_ in lines]

    nodes = [node.name for node in live.spec.nodes]
    undone = [entry for entries in await asyncio.gather(*map(mend_node, nodes)) for entry in entries]
    restored, problems = await objects.restore(live)
    undone += restored
    if problems:
        failed["Kubernetes"] = "; ".join(problems)
    if live.on_ec2:
        try:
            undone += await asyncio.to_thread(source_dest.switch_back, live.instances, stack, live.aws)
        except NoEc2 as error:
            failed["EC2"] = str(error)
    return Mended(tuple(undone), failed)


def _last_lines(errors: str) -> str:
    """The last two lines, which say what went wrong."""
    return "; ".join([line for line in errors.splitlines() if line.strip()][-2:])
