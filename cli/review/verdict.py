"""A change in one line: what happens to the machines and to the control plane, and what the lab costs then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

from cli.errors import CommandError
from cli.plan.cost import PRICES, Prices, count
from cli.review.planned import Json, Planned
from cli.review.replacement import Reason, changed_paths
from cli.review.rules import matching, restarting
from components.spec import names
from components.spec.own_yaml import read_yaml
from engine.graph import Node

# On the first control plane these steps only read, or are about another node.
_FOR_OTHERS: tuple[names.StepPhase, ...] = ("admit", "drain", "blocks")


@dataclass(frozen=True)
class Verdict:
    """Nodes by what happens to their machines. `control_plane`: what happens to the control planes, in a few words.

    `upgraded`: nodes that get another version of Kubernetes. `versions`: the old and the new one, in words.
    `cost`: the difference in USD an hour, in words; empty where no side is in a cloud.
    """

    added: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    restarted: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    upgraded: tuple[str, ...] = ()
    versions: str = ""
    control_plane: str = "untouched"
    cost: str = ""

    def __str__(self) -> str:
        kinds = [
            (self.added, "added"),
            (self.replaced, "replaced"),
            (self.restarted, "drained, stopped and started again, one after the other"),
            (self.removed, "removed, after each is drained"),
            (self.upgraded, f"drained and upgraded from Kubernetes {self.versions}, one after the other"),
        ]
        parts = [f"{_machines(nodes)} {what} ({', '.join(nodes)})" for nodes, what in kinds if nodes]
        parts = parts or ["no machine added, replaced, restarted or removed"]
        parts.append(f"control plane {self.control_plane}")
        return "; ".join([*parts, *([self.cost] if self.cost else [])])


def _machines(nodes: Sequence[str]) -> str:
    return f"{len(nodes)} machine{'' if len(nodes) == 1 else 's'}"


def verdict(
    old: Planned, new: Planned, before: Json, after: Json, replaced: Mapping[str, Sequence[Reason]], run: set[str]
) -> Verdict:
    """`replaced`: the resources that are replaced, by URN. `run`: the rows that are Steps and run again, by URN."""
    was, will = _machines_by_node(old), _machines_by_node(new)
    both = [node for node in will if node in was]
    lost = tuple(node for node in both if will[node] in replaced)
    restarted = tuple(node for node in both if node not in lost and _restarts(old, new, will[node]))
    planes = [*before["controlPlanes"], *(n for n in after["controlPlanes"] if n not in before["controlPlanes"])]
    found = Verdict(
        added=tuple(node for node in will if node not in was),
        replaced=lost,
        restarted=restarted,
        removed=tuple(node for node in was if node not in will),
        cost=_cost(before, after),
    )
    touched = {
        new.rows[urn].inputs["node"]
        for urn in run
        if new.rows[urn].inputs["phase"] not in _FOR_OTHERS and urn in old.rows
    }
    upgrades = {
        new.rows[urn].inputs["node"]: change
        for urn in run
        if urn in old.rows and (change := _new_version(old.rows[urn], new.rows[urn])) is not None
    }
    words = "untouched"
    for nodes, word in (
        (tuple(n for n in planes if n in touched), "runs steps again"),
        (tuple(upgrades), "upgraded"),
        (found.restarted, "restarted"),
        (found.added, "gets another machine"),
        (found.replaced, "REPLACED"),
        (found.removed, "REMOVED"),
    ):
        if set(nodes) & set(planes) and (was or word == "gets another machine"):
            words = word
    # In the order in which they are upgraded.
    upgraded = tuple(sorted((n for n in both if n in upgrades and n not in lost), key=lambda n: n not in planes))
    versions = upgrades[upgraded[0]] if upgraded else ""
    return replace(found, upgraded=upgraded, versions=versions, control_plane=words)


def _new_version(before: Node, after: Node) -> str | None:
    """The versions of Kubernetes between which a Step upgrades its node, in words; None if it does not."""
    if "upgrade-kubelet.sh" not in after.inputs.get("scripts", ()):
        return None
    was, will = (step.inputs["variables"]["KUBERNETES_VERSION"] for step in (before, after))
    return f"{was} to {will}" if was != will else None


def _machines_by_node(side: Planned) -> dict[str, str | None]:
    """The machine of each node, by its URN; None where the program does not make it."""
    found: dict[str, str | None] = {}
    for phase in ("prepare", "init", "join"):  # the first control plane has no step of its own for its preparation
        for row in side.rows.values():
            if row.type == names.STEP and row.inputs["phase"] == phase:
                found.setdefault(row.inputs["node"], side.resources[side.command(row)].get("deletedWith"))
    return found


def _restarts(old: Planned, new: Planned, machine: str | None) -> bool:
    if machine is None or machine not in old.resources:
        return False
    resource = new.resources[machine]
    return bool(matching(changed_paths(old.resources[machine], resource), restarting(resource)))


# --- cost ------------------------------------------------------------------------------------------------------------


def _cost(before: Json, after: Json) -> str:
    try:
        was, will = _hour(before), _hour(after)
    except CommandError as error:
        return f"cost not known: {error}"
    if was is None and will is None:
        return ""
    difference = (will or 0.0) - (was or 0.0)
    if abs(difference) < 0.00005:
        return "the same cost"
    return f"{difference:+.4f} USD an hour ({will or 0.0:.4f} then)"


def _hour(side: Json) -> float | None:
    """What a side costs in an hour; None if it is in no cloud. Raises CommandError where a price is missing."""
    of_aws: list[Any] = [
        SimpleNamespace(
            type=resource["type"],
            urn=resource["urn"],
            inputs=resource["inputs"],
            property_dependencies=resource.get("propertyDependencies", {}),
        )
        for resource in side["resources"]
        if resource["type"].startswith("aws:")
    ]
    if not of_aws:
        return None
    table = read_yaml(PRICES)
    items, _ = count(of_aws, Prices.of(table, side.get("region") or ""))
    return sum(item.of(1) for item in items)
