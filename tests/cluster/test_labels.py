"""labels.sh on a real API server: the labels and taints of a Node that has joined follow the stack file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.cluster.component import _labels
from components.spec.models import Node
from tests.calico.cluster import Cluster, running_cluster
from tests.support.steps import run_step


class Bench:
    """Runs the script for one Node, with a kubectl for the test's API server."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.folder, self.cluster = folder, cluster
        (folder / "bin").mkdir()
        program = folder / "bin" / "kubectl"
        program.write_text(f'#!/bin/sh\nexec {cluster.kubectl_path} --kubeconfig {cluster.kubeconfig} "$@"\n')
        program.chmod(0o755)

    def give(self, **keys: Any) -> None:
        node = Node.model_validate({"name": "w1", "subnet": "workers", "address": "10.0.2.10", **keys})
        variables = {key: str(value) for key, value in _labels(node).items()}
        done = run_step(self.folder, "labels", variables, env={"PATH": f"{self.folder}/bin:/usr/sbin:/usr/bin:/bin"})
        assert done.returncode == 0, done.stderr

    def join(self, **keys: Any) -> None:
        """The Node registers, as kubelet does it."""
        spec = {"taints": keys["taints"]} if "taints" in keys else {}
        metadata = {"name": "w1", "labels": {"kubernetes.io/os": "linux", **keys.get("labels", {})}}
        self.cluster.create({"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec})

    @property
    def labels(self) -> dict[str, str]:
        found: dict[str, str] = self.cluster.read("node", "w1")["metadata"]["labels"]
        return {key: value for key, value in found.items() if not key.startswith("beta.") and key != "kubernetes.io/os"}

    @property
    def taints(self) -> list[tuple[str, str, str]]:
        found = self.cluster.read("node", "w1")["spec"].get("taints", [])
        return [(taint["key"], taint.get("value", ""), taint["effect"]) for taint in found]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def bench(tmp_path: Path, cluster: Cluster) -> Iterator[Bench]:
    yield Bench(tmp_path, cluster)
    cluster.kubectl("delete", "node", "w1", "--ignore-not-found")


GPU = {"key": "gpu", "value": "", "effect": "NoSchedule"}
LAB = {"key": "lab", "value": "egress", "effect": "NoSchedule"}
# The API server gives it to every new Node.
NOT_READY = ("node.kubernetes.io/not-ready", "", "NoSchedule")


def test_labels_and_taints_follow_the_stack_file(bench: Bench) -> None:
    first = {"labels": {"rack": "a", "disk": "ssd"}, "taints": [GPU]}
    bench.give(**first)
    bench.join(**first)
    bench.cluster.kubectl("label", "node", "w1", "somebody=else")
    bench.give(labels={"rack": "b", "zone": "z"}, taints=[LAB])
    assert bench.labels == {"rack": "b", "zone": "z", "somebody": "else"}
    assert {taint for taint in bench.taints if taint != NOT_READY} == {("lab", "egress", "NoSchedule")}
    bench.give(labels={"rack": "b"}, taints=[{**LAB, "value": "other"}])
    assert bench.labels == {"rack": "b", "somebody": "else"}
    assert {taint for taint in bench.taints if taint != NOT_READY} == {("lab", "other", "NoSchedule")}
    bench.give()
    bench.give()
    assert bench.labels == {"somebody": "else"}
    assert {taint for taint in bench.taints if taint != NOT_READY} == set()


def test_a_control_plane_loses_its_taint(bench: Bench) -> None:
    default = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}
    bench.give(role="control-plane")
    bench.join(taints=[default])
    bench.give(role="control-plane")
    assert (default["key"], "", "NoSchedule") in bench.taints
    bench.give(role="control-plane", taints=[])
    assert (default["key"], "", "NoSchedule") not in bench.taints


def test_what_somebody_removed_by_hand_is_no_error(bench: Bench) -> None:
    bench.give(labels={"rack": "a"}, taints=[GPU])
    bench.join()
    bench.give()
    assert bench.labels == {}
