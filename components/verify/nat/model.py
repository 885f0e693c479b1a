"""Packet filter rules as data: chains of rules, each with the conditions under which it applies and what it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple


@dataclass(frozen=True)
class Flow:
    """The first packet of a connection. `inbound`, `outbound`: the interfaces; empty: the packet is sent or received
    by the node itself. `port` is 0 for ICMP. `mark`: its firewall mark."""

    protocol: str
    source: str
    destination: str
    port: int = 0
    inbound: str = ""
    outbound: str = ""
    mark: int = 0


Condition = Callable[[Flow], bool | None]
"""Whether a rule applies to a packet; None where that is decided at random, or the condition is not understood."""


class Action(NamedTuple):
    """What a rule does. `target`: the chain of a jump or goto, and ADDRESS[:PORT] of dnat and snat. `mask`, `value`:
    of "mark": the new mark is (mark & ~mask) ^ value."""

    kind: Literal["jump", "goto", "return", "accept", "drop", "dnat", "snat", "masquerade", "mark", "none"]
    target: str = ""
    mask: int = 0
    value: int = 0


@dataclass(frozen=True)
class Rule:
    """`line`: as a person sees it. `certain`: whether all its conditions are understood."""

    line: str
    conditions: tuple[Condition, ...]
    action: Action
    certain: bool = True

    def applies(self, flow: Flow) -> bool | None:
        """None: at random."""
        found: bool | None = True
        for condition in self.conditions:
            match condition(flow):
                case False:
                    return False
                case None:
                    found = None
        return found


class Base(NamedTuple):
    """A chain that the kernel calls at a hook (prerouting, forward, output, postrouting). `kind`: nat or filter."""

    table: str
    chain: str
    kind: str
    hook: str
    priority: int


@dataclass
class Ruleset:
    """`chains`: (table, chain) → rules; a table of nftables is "nft NAME", one of iptables "iptables NAME"."""

    chains: dict[tuple[str, str], list[Rule]] = field(default_factory=dict)
    bases: list[Base] = field(default_factory=list)

    def at(self, hook: str, kind: str) -> list[Base]:
        """The chains that are called at a hook, in the kernel's order."""
        return sorted((b for b in self.bases if (b.hook, b.kind) == (hook, kind)), key=lambda base: base.priority)


@dataclass(frozen=True)
class Outcome:
    """What the rules may do to a packet. `kind`: dnat, snat, masquerade, drop, or accept where nothing is changed.
    `target`: ADDRESS[:PORT]. `path`: the lines of the rules that applied. `flow`: the packet with its mark.
    `certain`: False where a condition on the way was not understood."""

    kind: str
    target: str
    path: tuple[str, ...]
    flow: Flow
    certain: bool = True


Sets = Mapping[str, Sequence[str]]
"""The members of the sets that rules name: addresses and ranges."""
