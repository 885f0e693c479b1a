"""The example program can be planned, makes separate labs, and keeps to the policy."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cli.plan.policy import violations
from engine.graph import Graph
from engine.model import Deployment, ProgramError
from engine.run import run_program
from tests.support.graphs import ROOT

STUDENTS = {"ada": "203.0.113.7/32", "grace": "198.51.100.20/32"}


def classroom(students: dict[str, str], *, dry_run: bool = True) -> Deployment:
    config = {"aws:region": "us-west-2", "classroom:students": json.dumps(students)}

    def invoke(token: str, args: dict[str, Any]) -> dict[str, Any]:
        return {"locations": ["us-west-2a"], "insecureValue": "ami-0123456789abcdef0"}

    program = ROOT / "examples" / "classroom" / "__main__.py"
    return run_program(program, project="classroom", stack="spring", config=config, dry_run=dry_run, invoke=invoke)


def test_each_student_has_a_lab_apart_from_the_others() -> None:
    made = classroom(STUDENTS)
    labs = [r for r in made.resources if r.type == "cnilab:index:Lab"]
    assert [lab.name for lab in labs] == ["ada", "grace"]
    of = {name: [r for r in made.resources if r.name.startswith(f"{name}-")] for name in STUDENTS}
    assert len(of["ada"]) > 50
    assert sum(map(len, of.values())) == len(made.resources) - len(labs) - 1, "everything has its lab's name"
    for name, resources in of.items():
        tags = [r.inputs["tags"] for r in resources if "tags" in r.inputs]
        assert {tag["cni-lab:owner"] for tag in tags} == {name}
        assert {tag["cni-lab:stack"] for tag in tags} == {f"spring-{name}"}
        urns = {r.urn for r in resources}
        others = {r.urn for r in made.resources} - urns - {lab.urn for lab in labs}
        assert not any(set(r.dependencies) & others for r in resources)
    modes = [r.inputs["spec"]["calicoNetwork"]["ipPools"][0] for r in made.resources if r.type.endswith("Installation")]
    assert [mode["encapsulation"] for mode in modes] == ["IPIP", "VXLAN"]
    # A parameter's name ends with its role's, which AWS makes unique.
    parameters = [r for r in made.resources if r.type == "aws:ssm/parameter:Parameter"]
    roles = {urn for r in parameters for urn in r.property_dependencies["name"]}
    assert len(roles) == len(parameters) == 6
    assert made.outputs["kubeconfigs"] == "<secret>" or set(made.outputs["kubeconfigs"].values()) == {"<secret>"}


def test_the_example_keeps_to_the_policy_and_has_no_cycle() -> None:
    made = classroom(STUDENTS)
    assert [str(violation) for violation in violations(made)] == []
    assert Graph.of(made.to_json()["resources"]).wave_count > 3


def test_a_bad_address_names_the_student() -> None:
    with pytest.raises(ProgramError, match=r"(?s)grace: .*machines\.operatorCidrs\[0\]: 0\.0\.0\.0/0"):
        classroom(STUDENTS | {"grace": "0.0.0.0/0"})
