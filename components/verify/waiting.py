"""Verifying a lab that is still coming up: again and again, until every check passes or the time is up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from components.verify.model import Expectation, Result
from components.verify.read.reading import LiveLab, Reading, read_lab
from components.verify.report import verify

_PAUSE_SECONDS = 5.0
_SHOWN = 3
"""How many of the checks that do not pass are named."""


def _all(_: Expectation) -> bool:
    return True


def verify_until(
    live: LiveLab,
    seconds: float,
    changed: Callable[[str], None],
    wanted: Callable[[Expectation], bool] = _all,
) -> tuple[Reading, list[Result]]:
    """Read and compare until every check passes, for `seconds` and one reading more at most; the last one counts.

    `changed` gets a line that names what is missing, each time it is another one. `wanted`: which checks count; the
    results are theirs alone.
    """
    began = time.monotonic()
    shown = ""
    while True:
        reading = asyncio.run(read_lab(live))
        results = [result for result in verify(live, reading) if wanted(result.expectation)]
        missing = missing_of(results)
        waited = time.monotonic() - began
        if (not missing and not reading.no_api) or waited >= seconds:
            return reading, results
        if missing != shown:
            changed(f"after {waited:.0f} s of {seconds:.0f} s: {missing}")
            shown = missing
        time.sleep(min(_PAUSE_SECONDS, seconds - waited))


def missing_of(results: Sequence[Result]) -> str:
    """What does not pass, in one line, the failed checks first; empty where all pass."""
    bad = [result for result in results if result.status != "passed"]
    reasons = dict.fromkeys(
        f"{result.expectation.sentence}: {result.difference}" if result.status == "failed" else result.difference
        for result in sorted(bad, key=lambda result: result.status)
    )
    more = [f"and {len(reasons) - _SHOWN} more"] if len(reasons) > _SHOWN else []
    return f"{len(bad)} of {len(results)} not as expected: {'; '.join([*list(reasons)[:_SHOWN], *more])}" if bad else ""
