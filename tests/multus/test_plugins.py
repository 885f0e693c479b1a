"""The real CNI plugins with the configurations that we render, in network namespaces."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from components.multus.delegates import delegate_config, fixed_config, network_config
from tests.calico.labs import SEED, lab

SEED_ROUTES = {"10.96.0.0/12 via 10.1.128.1 dev net1", "10.0.0.2 via 10.1.128.1 dev net1"}


def run(*command: str, stdin: str = "", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | (env or {})
    return subprocess.run(
        command, input=stdin, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


@dataclass
class Bench:
    """A namespace for the node, and others for pods."""

    plugins: Path
    data: Path
    name: str = field(default_factory=lambda: f"cnilab-{uuid.uuid4().hex[:6]}")
    pods: list[str] = field(default_factory=list)

    def node(self, *command: str) -> str:
        return self.inside(self.name, *command)

    def inside(self, namespace: str, *command: str) -> str:
        done = run("ip", "netns", "exec", namespace, *command)
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}{done.stdout}"
        return done.stdout

    def reaches(self, source: str, target: str, address: str) -> bool:
        """A TCP connection from one namespace to an address of another."""
        serve = "import socket; s = socket.create_server(('', 8080)); print('up', flush=True); s.accept()"
        call = f"import socket; socket.create_connection(('{address}', 8080), 5)"
        enter = ("ip", "netns", "exec")
        server = subprocess.Popen([*enter, target, sys.executable, "-c", serve], stdout=subprocess.PIPE)
        try:
            assert server.stdout is not None and server.stdout.readline() == b"up\n"
            return run(*enter, source, sys.executable, "-c", call).returncode == 0
        finally:
            server.kill()
            server.communicate()

    def pod(self) -> str:
        name = f"{self.name}-{len(self.pods)}"
        assert run("ip", "netns", "add", name).returncode == 0
        self.pods.append(name)
        return name

    def cni(self, command: str, config: dict[str, Any], pod: str, plugin: str = "") -> dict[str, Any]:
        """Run the plugin as a runtime does. host-local's files are apart from those of this computer."""
        config = config | {"ipam": config["ipam"] | {"dataDir": str(self.data)}}
        env = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": pod,
            "CNI_NETNS": f"/run/netns/{pod}",
            "CNI_IFNAME": "net1",
            "CNI_PATH": str(self.plugins),
        }
        path = str(self.plugins / (plugin or config["type"]))
        done = run("ip", "netns", "exec", self.name, path, stdin=json.dumps(config), env=env)
        assert done.returncode == 0, f"{command} {config['type']}: {done.stdout}{done.stderr}"
        found: dict[str, Any] = json.loads(done.stdout or "{}")
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    folder = os.environ.get("CNILAB_CNI_BIN", "/opt/cni/bin")
    if not Path(folder, "host-local").is_file():
        pytest.skip(f"no CNI plugins in {folder}: set CNILAB_CNI_BIN")
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and ip")
    made = Bench(Path(folder), tmp_path)
    if run("ip", "netns", "add", made.name).returncode:
        pytest.skip("this computer makes no network namespaces")
    try:
        made.node("ip", "link", "set", "lo", "up")
        yield made
    finally:
        for name in (*made.pods, made.name):
            run("ip", "netns", "del", name)


def address_of(result: dict[str, Any]) -> IPv4Address:
    [found] = result["ips"]
    return IPv4Address(found["address"].partition("/")[0])


def test_the_seeds_bridge(bench: Bench) -> None:
    spec = lab()
    [network] = spec.networks
    config = network_config(spec, network)
    first, second = bench.pod(), bench.pod()
    addresses = [address_of(bench.cni("ADD", config, pod)) for pod in (first, second)]
    assert addresses == [IPv4Address("10.1.128.2"), IPv4Address("10.1.128.3")]
    routes = {" ".join(line.split()) for line in bench.inside(first, "ip", "-4", "route").splitlines()}
    assert routes >= SEED_ROUTES
    assert not any(route.startswith("default") for route in routes)
    assert "10.1.128.1/24" in bench.node("ip", "-4", "address", "show", "cni5")
    assert bench.reaches(first, bench.name, "10.1.128.1")
    assert bench.reaches(first, second, "10.1.128.3")
    bench.cni("DEL", config, first)
    bench.cni("DEL", config, first)
    third = bench.pod()
    assert address_of(bench.cni("ADD", config, third)) == IPv4Address("10.1.128.4"), (
        "freed, and not given again at once"
    )


def test_the_default_route_of_the_seed_leads_nowhere_and_ours_leads_out(bench: Bench) -> None:
    """In the seed it is the pod's own address: the pod sends ARP requests for the far address, and nobody answers."""
    spec = lab()
    [network] = spec.networks
    pod = bench.pod()
    own = address_of(bench.cni("ADD", network_config(spec, network), pod))
    assert own == IPv4Address("10.1.128.2")
    world = bench.pod()
    bench.node("ip", "link", "add", "out", "type", "veth", "peer", "name", "in", "netns", world)
    for namespace, link, address in ((bench.name, "out", "192.0.2.1/24"), (world, "in", "192.0.2.7/24")):
        bench.inside(namespace, "ip", "address", "add", address, "dev", link)
        bench.inside(namespace, "ip", "link", "set", link, "up")
    bench.inside(world, "ip", "route", "add", "default", "via", "192.0.2.1")
    for gateway, arrives in ((str(own), False), ("10.1.128.1", True)):
        bench.inside(pod, "ip", "route", "replace", "default", "via", gateway, "dev", "net1")
        assert bench.reaches(pod, world, "192.0.2.7") is arrives, gateway


def test_a_firewall_has_its_fixed_address_beside_the_pods_of_host_local(bench: Bench) -> None:
    network = SEED["networks"][0] | {"ipam": {"type": "host-local", "rangeStart": "10.1.128.10"}}
    attachment = {"name": "cfosdefaultcni5", "ips": ["10.1.128.2/24"], "mac": "CA:FE:C0:FF:00:02"}
    workload = {"name": "fw", "kind": "DaemonSet", "image": "docker.io/library/busybox", "networks": [attachment]}
    spec = lab(networks=[network], workloads=[workload])
    base, fixed = network_config(spec, spec.networks[0]), fixed_config(spec, spec.networks[0])
    assert fixed is not None
    # What libcni adds for a capability that the configuration declares.
    asked = {"runtimeConfig": {"ips": attachment["ips"], "mac": attachment["mac"]}}
    firewall, pod = bench.pod(), bench.pod()
    assert address_of(bench.cni("ADD", fixed | asked, firewall)) == IPv4Address("10.1.128.2")
    assert address_of(bench.cni("ADD", base, pod)) == IPv4Address("10.1.128.10")
    assert "ca:fe:c0:ff:00:02" in bench.inside(firewall, "ip", "link", "show", "net1")
    routes = {" ".join(line.split()) for line in bench.inside(firewall, "ip", "-4", "route").splitlines()}
    assert routes >= SEED_ROUTES
    assert "10.1.128.1/24" in bench.node("ip", "-4", "address", "show", "cni5")
    assert bench.reaches(pod, firewall, "10.1.128.2")
    # Why there is a second definition: host-local itself refuses an address outside its range.
    with pytest.raises(AssertionError, match=r"failed to allocate all requested IPs: 10\.1\.128\.2"):
        bench.cni("ADD", base | {"runtimeConfig": {"ips": attachment["ips"]}}, bench.pod())


@pytest.mark.parametrize(("index", "first", "last"), [(0, 150, 250), (1, 50, 100)])
def test_a_delegates_addresses_come_from_its_range(bench: Bench, index: int, first: int, last: int) -> None:
    spec = lab()
    assert spec.multus is not None
    block = "10.244.97"
    config = delegate_config(
        spec, spec.multus.delegates[index], subnet=f"{block}.0/24", start=f"{block}.{first}", end=f"{block}.{last}"
    )
    # The plugin writes only its own folder, so no pod has to exist.
    pods = [f"{bench.name}-lease-{i}" for i in range(4)]
    results = [bench.cni("ADD", config, pod, plugin="host-local") for pod in pods]
    assert [address_of(r) for r in results] == [IPv4Address(f"{block}.{first + i}") for i in range(4)]
    dsts = [route["dst"] for route in results[0].get("routes", [])]
    assert dsts == [str(dst) for dst in spec.multus.delegates[index].routes]
    bench.cni("DEL", config, pods[0], plugin="host-local")
    again = bench.cni("ADD", config, f"{bench.name}-later", plugin="host-local")
    assert address_of(again) == IPv4Address(f"{block}.{first + 4}")


def test_a_range_gives_each_address_once(bench: Bench) -> None:
    spec = lab(
        multus={"clusterNetwork": "n", "delegates": [{"name": "n", "rangeStart": 10, "rangeEnd": 14}]}, workloads=[]
    )
    assert spec.multus is not None
    config = delegate_config(
        spec, spec.multus.delegates[0], subnet="10.244.6.0/24", start="10.244.6.10", end="10.244.6.14"
    )
    given = [address_of(bench.cni("ADD", config, f"{bench.name}-{i}", plugin="host-local")) for i in range(5)]
    assert given == [IPv4Address(f"10.244.6.{n}") for n in range(10, 15)]
    with pytest.raises(AssertionError, match=r"no IP addresses available in range set: 10\.244\.6\.10-10\.244\.6\.14"):
        bench.cni("ADD", config, f"{bench.name}-one-too-many", plugin="host-local")


def test_macvlan_on_a_link_of_the_node(bench: Bench) -> None:
    bench.node("ip", "link", "add", "up0", "type", "veth", "peer", "name", "up1")
    bench.node("ip", "link", "set", "up0", "up")
    bench.node("ip", "link", "set", "up1", "up")
    spec = lab(
        networks=[
            {
                "name": "mac",
                "type": "macvlan",
                "master": "up0",
                "subnet": "10.9.0.0/24",
                "mtu": 1400,
                "ipam": {"type": "host-local", "rangeStart": "10.9.0.10"},
            }
        ],
        workloads=[],
    )
    config = network_config(spec, spec.networks[0])
    pods = [bench.pod(), bench.pod()]
    assert [str(address_of(bench.cni("ADD", config, pod))) for pod in pods] == ["10.9.0.10", "10.9.0.11"]
    assert "mtu 1400" in bench.inside(pods[0], "ip", "link", "show", "net1")
    assert bench.reaches(pods[0], pods[1], "10.9.0.11")


def test_a_device_of_the_node_with_static_addresses(bench: Bench) -> None:
    bench.node("ip", "link", "add", "dev0", "type", "veth", "peer", "name", "dev1")
    spec = lab(
        networks=[
            {
                "name": "device",
                "type": "host-device",
                "device": "dev0",
                "subnet": "10.9.0.0/24",
                "ipam": {"type": "static", "addresses": ["10.9.0.7/24"]},
            }
        ],
        workloads=[],
    )
    config = network_config(spec, spec.networks[0])
    pod = bench.pod()
    assert str(address_of(bench.cni("ADD", config, pod))) == "10.9.0.7"
    assert "10.9.0.7/24" in bench.inside(pod, "ip", "-4", "address", "show", "net1")
    bench.cni("DEL", config, pod)
    assert "dev0" in bench.node("ip", "link")
