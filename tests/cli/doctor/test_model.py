"""How checks are asked: all at once, each within its time, and none can end the command."""

from __future__ import annotations

import threading
import time

import pytest

from cli.doctor.model import Answer, Check, NotAsked, Once, Row, examine, worst


def check(name: str, ask: object) -> Check:
    return Check(name, "?", ask)  # type: ignore[arg-type]


def test_checks_run_at_the_same_time_and_keep_their_order() -> None:
    both = threading.Barrier(2, timeout=10)

    def wait() -> Answer:
        both.wait()
        return Answer("ok", threading.current_thread().name)

    rows = examine([check("a", wait), check("b", wait)])
    assert [row.answer.seen for row in rows] == ["a", "b"]


def test_a_check_that_hangs_is_unknown_and_the_others_are_not() -> None:
    never = threading.Event()
    start = time.monotonic()
    rows = examine([check("hangs", never.wait), check("fine", lambda: Answer("ok", "x"))], timeout_seconds=0.3)
    assert time.monotonic() - start < 5
    assert [row.answer.verdict for row in rows] == ["unknown", "ok"]
    assert "0.3 s" in rows[0].answer.seen
    never.set()


def test_a_check_that_fails_is_unknown_with_its_reason() -> None:
    def fail() -> Answer:
        raise OSError("no\n route")

    (row,) = examine([check("broken", fail)])
    assert (row.answer.verdict, row.answer.seen) == ("unknown", "no route")


def test_a_check_that_is_not_asked_has_no_row() -> None:
    def skip() -> Answer:
        raise NotAsked

    assert examine([check("left out", skip)]) == []


@pytest.mark.parametrize("fails", [False, True])
def test_a_shared_reading_is_made_once(fails: bool) -> None:
    calls = []

    def read() -> int:
        calls.append(1)
        time.sleep(0.05)
        if fails:
            raise ValueError("once")
        return 7

    shared = Once(read)
    rows: list[Row] = examine([check(str(n), lambda: Answer("ok", str(shared()))) for n in range(5)])
    assert len(calls) == 1
    assert {row.answer.seen for row in rows} == ({"once"} if fails else {"7"})


def test_several_answers_become_one_with_the_worst_verdict() -> None:
    fine, bad, odd = Answer("ok", "fine"), Answer("stop", "bad", "mend"), Answer("warn", "odd", "look")
    assert worst([fine, odd, bad, bad], "all") == Answer("stop", "bad; bad; odd", "mend; look")
    assert worst([fine], "all") == Answer("ok", "all")
