"""What a page is made from: a lab, a reading of it or the one that its plan foresees, and how the page speaks of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from components.verify.expect import by_entry, expectations
from components.verify.model import EntryKey, Expectation, ObservedLab, Result
from components.verify.read.reading import LiveLab, Reading, observed
from components.verify.report import compare

Kind = Literal["plan", "sandbox", "lab"]


@dataclass(frozen=True)
class Source:
    """`kind`: where the reading comes from; of a plan, nothing was read. `read_at`: when, in words; empty for a
    plan."""

    stack: str
    kind: Kind
    live: LiveLab
    reading: Reading
    read_at: str = ""

    @property
    def foreseen(self) -> bool:
        """Whether nothing was read."""
        return self.kind == "plan"

    @cached_property
    def lab(self) -> ObservedLab:
        """The lab as its expectations need it."""
        return observed(self.live, self.reading)

    @cached_property
    def expectations(self) -> list[Expectation]:
        """Everything that must be true of the lab."""
        return expectations(self.lab)

    @cached_property
    def results(self) -> list[Result]:
        """How each expectation compares with the reading."""
        return compare(self.expectations, self.reading)

    @cached_property
    def number_of(self) -> Mapping[EntryKey, int]:
        """The position of each entry's expectation in `expectations`."""
        first = by_entry(self.expectations)
        return {e.entry: n for n, e in enumerate(self.expectations) if first[e.entry] is e}

    @cached_property
    def failed_on(self) -> Counter[str]:
        """How many expectations of each node are not met."""
        return Counter(result.expectation.node or "" for result in self.results if result.status == "failed")

    def state(self, result: Result) -> str:
        """A result's state as the page shows it: foreseen, passed, failed or unknown. A plan that contradicts an
        expectation is shown as failed, for one of the two is wrong."""
        if self.foreseen and result.status != "failed":
            return "foreseen"
        return result.status
