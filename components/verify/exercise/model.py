"""An exercise as data, and its record between commands."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple

RECORDED_AS = "exercise"
"""The name of an exercise's fault on the node, which must not give it away."""


class Hint(NamedTuple):
    """What to look at, or what to do, and the command to type. STACK stands for the stack's name."""

    text: str
    command: str


Outcome = Literal["running", "solved", "given up"]


@dataclass(frozen=True)
class Exercise:
    """One exercise of a stack. `report`: as a user would report the symptom. `answer`: what was done, and where.
    `started`, `ended`: seconds since 1970; `hints`: all of them, of which `shown` have been read. `how`: by whom it was
    solved: "hand", or "mend" where `./lab mend` did it."""

    stack: str
    seed: int
    level: int
    fault: str
    node: str
    report: str
    answer: str
    hints: tuple[Hint, ...]
    started: float
    shown: int = 0
    checks: int = 0
    ended: float = 0.0
    outcome: Outcome = "running"
    how: str = ""

    def result(self) -> dict[str, Any]:
        """For a class: what a teacher wants to know. The fault is named only when it is over."""
        found: dict[str, Any] = {
            "stack": self.stack,
            "seed": self.seed,
            "level": self.level,
            "report": self.report,
            "outcome": self.outcome,
            "hints": self.shown,
            "hintsInAll": len(self.hints),
            "checks": self.checks,
        }
        if self.outcome != "running":
            at = datetime.fromtimestamp(self.ended, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
            found |= {"ended": at, "seconds": round(self.ended - self.started)}
            found |= {"fault": self.fault, "node": self.node}
            found |= {"how": self.how} if self.how else {}
        return found


def pack(exercise: Exercise) -> bytes:
    """The record, so that a look at the file does not tell the answer. It is no secret: who unpacks it, cheats."""
    return base64.b85encode(zlib.compress(json.dumps(asdict(exercise)).encode()))


def unpack(record: bytes) -> Exercise:
    """Raises ValueError where the record is not one."""
    try:
        found: Mapping[str, Any] = json.loads(zlib.decompress(base64.b85decode(record)))
        known = {it.name for it in fields(Exercise)}
        values = {key: value for key, value in found.items() if key in known}
        values["hints"] = tuple(Hint(*hint) for hint in values["hints"])
        return Exercise(**values)
    except (zlib.error, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"it is no record of an exercise ({type(error).__name__})") from None
