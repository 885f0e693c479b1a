"""init.sh, admit.sh, join.sh and remove-node.sh with the real kubeadm, kubelet and CRI-O on real systemd hosts.

Needs the baked image and, in CNILAB_BAKED_MOUNTS, a store of the control plane's images. The tests are one story and
run in the order of the file: each finds the cluster as the one before it left it.
"""

from __future__ import annotations

import base64
import hashlib
import random
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import serialization

from components.node.script import File, compose, installed_script
from components.spec.modes import VXLAN, links_for_shell
from tests.node.conftest import BAKED_IMAGE, BAKED_MOUNTS, KILL_STEPS, Host, Hosts
from tests.support.authority import certificate_authority

DIRECTORY = "/etc/kubernetes/cni-lab"
TOKEN = "abcdef.0123456789abcdef"
CERTIFICATE_KEY = "5f" * 32
LIBRARY = "/usr/local/lib/cni-lab"

pytestmark = [pytest.mark.timeout(1200), pytest.mark.xdist_group("hosts")]


@dataclass(frozen=True)
class Ca:
    """A cluster CA as the stack makes it."""

    certificate: str
    key: str
    hash: str

    @classmethod
    def make(cls) -> Ca:
        certificate, private, public = certificate_authority()
        der = serialization.load_pem_public_key(public.encode()).public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return cls(certificate, private, f"sha256:{hashlib.sha256(der).hexdigest()}")


@dataclass
class Cluster:
    """Three hosts, and the programs of a stack's steps for them."""

    hosts: Hosts
    ca: Ca
    first: Host
    second: Host
    worker: Host

    @property
    def endpoint(self) -> str:
        return f"{self.first.address}:6443"

    def machine(self, host: Host) -> str:
        return hashlib.sha256(host.container.encode()).hexdigest()[:16]

    def registration(self, host: Host) -> dict[str, object]:
        return {
            "name": host.name,
            "criSocket": "unix:///var/run/crio/crio.sock",
            "imagePullPolicy": "IfNotPresent",
            "kubeletExtraArgs": [
                {"name": "node-ip", "value": host.address},
                {"name": "node-labels", "value": f"cni-lab/machine={self.machine(host)}"},
            ],
        }

    def prepare(self, host: Host) -> str:
        return compose("prepare", self.prepare_variables(host), _host_files(), ["prepare.sh"])

    def init(self, ca: Ca | None = None) -> str:
        ca = ca or self.ca
        api = "kubeadm.k8s.io/v1beta4"
        documents: list[dict[str, object]] = [
            {
                "apiVersion": api,
                "kind": "InitConfiguration",
                "bootstrapTokens": [{"token": TOKEN, "ttl": "2h0m0s"}],
                "nodeRegistration": self.registration(self.first),
                "localAPIEndpoint": {"advertiseAddress": self.first.address, "bindPort": 6443},
                "patches": {"directory": f"{DIRECTORY}/patches"},
                "skipPhases": ["show-join-command"],
            },
            {
                "apiVersion": api,
                "kind": "ClusterConfiguration",
                "kubernetesVersion": "v1.36.3",
                "controlPlaneEndpoint": self.endpoint,
                "networking": {"podSubnet": "10.244.0.0/16", "serviceSubnet": "10.96.0.0/12"},
            },
            {"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "failSwapOn": False},
            {
                "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
                "kind": "KubeProxyConfiguration",
                "conntrack": {"maxPerCore": 0, "min": 0},
            },
        ]
        files = [
            *_host_files(),
            File("/etc/kubernetes/pki/ca.crt", ca.certificate),
            File("/etc/kubernetes/pki/ca.key", ca.key, "0600"),
            File(f"{DIRECTORY}/init.yaml", documents, "0600"),
            File(f"{LIBRARY}/remove-node.sh", installed_script("remove-node.sh"), "0755"),
        ]
        variables = self.prepare_variables(self.first) | {"API_ENDPOINT": self.endpoint}
        return compose("init", variables, files, ["prepare.sh", "init.sh"])

    def admit(self, host: Host, role: str = "worker") -> str:
        variables = {
            "JOINER": host.name,
            "JOINER_ROLE": role,
            "JOINER_MACHINE": self.machine(host),
            "BOOTSTRAP_TOKEN": TOKEN,
            "CERTIFICATE_KEY": CERTIFICATE_KEY if role == "control-plane" else "",
        }
        return compose("admit", variables, [], ["admit.sh"])

    def join(self, host: Host, role: str = "worker", ca: Ca | None = None) -> str:
        document: dict[str, object] = {
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "JoinConfiguration",
            "discovery": {
                "bootstrapToken": {
                    "token": TOKEN,
                    "apiServerEndpoint": self.endpoint,
                    "caCertHashes": [(ca or self.ca).hash],
                }
            },
            "nodeRegistration": self.registration(host),
            "patches": {"directory": f"{DIRECTORY}/patches"},
        }
        if role == "control-plane":
            document["controlPlane"] = {
                "certificateKey": CERTIFICATE_KEY,
                "localAPIEndpoint": {"advertiseAddress": host.address, "bindPort": 6443},
            }
        variables = {"NODE_NAME": host.name, "API_ENDPOINT": self.endpoint}
        return compose("join", variables, [File(f"{DIRECTORY}/join.yaml", document, "0600")], ["join.sh"])

    def nodes(self) -> dict[str, str]:
        """By node name, the value of the label cni-lab/machine."""
        lines = self.first.read("kubectl get nodes --no-headers -L cni-lab/machine").splitlines()
        return {line.split()[0]: line.split()[-1] for line in lines}

    def secret(self, name: str, key: str) -> str:
        encoded = self.first.read(f"kubectl -n kube-system get secret {name} -o jsonpath={{.data.{key}}}")
        return base64.b64decode(encoded).decode()

    def etcd_members(self) -> list[str]:
        """Names of etcd's members."""
        pki = "/etc/kubernetes/pki/etcd"
        text = self.first.read(
            "crictl exec $(crictl ps -q --state running --name ^etcd$) etcdctl --endpoints https://127.0.0.1:2379"
            f" --cacert {pki}/ca.crt --cert {pki}/server.crt --key {pki}/server.key member list"
        )
        return sorted(line.split(", ")[2] for line in text.splitlines())

    def prepare_variables(self, host: Host) -> dict[str, str]:
        return {
            "OWNER": "cni-lab/test",
            "NODE_NAME": host.name,
            "NODE_ADDRESS": host.address,
            "MACHINE_KIND": "local",
            "MODULES": "overlay br_netfilter vxlan",
            "TUNNEL_LINKS": links_for_shell([VXLAN]),
            "MULTUS": "no",
            "KUBERNETES_VERSION": "1.36.3",
            "KUBERNETES_MINOR": "1.36",
            "KUBERNETES_PACKAGES": "http://192.0.2.1/core",
            "KUBERNETES_KEY": "DE15B14486CD377B9E876E1A234654DA9A296436",
            "CRIO_VERSION": "1.36.3",
            "CRIO_PACKAGES": "http://192.0.2.1/crio",
            "CRIO_KEY": "85B67D5C50100B1AC8CEFE49CBA9C85640A2B579",
        }


def _host_files() -> list[File]:
    return [
        File("/etc/modules-load.d/cni-lab.conf", "overlay\nbr_netfilter\nvxlan\n"),
        File("/etc/sysctl.d/99-cni-lab.conf", "net.ipv4.ip_forward = 1\nnet.bridge.bridge-nf-call-iptables = 1\n"),
        File("/etc/crio/crio.conf.d/20-cni-lab.conf", '[crio.image]\npause_image = "registry.k8s.io/pause:3.10.2"\n'),
        File(f"{LIBRARY}/reset.sh", installed_script("reset.sh", {"TUNNEL_DEVICES": "vxlan.calico"}), "0755"),
    ]


def run(host: Host, program: str) -> str:
    """The log of a step that must succeed."""
    done = host.run(program)
    assert done.returncode == 0, done.stderr
    return done.stderr


def cut(host: Host, program: str, after: float) -> None:
    """Start a step and kill all of it, kubeadm included, `after` seconds into kubeadm's work."""
    process = host.start(program)
    # In one command: on a busy computer, a second connection could come after the end.
    at_work = "timeout 90 bash -c 'until pgrep -x kubeadm; do sleep 0.02; done'"
    host.read(f"{at_work} && sleep {after} && {{ {KILL_STEPS}; true; }}")
    process.communicate(timeout=60)
    assert process.returncode != 0, "it ended before it was killed"


@pytest.fixture(scope="module")
def cluster(hosts: Hosts) -> Iterator[Cluster]:
    if not BAKED_MOUNTS:
        pytest.skip("CNILAB_BAKED_MOUNTS names no store of container images")
    first, second, worker = (
        hosts.make(name, octet, BAKED_IMAGE) for name, octet in (("cp1", 51), ("cp2", 52), ("w1", 61))
    )
    yield Cluster(hosts, Ca.make(), first, second, worker)


def test_init_is_interrupted_and_repeated(cluster: Cluster) -> None:
    dice = random.Random(3)
    for after in [dice.uniform(0, 8) for _ in range(5)]:
        cut(cluster.first, cluster.init(), after)
    run(cluster.first, cluster.init())
    assert cluster.first.read("kubectl get --raw /readyz") == "ok"
    assert set(cluster.nodes()) == {"cp1"}
    assert cluster.first.read("cat /etc/kubernetes/pki/ca.crt") + "\n" == cluster.ca.certificate
    assert cluster.first.read("stat -c %a /etc/kubernetes/pki/ca.key /var/log/cni-lab/*.log | sort -u") == "600"


def test_init_again_changes_nothing(cluster: Cluster) -> None:
    files = "find /etc/kubernetes /var/lib/cni-lab -type f -printf '%p %T@\\n' | sort"
    before, running = cluster.first.read(files), set(cluster.first.read("crictl ps -q").split())
    log = run(cluster.first, cluster.init())
    assert "wrote" not in log and "kubeadm init runs" not in log
    assert cluster.first.read(files) == before
    # kube-proxy may have started meanwhile, but whatever ran is still running.
    assert running and running <= set(cluster.first.read("crictl ps -q").split())


def test_another_ca_is_refused(cluster: Cluster) -> None:
    done = cluster.first.run(cluster.init(Ca.make()))
    assert done.returncode == 1 and "carries a cluster whose CA is not this stack's" in done.stderr
    assert cluster.first.read("cat /etc/kubernetes/pki/ca.crt") + "\n" == cluster.ca.certificate


def test_prepare_others_at_once(cluster: Cluster) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda host: run(host, cluster.prepare(host)), (cluster.second, cluster.worker)))


def test_worker_joins(cluster: Cluster) -> None:
    run(cluster.first, cluster.admit(cluster.worker))
    run(cluster.worker, cluster.join(cluster.worker))
    assert cluster.nodes()["w1"] == cluster.machine(cluster.worker)
    assert cluster.worker.shell(f"ls {DIRECTORY}/join.yaml").returncode != 0
    log = run(cluster.worker, cluster.join(cluster.worker))
    assert "joined already" in log and "wrote" not in log
    assert cluster.worker.shell(f"ls {DIRECTORY}/join.yaml").returncode != 0


def test_the_cluster_comes_back_after_a_reboot_of_every_node(cluster: Cluster) -> None:
    """Each kubelet reports anew, and the steps find nothing to do."""

    def reported_after(before: Mapping[str, str]) -> dict[str, str]:
        """When each kubelet reported last, once both have reported after `before`."""
        leases = "kubectl -n kube-node-lease get leases --no-headers -o custom-columns=:metadata.name,:spec.renewTime"
        deadline = time.monotonic() + 240
        while True:
            lines = cluster.first.shell(leases).stdout.splitlines()
            found = dict(line.split() for line in lines)
            if set(found) == {"cp1", "w1"} and all(found[node] > before.get(node, "") for node in found):
                return found
            assert time.monotonic() < deadline, (before, found, cluster.first.shell("crictl ps -a").stdout)
            time.sleep(2)

    before = reported_after({})
    with ThreadPoolExecutor() as pool:
        list(pool.map(cluster.hosts.reboot, [cluster.first, cluster.worker]))
    reported_after(before)
    assert cluster.first.read("kubectl get --raw /readyz") == "ok"
    assert "wrote" not in run(cluster.first, cluster.init())
    assert "w1 is joined already" in run(cluster.worker, cluster.join(cluster.worker))
    assert set(cluster.nodes()) == {"cp1", "w1"}


def test_join_to_another_ca_is_refused(cluster: Cluster) -> None:
    done = cluster.worker.run(cluster.join(cluster.worker, ca=Ca.make()))
    assert done.returncode == 1 and "joined to a cluster whose CA is not this stack's" in done.stderr
    assert cluster.worker.read("systemctl is-active kubelet") == "active"


def test_secrets_are_in_no_process_list(cluster: Cluster) -> None:
    """The process list is sampled while admit renews the token and uploads certificates."""
    cluster.first.read(f"kubectl -n kube-system delete secret bootstrap-token-{TOKEN[:6]}")
    sample = cluster.first.start(
        "for i in $(seq 300); do cat /proc/[0-9]*/cmdline; sleep 0.02; done 2>&1 | tr '\\0' ' '"
    )
    log = run(cluster.first, cluster.admit(cluster.second, "control-plane"))
    seen, _ = sample.communicate(timeout=120)
    assert "kubectl" in seen and "kubeadm init phase" in seen
    for secret in (TOKEN, TOKEN[7:], CERTIFICATE_KEY):
        assert secret not in seen and secret not in log
    assert cluster.secret(f"bootstrap-token-{TOKEN[:6]}", "token-secret") == TOKEN[7:]


def test_a_token_that_expires_soon_is_renewed(cluster: Cluster) -> None:
    name = f"bootstrap-token-{TOKEN[:6]}"
    kept = cluster.secret(name, "expiration")
    run(cluster.first, cluster.admit(cluster.worker))
    assert cluster.secret(name, "expiration") == kept
    soon = base64.b64encode((datetime.now(UTC) + timedelta(minutes=20)).strftime("%FT%TZ").encode()).decode()
    patch = f'{{"data": {{"expiration": "{soon}"}}}}'
    cluster.first.read(f"kubectl -n kube-system patch secret {name} -p '{patch}'")
    run(cluster.first, cluster.admit(cluster.worker))
    expires = datetime.fromisoformat(cluster.secret(name, "expiration"))
    assert expires - datetime.now(UTC) > timedelta(minutes=55)


def test_certificates_are_uploaded_once(cluster: Cluster) -> None:
    ask = "kubectl -n kube-system get secret kubeadm-certs -o jsonpath={.metadata.resourceVersion}"
    before = cluster.first.read(ask)
    run(cluster.first, cluster.admit(cluster.second, "control-plane"))
    assert cluster.first.read(ask) == before


def test_second_control_plane_is_interrupted_and_joins(cluster: Cluster) -> None:
    for after in (0.0, 1.0, 4.0):
        cut(cluster.second, cluster.join(cluster.second, "control-plane"), after)
    run(cluster.first, cluster.admit(cluster.second, "control-plane"))
    run(cluster.second, cluster.join(cluster.second, "control-plane"))
    assert cluster.etcd_members() == ["cp1", "cp2"]
    assert "cp2" in cluster.first.read("kubectl get nodes -l node-role.kubernetes.io/control-plane -o name")
    assert cluster.second.read("kubectl get --raw /readyz") == "ok"


def test_second_control_plane_is_removed(cluster: Cluster) -> None:
    done = cluster.first.shell(f"timeout 180 {LIBRARY}/remove-node.sh cp2")
    assert done.returncode == 0, done.stderr
    assert cluster.etcd_members() == ["cp1"]
    assert set(cluster.nodes()) == {"cp1", "w1"}
    done = cluster.first.shell(f"timeout 180 {LIBRARY}/remove-node.sh cp2")
    assert done.returncode == 0, "the removal of a missing node succeeds"
    done = cluster.first.shell(f"timeout 180 {LIBRARY}/remove-node.sh cp1")
    assert done.returncode == 1 and "is this machine" in done.stderr


def test_node_that_somebody_deleted_comes_back(cluster: Cluster) -> None:
    cluster.first.read("kubectl delete node w1")
    run(cluster.worker, cluster.join(cluster.worker))
    assert cluster.nodes()["w1"] == cluster.machine(cluster.worker)


def test_worker_is_replaced(cluster: Cluster) -> None:
    """The machine dies and another one takes its name and address. The stale Node is removed, and the new one joins."""
    cluster.hosts.remove(cluster.worker)
    cluster.worker = cluster.hosts.make("w1b", 61, BAKED_IMAGE)
    worker = Host("w1", cluster.worker.container, cluster.worker.address, cluster.worker.ssh)
    worker.read("hostname w1")
    cluster.worker = worker
    run(worker, cluster.prepare(worker))
    log = run(cluster.first, cluster.admit(worker))
    assert "the Node w1 is of another machine" in log
    assert "w1" not in cluster.nodes()
    for after in (0.0, 0.6):
        cut(worker, cluster.join(worker), after)
    run(worker, cluster.join(worker))
    assert cluster.nodes()["w1"] == cluster.machine(worker)


def test_an_unreachable_api_is_named(cluster: Cluster) -> None:
    """A join to an address where nothing answers ends, and names the address."""
    program = cluster.join(cluster.second).replace(cluster.endpoint, "10.77.99.99:6443")
    program = program.replace("discovery:\n", "timeouts: {discovery: 3s}\ndiscovery:\n")
    program = program.replace("retry 4 join", "retry 1 join")
    cluster.second.read("timeout 200 kubeadm reset -f >/dev/null; rm -f /var/lib/cni-lab/joined")
    done = cluster.second.run(program)
    assert done.returncode == 1
    assert "Can it reach https://10.77.99.99:6443?" in done.stderr and TOKEN not in done.stderr
    assert cluster.second.shell(f"ls {DIRECTORY}/join.yaml").returncode != 0


def test_reset_of_a_running_node(cluster: Cluster) -> None:
    done = cluster.worker.shell(f"timeout 300 bash {LIBRARY}/reset.sh", timeout=330)
    assert done.returncode == 0, done.stderr
    left = cluster.worker.read(
        "ls /etc/kubernetes /var/lib | xargs; iptables-save; ip6tables-save; nft list ruleset; crictl ps -q;"
        " find / -xdev -name '*cni-lab*'"
    )
    assert "kubelet.conf" not in left and "KUBE-" not in left and "cni-lab" not in left
