"""The local variant of a stack file: the same lab on this computer, and nothing of elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.spec.load import load_stack_file
from components.spec.models import Lab
from components.spec.names import base_name
from components.spec.variant import local_variant
from tests.support.graphs import ROOT, STACKS


def variant(folder: Path, text: str) -> tuple[Lab, dict[str, str]]:
    path = folder / "Pulumi.x-local.yaml"
    path.write_text(local_variant(text), encoding="utf-8")
    file = load_stack_file(path)
    return file.lab, file.config


@pytest.mark.parametrize("stack", STACKS)
def test_only_the_machines_of_a_shipped_lab_change(tmp_path: Path, stack: str) -> None:
    path = ROOT / f"stacks/Pulumi.{stack}.yaml"
    before = load_stack_file(path).lab
    after, config = variant(tmp_path, path.read_text(encoding="utf-8"))
    assert after.machines.provider == "local" and list(config) == ["cni-lab:lab"]
    nodes = tuple(node.model_copy(update={"ssh": None}) for node in before.nodes)
    calico = before.calico.model_copy(update={"interface": None})
    assert after == before.model_copy(update={"machines": after.machines, "nodes": nodes, "calico": calico})


def test_every_other_line_stays_as_it_is() -> None:
    text = (ROOT / "stacks/Pulumi.cross-node.yaml").read_text(encoding="utf-8")
    kept = [line for line in text.splitlines() if "aws" not in line]
    assert local_variant(text).splitlines() == [*kept[:4], "    machines: {provider: local}", *kept[4:]]


def test_what_is_elsewhere_is_left_out(tmp_path: Path) -> None:
    text = """
config:
  aws:region: eu-west-1
  aws:profile: class
  cni-lab:lab:
    machines: {provider: aws, operatorCidrs: [198.18.0.1/32], image: ami-0123456789abcdef0}
    network:
      subnets: {a: 10.0.1.0/24}
      zones: {a: eu-west-1b}
    nodes: [{name: one, role: control-plane, subnet: a, address: 10.0.1.10}]
    kubernetes: {controlPlaneEndpoint: "api.example.org:6443"}
    calico: {skipInterface: eth0}
"""
    lab, config = variant(tmp_path, text)
    assert list(config) == ["cni-lab:lab"] and not lab.network.zones
    assert lab.kubernetes.control_plane_endpoint is None and lab.calico.skip_interface is None


def test_names_of_variants() -> None:
    assert [base_name(name) for name in ("cross-node-local", "cross-node", "local", "-local")] == [
        "cross-node",
        "cross-node",
        "local",
        "-local",
    ]
