"""Pods: the host side of their eth0, what is inside, their attached networks, and the firewalls among them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network
from typing import Any

import pytest

from components.spec.models import Lab
from components.verify.expect import multus
from components.verify.expect.egress import firewall_of, firewall_pods, users
from components.verify.expect.pod import gateway_known, holds_address, route_for
from components.verify.model import Pod, Topic
from components.verify.routes import destination_of
from tests.verify.expect import labs
from tests.verify.expect.labs import BOTH_BLOCKS, FIRST, SECOND, Expected, Fields, again, expected, of, shipped

NODE = "ip-10-0-2-200"
BY_CALICO = {"via": "169.254.1.1", "dev": "eth0"}
TO_GATEWAY = {"169.254.1.1": {"dev": "eth0", "scope": "link"}}
"""Calico's plugin gives every pod the same next hop, which no interface has."""


# --- on the node ------------------------------------------------------------------------------------------------------


def test_every_pod_has_a_host_side_and_a_route_to_it() -> None:
    found = shipped("cross-node")
    # "cali" and the first 11 digits of SHA-1 of NAMESPACE.NAME.
    pod = found.pod("multitool", "control1")
    assert (pod.id, pod.interface) == ("default/multitool-e5e4a214aa-1c334", "calif4fd3d9a900")
    # A pod that is not the lab's own may be older than the MTU.
    system = next(it for it in found.observed.running("control1") if it.workload is None)
    others = {"kind": "veth", "address": "ee:ee:ee:ee:ee:ee", "up": "yes"}
    mine = others | {"mtu": "9001"}
    assert found.table(Topic.ROUTE, "control1")[pod.address] == {"dev": pod.interface, "scope": "link"}
    assert found.table(Topic.LINK, "control1")[pod.interface] == mine
    assert found.table(Topic.LINK, "control1")[system.interface] == others
    assert found.table(Topic.PROXY_ARP, "control1")[pod.interface] == {"value": "1"}
    on_it = [pod for pod in found.observed.pods if pod.node == "control1"]
    assert {it.interface for it in on_it if not it.host_network} == found.table(Topic.PROXY_ARP, "control1").keys()
    assert any(it.host_network for it in on_it), "they have the node's own network, and no host side"


def test_inside_of_pods_that_are_not_the_labs_own_nothing_is_known() -> None:
    """They have no label of the lab. What is in their images is not known either, such as a command `ip`."""
    found = shipped("cfos-egress")
    others = [pod for pod in found.observed.running("ip1001100") if pod.workload is None]
    assert {pod.name.rpartition("-")[0].rpartition("-")[0] for pod in others} >= {"coredns", "calico-apiserver"}
    for pod in others:
        assert not [e for e in found.all if e.pod == pod.interface]


# --- eth0 -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("calico", "mtu"),
    [
        ({"pools": [FIRST | {"encapsulation": "VXLAN"}]}, "8951"),
        ({"pools": [FIRST | {"encapsulation": "VXLANCrossSubnet"}]}, "8951"),
        ({"pools": [FIRST | {"encapsulation": "IPIP"}], "bgp": "Enabled"}, "8981"),
        ({"pools": [FIRST | {"encapsulation": "None"}], "bgp": "Enabled"}, "9001"),
        # The pods of one pool also talk to those of the other: the largest overhead counts.
        ({"pools": [FIRST | {"encapsulation": "None"}, SECOND | {"encapsulation": "VXLAN"}]}, "8951"),
        ({"pools": [FIRST | {"encapsulation": "VXLAN"}], "wireguard": True}, "8941"),
        ({"pools": [FIRST | {"encapsulation": "VXLAN"}], "mtu": 1400}, "1400"),
    ],
)
def test_the_mtu_of_eth0(calico: dict[str, Any], mtu: str) -> None:
    """EC2's 9001, less VXLAN's 50, IPIP's 20 or WireGuard's 60; or what the stack file says."""
    found = expected(Lab.model_validate(labs.document() | {"calico": calico}), BOTH_BLOCKS)
    pod = found.pod("app", "worker1")
    eth0 = {"mtu": mtu, "addresses": f"{pod.address}/32", "up": "yes"}
    assert found.table(Topic.LINK, pod=pod) == {"eth0": eth0}


def test_a_pods_address_is_in_its_pool() -> None:
    found = of(blocks=BOTH_BLOCKS)
    pod = found.pod("app", "worker1")
    # Another node's block counts: a node whose own blocks are full borrows.
    assert found.table(Topic.ADDRESS, pod=pod) == {"eth0": {"address": "10.244.0.0-10.244.15.255"}}


def test_an_address_of_another_pool_than_the_workload_asks_for() -> None:
    """The pods were made before the annotation. Their pool must be the first of those that it names."""
    pools = [FIRST, SECOND, {"name": "third", "cidr": "10.244.64.0/20", "blockSize": 26}]
    before = of(*pools, blocks=BOTH_BLOCKS)
    asked = [{"name": "app", "image": labs.IMAGE, "annotations": {"cni.projectcalico.org/ipv4pools": "[%s]"}}]
    for named, span in [
        ('"second", "third"', "10.244.128.0-10.244.143.255"),
        ('"third"', "10.244.64.0-10.244.79.255"),
        ('"first", "second"', "10.244.0.0-10.244.15.255"),
        ('"fourth"', "10.244.0.0-10.244.15.255"),  # A pool that is not there: any of the lab's.
    ]:
        asked[0]["annotations"] = {"cni.projectcalico.org/ipv4pools": f"[{named}]"}
        found = again(before, spec=Lab.model_validate(labs.document(*pools, workloads=asked)))
        pod = found.pod("app", "worker1")
        assert pod.address.startswith("10.244.0.")
        assert found.table(Topic.ADDRESS, pod=pod) == {"eth0": {"address": span}}, named


def test_with_host_local_no_range_is_known_for_the_pods() -> None:
    """The address is of the node's podCIDR, which the stack file does not have."""
    blocks = {"control1": ["10.244.0.0/24"], "worker1": ["10.244.1.0/24"], "worker2": ["10.244.2.0/24"]}
    whole = FIRST | {"cidr": "10.244.0.0/16", "blockSize": 24, "encapsulation": "None"}
    found = of(whole, blocks=blocks, bgp="Enabled", ipam="HostLocal")
    pod = found.pod("app", "worker1")
    assert pod.address.startswith("10.244.1.")
    assert not found.of(Topic.ADDRESS, pod=pod) and found.of(Topic.LINK, pod=pod)


def test_without_multus_a_pod_has_one_interface_and_one_way_out() -> None:
    found = of()
    pod = found.pod("app", "worker1")
    assert found.table(Topic.ROUTE, pod=pod) == TO_GATEWAY | {"default": BY_CALICO}
    assert found.one(Topic.ROUTE, "default", pod=pod).because == "a pod's only way out is its node"
    assert not found.of(Topic.STATUS) and not found.of(Topic.EVENT)
    assert not found.of(Topic.FILE, "worker1") and not found.of(Topic.CRIO, "worker1")


# --- delegates --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("workload", "address"),
    [
        ("normal", "10.244.97.150-10.244.97.250"),  # net-calico, multus.clusterNetwork
        ("normal-default-calico", "10.244.97.50-10.244.97.100"),
        ("normal-egress", "10.244.97.50-10.244.97.100"),
        ("firewall", "10.244.97.150-10.244.97.250"),
    ],
)
def test_a_delegates_range_in_the_nodes_block(workload: str, address: str) -> None:
    found = shipped("cfos-egress")
    pod = found.pod(workload, NODE)
    assert found.table(Topic.ADDRESS, pod=pod) == {"eth0": {"address": address}}


def test_a_delegates_file_has_its_range_in_the_nodes_block() -> None:
    found = shipped("cfos-egress")
    for node, block in (("ip1001100", "10.244.6"), (NODE, "10.244.97"), ("ip-10-0-2-201", "10.244.93")):
        folder = "/etc/cni/multus/net.d"
        for name, first, last in (("net-calico", 150, 250), ("default-calico", 50, 100)):
            config = found.table(Topic.FILE, node)[f"{folder}/{name}.conf"] or {}
            for text in (f"{block}.{first}", f"{block}.{last}", f"{block}.0/24"):
                assert f'"{text}"' in config["ipam"], f"{node} {name}"
        assert found.table(Topic.FILE, node).keys() == {
            "first",
            "/etc/cni/net.d/00-multus.conf",
            f"{folder}/net-calico.conf",
            f"{folder}/default-calico.conf",
        }
        assert found.table(Topic.FREE, node) == {"net-calico": {"taken": ""}, "default-calico": {"taken": ""}}
        assert found.table(Topic.CRIO, node) == {"default network": {"name": "multus-cni-network"}}


def test_a_delegate_whose_block_is_not_known_has_no_file_and_the_others_have_theirs() -> None:
    delegates = [
        {"name": "net-calico", "rangeStart": 10, "rangeEnd": 20, "pool": "second"},
        {"name": "default-calico", "rangeStart": 10, "rangeEnd": 20, "pool": "first"},
    ]
    found = of(FIRST, SECOND, blocks=BOTH_BLOCKS, multus={"clusterNetwork": "net-calico", "delegates": delegates})
    assert found.table(Topic.FREE, "worker1").keys() == {"net-calico", "default-calico"}
    found = again(found, blocks=BOTH_BLOCKS | {"worker1": ["10.244.0.64/26"]})
    assert found.table(Topic.FREE, "worker1").keys() == {"default-calico"}
    pod = found.pod("app", "worker1")
    assert pod.address.startswith("10.244.128."), "its range is not known any more"
    assert not found.of(Topic.ADDRESS, pod=pod)


# --- routes of the three states of cfos-egress ------------------------------------------------------------------------


BY_BRIDGE = {
    "10.96.0.0/12": {"dev": "net1", "via": "10.1.128.1"},
    "10.0.0.2": {"dev": "net1", "via": "10.1.128.1"},
}
BY_DELEGATE = {"10.96.0.0/12": BY_CALICO, "10.0.0.0/8": BY_CALICO}


def test_a_delegate_without_routes_gives_a_default_route() -> None:
    found = shipped("cfos-egress")
    normal = found.pod("normal", NODE)
    assert found.table(Topic.ROUTE, pod=normal) == TO_GATEWAY | {"default": BY_CALICO}
    assert found.one(Topic.ROUTE, "default", pod=normal).because == "a pod's only way out is its node"
    firewall = found.pod("firewall", NODE)
    assert found.table(Topic.ROUTE, pod=firewall) == TO_GATEWAY | {"default": BY_CALICO} | BY_BRIDGE


def test_a_delegates_routes_are_the_pods_only_ones() -> None:
    found = shipped("cfos-egress")
    pod = found.pod("normal-default-calico", NODE)
    assert found.table(Topic.ROUTE, pod=pod) == TO_GATEWAY | BY_DELEGATE | {"default": None}
    assert "delegate default-calico" in found.one(Topic.ROUTE, "10.0.0.0/8", pod=pod).because


def test_a_default_route_of_an_attached_network_is_the_only_default() -> None:
    """10.96.0.0/12 is there twice: by the delegate on eth0, and by the bridge."""
    found = shipped("cfos-egress")
    rows = found.rows(Topic.ROUTE, pod=found.pod("normal-egress", NODE))
    wanted: list[tuple[str, Fields]] = [*TO_GATEWAY.items(), *BY_DELEGATE.items(), *BY_BRIDGE.items()]
    assert rows == [*wanted, ("default", {"via": "10.1.128.2", "dev": "net1"})]


def test_with_a_default_route_of_its_own_a_pod_on_calicos_network_has_none_by_eth0() -> None:
    workload = {"name": "app", "image": labs.IMAGE, "replicas": 2, "networks": [{"name": "br"}]}
    bridge = {"name": "br", "type": "bridge", "bridge": "br0", "subnet": "10.9.0.0/24"}
    own: dict[str, Any] = {"multus": {"clusterNetwork": "k8s-pod-network"}, "networks": [bridge]}
    found = of(**own, workloads=[workload])
    assert dict(found.rows(Topic.ROUTE, pod=found.pod("app", "worker1"))) == TO_GATEWAY | {"default": BY_CALICO}
    workload["networks"] = [{"name": "br", "defaultRoute": "10.9.0.1"}]
    found = of(**own, workloads=[workload])
    by_bridge = {"via": "10.9.0.1", "dev": "net1"}
    assert found.table(Topic.ROUTE, pod=found.pod("app", "worker1")) == TO_GATEWAY | {"default": by_bridge}


@pytest.mark.parametrize(
    ("workload", "interface"), [("normal", "eth0"), ("normal-default-calico", None), ("normal-egress", "net1")]
)
def test_the_interface_of_the_default_route(workload: str, interface: str | None) -> None:
    spec = shipped("cfos-egress").observed.spec
    found = next(it for it in spec.workloads if it.name == workload)
    assert multus.default_interface(spec, found) == interface


def test_without_multus_the_default_route_is_by_eth0() -> None:
    spec = of().observed.spec
    assert multus.default_interface(spec, spec.workloads[0]) == "eth0"


@pytest.mark.parametrize(
    ("cidr", "text"),
    [
        ("0.0.0.0/0", "default"),
        ("0.0.0.0/1", "0.0.0.0/1"),
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.0.0.2/31", "10.0.0.2/31"),
        ("10.0.0.2/32", "10.0.0.2"),
    ],
)
def test_a_destination_as_ip_route_prints_it(cidr: str, text: str) -> None:
    assert destination_of(IPv4Network(cidr)) == text


# --- what Multus reports ----------------------------------------------------------------------------------------------


def test_multus_reports_every_interface_and_its_network() -> None:
    found = shipped("cfos-egress")
    pod = found.pod("normal-egress", NODE)
    # The address of eth0 is known from the API; net1's is the bridge's business.
    reports = {
        f"{pod.id} eth0": {"name": "kube-system/default-calico", "default": "true", "ips": pod.address},
        f"{pod.id} net1": {"name": "default/cfosdefaultcni5", "default": "false"},
    }
    status = found.table(Topic.STATUS)
    assert {key: it for key, it in status.items() if key.startswith(pod.id)} == reports
    firewall = found.pod("firewall", NODE)
    # A fixed address needs a definition of its own, with the IPAM plugin static.
    assert status[f"{firewall.id} net1"] == {"name": "default/cfosdefaultcni5-fixed", "default": "false"}
    assert (found.table(Topic.EVENT)[f"{pod.id} net1"]) == {"from": "default/cfosdefaultcni5"}
    assert not any("coredns" in key for key in status), "it is older than Multus"


@pytest.mark.parametrize(
    ("age", "there"),
    [
        (timedelta(minutes=1), True),
        (timedelta(minutes=49, seconds=59), True),
        (timedelta(minutes=50), False),
        (timedelta(hours=2), False),
    ],
)
def test_events_are_expected_of_young_pods_only(age: timedelta, there: bool) -> None:
    """Kubernetes deletes an event after an hour. A pod's first minutes go by before Multus makes its event."""
    found = shipped("cfos-egress")
    pod = found.pod("normal", NODE)
    found = again(found, now=datetime.fromisoformat(pod.started) + age)
    assert (f"{pod.id} eth0" in found.table(Topic.EVENT)) is there
    assert f"{pod.id} eth0" in found.table(Topic.STATUS)


def test_no_event_is_expected_of_a_pod_whose_age_is_not_known() -> None:
    found = shipped("cfos-egress")
    pods = [replace(pod, started="") for pod in found.observed.pods]
    found = again(found, pods=pods, now=datetime.now(UTC))
    assert found.of(Topic.STATUS) and not found.of(Topic.EVENT)


# --- attached networks ------------------------------------------------------------------------------------------------


NETWORKS: list[dict[str, Any]] = [
    {"name": "lan", "type": "bridge", "bridge": "lan0", "subnet": "10.8.0.0/24", "isGateway": False, "mtu": 1400},
    {
        "name": "way",
        "type": "bridge",
        "bridge": "way0",
        "subnet": "10.9.0.0/24",
        "ipam": {"type": "host-local", "gateway": "10.9.0.254"},
        "routes": [{"dst": "172.16.0.0/12"}, {"dst": "203.0.113.9/32", "gateway": "10.9.0.7"}],
    },
    {"name": "mac", "type": "macvlan", "master": "eth0", "subnet": "10.10.0.0/24"},
    {"name": "own", "type": "custom", "config": {"cniVersion": "0.3.1", "type": "dummy"}},
]


def attached(*networks: dict[str, Any], attachments: list[dict[str, Any]] | None = None) -> tuple[Expected, Pod]:
    """A lab whose workload has these networks, and its pod on worker1."""
    names = attachments or [{"name": network["name"]} for network in networks]
    workload = {"name": "app", "image": labs.IMAGE, "replicas": 2, "networks": names}
    multus = {"clusterNetwork": "k8s-pod-network"}
    found = of(multus=multus, networks=list(networks), workloads=[workload])
    return found, found.pod("app", "worker1")


def test_each_attached_network_has_its_interface_and_its_routes() -> None:
    found, pod = attached(*NETWORKS)
    devices = found.table(Topic.LINK, pod=pod)
    # host-local's first address is .1, which the network's gateway has by default; a gateway of .254 leaves it free.
    # A macvlan has the MTU of its node's interface, which the stack file does not say; a bridge has what it says.
    assert {key: it for key, it in devices.items() if key != "eth0"} == {
        "net1": {"up": "yes", "addresses": "10.8.0.2/24", "mtu": "1400"},
        "net2": {"up": "yes", "addresses": "10.9.0.1/24"},
        "net3": {"up": "yes", "addresses": "10.10.0.2/24"},
    }
    # net4 is a plugin that the lab knows nothing of.
    assert f"{pod.id} net4" in found.table(Topic.STATUS)
    assert found.table(Topic.ROUTE, pod=pod) == TO_GATEWAY | {
        "default": BY_CALICO,
        "172.16.0.0/12": {"dev": "net2"},
        "203.0.113.9": {"dev": "net2", "via": "10.9.0.7"},
    }


def test_the_subnets_of_the_attached_networks_are_reached_directly() -> None:
    """For walks: the kernel makes these routes from the addresses. A custom network's addresses are not known."""
    found, pod = attached(*NETWORKS)
    workload = found.observed.spec.workloads[0]
    assert [(e.key, e.expected) for e in multus.connected(found.observed, pod, workload)] == [
        ("10.8.0.0/24", {"dev": "net1", "scope": "link"}),
        ("10.9.0.0/24", {"dev": "net2", "scope": "link"}),
        ("10.10.0.0/24", {"dev": "net3", "scope": "link"}),
    ]


def test_only_a_bridge_that_is_a_gateway_has_an_address_on_the_node() -> None:
    found, pod = attached(*NETWORKS)
    bridges = {key: it for key, it in found.table(Topic.LINK, "worker1").items() if key in ("lan0", "way0")}
    assert bridges == {"way0": {"kind": "bridge", "up": "yes", "addresses": "10.9.0.254/24"}}
    bridge_of = {n: multus.gateway_bridge(found.observed, pod, n) for n in ("net1", "net2", "net3", "net4", "net5")}
    assert bridge_of == {"net1": None, "net2": "way0", "net3": None, "net4": None, "net5": None}
    stranger = replace(pod, workload=None)
    assert multus.gateway_bridge(found.observed, stranger, "net2") is None


@pytest.mark.parametrize(
    ("ipam", "address"),
    [
        ({"type": "host-local"}, "10.9.0.1/24"),
        ({"type": "host-local", "gateway": "10.9.0.254"}, "10.9.0.254/24"),
        ({"type": "static", "addresses": ["10.9.0.7/24"]}, "10.9.0.1/24"),
        # The bridge plugin takes the gateway that the IPAM plugin returns, and static returns the address's.
        ({"type": "static", "addresses": ["10.9.0.7/24"], "gateway": "10.9.0.254"}, "10.9.0.254/24"),
        ({"type": "whereabouts", "gateway": "10.9.0.254"}, "10.9.0.254/24"),
    ],
)
def test_the_address_of_a_bridge_that_is_a_gateway(ipam: dict[str, Any], address: str) -> None:
    found, _ = attached(NETWORKS[1] | {"ipam": ipam})
    assert (found.table(Topic.LINK, "worker1")["way0"] or {})["addresses"] == address


def test_the_stack_files_own_addresses_and_mac_come_before_what_multus_reports() -> None:
    asked = [{"name": "lan", "ips": ["10.8.0.66/24", "10.8.0.67/24"], "mac": "02:00:00:00:0A:01"}]
    lan = NETWORKS[0] | {"ipam": {"type": "host-local", "rangeEnd": "10.8.0.60"}}
    found, pod = attached(lan, attachments=asked)
    assert found.table(Topic.LINK, pod=pod)["net1"] == {
        "up": "yes",
        "addresses": "10.8.0.66/24 10.8.0.67/24",
        "address": "02:00:00:00:0a:01",  # as the kernel prints it
        "mtu": "1400",
    }


def test_a_static_network_gives_every_pod_all_its_addresses() -> None:
    ipam = {"type": "static", "addresses": ["10.8.0.7/24", "10.8.0.8/24"]}
    found, pod = attached(NETWORKS[0] | {"ipam": ipam})
    assert (found.table(Topic.LINK, pod=pod)["net1"] or {})["addresses"] == "10.8.0.7/24 10.8.0.8/24"


def test_an_address_that_multus_does_not_report_is_not_expected() -> None:
    found, pod = attached(NETWORKS[0])
    status = {name: {key: it for key, it in of.items() if key != "ips"} for name, of in pod.networks.items()}
    found = again(found, pods=[replace(pod, networks=status)])
    assert found.table(Topic.LINK, pod=pod)["net1"] == {"up": "yes", "mtu": "1400"}


# --- firewalls --------------------------------------------------------------------------------------------------------


def test_a_firewalls_pods_forward_and_no_others_must() -> None:
    found = shipped("cfos-egress")
    for node in (NODE, "ip-10-0-2-201"):
        firewall = found.pod("firewall", node)
        assert found.table(Topic.IP_FORWARD, pod=firewall) == {"all": {"value": "1"}}
        assert found.table(Topic.FILTER, pod=firewall) == {"forwarded packets": None}
        assert firewall_pods(found.observed.spec, found.observed.pods, node) == [firewall]
        assert users(found.observed, node) == [found.pod("normal-egress", node)]
    # Besides, only the three nodes themselves forward.
    inside = {e.pod for e in found.all if e.topic in (Topic.IP_FORWARD, Topic.FILTER)} - {None}
    assert len(inside) == 2
    assert not firewall_pods(found.observed.spec, found.observed.pods, "ip1001100")


def test_a_firewalls_pod_that_does_not_run_forwards_nothing() -> None:
    found = shipped("cfos-egress")
    firewall = found.pod("firewall", NODE)
    pods = [replace(pod, phase="Pending") if pod == firewall else pod for pod in found.observed.pods]
    found = again(found, pods=pods)
    assert not firewall_pods(found.observed.spec, pods, NODE)
    # Its gateway is still a firewall; only its pod is missing.
    way = firewall_of(found.observed, found.pod("normal-egress", NODE))
    assert way is not None and (way[0].workload.name, way[1]) == ("firewall", None)


def test_a_pods_firewall_is_the_one_of_its_own_node() -> None:
    found = shipped("cfos-egress")
    for node in (NODE, "ip-10-0-2-201"):
        way = firewall_of(found.observed, found.pod("normal-egress", node))
        assert way is not None and way[1] == found.pod("firewall", node)
        assert str(way[0].address) == "10.1.128.2"
    for workload in ("normal", "normal-default-calico", "firewall"):
        assert firewall_of(found.observed, found.pod(workload, NODE)) is None
    stranger = next(pod for pod in found.observed.running("ip1001100") if pod.workload is None)
    assert firewall_of(found.observed, stranger) is None


def test_two_workloads_may_share_a_firewalls_address_each_on_its_own_node() -> None:
    """The pod's own node decides. Where neither runs, the first of the stack file is named."""
    bridge = {"name": "br", "type": "bridge", "bridge": "br0", "subnet": "10.9.0.0/24"}
    ipam = {"type": "host-local", "rangeStart": "10.9.0.10"}

    def firewall(name: str, node: str) -> dict[str, Any]:
        on = {"kubernetes.io/hostname": node}
        networks = [{"name": "br", "ips": ["10.9.0.2/24"]}]
        return {"name": name, "image": labs.IMAGE, "nodeSelector": on, "networks": networks}

    user = {
        "name": "app",
        "image": labs.IMAGE,
        "replicas": 2,
        "networks": [{"name": "br", "defaultRoute": "10.9.0.2"}],
    }
    found = of(
        multus={"clusterNetwork": "k8s-pod-network"},
        networks=[bridge | {"ipam": ipam}],
        workloads=[user, firewall("zeta", "worker1"), firewall("alpha", "worker2")],
    )
    for name, node in (("zeta", "worker1"), ("alpha", "worker2")):
        way = firewall_of(found.observed, found.pod("app", node))
        assert way is not None and way[1] == found.pod(name, node)
    neither = again(found, pods=[pod for pod in found.observed.pods if pod.workload == "app"])
    way = firewall_of(neither.observed, neither.pod("app", "worker1"))
    assert way is not None and (way[0].workload.name, way[1]) == ("zeta", None)


# --- pods that do not run ---------------------------------------------------------------------------------------------


def test_what_a_pod_needs_that_does_not_run_yet_cannot_be_read() -> None:
    found = shipped("cfos-egress")
    before = found.pod("normal", NODE)
    waiting = replace(before, phase="Pending", address="", problem="ContainerCreating: no address is left")
    found = again(found, pods=[waiting if pod == before else pod for pod in found.observed.pods])
    about = [e for e in found.all if e.about == waiting.id]
    assert {e.unread for e in about} == {f"{waiting.id} does not run: ContainerCreating: no address is left"}
    # Without an address there is no route to it and no range for it.
    assert found.table(Topic.PROXY_ARP, NODE)[waiting.interface] == {"value": "1"}
    assert not found.of(Topic.ADDRESS, pod=waiting)
    assert "" not in found.table(Topic.ROUTE, NODE) and before.address not in found.table(Topic.ROUTE, NODE)
    assert "has an address/32 on eth0" in found.one(Topic.LINK, "eth0", pod=waiting).sentence
    assert f"has {before.address}/32 on eth0" in shipped("cfos-egress").one(Topic.LINK, "eth0", pod=before).sentence


def test_a_pod_that_no_node_has_taken_is_the_clusters() -> None:
    found = of()
    before = found.pod("app", "worker1")
    nowhere = replace(before, node="", phase="Pending", address="")
    found = again(found, pods=[nowhere])
    assert [e.topic for e in found.all if e.about == nowhere.id and e.unread]


# --- for walks --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("10.9.0.33", "10.9.0.0/24"),
        ("172.20.1.1", "172.16.0.0/12"),
        ("203.0.113.9", "203.0.113.9"),
        ("203.0.113.10", "default"),
    ],
)
def test_the_longest_prefix_of_a_pods_routes(address: str, key: str) -> None:
    found, pod = attached(*NETWORKS)
    assert route_for(found.observed, pod, address).key == key


def test_a_route_that_must_not_be_there_is_no_way() -> None:
    """normal-default-calico must have no default route. To reach 8.8.8.8 it would need one."""
    found = shipped("cfos-egress")
    pod = found.pod("normal-default-calico", NODE)
    assert route_for(found.observed, pod, "8.8.8.8").expected == {}


def test_what_a_walk_asks_of_a_pods_gateway_and_address() -> None:
    pod = shipped("cfos-egress").pod("normal", NODE)
    known = gateway_known(pod)
    assert (known.topic, known.key, known.expected) == (
        Topic.NEIGHBOUR,
        "eth0 169.254.1.1",
        {"lladdr": "ee:ee:ee:ee:ee:ee"},
    )
    assert holds_address(pod).expected == {"address": pod.address}
