"""Faults whose break or mend was killed: wherever that was, mend undoes all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.sandbox import life
from components.sandbox.requirements import examine
from components.verify.faults.inject import break_program, mend_program
from components.verify.faults.symptoms import aim
from components.verify.faults.table import find
from components.verify.read.connection import render
from components.verify.read.reading import LiveLab, observed, read_cluster
from tests.verify import replica_labs as labs

HERE = Path(__file__).parent
STACK = "replica"
AT_FIRST = "# Entries that a run that was cut had not finished writing, or had already undone."
"""A line of fault.sh. Up to it both programs only make functions and take their lock."""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveLab]:
    if problem := examine().problem:
        pytest.skip(f"no sandbox can stand here: {problem}")
    home = tmp_path_factory.mktemp("killed") / "home"
    running = life.build(STACK, labs.EGRESS, home, stay=False)
    try:
        yield LiveLab.of(labs.EGRESS, running.outputs, None)
    finally:
        running.stop()
        life.sweep(home)


@pytest.mark.parametrize("name", labs.NODE_FAULTS)
def test_killed_before_any_command_everything_can_be_undone(live: LiveLab, name: str) -> None:
    """How the programs begin is always the same: only the break of one fault is killed there too."""
    seen = observed(live, asyncio.run(read_cluster(live)))
    fault = find(name, live.spec)
    target = aim(fault, seen)
    variables = {
        "BREAK": break_program(STACK, fault, target),
        "MEND": mend_program(STACK),
        "AFTER_BREAK": "" if name == labs.NODE_FAULTS[0] else AT_FIRST,
        "AFTER_MEND": AT_FIRST,
    }

    async def whole() -> list[list[str]]:
        async with live.connect(target.node) as connection:
            done = await connection.run(render([HERE / "look.sh", HERE / "kill.sh"], variables), timeout_seconds=280)
            assert done.status == 0, f"{done.stdout}{done.stderr}"
            return [line.split("\t") for line in done.stdout.splitlines()]

    killed = asyncio.run(whole())
    for which, line in [
        ("break", 'mv -T -- "$entry" "$journal/$number-$FAULT"'),
        ("mend", 'mv -T -- "$journal/$name" "$journal/.$name"'),
        ("mend", 'rm -rf -- "${journal:?}/.$name"'),
    ]:
        assert any(found[0] == which and found[2] == line for found in killed), (which, line, killed)
    # What the fault does comes after its entry in the journal, and is undone while that is still there.
    assert any(found[:2] == ["break", "yes"] for found in killed), killed
    assert [found[:2] for found in killed].count(["mend", "yes"]) > 2, killed
