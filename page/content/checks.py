"""The expectations of a lab, with their state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from components.verify.model import Result, Topic
from page.content.source import Source

STATES = ("failed", "unknown", "passed", "foreseen")
"""In the order in which a reader wants them."""


def checks(source: Source) -> list[list[Any]]:
    """One row for each expectation, in the order of `source.expectations`: topic, node, what the entry is of, state,
    sentence, command, reason, what is seen there, difference, cause, fix."""
    return [check(source, result) for result in source.results]


def check(source: Source, result: Result) -> list[Any]:
    """One row."""
    e = result.expectation
    state = source.state(result)
    # In a plan there is a line to foresee, but no answer to a ping.
    unseen = source.foreseen and e.topic == Topic.PROBE
    explained = state in ("failed", "unknown")
    return [
        e.topic.heading,
        e.node or "cluster",
        e.about,
        state,
        e.sentence,
        command(source, result),
        e.because,
        "" if unseen else result.seen,
        result.difference if explained else "",
        e.cause if explained else "",
        e.fix.replace("STACK", source.stack) if explained else "",
    ]


def command(source: Source, result: Result) -> str:
    """What a person types to see it, with the prompt of the node on which."""
    e = result.expectation
    prompt = f"{e.node}$ " if e.node and not e.command.startswith(("kubectl", "./lab", "aws")) else ""
    return prompt + e.command.replace("STACK", source.stack)


def totals(rows: Sequence[Sequence[Any]]) -> dict[str, int]:
    """How many expectations are in each state."""
    counted = Counter(row[3] for row in rows)
    return {state: counted[state] for state in STATES if counted[state]}
