"""Two plans of one stack compared: pure values in, pure values out.

A resource is the same on both sides where its URN is. A Step and its command are one row, described by the Step's
inputs: there each leaf can be compared, while the command's program is one secret. Other components do nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cli.review.nodes import NodeChange, folded, node_changes
from cli.review.parts import Part, differing_parts, hide_secrets, shorten, summarize, values_of, without_scripts
from cli.review.planned import Json, Planned
from cli.review.replacement import fed_by, lost_control_planes, replacements, rewired
from cli.review.verdict import Verdict, verdict
from components.spec import names
from engine.graph import Node

Action = Literal["replaced", "removed", "runs again", "changed", "added"]
ACTIONS: tuple[Action, ...] = ("replaced", "removed", "runs again", "changed", "added")
"""In the order in which a reviewer wants them."""


@dataclass(frozen=True)
class Change:
    """What happens to one resource. A Step that is replaced or updated runs its script again on its machine.

    `detail`: what differs, in a few words. `reasons`: why it is replaced. `follows`: it is replaced or changed only
    because another resource is replaced. `folded`: a line about its node says the same.
    """

    action: Action
    urn: str
    type: str
    title: str
    detail: str = ""
    parts: tuple[Part, ...] = ()
    reasons: tuple[str, ...] = ()
    follows: bool = False
    folded: bool = False


@dataclass(frozen=True)
class Comparison:
    """A stack on both sides.

    `verdict`: the change in one line. `nodes`: a line for each node that is added or removed.
    `same`: the number of unchanged resources. `refused`: each change that a live lab cannot take. `broken`: each
    mandatory rule of the policy that the working tree breaks. `control_planes`: each one that would not survive, and
    why. `notes`: what else the reader should know, one line each. `failed`: the working tree's side has no plan.
    `judged`: whether the control planes survive is known.
    """

    stack: str
    verdict: Verdict | None = None
    nodes: tuple[NodeChange, ...] = ()
    changes: tuple[Change, ...] = ()
    same: int = 0
    refused: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()
    control_planes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    failed: bool = False
    judged: bool = True

    @property
    def touched(self) -> bool:
        return bool(self.changes or self.notes or self.refused or self.broken)

    def count(self, action: Action) -> int:
        return sum(change.action == action for change in self.changes)


def compare(stack: str, before: Json, after: Json) -> Comparison:
    """Compare two plans of a stack: plan's JSON with `controlPlanes`, the names of those nodes.

    With `lab`, the lab as its stack file has it, nodes that are added or removed get a line each; with `region`, the
    difference in cost is known.
    """
    old, new = Planned(before["resources"]), Planned(after["resources"])
    replaced = replacements(old, new)
    nodes = node_changes(old, new, before, after)
    said = folded(nodes)
    changes: list[Change] = []

    def add(
        action: Action,
        row: Node,
        *,
        detail: str = "",
        parts: tuple[Part, ...] = (),
        reasons: tuple[str, ...] = (),
        follows: bool = False,
    ) -> None:
        side = old if action == "removed" else new
        kind = "Step" if row.type == names.STEP else row.short_type
        if row.type == names.STEP and action in ("replaced", "changed"):
            action = "runs again"
        title = side.title(row)
        changes.append(Change(action, row.urn, kind, title, detail, parts, reasons, follows, row.urn in said))

    for urn, row in new.rows.items():
        if urn not in old.rows:
            parts = differing_parts({}, without_scripts(values_of(new, row, whole=True), old.scripts))
            if like := old.similar(row):
                parts = shorten(parts, values_of(old, like, whole=True), old.title(like))
            add("added", row, parts=parts)
            continue
        sides = hide_secrets(values_of(old, old.rows[urn]), values_of(new, row))
        parts = differing_parts(*sides)
        command = new.command(row)
        if command in replaced:
            reasons = replaced[command]
            add(
                "replaced",
                row,
                detail=summarize(*sides),
                parts=parts,
                reasons=tuple(reason.text for reason in reasons),
                follows=all(reason.follows for reason in reasons),
            )
        elif parts:
            add("changed", row, detail=summarize(*sides), parts=parts)
        elif moved := rewired(old, new, command):
            add("changed", row, reasons=tuple(moved.values()))
        elif fed := fed_by(new, command, replaced):
            add("changed", row, reasons=fed, follows=True)
    for urn, row in old.rows.items():
        if urn not in new.rows:
            add("removed", row, parts=_held(old, new, row))
    run = {change.urn for change in changes if change.action == "runs again"}
    return Comparison(
        stack,
        verdict(old, new, before, after, replaced, run),
        tuple(nodes),
        tuple(sorted(changes, key=lambda change: (ACTIONS.index(change.action), change.follows))),
        same=len(new.rows) - sum(change.action != "removed" for change in changes),
        control_planes=tuple(lost_control_planes(old, new, before["controlPlanes"], replaced)),
        notes=_output_notes(before["outputs"], after["outputs"]),
    )


def _held(old: Planned, new: Planned, row: Node) -> tuple[Part, ...]:
    """What a removed resource held, without the scripts that other Steps still run."""
    held = without_scripts(values_of(old, row, whole=True), new.scripts)
    parts = differing_parts(held, {})
    if like := new.similar(row):
        parts = shorten(parts, values_of(new, like, whole=True), new.title(like))
    return parts


def _output_notes(before: Json, after: Json) -> tuple[str, ...]:
    if not differing_parts(*hide_secrets({"outputs": before}, {"outputs": after})):
        return ()
    changed = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return (f"outputs change: {', '.join(changed)}",)
