"""Networks and sizes that no shipped stack has stand as sandboxes, and pass verify whole.

tests/cli/sandbox/test_demo.py has the shipped stacks, tests/verify/test_verify_replica.py every mode."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.sandbox import life
from components.sandbox.requirements import examine, find
from components.spec.load import parse_lab
from components.spec.models import Lab
from components.verify.faults.inject import inject, mend
from components.verify.faults.symptoms import aim, symptoms
from components.verify.faults.table import FAULTS
from components.verify.read.namespace import NamespaceAccess, NamespaceConnection
from components.verify.read.reading import LiveLab, observed, read_cluster, read_lab
from components.verify.report import verify
from components.verify.walk.live import walk_live
from tests.verify import replica_labs as labs
from tests.verify.expect.labs import expected

ROOT = Path(__file__).parents[2]

if examine().problem:
    pytest.skip(f"no sandbox can be built here: {examine().problem}", allow_module_level=True)


@contextlib.contextmanager
def sandbox(lab: Lab, home: Path) -> Iterator[tuple[LiveLab, life.LiveSandbox]]:
    running = life.build("lab", lab, home, stay=False)
    try:
        standing = life.find("lab", home)
        assert standing is not None
        yield LiveLab.of(standing.lab, standing.outputs, None), standing
    finally:
        running.stop()
        life.sweep(home)


def check(live: LiveLab) -> dict[str, str]:
    reading = asyncio.run(read_lab(live))
    assert not reading.no_api and not reading.unreachable
    return {r.expectation.id: f"{r.status}: {r.difference}" for r in verify(live, reading) if r.status != "passed"}


def on(live: LiveLab, node: str, *argv: str) -> subprocess.CompletedProcess[str]:
    access = live.access[node]
    assert isinstance(access, NamespaceAccess)
    return subprocess.run(access.command(argv), capture_output=True, text=True, timeout=30, check=False)


@pytest.fixture
def nobodys() -> Iterator[Path]:
    """A directory of `nobody`'s, where no other test run changes permissions."""
    if os.geteuid() != 0:
        pytest.skip("the other tests run as an ordinary user already")
    with tempfile.TemporaryDirectory(prefix="cnilab-test-") as folder:
        os.chown(folder, 65534, 65534)
        yield Path(folder)


def test_an_ordinary_user_has_the_same_sandbox(nobodys: Path) -> None:
    """As `nobody`, where this test runs as root, with a Python that `nobody` may run."""
    python = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    if not Path(python).exists():
        pytest.skip(f"there is no {python}, and nobody may not run {sys.executable}")
    home = nobodys / "home"
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    script = (
        "import asyncio, os, shutil, sys; from pathlib import Path\n"
        "from tests.sandbox.test_stacks import check, sandbox\n"
        "from components.verify.walk.live import walk_live\n"
        "from tests.verify import replica_labs\n"
        "assert os.geteuid() == 65534\n"
        "with sandbox(replica_labs.EGRESS, Path(sys.argv[1])) as (live, standing):\n"
        "    assert standing.rootless; print(check(live))\n"
        "    if shutil.which('tcpdump'):\n"
        "        names = 'normal@ip-10-0-2-200', 'normal@ip-10-0-2-201'\n"
        "        seen = asyncio.run(walk_live(live, *names, captured=True)).sightings\n"
        "        assert seen and all(sighting.request for sighting in seen), seen"
    )
    done = subprocess.run(
        ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", python, "-c", script, str(home)],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT}:{packages}", "PYTHONDONTWRITEBYTECODE": "1", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    if "may not make" in done.stderr or "forbids user namespaces" in done.stderr:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0 and done.stdout == "{}\n", done.stdout + done.stderr


def networked(networks: list[dict[str, Any]], attach: list[dict[str, Any]], replicas: int = 2) -> Lab:
    """EGRESS with these networks, and `replicas` pods attached to them."""
    document = labs.EGRESS.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    workload = {"name": "multi", "image": labs.IMAGE, "replicas": replicas, "networks": attach}
    return Lab.model_validate(document | {"networks": networks, "workloads": [workload]})


def test_a_narrow_network_and_a_pool_for_each_role_pass_verify(tmp_path: Path) -> None:
    """network.mtu reaches pods, tunnels and bridges; each node has its block and its tunnel from the pool it is in."""
    control_plane = "has(node-role.kubernetes.io/control-plane)"
    pools = [
        {"name": "cp", "cidr": "10.244.0.0/17", "nodeSelector": control_plane},
        {"name": "workers", "cidr": "10.244.128.0/17", "nodeSelector": f"!{control_plane}"},
    ]
    lab = parse_lab(
        {
            "machines": {"provider": "local"},
            "network": {"mtu": 1400},
            "calico": {"pools": pools},
            "workloads": [{"name": "all", "image": labs.IMAGE, "replicas": 3, "onControlPlane": True}],
        }
    )
    with sandbox(lab, tmp_path / "home") as (live, _):
        assert check(live) == {}
        for node in lab.nodes:
            assert " mtu 1350 " in on(live, node.name, "ip", "link", "show", "vxlan.calico").stdout
    bridged = networked(
        [{"name": "br", "type": "bridge", "bridge": "cni5", "subnet": "10.1.128.0/24"}], [{"name": "br"}]
    )
    bridged = bridged.model_copy(update={"network": bridged.network.model_copy(update={"mtu": 1400})})
    with sandbox(bridged, tmp_path / "bridged") as (live, _):
        assert check(live) == {}
        links = [on(live, node.name, "ip", "link", "show", "cni5").stdout for node in bridged.nodes]
        assert any(" mtu 1400 " in link for link in links), links


MACVLAN = {"name": "wire", "type": "macvlan", "master": "eth1", "subnet": "192.168.77.0/24"}


@pytest.mark.parametrize("kind", ["macvlan", "ipvlan"])
@pytest.mark.parametrize("master", ["eth1", "eth0"])
def test_pods_on_one_segment_reach_each_other_across_nodes(kind: str, master: str, tmp_path: Path) -> None:
    network = MACVLAN | {"type": kind, "master": master, "ipam": {"type": "whereabouts"}}
    lab = networked([network], [{"name": "wire"}])
    with sandbox(lab, tmp_path / "home") as (live, standing):
        assert check(live) == {}
        if kind in examine(lab).lacks:
            assert any("leads nowhere" in note for note in standing.notes)
            return
        reading = asyncio.run(read_lab(live))
        here, there = sorted((pod for pod in reading.pods if pod.workload == "multi"), key=lambda pod: pod.node)
        assert here.node != there.node
        address = there.networks["net1"]["ips"][0]
        script = (
            'for path in /run/netns/*; do ip -n "${path##*/}" link show net1 >/dev/null 2>&1 && '
            f'exec ip netns exec "${{path##*/}}" ping -c 1 -w 3 {address}; done; exit 9'
        )
        done = on(live, here.node, "bash", "-c", script)
        # eth0's segment is a subnet: the two workers share it.
        assert done.returncode == 0, done.stdout + done.stderr


def test_two_networks_on_one_bridge_and_the_fixed_addresses_of_one_pod(tmp_path: Path) -> None:
    networks: list[dict[str, Any]] = [
        {"name": "one", "type": "bridge", "bridge": "br7", "subnet": "10.77.0.0/24", "mtu": 1400},
        {"name": "two", "type": "bridge", "bridge": "br7", "subnet": "10.78.0.0/24", "isGateway": False},
        {
            "name": "fixed",
            "type": "bridge",
            "bridge": "br8",
            "subnet": "10.79.0.0/24",
            "ipam": {"type": "static", "addresses": ["10.79.0.9/24", "10.79.0.10/24"], "gateway": "10.79.0.254"},
        },
    ]
    lab = networked(networks, [{"name": name} for name in ("one", "two", "fixed")], replicas=1)
    with sandbox(lab, tmp_path / "home") as (live, _):
        assert check(live) == {}
        addresses = "".join(on(live, node, "bash", "-c", NETNS_ADDRESSES).stdout for node in live.access)
        bridges = "".join(
            on(live, node, "ip", "-br", "-4", "addr", "show", "type", "bridge").stdout for node in live.access
        )
    assert "10.77.0.2/24" in addresses and "10.78.0.2/24" in addresses
    # As the plugins do: static gives the pod all of them, and bridge takes the gateway that static returns.
    assert "10.79.0.9/24 10.79.0.10/24" in addresses and "10.79.0.254/24" in bridges


NETNS_ADDRESSES = 'for path in /run/netns/*; do ip -n "${path##*/}" -br -4 addr; done'


def test_a_device_goes_to_one_pod_and_the_next_one_waits(tmp_path: Path) -> None:
    network = {"name": "nic", "type": "host-device", "device": "eth3", "subnet": "10.80.0.0/24"}
    lab = networked([network], [{"name": "nic"}], replicas=3)
    with sandbox(lab, tmp_path / "home") as (live, _):
        found = check(live)
        why = "network nic: another pod of ip-10-0-2-200 has the device"
        failed = {key: text for key, text in found.items() if text.startswith("failed")}
        assert list(failed) == ["cluster/workload/Deployment,default/multi"] and why in str(failed)
        assert {text.partition(" does not run: ")[2] for key, text in found.items() if key not in failed} == {
            f"container multi: ContainerCreating: {why}"
        }
        reading = asyncio.run(read_lab(live))
        phases = sorted(pod.running for pod in reading.pods if pod.workload == "multi")
        assert phases == [False, True, True]
        assert "eth3" not in on(live, "ip-10-0-2-200", "ip", "-br", "link").stdout


def test_a_network_of_another_plugin_leads_nowhere_and_is_said_so(tmp_path: Path) -> None:
    network = {"name": "own", "type": "custom", "config": {"type": "sriov"}}
    with sandbox(networked([network], [{"name": "own"}]), tmp_path / "home") as (live, standing):
        assert check(live) == {}
        assert "network own is a device that leads nowhere: a sandbox runs no CNI plugin" in standing.notes


def test_a_single_node_that_forwards_nothing_is_noticed(tmp_path: Path) -> None:
    """And each fault of `break` is noticed as its symptoms say."""
    if find("iptables") is None:
        pytest.skip("iptables is not installed")
    node = {"name": "one", "role": "control-plane", "subnet": "control", "address": "10.0.1.20", "taints": []}
    workloads = [{"name": "app", "image": labs.IMAGE, "replicas": 2, "service": {"port": 80}}]
    lab = parse_lab({"machines": {"provider": "local"}, "nodes": [node], "workloads": workloads})
    with sandbox(lab, tmp_path / "home") as (live, _):
        assert check(live) == {}
        on(live, "one", "iptables", "-I", "FORWARD", "-j", "DROP")
        assert list(check(live).values()) == ["failed: no answer came"]
        on(live, "one", "iptables", "-D", "FORWARD", "-j", "DROP")
        made = []
        for fault in FAULTS.values():
            if fault.refusal(lab) is not None or fault.not_in_sandbox:
                continue
            made.append(fault.id)
            of = observed(live, asyncio.run(read_cluster(live)))
            target = aim(fault, of)
            seen = symptoms(fault, of, target)
            asyncio.run(inject(live, "lab", fault, target))
            assert set(check(live)) == {expectation.id for expectation in seen.failed}, fault.id
            if fault.hop is not None:
                assert seen.walk is not None, fault.id
                stopped = asyncio.run(walk_live(live, *seen.walk)).walk.stopped
                assert stopped is not None and (stopped.kind, stopped.node) == (fault.hop, "one"), fault.id
            assert not asyncio.run(mend(live, "lab")).failed
        assert check(live) == {}
        assert {"proxy-arp-off", "ip-forward-off", "nat-off", "service-without-endpoints"} <= set(made)


def test_blocks_of_single_addresses_pass_verify(tmp_path: Path) -> None:
    """`ip route` prints a route to one without its prefix length."""
    pool = {"name": "single", "cidr": "10.244.0.0/24", "blockSize": 32}
    workloads = [{"name": "app", "image": labs.IMAGE, "replicas": 4}]
    lab = parse_lab({"machines": {"provider": "local"}, "calico": {"pools": [pool]}, "workloads": workloads})
    with sandbox(lab, tmp_path / "home") as (live, _):
        assert check(live) == {}
        found = asyncio.run(walk_live(live, "app@ip-10-0-2-200", "app@ip-10-0-2-201")).walk
        assert found.holds and "tunnel" in [hop.kind for hop in found.hops]
        [route] = [hop for hop in found.hops if (hop.kind, hop.direction) == ("host route", "out")]
        assert route.checks[0].expectation.expected, "the block's route, and not just any"


def test_a_pod_without_a_way_out_shows_no_fault_by_a_walk_outside() -> None:
    node = {"name": "one", "role": "control-plane", "subnet": "control", "address": "10.0.1.20", "taints": []}
    delegate = {"name": "narrow", "rangeStart": 30, "rangeEnd": 40, "routes": ["10.244.0.0/16"]}
    lab = parse_lab(
        {
            "machines": {"provider": "local"},
            "nodes": [node],
            "multus": {"clusterNetwork": "narrow", "delegates": [delegate]},
            "workloads": [{"name": "app", "image": labs.IMAGE}],
        }
    )
    of = expected(lab).observed
    fault = FAULTS["mtu-too-large"]
    assert symptoms(fault, of, aim(fault, of)).walk is None


def test_host_local_addresses_come_from_the_node_s_pod_cidr(tmp_path: Path) -> None:
    document = labs.VXLAN.model_dump(mode="json", by_alias=True)
    document["calico"] |= {"ipam": "HostLocal", "install": "manifest"}
    document["calico"]["pools"][0]["cidr"] = "10.244.0.0/16"
    with sandbox(Lab.model_validate(document), tmp_path / "home") as (live, _):
        assert live.blocks == {
            "control1": ["10.244.0.0/24"],
            "worker1": ["10.244.1.0/24"],
            "worker2": ["10.244.2.0/24"],
        }
        assert check(live) == {}


def test_verify_enters_each_node_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[str] = []
    start = NamespaceConnection._start

    async def counted(self: NamespaceConnection, timeout_seconds: float) -> asyncio.subprocess.Process:
        entered.append(self._access.node)
        return await start(self, timeout_seconds)

    monkeypatch.setattr(NamespaceConnection, "_start", counted)
    with sandbox(labs.EGRESS, tmp_path / "home") as (live, _):
        assert check(live) == {}
    assert sorted(entered) == sorted(node.name for node in labs.EGRESS.nodes)


def test_twelve_nodes_and_a_hundred_pods(tmp_path: Path) -> None:
    with sandbox(labs.of_size(12, 100), tmp_path / "home") as (live, _):
        assert check(live) == {}
