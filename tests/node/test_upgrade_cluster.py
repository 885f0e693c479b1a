"""A whole cluster from one minor to the next with the real kubeadm, kubelet and CRI-O on real systemd hosts, with
interruptions. The tests are one story and run in the order of the file.

Needs the baked image, a folder of real packages of both versions in CNILAB_DEBS (Debian file names), and in
CNILAB_BAKED_MOUNTS a store with the control plane's images of both.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from components.cluster.component import UPGRADE
from components.node.script import compose
from components.spec.versions import minor_of
from tests.node.conftest import BAKED_IMAGE, BAKED_MOUNTS, KILL_STEPS, Host, Hosts
from tests.node.packages import Repositories
from tests.node.test_cluster import Ca, Cluster, run

OLD, NEW = os.environ.get("CNILAB_UPGRADE", "1.35.4 1.36.3").split()
KILLS = int(os.environ.get("CNILAB_KILLS", "2"))
NETWORK = """
{"cniVersion": "1.0.0", "name": "test", "plugins": [{"type": "bridge", "bridge": "test0", "isGateway": true,
 "ipMasq": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.%d.0/24"}]],
 "routes": [{"dst": "0.0.0.0/0"}]}}]}
"""
WORKLOADS = """
{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "stays"}, "spec": {"replicas": 2,
 "selector": {"matchLabels": {"app": "stays"}}, "template": {"metadata": {"labels": {"app": "stays"}},
 "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": "registry.k8s.io/pause:3.10.2"}]}}}}
{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "goes"}, "spec": {"terminationGracePeriodSeconds": 1,
 "containers": [{"name": "c", "image": "registry.k8s.io/pause:3.10.2"}]}}
"""

pytestmark = [pytest.mark.timeout(1800), pytest.mark.xdist_group("hosts")]


@dataclass
class Upgraded(Cluster):
    """The steps of a cluster of version `version`, with packages from `repositories`."""

    repositories: Repositories
    version: str = OLD

    def prepare_variables(self, host: Host) -> dict[str, str]:
        return super().prepare_variables(host) | {
            "KUBERNETES_VERSION": self.version,
            "KUBERNETES_MINOR": minor_of(self.version),
            "CRIO_VERSION": self.repositories.crio_version(minor_of(self.version)),
            "KUBERNETES_PACKAGES": self.repositories.kubernetes,
            "KUBERNETES_KEY": self.repositories.key.fingerprint,
            "CRIO_PACKAGES": self.repositories.crio,
            "CRIO_KEY": self.repositories.key.fingerprint,
        }

    def init(self, ca: Ca | None = None) -> str:
        program = super().init(ca).replace("kubernetesVersion: v1.36.3", f"kubernetesVersion: v{self.version}")
        # This computer's disk may be fuller than kubelet accepts, and the pods must stay.
        return program.replace("failSwapOn: false\n", "failSwapOn: false\nevictionHard: {nodefs.available: 1%}\n")

    def drain(self, host: Host) -> str:
        return compose("drain", self.prepare_variables(host) | {"DRAINED": host.name}, [], ["drain.sh"])

    def upgrade(self, host: Host) -> str:
        variables = self.prepare_variables(host) | {
            "PART": "apply" if host == self.first else "node",
            "DRAINED": host.name,
        }
        scripts = [script for script in UPGRADE if host != self.worker or script != "drain.sh"]
        return compose("upgrade", variables, [], scripts, "prepare")

    def kubelets(self) -> dict[str, str]:
        """By node, its kubelet's version, with `cordoned` where the node is."""
        path = '{range .items[*]}{.metadata.name} {.status.nodeInfo.kubeletVersion}{.spec.unschedulable}{"\\n"}{end}'
        lines = self.first.read(f"kubectl get nodes -o jsonpath='{path}'").splitlines()
        return dict(line.split() for line in lines)

    def wait_for_pods(self) -> None:
        done = self.first.shell("kubectl rollout status deployment/stays --timeout=300s", timeout=330)
        assert done.returncode == 0, self.first.read("kubectl describe pods | tail -n 60; kubectl get pods -A -o wide")

    def images(self) -> set[str]:
        """The versions of the running static pods."""
        path = '{range .items[*]}{.spec.containers[0].image}{"\\n"}{end}'
        text = self.first.read(f"kubectl -n kube-system get pods -l tier=control-plane -o jsonpath='{path}'")
        return {line.rpartition(":")[2] for line in text.splitlines() if "etcd" not in line}


def running(host: Host) -> tuple[set[str], str]:
    """The containers; the start times of the services; the packages."""
    services = "systemctl show -P ActiveEnterTimestampMonotonic crio kubelet; dpkg-query -W"
    return set(host.read("crictl ps").splitlines()[1:]), host.read(services)


def check_unchanged(hosts: Sequence[Host], before: Sequence[tuple[set[str], str]]) -> None:
    for host, (containers, services) in zip(hosts, before, strict=True):
        now, then = ({line.split()[0]: line for line in lines} for lines in (running(host)[0], containers))
        # One may have started meanwhile, but whatever ran is still running.
        assert not [line for identity, line in then.items() if identity not in now], host.read("crictl ps -a")
        assert running(host)[1] == services


@pytest.fixture(scope="module")
def cluster(hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upgraded]:
    debs = Path(os.environ.get("CNILAB_DEBS", "/nonexistent"))
    for version in (OLD, NEW):
        if not list(debs.glob(f"kubeadm_{version}-*.deb")):
            pytest.skip(f"CNILAB_DEBS names no folder with the packages of Kubernetes {version}")
    if not BAKED_MOUNTS:
        pytest.skip("CNILAB_BAKED_MOUNTS names no store of container images")
    first, second, worker = (
        hosts.make(name, octet, BAKED_IMAGE) for name, octet in (("cp1", 51), ("cp2", 52), ("w1", 61))
    )
    repositories = Repositories(tmp_path_factory.mktemp("packages"), hosts.address(1))
    yield Upgraded(hosts, Ca.make(), first, second, worker, repositories)
    repositories.close()


def cut(host: Host, program: str, pattern: str, after: float) -> None:
    """Start a step and kill all of it `after` seconds after a process matches `pattern`. It may have ended by then."""
    started = host.start(program)
    # With the brackets the pattern does not match its own process.
    # kubeadm waits up to 5 minutes for each component.
    seen = f"timeout 600 bash -c 'until pgrep -f \"[{pattern[0]}]{pattern[1:]}\"; do sleep 0.1; done'"
    done = host.shell(f"{seen} && sleep {after} && {{ {KILL_STEPS}; true; }}", timeout=660)
    _, log = started.communicate(timeout=400)
    assert done.returncode == 0, f"no {pattern} on {host.name}: {log}"


def test_a_cluster_of_the_old_version(cluster: Upgraded) -> None:
    hosts = (cluster.first, cluster.second, cluster.worker)
    for host in hosts:
        host.read("rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*")
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda host: run(host, cluster.prepare(host)), hosts))
    assert cluster.first.read("kubeadm version -o short") == f"v{OLD}", "a host that has not joined goes back"
    run(cluster.first, cluster.init())
    for host, role in ((cluster.second, "control-plane"), (cluster.worker, "worker")):
        run(cluster.first, cluster.admit(host, role))
        run(host, cluster.join(host, role))
    assert cluster.kubelets() == dict.fromkeys(("cp1", "cp2", "w1"), f"v{OLD}")
    for number, host in enumerate(hosts):
        # In Calico's place. Before the host was in the cluster, prepare.sh would have moved it away.
        host.read(f"echo '{NETWORK % number}' >/etc/cni/net.d/50-test.conflist")
    run(cluster.first, cluster.upgrade(cluster.first))
    cluster.first.read("kubectl wait --for=condition=Ready node --all --timeout=100s")
    done = cluster.first.shell("kubectl create -f -", WORKLOADS)
    assert done.returncode == 0, done.stderr
    cluster.wait_for_pods()


def test_preparing_for_the_new_version_replaces_nothing(cluster: Upgraded) -> None:
    cluster.version = NEW
    hosts = (cluster.first, cluster.second, cluster.worker)
    before = [running(host) for host in hosts]
    run(cluster.first, cluster.init())
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda host: run(host, cluster.prepare(host)), hosts[1:]))
    check_unchanged(hosts, before)


def test_no_node_is_upgraded_before_the_control_plane(cluster: Upgraded) -> None:
    done = cluster.worker.run(cluster.upgrade(cluster.worker))
    assert done.returncode == 1 and "must not be newer than the API server" in done.stderr
    assert cluster.kubelets()["w1"] == f"v{OLD}"


def test_first_control_plane_is_interrupted_and_upgraded(cluster: Upgraded) -> None:
    dice = random.Random(7)
    for after in [dice.uniform(0, 20) for _ in range(KILLS)]:
        cut(cluster.first, cluster.upgrade(cluster.first), "kubeadm upgrade", after)
    cut(cluster.first, cluster.upgrade(cluster.first), "apt-get .*kubelet=", 2)
    run(cluster.first, cluster.init())
    run(cluster.first, cluster.upgrade(cluster.first))
    assert cluster.kubelets() == {"cp1": f"v{NEW}", "cp2": f"v{OLD}", "w1": f"v{OLD}"}
    assert cluster.first.read("kubectl get --raw /version | grep gitVersion").count(NEW) == 1
    assert cluster.first.read("systemctl is-active crio kubelet; apt-mark showhold | xargs").split() == [
        "active", "active", "cri-o", "kubeadm", "kubectl", "kubelet",
    ]  # fmt: skip


def test_second_control_plane_is_interrupted_and_upgraded(cluster: Upgraded) -> None:
    cut(cluster.second, cluster.upgrade(cluster.second), "kubeadm upgrade", random.Random(8).uniform(2, 20))
    run(cluster.second, cluster.upgrade(cluster.second))
    assert cluster.kubelets() == {"cp1": f"v{NEW}", "cp2": f"v{NEW}", "w1": f"v{OLD}"}
    assert cluster.images() == {f"v{NEW}"}
    assert cluster.etcd_members() == ["cp1", "cp2"]


def test_worker_is_drained_interrupted_and_upgraded(cluster: Upgraded) -> None:
    """The API answers all the time, and the worker's own credentials suffice to uncordon it."""
    failures: list[str] = []
    end = threading.Event()

    def ask() -> None:
        while not end.is_set():
            done = cluster.first.shell("kubectl --request-timeout 5s get --raw /readyz")
            if done.returncode != 0:
                failures.append(done.stderr)
            time.sleep(1)

    asking = threading.Thread(target=ask)
    asking.start()
    log = run(cluster.first, cluster.drain(cluster.worker))
    assert "default/goes" in log
    assert cluster.kubelets()["w1"] == f"v{OLD}true"
    for pattern in ("apt-get .*kubeadm=", "kubeadm upgrade", "apt-get .*kubelet="):
        cut(cluster.worker, cluster.upgrade(cluster.worker), pattern, 1)
    run(cluster.first, cluster.drain(cluster.worker))
    run(cluster.worker, cluster.upgrade(cluster.worker))
    end.set()
    asking.join()
    assert not failures
    assert cluster.kubelets() == dict.fromkeys(("cp1", "cp2", "w1"), f"v{NEW}")
    cluster.wait_for_pods()
    assert cluster.first.read("kubectl get pods -l app=stays -o jsonpath='{.items[*].spec.nodeName}'") == "w1 w1"
    assert "cordoned" not in cluster.first.read("kubectl get node w1 -o yaml")


def test_a_second_run_changes_nothing(cluster: Upgraded) -> None:
    hosts = (cluster.first, cluster.second, cluster.worker)
    before = [running(host) for host in hosts]
    run(cluster.first, cluster.init())
    for host in hosts:
        run(cluster.first, cluster.drain(host))
        run(host, cluster.upgrade(host))
    check_unchanged(hosts, before)


def test_a_downgrade_is_refused(cluster: Upgraded) -> None:
    cluster.version = OLD
    for host in (cluster.first, cluster.worker):
        done = host.run(cluster.prepare(host))
        assert done.returncode == 1 and f"kubelet {NEW}" in done.stderr and "does not go back" in done.stderr
