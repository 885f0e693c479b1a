"""Between nodes: which devices, routes, entries and sessions each mode needs, and which it must not have.

The labs of `of` have control1 (10.0.1.20) in one subnet, worker1 (10.0.2.30) and worker2 (10.0.2.31) in another, and
a link's MTU of 9001.
"""

from __future__ import annotations

from typing import Any

import pytest

from components.spec.models import Lab
from components.verify.expect.datapath import any_route, underlay
from components.verify.model import Topic
from tests.verify.expect import labs
from tests.verify.expect.labs import BLOCKS, BOTH_BLOCKS, FIRST, SECOND, VXLAN_MAC, Expected, Fields, again, of, shipped

BIRD = "bird or 80"
"""A route that BIRD makes. Felix takes some of them over as its own, with protocol 80."""


def pool(encapsulation: str, like: dict[str, Any] = FIRST, **more: Any) -> dict[str, Any]:
    return like | {"encapsulation": encapsulation} | more


def routes(found: Expected, node: str) -> dict[str, Fields]:
    """A node's routes to blocks, without those to its own pods."""
    return {cidr: wanted for cidr, wanted in found.table(Topic.ROUTE, node).items() if "/" in cidr}


def tunnels(found: Expected, node: str) -> dict[str, Fields]:
    """A node's tunnel devices, without the host sides of pods."""
    return {name: wanted for name, wanted in found.table(Topic.LINK, node).items() if not name.startswith("cali")}


def blackhole(by: str) -> dict[str, str]:
    return {"type": "blackhole", "proto": by}


def through_vxlan(via: str) -> dict[str, str]:
    """The next hop is the peer's tunnel address, which is on no link of the node: hence onlink."""
    return {"via": via, "dev": "vxlan.calico", "onlink": "yes"}


def through_ipip(via: str) -> dict[str, str]:
    """The next hop is the peer's own address, which becomes the outer destination."""
    return {"via": via, "dev": "tunl0", "onlink": "yes", "proto": BIRD}


def plain(via: str) -> dict[str, str]:
    return {"via": via, "dev": "eth0", "proto": BIRD}


ROUTED = {"dev": "eth0", "proto": BIRD}
"""To another subnet without a tunnel: the kernel puts the router in place of BIRD's next hop, so no `via` is known."""
GONE: dict[str, Fields] = {"vxlan.calico": None}
"""Felix removes the device where no pool uses VXLAN. The kernel keeps tunl0 as long as the module is loaded."""


# --- the seeds --------------------------------------------------------------------------------------------------------


def test_cfos_egress_is_one_vxlan() -> None:
    found = shipped("cfos-egress")
    # 9001 less 50: outer Ethernet 14, IP 20, UDP 8, VXLAN 8. Addresses and MACs as the seed's document prints them.
    assert tunnels(found, "ip-10-0-2-200")["vxlan.calico"] == {
        "kind": "vxlan",
        "up": "yes",
        "mtu": "8951",
        "id": "4096",
        "port": "4789",
        "learning": "off",
        "local": "10.0.2.200",
        "dev": "eth0",
        "address": "66:55:b7:b7:f8:dc",
        "addresses": "10.244.97.0/32",
    }
    # Every block through the tunnel, also that of the neighbour in the same subnet.
    assert routes(found, "ip-10-0-2-200") == {
        "10.244.97.0/24": blackhole("80"),
        "10.244.93.0/24": through_vxlan("10.244.93.0"),
        "10.244.6.0/24": through_vxlan("10.244.6.0"),
    }
    assert found.table(Topic.NEIGHBOUR, "ip-10-0-2-200") == {
        "vxlan.calico 10.244.93.0": {"lladdr": "66:73:5c:ce:0d:ae", "state": "PERMANENT"},
        "vxlan.calico 10.244.6.0": {"lladdr": "66:cc:3e:e6:fb:12", "state": "PERMANENT"},
    }
    assert found.table(Topic.FDB, "ip-10-0-2-200") == {
        "vxlan.calico 66:73:5c:ce:0d:ae": {"dst": "10.0.2.201", "state": "permanent"},
        "vxlan.calico 66:cc:3e:e6:fb:12": {"dst": "10.0.1.100", "state": "permanent"},
    }
    assert all(not found.of(topic, "ip-10-0-2-200") for topic in (Topic.BGP, Topic.ENCRYPTED)), "bgp: Disabled"


def test_cross_node_has_no_tunnel_at_all() -> None:
    found = shipped("cross-node")
    assert tunnels(found, "worker1") == GONE
    assert routes(found, "worker1") == {
        "10.48.0.64/26": blackhole(BIRD),
        "10.48.128.64/26": blackhole(BIRD),
        "10.48.0.0/26": plain("10.0.1.20"),
        "10.48.128.0/26": plain("10.0.1.20"),
        "10.48.0.128/26": plain("10.0.1.31"),
        "10.48.128.128/26": plain("10.0.1.31"),
    }
    assert not found.of(Topic.NEIGHBOUR, "worker1") and not found.of(Topic.FDB, "worker1")
    established = {"state": "Established"}
    assert found.table(Topic.BGP, "worker1") == {"10.0.1.20": established, "10.0.1.31": established}


def test_packet_life_begins_with_ipip() -> None:
    found = shipped("packet-life")
    # 9001 less the 20 bytes of one IP header.
    tunl0 = {"kind": "ipip", "up": "yes", "mtu": "8981", "addresses": "192.168.196.128/32"}
    assert tunnels(found, "node01") == {"tunl0": tunl0} | GONE
    assert routes(found, "node01") == {
        "192.168.196.128/26": blackhole(BIRD),
        "192.168.49.64/26": through_ipip("172.17.0.32"),
    }
    assert not found.of(Topic.FDB, "node01"), "IPIP needs no forwarding entries: the outer address is the next hop"


def test_components_has_vxlan_on_eth1_and_bgp_sessions_that_carry_none_of_it() -> None:
    found = shipped("components")
    device = tunnels(found, "master2")["vxlan.calico"]
    assert device is not None
    # Hosts of one's own: an ordinary link of 1500, less 50.
    assert (device["mtu"], device["dev"], device["local"]) == ("1450", "eth1", "192.168.56.12")
    blocks = {name: cidrs[0] for name, cidrs in found.observed.blocks.items()}
    own = {blocks["master2"]: blackhole("80")}
    peers = {blocks[name] for name in ("master1", "master3", "worker1", "worker2")}
    assert routes(found, "master2").keys() == own.keys() | peers
    assert routes(found, "master2").items() >= own.items()
    assert all((routes(found, "master2")[cidr] or {}).get("dev") == "vxlan.calico" for cidr in peers)
    assert found.table(Topic.BGP, "master2").keys() == {f"192.168.56.{n}" for n in (11, 13, 14, 15)}
    # A mesh is there, but Felix makes the routes: a session that is down is not why one is missing.
    assert "Felix does not run" in found.one(Topic.ROUTE, blocks["worker1"], "master2").cause


def test_nightly_and_local_are_cfos_egress_on_other_machines() -> None:
    assert tunnels(shipped("nightly"), "ip-10-0-2-200")["vxlan.calico"]
    local, there = shipped("local"), shipped("cfos-egress")
    assert routes(local, "ip-10-0-2-200") == routes(there, "ip-10-0-2-200")
    # The containers' networks get EC2's MTU, 9001, so that the devices are the same, too.
    assert tunnels(local, "ip-10-0-2-200") == tunnels(there, "ip-10-0-2-200")


# --- each mode, in one subnet and across a router ---------------------------------------------------------------------


def test_vxlan() -> None:
    found = of(pool("VXLAN"))
    assert routes(found, "worker1") == {
        "10.244.0.64/26": blackhole("80"),
        "10.244.0.0/26": through_vxlan("10.244.0.0"),
        "10.244.0.128/26": through_vxlan("10.244.0.128"),
    }
    assert found.one(Topic.ROUTE, "10.244.0.0/26", "worker1").because.endswith("the subnets workers and control")
    assert found.one(Topic.ROUTE, "10.244.0.128/26", "worker1").because.endswith("one subnet")
    for node, others in (("control1", "worker1 worker2"), ("worker1", "control1 worker2")):
        assert {key.split()[1] for key in found.table(Topic.FDB, node)} == {VXLAN_MAC[name] for name in others.split()}


def test_vxlan_between_subnets_only() -> None:
    """worker2 is on worker1's own link. The way to control1 leads through the router, and so through the tunnel."""
    found = of(pool("VXLANCrossSubnet"))
    assert routes(found, "worker1") == {
        "10.244.0.64/26": blackhole("80"),
        "10.244.0.0/26": through_vxlan("10.244.0.0"),
        "10.244.0.128/26": {"via": "10.0.2.31", "dev": "eth0", "proto": "80"},
    }
    assert found.one(Topic.ROUTE, "10.244.0.128/26", "worker1").sentence.endswith("straight to 10.0.2.31")
    # Felix writes all the neighbours, also those that the tunnel does not lead to.
    assert len(found.of(Topic.NEIGHBOUR, "worker1")) == len(found.of(Topic.FDB, "worker1")) == 2


def test_ipip() -> None:
    found = of(pool("IPIP"), bgp="Enabled")
    assert tunnels(found, "worker1").keys() == {"tunl0", "vxlan.calico"}
    assert routes(found, "worker1") == {
        "10.244.0.64/26": blackhole(BIRD),
        "10.244.0.0/26": through_ipip("10.0.1.20"),
        "10.244.0.128/26": through_ipip("10.0.2.31"),
    }
    assert "BIRD's session" in found.one(Topic.ROUTE, "10.244.0.0/26", "worker1").cause


def test_ipip_between_subnets_only() -> None:
    found = of(pool("IPIPCrossSubnet"), bgp="Enabled")
    assert routes(found, "worker1") == {
        "10.244.0.64/26": blackhole(BIRD),
        "10.244.0.0/26": through_ipip("10.0.1.20"),
        "10.244.0.128/26": plain("10.0.2.31"),
    }


def test_no_encapsulation_across_a_router() -> None:
    found = of(pool("None"), bgp="Enabled")
    assert tunnels(found, "worker1") == GONE
    assert routes(found, "worker1") == {
        "10.244.0.64/26": blackhole(BIRD),
        "10.244.0.0/26": ROUTED,
        "10.244.0.128/26": plain("10.0.2.31"),
    }
    assert found.one(Topic.ROUTE, "10.244.0.0/26", "worker1").sentence.endswith("to the router, without a tunnel")


def test_wireguard_comes_before_the_routes_of_the_main_table() -> None:
    found = of(pool("VXLAN"), wireguard=True)
    devices = tunnels(found, "worker1")
    # 60: outer IP 20, UDP 8, WireGuard's header and tag 32.
    assert devices["wireguard.cali"] == {
        "kind": "wireguard",
        "up": "yes",
        "mtu": "8941",
        "addresses": "10.244.0.65/32",
    }
    assert (devices["vxlan.calico"] or {})["mtu"] == "8951", "each device has room for its own headers"
    encrypted = {"dev": "wireguard.cali"}
    assert found.table(Topic.ENCRYPTED, "worker1") == {"10.244.0.0/26": encrypted, "10.244.0.128/26": encrypted}
    assert routes(found, "worker1")["10.244.0.0/26"] == through_vxlan("10.244.0.0"), "Felix keeps it"


def test_wireguard_without_encapsulation() -> None:
    found = of(pool("None"), bgp="Enabled", wireguard=True)
    assert tunnels(found, "worker1").keys() == {"wireguard.cali", "vxlan.calico"}
    assert tunnels(found, "worker1")["vxlan.calico"] is None


def test_a_node_expects_nothing_of_wireguard_without_it() -> None:
    assert not of(pool("IPIP"), bgp="Enabled").of(Topic.ENCRYPTED, "worker1")


def test_host_local_keeps_the_blocks_of_kubernetes() -> None:
    blocks = {"control1": ["10.244.0.0/24"], "worker1": ["10.244.1.0/24"], "worker2": ["10.244.2.0/24"]}
    whole = pool("None", cidr="10.244.0.0/16", blockSize=24)
    found = of(whole, blocks=blocks, bgp="Enabled", ipam="HostLocal")
    assert routes(found, "worker2") == {
        "10.244.2.0/24": blackhole(BIRD),
        "10.244.0.0/24": ROUTED,
        "10.244.1.0/24": plain("10.0.2.30"),
    }


def test_an_mtu_that_calico_is_given_is_for_every_device() -> None:
    """Calico sets it on the pods and on every tunnel's device, and subtracts nothing."""
    found = of(pool("VXLAN"), wireguard=True, mtu=1300)
    assert {(it or {})["mtu"] for it in tunnels(found, "worker1").values()} == {"1300"}


# --- several pools ----------------------------------------------------------------------------------------------------


def test_each_pool_has_its_own_way() -> None:
    found = of(pool("VXLAN"), pool("None", SECOND), blocks=BOTH_BLOCKS, bgp="Enabled")
    assert routes(found, "worker1") == {
        "10.244.0.64/26": blackhole("80"),
        "10.244.128.64/26": blackhole(BIRD),
        "10.244.0.0/26": through_vxlan("10.244.0.0"),
        "10.244.128.0/26": ROUTED,
        "10.244.0.128/26": through_vxlan("10.244.0.128"),
        "10.244.128.128/26": plain("10.0.2.31"),
    }


def test_a_node_that_the_vxlan_pool_leaves_out_has_no_device_and_no_way_into_it() -> None:
    """IPAM gives worker2 no tunnel address, so Felix makes no device there, and writes no routes through one."""
    rack = [node if node["name"] == "worker2" else node | {"labels": {"rack": "a"}} for node in labs.NODES]
    blocks = BOTH_BLOCKS | {"worker2": ["10.244.128.128/26"]}
    first = pool("VXLAN", nodeSelector="rack == 'a'")
    found = of(first, pool("None", SECOND), blocks=blocks, bgp="Enabled", nodes=rack)
    # No device is required there, and none forbidden, for other nodes have it.
    assert tunnels(found, "worker2") == {}
    assert routes(found, "worker2") == {
        "10.244.128.128/26": blackhole(BIRD),
        "10.244.128.0/26": ROUTED,
        "10.244.128.64/26": plain("10.0.2.30"),
    }
    assert not found.of(Topic.NEIGHBOUR, "worker2") and not found.of(Topic.FDB, "worker2")
    assert found.table(Topic.FDB, "worker1").keys() == {f"vxlan.calico {VXLAN_MAC['control1']}"}


def test_no_route_is_expected_to_a_block_outside_the_labs_pools() -> None:
    """A pool was renumbered, and the nodes still hold blocks of the old one. The routes to the others stay."""
    old = {name: ["10.243.0.0/26", *cidrs] for name, cidrs in BLOCKS.items()}
    found = of(pool("VXLAN"))
    assert routes(again(found, affinities=old), "worker1") == routes(found, "worker1")


@pytest.mark.parametrize(("size", "dropped"), [(31, True), (32, False)])
def test_a_block_of_one_address_needs_no_blackhole(size: int, dropped: bool) -> None:
    """The route to the only pod is as long as the block, so it would take the blackhole's place."""
    first = pool("None", cidr="10.244.0.0/26", blockSize=size)
    blocks = {"control1": [f"10.244.0.0/{size}"], "worker1": [f"10.244.0.2/{size}"], "worker2": [f"10.244.0.4/{size}"]}
    found = again(of(pool("None")), spec=Lab.model_validate(labs.document(first)), affinities=blocks)
    assert (f"10.244.0.2/{size}" in routes(found, "worker1")) is dropped


# --- what Calico has not written yet ----------------------------------------------------------------------------------


def test_without_its_annotation_a_nodes_tunnel_address_is_the_blocks_first() -> None:
    """IPAM gives the first free address. The neighbour entry's key is that address, so no entry is expected yet."""
    found = of(pool("VXLAN"))
    known = {node: it for node, it in found.observed.tunnel_addresses.items() if node != "control1"}
    found = again(found, tunnel_addresses=known)
    assert routes(found, "worker1")["10.244.0.0/26"] == through_vxlan("10.244.0.0")
    assert "addresses" not in (tunnels(found, "control1")["vxlan.calico"] or {})
    assert found.table(Topic.NEIGHBOUR, "worker1").keys() == {"vxlan.calico 10.244.0.128"}
    assert found.table(Topic.FDB, "worker1").keys() == {f"vxlan.calico {VXLAN_MAC['worker2']}"}


def test_a_tunnel_address_that_is_not_the_blocks_first() -> None:
    """Calico gives any free address of the block, for example after an earlier pod had the first."""
    found = of(pool("VXLAN"))
    known = dict(found.observed.tunnel_addresses) | {"control1": {"IPv4VXLANTunnelAddr": "10.244.0.7"}}
    found = again(found, tunnel_addresses=known)
    assert routes(found, "worker1")["10.244.0.0/26"] == through_vxlan("10.244.0.7")
    assert "vxlan.calico 10.244.0.7" in found.table(Topic.NEIGHBOUR, "worker1")
    assert (tunnels(found, "control1")["vxlan.calico"] or {})["addresses"] == "10.244.0.7/32"


# --- BGP --------------------------------------------------------------------------------------------------------------


TOR = {"name": "tor", "peerIP": "10.0.2.1", "asNumber": 64999}


def sessions(found: Expected) -> dict[str, set[str]]:
    return {node["name"]: set(found.table(Topic.BGP, node["name"])) for node in labs.NODES}


def test_a_mesh_has_a_session_between_every_two_nodes() -> None:
    found = of(pool("None"), bgp="Enabled")
    assert sessions(found) == {
        "control1": {"10.0.2.30", "10.0.2.31"},
        "worker1": {"10.0.1.20", "10.0.2.31"},
        "worker2": {"10.0.1.20", "10.0.2.30"},
    }
    assert found.one(Topic.BGP, "10.0.1.20", "worker1").because == "every node is a peer of every other"


def test_route_reflectors_have_all_sessions_and_the_others_only_theirs() -> None:
    found = of(pool("None"), bgp="Enabled", routeReflectors=["worker1"])
    assert sessions(found) == {
        "control1": {"10.0.2.30"},
        "worker1": {"10.0.1.20", "10.0.2.31"},
        "worker2": {"10.0.2.30"},
    }
    assert "routeReflectors" in found.one(Topic.BGP, "10.0.2.30", "control1").because
    # A reflector leaves the next hop as it is: control1 still sends to worker2 itself.
    assert routes(found, "worker2")["10.244.0.64/26"] == plain("10.0.2.30")


def test_without_a_mesh_the_routers_choose_the_next_hop() -> None:
    found = of(pool("None"), bgp="Enabled", nodeToNodeMesh=False, peers=[TOR])
    assert sessions(found) == {name: {"10.0.2.1"} for name in BLOCKS}
    assert routes(found, "worker1") == {
        "10.244.0.64/26": blackhole(BIRD),
        "10.244.0.0/26": {"proto": BIRD},
        "10.244.0.128/26": {"proto": BIRD},
    }
    # VXLAN's routes are Felix's, with or without BGP.
    found = of(pool("VXLAN"), bgp="Enabled", nodeToNodeMesh=False, peers=[TOR])
    assert routes(found, "worker1")["10.244.0.0/26"] == through_vxlan("10.244.0.0")


def test_only_the_nodes_that_a_peer_selects_have_a_session_to_it() -> None:
    on_worker1 = TOR | {"nodeSelector": "kubernetes.io/hostname == 'worker1'"}
    assert sessions(of(pool("None"), bgp="Enabled", nodeToNodeMesh=False, peers=[on_worker1])) == {
        "control1": set(),
        "worker1": {"10.0.2.1"},
        "worker2": set(),
    }


def test_a_selector_that_depends_on_the_machine_asks_for_no_session() -> None:
    """Whether a node is arm64 is not in the stack file."""
    unknown = TOR | {"nodeSelector": "kubernetes.io/arch == 'arm64'"}
    found = of(pool("None"), bgp="Enabled", nodeToNodeMesh=False, peers=[unknown])
    assert sessions(found) == {name: set() for name in BLOCKS}


def test_only_a_peer_with_a_password_can_have_another_one() -> None:
    spare = TOR | {"name": "spare", "peerIP": "10.0.2.2", "password": {"config": "torPassword"}}
    found = of(pool("None"), bgp="Enabled", peers=[TOR, spare])
    assert "password" not in found.one(Topic.BGP, "10.0.2.1", "worker1").cause
    assert "password" in found.one(Topic.BGP, "10.0.2.2", "worker1").cause


def test_without_bgp_there_is_no_session_to_a_peer() -> None:
    assert sessions(of(pool("VXLAN"), bgp="Disabled", peers=[TOR])) == {name: set() for name in BLOCKS}


# --- whom to restart, and the ways of walks ---------------------------------------------------------------------------


@pytest.mark.parametrize(("install", "namespace"), [("operator", "calico-system"), ("manifest", "kube-system")])
def test_calico_node_is_restarted_where_it_runs(install: str, namespace: str) -> None:
    found = of(pool("VXLAN"), install=install)
    assert f"kubectl -n {namespace} delete pod" in found.one(Topic.ROUTE, "10.244.0.0/26", "worker1").advice


def test_the_ways_that_only_a_walk_asks_for() -> None:
    observed = of(pool("VXLAN")).observed
    assert underlay(observed, "worker1", "10.0.1.20").expected == {"dev": "eth0"}
    assert any_route("worker1", "10.9.9.9").expected == {}, "any at all"
