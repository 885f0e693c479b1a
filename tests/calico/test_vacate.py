"""Pods in a delegate's range, on a real API server and with a node's own permissions."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.calico.cluster import NODE, Cluster
from tests.calico.test_api import meanwhile
from tests.support.steps import run_step

RANGES = "net-calico 10.244.97.150 10.244.97.250\ndefault-calico 10.244.97.50 10.244.97.100\n"


@pytest.fixture
def node(cluster: Cluster) -> Iterator[Cluster]:
    cluster.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}})
    yield cluster
    cluster.kubectl("delete", "pods", "--all", "--all-namespaces", "--force", "--grace-period=0")
    cluster.kubectl("delete", "node", NODE)


def pod(cluster: Cluster, namespace: str, name: str, address: str, owner: str = "", **spec: Any) -> None:
    """A running pod on the node, as its kubelet would report it."""
    owners = [{"apiVersion": "apps/v1", "kind": owner, "name": "o", "uid": "1", "controller": True}] if owner else []
    cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "ownerReferences": owners, **spec.pop("metadata", {})},
            "spec": {"nodeName": NODE, "containers": [{"name": "c", "image": "i"}], **spec},
        }
    )
    status = json.dumps({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}})
    cluster.kubectl("-n", namespace, "patch", "pod", name, "--subresource=status", "--type=merge", "-p", status)


def vacate(cluster: Cluster, folder: Path, **changed: str) -> subprocess.CompletedProcess[str]:
    variables = {"NODE_NAME": NODE, "RANGES": RANGES, "TIMEOUT_SECONDS": "20"} | changed
    env = {
        "CNI_LAB_KUBECONFIG": str(cluster.node_kubeconfig),
        "CNI_LAB_LEASES": str(folder / "leases"),
        "PATH": f"{Path(cluster.kubectl_path).parent}:{os.environ['PATH']}",
    }
    return run_step(folder, "vacate", variables, env=env)


def test_pods_outside_the_ranges_and_those_with_a_lease_stay(node: Cluster, tmp_path: Path) -> None:
    pod(node, "default", "below", "10.244.97.149")
    pod(node, "default", "host", "10.244.97.151", hostNetwork=True)
    pod(node, "default", "leased", "10.244.97.152")
    (tmp_path / "leases" / "net-calico").mkdir(parents=True)
    (tmp_path / "leases" / "net-calico" / "10.244.97.152").write_text("id")
    done = vacate(node, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "delegate" not in done.stderr
    assert len(node.read("pods")["items"]) == 3


def test_pods_of_the_system_and_of_the_lab_are_restarted(node: Cluster, tmp_path: Path) -> None:
    pod(node, "kube-system", "coredns", "10.244.97.150", owner="ReplicaSet")
    pod(node, "default", "ours", "10.244.97.250", owner="ReplicaSet", metadata={"labels": {"cni-lab/workload": "w"}})
    pod(node, "default", "other-range", "10.244.97.101")

    def kubelet() -> None:
        for item in node.read("pods", "-A")["items"]:
            if item["metadata"].get("deletionTimestamp"):
                place = item["metadata"]["namespace"], item["metadata"]["name"]
                node.kubectl("-n", place[0], "delete", "pod", place[1], "--force", "--grace-period=0", check=False)

    with meanwhile(kubelet):
        done = vacate(node, tmp_path)
    assert done.returncode == 0, done.stderr
    assert "pod kube-system/coredns has 10.244.97.150, an address of the delegate net-calico" in done.stderr
    assert [i["metadata"]["name"] for i in node.read("pods", "-A")["items"]] == ["other-range"]


@pytest.mark.parametrize(("namespace", "owner"), [("default", "ReplicaSet"), ("default", ""), ("kube-system", "")])
def test_a_pod_that_must_not_be_restarted_is_named(node: Cluster, tmp_path: Path, namespace: str, owner: str) -> None:
    pod(node, "kube-system", "coredns", "10.244.97.51", owner="ReplicaSet")
    pod(node, namespace, "precious", "10.244.97.60", owner=owner)
    done = vacate(node, tmp_path)
    assert done.returncode == 1
    assert f"have addresses of a delegate's range: {namespace}/precious" in done.stderr
    assert len(node.read("pods", "-A")["items"]) == 2, "nothing is restarted before that is settled"


def test_a_lease_of_another_delegate_does_not_count(node: Cluster, tmp_path: Path) -> None:
    """If a range moves from net-calico to default-calico, host-local does not know the pod under its new network."""
    pod(node, "default", "old", "10.244.97.60")
    (tmp_path / "leases" / "net-calico").mkdir(parents=True)
    (tmp_path / "leases" / "net-calico" / "10.244.97.60").write_text("id")
    done = vacate(node, tmp_path)
    assert done.returncode == 1 and "default/old" in done.stderr


def test_an_api_that_does_not_answer_is_not_an_empty_list(node: Cluster, tmp_path: Path) -> None:
    broken = tmp_path / "kubelet.conf"
    broken.write_text(node.node_kubeconfig.read_text().replace("127.0.0.1:", "127.0.0.1:1"))
    other = Cluster(node.kubectl_path, node.kubeconfig, broken)
    done = vacate(other, tmp_path)
    assert done.returncode != 0
    assert "connection" in done.stderr or "invalid port" in done.stderr
