"""The names in components/spec/names.py are those of the resources that real labs have, and no others."""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

import pytest

from components.spec import names
from engine.graph import OWN_PACKAGE, STEP_TYPE
from policy.check import load_config
from tests.support.graphs import STACKS, STEP, Graph, run_lab, run_stack

# More than one control plane has a load balancer, and workers without public addresses have an endpoint.
AWS: dict[str, Any] = {
    "machines": {"provider": "aws", "operatorCidrs": ["203.0.113.7/32"], "workerAccess": "InstanceConnect"},
    "nodes": [
        {"name": f"n{i}", "subnet": "control", "address": f"10.0.1.{10 + i}", "role": "control-plane"} for i in range(3)
    ]
    + [{"name": "worker", "subnet": "workers", "address": "10.0.2.10"}],
    "verify": True,
}
TOKENS = {
    value
    for key, value in vars(names).items()
    if key.isupper() and value.startswith(f"{names.PACKAGE}:") and value != names.MACHINES
}


@cache
def graphs() -> dict[str, Graph]:
    return {stack: run_stack(stack) for stack in STACKS} | {"aws": run_lab(AWS)}


def test_every_component_has_its_type_token_here() -> None:
    used = {r.type for graph in graphs().values() for r in graph.deployment.resources if r.type.startswith("cnilab:")}
    assert used == TOKENS


def test_every_phase_is_that_of_a_step() -> None:
    used = {step.inputs["phase"] for graph in graphs().values() for step in graph.of_type(names.STEP)}
    assert used == set(get_args(names.StepPhase))


@pytest.mark.parametrize("lab", [*STACKS, "aws"])
def test_steps_have_the_names_by_which_they_are_found(lab: str) -> None:
    graph = graphs()[lab]
    assert [r.name for r in graph.of_type(names.LAB)] == [names.STACK_LAB]
    found: dict[str, set[str]] = {"blocks": set(), "files": set()}
    for step in graph.of_type(names.STEP):
        phase = step.inputs["phase"]
        found.setdefault(phase, set()).add(step.name)
        # The command in a step has the name of the step, by which repair replaces it.
        assert graph.command(step).name == step.name
    nodes = [r.inputs["node"] for r in graph.of_type(names.STEP) if r.inputs["phase"] == "files"]
    files = names.node_files(names.STACK_LAB)
    assert found.pop("blocks") == {names.blocks_step(names.calico(names.STACK_LAB))}
    assert found.pop("files") == {names.node_files_step(files, node) for node in nodes}
    found.pop("calico")
    for phase, steps in found.items():
        # An event log knows the phase from the name alone.
        assert all(step.rpartition("-")[2] == phase for step in steps), phase


def test_machines_have_a_common_beginning() -> None:
    machines = {names.AWS_MACHINES, names.LOCAL_MACHINES, names.EXISTING_MACHINES}
    assert {token for token in TOKENS if token.startswith(names.MACHINES)} == machines


def test_what_may_not_import_the_program_agrees() -> None:
    assert STEP_TYPE == STEP == names.STEP and OWN_PACKAGE == names.PACKAGE
    assert load_config()["public-addresses"]["allowedIn"] == [names.AWS_MACHINES, names.NETWORK]
