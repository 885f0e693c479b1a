"""A rule: a pure function from a lab to findings, with the keys it reads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import TypeVar

from components.spec.findings import Finding
from components.spec.keypath import KeyPath, dotted, pattern_of
from components.spec.models import Lab

Check = Callable[[Lab], Iterator[Finding]]
T = TypeVar("T")


@dataclass(frozen=True)
class Rule:
    """`reads`: the keys it looks at, `[]` for any index. `each`: the list whose items it judges one by one, if any."""

    check: Check
    reads: tuple[str, ...]
    each: str | None

    def findings(self, lab: Lab, spoilt: Collection[KeyPath]) -> Iterator[Finding]:
        """What it finds without relying on a spoilt key: where it judges items one by one, the sound ones' findings."""
        unsound: list[str] = []
        for path in spoilt:
            pattern = pattern_of(path)
            if not any(_one_within_other(pattern, key) for key in self.reads):
                continue
            if self.each is None or not pattern.startswith(f"{self.each}."):
                return
            unsound += [dotted(path[:n]) for n in range(len(path)) if pattern_of(path[:n]) == self.each]
        for finding in self.check(lab):
            if not any(_within(finding.key, item) for item in unsound):
                yield finding


def rule(*reads: str, each: str | None = None) -> Callable[[Check], Rule]:
    """Makes the function a Rule."""
    return lambda check: Rule(check, reads, each)


def _within(key: str, outer: str) -> bool:
    return key == outer or key.startswith((f"{outer}.", f"{outer}["))


def _one_within_other(a: str, b: str) -> bool:
    return not a or not b or _within(a, b) or _within(b, a)


def repeated(values: Sequence[T]) -> Iterator[tuple[int, int]]:
    """Index of each value that stands there already, and the index where it first does."""
    first: dict[T, int] = {}
    for index, value in enumerate(values):
        if first.setdefault(value, index) != index:
            yield index, first[value]


def overlaps(ranges: Sequence[tuple[str, IPv4Network]]) -> Iterator[tuple[str, str, IPv4Network, IPv4Network]]:
    """(key, other key, range, other range) for ranges that share addresses with one earlier in the list, once for each.

    Networks are nested or apart, so in order of address those that are open around one form a stack.
    """
    order = sorted(range(len(ranges)), key=lambda i: (int(ranges[i][1].network_address), ranges[i][1].prefixlen, i))
    around: list[int] = []
    told: set[int] = set()
    for index in order:
        while around and not ranges[index][1].subnet_of(ranges[around[-1]][1]):
            around.pop()
        for outer in reversed(around):
            earlier, later = sorted((index, outer))
            if later not in told:
                told.add(later)
                yield ranges[later][0], ranges[earlier][0], ranges[later][1], ranges[earlier][1]
        around.append(index)


def listed(words: Sequence[object]) -> str:
    """`a, b or c`, shortened where there are many; `none` where there is none."""
    names = [str(word) for word in words[:8]] + (["…"] if len(words) > 8 else [])
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else "none"
