"""The cluster and its nodes: pools, blocks, the reservation, workloads, Services, and what each node needs besides its
data path."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from components.spec.models import Lab
from components.verify.expect.node import interface_up
from components.verify.expect.services import no_endpoint
from components.verify.expect.shared import IN_A_SANDBOX, renew
from components.verify.model import Topic
from tests.calico.labs import POOL_MODES
from tests.verify.expect import labs
from tests.verify.expect.labs import BLOCKS, BOTH_BLOCKS, FIRST, SECOND, Expected, again, expected, of, shipped

# --- what the API has -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("encapsulation", "ipip", "vxlan"), POOL_MODES)
def test_a_pool_in_the_words_of_calico(encapsulation: str, ipip: str, vxlan: str) -> None:
    found = of(FIRST | {"encapsulation": encapsulation}, bgp="Enabled")
    wanted = {"cidr": "10.244.0.0/20", "blockSize": "26", "ipipMode": ipip, "vxlanMode": vxlan}
    assert found.table(Topic.POOL) == {"first": wanted}


def test_every_block_belongs_to_its_node() -> None:
    found = of(FIRST, SECOND, blocks=BOTH_BLOCKS)
    assert found.table(Topic.AFFINITY) == {
        cidr: {"node": node, "state": "confirmed"} for node, cidrs in BOTH_BLOCKS.items() for cidr in cidrs
    }
    assert "blockaffinities" in found.one(Topic.AFFINITY, "10.244.0.0/26").command
    # With HostLocal there are no BlockAffinities.
    found = of(FIRST | {"encapsulation": "None"}, bgp="Enabled", ipam="HostLocal")
    assert ".spec.podCIDR" in found.one(Topic.AFFINITY, "10.244.0.0/26").command


def test_the_reservation_is_exactly_the_delegates_ranges() -> None:
    found = shipped("cfos-egress")
    reserved = [address for cidr in found.table(Topic.RESERVATION) for address in IPv4Network(cidr)]
    # .50 to .100 and .150 to .250 of each node's block.
    wanted = {
        IPv4Address(f"10.244.{block}.{last}") for block in (6, 93, 97) for last in (*range(50, 101), *range(150, 251))
    }
    assert set(reserved) == wanted and len(reserved) == len(wanted)


def test_without_multus_nothing_is_reserved_and_no_block_is_missed() -> None:
    found = of(blocks=BLOCKS)
    assert not found.of(Topic.RESERVATION)
    found = again(found, blocks={})
    assert not found.of(Topic.AFFINITY), "no delegate needs one"


def test_a_node_whose_block_was_not_read_is_a_finding() -> None:
    """Otherwise the delegates' files of that node would not be expected, and all would pass."""
    before = shipped("cfos-egress")
    assert not [key for key in before.table(Topic.AFFINITY) if " of " in key]
    found = again(before, blocks={**before.observed.blocks, "ip-10-0-2-200": ["10.9.0.0/24"]})
    assert [key for key in found.table(Topic.AFFINITY) if " of " in key] == ["default-ipv4-ippool of ip-10-0-2-200"]


def test_peers_are_checked_where_bgp_is_on() -> None:
    tor = {"name": "tor", "peerIP": "10.0.2.1", "asNumber": 64999}
    none = FIRST | {"encapsulation": "None"}
    wanted = {"tor": {"peerIP": "10.0.2.1", "asNumber": "64999"}}
    assert of(none, bgp="Enabled", peers=[tor]).table(Topic.PEER) == wanted
    assert not of(FIRST, bgp="Disabled", peers=[tor]).of(Topic.PEER), "the lab makes no BGPPeer then"


# --- workloads --------------------------------------------------------------------------------------------------------


def ready(number: int) -> dict[str, str]:
    return {"complete": "yes", "ready": str(number)}


COMPLETE = {"complete": "yes"}
"""As many as the object itself says. Its number is not the lab's, but for example the operator's."""


def of_kubernetes(nodes: int, *control_planes: str) -> dict[str, dict[str, str]]:
    static = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
    pods = {f"Pod kube-system/{name}-{node}": ready(1) for node in control_planes for name in static}
    return pods | {"DaemonSet kube-system/kube-proxy": ready(nodes), "Deployment kube-system/coredns": COMPLETE}


def of_operator(nodes: int) -> dict[str, dict[str, str]]:
    return {
        "Deployment tigera-operator/tigera-operator": ready(1),
        "DaemonSet calico-system/calico-node": ready(nodes),
        "Deployment calico-system/calico-typha": COMPLETE,
        "Deployment calico-system/calico-kube-controllers": ready(1),
        "DaemonSet calico-system/csi-node-driver": COMPLETE,
        "Deployment calico-system/calico-apiserver": COMPLETE,
    }


def test_the_workloads_of_cfos_egress() -> None:
    own = {
        "DaemonSet kube-system/kube-multus-ds": ready(3),
        "Deployment default/normal": ready(3),
        "Deployment default/normal-default-calico": ready(2),
        "Deployment default/normal-egress": ready(2),
        # The control plane keeps its taint, so the DaemonSet has one pod on each of the two workers.
        "DaemonSet default/firewall": ready(2),
    }
    assert shipped("cfos-egress").table(Topic.WORKLOAD) == of_kubernetes(3, "ip1001100") | of_operator(3) | own


def test_the_workloads_of_packet_life_where_the_manifest_installs_calico() -> None:
    """It has neither an operator nor Typha, and Calico's own API server neither."""
    assert shipped("packet-life").table(Topic.WORKLOAD) == of_kubernetes(2, "controlplane") | {
        "DaemonSet kube-system/calico-node": ready(2),
        "Deployment kube-system/calico-kube-controllers": ready(1),
        "Deployment default/busybox-deployment": ready(2),
    }


def test_the_workloads_of_components_with_three_control_planes() -> None:
    of_five = of_kubernetes(5, "master1", "master2", "master3") | of_operator(5)
    assert shipped("components").table(Topic.WORKLOAD) == of_five | {"Deployment default/multitool": ready(5)}


def test_calicos_api_server_is_looked_for_where_it_runs() -> None:
    """Its namespace is not the same in every version of Calico."""
    before = of()
    there = [
        replace(pod, namespace="calico-apiserver", controller="Deployment calico-apiserver/calico-apiserver")
        if pod.name.startswith("calico-apiserver")
        else pod
        for pod in before.observed.pods
    ]
    assert "Deployment calico-apiserver/calico-apiserver" in again(before, pods=there).table(Topic.WORKLOAD)
    assert "Deployment calico-system/calico-apiserver" in again(before, pods=[]).table(Topic.WORKLOAD)


def test_how_many_pods_in_words() -> None:
    workloads = [
        {"name": "two", "image": labs.IMAGE, "replicas": 2},
        {"name": "one", "image": labs.IMAGE, "replicas": 1},
        {"name": "none", "image": labs.IMAGE, "replicas": 0},
        {"name": "pod", "kind": "Pod", "image": labs.IMAGE},
    ]
    found = of(workloads=workloads)

    def sentence(key: str) -> str:
        return found.one(Topic.WORKLOAD, key).sentence.removeprefix(key)

    assert sentence("Deployment default/two") == " has 2 pods Ready"
    assert sentence("Deployment default/one") == " has 1 pod Ready"
    assert sentence("Deployment default/none") == " has 0 pods Ready"
    assert sentence("Pod default/pod") == " is Ready"
    assert sentence("Deployment kube-system/coredns") == " has all its pods Ready"


# --- Services ---------------------------------------------------------------------------------------------------------


def served(**more: Any) -> dict[str, Any]:
    service = {"port": 80, "targetPort": 8080}
    return {"name": "web", "image": labs.IMAGE, "replicas": 2, "service": service, **more}


def test_a_node_translates_every_services_address_to_the_ready_endpoints() -> None:
    found = of(workloads=[served()])
    first, second = (found.pod("web", node).address for node in ("worker1", "worker2"))
    dns = " ".join(sorted(pod.address for pod in found.observed.pods if pod.name.startswith("coredns")))
    assert dns.count(" ") == 1
    by_port = {port: " ".join(f"{address}:{port}" for address in dns.split()) for port in (53, 9153)}
    wanted = {
        "default/kubernetes:443/tcp": "10.0.1.20:6443",
        "kube-system/kube-dns:53/tcp": by_port[53],
        "kube-system/kube-dns:53/udp": by_port[53],
        "kube-system/kube-dns:9153/tcp": by_port[9153],
        "default/web:80/tcp": " ".join(sorted((f"{first}:8080", f"{second}:8080"))),
    }
    for node in BLOCKS:
        translated = {key: {"endpoints": it, "rejected": "no"} for key, it in wanted.items()}
        assert found.table(Topic.SERVICE, node) == translated, node


def test_what_is_sent_to_a_service_without_endpoints_is_rejected() -> None:
    before = of(workloads=[served()])
    services = [replace(port, endpoints=()) if port.service == "web" else port for port in before.observed.services]
    found = again(before, services=services)
    assert found.table(Topic.SERVICE, "worker1")["default/web:80/tcp"] == {"endpoints": "", "rejected": "yes"}
    assert "worker1 rejects packets to" in found.one(Topic.SERVICE, "default/web:80/tcp", "worker1").sentence
    assert "worker1 translates" in before.one(Topic.SERVICE, "default/web:80/tcp", "worker1").sentence


def ready_services(found: Expected) -> list[str]:
    assert all(it == {"ready": "yes"} for it in found.table(Topic.SERVICE).values())
    return list(found.table(Topic.SERVICE))


def test_the_labs_services_and_those_of_kubernetes_have_an_endpoint() -> None:
    workloads = [served(), served(name="idle", replicas=0), {"name": "plain", "image": labs.IMAGE}]
    found = of(workloads=workloads)
    # None of a workload with no pods, nor of one without a Service.
    assert ready_services(found) == ["default/kubernetes", "kube-system/kube-dns", "default/web"]
    # Its own selector helps to find out why there is none. The API server's Service has no selector.
    assert "(app=web)" in found.one(Topic.SERVICE, "default/web").cause
    assert "(k8s-app=kube-dns)" in found.one(Topic.SERVICE, "kube-system/kube-dns").cause
    assert found.one(Topic.SERVICE, "default/kubernetes").cause == "no endpoint was written for it"


def test_a_service_of_kubernetes_that_is_not_there_is_not_missed() -> None:
    """A lab may have its names from elsewhere. Its own Services must be there."""
    before = of(workloads=[served()])
    assert ready_services(again(before, services=[])) == ["default/web"]
    others = [port for port in before.observed.services if port.service != "web"]
    # The selector of a Service that is not there is not known.
    assert again(before, services=others).one(Topic.SERVICE, "default/web").cause == "no endpoint was written for it"


def test_a_service_that_somebody_wants_to_reach_needs_an_endpoint() -> None:
    port = next(port for port in of().observed.services if port.service == "kube-dns")
    wanted = no_endpoint(port)
    assert (wanted.key, wanted.expected) == ("kube-system/kube-dns", {"ready": "yes"})


# --- NAT of the pools -------------------------------------------------------------------------------------------------


def test_only_a_pool_with_nat_outgoing_is_masqueraded() -> None:
    found = of(FIRST, SECOND | {"natOutgoing": False}, blocks=BOTH_BLOCKS)
    wanted = {"10.244.0.0/20": {"masquerade": "yes"}, "10.244.128.0/20": {"masquerade": "no"}}
    for node in BLOCKS:
        assert found.table(Topic.NAT, node) == wanted
    assert "gets the node's address" in found.one(Topic.NAT, "10.244.0.0/20", "worker1").sentence
    assert "keeps the pod's address" in found.one(Topic.NAT, "10.244.128.0/20", "worker1").sentence


@pytest.mark.parametrize(
    ("dataplane", "pool", "service"),
    [
        (
            "Iptables",
            "iptables-save -t nat | grep -- '-A cali-nat-outgoing'",
            "iptables-save -t nat | grep -F 'kube-system/kube-dns:dns-tcp'",
        ),
        (
            "Nftables",
            "nft list chain ip calico nat-cali-nat-outgoing",
            "nft list table ip kube-proxy | grep -F 'kube-system/kube-dns/tcp/dns-tcp'",
        ),
    ],
)
def test_where_the_rules_are(dataplane: str, pool: str, service: str) -> None:
    found = of(linuxDataplane=dataplane)
    assert found.one(Topic.NAT, "10.244.0.0/20", "worker1").command == pool
    assert found.one(Topic.SERVICE, "kube-system/kube-dns:53/tcp", "worker1").command == service


# --- nodes ------------------------------------------------------------------------------------------------------------


def test_every_node_is_ready_and_forwards() -> None:
    found = of()
    assert found.table(Topic.NODE) == {node: {"Ready": "True", "pressure": "none"} for node in BLOCKS}
    # With the subnet's prefix length: CrossSubnet compares the subnets.
    assert found.table(Topic.ANNOTATION) == {
        "control1": {"IPv4Address": "10.0.1.20/24"},
        "worker1": {"IPv4Address": "10.0.2.30/24"},
        "worker2": {"IPv4Address": "10.0.2.31/24"},
    }
    for node in BLOCKS:
        assert found.table(Topic.IP_FORWARD, node) == {"all": {"value": "1"}}
        assert found.table(Topic.QUEUE, node) == {"eth0": {"netem": "no"}}


def test_the_queue_is_that_of_the_interface_with_the_nodes_address() -> None:
    assert shipped("components").table(Topic.QUEUE, "worker1") == {"eth1": {"netem": "no"}}
    found = again(of(), nics=dict.fromkeys(BLOCKS, "ens5"))
    assert found.table(Topic.QUEUE, "worker1") == {"ens5": {"netem": "no"}}


@pytest.mark.parametrize(
    ("calico", "filters"),
    [
        ({"pools": [FIRST | {"encapsulation": "None"}], "bgp": "Enabled"}, []),
        ({"pools": [FIRST | {"encapsulation": "VXLAN"}]}, ["udp 4789"]),
        ({"pools": [FIRST | {"encapsulation": "IPIP"}], "bgp": "Enabled"}, ["4"]),
        ({"pools": [FIRST | {"encapsulation": "None"}], "bgp": "Enabled", "wireguard": True}, ["udp 51820"]),
        ({"pools": [FIRST | {"encapsulation": "VXLAN"}], "wireguard": True}, ["udp 4789", "udp 51820"]),
    ],
)
def test_no_packet_filter_drops_the_packets_of_a_tunnel(calico: dict[str, Any], filters: list[str]) -> None:
    found = expected(Lab.model_validate(labs.document() | {"calico": calico}), BLOCKS)
    assert found.table(Topic.FILTER, "worker1") == dict.fromkeys(filters)
    for key in filters:
        command = found.one(Topic.FILTER, key, "worker1").command
        port = key.partition(" ")[2]
        # iptables-save has a rule's protocol 4 by number or by a name of /etc/protocols.
        assert (f"--dport {port}'" if port else "-p (4|ipencap|ipv4) ") in command


@pytest.mark.parametrize(
    ("pools", "wireguard", "loose"),
    [
        (["VXLAN"], False, []),
        (["VXLAN", "VXLAN"], False, []),
        (["VXLAN", "None"], False, ["eth0", "vxlan.calico"]),
        (["VXLAN", "VXLANCrossSubnet"], False, ["eth0", "vxlan.calico"]),
        (["IPIP", "None"], False, ["eth0", "tunl0"]),
        # Both directions go through WireGuard, whatever the pools say.
        (["VXLAN", "None"], True, []),
    ],
)
def test_rp_filter_must_be_loose_where_an_answer_comes_another_way(
    pools: list[str], wireguard: bool, loose: list[str]
) -> None:
    both = [base | {"encapsulation": word} for base, word in zip((FIRST, SECOND), pools, strict=False)]
    found = of(*both, blocks=BOTH_BLOCKS if len(both) == 2 else BLOCKS, bgp="Enabled", wireguard=wireguard)
    assert found.table(Topic.RP_FILTER, "worker1") == {device: {"value": "0 or 2"} for device in loose}


@pytest.mark.parametrize(
    ("stack", "checked"), [("cfos-egress", True), ("packet-life", True), ("components", False), ("local", False)]
)
def test_only_ec2_has_a_source_destination_check(stack: str, checked: bool) -> None:
    found = shipped(stack)
    names = [node.name for node in found.observed.spec.nodes]
    assert found.table(Topic.SOURCE_DEST) == ({name: {"check": "off"} for name in names} if checked else {})


def test_an_interface_that_a_walk_comes_by_is_up() -> None:
    assert interface_up("worker1", "eth0").expected == {"up": "yes"}


# --- in a sandbox -----------------------------------------------------------------------------------------------------


def test_a_sandbox_is_repaired_by_its_own_commands() -> None:
    """It has no step to repeat, and kubectl cannot enter or renew its pods. A ping's advice, a walk, is possible."""
    cluster = shipped("cfos-egress")
    sandbox = again(cluster, pods=[replace(pod, netns=f"pod-{pod.name}") for pod in cluster.observed.pods])
    outside = (str(cluster.observed.outside), str(sandbox.observed.outside))
    for there, here in zip(cluster.all, sandbox.all, strict=True):
        if there.topic is Topic.PROBE:
            assert (here.repair, here.advice) == (there.repair, there.advice.replace(*outside))
        else:
            assert (here.repair, here.advice) == (None, IN_A_SANDBOX)
        assert "exec" not in here.command or here.command.startswith("ip netns exec pod-"), here.command
    pods = sandbox.observed.pods
    assert {renew(pod) for pod in pods} == {IN_A_SANDBOX}
    assert all(f"delete pod {pod.name}" in renew(replace(pod, netns="")) for pod in pods)
