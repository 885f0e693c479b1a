"""A clock for tests that wait: only sleeping and reading take time on it."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from components.verify import waiting
from components.verify.read.reading import LiveLab, Reading, read_lab


class ReadingClock:
    """The time that `verify_until` sees: each reading of a lab takes `reading_seconds`. `before`: what happens before
    the reading of that number."""

    def __init__(self, reading_seconds: float) -> None:
        self.reading_seconds = reading_seconds
        self.now, self.readings = 0.0, 0
        self.before: dict[int, Callable[[], object]] = {}

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let `verify_until` go by this clock."""
        monkeypatch.setattr(waiting, "time", SimpleNamespace(monotonic=lambda: self.now, sleep=self._sleep))
        monkeypatch.setattr(waiting, "read_lab", self._read)

    def _sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds

    async def _read(self, live: LiveLab) -> Reading:
        self.readings += 1
        self.before.get(self.readings, lambda: None)()
        self.now += self.reading_seconds
        return await read_lab(live)
