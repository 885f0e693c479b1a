"""The replica itself: packets cross it for real, and what it says of itself is what a real cluster says."""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from itertools import permutations, product
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.sandbox import nat
from components.sandbox.model import OUTSIDE, Pod
from components.sandbox.plan import make_plan
from components.slowdown import scaled
from components.spec.models import Lab
from tests.verify import replica_labs as labs
from tests.verify.replica import Replica, missing, standing

COMPONENTS = Path(nat.__file__).parents[1]


@pytest.fixture(scope="module")
def egress() -> Iterator[Replica]:
    with standing(labs.EGRESS) as it:
        yield it


def ttls(replica: Replica, source: Pod, target: Pod) -> set[int]:
    done = replica.ping(source, target.address)
    assert done.returncode == 0, f"{source.key} → {target.key}: {done.stdout}{done.stderr}"
    return {int(ttl) for ttl in re.findall(r"ttl=(\d+)", done.stdout)}


def workload_pods(replica: Replica) -> list[Pod]:
    return [pod for pod in replica.pods if "app" in pod.labels]


# --- packets ----------------------------------------------------------------------------------------------------------

MODES = {
    "vxlan": (labs.VXLAN, 62),
    "none": (labs.NONE, 62),
    "none-routed": (labs.NONE_ROUTED, None),
    "cross-subnet": (labs.CROSS_SUBNET, 62),
    "mixed": (labs.MIXED, 62),
    "ipip": (labs.IPIP, 62),
}


@pytest.mark.parametrize("mode", MODES)
def test_pings_cross_between_the_pods_of_each_pair_of_nodes(mode: str) -> None:
    lab, expected = MODES[mode]
    subnet_of = {node.name: node.subnet for node in lab.nodes}
    with standing(lab, system_pods=False, ssh=False) as replica:
        pods = workload_pods(replica)
        for source, target in permutations(pods, 2):
            ttl = expected or (62 if subnet_of[source.node] == subnet_of[target.node] else 61)
            assert ttls(replica, source, target) == {63 if source.node == target.node else ttl}
        routes = {node.name: replica.exec(node.name, ["ip", "route"]).stdout for node in lab.nodes}
        links = replica.exec("worker1", ["ip", "-o", "link"]).stdout
    assert ("vxlan.calico" in links) == ("VXLAN" in str(lab.encapsulations))
    text = routes["worker1"]
    blocks = replica.plan.blocks
    other = {name: re.escape(held[-1]) for name, held in blocks.items()}
    first = re.escape(blocks["control1"][0].split("/")[0])
    expected_lines = {
        "vxlan": rf"{other['control1']} via {first} dev vxlan\.calico onlink mtu 8951",
        "none": rf"{other['control1']} via 10\.0\.1\.20 dev eth0 proto (bird|12) ",
        "none-routed": rf"{other['control1']} via 10\.0\.2\.1 dev eth0 proto (bird|12) ",
        "cross-subnet": rf"{other['worker2']} via 10\.0\.2\.31 dev eth0 proto 80 onlink",
        "mixed": rf"{other['control1']} via 10\.0\.1\.20 dev eth0 proto (bird|12) ",
        "ipip": rf"{other['control1']} via 10\.0\.1\.20 dev tunl0 proto (bird|12) onlink",
    }
    assert re.search(expected_lines[mode], text), text
    felix = mode in ("vxlan", "cross-subnet", "mixed")
    own = re.escape(blocks["worker1"][0])
    assert re.search(rf"blackhole {own} proto {'80' if felix else '(bird|12)'}", text), text


def test_a_router_as_a_vpc_s_drops_pod_addresses() -> None:
    with standing(labs.NONE_ROUTED, system_pods=False, router_knows_pods=False, ssh=False) as replica:
        near, far = replica.pod("multitool", "worker1"), replica.pod("multitool", "control1")
        assert replica.ping(near, far.address).returncode != 0
        assert ttls(replica, near, replica.pod("multitool", "worker2")) == {62}


def test_a_packet_between_nodes_is_vxlan_of_network_4096(egress: Replica) -> None:
    source, target = egress.pod("normal", "ip-10-0-2-200"), egress.pod("normal", "ip-10-0-2-201")
    probe = egress.exec(source.node, ["sh", "-c", "command -v tcpdump"])
    if probe.returncode:
        pytest.skip("no tcpdump")
    script = (
        "timeout 20 tcpdump -n -v -l -c 1 -i eth0 'udp port 4789 and src 10.0.2.200' & sleep 1; "
        f"nsenter --net=/run/netns/{source.netns} ping -c 4 -i 0.2 -w 5 {target.address} >/dev/null; wait"
    )
    seen = egress.exec(source.node, ["bash", "-c", script]).stdout
    assert "10.0.2.200" in seen and "10.0.2.201.4789: VXLAN" in seen and "vni 4096" in seen, seen
    assert re.search(rf"ttl 63.*\n.*{source.address} > {target.address}: ICMP echo request", seen), seen


def test_all_of_multus_pods_reach_each_other(egress: Replica) -> None:
    pods = [egress.pod(app, node) for app in ("normal", "egress") for node in ("ip-10-0-2-200", "ip-10-0-2-201")]
    for source, target in permutations(pods, 2):
        assert ttls(egress, source, target) == {63 if source.node == target.node else 62}


def test_the_default_route_through_the_bridge_leads_outside(egress: Replica) -> None:
    pod = egress.pod("egress", "ip-10-0-2-200")
    # As on the cluster this was taken from: net1's route to 10.96.0.0/12 before eth0's.
    assert egress.pod_exec(pod, ["ip", "route"]).stdout.split("\n")[:-1] == [
        "default via 10.1.128.1 dev net1 ",
        "10.0.0.0/8 via 169.254.1.1 dev eth0 ",
        "10.0.0.2 via 10.1.128.1 dev net1 ",
        "10.1.128.0/24 dev net1 proto kernel scope link src 10.1.128.2 ",
        "10.96.0.0/12 via 10.1.128.1 dev net1 ",
        "10.96.0.0/12 via 169.254.1.1 dev eth0 ",
        "169.254.1.1 dev eth0 scope link ",
    ]
    assert egress.ping(pod, OUTSIDE).returncode == 0
    assert egress.ping(egress.pod("normal"), OUTSIDE).returncode == 0, "natOutgoing"
    # No route of default-calico leads there.
    assert "Network is unreachable" in egress.ping(egress.pod("short"), OUTSIDE).stderr


def test_the_same_nat_stands_by_nft_where_there_is_no_iptables() -> None:
    if shutil.which("nft") is None:
        pytest.skip("there is no nft")
    with standing(labs.EGRESS, ssh=False) as replica:
        pod = replica.pod("normal", "ip-10-0-2-200")
        node = next(node for node in replica.lab.nodes if node.name == pod.node)
        assert replica.exec(pod.node, ["iptables", "-t", "nat", "-F"]).returncode == 0
        assert replica.ping(pod, OUTSIDE).returncode != 0
        ruleset = "\n".join(nat.nat_ruleset(replica.plan, node))
        done = replica.exec(pod.node, ["bash", "-c", 'nft -f - <<<"$1"', "-", ruleset])
        assert done.returncode == 0, done.stderr
        assert replica.ping(pod, OUTSIDE).returncode == 0
        egress = replica.pod("egress", "ip-10-0-2-200")
        assert replica.ping(egress, OUTSIDE).returncode == 0
        assert "notrack" in replica.exec(pod.node, ["nft", "list", "ruleset"]).stdout


def test_the_host_end_answers_for_169_254_1_1(egress: Replica) -> None:
    pod, other = egress.pod("normal", "ip-10-0-2-200"), egress.pod("normal", "ip-10-0-2-201")
    assert egress.ping(pod, other.address).returncode == 0
    neighbours = json.loads(egress.pod_exec(pod, ["ip", "-j", "neigh"]).stdout)
    assert {n["dst"]: n["lladdr"] for n in neighbours}["169.254.1.1"] == "ee:ee:ee:ee:ee:ee"
    assert egress.exec(pod.node, ["cat", f"/proc/sys/net/ipv4/conf/{pod.interface}/proxy_arp"]).stdout == "1\n"


def test_what_is_broken_stays_broken_until_mended(egress: Replica) -> None:
    source, target = egress.pod("normal", "ip-10-0-2-200"), egress.pod("normal", "ip-10-0-2-201")
    entry = ["66:73:5c:ce:0d:ae", "dev", "vxlan.calico", "dst", "10.0.2.201"]
    assert egress.exec(source.node, ["bridge", "fdb", "del", *entry]).returncode == 0
    assert egress.ping(source, target.address).returncode != 0
    assert egress.exec(source.node, ["bridge", "fdb", "add", *entry]).returncode == 0
    assert egress.ping(source, target.address).returncode == 0
    rule = ["INPUT", "-p", "udp", "--dport", "4789", "-j", "DROP"]
    assert egress.exec(target.node, ["iptables", "-I", *rule]).returncode == 0
    assert egress.ping(source, target.address).returncode != 0
    assert egress.exec(target.node, ["iptables", "-D", *rule]).returncode == 0
    assert egress.ping(source, target.address).returncode == 0


# --- machines ---------------------------------------------------------------------------------------------------------


def ssh(replica: Replica, node: str, command: str, known: str | None = None) -> subprocess.CompletedProcess[str]:
    access = replica.access[node]
    with tempfile.TemporaryDirectory() as place:
        key, hosts = Path(place, "key"), Path(place, "known_hosts")
        key.write_text(access["privateKey"])
        key.chmod(0o600)
        hosts.write_text(f"[127.0.0.1]:{access['port']} {known or access['hostKey']}\n")
        options = ["-F", "none", "-o", f"UserKnownHostsFile={hosts}", "-o", "BatchMode=yes", "-i", str(key)]
        argv = ["ssh", *options, "-p", str(access["port"]), f"{access['user']}@{access['host']}", command]
        return subprocess.run(argv, capture_output=True, text=True, timeout=scaled(30), check=False)


def test_ssh_reaches_each_node_by_its_host_key(egress: Replica) -> None:
    for node in egress.lab.nodes:
        done = ssh(egress, node.name, "hostname; ip -j -4 addr show eth0")
        assert done.returncode == 0, done.stderr
        name, _, rest = done.stdout.partition("\n")
        assert name == node.name
        (link,) = json.loads(rest)
        assert (link["mtu"], link["addr_info"][0]["local"]) == (9001, str(node.address))
    wrong = egress.access["ip1001100"]["hostKey"]
    refused = ssh(egress, "ip-10-0-2-200", "true", known=wrong)
    assert refused.returncode == 255 and "Host key verification failed" in refused.stderr


def test_a_node_writes_on_nothing_but_itself(egress: Replica) -> None:
    marks = ["/etc/cni/net.d/mark", "/etc/mark", "/var/lib/cni-lab/mark", "/run/mark", "/tmp/mark"]
    assert egress.exec("ip-10-0-2-200", ["touch", *marks]).returncode == 0
    try:
        assert not [mark for mark in marks if Path(mark).exists()]
        assert egress.exec("ip-10-0-2-201", ["ls", *marks]).stdout == ""
    finally:
        egress.exec("ip-10-0-2-200", ["rm", *marks])
    for path in ("/usr/mark", "/host/tmp/mark", "/host/var/mark"):
        refused = egress.exec("ip-10-0-2-200", ["touch", path])
        assert refused.returncode == 1 and "Read-only file system" in refused.stderr


def test_the_quick_way_to_the_journal_knows_what_verify_asks_for() -> None:
    """Asked in other words the journal answers too, but slowly."""
    asked = re.search(r"journalctl (--quiet .*) \|", (COMPONENTS / "verify/read/observe.sh").read_text())
    assert asked and f"'{asked[1]}'" in (COMPONENTS / "sandbox/journalctl.sh").read_text()


def test_crio_s_journal_follows_its_directory(egress: Replica) -> None:
    node, said = "ip-10-0-2-201", "Updated default CNI network name to "

    def last() -> str:
        done = egress.exec(node, ["journalctl", "--unit", "crio", "--no-pager", "-o", "cat", "--grep", said])
        return done.stdout.splitlines()[-1].split(said)[1].rstrip('"')

    assert last() == "multus-cni-network"
    egress.exec(node, ["cp", "/etc/cni/net.d/00-multus.conf", "/root/saved"])
    egress.exec(node, ["truncate", "--size", "0", "/etc/cni/net.d/00-multus.conf"])
    assert last() == "k8s-pod-network"
    egress.exec(node, ["cp", "/root/saved", "/etc/cni/net.d/00-multus.conf"])
    assert last() == "multus-cni-network"


def test_bird_s_sessions_are_said_where_there_is_bgp(egress: Replica) -> None:
    script = "crictl exec $(crictl ps --quiet --name '^calico-node$') birdcl -s /var/run/calico/bird.ctl show protocols"
    assert egress.exec("ip-10-0-2-200", ["bash", "-c", script]).returncode != 0
    with standing(labs.NONE, system_pods=False, ssh=False) as replica:
        done = replica.exec("worker1", ["bash", "-c", script])
    assert re.findall(r"^(\S+) BGP .* Established", done.stdout, re.M) == ["Mesh_10_0_1_20", "Mesh_10_0_1_31"]


def test_the_files_are_the_product_s(egress: Replica) -> None:
    def cat(path: str) -> str:
        return egress.exec("ip-10-0-2-200", ["cat", path]).stdout

    delegate = json.loads(cat("/etc/cni/multus/net.d/net-calico.conf"))
    expected = {"subnet": "10.244.97.0/24", "rangeStart": "10.244.97.150", "rangeEnd": "10.244.97.250"}
    assert delegate["ipam"]["ranges"] == [[expected]]
    assert json.loads(cat("/etc/cni/net.d/00-multus.conf"))["clusterNetwork"] == "net-calico"
    assert egress.exec("ip-10-0-2-200", ["ls", "/etc/cni/net.d"]).stdout.split() == [
        "00-multus.conf",
        "10-calico.conflist",
        "70-multus.conf",
        "calico-kubeconfig",
    ]
    pod = egress.pod("normal", "ip-10-0-2-200")
    assert cat(f"/var/lib/cni/networks/net-calico/{pod.address}") == f"{pod.container}\r\neth0".replace("\r\n", "\n")


def test_a_node_may_stop_answering() -> None:
    with standing(labs.VXLAN, system_pods=False) as replica:
        assert ssh(replica, "worker1", "true").returncode == 0
        replica.stop_sshd("worker1")
        assert ssh(replica, "worker1", "true").returncode == 255
        assert ssh(replica, "worker2", "true").returncode == 0


# --- the API ----------------------------------------------------------------------------------------------------------


def get(config: str, path: str) -> Any:
    found = yaml.safe_load(config)
    cluster, user = found["clusters"][0]["cluster"], found["users"][0]["user"]

    def text(data: str) -> str:
        return base64.b64decode(data).decode()

    context = ssl.create_default_context(cadata=text(cluster["certificate-authority-data"]))
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(text(user["client-certificate-data"]) + text(user["client-key-data"]))
        file.flush()
        context.load_cert_chain(file.name)
    with urllib.request.urlopen(cluster["server"] + path, context=context, timeout=scaled(10)) as answer:
        return json.load(answer)


def test_the_api_lists_what_stands(egress: Replica) -> None:
    pods = get(egress.kubeconfig, "/api/v1/pods")
    assert (pods["kind"], pods["apiVersion"], len(pods["items"])) == ("PodList", "v1", len(egress.pods))
    pod = egress.pod("egress", "ip-10-0-2-200")
    (found,) = [it for it in pods["items"] if it["metadata"]["name"] == pod.name]
    status = json.loads(found["metadata"]["annotations"]["k8s.v1.cni.cncf.io/network-status"])
    assert [(it["name"], it["interface"], it["ips"]) for it in status] == [
        ("kube-system/default-calico", "eth0", [str(pod.address)]),
        ("default/cfosdefaultcni5", "net1", ["10.1.128.2"]),
    ]
    links = json.loads(egress.pod_exec(pod, ["ip", "-j", "link"]).stdout)
    assert [it["mac"] for it in status] == [it["address"] for it in links if it["ifname"] != "lo"]
    nodes = {it["metadata"]["name"]: it for it in get(egress.kubeconfig, "/api/v1/nodes")["items"]}
    annotations = nodes["ip-10-0-2-200"]["metadata"]["annotations"]
    assert annotations["projectcalico.org/IPv4VXLANTunnelAddr"] == "10.244.97.0"
    crd = "/apis/crd.projectcalico.org/v1"
    affinities = get(egress.kubeconfig, f"{crd}/blockaffinities")["items"]
    assert {it["spec"]["node"]: [it["spec"]["cidr"]] for it in affinities} == egress.blocks
    for plural in ("ippools", "ipamblocks", "ipreservations"):
        assert get(egress.kubeconfig, f"{crd}/{plural}")["items"], plural
    events = get(egress.kubeconfig, "/api/v1/events?fieldSelector=reason=AddedInterface")["items"]
    assert f"Add eth0 [{pod.address}/32] from kube-system/default-calico" in [it["message"] for it in events]
    one = get(egress.kubeconfig, f"/api/v1/namespaces/default/pods/{pod.name}")
    assert (one["kind"], one["status"]["podIP"]) == ("Pod", str(pod.address))
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(egress.kubeconfig, "/api/v1/secrets")


def test_the_api_checks_certificates_as_kubernetes_does(egress: Replica) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        get(egress.expired_kubeconfig, "/api/v1/nodes")
    egress.serve_certificate(days=-2)
    try:
        with pytest.raises(urllib.error.URLError, match="certificate has expired"):
            get(egress.kubeconfig, "/api/v1/nodes")
    finally:
        egress.serve_certificate()
    assert get(egress.kubeconfig, "/version")["major"] == "1"


# --- its end ----------------------------------------------------------------------------------------------------------


def test_nothing_is_left_of_a_killed_test(tmp_path: Path) -> None:
    """No process. Its files stay, so it writes them below `tmp_path`."""
    if reason := missing():
        pytest.skip(reason)
    script = (
        "import sys, time; from tests.verify.replica import Replica; from tests.verify import replica_labs\n"
        "with Replica(replica_labs.VXLAN) as it:\n"
        "    print(it.running.pid, *it.running.pids.values(), flush=True); time.sleep(100)"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout is not None
    pids = child.stdout.readline().split()
    assert len(pids) == 4 and all(Path(f"/proc/{pid}").exists() for pid in pids)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_pools_that_are_too_small_are_refused() -> None:
    small = labs.NONE.model_dump(by_alias=True, mode="json")
    small["calico"]["pools"][0] |= {"cidr": "10.244.0.0/26"}
    with pytest.raises(ValueError, match="too few /26"):
        make_plan(Lab.model_validate(small))


def test_addresses_are_given_once() -> None:
    for lab, system in product((labs.EGRESS, labs.MIXED, labs.of_size(10, 30)), (True, False)):
        plan = make_plan(lab, system_pods=system)
        addresses = [pod.address for pod in plan.pods if not pod.host_network]
        addresses += [a for node in lab.nodes if (a := plan.tunnel_address(node.name, "VXLAN"))]
        assert len(addresses) == len(set(addresses))
