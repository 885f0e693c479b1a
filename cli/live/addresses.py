"""`./lab addresses`: for each block of each pool, its node, who assigns which of its addresses, and to which pod."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from ipaddress import IPv4Address

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.console import page
from cli.errors import FAILED, CommandError
from cli.sandbox.choice import chosen_live
from components.verify.addresses import Block, table
from components.verify.model import Topic
from components.verify.read.reading import LiveLab, Reading, read_cluster, read_nodes

_WIDTH = 140


def run(stack: str, *, as_json: bool = False, sandbox: bool = False) -> int:
    """Print the blocks. Returns 0, or 1 if an address was assigned twice or something could not be read.

    Raises CommandError, SpecError.
    """
    lab = chosen_live(stack, sandbox=sandbox)
    reading = asyncio.run(read_blocks(lab))
    blocks = table(lab, reading)
    if as_json:
        document = {"stack": stack, "blocks": [b.to_json() for b in blocks], "unreachable": reading.unreachable}
        print(json.dumps(document | {"sandbox": lab.sandbox}, indent=2))
    else:
        show(stack, blocks, reading, page(_WIDTH))
    return 1 if any(block.collisions for block in blocks) or reading.unreachable else 0


async def read_blocks(lab: LiveLab) -> Reading:
    """What the table needs. Raises CommandError where the API does not give the blocks or the allocations."""
    reading = await read_cluster(lab)
    if reading.no_api:
        raise CommandError(f"the blocks are not known: {reading.no_api}", FAILED)
    for topic in (Topic.AFFINITY, Topic.ALLOCATION):
        if topic in reading.cluster.unread:
            raise CommandError(f"the blocks are not known: {reading.cluster.unread[topic]}", FAILED)
    await read_nodes(lab, reading, [node.name for node in lab.spec.nodes], ping=False)
    return reading


def show(stack: str, blocks: Sequence[Block], reading: Reading, console: Console) -> None:
    """Each block, with a row for everyone who assigns its addresses; collisions are red."""
    assigner_width = max([11, *(len(name) for block in blocks for name in block.delegates)])
    range_width = max([8, *(len(_span(*ends)) for block in blocks for ends in block.delegates.values())])
    for block in blocks:
        console.print(f"[bold]{block.cidr}[/] of [bold]{block.node}[/], pool {block.pool}", soft_wrap=True)
        rows = Table(box=None, header_style="dim", padding=(0, 0, 0, 2))
        rows.add_column("assigned by", min_width=assigner_width, no_wrap=True)
        rows.add_column("range", min_width=range_width, no_wrap=True)
        rows.add_column("used", justify="right", no_wrap=True)
        rows.add_column("free", justify="right", no_wrap=True)
        rows.add_column("to", overflow="fold")
        given = block.host_local if block.assigner == "host-local" else block.calico
        rest = {a: h for a, h in given.items() if a not in block.collisions}
        rows.add_row(block.assigner, "the rest", str(len(given)), str(block.free), _who(rest))
        for name, (first, last) in block.delegates.items():
            mine = {a: who for a, who in block.host_local.items() if first <= IPv4Address(a) <= last}
            size = int(last) - int(first) + 1
            rows.add_row(name, _span(first, last), str(len(mine)), str(size - len(mine)), _who(mine))
        console.print(rows)
        for address, why in block.collisions.items():
            console.print(f"  [red]collision {address}: {escape(why)}[/]", soft_wrap=True)
    for node, why in reading.unreachable.items():
        console.print(f"[yellow]{node}: {escape(why)}; what host-local assigned there is not known[/]", soft_wrap=True)
    twice = sum(len(block.collisions) for block in blocks)
    verdict = "[red]two pods may have the same address[/]" if twice else "no address is assigned twice"
    if reading.unreachable and not twice:
        verdict = "[yellow]of those that could be read, no address is assigned twice[/]"
    console.print(
        f"\n[bold]{stack}[/]: {len(blocks)} block{'' if len(blocks) == 1 else 's'}, {verdict}", soft_wrap=True
    )


def _span(first: IPv4Address, last: IPv4Address) -> str:
    """As 10.244.97.50-.100, if only the last part differs."""
    start, _, end = str(last).rpartition(".")
    return f"{first}-.{end}" if str(first).startswith(f"{start}.") else f"{first}-{last}"


def _who(holders: dict[str, str], most: int = 6) -> str:
    """The first few addresses with their holders, one line each."""
    ordered = sorted(holders.items(), key=lambda entry: IPv4Address(entry[0]))
    shown = [f"{address} {who}" for address, who in ordered[:most]]
    return escape("\n".join([*shown, *([f"and {len(ordered) - most} more"] if len(ordered) > most else [])]))
