"""Walks over the replica's data path: what a walk says of each hop is what tcpdump sees there."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import struct
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cli.live import walk as command
from cli.live.picture import picture
from components.spec.models import Lab
from components.spec.modes import IPIP, VXLAN, VXLAN_VNI, WIREGUARD, tunnel_of
from components.verify.model import Pod, host_interface, tunnel_mac
from components.verify.read.iproute import routes
from components.verify.read.reading import LiveLab
from components.verify.routes import best_route
from components.verify.walk.capture import Point, Sighting, digest, packets, sightings
from components.verify.walk.ends import ends_on_node, find_ends, find_pod
from components.verify.walk.live import LiveWalk, walk_live
from components.verify.walk.model import NoWalk, Walk
from tests.verify import replica_labs as labs
from tests.verify.bed import bed, counted
from tests.verify.replica import Replica

Bed = tuple[Replica, LiveLab]

ACROSS = ["pod route", "gateway arp", "host veth", "host route", "{}", "underlay", "arrival", "delivery"]
LOCAL = ["pod route", "gateway arp", "host veth", "delivery"]


@pytest.fixture(scope="module")
def egress() -> Iterator[Bed]:
    with bed(labs.EGRESS) as made:
        yield made


def walked(live: LiveLab, source: str, target: str, *, capture: bool = False) -> LiveWalk:
    return asyncio.run(walk_live(live, source, target, captured=capture))


def kinds(walk: Walk, direction: str) -> list[str]:
    return [hop.kind for hop in walk.hops if hop.direction == direction]


def across(middle: str) -> list[str]:
    return [kind.format(middle) for kind in ACROSS]


def holds(walk: Walk) -> None:
    assert walk.ping.status == "passed", walk.ping
    assert walk.stopped is None
    assert [hop.status for hop in walk.hops] == ["passed"] * len(walk.hops)


@pytest.mark.parametrize(
    ("lab", "source", "target", "middle"),
    [
        pytest.param(labs.VXLAN, "control1", "worker1", "tunnel", id="VXLAN"),
        pytest.param(labs.NONE, "worker1", "worker2", "plain", id="None"),
        pytest.param(labs.NONE_ROUTED, "control1", "worker2", "plain", id="None through a router"),
        pytest.param(labs.CROSS_SUBNET, "worker1", "worker2", "plain", id="CrossSubnet, one subnet"),
        pytest.param(labs.CROSS_SUBNET, "control1", "worker2", "tunnel", id="CrossSubnet, two subnets"),
    ],
)
def test_the_way_in_each_mode(lab: Lab, source: str, target: str, middle: str) -> None:
    with bed(lab, ssh=False) as (_, live):
        found = walked(live, f"multitool@{source}", f"multitool@{target}", capture=True)
        holds(found.walk)
        assert kinds(found.walk, "out") == kinds(found.walk, "back") == across(middle)
        agree(found)


def test_out_by_one_pool_and_back_by_the_other() -> None:
    """Seed 001 after its change: the destination's pool decides about the tunnel."""
    with bed(labs.MIXED, ssh=False) as (replica, live):
        first, second = replica.pod("multitool", "worker1", pool=1), replica.pod("multitool", "worker2", pool=0)
        walk = walked(live, first.key, second.key).walk
        holds(walk)
        assert kinds(walk, "out") == across("tunnel")
        assert kinds(walk, "back") == across("plain")


@pytest.mark.parametrize("lab", [pytest.param(labs.IPIP, id="IPIP"), pytest.param(labs.WIREGUARD, id="WireGuard")])
def test_tunnels_that_not_every_kernel_makes(lab: Lab) -> None:
    with bed(lab, ssh=False) as (_, live):
        found = walked(live, "multitool@control1", "multitool@worker1", capture=True)
        holds(found.walk)
        assert kinds(found.walk, "out") == across("tunnel")
        agree(found)


def agree(found: LiveWalk) -> None:
    """Packet by packet: what each hop says is in the line that tcpdump printed there."""
    walk, seen = found.walk, found.sightings
    if shutil.which("tcpdump") is None:
        pytest.skip("tcpdump is not installed: the walk is not held against packets")
    assert len(seen) >= 6
    assert all(sighting.request and sighting.reply for sighting in seen), [s.point for s in seen if not s.request]
    routed = int(
        any(hop.kind == "underlay" and "router" in hop.sentence and not hop.packet.outer_source for hop in walk.hops)
    )
    times = [sighting.at for sighting in seen if sighting.at is not None]
    assert times == sorted(times), "the packet passes the places in the walk's order"
    tunnel = next((tunnel_of(hop.device) for hop in walk.hops if hop.kind == "tunnel"), None)
    for hop in walk.hops:
        if hop.direction == "back" or hop.kind in ("host route", "arrival"):
            continue
        if tunnel == WIREGUARD and hop.kind == "underlay":
            # Encrypted: nothing there tells one packet from another.
            continue
        inside = walk.source.interface if hop.where == walk.source.id else ""
        at = next(s for s in seen if (s.point.node, s.point.device, s.point.pod) == (hop.node, hop.device, inside))
        packet = hop.packet
        line = digest(at.request)
        # A router between the subnets takes one too where no tunnel hides the packet.
        left = {packet.ttl} if hop.node == walk.source.node else {packet.ttl, packet.ttl - routed}
        assert any(f"{packet.source} > {packet.destination} ttl {ttl}" in line for ttl in left), hop
        if packet.source_mac and hop.kind != "underlay":
            assert f"{packet.source_mac} > {packet.destination_mac}" in line, hop
        if packet.outer_source and hop.kind == "underlay":
            assert tunnel is not None
            outer, name, inner = line.partition(tunnel.name)
            assert name, f"no outer header of {tunnel.name}: {line}"
            assert packet.outer_source in outer and packet.outer_destination in outer, hop
            assert packet.source in inner and packet.source not in outer, hop
            if tunnel == VXLAN:
                assert inner.startswith(f" vni {VXLAN_VNI} ")
                # Inside the tunnel the frame goes from one vxlan.calico to the other.
                macs = f"{tunnel_mac(walk.source.node)} > {tunnel_mac(walk.target.node if walk.target else '')}"
                assert macs in inner


def test_on_one_node(egress: Bed) -> None:
    found = walked(egress[1], "normal@ip-10-0-2-200", "egress@ip-10-0-2-200", capture=True)
    walk, seen = found.walk, found.sightings
    holds(walk)
    assert kinds(walk, "out") == kinds(walk, "back") == LOCAL
    assert walk.ping.seen.count("ttl=63") == 1
    assert [digest(s.request).rpartition("ttl ")[2] for s in seen] == ["64", "64", "63", "63"]


def test_the_default_route_through_the_bridge(egress: Bed) -> None:
    """Seed 000's egress: 10.0.0.0/8 by eth0, all else by net1, whose gateway is the bridge, not the pod itself."""
    out = walked(egress[1], "egress@ip-10-0-2-200", "192.0.2.1").walk
    assert kinds(out, "out") == ["pod route", "bridge", "host route", "masquerade", "outside"]
    assert kinds(out, "back") == []
    assert out.hops[0].packet.source.startswith("10.1.128.")
    assert out.hops[1].device == "cni5"
    inside = walked(egress[1], "egress@ip-10-0-2-200", "normal@ip-10-0-2-201").walk
    assert inside.hops[0].device == "eth0"


def test_a_packet_that_stays_on_an_attached_network(egress: Bed) -> None:
    """An address of the bridge's subnet that is not the bridge's own: no node routes the packet."""
    walk = walked(egress[1], "egress@ip-10-0-2-200", "10.1.128.77").walk
    assert kinds(walk, "out") == ["pod route", "outside"]
    assert walk.hops[0].checks[0].seen.startswith("10.1.128.0/24 dev net1")
    assert walk.stopped is None


def test_an_address_of_a_pod_is_that_pod(egress: Bed) -> None:
    replica, live = egress
    pod = replica.pod("normal", "ip-10-0-2-201")
    walk = walked(live, "normal@ip1001100", str(pod.address)).walk
    assert walk.target is not None and walk.target.id == pod.key


def test_two_connections_and_one_on_one_node(egress: Bed) -> None:
    with counted() as made:
        walked(egress[1], "normal@ip-10-0-2-200", "normal@ip-10-0-2-201", capture=True)
    assert len(made) == 2
    with counted() as made:
        walked(egress[1], "normal@ip-10-0-2-200", "egress@ip-10-0-2-200")
    assert len(made) == 1


def test_a_node_that_does_not_answer_leaves_the_other(egress: Bed) -> None:
    _, live = egress
    far = live.access["ip-10-0-2-201"]
    gone = LiveLab(live.spec, live.blocks, {n: a for n, a in live.access.items() if a != far}, live.kubeconfig)
    found = walked(gone, "normal@ip-10-0-2-200", "normal@ip-10-0-2-201")
    walk = found.walk
    assert "ip-10-0-2-201" in found.notes[0]
    of_far = {hop.status for hop in walk.hops if hop.node == "ip-10-0-2-201"}
    assert "unknown" in of_far
    assert {hop.status for hop in walk.hops if hop.node == "ip-10-0-2-200" and hop.direction == "out"} == {"passed"}


def test_a_lost_ping_is_captured_without_being_asked(egress: Bed) -> None:
    """Where every hop holds and no answer comes, the walk captures the packet by itself."""
    found = walked(egress[1], "egress@ip-10-0-2-200", "192.0.2.1")
    walk, seen = found.walk, found.sightings
    assert walk.ping.status == "failed"
    assert walk.stopped is None
    if shutil.which("tcpdump"):
        assert seen[0].request
        assert not any(sighting.reply for sighting in seen)
        assert command.last_seen(seen) == f"the request came as far as {seen[-1].point.where}, and there was no reply"


def test_page_json_and_picture(egress: Bed) -> None:
    found = walked(egress[1], "normal@ip-10-0-2-200", "egress@ip-10-0-2-201")
    walk = found.walk
    page = StringIO()
    command.show("lab", walk, found.sightings, found.notes, Console(file=page, width=120))
    text = page.getvalue()
    for words in ("The way out", "The way back", "vxlan.calico", "bridge fdb show dev vxlan.calico", "ttl=62"):
        assert words in text
    document = json.loads(json.dumps(walk.to_json()))
    assert document["stoppedAt"] is None
    assert [hop["hop"] for hop in document["hops"]] == [hop.kind for hop in walk.hops]
    assert all(check["command"] and check["seen"] for hop in document["hops"] for check in hop["checks"])
    svg = ET.fromstring(picture("lab", walk))
    words = " ".join(node.text or "" for node in svg.iter("{http://www.w3.org/2000/svg}text"))
    for part in ("ip-10-0-2-200", "ip-10-0-2-201", "tunnel: vxlan.calico", "delivery", "TTL 62", "10.0.2.201"):
        assert part in words
    assert "VXLAN, UDP 4789" in words and "proxy_arp of cali" in words
    assert "dstport 4789" in words, "lines must be wrapped, not cut off"
    assert "The way back" in words and "holds at every hop" in words
    assert float(svg.get("width", "0")) < 1600, "it must fit on a slide"
    lost = replace(walk, hops=tuple(replace(hop, reached=hop.direction == "out") for hop in walk.hops))
    assert "delivery): not reached" in picture("lab", lost)


@pytest.fixture(scope="module")
def sound_walk(egress: Bed) -> Walk:
    return walked(egress[1], "normal@ip-10-0-2-200", "egress@ip-10-0-2-201").walk


@pytest.mark.parametrize("marked", ["passed", "failed", "unknown", "not reached"])
def test_the_columns_of_the_page_are_aligned(sound_walk: Walk, marked: str) -> None:
    walk, hops = sound_walk, list(sound_walk.hops)
    if marked == "not reached":
        hops[1:] = [replace(hop, reached=False) for hop in hops[1:]]
    else:
        status: Any = marked
        hops[2] = replace(hops[2], checks=tuple(replace(check, status=status) for check in hops[2].checks))
    page = StringIO()
    command.show("lab", replace(walk, hops=tuple(hops)), (), (), Console(file=page, width=120))
    rows = [line for line in page.getvalue().splitlines() if re.match(r" *\d+ .{7}[a-z]", line)]
    assert [line[10:22].strip() for line in rows] == [hop.kind for hop in hops]
    below = [line for line in page.getvalue().splitlines() if "kubectl" in line or "ip-10-0-2-200$" in line]
    assert below and all(re.match(r" {10}\S", line) for line in below if not line.startswith("  fix"))


@pytest.mark.parametrize(
    ("difference", "reason"),
    [
        ("mtu is 1480, expected 1440", "because it is small. A large one may not."),
        ("mtu is 1480, expected 1440, up is no, expected yes", "because the kernel uses what it learnt before"),
        ("it is not there", "because the kernel uses what it learnt before"),
    ],
)
def test_a_page_says_why_a_packet_passes_where_a_hop_fails(egress: Bed, difference: str, reason: str) -> None:
    walk = walked(egress[1], "normal@ip-10-0-2-200", "egress@ip-10-0-2-201").walk
    hops = list(walk.hops)
    (first, *others) = hops[2].checks
    hops[2] = replace(hops[2], checks=(replace(first, status="failed", difference=difference), *others))
    page = StringIO()
    command.show("lab", replace(walk, hops=tuple(hops)), (), (), Console(file=page, width=120))
    assert f"The packet still passes, {reason}" in page.getvalue()


def test_clocks_of_two_nodes_may_differ(egress: Bed) -> None:
    walk = walked(egress[1], "normal@ip-10-0-2-200", "egress@ip-10-0-2-201").walk
    point = Point("ip-10-0-2-201", "", "vxlan.calico", "icmp")
    page = StringIO()
    command.show("lab", walk, [Sighting(point, -0.002108, "request", "")], (), Console(file=page, width=120))
    assert " -2.108 ms  vxlan.calico on ip-10-0-2-201" in page.getvalue()


# --- without a network ------------------------------------------------------------------------------------------------


def pod(name: str, node: str = "a", *, host: bool = False, phase: str = "Running", workload: str | None = "web") -> Pod:
    return Pod("default", name, node, "10.244.0.9", host, phase, workload, {}, "")


PODS = [
    pod("web-1"),
    pod("web-2", "b"),
    pod("dns", workload=None),
    pod("proxy", host=True),
    pod("late", phase="Pending"),
]


def test_pods_are_found_by_name_workload_and_node() -> None:
    assert find_pod(PODS, "web-2").name == "web-2"
    assert find_pod(PODS, "default/dns").name == "dns"
    assert find_pod(PODS, "web").name == "web-1"
    assert find_pod(PODS, "web@b").name == "web-2"
    assert find_pod(PODS, "web", other_than=PODS[0]).name == "web-2"
    assert find_pod(PODS, "proxy").host_network


@pytest.mark.parametrize(("name", "found"), [("dns", "dns-x"), ("kube-system/dns", "dns-x"), ("web", "web-1")])
def test_a_deployment_of_others_is_found_after_the_labs_own_workloads(name: str, found: str) -> None:
    def other(name: str, of: str) -> Pod:
        return replace(pod(name, workload=None), namespace="kube-system", controller=f"Deployment kube-system/{of}")

    assert find_pod([other("dns-x", "dns"), other("web-x", "web"), pod("web-1")], name).name == found


@pytest.mark.parametrize("end", ["web@a", "web@b", "web-1", "web"])
def test_a_workload_and_a_pod_of_it_are_two_pods(end: str) -> None:
    """Whichever of the workload's pods comes first."""
    start, target = find_ends(PODS, "web", end)[:2]
    assert target is not None and {start.name, target.name} == {"web-1", "web-2"}
    with pytest.raises(NoWalk, match="name two"):
        find_ends(PODS, "web-1", "web@a")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "nobody",
            "there is no pod nobody; the lab's workloads are: web. Also: [NAMESPACE/]NAME of any pod, Deployment",
        ),
        ("web@c", "there is no pod web@c; web has pods on: a, b"),
        ("late", "default/late does not run (phase Pending"),
    ],
)
def test_pods_that_cannot_be_walked_are_named(name: str, words: str) -> None:
    with pytest.raises(NoWalk) as caught:
        find_pod(PODS, name)
    assert words in str(caught.value)


def test_a_walk_begins_at_an_address_too() -> None:
    nodes = {"a": "10.0.2.1"}
    assert find_ends(PODS, "10.244.0.9", "web-2", nodes=nodes).source.name == "web-1"
    assert find_ends(PODS, "10.0.2.1", "web-2", nodes=nodes).source.id == "node/a"
    for source, target, words in (
        ("10.0.2.9", "web-2", "no pod and no node of the lab has the address 10.0.2.9"),
        ("web-1", "10.244.300.1", "10.244.300.1 is not an IPv4 address"),
    ):
        with pytest.raises(NoWalk, match=words):
            find_ends(PODS, source, target, nodes=nodes)


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("224.0.0.5", "multicast"),
        ("255.255.255.255", "reserved"),
        ("240.0.0.1", "reserved"),
        ("0.0.0.0", "reserved"),
    ],
)
def test_an_address_that_no_router_forwards_is_refused(target: str, kind: str) -> None:
    with pytest.raises(NoWalk, match=f"{target} is a {kind} address"):
        find_ends(PODS, "web-1", target)


def test_an_address_of_a_nodes_own_interface_is_the_node() -> None:
    """The end of a tunnel is known from the API; that of a bridge, when the source's node has been read."""
    nodes, tunnels = {"a": "10.0.2.1", "b": "10.0.2.2"}, {"10.244.97.0": "b"}
    ends = find_ends(PODS, "web-1", "10.244.97.0", nodes=nodes, tunnels=tunnels)
    assert ends.target is not None and (ends.target.id, ends.address) == ("node/b", "10.244.97.0")
    with pytest.raises(NoWalk, match=r"10\.244\.97\.0 is the address of node/b itself"):
        find_ends(PODS, "node/b", "10.244.97.0", nodes=nodes, tunnels=tunnels)
    beyond = find_ends(PODS, "web-1", "10.1.128.1", nodes=nodes, tunnels=tunnels)
    assert beyond.target is None and ends_on_node(beyond, False) == beyond
    on_node = ends_on_node(beyond, True).target
    assert on_node is not None and (on_node.id, on_node.address) == ("node/a", "10.1.128.1")
    with pytest.raises(NoWalk, match=r"10\.1\.128\.1 is the address of node/a itself"):
        ends_on_node(find_ends(PODS, "node/a", "10.1.128.1", nodes=nodes), True)
    assert ends_on_node(ends, True) == ends


def test_the_route_that_the_kernel_chooses() -> None:
    table = routes(
        "default via 10.0.2.1 dev eth0 metric 100\n"
        "default via 10.0.2.9 dev eth1 metric 50\n"
        "10.0.0.0/8 via 169.254.1.1 dev eth0\n"
        "10.96.0.0/12 via 10.1.128.1 dev net1\n"
        "10.96.0.0/12 via 169.254.1.1 dev eth0\n"
        "10.244.97.50 dev cali1 scope link\n"
    )

    def chosen(address: str) -> str:
        found = best_route(table, address)
        return found.entry.line if found else ""

    assert chosen("10.244.97.50").startswith("10.244.97.50 dev cali1")
    assert chosen("10.97.1.1") == "10.96.0.0/12 via 10.1.128.1 dev net1"
    assert chosen("10.1.2.3").startswith("10.0.0.0/8")
    assert chosen("8.8.8.8") == "default via 10.0.2.9 dev eth1 metric 50"
    assert best_route({}, "8.8.8.8") is None


def test_the_names_that_calico_gives() -> None:
    """As on a live lab: a pod's host side, and a node's tunnel MAC, which seed 000 shows too."""
    assert host_interface("default", "normal-645cfc6774-4sgc4") == "cali23eff6db456"
    assert tunnel_mac("ip-10-0-2-200") == "66:55:b7:b7:f8:dc"


TCPDUMP = """\
1795277469.100000 02:1c > 02:d3, ethertype IPv4 (0x0800): (tos 0x0, ttl 64, id 1, offset 0)
    10.244.97.51 > 10.244.93.150: ICMP echo request, id 7, seq 1, length 64
1795277469.100200 aa:aa:aa:aa:aa:aa > bb:bb:bb:bb:bb:bb, ethertype IPv4 (0x0800): (tos 0x0, ttl 62, id 2, offset 0)
    10.244.93.150 > 10.244.97.51: ICMP echo reply, id 7, seq 1, length 64
1795277469.200000 ARP, Request who-has 169.254.1.1
1795277469.300000 IP truncated
"""


def test_tcpdumps_lines() -> None:
    found = packets(TCPDUMP)
    assert [(p.kind, p.id, p.sequence) for p in found] == [("request", 7, 1), ("reply", 7, 1)]
    assert digest(found[1].text) == "aa:aa:aa:aa:aa:aa > bb:bb:bb:bb:bb:bb  10.244.93.150 > 10.244.97.51 ttl 62"
    assert sightings([], []) == []


def pcap(*packets: bytes) -> bytes:
    """A capture file with Ethernet frames (pcap, little-endian, version 2.4)."""
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)
    return head + b"".join(struct.pack("<IIII", 1, 0, len(packet), len(packet)) + packet for packet in packets)


def ipv4(source: str, destination: str, protocol: int, ttl: int, payload: bytes) -> bytes:
    head = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(payload), 1, 0, ttl, protocol, 0)
    return head + IPv4Address(source).packed + IPv4Address(destination).packed + payload


@pytest.mark.skipif(shutil.which("tcpdump") is None, reason="tcpdump is not installed")
def test_the_digest_of_an_ipip_packet(tmp_path: Path) -> None:
    """As tcpdump prints it from a file: no kernel has to make an IPIP tunnel for that."""
    echo = struct.pack(">BBHHH", 8, 0, 0, 7, 1) + bytes(56)
    packet = ipv4("10.0.1.20", "10.0.2.30", 4, 64, ipv4("10.244.0.2", "10.244.0.66", 1, 63, echo))
    file = tmp_path / "ipip.pcap"
    file.write_bytes(pcap(bytes.fromhex("02000000000202000000000108 00".replace(" ", "")) + packet))
    command = ["tcpdump", "-n", "-e", "-v", "-tt", "-r", str(file)]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    [found] = packets(text)
    assert (found.kind, found.id, found.sequence) == ("request", 7, 1)
    outer, name, inner = digest(found.text).partition(IPIP.name)
    assert outer.strip() == "02:00:00:00:00:01 > 02:00:00:00:00:02  10.0.1.20 > 10.0.2.30 ttl 64"
    assert name and inner.strip() == "10.244.0.2 > 10.244.0.66 ttl 63"
