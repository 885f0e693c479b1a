"""The upgrade of a node in a cluster, on real systemd hosts with real apt and signed repositories. kubeadm, kubectl,
kubelet and CRI-O are stand-ins that keep the cluster in files and record what was called; see standins/.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.cluster.component import UPGRADE
from components.node.script import File, compose
from tests.node.conftest import Host, Hosts
from tests.node.packages import Repositories

KILLS = int(os.environ.get("CNILAB_KILLS", "5"))
STANDINS = {path.stem: path.read_text() for path in (Path(__file__).parent / "standins").glob("*.sh")}
STATE = "/var/lib/standin"
DROP_IN = "/etc/crio/crio.conf.d/20-cni-lab.conf"

pytestmark = [pytest.mark.timeout(1200), pytest.mark.xdist_group("hosts")]


@pytest.fixture(scope="module")
def host(hosts: Hosts) -> Host:
    made = hosts.make("n1", 41)
    made.read("rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*")
    return made


@pytest.fixture(scope="module")
def repositories(host: Host, hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repositories]:
    for tool in ("gpg", "gpgconf", "dpkg-deb"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    if "CNILAB_DEBS" in os.environ:
        pytest.skip("CNILAB_DEBS: these tests want stand-ins")
    made = Repositories(tmp_path_factory.mktemp("packages"), hosts.address(1), STANDINS)
    yield made
    made.close()


def variables(host: Host, repositories: Repositories, version: str, part: str) -> dict[str, str]:
    return {
        "OWNER": "cni-lab/test",
        "NODE_NAME": host.name,
        "NODE_ADDRESS": host.address,
        "API_ENDPOINT": f"{host.address}:6443",
        "MACHINE_KIND": "existing",
        "MODULES": "overlay",
        "TUNNEL_LINKS": "",
        "MULTUS": "yes",
        "KUBERNETES_VERSION": version,
        "KUBERNETES_MINOR": version.rpartition(".")[0],
        "KUBERNETES_PACKAGES": repositories.kubernetes,
        "KUBERNETES_KEY": repositories.key.fingerprint,
        "CRIO_VERSION": version,
        "CRIO_PACKAGES": repositories.crio,
        "CRIO_KEY": repositories.key.fingerprint,
        "PART": part,
        "DRAINED": host.name,
    }


def files(version: str) -> list[File]:
    """The files of a step. The content of CRI-O's depends on the minor."""
    return [
        File("/etc/sysctl.d/99-cni-lab.conf", "net.ipv4.ip_forward = 1\n"),
        File(DROP_IN, f'[crio.image]\npause_image = "registry.k8s.io/pause:of-{version.rpartition(".")[0]}"\n'),
    ]


def prepare(host: Host, repositories: Repositories, version: str) -> str:
    return compose("prepare", variables(host, repositories, version, "node"), files(version), ["prepare.sh"])


def init(host: Host, repositories: Repositories, version: str) -> str:
    """The program of the first control plane."""
    scripts = ["prepare.sh", "init.sh", *UPGRADE]
    return compose("init", variables(host, repositories, version, "apply"), files(version), scripts)


def upgrade(host: Host, repositories: Repositories, version: str, role: str = "worker") -> str:
    """The program of every other node. A worker was drained by the control plane before."""
    scripts = [script for script in UPGRADE if role == "control-plane" or script != "drain.sh"]
    return compose("upgrade", variables(host, repositories, version, "node"), [], scripts, "prepare")


def node(host: Host, repositories: Repositories, version: str, role: str = "worker", cluster: str = "") -> Host:
    """The host as a node that runs `version`, in a cluster whose first control plane is at `cluster`."""
    host.read(
        f"systemctl stop crio kubelet; rm -rf {STATE} /var/lib/cni-lab /etc/kubernetes /etc/crio;"
        " dpkg --purge --force-all kubelet kubeadm kubectl cri-o cri-tools kubernetes-cni; true"
    )
    host.read("rm -f /etc/apt/sources.list.d/* /etc/apt/preferences.d/cni-lab /etc/apt/keyrings/cni-lab*")
    run(host, prepare(host, repositories, version))
    traces = ["kubelet.conf"]
    if role == "control-plane":
        traces += ["admin.conf", *(f"manifests/{part}.yaml" for part in PARTS)]
    host.read(
        f"mkdir -p /etc/kubernetes/manifests {STATE}; cd /etc/kubernetes; touch {' '.join(traces)};"
        f" for m in manifests/*.yaml; do echo '  - image: registry.k8s.io/x:v{version}' >$m; done;"
        f" touch /var/lib/cni-lab/initialised; echo {cluster or version} >{STATE}/cluster;"
        f" systemctl stop crio kubelet; rm -f {STATE}/calls; systemctl start crio kubelet;"
        f" until [[ $(grep -c starts {STATE}/calls) == 2 ]]; do sleep 0.1; done; rm {STATE}/calls"
    )
    if role == "worker":
        host.read("rm -f /etc/kubernetes/manifests/*")
    return host


PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


def run(host: Host, program: str) -> str:
    done = host.run(program, 300)
    assert done.returncode == 0, done.stderr
    return done.stderr


def refused(host: Host, program: str) -> str:
    """The message of a program that must fail and change nothing."""
    before = state(host)
    done = host.run(program, 300)
    assert done.returncode == 1, done.stderr
    assert state(host) == before
    return done.stderr.strip().splitlines()[-1]


def calls(host: Host) -> list[str]:
    return host.read(f"[[ ! -e {STATE}/calls ]] || cat {STATE}/calls").splitlines()


def state(host: Host) -> str:
    """Everything that an upgrade may change, with times."""
    return host.read(
        f"find /etc /var/lib/cni-lab {STATE} /usr/bin /usr/lib/systemd -type f -printf '%p %T@\\n' | sort;"
        " dpkg-query -W; systemctl show -P ActiveEnterTimestampMonotonic crio kubelet"
    )


def outcome(host: Host) -> str:
    """What every completed upgrade leaves, whatever happened on the way."""
    return host.read(
        "dpkg-query -W kubelet kubeadm kubectl cri-o; apt-mark showhold; dpkg --audit;"
        f" systemctl is-active crio kubelet; cd {STATE}; cat crio nodes/* cluster;"
        " ls | grep -E '^(cordoned|annotation)' || true;"
        " grep -H . /etc/kubernetes/manifests/*.yaml /etc/apt/sources.list.d/* /etc/apt/preferences.d/* || true;"
        f" cat {DROP_IN} /var/lib/cni-lab/changed || true"
    )


@pytest.mark.parametrize("change", [("1.36.2", "1.36.3"), ("1.35.4", "1.36.3")])
def test_first_control_plane(host: Host, repositories: Repositories, change: tuple[str, str]) -> None:
    old, new = change
    node(host, repositories, old, "control-plane")
    log = run(host, init(host, repositories, new))
    assert calls(host) == [
        "kubeadm upgrade apply",
        f"drain {host.name}",
        f"crio {new} starts",
        f"kubelet {new} starts",
        f"uncordon {host.name}",
    ]
    assert "default/shell" in log, "a pod that is deleted for good is named"
    assert host.read("apt-mark showhold | xargs") == "cri-o kubeadm kubectl kubelet"
    assert host.read("dpkg-query -W -f '${Version} ' kubelet kubeadm kubectl cri-o").split() == [f"{new}-1.1"] * 4
    assert host.read(f"cat {STATE}/cluster") == new
    assert f"/v{new.rpartition('.')[0]}/deb" in host.read("cat /etc/apt/sources.list.d/cni-lab-kubernetes.list")

    before = state(host)
    log = run(host, init(host, repositories, new))
    assert "kubeadm upgrade" not in log and "wrote" not in log
    assert state(host) == before


@pytest.mark.parametrize("role", ["worker", "control-plane"])
def test_other_node(host: Host, repositories: Repositories, role: str) -> None:
    node(host, repositories, "1.35.4", role, cluster="1.36.3")
    ask = "systemctl show -P ActiveEnterTimestampMonotonic crio kubelet; dpkg-query -W"
    before = host.read(ask)
    log = run(host, prepare(host, repositories, "1.36.3"))
    assert "has Kubernetes 1.35.4 and CRI-O 1.35.4: its upgrade follows" in log
    assert host.read(ask) == before and calls(host) == [], "nothing may restart while all nodes prepare"
    assert "of-1.36" in host.read(f"cat {DROP_IN}")

    run(host, upgrade(host, repositories, "1.36.3", role))
    drain = [f"drain {host.name}"] if role == "control-plane" else []
    uncordon = [f"uncordon {host.name}"] if role == "control-plane" else []
    assert calls(host) == ["kubeadm upgrade node", *drain, "crio 1.36.3 starts", "kubelet 1.36.3 starts", *uncordon]
    before = state(host)
    run(host, upgrade(host, repositories, "1.36.3", role))
    assert "nothing to install" in run(host, prepare(host, repositories, "1.36.3"))
    assert state(host) == before


@pytest.mark.parametrize(("old", "removed"), [("1.36.2", False), ("1.35.4", True)])
def test_pods_lose_their_network_before_crio_removes_them(
    host: Host, repositories: Repositories, old: str, removed: bool
) -> None:
    """CRI-O of another minor removes all pods, and takes none out of its network while the API server is away."""
    node(host, repositories, old, "control-plane")
    host.read(f"printf 'one POD\nown NODE\ntwo POD\n' >{STATE}/pods")
    run(host, init(host, repositories, "1.36.3"))
    gone = ["rmp one, kubelet is inactive", "rmp two, kubelet is inactive"] if removed else []
    assert calls(host)[2:-1] == [*gone, "crio 1.36.3 starts", "kubelet 1.36.3 starts"]


def test_an_upgrade_that_ended_before_crio_was_restarted(host: Host, repositories: Repositories) -> None:
    """The packages are new and kubelet is stopped. The preparation restarts CRI-O with the same care."""
    node(host, repositories, "1.35.4", cluster="1.36.3")
    run(host, prepare(host, repositories, "1.36.3"))
    host.read(f"echo 'one POD' >{STATE}/pods; chmod -x /usr/bin/systemctl")
    try:
        assert host.run(upgrade(host, repositories, "1.36.3"), 300).returncode != 0
    finally:
        host.read("chmod +x /usr/bin/systemctl")
    assert host.read("kubelet --version") == "Kubernetes v1.36.3" and calls(host) == ["kubeadm upgrade node"]
    host.read("systemctl stop kubelet")
    run(host, prepare(host, repositories, "1.36.3"))
    assert calls(host)[1:] == ["rmp one, kubelet is inactive", "crio 1.36.3 starts", "kubelet 1.36.3 starts"]
    run(host, upgrade(host, repositories, "1.36.3"))
    assert host.read("systemctl is-active crio kubelet").split() == ["active", "active"]
    assert "/usr/bin/kubelet" not in host.read("cat /var/lib/cni-lab/changed").splitlines()


def test_worker_is_drained_by_the_control_plane(host: Host, repositories: Repositories) -> None:
    node(host, repositories, "1.36.2", "control-plane")
    wanted = {"DRAINED": "w1", "KUBERNETES_VERSION": "1.36.2", "CRIO_VERSION": "1.36"}
    host.read(f"echo w1 v1.36.2 >{STATE}/nodes/w1")
    run(host, compose("drain", wanted, [], ["drain.sh"]))
    assert calls(host) == [], "it has the wanted versions"
    assert "is not in the cluster" in run(host, compose("drain", wanted | {"DRAINED": "w2"}, [], ["drain.sh"]))
    run(host, compose("drain", wanted | {"KUBERNETES_VERSION": "1.36.3"}, [], ["drain.sh"]))
    assert calls(host) == ["drain w1"] and host.read(f"cat {STATE}/annotation-w1") == "yes"


def test_node_that_somebody_cordoned_stays_cordoned(host: Host, repositories: Repositories) -> None:
    node(host, repositories, "1.36.2", "control-plane")
    host.read(f"touch {STATE}/cordoned-{host.name}")
    run(host, init(host, repositories, "1.36.3"))
    assert f"uncordon {host.name}" not in calls(host)
    assert host.read(f"ls {STATE}/cordoned-{host.name}")


def test_pods_that_do_not_leave(host: Host, repositories: Repositories) -> None:
    node(host, repositories, "1.36.2", "control-plane")
    host.read(f"touch {STATE}/undrainable")
    done = host.run(init(host, repositories, "1.36.3"))
    assert done.returncode == 1
    assert "disruption budget" in done.stderr and f"not every pod left {host.name}" in done.stderr
    assert host.read("dpkg-query -W -f '${Version}' kubelet") == "1.36.2-1.1"
    host.read(f"rm {STATE}/undrainable")
    run(host, init(host, repositories, "1.36.3"))
    assert outcome(host).count("1.36.3") > 6 and "cordoned" not in outcome(host)


@pytest.mark.parametrize("role", ["worker", "control-plane"])
def test_skipped_minor(host: Host, repositories: Repositories, role: str) -> None:
    node(host, repositories, "1.34.4", role)
    for program in (prepare, init if role == "control-plane" else upgrade):
        message = refused(host, program(host, repositories, "1.36.3"))
        assert f"{host.name} runs kubelet 1.34.4" in message and "1.36.3: kubeadm does not skip a minor" in message
        assert "Set kubernetes.version to one of 1.35" in message


@pytest.mark.parametrize("old", ["1.36.2", "1.35.4"])
def test_downgrade(host: Host, repositories: Repositories, old: str) -> None:
    node(host, repositories, "1.36.3", "control-plane")
    for program in (prepare, init, upgrade):
        message = refused(host, program(host, repositories, old))
        assert (
            f"kubelet 1.36.3 in a cluster and the stack file says Kubernetes {old}: a cluster does not go back"
            in message
        )
        assert "Set kubernetes.version to 1.36.3 or a later one" in message


def test_back_after_the_control_plane_went_ahead(host: Host, repositories: Repositories) -> None:
    """Interrupted between kubeadm and kubelet: the API server has the new version, and cannot go back either."""
    node(host, repositories, "1.35.4", "control-plane")
    host.read("sed -i s/1.35.4/1.36.3/ /etc/kubernetes/manifests/*.yaml")
    message = refused(host, init(host, repositories, "1.35.4"))
    assert "runs kube-apiserver 1.36.3" in message and "does not go back" in message


def test_kubelet_newer_than_the_api_server(host: Host, repositories: Repositories) -> None:
    node(host, repositories, "1.35.4", cluster="1.35.4")
    message = refused(host, upgrade(host, repositories, "1.36.3"))
    assert "the cluster is at Kubernetes 1.35.4" in message and "kubelet 1.36.3" in message
    assert "must not be newer than the API server" in message


@pytest.mark.parametrize(
    ("theirs", "says"),
    [("1.36.3", "w1 runs kubelet 1.36.3 in a cluster"), ("1.34.4", "w1 runs kubelet 1.34.4 in a cluster")],
)
def test_another_node_that_does_not_fit(host: Host, repositories: Repositories, theirs: str, says: str) -> None:
    """Such as one that an earlier upgrade did not reach. It is seen before kubeadm changes anything."""
    node(host, repositories, "1.35.4", "control-plane")
    host.read(f"echo w1 v{theirs} >{STATE}/nodes/w1")
    wanted = "1.36.2"
    done = host.run(init(host, repositories, wanted))
    assert done.returncode == 1
    assert says in done.stderr and wanted in done.stderr
    assert calls(host) == [] and host.read("dpkg-query -W -f '${Version}' kubeadm") == "1.35.4-1.1"


def test_manifest_that_an_interrupted_upgrade_moved_away(host: Host, repositories: Repositories) -> None:
    node(host, repositories, "1.36.2", "control-plane")
    host.read(
        "cd /etc/kubernetes; mkdir -p tmp/kubeadm-backup-manifests-2026-01-0{1,2};"
        " echo old >tmp/kubeadm-backup-manifests-2026-01-01/kube-apiserver.yaml;"
        " mv manifests/kube-apiserver.yaml tmp/kubeadm-backup-manifests-2026-01-02/"
    )
    log = run(host, init(host, repositories, "1.36.3"))
    assert "kube-apiserver.yaml is back" in log
    assert "v1.36.3" in host.read("cat /etc/kubernetes/manifests/kube-apiserver.yaml")


@pytest.mark.parametrize("ended_seconds_ago", [0, 60])
def test_an_api_server_that_kubelet_does_not_start_yet(
    host: Host, repositories: Repositories, ended_seconds_ago: int
) -> None:
    """It crashed repeatedly, because interrupted upgrades left it without etcd, and kubelet waits up to 300 s."""
    node(host, repositories, "1.36.2", "control-plane")
    host.read(f"date -d '-{ended_seconds_ago} seconds' --iso-8601=ns >{STATE}/api-server-ended")
    began = time.monotonic()
    run(host, init(host, repositories, "1.36.3"))
    assert calls(host)[:2] == ["kubelet 1.36.2 starts", "kubeadm upgrade apply"]
    if not ended_seconds_ago:
        assert time.monotonic() - began > 20, "kubelet may be about to start it by itself"


def test_an_api_server_without_etcd(host: Host, repositories: Repositories) -> None:
    """Another node's etcd is being replaced, and two members are no majority without it."""
    node(host, repositories, "1.35.4", cluster="1.36.3")
    run(host, prepare(host, repositories, "1.36.3"))
    host.read(f"touch {STATE}/etcd-away")
    started = host.start(upgrade(host, repositories, "1.36.3"))
    time.sleep(15)
    assert started.poll() is None
    host.read(f"rm {STATE}/etcd-away")
    _, log = started.communicate(timeout=300)
    assert started.returncode == 0, log


def test_packages_that_were_unpacked_by_half(host: Host, repositories: Repositories) -> None:
    """dpkg was killed while it unpacked one package, and another one needs that to be configured."""
    node(host, repositories, "1.35.4", cluster="1.36.3")
    run(host, prepare(host, repositories, "1.36.3"))
    host.read(
        "sed -i -e '/^Package: cri-tools$/,/^$/s/^Status: .*/Status: install reinstreq half-installed/'"
        " -e '/^Package: kubeadm$/,/^$/s/^Status: .*/Status: install ok unpacked/' /var/lib/dpkg/status;"
        " rm /var/lib/dpkg/info/cri-tools.list /usr/bin/crictl; [[ -n $(dpkg --audit) ]]"
    )
    assert "cri-tools: unpacked by half" in run(host, upgrade(host, repositories, "1.36.3"))
    assert host.read("dpkg --audit; crictl --version") == "crictl v1.36.0"


def test_an_upgrade_asks_for_its_own_package_lists_alone(host: Host, repositories: Repositories) -> None:
    """A distribution's lists are large, and a closed network may have no answer for them."""
    other = repositories.root / "www" / "other"
    other.mkdir()
    (other / "Packages").write_text("")
    node(host, repositories, "1.35.4", cluster="1.36.3")
    host.read(f"echo 'deb [trusted=yes] {repositories.base}/other ./' >/etc/apt/sources.list.d/other.list")
    repositories.requests.clear()
    run(host, upgrade(host, repositories, "1.36.3"))
    assert "/core/v1.36/deb/InRelease" in repositories.requests
    assert not [path for path in repositories.requests if path.startswith("/other/")]

    # What the packages need may be missing. Here the first try of apt fails for another reason.
    node(host, repositories, "1.35.4", cluster="1.36.3")
    host.read(
        f"echo 'deb [trusted=yes] {repositories.base}/other ./' >/etc/apt/sources.list.d/other.list;"
        " rm -f /run/tried; echo 'DPkg::Pre-Invoke {\"test -e /run/tried || { touch /run/tried; false; }\";};'"
        " >/etc/apt/apt.conf.d/99-fails-once"
    )
    repositories.requests.clear()
    try:
        run(host, upgrade(host, repositories, "1.36.3"))
    finally:
        host.read("rm /etc/apt/apt.conf.d/99-fails-once")
    assert [path for path in repositories.requests if path.startswith("/other/")]


def test_manifest_that_somebody_moved_away(host: Host, repositories: Repositories) -> None:
    """No upgrade is in progress, so it is left to whoever moved it."""
    node(host, repositories, "1.36.3", "control-plane")
    host.read(
        "cd /etc/kubernetes; mkdir -p tmp/kubeadm-backup-manifests-2026-01-01;"
        " echo old >tmp/kubeadm-backup-manifests-2026-01-01/etcd.yaml; rm manifests/etcd.yaml"
    )
    run(host, init(host, repositories, "1.36.3"))
    assert host.shell("ls /etc/kubernetes/manifests/etcd.yaml").returncode != 0


def test_machine_that_has_not_joined(host: Host, repositories: Repositories) -> None:
    node(host, repositories, "1.36.2")
    host.read("rm /etc/kubernetes/kubelet.conf")
    assert "is not in the cluster yet" in run(host, upgrade(host, repositories, "1.36.3"))
    assert calls(host) == []
    run(host, prepare(host, repositories, "1.36.3"))
    assert host.read("dpkg-query -W -f '${Version}' kubelet") == "1.36.3-1.1"


@pytest.mark.parametrize("role", ["control-plane", "worker"])
@pytest.mark.timeout(2400)
def test_killed_at_random_points(host: Host, repositories: Repositories, role: str) -> None:
    """Every process of the run is killed with SIGKILL. The next run completes."""
    program = init if role == "control-plane" else upgrade

    def fresh() -> None:
        node(host, repositories, "1.35.4", role, cluster="1.35.4" if role == "control-plane" else "1.36.3")
        if role == "worker":
            run(host, prepare(host, repositories, "1.36.3"))
            host.read(f"touch {STATE}/cordoned-{host.name}; echo yes >{STATE}/annotation-{host.name}")

    fresh()
    begin = time.monotonic()
    run(host, program(host, repositories, "1.36.3"))
    whole, expected = time.monotonic() - begin, outcome(host)
    dice = random.Random(36)
    killed = 0
    for _ in range(KILLS):
        fresh()
        for _ in range(2):
            process: subprocess.Popen[str] = host.start(program(host, repositories, "1.36.3"))
            time.sleep(dice.uniform(0.05, 0.95) * whole)
            host.kill()
            process.communicate(timeout=60)
            killed += process.returncode != 0
        run(host, program(host, repositories, "1.36.3"))
        assert outcome(host) == expected
    assert killed >= KILLS // 2
