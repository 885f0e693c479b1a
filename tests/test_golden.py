"""The plan of every shipped stack, held against a file a reviewer can read.

After a wanted change: `CNILAB_UPDATE_GOLDEN=1 ./lab test tests/test_golden.py`, and read the difference before it is
committed. The scripts' text is left out: it has tests of its own, and its place in the plan is checked elsewhere.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import yaml

from engine.model import Resource
from tests.support.graphs import COMMAND, ROOT, STACKS, STEP, Graph, run_stack

GOLDEN = ROOT / "tests" / "golden"


def shown(graph: Graph, resource: Resource) -> dict[str, Any]:
    """A resource by names instead of URNs, without what is empty."""
    inputs = dict(resource.inputs)
    if resource.type == STEP:
        inputs["scripts"] = sorted(inputs["scripts"])
        inputs["files"] = [f | ({"content": "…"} if f["path"].endswith(".sh") else {}) for f in inputs["files"]]
    if resource.type == COMMAND:
        inputs.pop("stdin")  # the Step above it has it leaf by leaf
    if resource.type.startswith("aws:ec2/instance:"):
        inputs.pop("userData")  # a program of its own, with tests of its own
    entry = {
        "type": resource.type,
        "after": sorted({graph.by_urn[u].name for u in resource.dependencies}),
        "deletedWith": graph.by_urn[resource.deleted_with].name if resource.deleted_with else None,
        "ignoreChanges": list(resource.ignore_changes),
        "inputs": inputs,
    }
    return {key: value for key, value in entry.items() if value}


def rendered(stack: str) -> str:
    graph = run_stack(stack)
    # By name: what does not depend on one another is registered in any order.
    ordered = sorted(graph.deployment.resources, key=lambda resource: (resource.name, resource.type))
    resources = [{resource.name: shown(graph, resource)} for resource in ordered]
    return yaml.safe_dump(
        {"resources": resources, "outputs": graph.deployment.outputs}, sort_keys=True, width=120, allow_unicode=True
    )


@pytest.mark.parametrize("stack", STACKS)
def test_plan_is_as_agreed(stack: str) -> None:
    file = GOLDEN / f"{stack}.yaml"
    now = rendered(stack)
    if os.environ.get("CNILAB_UPDATE_GOLDEN"):
        file.write_text(now)
    assert file.is_file(), f"{file} is missing: run with CNILAB_UPDATE_GOLDEN=1 and commit it"
    assert now == file.read_text()
