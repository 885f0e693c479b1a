"""One side of a comparison: a plan's resources, its graph, and the rows that a reader sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from components.spec import names
from engine.graph import Graph, Node
from engine.model import STACK_TYPE

Json = Mapping[str, Any]


class Planned:
    """A plan.

    `resources`: as in the plan's JSON, by URN. `rows`, by URN: each Step, and each custom resource that is no Step's
    command.
    """

    def __init__(self, resources: Sequence[Json]) -> None:
        self.resources = {r["urn"]: r for r in resources if r["type"] != STACK_TYPE}
        self.graph = Graph.of(resources)
        self.rows: dict[str, Node] = {}
        for node in self.graph.custom:
            row = self.graph.step_of(node) or node
            self.rows[row.urn] = row

    def command(self, row: Node) -> str:
        """The URN of the custom resource of a row: the command of a Step, else the resource itself."""
        return row.children[0] if row.type == names.STEP else row.urn

    def row(self, urn: str) -> Node:
        """The row of a custom resource."""
        node = self.graph.nodes[urn]
        return self.graph.step_of(node) or node

    def title(self, row: Node) -> str:
        """A name for readers: phase and node of a Step, else kind and name.

        The resource's own name follows where several rows would have the same title, as the admissions on a control
        plane do.
        """
        title = self.graph.title(row)
        return title if self.titles[title] == 1 or title.endswith(row.name) else f"{title} ({row.name})"

    @cached_property
    def titles(self) -> Counter[str]:
        return Counter(self.graph.title(row) for row in self.rows.values())

    def similar(self, row: Node) -> Node | None:
        """The last row of the same type, and of the same phase if it is a Step."""
        kind = (row.type, row.inputs.get("phase"))
        found = [other for other in self.rows.values() if (other.type, other.inputs.get("phase")) == kind]
        return found[-1] if found else None

    @cached_property
    def scripts(self) -> frozenset[tuple[str, str]]:
        """Every script of every Step: its name and its text."""
        return frozenset(
            (name, text)
            for row in self.rows.values()
            if row.type == names.STEP
            for name, text in row.inputs["scripts"].items()
        )
