"""Multus' objects, against the manifest of the release."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from components.multus import delegates, manifests
from components.spec.models import Multus
from tests.calico import schemas
from tests.calico.labs import lab


def _multus() -> Multus:
    spec = lab()
    assert spec.multus is not None
    return spec.multus


def _upstream(kind: str) -> dict[str, Any]:
    [found] = [o for o in schemas.objects("multus-v4.3.0", "multus-daemonset.yml") if o["kind"] == kind]
    return copy.deepcopy(found)


def test_the_daemonset_is_the_releases_except_for_corrections() -> None:
    """A pinned image instead of a moving tag, our configuration instead of `auto`, and a priority."""
    theirs, ours = _upstream("DaemonSet"), manifests.daemon_set(_multus())
    pod = theirs["spec"]["template"]["spec"]
    for container in (*pod["containers"], *pod["initContainers"]):
        container["image"] = "ghcr.io/k8snetworkplumbingwg/multus-cni:v4.3.0"
    pod["containers"][0]["args"] = [
        "--multus-conf-file=/tmp/multus-conf/70-multus.conf",
        "--cni-conf-dir=/host/etc/cni/net.d",
    ]
    pod["priorityClassName"] = "system-node-critical"
    assert ours == theirs


def without_descriptions(value: Any) -> Any:
    """A copy of an object without its descriptions, which the objects here leave out."""
    if isinstance(value, dict):
        return {k: without_descriptions(v) for k, v in value.items() if k != "description"}
    return [without_descriptions(v) for v in value] if isinstance(value, list) else value


def test_the_definition_is_the_releases() -> None:
    theirs, ours = _upstream("CustomResourceDefinition"), manifests.definition()
    assert ours["metadata"].pop("annotations") == {"pulumi.com/waitFor": "condition=Established"}

    assert ours == without_descriptions(theirs)


def test_the_permissions_are_a_part_of_the_releases() -> None:
    wide = {(g, r): set(rule["verbs"]) for rule in _upstream("ClusterRole")["rules"] for g in rule["apiGroups"]
            for r in rule["resources"]}  # fmt: skip
    for rule in manifests.cluster_role()["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                allowed = wide.get((group, resource), wide.get((group, "*"), set()))
                # Newer clients write a status with patch.
                assert "*" in allowed or set(rule["verbs"]) <= allowed | {"patch"}, (group, resource)
                assert "*" not in rule["verbs"]


def test_the_pod_and_the_plugin_have_the_permissions() -> None:
    subjects = manifests.cluster_role_binding()["subjects"]
    assert [(s["kind"], s["name"]) for s in subjects] == [("ServiceAccount", "multus"), ("User", "cni-lab:multus")]


def test_the_standby_file_has_a_name_of_its_own() -> None:
    data = manifests.config_map(_multus())["data"]
    assert json.loads(data["cni-conf.json"])["name"] == "multus-standby"


@pytest.mark.parametrize("name", ["kube-system/net-calico", "default/cfosdefaultcni5"])
def test_attachments_match_their_definition(name: str) -> None:
    schemas.check(manifests.attachments(lab())[name])


def test_namespaces_of_kubernetes_are_not_made() -> None:
    assert manifests.namespaces(lab()) == {}
    network = {"name": "n", "namespace": "lab", "type": "bridge", "bridge": "b", "subnet": "10.9.0.0/24"}
    assert list(manifests.namespaces(lab(networks=[network]))) == ["lab"]


def test_calicos_own_network_is_complete_in_its_definition() -> None:
    """Multus reads it from the API on every node, so it has no path of a file. Not one node's name is in it either."""
    spec = lab(multus={"clusterNetwork": "k8s-pod-network"}, networks=[], workloads=[])
    [(key, found)] = manifests.attachments(spec).items()
    assert key == "kube-system/k8s-pod-network"
    assert json.loads(found["spec"]["config"]) == delegates.calico_config(spec)
    assert key not in manifests.attachments(lab())
