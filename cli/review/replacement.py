"""Which resources a change replaces, why, and whether the control planes survive it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cli.review.paths import different, top_level
from cli.review.planned import Json, Planned
from cli.review.rules import matching, replacing
from components.spec import names
from engine.model import UNKNOWN


@dataclass(frozen=True)
class Reason:
    """Why a resource is replaced. `follows`: because another one is, and not by a change of its own."""

    text: str
    follows: bool = True


def replacements(old: Planned, new: Planned) -> dict[str, list[Reason]]:
    """The resources that would be replaced, by URN, with the reasons.

    The program makes a resource after everything that it refers to, so one pass in that order sees every consequence.
    """
    replaced: dict[str, list[Reason]] = {}
    # After any change the output of a local command is unknown. Of other resources only the id is used in a trigger.
    uncertain: set[str] = set()

    def named(urn: str) -> str:
        return new.title(new.row(urn))

    for urn, resource in new.resources.items():
        before = old.resources.get(urn)
        if before is None or not resource["custom"]:
            continue
        changed = changed_paths(before, resource)
        rules = replacing(resource, before)
        reasons = [Reason(f"change of {path}", follows=False) for path in top_level(matching(changed, rules))]
        reasons += [
            Reason(text, follows=False) for path, text in rewired(old, new, urn).items() if matching([path], rules)
        ]
        triggers = [side.get("replacementTrigger") for side in (before, resource)]
        # As in the engine, a trigger that is added or removed replaces nothing.
        if None not in triggers and triggers[0] != triggers[1]:
            words = [json.dumps(trigger) for trigger in triggers]
            reasons.append(Reason(f"its replacement trigger changes from {words[0]} to {words[1]}", follows=False))
        if (owner := resource.get("deletedWith")) in replaced:
            reasons.append(Reason(f"{named(owner)} is replaced, which deletes this too"))
        reasons += [
            Reason(f"{named(other)} is replaced, and this together with it")
            for other in resource.get("replaceWith", ())
            if other in replaced
        ]
        if (provider := resource.get("provider")) in replaced:
            reasons.append(Reason(f"its provider {new.graph.nodes[provider].name} is replaced"))
        for property_, sources in resource.get("propertyDependencies", {}).items():
            if not _has_rule(property_, rules):
                continue
            for source in sources:
                if source in replaced and source != owner:
                    reasons.append(Reason(f"{property_} comes from {named(source)}, which is replaced"))
                elif source in uncertain:
                    reasons.append(Reason(f"{property_} comes from {named(source)}, whose output may change"))
        if reasons:
            replaced[urn] = [r for i, r in enumerate(reasons) if r not in reasons[:i]]
        elif changed and resource["type"] == "command:local:Command":
            uncertain.add(urn)
    return replaced


def lost_control_planes(
    old: Planned, new: Planned, nodes: Sequence[str], replaced: Mapping[str, Sequence[Reason]]
) -> Iterator[str]:
    """A line for each of these control planes whose machine, or the command that made the cluster on it, is lost."""
    for name in nodes:
        urns: dict[str, None] = {}
        for row in old.rows.values():
            if row.type == names.STEP and row.inputs["node"] == name and row.inputs["phase"] in _OWN_PHASES:
                command = old.resources[old.command(row)]
                if machine := command.get("deletedWith"):
                    urns[machine] = None
                if row.inputs["phase"] == "init":
                    urns[command["urn"]] = None
        for urn in urns:
            if urn not in new.resources:
                yield f"{name} would be removed: {old.title(old.row(urn))} is no longer there"
                break
            if urn in replaced:
                yield f"{name} would be replaced: {replaced[urn][0].text} ({new.title(new.row(urn))})"
                break


_OWN_PHASES: tuple[names.StepPhase, ...] = ("prepare", "init", "join")
"""Phases of the Steps that run on the control plane's own machine and are deleted with it."""


def rewired(old: Planned, new: Planned, urn: str) -> dict[str, str]:
    """Inputs that are not known before `up` and come from other resources than before: by path, from where to where.

    Both plans show such an input as unknown, so their values do not differ.
    """
    before, after = old.resources[urn], new.resources[urn]
    found = {}
    for path, value in after["inputs"].items():
        if (
            value != UNKNOWN
            or before["inputs"].get(path) != UNKNOWN
            or matching([path], after.get("ignoreChanges", ()))
        ):
            continue
        was, will = (side.get("propertyDependencies", {}).get(path, ()) for side in (before, after))
        if set(was) != set(will):
            found[path] = f"{path} comes from {_titles(new, will)}, and came from {_titles(old, was)}"
    return found


def _titles(side: Planned, urns: Sequence[str]) -> str:
    return " and ".join(side.title(side.row(urn)) for urn in urns)


def fed_by(side: Planned, urn: str, replaced: Mapping[str, Sequence[Reason]]) -> tuple[str, ...]:
    """Why a resource is updated although its own part of the program is unchanged: what its inputs come from."""
    fed = side.resources[urn].get("propertyDependencies", {})
    return tuple(
        f"{property_} comes from {side.title(side.row(source))}, which is replaced"
        for property_, sources in fed.items()
        for source in sources
        if source in replaced
    )


def changed_paths(before: Json, after: Json) -> list[str]:
    """Paths of inputs that differ, without those that the program tells the engine to ignore."""
    paths = list(different(before["inputs"], after["inputs"]))
    ignored = set(matching(paths, after.get("ignoreChanges", ())))
    return [path for path in paths if path not in ignored]


def _has_rule(property_: str, rules: Sequence[str]) -> bool:
    """Whether a rule is about this property or a part of it."""
    return bool(matching([property_], rules)) or any(
        rule.startswith((f"{property_}.", f"{property_}[")) for rule in rules
    )
