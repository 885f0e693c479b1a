"""A rule: a pure function from a lab to findings, and the keys that it reads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from typing import NamedTuple, TypeVar

from components.spec.findings import Finding
from components.spec.keypath import KeyPath, dotted, pattern_of
from components.spec.models import Lab

Check = Callable[[Lab], Iterator[Finding]]
T = TypeVar("T")


@dataclass(frozen=True)
class Rule:
    """`reads`: the keys that the rule reads, with `[]` for any index. `each`: the list whose items it checks one by
    one, if there is one."""

    check: Check
    reads: tuple[str, ...]
    each: str | None

    def findings(self, lab: Lab, unreliable: Collection[KeyPath]) -> Iterator[Finding]:
        """The rule's findings, if it reads no unreliable key. A rule that checks items one by one leaves out the items
        with such a key."""
        skipped: list[str] = []
        for path in unreliable:
            pattern = pattern_of(path)
            if not any(_one_within_other(pattern, key) for key in self.reads):
                continue
            if self.each is None or not pattern.startswith(f"{self.each}."):
                return
            skipped += [dotted(path[:n]) for n in range(len(path)) if pattern_of(path[:n]) == self.each]
        for finding in self.check(lab):
            if not any(_within(finding.key, item) for item in skipped):
                yield finding


POD_PLACES = (
    "workloads[].networks",
    "workloads[].kind",
    "workloads[].replicas",
    "workloads[].nodeSelector",
    "workloads[].onControlPlane",
)
"""What a workload says of where its pods run, how many, and on which networks: for a rule's `reads`."""


def rule(*reads: str, each: str | None = None) -> Callable[[Check], Rule]:
    """Make a Rule of a function."""
    return lambda check: Rule(check, reads, each)


def _within(key: str, outer: str) -> bool:
    return key == outer or key.startswith((f"{outer}.", f"{outer}["))


def _one_within_other(a: str, b: str) -> bool:
    return not a or not b or _within(a, b) or _within(b, a)


def repeated(values: Sequence[T]) -> Iterator[tuple[int, int]]:
    """The index of each value that is there already, and the index of its first occurrence."""
    first: dict[T, int] = {}
    for index, value in enumerate(values):
        if first.setdefault(value, index) != index:
            yield index, first[value]


class Overlap(NamedTuple):
    """The range at `key` shares addresses with the range at `other_key`, which comes earlier in the list."""

    key: str
    other_key: str
    cidr: IPv4Network
    other_cidr: IPv4Network


def overlaps(ranges: Sequence[tuple[str, IPv4Network]]) -> Iterator[Overlap]:
    """For each range (key, CIDR) that overlaps an earlier one, the overlap with one of those.

    Two networks are nested or share nothing. So in order of address, the networks around the current one form a stack.
    """
    order = sorted(range(len(ranges)), key=lambda i: (int(ranges[i][1].network_address), ranges[i][1].prefixlen, i))
    around: list[int] = []
    reported: set[int] = set()
    for index in order:
        while around and not ranges[index][1].subnet_of(ranges[around[-1]][1]):
            around.pop()
        for outer in reversed(around):
            earlier, later = sorted((index, outer))
            if later not in reported:
                reported.add(later)
                yield Overlap(ranges[later][0], ranges[earlier][0], ranges[later][1], ranges[earlier][1])
        around.append(index)


def listed(words: Sequence[object]) -> str:
    """`a, b or c`, shortened after eight words. `none` if there are none."""
    names = [str(word) for word in words[:8]] + (["…"] if len(words) > 8 else [])
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else "none"
