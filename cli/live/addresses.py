"""`./lab addresses`: for each block of each pool, its node, who assigns which of its addresses, and to which pod."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import IPv4Address

from rich.console import Console
from rich.markup import escape

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
    rows = [list(_rows(block)) for block in blocks]
    widths = [max([len(name), *(len(row[i]) for found in rows for row in found)]) for i, name in _COLUMNS]
    longest = max((len(line) for found in rows for row in found for line in row[4]), default=0)
    # On a narrow page the holders are below their row, so that no name is cut.
    below = 2 + sum(width + 2 for width in widths) + longest > console.width
    for block, found in zip(blocks, rows, strict=True):
        console.print(f"[bold]{block.cidr}[/] of [bold]{block.node}[/], pool {block.pool}", soft_wrap=True)
        titles = [title for _, title in _COLUMNS]
        _line(console, titles, widths, ["" if below else "to"], below=False, style="dim")
        for *cells, holders in found:
            _line(console, cells, widths, holders, below=below)
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


_COLUMNS = tuple(enumerate(("assigned by", "range", "used", "free")))
_Row = tuple[str, str, str, str, list[str]]


def _rows(block: Block) -> Iterator[_Row]:
    """For everyone who assigns addresses of a block: name, range, how many are used and free, and who has them."""
    given = block.host_local if block.assigner == "host-local" else block.calico
    rest = {a: h for a, h in given.items() if a not in block.collisions}
    yield block.assigner, "the rest", str(len(given)), str(block.free), _holders(rest)
    for name, (first, last) in block.delegates.items():
        mine = {a: who for a, who in block.host_local.items() if first <= IPv4Address(a) <= last}
        size = int(last) - int(first) + 1
        yield name, _span(first, last), str(len(mine)), str(size - len(mine)), _holders(mine)


def _line(
    console: Console,
    cells: Sequence[str],
    widths: Sequence[int],
    holders: Sequence[str],
    *,
    below: bool,
    style: str = "",
) -> None:
    """A row: names and ranges to the left, numbers to the right, and the holders beside or below them."""
    aligned = [
        f"{cell:>{width}}" if i >= 2 else f"{cell:{width}}"
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    head = "  " + "  ".join(aligned)
    first, *others = holders or [""]
    indent = " " * (6 if below else len(head) + 2)
    lines = [head, *(f"{indent}{it}" for it in holders)] if below else [f"{head}  {first}"]
    lines += [] if below else [f"{indent}{it}" for it in others]
    for line in lines:
        console.print(line.rstrip(), style=style, markup=False, soft_wrap=True)


def _span(first: IPv4Address, last: IPv4Address) -> str:
    """As 10.244.97.50-.100, if only the last part differs."""
    start, _, end = str(last).rpartition(".")
    return f"{first}-.{end}" if str(first).startswith(f"{start}.") else f"{first}-{last}"


def _holders(holders: Mapping[str, str], most: int = 6) -> list[str]:
    """The first few addresses with their holders, one line each."""
    ordered = sorted(holders.items(), key=lambda entry: IPv4Address(entry[0]))
    more = [f"and {len(ordered) - most} more"] if len(ordered) > most else []
    return [*(f"{address} {who}" for address, who in ordered[:most]), *more]
