"""Calico's objects, exactly, and against the CRDs of the release."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonschema
import pytest
import yaml

from components import slowdown
from components.calico import manifests
from components.spec.models import Lab
from components.spec.versions import calico_manifests
from tests.calico import schemas
from tests.calico.labs import POOL_MODES, VARIETY, calico_lab, lab, pool


def custom_objects(lab: Lab) -> list[dict[str, Any]]:
    """Every custom object that the component may make for a lab."""
    settings = [
        manifests.felix_configuration(lab),
        manifests.bgp_configuration(lab),
        manifests.ipam_configuration(lab),
        manifests.ip_reservation(lab, ["10.244.6.50/31"]),
        *manifests.bgp_peers(lab).values(),
    ]
    if lab.calico.install == "operator":
        own = [manifests.installation(lab), manifests.api_server()]
    else:
        own = list(manifests.ip_pools(lab).values())
    return own + [m for m in settings if m is not None]


def test_the_installation_of_seed_000() -> None:
    assert manifests.installation(lab()) == {
        "apiVersion": "operator.tigera.io/v1",
        "kind": "Installation",
        "metadata": {"name": "default", "annotations": {"pulumi.com/patchForce": "true"}},
        "spec": {
            "calicoNetwork": {
                "bgp": "Disabled",
                "containerIPForwarding": "Enabled",
                "hostPorts": "Enabled",
                "linuxDataplane": "Iptables",
                "nodeAddressAutodetectionV4": {"kubernetes": "NodeInternalIP"},
                "ipPools": [
                    {
                        "name": "default-ipv4-ippool",
                        "cidr": "10.244.0.0/16",
                        "blockSize": 24,
                        "encapsulation": "VXLAN",
                        "natOutgoing": "Enabled",
                        "nodeSelector": "all()",
                        "disableBGPExport": False,
                    }
                ],
            },
            "cni": {"type": "Calico", "ipam": {"type": "Calico"}},
            "controlPlaneReplicas": 1,
        },
    }


def test_several_control_planes_have_as_many_controllers_as_the_operator_wants() -> None:
    nodes = [
        {"name": f"cp{n}", "role": "control-plane", "subnet": "control", "address": f"10.0.1.{n}"} for n in (11, 12, 13)
    ]
    assert "controlPlaneReplicas" not in manifests.installation(lab(nodes=nodes))["spec"]


@pytest.mark.parametrize("name", VARIETY)
def test_every_object_matches_its_definition(name: str) -> None:
    made = custom_objects(VARIETY[name])
    assert made
    for manifest in made:
        schemas.check(manifest)


def test_the_schema_check_refuses_an_unknown_field() -> None:
    wrong = copy.deepcopy(manifests.installation(lab()))
    wrong["spec"]["calicoNetwork"]["ipPools"][0]["natOutgoin"] = "Enabled"
    with pytest.raises(jsonschema.ValidationError, match="natOutgoin"):
        schemas.check(wrong)


@pytest.mark.parametrize(("encapsulation", "ipip", "vxlan"), POOL_MODES)
def test_the_modes_of_a_pool_by_manifest(encapsulation: str, ipip: str, vxlan: str) -> None:
    spec = calico_lab(install="manifest", pools=[pool("p", "10.244.0.0/16", encapsulation=encapsulation)])
    made = manifests.ip_pools(spec)["p"]
    assert made["apiVersion"] == "crd.projectcalico.org/v1"
    assert (made["spec"]["ipipMode"], made["spec"]["vxlanMode"]) == (ipip, vxlan)


@pytest.mark.parametrize(
    ("calico", "by_operator", "by_manifest"),
    [
        ({}, {"kubernetes": "NodeInternalIP"}, "kubernetes-internal-ip"),
        ({"nodeAddressAutodetection": "FirstFound"}, {"firstFound": True}, "first-found"),
        ({"interface": "eth1"}, {"interface": "eth1"}, "interface=eth1"),
        ({"canReach": "8.8.8.8"}, {"canReach": "8.8.8.8"}, "can-reach=8.8.8.8"),
        ({"skipInterface": "docker.*"}, {"skipInterface": "docker.*"}, "skip-interface=docker.*"),
        (
            {"cidrs": ["10.0.1.0/24", "10.0.2.0/24"]},
            {"cidrs": ["10.0.1.0/24", "10.0.2.0/24"]},
            "cidr=10.0.1.0/24,10.0.2.0/24",
        ),
    ],
)
def test_how_calico_finds_a_nodes_address(
    calico: dict[str, Any], by_operator: dict[str, Any], by_manifest: str
) -> None:
    spec = calico_lab(**calico)
    assert manifests.installation(spec)["spec"]["calicoNetwork"]["nodeAddressAutodetectionV4"] == by_operator
    [container] = manifests.node_patch(spec)["spec"]["template"]["spec"]["containers"]
    assert {"name": "IP_AUTODETECTION_METHOD", "value": by_manifest} in container["env"]


@pytest.mark.parametrize("ipam", ["Calico", "HostLocal"])
def test_bird_uses_pod_cidrs_if_there_are_no_blocks(ipam: str) -> None:
    spec = calico_lab(
        install="manifest", bgp="Enabled", ipam=ipam, pools=[pool("p", "10.244.0.0/16", encapsulation="None")]
    )
    [container] = manifests.node_patch(spec)["spec"]["template"]["spec"]["containers"]
    assert ({"name": "USE_POD_CIDR", "value": "true"} in container["env"]) == (ipam == "HostLocal")


def test_a_lab_with_defaults_changes_no_settings() -> None:
    spec = lab()
    assert manifests.felix_configuration(spec) is None
    assert manifests.bgp_configuration(spec) is None
    assert manifests.ipam_configuration(spec) is None
    assert manifests.bgp_peers(spec) == {}


def test_route_reflectors_switch_the_mesh_off() -> None:
    spec = VARIETY["reflectors"]
    bgp = manifests.bgp_configuration(spec)
    assert bgp is not None
    assert bgp["spec"] == {"asNumber": 64512, "nodeToNodeMeshEnabled": False}
    peers = manifests.bgp_peers(spec)
    assert peers["cni-lab-route-reflectors"]["spec"] == {
        "nodeSelector": "all()",
        "peerSelector": "has(cni-lab/route-reflector)",
    }
    nodes = manifests.route_reflectors(spec)
    assert sorted(nodes) == ["ip-10-0-2-200", "ip-10-0-2-201"]
    assert nodes["ip-10-0-2-200"]["metadata"]["labels"] == {"cni-lab/route-reflector": "true"}


def test_a_peer_for_each_rack_without_a_mesh() -> None:
    """Calico, "Configure BGP peering": per-rack top-of-rack routers, and "Secure BGP sessions"."""
    spec = VARIETY["rack"]
    bgp = manifests.bgp_configuration(spec)
    assert bgp is not None and bgp["spec"] == {"asNumber": 64512, "nodeToNodeMeshEnabled": False}
    assert manifests.bgp_peers(spec)["tor"]["spec"] == {
        "peerIP": "10.0.1.1",
        "asNumber": 64999,
        "nodeSelector": "all()",
        "password": {"secretKeyRef": {"name": "cni-lab-bgp-tor", "key": "password"}},
    }
    secret, role, binding = manifests.bgp_secrets(spec, {"tor": "very secret"}).values()
    assert secret["metadata"] == {"name": "cni-lab-bgp-tor", "namespace": "calico-system"}
    assert secret["stringData"] == {"password": "very secret"}
    assert role["rules"] == [
        {
            "apiGroups": [""],
            "resources": ["secrets"],
            "resourceNames": ["cni-lab-bgp-tor"],
            "verbs": ["get", "list", "watch"],
        }
    ]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "calico-node", "namespace": "calico-system"}]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]


def test_by_manifest_calico_node_reads_passwords_in_its_own_namespace() -> None:
    calico = VARIETY["rack"].calico.model_copy(update={"install": "manifest"})
    spec = VARIETY["rack"].model_copy(update={"calico": calico})
    found = manifests.bgp_secrets(spec, {"tor": "x"}).values()
    assert {manifest["metadata"]["namespace"] for manifest in found} == {"kube-system"}
    [daemon_set] = [
        o
        for o in schemas.objects("calico-v3.32.1", "calico.yaml")
        if (o["kind"], o["metadata"]["name"]) == ("DaemonSet", "calico-node")
    ]
    assert daemon_set["metadata"]["namespace"] == "kube-system"
    assert daemon_set["spec"]["template"]["spec"]["serviceAccountName"] == "calico-node"


def test_a_node_with_an_as_number_of_its_own() -> None:
    rows = [{"name": "a", "role": "control-plane"}, {"name": "b", "asNumber": 65101}]
    nodes = [row | {"subnet": "control", "address": f"10.0.1.{at}"} for at, row in enumerate(rows, 10)]
    spec = lab(nodes=nodes, calico={"bgp": "Enabled"})
    assert manifests.node_as_numbers(spec) == {
        "b": {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": "b", "annotations": {"projectcalico.org/ASNumber": "65101"}},
        }
    }


def test_settings_are_stored_objects_without_calicos_api_server() -> None:
    spec = VARIETY["manifest-vxlan"]
    kinds = {m["kind"]: m["apiVersion"] for m in custom_objects(spec)}
    assert kinds == {
        "IPPool": "crd.projectcalico.org/v1",
        "FelixConfiguration": "crd.projectcalico.org/v1",
        "IPAMConfig": "crd.projectcalico.org/v1",
        "IPReservation": "crd.projectcalico.org/v1",
    }


def test_the_patches_match_the_upstream_manifest() -> None:
    for name in ("manifest-bird", "manifest-vxlan"):
        spec = VARIETY[name]
        upstream = schemas.objects("calico-v3.32.1", *calico_manifests("manifest", spec.calico.bgp))
        by_name = {(o["kind"], o["metadata"]["name"], o["metadata"].get("namespace")): o for o in upstream}
        for patch in (manifests.node_patch(spec), manifests.config_patch(spec)):
            metadata = patch["metadata"]
            assert (patch["kind"], metadata["name"], metadata["namespace"]) in by_name
        config = by_name["ConfigMap", "calico-config", "kube-system"]["data"]
        assert set(manifests.config_patch(spec)["data"]) <= set(config)


def test_the_cni_configuration_by_manifest_is_upstreams_with_forwarding() -> None:
    spec = VARIETY["manifest-bird"]
    [config] = [o for o in schemas.objects("calico-v3.32.1", "calico.yaml") if o["kind"] == "ConfigMap"]
    theirs = json.loads(config["data"]["cni_network_config"].replace("__CNI_MTU__", "0"))
    ours = json.loads(manifests.config_patch(spec)["data"]["cni_network_config"].replace("__CNI_MTU__", "0"))
    assert ours["plugins"][0].pop("container_settings") == {"allow_ip_forwarding": True}
    assert ours == theirs


def test_the_files_are_valid_yaml() -> None:
    spec = VARIETY["manifest-vxlan"]
    for document in (manifests.kustomization(spec), manifests.node_patch(spec), manifests.config_patch(spec)):
        assert yaml.safe_load(yaml.safe_dump(document, sort_keys=False)) == document


def node_probes(lab: Lab) -> dict[str, Any]:
    """What the patch of calico-node says of its probes."""
    (container,) = manifests.node_patch(lab)["spec"]["template"]["spec"]["containers"]
    return {key: value for key, value in container.items() if key.endswith("Probe")}


@pytest.mark.parametrize(("factor", "seconds"), [("3", 30), ("5", 50)])
def test_only_a_slow_computer_changes_the_probes_by_manifest(
    factor: str, seconds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Upstream's manifest asks every 10 s, with a limit of 10 s, and restarts the agent after 6 failures."""
    spec = calico_lab(install="manifest")
    assert node_probes(spec) == {}
    monkeypatch.setenv(slowdown.VARIABLE, factor)
    probe = {"periodSeconds": seconds, "timeoutSeconds": seconds}
    assert node_probes(spec) == {"livenessProbe": probe, "readinessProbe": probe}


@pytest.mark.parametrize(
    ("calico", "mtu", "ipam", "forwarding"),
    [
        ({"containerIPForwarding": "Enabled"}, "0", {"type": "calico-ipam"}, True),
        ({"containerIPForwarding": "Disabled"}, "0", {"type": "calico-ipam"}, False),
        ({"mtu": 1400}, "1400", {"type": "calico-ipam"}, True),
        ({"ipam": "HostLocal"}, "0", {"type": "host-local", "subnet": "usePodCidr"}, True),
    ],
)
def test_the_configuration_by_manifest_follows_the_lab(
    calico: dict[str, Any], mtu: str, ipam: dict[str, str], forwarding: bool
) -> None:
    data = manifests.config_patch(calico_lab(install="manifest", **calico))["data"]
    assert data["veth_mtu"] == mtu, "0: Calico finds it on each node"
    # The installer puts the number in place of the word.
    network = json.loads(data["cni_network_config"].replace("__CNI_MTU__", "1400"))
    plugin, portmap = network["plugins"]
    assert (plugin["mtu"], plugin["ipam"]) == (1400, ipam)
    assert plugin["container_settings"] == {"allow_ip_forwarding": forwarding}
    assert portmap == {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}}


@pytest.mark.parametrize(
    ("calico", "spec"),
    [
        ({}, None),
        ({"wireguard": True}, {"wireguardEnabled": True}),
        # The operator sets Felix's mode itself, by linuxDataplane.
        ({"linuxDataplane": "Nftables"}, None),
        ({"install": "manifest"}, None),
        ({"install": "manifest", "linuxDataplane": "Nftables"}, {"nftablesMode": "Enabled"}),
    ],
)
def test_the_settings_of_felix(calico: dict[str, Any], spec: dict[str, Any] | None) -> None:
    made = manifests.felix_configuration(calico_lab(**calico))
    assert (made and made["spec"]) == spec


@pytest.mark.parametrize(
    ("calico", "spec"),
    [
        ({"bgp": "Enabled"}, None),
        ({"bgp": "Enabled", "asNumber": 64512}, None),
        ({"bgp": "Enabled", "asNumber": 64496}, {"asNumber": 64496, "nodeToNodeMeshEnabled": True}),
        ({"bgp": "Enabled", "asNumber": 64513}, {"asNumber": 64513, "nodeToNodeMeshEnabled": True}),
        ({"bgp": "Enabled", "nodeToNodeMesh": False}, {"asNumber": 64512, "nodeToNodeMeshEnabled": False}),
        ({"bgp": "Disabled", "asNumber": 64513}, None),
    ],
)
def test_bgp_has_settings_only_if_they_differ_from_calicos_own(
    calico: dict[str, Any], spec: dict[str, Any] | None
) -> None:
    made = manifests.bgp_configuration(calico_lab(**calico))
    assert (made and made["spec"]) == spec


def test_strict_affinity_keeps_the_automatic_blocks() -> None:
    assert manifests.ipam_configuration(calico_lab()) is None
    made = manifests.ipam_configuration(calico_lab(strictAffinity=True))
    assert made and made["spec"] == {"strictAffinity": True, "autoAllocateBlocks": True}
