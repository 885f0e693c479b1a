"""Draining and uncordoning, with a real kube-apiserver that has its Node authorizer and NodeRestriction."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.node.script import compose, read_script
from tests.calico.cluster import NODE, Cluster, running_cluster
from tests.support.steps import run_program, run_step

OTHER = "other"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as running:
        for name in (NODE, OTHER):
            running.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
        yield running


def report(cluster: Cluster, kubelet: str, crio: str = "1.36.3") -> None:
    """Report these versions as the kubelet of NODE would."""
    info = {"kubeletVersion": f"v{kubelet}", "containerRuntimeVersion": f"cri-o://{crio}"}
    patch = {"status": {"nodeInfo": info, "conditions": [{"type": "Ready", "status": "True"}]}}
    cluster.kubectl("patch", "node", NODE, "--subresource", "status", "--type", "merge", "-p", json.dumps(patch))


def drain(cluster: Cluster, folder: Path, node: str = NODE, wanted: str = "1.36.3") -> str:
    return on_control_plane(
        cluster, folder, "drain", {"DRAINED": node, "KUBERNETES_VERSION": wanted, "CRIO_VERSION": wanted}
    )


def on_control_plane(cluster: Cluster, folder: Path, phase: str, variables: dict[str, str]) -> str:
    done = run_step(
        folder,
        phase,
        variables,
        env={
            "CNI_LAB_KUBECONFIG": str(cluster.kubeconfig),
            "CNI_LAB_LOGS": str(folder / "logs"),
            "PATH": f"{Path(cluster.kubectl_path).parent}:{os.environ['PATH']}",
        },
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def as_the_node(cluster: Cluster, folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a function of upgrade-kubelet.sh with a worker's credentials."""
    functions = read_script("upgrade-kubelet.sh").partition("\nif ! joined")[0]
    program = compose("upgrade", {"NODE_NAME": NODE, "KUBERNETES_VERSION": "1.36.3"}, [], [])
    program = program.replace(
        "} </dev/null", f"KUBELET_CONF={cluster.node_kubeconfig}\n{functions}\n{command}\n}} </dev/null"
    )
    environment = {"PATH": f"{Path(cluster.kubectl_path).parent}:{os.environ['PATH']}"}
    return run_program(folder, program, env=environment)


def cordoned(cluster: Cluster) -> tuple[bool, bool]:
    """Whether NODE is cordoned, and whether our annotation says that the lab did it."""
    node = cluster.read("node", NODE)
    annotations = node["metadata"].get("annotations") or {}
    return node["spec"].get("unschedulable", False), annotations.get("cni-lab/cordoned") == "yes"


def test_a_node_with_the_wanted_versions_is_left_alone(cluster: Cluster, tmp_path: Path) -> None:
    report(cluster, "1.36.3")
    drain(cluster, tmp_path)
    assert cordoned(cluster) == (False, False)
    assert "is not in the cluster" in drain(cluster, tmp_path, "nobody")


@pytest.mark.parametrize(("kubelet", "crio"), [("1.35.4", "1.35.4"), ("1.36.3", "1.36.2")])
def test_drain_and_uncordon(cluster: Cluster, tmp_path: Path, kubelet: str, crio: str) -> None:
    """A second drain changes nothing, and a worker's own credentials suffice to uncordon it."""
    report(cluster, kubelet, crio)
    for _ in range(2):
        drain(cluster, tmp_path)
        assert cordoned(cluster) == (True, True)
    ready = as_the_node(cluster, tmp_path, "runs_and_is_ready")
    assert (ready.returncode == 0) == (kubelet == "1.36.3"), ready.stderr
    for _ in range(2):
        done = as_the_node(cluster, tmp_path, "allow_pods")
        assert done.returncode == 0, done.stderr
        assert cordoned(cluster) == (False, False)


def test_a_node_that_somebody_cordoned_stays_cordoned(cluster: Cluster, tmp_path: Path) -> None:
    report(cluster, "1.35.4")
    cluster.kubectl("cordon", NODE)
    drain(cluster, tmp_path)
    assert cordoned(cluster) == (True, False)
    assert as_the_node(cluster, tmp_path, "allow_pods").returncode == 0
    assert cordoned(cluster) == (True, False)
    cluster.kubectl("uncordon", NODE)


def test_before_a_machine_restarts_its_node_is_drained_whatever_its_versions(cluster: Cluster, tmp_path: Path) -> None:
    """For another instance type (cli/lifecycle/instance_type.py). The control plane lets pods onto it afterwards."""
    report(cluster, "1.36.3")
    for _ in range(2):
        drain(cluster, tmp_path, wanted="none")
        assert cordoned(cluster) == (True, True)
    for _ in range(2):
        on_control_plane(cluster, tmp_path, "uncordon", {"UNCORDONED": NODE})
        assert cordoned(cluster) == (False, False)
    cluster.kubectl("cordon", NODE)
    drain(cluster, tmp_path, wanted="none")
    on_control_plane(cluster, tmp_path, "uncordon", {"UNCORDONED": NODE})
    assert cordoned(cluster) == (True, False), "somebody else cordoned it"
    cluster.kubectl("uncordon", NODE)
    on_control_plane(cluster, tmp_path, "uncordon", {"UNCORDONED": "nobody"})


def test_a_worker_cannot_drain_itself(cluster: Cluster) -> None:
    """That is why its drain is a step on the control plane."""
    asked = [
        "auth",
        "can-i",
        "get",
        "daemonsets.apps",
        "-A",
        "--as",
        f"system:node:{NODE}",
        "--as-group",
        "system:nodes",
    ]
    assert cluster.kubectl(*asked, check=False).stdout.strip() == "no"
