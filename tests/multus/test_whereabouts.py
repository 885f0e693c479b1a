"""The objects of whereabouts, against the manifests of its release."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from components.multus import whereabouts
from components.spec.models import Lab
from tests.calico import schemas
from tests.calico.labs import lab
from tests.multus.test_manifests import without_descriptions
from tests.support.graphs import run_lab

FOLDER = f"whereabouts-v{whereabouts.IMAGE.rpartition(':v')[2]}"


def with_whereabouts(**network: Any) -> dict[str, Any]:
    """A lab in the form of the stack file, with one network."""
    first = {"name": "w", "type": "bridge", "bridge": "br9", "subnet": "10.9.0.0/24", "ipam": {"type": "whereabouts"}}
    return {
        "machines": {"provider": "local"},
        "multus": {"clusterNetwork": "k8s-pod-network"},
        "networks": [first | network],
    }


def upstream(name: str) -> list[dict[str, Any]]:
    """Every document of a file of the release. Skips the test if there is none."""
    if not (schemas.upstream("SHA256SUMS").with_name(FOLDER) / name).exists():
        pytest.skip(f"CNILAB_UPSTREAM has no {FOLDER}/{name}: copy doc/crds of the release there")
    return schemas.objects(FOLDER, name)


def one(kind: str) -> dict[str, Any]:
    [found] = [o for o in upstream("daemonset-install.yaml") if o["kind"] == kind]
    return copy.deepcopy(found)


def test_it_is_installed_where_a_network_asks_for_it() -> None:
    assert whereabouts.objects(lab()) == {}
    asking = Lab.model_validate(with_whereabouts())
    kinds = [manifest["kind"] for manifest in whereabouts.objects(asking).values()]
    assert kinds == ["CustomResourceDefinition"] * 2 + [
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "DaemonSet",
    ]
    custom = {"type": "custom", "config": {"cniVersion": "0.3.1", "type": "ptp", "ipam": {"type": "whereabouts"}}}
    network = {"name": "w", **custom}
    own = Lab.model_validate(with_whereabouts() | {"networks": [network]})
    assert whereabouts.objects(own), "a configuration that people write themselves may name it too"


def test_nodes_take_multus_into_use_when_whereabouts_is_installed() -> None:
    graph = run_lab(with_whereabouts())
    (daemon_set,) = (o for o in graph.objects("DaemonSet") if o.inputs["metadata"]["name"] == "whereabouts")
    for node in ("ip1001100", "ip-10-0-2-200"):
        assert graph.waits(graph.step(node, "files"), daemon_set)
    for kind in ("CustomResourceDefinition", "ClusterRoleBinding"):
        for earlier in graph.objects(kind):
            if "whereabouts" in earlier.inputs["metadata"]["name"]:
                assert graph.waits(daemon_set, earlier)
    variables = next(
        step.inputs["variables"] for step in graph.of_type("cnilab:node:Step") if step.inputs["phase"] == "files"
    )
    assert "whereabouts" in variables["PLUGINS"].split(), "the step waits until the plugin is on the node"


@pytest.mark.parametrize("name", ["ippools", "overlappingrangeipreservations"])
def test_the_definitions_are_the_releases(name: str) -> None:
    [theirs] = upstream(f"whereabouts.cni.cncf.io_{name}.yaml")
    [ours] = [o for o in whereabouts.objects(Lab.model_validate(with_whereabouts())).values()
              if o["metadata"]["name"] == theirs["metadata"]["name"]]  # fmt: skip
    assert without_descriptions(theirs)["spec"] == ours["spec"]


def test_the_daemonset_is_the_releases_except_for_corrections() -> None:
    theirs, ours = one("DaemonSet"), whereabouts.daemon_set()
    pod = theirs["spec"]["template"]["spec"]
    [container] = pod["containers"]
    container["image"] = whereabouts.IMAGE
    container["terminationMessagePolicy"] = "FallbackToLogsOnError"
    # The loop gets the signals of the runtime, and does not log every step.
    loop = "/ip-control-loop -log-level"
    assert container["args"][1].endswith(f"\n{loop} debug\n")
    container["args"][1] = container["args"][1].replace(f"{loop} debug", f"exec {loop} verbose")
    for entry in container["env"]:
        entry["valueFrom"]["fieldRef"]["apiVersion"] = "v1"
    pod["priorityClassName"] = "system-node-critical"
    pod["tolerations"].append({"operator": "Exists", "effect": "NoExecute"})
    assert ours == theirs


def test_the_permissions_are_a_part_of_the_releases() -> None:
    wide = {(g, r): set(rule["verbs"]) for rule in one("ClusterRole")["rules"] for g in rule["apiGroups"]
            for r in rule["resources"]}  # fmt: skip
    for rule in whereabouts.cluster_role()["rules"]:
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                assert "*" in wide[group, resource] or set(rule["verbs"]) <= wide[group, resource], (group, resource)
                assert "*" not in rule["verbs"]
    assert whereabouts.cluster_role_binding()["subjects"] == one("ClusterRoleBinding")["subjects"]
