"""`./lab up --repair`: turns what verify finds into options that make pulumi run the right steps again.

Pulumi compares the stack file with its state and looks at no machine. A file that was removed on a node, or a block
that moved, is therefore no change to it, but verify sees it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from cli.errors import CommandError
from cli.live.stack import live, outputs
from cli.project import stack_file
from components.slowdown import scaled
from components.spec import names
from components.spec.load import load_stack_file
from components.verify.model import Repair, Result, Topic
from components.verify.read import api, facts
from components.verify.read.reading import read_lab
from components.verify.report import verify

_API_TIMEOUT_SECONDS = 5.0
_BLOCKS = f"**::{names.blocks_step(names.calico(names.STACK_LAB))}"


def options(stack: str) -> list[str]:
    """Options of `pulumi up` for what verify finds, explained on stderr. Raises CommandError if it is not up."""
    lab = live(stack)
    reading = asyncio.run(read_lab(lab))
    failed = [result for result in verify(lab, reading) if result.status == "failed"]
    found, left = steps_for(failed)
    for node, why in reading.unreachable.items():
        print(f"lab up: {node} was not looked at: {why}", file=sys.stderr)
    if reading.no_api:
        print(f"lab up: {reading.no_api}", file=sys.stderr)
    for result in failed:
        how = "cannot repair" if result in left else "repairs"
        print(f"lab up: {how}: {result.expectation.sentence}: {result.difference}", file=sys.stderr)
    if left:
        print("lab up: `./lab verify` shows the fix for what up cannot repair", file=sys.stderr)
    if not failed:
        print("lab up: every check passes; there is nothing to repair", file=sys.stderr)
    return found


def moved(stack: str) -> list[str]:
    """Options of `pulumi up` where a node no longer holds a block that the node files were written for.

    One read, because every `up` asks. Without a lab, or without an answer from its API, the result is empty.
    """
    try:
        found = outputs(stack)
        blocks, kubeconfig = found.get("blocks"), found.get("kubeconfig")
        if not isinstance(blocks, dict) or not kubeconfig:
            return []
        host_local = load_stack_file(stack_file(stack)).lab.calico.ipam == "HostLocal"
        kind = "nodes" if host_local else "blockaffinities"
        read = api.read(str(kubeconfig), {kind: api.KINDS[kind]})
        objects = asyncio.run(asyncio.wait_for(read, scaled(_API_TIMEOUT_SECONDS)))
    except (CommandError, api.NoApi, TimeoutError):
        return []
    affinities = facts.cluster(objects, host_local=host_local).topics.get(Topic.AFFINITY, {})
    held = {cidr: seen[0].fields["node"] for cidr, seen in affinities.items()}
    gone = [f"{cidr} of {node}" for node, cidrs in blocks.items() for cidr in cidrs if held.get(cidr) != node]
    if not gone or kind in objects.missing:
        return []
    print(f"lab up: the blocks are read again, for these have moved: {', '.join(gone)}", file=sys.stderr)
    return ["--replace", _BLOCKS]


def steps_for(failed: Sequence[Result]) -> tuple[list[str], list[Result]]:
    """Options of `pulumi up`, and the results that no option repairs."""
    steps: dict[str, None] = {}
    left = []
    refresh = False
    for result in failed:
        match result.expectation.repair:
            case Repair.FILES:
                node_files = names.node_files(names.STACK_LAB)
                steps[f"**::{names.node_files_step(node_files, str(result.expectation.node))}"] = None
            case Repair.BLOCKS:
                steps[_BLOCKS] = None
            case Repair.REFRESH:
                refresh = True
            case None:
                left.append(result)
    return [*(word for step in steps for word in ("--replace", step)), *(["--refresh"] if refresh else [])], left
