"""The address plan in exact numbers, among them those of the seeds."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, collapse_addresses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.spec import addresses
from components.spec.load import parse_lab
from components.spec.models import AddressedNetwork, Delegate, Lab
from components.spec.modes import VXLAN as VXLAN_TUNNEL
from tests.strategies import labs
from tests.support.examples import examples


def lab(**keys: Any) -> Lab:
    return parse_lab(
        {"machines": {"provider": "local"}, "network": {"subnets": {"control": "10.0.1.0/24"}}, **keys} | _one
    )


_one = {"nodes": [{"name": "a", "role": "control-plane", "subnet": "control", "address": "10.0.1.10"}]}


def with_pools(*encapsulations: str, **calico: Any) -> Lab:
    pools = [
        {"name": f"pool-{i}", "cidr": f"10.244.{64 * i}.0/18", "encapsulation": encapsulation}
        for i, encapsulation in enumerate(encapsulations)
    ]
    return lab(calico={"bgp": "Enabled", "pools": pools, **calico})


def delegate(start: int, end: int, name: str = "net", **keys: Any) -> Delegate:
    return Delegate.model_validate({"name": name, "rangeStart": start, "rangeEnd": end, **keys})


def test_the_address_of_the_api_service() -> None:
    assert addresses.api_service_address(IPv4Network("10.96.0.0/12")) == IPv4Address("10.96.0.1")


def control_planes(count: int, workers: tuple[str, ...] = (), **keys: Any) -> Lab:
    """Control planes 10.0.1.250, .251, … on EC2, and workers with these addresses in the same subnet."""
    nodes = [
        {"name": f"cp{n}", "role": "control-plane", "subnet": "control", "address": f"10.0.1.{250 + n}"}
        for n in range(count)
    ]
    nodes += [{"name": f"w{n}", "subnet": "control", "address": address} for n, address in enumerate(workers)]
    machines = {"provider": "aws", "operatorCidrs": ["198.18.0.0/32"]}
    kubernetes = {"allowEvenControlPlanes": True} | keys
    # Not parse_lab: private workers need a subnet of their own, which is no matter here.
    return Lab.model_validate({"machines": machines, "nodes": nodes, "kubernetes": kubernetes})


def private(spec: Lab) -> Lab:
    return spec.model_copy(update={"machines": spec.machines.model_copy(update={"worker_access": "InstanceConnect"})})


def test_the_endpoint_of_the_api() -> None:
    assert addresses.api_endpoint(control_planes(3)) == "10.0.1.250:6443"
    assert addresses.api_endpoint(control_planes(3, controlPlaneEndpoint="api.test:443")) == "api.test:443"


def test_a_load_balancer_is_for_several_control_planes_on_ec2() -> None:
    assert [addresses.has_balancer(control_planes(count)) for count in (1, 2, 3)] == [False, True, True]
    assert not addresses.has_balancer(control_planes(3, controlPlaneEndpoint="api.test:443"))
    assert not addresses.has_balancer(lab())


@pytest.mark.parametrize(
    ("workers", "nat", "balancer"),
    [
        ((), "10.0.1.254", "10.0.1.253"),
        (("10.0.1.254",), "10.0.1.253", "10.0.1.249"),
        (("10.0.1.253",), "10.0.1.254", "10.0.1.249"),
    ],
)
def test_the_gateway_and_the_balancer_have_the_last_free_addresses(
    workers: tuple[str, ...], nat: str, balancer: str
) -> None:
    """The last address of a subnet is its broadcast address. .250 to .252 are the control planes'."""
    spec = private(control_planes(3, workers))
    assert str(addresses.nat_address(spec)) == nat
    assert str(addresses.balancer_address(spec)) == balancer
    # Without private workers there is no NAT gateway, and its address is free.
    assert str(addresses.balancer_address(control_planes(3, workers))) == nat


def test_they_are_in_the_subnet_of_the_first_control_plane() -> None:
    spec = private(control_planes(3))
    subnets = {"control": "10.0.1.0/24", "other": "10.0.2.0/24"}
    nodes = [node.model_copy(update={"subnet": "other"}) if node.name != "cp0" else node for node in spec.nodes]
    network = spec.network.model_copy(update={"subnets": {name: IPv4Network(cidr) for name, cidr in subnets.items()}})
    spec = spec.model_copy(update={"nodes": tuple(nodes), "network": network})
    assert str(addresses.nat_address(spec)) == "10.0.1.254"
    assert str(addresses.balancer_address(spec)) == "10.0.1.253"


def test_operators_reach_private_workers_through_an_endpoint_only() -> None:
    for spec, to in ((control_planes(1), "nodes"), (private(control_planes(1)), "control-plane")):
        (ssh,) = (rule for rule in addresses.ingress_rules(spec) if rule.name == "ssh")
        assert ssh.to == to


# --- MTU --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("encapsulations", "calico", "at_9001", "at_1500"),
    [
        (["None"], {}, 9001, 1500),
        (["IPIP"], {}, 8981, 1480),
        (["IPIPCrossSubnet"], {}, 8981, 1480),
        (["VXLAN"], {}, 8951, 1450),
        (["VXLANCrossSubnet"], {}, 8951, 1450),
        (["None", "VXLAN"], {}, 8951, 1450),
        (["IPIP", "VXLAN"], {}, 8951, 1450),
        (["None"], {"wireguard": True}, 8941, 1440),
        (["VXLAN"], {"wireguard": True}, 8941, 1440),
        (["VXLAN"], {"mtu": 1400}, 1400, 1400),
    ],
)
def test_pod_mtu(encapsulations: list[str], calico: dict[str, Any], at_9001: int, at_1500: int) -> None:
    spec = with_pools(*encapsulations, **calico)
    assert addresses.pod_mtu(spec) == at_9001
    slow = spec.model_copy(update={"network": spec.network.model_copy(update={"mtu": 1500})})
    assert addresses.pod_mtu(slow) == at_1500


@pytest.mark.parametrize(
    ("network", "calico", "given", "vxlan"),
    [
        # Calico finds the MTU of the node's interface, up to 9001 here, less each tunnel's own overhead.
        ({}, {}, None, 8951),
        ({}, {"mtu": 1400}, 1400, 1400),
        ({"mtu": 1300}, {}, 1250, 1250),
        ({"mtu": 1500}, {"mtu": 1400}, 1400, 1400),
        # One MTU that Calico gets is for all of its tunnels.
        ({"mtu": 1500}, {"wireguard": True}, 1440, 1440),
    ],
)
def test_the_mtu_that_calico_gets(
    network: dict[str, Any], calico: dict[str, Any], given: int | None, vxlan: int
) -> None:
    spec = parse_lab({"machines": {"provider": "local"}, "network": network, "calico": calico})
    assert addresses.given_mtu(spec) == given
    assert addresses.tunnel_mtu(spec, VXLAN_TUNNEL) == vxlan


@pytest.mark.parametrize(
    ("kind", "own", "link", "mtu"),
    [
        ("bridge", None, None, None),
        ("bridge", None, 1400, 1400),
        ("bridge", 1300, 1400, 1300),
        # macvlan uses the MTU of the node's interface.
        ("macvlan", None, 1400, None),
        ("macvlan", 1300, 1400, 1300),
    ],
)
def test_the_mtu_of_an_attached_network(kind: str, own: int | None, link: int | None, mtu: int | None) -> None:
    network = {"name": "net", "type": kind, "subnet": "10.40.0.0/24", "mtu": own}
    network |= {"bridge": "br1"} if kind == "bridge" else {"master": "eth1"}
    multus = {"clusterNetwork": "k8s-pod-network"}
    machines = {"machines": {"provider": "local"}, "network": {"mtu": link}}
    spec = Lab.model_validate({**machines, "multus": multus, "networks": [network]})
    (made,) = spec.networks
    assert isinstance(made, AddressedNetwork)
    assert addresses.attached_mtu(spec, made) == mtu


# --- reservation ------------------------------------------------------------------------------------------------------


def test_the_ranges_of_the_seeds() -> None:
    """Seeds 000 and 004: .50 to .100 needs six CIDRs, .150 to .250 needs eight."""
    block = IPv4Network("10.244.6.0/24")
    assert addresses.reserved_cidrs([block], [delegate(50, 100)]) == [
        IPv4Network(cidr)
        for cidr in (
            "10.244.6.50/31",
            "10.244.6.52/30",
            "10.244.6.56/29",
            "10.244.6.64/27",
            "10.244.6.96/30",
            "10.244.6.100/32",
        )
    ]
    assert addresses.reserved_cidrs([block], [delegate(150, 250)]) == [
        IPv4Network(cidr)
        for cidr in (
            "10.244.6.150/31",
            "10.244.6.152/29",
            "10.244.6.160/27",
            "10.244.6.192/27",
            "10.244.6.224/28",
            "10.244.6.240/29",
            "10.244.6.248/31",
            "10.244.6.250/32",
        )
    ]


def test_the_range_of_a_delegate() -> None:
    block = IPv4Network("10.244.97.0/24")
    first, last = IPv4Address("10.244.97.150"), IPv4Address("10.244.97.250")
    assert addresses.delegate_range(block, delegate(150, 250)) == (first, last)
    with pytest.raises(IndexError):
        addresses.delegate_range(IPv4Network("10.244.97.0/26"), delegate(50, 100))


def test_neighbouring_ranges_share_their_cidrs() -> None:
    block = IPv4Network("10.244.6.0/24")
    both = addresses.reserved_cidrs([block], [delegate(64, 95), delegate(96, 127)])
    assert both == [IPv4Network("10.244.6.64/26")]


def test_reservation_of_the_seeds() -> None:
    spec = parse_lab(
        {
            "machines": {"provider": "local"},
            "multus": {
                "clusterNetwork": "net-calico",
                "delegates": [
                    {"name": "net-calico", "rangeStart": 150, "rangeEnd": 250},
                    {"name": "default-calico", "rangeStart": 50, "rangeEnd": 100},
                ],
            },
        }
    )
    blocks = {
        "ip1001100": ["10.244.6.0/24"],
        "ip-10-0-2-200": ["10.244.97.0/24"],
        # The node claimed a second block when the first was full. It has no delegate's range.
        "ip-10-0-2-201": ["10.244.93.0/24", "10.244.20.0/24"],
    }
    reserved = addresses.reservation(spec, blocks)
    assert len(reserved) == 3 * (6 + 8)
    assert {cidr.supernet(new_prefix=24) for cidr in reserved} == {
        IPv4Network(f"10.244.{third}.0/24") for third in (6, 93, 97)
    }


def test_the_block_in_a_pool() -> None:
    one, two = with_pools("VXLAN", "None").calico.pools
    blocks = ["10.244.70.0/26", "10.244.9.64/26", "10.244.10.0/26"]
    assert addresses.block_in_pool(blocks, one) == IPv4Network("10.244.9.64/26")
    assert addresses.block_in_pool(blocks, two) == IPv4Network("10.244.70.0/26")
    assert addresses.block_in_pool(blocks[1:], two) is None


@examples(40)
@given(labs(multus=True), st.data())
def test_the_reservation_is_exactly_the_ranges(raw: dict[str, Any], data: st.DataObject) -> None:
    spec = parse_lab(raw)
    assert spec.multus is not None
    blocks: dict[str, list[str]] = {}
    for number, node in enumerate(spec.nodes):
        blocks[node.name] = [str(_block(pool.cidr, pool.block_size, number)) for pool in spec.calico.pools]
    reserved = addresses.reservation(spec, blocks)

    expected: set[IPv4Address] = set()
    for node_blocks in blocks.values():
        for one in spec.multus.delegates:
            block = addresses.block_in_pool(node_blocks, spec.pool_of(one))
            assert block is not None
            first, last = addresses.delegate_range(block, one)
            assert first in block and last in block and first <= last
            handed = {IPv4Address(a) for a in range(int(first), int(last) + 1)}
            assert not handed & expected, "two delegates have the same address"
            expected |= handed
            assert block.num_addresses - len(handed) >= 8
    assert {address for cidr in reserved for address in cidr} == expected
    assert reserved == sorted(reserved)
    assert list(collapse_addresses(reserved)) == reserved


def _block(pool: IPv4Network, size: int, number: int) -> IPv4Network:
    start = int(pool.network_address) + number * (1 << (32 - size))
    return IPv4Network((start, size))


# --- ingress rules ----------------------------------------------------------------------------------------------------


def table(spec: Lab) -> dict[str, tuple[str, int, int, str]]:
    return {
        rule.name: (rule.protocol, rule.from_port, rule.to_port, rule.source) for rule in addresses.ingress_rules(spec)
    }


ALWAYS = {
    "ssh": ("tcp", 22, 22, "operators"),
    "api": ("tcp", 6443, 6443, "operators"),
    "node-ssh": ("tcp", 22, 22, "nodes"),
    "node-api": ("tcp", 6443, 6443, "nodes"),
    "kubelet": ("tcp", 10250, 10250, "nodes"),
    "node-icmp": ("icmp", -1, -1, "nodes"),
}
TYPHA = {"typha": ("tcp", 5473, 5473, "nodes")}
BGP = {"bgp": ("tcp", 179, 179, "nodes")}
VXLAN = {"vxlan": ("udp", 4789, 4789, "nodes")}
IPIP = {"ipip": ("4", -1, -1, "nodes")}
WIREGUARD = {"wireguard": ("udp", 51820, 51821, "nodes")}
PODS = {"pods": ("-1", -1, -1, "pods")}


@pytest.mark.parametrize(
    ("encapsulations", "calico", "more"),
    [
        (["VXLAN"], {"bgp": "Disabled"}, TYPHA | VXLAN),
        (["VXLANCrossSubnet"], {"bgp": "Disabled"}, TYPHA | VXLAN | PODS),
        (["IPIP"], {}, TYPHA | BGP | IPIP),
        (["IPIPCrossSubnet"], {}, TYPHA | BGP | IPIP | PODS),
        (["None"], {}, TYPHA | BGP | PODS),
        (["None"], {"install": "manifest"}, BGP | PODS),
        (["None", "VXLAN"], {}, TYPHA | BGP | VXLAN | PODS),
        (["VXLAN"], {"bgp": "Disabled", "wireguard": True}, TYPHA | VXLAN | WIREGUARD),
    ],
)
def test_ingress_rules(encapsulations: list[str], calico: dict[str, Any], more: dict[str, Any]) -> None:
    assert table(with_pools(*encapsulations, **calico)) == ALWAYS | more


def test_etcd_is_open_between_control_planes_only() -> None:
    nodes = [
        {"name": f"n{i}", "role": "control-plane", "subnet": "control", "address": f"10.0.1.{10 + i}"} for i in range(3)
    ]
    spec = parse_lab({"machines": {"provider": "local"}, "nodes": nodes})
    etcd = [rule for rule in addresses.ingress_rules(control_planes(2)) if rule.name == "etcd"]
    assert etcd == [rule for rule in addresses.ingress_rules(spec) if rule.name == "etcd"]
    assert [(rule.from_port, rule.to_port, rule.to) for rule in etcd] == [(2379, 2380, "control-plane")]


@examples(40)
@given(labs())
def test_every_ingress_rule_is_well_formed(raw: dict[str, Any]) -> None:
    rules = addresses.ingress_rules(parse_lab(raw))
    assert len({rule.name for rule in rules}) == len(rules)
    for rule in rules:
        if rule.protocol in ("tcp", "udp"):
            assert 1 <= rule.from_port <= rule.to_port <= 65535
        else:
            assert rule.protocol in ("icmp", "4", "-1")
            assert (rule.from_port, rule.to_port) == (-1, -1)
        assert rule.source in ("nodes", "pods", "operators")
        assert rule.source != "operators" or (rule.protocol, rule.from_port) in (("tcp", 22), ("tcp", 6443))
    assert 576 <= addresses.pod_mtu(parse_lab(raw)) <= 9001
