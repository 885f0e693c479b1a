"""Changes of a live lab, as the difference of two plans: only what depends on the change differs."""

from __future__ import annotations

import copy
import json
from itertools import permutations
from typing import Any

import pytest

from components.calico.manifests import config_patch, installation
from components.multus import delegates
from components.spec.load import parse_lab
from engine.model import SECRET
from tests.support.graphs import COMMAND, PASSWORD, STEP, Graph, run_lab
from tests.test_lab import differences, source

MODULE = {"VXLAN": "vxlan", "IPIP": "ipip"}
RULE = {"VXLAN": "lab-network-vxlan", "IPIP": "lab-network-ipip"}
NODES = ("control1", "worker1", "worker2")
HOSTS = {"lab-cluster-control1-init", "lab-cluster-worker1-prepare", "lab-cluster-worker2-prepare"}


def cross_node(*words: str, **calico: Any) -> Graph:
    """The plan of cross-node with other encapsulations of its two pools."""
    lab = source("cross-node")
    lab["calico"] |= calico
    for pool, word in zip(lab["calico"]["pools"], words, strict=False):
        pool["encapsulation"] = word
    return run_lab(lab)


@pytest.mark.parametrize(("before", "after"), list(permutations(["None", "VXLAN", "IPIP"], 2)))
def test_every_change_of_one_pool_of_two(before: str, after: str) -> None:
    """The second pool stays None, so its packets have no tunnel and its ingress rule stays."""
    old, new = cross_node(before), cross_node(after)
    added, removed, changed = differences(old, new)
    pods = "lab-network-pods-default-ipv4-ippool"
    assert added == ({RULE[after]} if after in RULE else {pods})
    assert removed == ({RULE[before]} if before in RULE else {pods})
    assert changed == {"lab-calico-installation"} | HOSTS, "the pool's word, and the kernel's modules"
    installation = new.one("kubernetes:operator.tigera.io/v1:Installation").inputs["spec"]["calicoNetwork"]
    assert [pool["encapsulation"] for pool in installation["ipPools"]] == [after, "None"]
    assert "mtu" not in installation, "Calico finds it, and finds it again after the switch"
    for node in NODES:
        phase = "init" if node == "control1" else "prepare"
        (step,) = (s for s in new.of_type(STEP) if (s.inputs["node"], s.inputs["phase"]) == (node, phase))
        wanted = {MODULE[after]} if after in MODULE else set()
        assert set(step.inputs["variables"]["MODULES"].split()) - {"overlay", "br_netfilter"} == wanted


@pytest.mark.parametrize(("before", "after"), [("Always", "Never"), ("Never", "Always")])
def test_by_manifest_the_pool_itself_changes(before: str, after: str) -> None:
    """packet-life: to IPIP and back, without an operator."""
    words = {"Always": "IPIP", "Never": "None"}

    def plan(mode: str) -> Graph:
        lab = source("packet-life")
        lab["network"] = {"subnets": {"nodes": "10.0.1.0/24"}}
        lab["nodes"] = [
            {"name": "control1", "role": "control-plane", "subnet": "nodes", "address": "10.0.1.20"},
            {"name": "worker1", "subnet": "nodes", "address": "10.0.1.30"},
        ]
        lab["calico"]["pools"][0]["encapsulation"] = words[mode]
        return run_lab(lab)

    new = plan(after)
    _, _, changed = differences(plan(before), new)
    (pool,) = new.objects("IPPool")
    assert (pool.inputs["spec"]["ipipMode"], pool.inputs["spec"]["vxlanMode"]) == (after, "Never")
    assert changed == {pool.name, "lab-cluster-control1-init", "lab-cluster-worker1-prepare"}


def test_a_change_of_mode_keeps_delegates_networks_and_pods() -> None:
    lab = source("cfos-egress")
    before = run_lab(lab)
    lab["calico"]["pools"][0]["encapsulation"] = "VXLANCrossSubnet"
    added, removed, changed = differences(before, run_lab(lab))
    assert removed == set()
    assert added == {"lab-network-pods-default-ipv4-ippool"}, "packets inside a subnet go out as they are"
    assert changed == {"lab-calico-installation"}


def test_the_mtu_of_the_stack_file_reaches_calico_and_every_delegate() -> None:
    lab = source("cfos-egress")
    before = run_lab(lab)
    lab["calico"]["mtu"] = 1400
    after = run_lab(lab)
    _, _, changed = differences(before, after)
    files = {f"lab-node-files-{node}" for node in ("ip1001100", "ip-10-0-2-200", "ip-10-0-2-201")}
    assert changed == {"lab-calico-installation"} | files


@pytest.mark.parametrize("stack", ["cfos-egress", "local"])
def test_the_mtu_of_the_network_reaches_pods_tunnels_delegates_and_bridges(stack: str) -> None:
    """On EC2 and elsewhere: the network may carry less than the MTU of a node's interface."""
    lab = source(stack)
    lab["network"] = lab.get("network", {}) | {"mtu": 1400}
    spec = parse_lab(lab)
    assert installation(spec)["spec"]["calicoNetwork"]["mtu"] == 1350, "less VXLAN's 50"
    assert spec.multus is not None
    delegate = delegates.delegate_config(spec, spec.multus.delegates[0], subnet="s", start="a", end="b")
    assert delegate["mtu"] == 1350
    [bridge] = spec.networks
    assert delegates.network_config(spec, bridge)["mtu"] == 1400, "what leaves by it is not wrapped"
    by_manifest = spec.model_copy(update={"calico": spec.calico.model_copy(update={"install": "manifest"})})
    assert config_patch(by_manifest)["data"]["veth_mtu"] == "1350"
    lab["calico"]["mtu"] = 1300
    lab["networks"][0]["mtu"] = 1280
    spec = parse_lab(lab)
    assert installation(spec)["spec"]["calicoNetwork"]["mtu"] == 1300, "what is said of pods goes first"
    assert delegates.network_config(spec, spec.networks[0])["mtu"] == 1280


def test_wireguard_changes_felix_an_ingress_rule_and_a_module() -> None:
    added, removed, changed = differences(cross_node("None"), cross_node("None", wireguard=True))
    assert added == {"lab-calico-felix", "lab-network-wireguard"}
    assert removed == set() and changed == HOSTS
    assert differences(cross_node("None", wireguard=True), cross_node("None"))[:2] == (removed, added)


def test_route_reflectors_come_and_go_without_a_gap() -> None:
    """The mesh is switched off when the peers exist, and not before."""
    reflected = cross_node("None", routeReflectors=["control1", "worker1"])
    added, removed, changed = differences(cross_node("None"), reflected)
    assert added == {
        "lab-calico-reflector-control1",
        "lab-calico-reflector-worker1",
        "lab-calico-peer-cni-lab-route-reflectors",
        "lab-calico-bgp",
    }
    assert removed == set() and changed == set()
    (bgp,) = reflected.objects("BGPConfiguration")
    (peer,) = reflected.objects("BGPPeer")
    assert bgp.inputs["spec"]["nodeToNodeMeshEnabled"] is False
    assert reflected.waits(bgp, peer)
    for name in ("control1", "worker1"):
        (node,) = (o for o in reflected.objects("Node") if o.inputs["metadata"]["name"] == name)
        assert reflected.waits(peer, node)


def test_a_peers_password_is_secret_and_there_before_the_peer() -> None:
    lab = source("cross-node")
    lab["nodes"][0]["asNumber"] = 65010
    peer = {"name": "tor", "peerIP": "10.0.1.1", "asNumber": 65001, "password": {"config": "torPassword"}}
    lab["calico"] |= {"nodeToNodeMesh": False, "peers": [peer]}
    graph = run_lab(lab, dry_run=False)
    (secret,) = graph.objects("Secret")
    assert secret.inputs["stringData"] == {"password": SECRET}
    assert graph.plain[secret.urn]["stringData"] == {"password": PASSWORD}
    assert PASSWORD not in json.dumps(graph.deployment.to_json())
    (bgp,) = graph.objects("BGPConfiguration")
    (made,) = graph.objects("BGPPeer")
    (number,) = graph.objects("Node")
    assert graph.waits(bgp, made), "the mesh goes when the peers are there"
    for earlier in (secret, number, *graph.objects("Role"), *graph.objects("RoleBinding")):
        assert graph.waits(made, earlier)


def test_with_another_pool_the_blocks_are_read_again() -> None:
    lab = source("cross-node")
    whole = run_lab(lab)
    lab["calico"]["pools"] = lab["calico"]["pools"][:1]
    added, removed, changed = differences(run_lab(lab), whole)
    assert added == {"lab-network-pods-pool2-ipv4-ippool"} and removed == set()
    assert changed == {"lab-calico-installation", "lab-calico-blocks"}


def many(nodes: int, networks: int, delegates: int) -> dict[str, Any]:
    lab = copy.deepcopy(source("cfos-egress"))
    lab["nodes"] = [
        {
            "name": f"n{i}",
            "role": "worker" if i else "control-plane",
            "subnet": "workers" if i else "control",
            "address": f"10.0.2.{i + 100}" if i else "10.0.1.100",
        }
        for i in range(nodes)
    ]
    lab["networks"] = [
        {"name": f"net{i}", "type": "bridge", "bridge": f"br{i}", "subnet": f"10.40.{i}.0/24"} for i in range(networks)
    ]
    ranges = [{"name": f"d{i}", "rangeStart": 10 + 10 * i, "rangeEnd": 19 + 10 * i} for i in range(delegates)]
    lab["multus"] = {"clusterNetwork": "d0", "delegates": ranges}
    lab["workloads"] = []
    return lab


@pytest.mark.parametrize(("networks", "delegates"), [(1, 1), (20, 20)])
def test_node_files_need_one_connection_for_each_node(networks: int, delegates: int) -> None:
    graph = run_lab(many(6, networks, delegates))
    steps = [s for s in graph.of_type(STEP) if s.inputs["phase"] == "files"]
    assert sorted(s.inputs["node"] for s in steps) == [f"n{i}" for i in range(6)]
    for step in steps:
        assert len([r for r in graph.of_type(COMMAND) if r.parent == step.urn]) == 1
        paths = [f["path"] for f in step.inputs["files"]]
        assert len([p for p in paths if p.startswith("/etc/cni/multus/net.d/")]) == delegates
        assert paths[-1] == "/etc/cni/net.d/00-multus.conf"
    assert len(graph.objects("NetworkAttachmentDefinition")) == networks + delegates
