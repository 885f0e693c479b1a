"""A check as data, and how many of them are asked at once within a bounded time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from components.slowdown import scaled

Verdict = Literal["ok", "warn", "stop", "unknown"]
"""`warn`: `up` may fail or do harm. `stop`: `up` surely fails. `unknown`: the check could not be made."""

TIMEOUT_SECONDS = 20.0
"""A check that takes longer is unknown. All checks run at the same time, so this is also about the longest doctor."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Answer:
    """What a check saw, in a few words, and for everything but `ok` what to do about it."""

    verdict: Verdict
    seen: str
    fix: str = ""


class NotAsked(Exception):
    """A check cannot be made because of what another check reports: it has no row of its own."""


@dataclass(frozen=True)
class Check:
    """One question about this computer, an account, or hosts.

    `ask` may raise NotAsked; any other exception makes the answer unknown. `for_preview`: whether what stops `up` here
    stops `preview` too.
    """

    name: str
    question: str
    ask: Callable[[], Answer]
    for_preview: bool = False


@dataclass(frozen=True)
class Row:
    """A check with its answer."""

    check: Check
    answer: Answer


class Once(Generic[Result]):
    """A reading that several checks share: made by the first that needs it; an exception is kept too."""

    def __init__(self, read: Callable[[], Result]) -> None:
        self._read, self._lock = read, threading.Lock()
        self._result: tuple[Result] | None = None
        self._error: Exception | None = None

    def __call__(self) -> Result:
        with self._lock:
            if self._result is None and self._error is None:
                try:
                    self._result = (self._read(),)
                except Exception as error:
                    self._error = error
        if self._result is None:
            assert self._error is not None
            raise self._error
        return self._result[0]


@dataclass
class _Asked:
    check: Check
    answer: Answer | None = None
    left_out: bool = False
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        # A daemon, so that one that hangs does not keep the command from ending.
        self.thread = threading.Thread(target=self._run, name=self.check.name, daemon=True)

    def _run(self) -> None:
        try:
            self.answer = self.check.ask()
        except NotAsked:
            self.left_out = True
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            self.answer = Answer("unknown", reason, "repeat; if it stays so, check this by hand")


def examine(checks: Sequence[Check], timeout_seconds: float = TIMEOUT_SECONDS) -> list[Row]:
    """Ask all checks at the same time. Returns their rows in the order of the checks."""
    return list(_examine(checks, timeout_seconds))


def _examine(checks: Sequence[Check], timeout_seconds: float) -> Iterator[Row]:
    asked = [_Asked(check) for check in checks]
    timeout_seconds = scaled(timeout_seconds)
    end = time.monotonic() + timeout_seconds
    for one in asked:
        one.thread.start()
    for one in asked:
        one.thread.join(max(0.0, end - time.monotonic()))
        if one.left_out:
            continue
        silent = Answer("unknown", f"no answer within {timeout_seconds:g} s", "repeat; if it stays so, check by hand")
        yield Row(one.check, one.answer or silent)


def worst(answers: Sequence[Answer], fine: str) -> Answer:
    """One answer from several: what is not fine of all of them, else `fine`."""
    order: tuple[Verdict, ...] = ("stop", "unknown", "warn", "ok")
    bad = sorted((a for a in answers if a.verdict != "ok"), key=lambda answer: order.index(answer.verdict))
    if not bad:
        return Answer("ok", fine)
    fixes = dict.fromkeys(answer.fix for answer in bad if answer.fix)
    return Answer(bad[0].verdict, "; ".join(answer.seen for answer in bad), "; ".join(fixes))
