"""The graph of a deployment, as values: order, waves, longest chain and tree.

The input is the list of resources of `plan --json`. Only custom resources take time, so only they have a wave: 1 for
those that wait for nothing, else one more than the latest wave that they wait for. They wait for their dependencies,
for their provider, and for what the inputs of their components come from. A component in a dependency list stands for
the custom resources below it.

A Step for changes does nothing when it is created, so its command is idle in a first `up`: what waits for it waits for
what it waits for, and it is on no chain.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any

from engine.model import STACK_TYPE

# The engine imports nothing of the lab, so it has these two names itself; a test compares them with the lab's.
STEP_TYPE = "cnilab:node:Step"
OWN_PACKAGE = "cnilab"


class GraphError(ValueError):
    """The resources do not form a graph: a URN is unknown, or there is a cycle."""


@dataclass(frozen=True)
class Node:
    """One resource. `waits_for` holds URNs of custom resources only, none of them idle. `wave` is 0 for components, and
    for an idle resource the wave of the last resource that it waits for."""

    urn: str
    type: str
    name: str
    parent: str | None
    custom: bool
    inputs: Mapping[str, Any]
    children: tuple[str, ...] = ()
    waits_for: tuple[str, ...] = ()
    wave: int = 0
    idle: bool = False

    @property
    def package(self) -> str:
        return self.type.split(":")[0]

    @property
    def short_type(self) -> str:
        """The type as people say it: aws:ec2/vpc:Vpc is aws:ec2:Vpc, kubernetes:apps/v1:DaemonSet DaemonSet apps/v1."""
        package, _, rest = self.type.partition(":")
        module, _, name = rest.rpartition(":")
        if package == "kubernetes" and module:
            return f"{name} {module.removeprefix('core/')}"
        head, slash, tail = module.rpartition("/")
        if slash and tail.lower() == name.lower():
            module = head
        return ":".join(part for part in (package, "" if module == "index" else module, name) if part)


@dataclass(frozen=True)
class Row:
    """A line of the tree. `name` is the resource's name without the name of a component around it. `last` says
    for each level, from right below the stack, whether its branch ends here."""

    node: Node
    name: str
    waves: str
    kind: str
    last: tuple[bool, ...]

    @property
    def label(self) -> str:
        stem = "".join("   " if last else "│  " for last in self.last[:-1])
        return f"{stem}{'└─ ' if self.last[-1] else '├─ '}{self.name}"


@dataclass(frozen=True)
class Graph:
    """`nodes` by URN, in creation order; without the stack itself."""

    nodes: Mapping[str, Node]

    @classmethod
    def of(cls, resources: Sequence[Mapping[str, Any]]) -> Graph:
        """Raises GraphError where a dependency is not among the resources, or where they form a cycle."""
        listed = {r["urn"]: r for r in resources if r["type"] != STACK_TYPE}
        children: dict[str, list[str]] = defaultdict(list)
        for urn, r in listed.items():
            if r["parent"] in listed:
                children[r["parent"]].append(urn)
        custom = {urn: tuple(_custom_below(urn, listed, children)) for urn in listed}

        def waits_for(urn: str) -> tuple[str, ...]:
            wanted: dict[str, None] = {}
            for ancestor in _lineage(urn, listed):
                r = listed[ancestor]
                for dependency in [*r["dependencies"], *([r["provider"]] if r.get("provider") else [])]:
                    if dependency not in custom:
                        raise GraphError(f"{urn} depends on {dependency}, which is not in the graph")
                    wanted |= dict.fromkeys(custom[dependency])
            return tuple(dependency for dependency in wanted if dependency != urn)

        waits = {urn: waits_for(urn) for urn, r in listed.items() if r["custom"]}
        idle = {urn for urn in waits if _is_idle(listed.get(listed[urn]["parent"]))}
        waits = _without(idle, waits)
        waves = _waves(waits, idle)
        return cls(
            {
                urn: Node(
                    urn=urn,
                    type=r["type"],
                    name=r["name"],
                    parent=r["parent"] if r["parent"] in listed else None,
                    custom=r["custom"],
                    inputs=r["inputs"],
                    children=tuple(children[urn]),
                    waits_for=waits.get(urn, ()),
                    wave=waves.get(urn, 0),
                    idle=urn in idle,
                )
                for urn, r in listed.items()
            }
        )

    @cached_property
    def custom(self) -> tuple[Node, ...]:
        return tuple(node for node in self.nodes.values() if node.custom)

    @cached_property
    def active(self) -> tuple[Node, ...]:
        """The custom resources that a first `up` works on: all but the idle ones."""
        return tuple(node for node in self.custom if not node.idle)

    @cached_property
    def idle(self) -> tuple[Node, ...]:
        return tuple(node for node in self.custom if node.idle)

    @cached_property
    def wave_count(self) -> int:
        return max((node.wave for node in self.active), default=0)

    def longest_chain(self) -> list[Node]:
        """The custom resources that decide how many waves there are, first to last. Of equals, the one made first."""
        chain: list[Node] = []
        candidates: Iterable[Node] = self.active
        while found := max(candidates, key=lambda node: node.wave, default=None):
            chain.append(found)
            candidates = [self.nodes[urn] for urn in found.waits_for]
        return chain[::-1]

    def counts(self) -> list[tuple[str, int]]:
        """The number of resources of each short type, largest first."""
        return sorted(Counter(n.short_type for n in self.nodes.values()).items(), key=lambda item: (-item[1], item[0]))

    def step_of(self, node: Node) -> Node | None:
        """The Step whose one command this is."""
        parent = self.nodes.get(node.parent or "")
        return parent if parent and parent.type == STEP_TYPE and len(parent.children) == 1 else None

    def title(self, node: Node) -> str:
        """A name for readers: a Step by its phase and node, a Kubernetes object by its kind and name.

        A Step that is about another node than the one that it runs on names both: "drain worker1 (on control1, when
        changed)".
        """
        step = node if node.type == STEP_TYPE else self.step_of(node)
        if step:
            phase, where, subject = (step.inputs.get(key) for key in ("phase", "node", "subject"))
            remarks = [f"on {where}"] if subject else []
            remarks += ["when changed"] if step.inputs.get("forChanges") else []
            title = f"{phase or step.name} {subject}" if subject else f"{phase or step.name} on {where or '?'}"
            return f"{title} ({', '.join(remarks)})" if remarks else title
        metadata = node.inputs.get("metadata")
        name = metadata.get("name") if node.package == "kubernetes" and isinstance(metadata, dict) else None
        return f"{node.type.rpartition(':')[2]} {name or node.name}"

    def room(self, node: Node) -> str:
        """The room of the innermost component of the lab around it, leaving Steps out; else its package."""
        for ancestor in self.lineage(node):
            if ancestor.package == OWN_PACKAGE and ancestor.type != STEP_TYPE:
                _, room, kind = ancestor.type.split(":")
                return kind.lower() if room == "index" else room
        return node.package

    def tree(self) -> Iterator[Row]:
        """Components and what is below them, in the order in which work starts; a Step and its command are one row.
        Idle Steps are left out."""
        yield from self._rows([urn for urn, node in self.nodes.items() if node.parent is None], (), ("",))

    def _rows(self, urns: Sequence[str], last: tuple[bool, ...], above: tuple[str, ...]) -> Iterator[Row]:
        # Components without work come last; the sort keeps creation order where waves are equal.
        shown = [urn for urn in urns if not self._is_idle_step(self.nodes[urn])]
        shown = sorted(shown, key=lambda urn: self._spans[urn][0] or self.wave_count + 1)
        for urn in shown:
            node = self.nodes[urn]
            here = (*last, urn == shown[-1])
            folded = len(node.children) == 1 and self.step_of(self.nodes[node.children[0]]) is node
            kind = f"Step on {node.inputs.get('node', '?')}" if folded else node.short_type
            first, final = self._spans[urn]
            waves = "" if not first else str(first) if first == final else f"{first}-{final}"
            prefix = next(name for name in reversed(above) if node.name.startswith(name))
            yield Row(node, node.name.removeprefix(prefix), waves, kind, here)
            if not folded:
                yield from self._rows(node.children, here, (*above, f"{node.name}-"))

    def _is_idle_step(self, node: Node) -> bool:
        return bool(node.children) and all(self.nodes[child].idle for child in node.children)

    @cached_property
    def _spans(self) -> dict[str, tuple[int, int]]:
        """The first and the last wave of each resource with what is below it; (0, 0) without a custom resource."""
        spans = {urn: (node.wave, node.wave) for urn, node in self.nodes.items()}
        for node in self.active:
            for ancestor in self.lineage(node):
                if not ancestor.custom:
                    first, final = spans[ancestor.urn]
                    spans[ancestor.urn] = (min(first or node.wave, node.wave), max(final, node.wave))
        return spans

    def lineage(self, node: Node) -> Iterator[Node]:
        """The resource, its parent, and so on up to below the stack."""
        yield node
        while node.parent is not None:
            node = self.nodes[node.parent]
            yield node


def _lineage(urn: str, listed: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The resource, its parent, and so on up."""
    while urn in listed:
        yield urn
        urn = listed[urn]["parent"] or ""


def _custom_below(
    urn: str, listed: Mapping[str, Mapping[str, Any]], children: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    """What a dependency on it stands for: itself, or a component's custom resources (without their children)."""
    if listed[urn]["custom"]:
        yield urn
        return
    for child in children.get(urn, ()):
        yield from _custom_below(child, listed, children)


def _is_idle(parent: Mapping[str, Any] | None) -> bool:
    """Whether the command of this Step does nothing when it is created."""
    return parent is not None and parent["type"] == STEP_TYPE and bool(parent["inputs"].get("forChanges"))


def _without(idle: AbstractSet[str], waits: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """The same, with what an idle resource waits for in place of the idle resource, and each resource after those that
    it waits for. Raises GraphError where they form a cycle."""
    try:
        order = list(TopologicalSorter(waits).static_order())
    except CycleError as error:
        # It lists each resource after the one that it waits for.
        cycle = reversed(error.args[1])
        raise GraphError(f"these resources wait for each other: {' -> '.join(cycle)}") from None
    found: dict[str, tuple[str, ...]] = {}
    for urn in order:
        behind: dict[str, None] = {}
        for dependency in waits[urn]:
            behind |= dict.fromkeys(found[dependency] if dependency in idle else (dependency,))
        found[urn] = tuple(behind)
    return found


def _waves(waits: Mapping[str, Sequence[str]], idle: AbstractSet[str]) -> dict[str, int]:
    """The wave of each resource. `waits`: as `_without` gives it."""
    waves: dict[str, int] = {}
    for urn, dependencies in waits.items():
        waves[urn] = max((waves[dependency] for dependency in dependencies), default=0) + (urn not in idle)
    return waves
