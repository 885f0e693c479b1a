"""`./lab up --repair`: what a live lab lost since its last `up`, as the options that make pulumi write it again.

Pulumi compares the stack file with its state and looks at no machine, so a file that was removed on a node, or a block
that moved, is no change to it. verify knows; here its findings become the steps that must run once more.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

from cli.live import live
from components.verify.reading import read_lab, verify
from components.verify.report import Result

# Written by a node's files step, and by nothing else.
_FILES = {"file", "crio"}
# Objects and settings that a provider reads back.
_REFRESHED = {"pool", "reservation", "source_dest"}


def options(stack: str) -> list[str]:
    """Options of `pulumi up` for what verify finds, said on stderr. Raises CannotRun where the lab does not stand."""
    lab = live(stack)
    reading = asyncio.run(read_lab(lab))
    failed = [result for result in verify(lab, reading) if result.status == "failed"]
    found, left = sort(failed)
    for node, why in reading.unreachable.items():
        print(f"lab up: {node} was not looked at: {why}", file=sys.stderr)
    if reading.no_api:
        print(f"lab up: {reading.no_api}", file=sys.stderr)
    for result in failed:
        how = "not by up" if result in left else "again"
        print(f"lab up: {how}: {result.expectation.sentence}: {result.difference}", file=sys.stderr)
    if left:
        print("lab up: what is not by up mends as `./lab verify` says there", file=sys.stderr)
    if not failed:
        print("lab up: every check passes; there is nothing to repair", file=sys.stderr)
    return found


def sort(failed: Sequence[Result]) -> tuple[list[str], list[Result]]:
    """Options of `pulumi up`, and the results that no option mends."""
    steps: dict[str, None] = {}
    left = []
    refresh = False
    for result in failed:
        e = result.expectation
        if e.topic in _FILES:
            steps[f"**::lab-node-files-{e.node}"] = None
        elif e.topic == "affinity":
            steps["**::lab-calico-blocks"] = None
        elif e.topic in _REFRESHED:
            refresh = True
        else:
            left.append(result)
    return [*(word for step in steps for word in ("--replace", step)), *(["--refresh"] if refresh else [])], left
