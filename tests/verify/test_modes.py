"""Modes that no replica has: what is expected there, and the way that a packet takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any

from rich.console import Console

from cli.live.addresses import show
from components.spec.models import Lab as LabSpec
from components.verify.addresses import table
from components.verify.expect import expectations
from components.verify.model import Expectation, NodeFacts, ObservedLab, host_interface
from components.verify.read import facts
from components.verify.read.api import Objects
from components.verify.read.reading import LiveLab, Reading
from components.verify.walk.capture import points
from components.verify.walk.ends import Ends
from components.verify.walk.model import Walk
from components.verify.walk.route import walk
from tests.verify.replica_labs import IMAGE

HERE, THERE = "one", "two"
BLOCKS = {HERE: ["10.244.0.0/26"], THERE: ["10.244.0.64/26"]}


def lab(pools: Sequence[Mapping[str, Any]], **calico: Any) -> LabSpec:
    return LabSpec.model_validate(
        {
            "machines": {"provider": "local"},
            "nodes": [
                {"name": HERE, "role": "control-plane", "subnet": "control", "address": "10.0.1.20"},
                {"name": THERE, "subnet": "control", "address": "10.0.1.30"},
            ],
            "calico": {"pools": pools, **calico},
            "workloads": [{"name": "w", "image": IMAGE, "replicas": 2, "onControlPlane": True}],
        }
    )


def pool(encapsulation: str, **more: Any) -> dict[str, Any]:
    return {"name": "p", "cidr": "10.244.0.0/16", "blockSize": 26, "encapsulation": encapsulation, **more}


def node(name: str, **annotations: str) -> dict[str, Any]:
    """A node as the API has it; its podCIDR is its block."""
    given = {f"projectcalico.org/{key}": value for key, value in annotations.items()}
    return {"metadata": {"name": name, "annotations": given}, "spec": {"podCIDR": BLOCKS[name][0]}}


def affinities() -> list[dict[str, Any]]:
    return [{"spec": {"node": n, "cidr": cidr, "state": "confirmed"}} for n, (cidr,) in BLOCKS.items()]


def expected(spec: LabSpec, nodes: Sequence[dict[str, Any]], **objects: Sequence[dict[str, Any]]) -> list[Expectation]:
    cluster = facts.cluster(
        Objects({"nodes": tuple(nodes), **{kind: tuple(items) for kind, items in objects.items()}}),
        host_local=spec.calico.ipam == "HostLocal",
    )
    return expectations(ObservedLab.of(spec, BLOCKS, cluster, [], {}))


def keys(found: Sequence[Expectation], node: str | None, topic: str) -> list[str]:
    return [e.key for e in found if (e.node, e.topic) == (node, topic)]


def test_with_host_local_a_nodes_block_is_its_pod_cidr() -> None:
    """There are no BlockAffinities, and BIRD announces spec.podCIDR to the peers (USE_POD_CIDR)."""
    spec = lab([pool("None")], bgp="Enabled", ipam="HostLocal")
    nodes = [node(HERE), node(THERE)]
    found = expected(spec, nodes)
    assert keys(found, HERE, "route") == ["10.244.0.0/26", "10.244.0.64/26"], "its own blackhole, and the way to two"
    cluster = facts.cluster(Objects({"nodes": tuple(nodes)}), host_local=True)
    held = [e for e in found if e.topic == "affinity"]
    assert len(held) == 2
    for e in held:
        assert e.expected is not None
        assert cluster.get("affinity", e.key)[0].fields == dict(e.expected)
        assert e.command.startswith("kubectl get nodes ")


def test_with_host_local_the_table_of_addresses_has_its_addresses() -> None:
    spec = lab([pool("None")], bgp="Enabled", ipam="HostLocal")
    objects = Objects(
        {"nodes": (node(HERE), node(THERE)), "ipamblocks": (), "pods": (pod_object(HERE, "10.244.0.10"),)}
    )
    files = "/var/lib/cni/networks/k8s-pod-network"
    there = facts.node_facts(section("host_local", f"{files}/10.244.0.10\n{files}/10.244.0.11\n{files}/lock"))
    reading = Reading(facts.cluster(objects, host_local=True), facts.pods(objects), {HERE: there})
    one, two = table(LiveLab(spec, BLOCKS, {}, ""), reading)
    assert one.host_local == {"10.244.0.10": f"default/w-{HERE}", "10.244.0.11": "k8s-pod-network"}
    assert (one.assigner, one.free, two.free) == ("host-local", 64 - 3 - 2, 64 - 3)
    text = StringIO()
    show("stack", [one, two], reading, Console(file=text, width=120))
    assert "host-local" in text.getvalue() and "calico-ipam" not in text.getvalue()


def test_a_node_that_no_vxlan_pool_selects_has_no_vxlan_device() -> None:
    """Felix makes vxlan.calico only with an address that IPAM gave to the node from such a pool."""
    spec = lab([pool("VXLAN", nodeSelector="rack == 'a'")])
    nodes = [node(HERE, IPv4VXLANTunnelAddr="10.244.0.1"), node(THERE)]
    found = expected(spec, nodes, blockaffinities=affinities())
    assert "vxlan.calico" in keys(found, HERE, "link") and "10.244.0.64/26" in keys(found, HERE, "route")
    assert "vxlan.calico" not in keys(found, THERE, "link")
    assert keys(found, THERE, "route") == ["10.244.0.64/26"], "its own blackhole alone"
    assert not keys(found, THERE, "neighbour") and not keys(found, THERE, "fdb")


def test_a_pool_for_every_node_needs_the_device_even_where_the_address_is_missing() -> None:
    found = expected(lab([pool("VXLAN")]), [node(HERE), node(THERE)], blockaffinities=affinities())
    assert all("vxlan.calico" in keys(found, name, "link") for name in BLOCKS)


# --- WireGuard over VXLAN --------------------------------------------------------------------------------------------


def section(name: str, output: str) -> str:
    return f"\x1e{name}\n{output}\n\x1f0\n"


def link(index: int, name: str, kind: str = "", address: str = "", mtu: int = 8941, **more: Any) -> dict[str, Any]:
    entry = {"ifindex": index, "ifname": name, "mtu": mtu, "flags": ["UP"], "address": more.pop("mac", "")}
    local, _, length = address.partition("/")
    info = [{"family": "inet", "local": local, "prefixlen": int(length)}] if address else []
    return entry | {"linkinfo": {"info_kind": kind}, "addr_info": info} | more


def node_facts(name: str, *, encrypted: bool) -> NodeFacts:
    """What observe.sh prints on a node: VXLAN's routes in the main table, WireGuard's in one that comes before it."""
    own = "20" if name == HERE else "30"
    at, other = ("10", "70") if name == HERE else ("70", "10")
    peer = THERE if name == HERE else HERE
    host = host_interface("default", f"w-{name}")
    links = [
        link(2, "eth0", address=f"10.0.1.{own}/24", mtu=9001),
        link(3, "vxlan.calico", "vxlan", mtu=8951),
        link(4, "wireguard.cali", "wireguard"),
        link(5, host, "veth", mac="ee:ee:ee:ee:ee:ee"),
    ]
    routes = (
        f"default via 10.0.1.1 dev eth0\n10.0.1.0/24 dev eth0 scope link\n10.244.0.{at} dev {host} scope link\n"
        f"{BLOCKS[peer][0]} via 10.244.0.1 dev vxlan.calico proto 80 onlink\n"
    )
    pod = [link(2, "eth0", "veth", f"10.244.0.{at}/32", link_index=5)]
    return facts.node_facts(
        section("link", json.dumps(links))
        + section("route", routes)
        + section("encrypted", f"{BLOCKS[peer][0]} dev wireguard.cali table 1 scope link" if encrypted else "")
        + section("filter", "")
        + section("proxy_arp", f"/proc/sys/net/ipv4/conf/{host}/proxy_arp:1")
        + section(f"probe {host} 10.244.0.{other}", "64 bytes: ttl=62")
        + section("pod p link", json.dumps(pod))
        + section("pod p route", "default via 169.254.1.1 dev eth0\n169.254.1.1 dev eth0 scope link")
        + section("pod p neighbour", "169.254.1.1 dev eth0 lladdr ee:ee:ee:ee:ee:ee REACHABLE")
    )


def pod_object(name: str, address: str) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "default", "name": f"w-{name}", "labels": {"cni-lab/workload": "w"}},
        "spec": {"nodeName": name},
        "status": {"podIP": address, "phase": "Running"},
    }


def wireguard(*, encrypted: bool) -> tuple[Walk, ObservedLab]:
    spec = lab([pool("VXLAN")], wireguard=True)
    pods = (pod_object(HERE, "10.244.0.10"), pod_object(THERE, "10.244.0.70"))
    objects = Objects({"nodes": (node(HERE), node(THERE)), "blockaffinities": tuple(affinities()), "pods": pods})
    nodes = {name: node_facts(name, encrypted=encrypted) for name in BLOCKS}
    reading = Reading(facts.cluster(objects), facts.pods(objects), nodes)
    live = LiveLab(spec, BLOCKS, {}, "")
    source, target = reading.pods
    found = walk(live, reading, Ends(source, target, target.address))
    return found, ObservedLab.of(spec, BLOCKS, reading.cluster, reading.pods, nodes)


def test_with_wireguard_a_packet_goes_by_its_table_and_not_by_vxlan() -> None:
    found, of = wireguard(encrypted=True)
    assert found.stopped is None and found.ping.status == "passed"
    tunnel = next(hop for hop in found.hops if hop.kind == "tunnel")
    assert (tunnel.device, tunnel.packet.outer_destination) == ("wireguard.cali", "10.0.1.30")
    assert tunnel.checks[0].expectation.expected == {"kind": "wireguard", "up": "yes", "mtu": "8941"}
    assert {hop.device for hop in found.hops}.isdisjoint({"vxlan.calico"})
    arrival = next(hop for hop in found.hops if hop.kind == "arrival")
    assert [check.expectation.key for check in arrival.checks] == ["udp 51820", "wireguard.cali"]
    heard = [point.device for point in points(found, of) if not point.pod]
    assert "wireguard.cali" in heard and "eth0" not in heard, "on the wire one encrypted ping looks like any other"


def test_without_its_route_the_packet_is_not_encrypted_and_the_walk_says_so() -> None:
    found, _ = wireguard(encrypted=False)
    assert found.ping.status == "passed" and found.stopped is not None
    assert (found.stopped.kind, found.stopped.node) == ("host route", HERE)
    assert found.stopped.checks[0].difference == "dev is vxlan.calico, expected wireguard.cali"
