"""How every benchmark prints a ratio, and how run.py reads it again."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LINE = re.compile(r"(?P<name>.+): (?P<value>-?[\d.]+) \(at most (?P<bound>[\d.]+)\)(?:  EXCEEDED)?")


@dataclass(frozen=True)
class Ratio:
    name: str
    value: float
    bound: float


def report(name: str, value: float, bound: float) -> bool:
    """Print a ratio and its bound; whether the bound is exceeded."""
    exceeded = value > bound
    print(f"{name}: {value:.2f} (at most {bound:g}){'  EXCEEDED' if exceeded else ''}", flush=True)
    return exceeded


def ratios(output: str) -> Iterator[Ratio]:
    """The ratios in what a benchmark printed."""
    for line in output.splitlines():
        if found := _LINE.fullmatch(line):
            yield Ratio(found["name"], float(found["value"]), float(found["bound"]))
