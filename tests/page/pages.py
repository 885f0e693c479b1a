"""Pages for tests."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from components.spec.load import load_stack_file
from components.spec.models import Lab
from engine.graph import Graph
from page.content.source import Source
from page.document import Page, html
from page.foreseen.lab import foresee
from tests.support.graphs import ROOT, run_lab_once, run_stack
from tests.verify.replica_labs import of_size


def shipped(stack: str) -> Lab:
    """The lab of a stack that ships."""
    return load_stack_file(ROOT / "stacks" / f"Pulumi.{stack}.yaml").lab


def graph_of(stack: str) -> Graph:
    return Graph.of(run_stack(stack).deployment.to_json()["resources"])


def planned(stack: str) -> Page:
    """The page of a shipped stack from its plan."""
    lab = shipped(stack)
    source = Source(stack, "plan", *foresee(lab, stack))
    return Page(source, lab, graph_of(stack), ROOT / "docs" / "labs" / f"{stack}.md")


@cache
def planned_html(stack: str) -> str:
    return html(planned(stack))


@cache
def hundred_nodes() -> tuple[Page, str]:
    """A page of a hundred nodes, and its text. Making it takes long: its tests form the group HUNDRED_NODES."""
    page = page_of(of_size(100, 300))
    return page, html(page)


HUNDRED_NODES = pytest.mark.xdist_group("a page of a hundred nodes")


def page_of(lab: Lab, stack: str = "test") -> Page:
    """The page of any lab from its plan, without a lesson."""
    run = run_lab_once(lab.model_dump(mode="json", by_alias=True), timeout_seconds=240)
    graph = Graph.of(run.deployment.to_json()["resources"])
    return Page(Source(stack, "plan", *foresee(lab, stack)), lab, graph, Path("no lesson"))
