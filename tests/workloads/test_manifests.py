"""Workloads: the fields that Multus and the scheduler read."""

from __future__ import annotations

import json
from typing import Any

from components.multus.manifests import attachments
from components.spec.models import Lab
from components.workloads import manifests
from tests.calico.labs import SEED, lab


def _workload(**keys: Any) -> Lab:
    return lab(workloads=[{"name": "w", "image": "docker.io/library/busybox:1.37", **keys}])


def test_the_workload_of_the_seed() -> None:
    spec = lab()
    made = manifests.workload_object(spec, spec.workloads[0])
    assert made["spec"]["template"]["metadata"]["annotations"] == {
        "v1.multus-cni.io/default-network": '[{"name": "default-calico"}]',
        "k8s.v1.cni.cncf.io/networks": '[{"name": "cfosdefaultcni5", "default-route": ["10.1.128.1"]}]',
    }
    assert made["spec"]["replicas"] == 3
    [container] = made["spec"]["template"]["spec"]["containers"]
    assert (container["name"], container["image"]) == ("normal", "docker.io/praqma/network-multitool")
    assert container["securityContext"] == {"capabilities": {"add": ["NET_RAW"]}}, "ping needs it under CRI-O"
    assert made["spec"]["selector"]["matchLabels"] == {"app": "normal"}
    assert made["spec"]["template"]["metadata"]["labels"] == {"app": "normal", "cni-lab/workload": "normal"}


def test_a_plain_workload_asks_multus_for_nothing() -> None:
    spec = _workload()
    made = manifests.workload_object(spec, spec.workloads[0])
    assert "annotations" not in made["spec"]["template"]["metadata"]


def test_a_network_of_another_namespace_is_named_with_it() -> None:
    network = {**SEED["networks"][0], "namespace": "shared"}
    spec = lab(
        networks=[network],
        workloads=[
            {
                "name": "w",
                "namespace": "apps",
                "image": "docker.io/library/busybox",
                "networks": [{"name": "cfosdefaultcni5"}],
            }
        ],
    )
    found = manifests.pod_annotations(spec, spec.workloads[0])
    assert json.loads(found["k8s.v1.cni.cncf.io/networks"]) == [{"name": "cfosdefaultcni5", "namespace": "shared"}]
    assert list(manifests.namespaces(spec)) == ["apps"]


def test_a_static_address_belongs_to_one_pod_of_a_node() -> None:
    """As in the cFOS DaemonSet: one firewall for each node, with the same address on each node's own bridge."""
    bridge = {"type": "bridge", "bridge": "cni5", "subnet": "10.1.128.0/24"}
    fixed = {"type": "static", "addresses": ["10.1.128.252/24"]}
    spec = lab(
        networks=[{"name": "open", **bridge}, {"name": "fixed", **bridge, "ipam": fixed}],
        workloads=[
            {"name": "fos", "image": "docker.io/library/busybox", "replicas": 2, "networks": [{"name": "fixed"}]},
            {"name": "app", "image": "docker.io/library/busybox", "replicas": 2, "networks": [{"name": "open"}]},
        ],
    )
    firewall, app = (manifests.workload_object(spec, workload)["spec"] for workload in spec.workloads)
    assert firewall["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    [apart] = firewall["template"]["spec"]["affinity"]["podAntiAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    assert apart["labelSelector"] == {"matchLabels": {"app": "fos"}}
    assert apart["topologyKey"] == "kubernetes.io/hostname"
    assert "strategy" not in app and "affinity" not in app["template"]["spec"]


def test_placement() -> None:
    spec = _workload(onControlPlane=True, nodeSelector={"zone": "a"}, command=["sleep", "inf"])
    pod = manifests.workload_object(spec, spec.workloads[0])["spec"]["template"]["spec"]
    assert pod["tolerations"] == [
        {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}
    ]
    assert pod["nodeSelector"] == {"zone": "a"}
    assert pod["containers"][0]["command"] == ["sleep", "inf"]
    [spread] = pod["topologySpreadConstraints"]
    assert spread["topologyKey"] == "kubernetes.io/hostname"


def test_fixed_addresses_come_from_a_definition_of_their_own() -> None:
    """host-local would refuse 10.1.128.2 outside of its range, and give it to another pod inside of it."""
    network = SEED["networks"][0] | {"ipam": {"type": "host-local", "rangeStart": "10.1.128.10"}}
    attachment = {"name": "cfosdefaultcni5", "ips": ["10.1.128.2"], "mac": "CA:FE:C0:FF:00:02", "interface": "port1"}
    spec = lab(
        networks=[network],
        workloads=[{"name": "fw", "kind": "DaemonSet", "image": "docker.io/library/busybox", "networks": [attachment]}],
    )
    made = manifests.workload_object(spec, spec.workloads[0])
    assert made["kind"] == "DaemonSet" and "replicas" not in made["spec"]
    [element] = json.loads(made["spec"]["template"]["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"])
    assert element == {
        "name": "cfosdefaultcni5-fixed",
        "interface": "port1",
        "ips": ["10.1.128.2/24"],
        "mac": "CA:FE:C0:FF:00:02",
    }
    definitions = attachments(spec)
    own, fixed = (
        json.loads(definitions[f"default/{name}"]["spec"]["config"]) for name in ("cfosdefaultcni5", element["name"])
    )
    assert "capabilities" not in own
    assert fixed["capabilities"] == {"ips": True, "mac": True}
    assert fixed["ipam"] == {"type": "static", "routes": own["ipam"]["routes"]}
    assert {k: v for k, v in fixed.items() if k not in ("name", "ipam", "capabilities")} == {
        k: v for k, v in own.items() if k not in ("name", "ipam")
    }


def test_a_single_pod_with_what_it_asks_for() -> None:
    spec = _workload(
        kind="Pod",
        capabilities=["NET_ADMIN", "NET_RAW"],
        resources={"limits": {"intel.com/sriov": "1"}},
        annotations={"example.com/a": "b"},
    )
    made = manifests.workload_object(spec, spec.workloads[0])
    assert (made["apiVersion"], made["kind"]) == ("v1", "Pod")
    assert made["metadata"]["annotations"] == {"example.com/a": "b"}
    assert made["metadata"]["labels"] == {"app": "w", "cni-lab/workload": "w"}
    [container] = made["spec"]["containers"]
    assert container["securityContext"]["capabilities"]["add"] == ["NET_RAW", "NET_ADMIN"]
    assert container["resources"] == {"limits": {"intel.com/sriov": "1"}}
    assert "topologySpreadConstraints" not in made["spec"]
