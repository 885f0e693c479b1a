"""The documents that the labs are made from, walked in sandboxes: what they show and what follows from names and ranges
must be seen there, line by line. The seeds' sources are cited in docs/labs.

A line stands as the document prints it. `shown` replaces what its author's computers had by chance: the name of the
network card, and tunnel addresses that depended on which pods were there first.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from components.sandbox.fit import fit
from components.sandbox.model import Plan, tunnel_mac
from components.sandbox.objects import make_objects
from components.sandbox.plan import make_plan
from components.sandbox.requirements import examine
from components.sandbox.running import Running
from components.slowdown import scaled
from components.spec.load import load_stack_file
from components.spec.models import Lab
from components.verify.faults.inject import inject, mend
from components.verify.faults.symptoms import aim
from components.verify.faults.table import FAULTS
from components.verify.read.namespace import NamespaceAccess
from components.verify.read.reading import LiveLab, observed, read_lab
from components.verify.report import verify
from components.verify.walk.live import walk_live
from tests.verify.replica import skip_without_kernel

STACKS = Path(__file__).parents[2] / "stacks"

if examine().problem:
    pytest.skip(f"no sandbox can be built here: {examine().problem}", allow_module_level=True)


class Seed:
    """A sandbox in which lines of a document are looked for."""

    def __init__(self, live: LiveLab, plan: Plan, shown: Mapping[str, str]) -> None:
        self.live = live
        self.plan = plan
        self._shown = shown

    def run(self, node: str, *argv: str) -> str:
        access = self.live.access[node]
        assert isinstance(access, NamespaceAccess)
        done = subprocess.run(access.command(argv), capture_output=True, text=True, timeout=scaled(60), check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def run_in_pod(self, address: str, *argv: str) -> str:
        (pod,) = [it for it in self.plan.pods if str(it.address) == address]
        return self.run(pod.node, "ip", "netns", "exec", pod.netns, *argv)

    def shows(self, output: str, document: str) -> None:
        """Every line of the document is in the output: its words, in their order, within one line."""
        lines = [line.split() for line in output.replace("proto 12", "proto bird").splitlines()]
        for line in filter(None, map(str.strip, document.splitlines())):
            for theirs, ours in self._shown.items():
                line = line.replace(theirs, ours)
            assert any(in_order(line.split(), words) for words in lines), f"{line!r} is not in:\n{output}"


def in_order(wanted: Sequence[str], words: Sequence[str]) -> bool:
    rest = iter(words)
    return all(word in rest for word in wanted)


@contextlib.contextmanager
def seed(
    lab: Lab, folder: Path, shown: Mapping[str, str], blocks: Mapping[str, Sequence[str]] | None = None
) -> Iterator[Seed]:
    fitted, _ = fit(lab, examine(lab))
    running = Running(make_plan(fitted, stack="seed", blocks=blocks), folder)
    running.start()
    try:
        yield Seed(LiveLab.of(fitted, running.outputs, None), running.plan, shown)
    finally:
        running.stop()


def shipped(stack: str) -> Lab:
    return load_stack_file(STACKS / f"Pulumi.{stack}.yaml").lab


def changed(lab: Lab, **calico: Any) -> Lab:
    document = lab.model_dump(mode="json", by_alias=True)
    document["calico"] |= calico
    return Lab.model_validate(document)


def test_seeds_000_and_004_egress_through_a_second_network(tmp_path: Path) -> None:
    with seed(shipped("cfos-egress"), tmp_path, {"ens5": "eth0"}) as it:
        # "the pod now has a default route … only those two": default-calico's addresses and routes.
        it.shows(it.run_in_pod("10.244.97.50", "ip", "-d", "addr"), "mtu 8951\ninet 10.244.97.50/32 scope global eth0")
        routes = it.run_in_pod("10.244.97.50", "ip", "route")
        it.shows(
            routes,
            """
            10.0.0.0/8 via 169.254.1.1 dev eth0
            10.96.0.0/12 via 169.254.1.1 dev eth0
            169.254.1.1 dev eth0 scope link
            """,
        )
        assert "default" not in routes
        # Patched with the bridge: net1. The lab gives .2, which the document's default route names, to a firewall.
        it.shows(
            it.run_in_pod("10.244.97.51", "ip", "addr"),
            """
            mtu 1500 qdisc noqueue state UP group default
            inet 10.1.128.10/24 brd 10.1.128.255 scope global net1
            """,
        )
        it.shows(
            it.run_in_pod("10.244.97.51", "ip", "route"),
            """
            default via 10.1.128.2 dev net1
            10.0.0.0/8 via 169.254.1.1 dev eth0
            10.0.0.2 via 10.1.128.1 dev net1
            10.1.128.0/24 dev net1 proto kernel scope link src 10.1.128.10
            10.96.0.0/12 via 10.1.128.1 dev net1
            10.96.0.0/12 via 169.254.1.1 dev eth0
            169.254.1.1 dev eth0 scope link
            """,
        )
        # In the document that route leads to the pod itself; the lab has this as a fault.
        of = observed(it.live, asyncio.run(read_lab(it.live)))
        fault = FAULTS["wrong-default-route"]
        target = aim(fault, of)
        asyncio.run(inject(it.live, "seed", fault, target))
        it.shows(it.run_in_pod("10.244.97.51", "ip", "route"), "default via 10.1.128.10 dev net1")
        assert asyncio.run(mend(it.live, "seed")).undone
        # What calico-ipam, host-local and Multus say.
        it.shows(it.run("ip1001100", "ls", "/var/lib/cni/networks/net-calico"), "10.244.6.150")
        events = [event for event in _messages(it) if "10.244.6.150" in event]
        assert events == ["Add eth0 [10.244.6.150/32] from kube-system/net-calico"]
        it.shows(it.run("ip-10-0-2-200", "journalctl", "-u", "crio"), 'network name to multus-cni-network"')


def _messages(it: Seed) -> list[str]:
    return [event["message"] for event in make_objects(it.plan)["/api/v1/events"]]


def test_seed_000_the_packet_walk(tmp_path: Path) -> None:
    with seed(shipped("cfos-egress"), tmp_path, {"ens5": "eth0"}) as it:
        it.run_in_pod("10.244.97.51", "ping", "-c", "1", "-w", "3", "10.244.93.50")
        # Steps 1 to 3: the pod's next hop, and who answers for it.
        it.shows(
            it.run_in_pod("10.244.97.51", "ip", "route", "get", "10.244.93.50"),
            "10.244.93.50 via 169.254.1.1 dev eth0 src 10.244.97.51",
        )
        it.shows(it.run_in_pod("10.244.97.51", "ip", "neigh"), "169.254.1.1 lladdr ee:ee:ee:ee:ee:ee")
        (pod,) = [it for it in it.plan.pods if str(it.address) == "10.244.97.51"]
        it.shows(it.run("ip-10-0-2-200", "cat", f"/proc/sys/net/ipv4/conf/{pod.interface}/proxy_arp"), "1")
        # Steps 5 and 6: the host's route, the permanent neighbour, the tunnel.
        it.shows(
            it.run("ip-10-0-2-200", "ip", "route", "get", "10.244.93.50"),
            "10.244.93.50 via 10.244.93.0 dev vxlan.calico src 10.244.97.0",
        )
        it.shows(it.run("ip-10-0-2-200", "ip", "route"), "10.244.93.0/24 via 10.244.93.0 dev vxlan.calico onlink")
        it.shows(
            it.run("ip-10-0-2-200", "ip", "neigh"), "10.244.93.0 dev vxlan.calico lladdr 66:73:5c:ce:0d:ae PERMANENT"
        )
        it.shows(
            it.run("ip-10-0-2-200", "ip", "-d", "address", "show", "dev", "vxlan.calico"),
            """
            vxlan.calico: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 8951 qdisc noqueue state UNKNOWN group default
            link/ether 66:55:b7:b7:f8:dc brd ff:ff:ff:ff:ff:ff promiscuity 0 minmtu 68 maxmtu 65535
            vxlan id 4096 local 10.0.2.200 dev ens5 srcport 0 0 dstport 4789 nolearning ttl auto ageing 300
            inet 10.244.97.0/32 scope global vxlan.calico
            """,
        )
        # Step 7, on the wire: both tunnels' addresses, the VNI and the inner packet.
        if "tcpdump" not in it.run("ip-10-0-2-200", "bash", "-c", "command -v tcpdump || true"):
            pytest.skip("tcpdump is not installed")
        found = asyncio.run(walk_live(it.live, "normal-egress@ip-10-0-2-200", "10.244.93.50", captured=True))
        walk, seen = found.walk, found.sightings
        assert walk.ping.status == "passed" and not found.notes
        (wire,) = [s for s in seen if s.point.node == "ip-10-0-2-200" and s.point.device == "eth0" and not s.point.pod]
        for line in ("4789:", "VXLAN, flags [I] (0x08), vni 4096", "10.244.97.51 > 10.244.93.50: ICMP echo request"):
            assert line in wire.request, wire.request
        assert "10.0.2.200." in wire.request and "ttl 63" in wire.request


BLOCKS_001 = {
    "control1": ["10.48.0.128/26", "10.48.128.128/26"],
    "worker1": ["10.48.0.192/26", "10.48.128.192/26"],
    "worker2": ["10.48.0.0/26", "10.48.128.0/26"],
}


def test_seed_001_without_encapsulation_and_with_vxlan(tmp_path: Path) -> None:
    lab = shipped("cross-node")
    # The author's tunnel addresses came after pods'; a fresh cluster gives the block's first.
    shown = {"ens5": "eth0", "10.48.0.46": "10.48.0.0", "10.48.0.206": "10.48.0.192"}
    (tmp_path / "bgp").mkdir()
    with seed(lab, tmp_path / "bgp", shown, BLOCKS_001) as it:
        links = it.run("control1", "ip", "-d", "link")
        assert "vxlan.calico" not in links
        it.shows(links, "mtu 9001 qdisc noqueue state UP\nlink/ether ee:ee:ee:ee:ee:ee brd ff:ff:ff:ff:ff:ff")
        it.shows(
            it.run("control1", "ip", "route"),
            """
            10.0.1.0/24 dev ens5 proto kernel scope link src 10.0.1.20
            10.48.0.0/26 via 10.0.1.31 dev ens5 proto bird
            blackhole 10.48.0.128/26 proto bird
            10.48.0.192/26 via 10.0.1.30 dev ens5 proto bird
            10.48.128.0/26 via 10.0.1.31 dev ens5 proto bird
            10.48.128.192/26 via 10.0.1.30 dev ens5 proto bird
            """,
        )
        assert all(result.status == "passed" for result in verify(it.live, asyncio.run(read_lab(it.live))))
    pools = [dict(pool) for pool in lab.model_dump(mode="json", by_alias=True)["calico"]["pools"]]
    pools[0]["encapsulation"] = "VXLAN"
    (tmp_path / "vxlan").mkdir()
    with seed(changed(lab, pools=pools), tmp_path / "vxlan", shown, BLOCKS_001) as it:
        it.shows(
            it.run("control1", "ip", "route"),
            """
            10.48.0.0/26 via 10.48.0.46 dev vxlan.calico onlink
            blackhole 10.48.0.128/26 proto 80
            10.48.0.192/26 via 10.48.0.206 dev vxlan.calico onlink
            10.48.128.0/26 via 10.0.1.31 dev ens5 proto bird
            10.48.128.192/26 via 10.0.1.30 dev ens5 proto bird
            """,
        )
        it.shows(it.run("control1", "ip", "link"), "vxlan.calico: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 8951")
        # The author's nodes had EC2's names in Ireland; their MAC addresses follow from these.
        names = {
            "ip-10-0-1-30.eu-west-1.compute.internal": "worker1",
            "ip-10-0-1-31.eu-west-1.compute.internal": "worker2",
        }
        macs = {tunnel_mac(theirs): tunnel_mac(ours) for theirs, ours in names.items()}
        assert list(macs) == ["66:14:9d:f4:2c:1f", "66:4b:ff:e1:ef:01"]
        it = Seed(it.live, it.plan, shown | macs)
        it.shows(
            it.run("control1", "ip", "neigh"),
            """
            10.48.0.206 dev vxlan.calico lladdr 66:14:9d:f4:2c:1f PERMANENT
            10.48.0.46 dev vxlan.calico lladdr 66:4b:ff:e1:ef:01 PERMANENT
            """,
        )
        it.shows(
            it.run("control1", "bridge", "fdb", "show"),
            """
            66:14:9d:f4:2c:1f dev vxlan.calico dst 10.0.1.30 self permanent
            66:4b:ff:e1:ef:01 dev vxlan.calico dst 10.0.1.31 self permanent
            """,
        )


def lab_002(encapsulation: str) -> Lab:
    return Lab.model_validate(
        {
            "machines": {"provider": "local"},
            "network": {"subnets": {"nodes": "172.17.0.0/24"}, "mtu": 1500},
            "nodes": [
                {"name": "controlplane", "role": "control-plane", "subnet": "nodes", "address": "172.17.0.32"},
                {"name": "node01", "subnet": "nodes", "address": "172.17.0.40"},
            ],
            "kubernetes": {"podCidr": "192.168.0.0/16"},
            "calico": {
                "bgp": "Disabled" if encapsulation == "VXLAN" else "Enabled",
                "mtu": 1440,
                "pools": [{"name": "default", "cidr": "192.168.0.0/16", "encapsulation": encapsulation}],
            },
            "workloads": [
                {
                    "name": "busybox",
                    "image": "docker.io/library/busybox:1.37",
                    "replicas": 2,
                    "onControlPlane": True,
                }
            ],
        }
    )


BLOCKS_002 = {"controlplane": ["192.168.49.64/26"], "node01": ["192.168.196.128/26"]}
ROUTES_002 = {
    "IPIP": """
        blackhole 192.168.49.64/26 proto bird
        192.168.196.128/26 via 172.17.0.40 dev tunl0 proto bird onlink
        """,
    "None": """
        blackhole 192.168.49.64/26 proto bird
        192.168.196.128/26 via 172.17.0.40 dev ens3 proto bird
        """,
    "VXLAN": "192.168.196.128/26 via 192.168.196.128 dev vxlan.calico onlink",
}


@pytest.mark.parametrize("encapsulation", ROUTES_002)
def test_seed_002_one_pod_s_packet_in_each_mode(encapsulation: str, tmp_path: Path) -> None:
    lab = lab_002(encapsulation)
    skip_without_kernel(lab)
    with seed(lab, tmp_path, {"ens3": "eth0"}, BLOCKS_002) as it:
        it.shows(it.run("controlplane", "ip", "route"), ROUTES_002[encapsulation])
        here, there = [pod for pod in it.plan.pods if pod.labels.get("app") == "busybox"]
        inside = it.run_in_pod(str(here.address), "ip", "route")
        it.shows(inside, "default via 169.254.1.1 dev eth0\n169.254.1.1 dev eth0 scope link")
        it.shows(it.run_in_pod(str(here.address), "ip", "addr"), f"inet {here.address}/32 scope global eth0")
        answer = it.run_in_pod(str(here.address), "ping", str(there.address), "-c", "1", "-w", "3")
        assert "ttl=62" in answer
        it.shows(it.run_in_pod(str(here.address), "ip", "neigh"), "169.254.1.1 lladdr ee:ee:ee:ee:ee:ee")
        it.shows(it.run("controlplane", "ip", "link"), "mtu 1440\nlink/ether ee:ee:ee:ee:ee:ee")
        it.shows(it.run("controlplane", "cat", f"/proc/sys/net/ipv4/conf/{here.interface}/proxy_arp"), "1")
        if encapsulation == "VXLAN":
            it.shows(it.run("node01", "ip", "addr"), "link/ether 66:aa:99:2f:dc:24\ninet 192.168.196.128/32")


BLOCKS_003 = {
    "master1": ["10.233.104.64/26"],
    "master2": ["10.233.116.0/26"],
    "master3": ["10.233.72.0/26"],
    "worker1": ["10.233.105.128/26"],
    "worker2": ["10.233.125.0/26"],
}


def test_seed_003_vxlan_on_own_hosts(tmp_path: Path) -> None:
    shown = {"via 10.233.105.132": "via 10.233.105.128"}
    with seed(shipped("components"), tmp_path, shown, BLOCKS_003) as it:
        it.shows(
            it.run("master1", "ip", "-d", "addr"),
            """
            <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500
            inet 192.168.56.11/24 brd 192.168.56.255 scope global eth1
            vxlan.calico: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1450 qdisc noqueue state UNKNOWN group default
            link/ether 66:31:3a:fa:51:89 brd ff:ff:ff:ff:ff:ff
            inet 10.233.104.64/32 scope global vxlan.calico
            mtu 1450 qdisc noqueue state UP group default
            link/ether ee:ee:ee:ee:ee:ee brd ff:ff:ff:ff:ff:ff
            """,
        )
        it.shows(
            it.run("master1", "ip", "route"),
            """
            10.233.72.0/26 via 10.233.72.0 dev vxlan.calico onlink
            blackhole 10.233.104.64/26 proto 80
            10.233.105.128/26 via 10.233.105.132 dev vxlan.calico onlink
            10.233.116.0/26 via 10.233.116.0 dev vxlan.calico onlink
            10.233.125.0/26 via 10.233.125.0 dev vxlan.calico onlink
            192.168.56.0/24 dev eth1 proto kernel scope link src 192.168.56.11
            """,
        )
        it.shows(
            it.run("master2", "ip", "addr"),
            "link/ether 66:35:31:bd:3e:3a brd ff:ff:ff:ff:ff:ff\ninet 10.233.116.0/32 scope global vxlan.calico",
        )
        it.shows(
            it.run("master2", "ip", "route"),
            """
            10.233.104.64/26 via 10.233.104.64 dev vxlan.calico onlink
            10.233.105.128/26 via 10.233.105.132 dev vxlan.calico onlink
            blackhole 10.233.116.0/26 proto 80
            192.168.56.0/24 dev eth1 proto kernel scope link src 192.168.56.12
            """,
        )


BLOCKS_003_DIRECT = {"master1": ["172.16.0.0/24"], "one": ["172.16.116.0/24"], "two": ["172.16.184.0/24"]}


@pytest.mark.parametrize("encapsulation", ["IPIP", "None"])
def test_seed_003_ipip_and_direct_routing(encapsulation: str, tmp_path: Path) -> None:
    names = {"master1": "192.168.10.11", "one": "192.168.10.10", "two": "192.168.10.102"}
    lab = Lab.model_validate(
        {
            "machines": {"provider": "local"},
            "network": {"subnets": {"nodes": "192.168.10.0/24"}},
            "nodes": [
                {"name": name, "subnet": "nodes", "address": address}
                | ({"role": "control-plane"} if name == "master1" else {})
                for name, address in names.items()
            ],
            "kubernetes": {"podCidr": "172.16.0.0/16"},
            "calico": {
                "bgp": "Enabled",
                "pools": [
                    {"name": "default", "cidr": "172.16.0.0/16", "blockSize": 24, "encapsulation": encapsulation}
                ],
            },
        }
    )
    skip_without_kernel(lab)
    device = "tunl0" if encapsulation == "IPIP" else "ens5"
    with seed(lab, tmp_path, {"ens5": "eth0"}, BLOCKS_003_DIRECT) as it:
        # `route -n` of the document, as `ip route` prints it.
        it.shows(
            it.run("master1", "ip", "route"),
            f"""
            172.16.116.0/24 via 192.168.10.10 dev {device}
            172.16.184.0/24 via 192.168.10.102 dev {device}
            """,
        )
