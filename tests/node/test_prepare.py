"""prepare.sh and reset.sh on real systemd hosts, reached through real sshd, with real apt and signed repositories."""

from __future__ import annotations

import json
import os
import random
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.node.script import File, compose, installed_script
from components.spec.modes import VXLAN, links_for_shell
from tests.node.conftest import Host, Hosts
from tests.node.packages import Repositories

KILLS = int(os.environ.get("CNILAB_KILLS", "5"))
NO_MIRRORS = "rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*"
# The tests share one host, so they run in one pytest worker and in the order of this file.
pytestmark = pytest.mark.xdist_group("hosts")
MODULES = "overlay br_netfilter vxlan"
RESET = "/usr/local/lib/cni-lab/reset.sh"


@pytest.fixture(scope="module")
def host(hosts: Hosts) -> Host:
    # The real CRI-O cannot use overlay on the container's own overlay.
    made = hosts.make("one", 31, options=("--volume", "/var/lib/containers"))
    # The distribution's own mirrors cannot be reached from here, and every attempt would take time.
    made.read(NO_MIRRORS)
    return made


@pytest.fixture(scope="module")
def repositories(host: Host, hosts: Hosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repositories]:
    """Served on this computer, the gateway of `host`. That address exists once `host` does."""
    for tool in ("gpg", "gpgconf", "dpkg-deb"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    made = Repositories(tmp_path_factory.mktemp("packages"), hosts.address(1))
    yield made
    made.close()


@pytest.fixture
def clean(host: Host) -> Host:
    """The host as it was before any run."""
    reset(host)
    return host


def files(crio: str = "[crio.image]\n", registries: str = "") -> list[File]:
    return [
        File("/etc/modules-load.d/cni-lab.conf", MODULES.replace(" ", "\n") + "\n"),
        File("/etc/sysctl.d/99-cni-lab.conf", "net.ipv4.ip_forward = 1\nnet.bridge.bridge-nf-call-iptables = 1\n"),
        File("/etc/systemd/networkd.conf.d/50-cni-lab.conf", "[Network]\nManageForeignRoutes=no\n"),
        File("/etc/crio/crio.conf.d/20-cni-lab.conf", crio),
        *([File("/etc/containers/registries.conf.d/50-cni-lab.conf", registries)] if registries else []),
        File(RESET, installed_script("reset.sh", {"TUNNEL_DEVICES": "vxlan.calico tunl0"}), "0755"),
    ]


def program(host: Host, repositories: Repositories, wanted: list[File] | None = None, **changes: str) -> str:
    variables = {
        "OWNER": "cni-lab/test",
        "NODE_NAME": host.name,
        "NODE_ADDRESS": host.address,
        "MACHINE_KIND": "existing",
        "MODULES": MODULES,
        "TUNNEL_LINKS": links_for_shell([VXLAN]),
        "MULTUS": "yes",
        "KUBERNETES_VERSION": "1.36.3",
        "KUBERNETES_MINOR": "1.36",
        "KUBERNETES_PACKAGES": repositories.kubernetes,
        "KUBERNETES_KEY": repositories.key.fingerprint,
        "CRIO_VERSION": "1.36.3",
        "CRIO_PACKAGES": repositories.crio,
        "CRIO_KEY": repositories.key.fingerprint,
    }
    return compose("prepare", variables | changes, wanted or files(), ["prepare.sh"])


def prepare(host: Host, repositories: Repositories, wanted: list[File] | None = None, **changes: str) -> str:
    """The log of a run that must succeed."""
    done = host.run(program(host, repositories, wanted, **changes), 300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["node"] == host.name
    return done.stderr


def refused(host: Host, repositories: Repositories, wanted: list[File] | None = None, **changes: str) -> str:
    """The message of a run that must fail with one message."""
    done = host.run(program(host, repositories, wanted, **changes), 300)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout == ""
    *_, last = done.stderr.strip().splitlines()
    assert last.startswith("cni-lab: error: ")
    return last


def reset(host: Host) -> None:
    """Remove what prepare made, packages and lists included."""
    done = host.shell(f"[[ ! -e {RESET} ]] || bash {RESET}")
    assert done.returncode == 0, done.stderr
    host.read(
        "systemctl stop crio kubelet || true;"
        " dpkg --purge --force-all kubelet kubeadm kubectl cri-o cri-tools kubernetes-cni;"
        " rm -rf /var/lib/apt/lists/* /var/cache/apt/archives/*.deb /var/lib/cni-lab /usr/local/lib/cni-lab"
        " /etc/kubernetes /etc/crio /etc/cni"
    )


def state(host: Host) -> str:
    """Everything that prepare may change, with times. Equal before and after a run that changed nothing."""
    return host.read(
        "find /etc /var/lib/cni-lab /usr/bin /usr/local /usr/lib/systemd -type f -printf '%p %T@ %m\\n' | sort;"
        " dpkg-query -W; apt-mark showhold; ls /etc/systemd/system/*.wants;"
        " systemctl show -P ActiveEnterTimestampMonotonic crio systemd-networkd systemd-sysctl cni-lab-mounts"
    )


def outcome(host: Host) -> str:
    """What every completed prepare leaves, whatever happened on the way. Without times."""
    return host.read(
        "find /etc /usr/bin /usr/local /usr/lib/systemd -name '.cni-lab*';"
        " for f in $(cat /var/lib/cni-lab/files/* | sort); do echo $f; sha256sum <$f; done; cat /var/lib/cni-lab/owner;"
        " cat /etc/hosts | grep -c cni-lab; dpkg-query -W kubelet kubeadm kubectl cri-o cri-tools kubernetes-cni;"
        " apt-mark showhold; dpkg --audit; systemctl is-enabled crio kubelet; systemctl is-active crio;"
        " sysctl net.ipv4.ip_forward; ls -A /var/lib/cni-lab"
    )


@pytest.mark.timeout(600)
def test_twice(clean: Host, repositories: Repositories) -> None:
    prepare(clean, repositories)
    assert clean.read("apt-mark showhold | xargs") == "cri-o kubeadm kubectl kubelet"
    assert clean.read("dpkg-query -W -f '${Version} ' kubelet kubeadm kubectl cri-o").split() == ["1.36.3-1.1"] * 4
    before = state(clean)
    log = prepare(clean, repositories)
    assert "nothing to install" in log and "wrote" not in log
    assert state(clean) == before
    assert clean.read(f"getent ahostsv4 {clean.name} | head -n 1").split()[0] == clean.address


def in_memory(host: Host) -> list[str]:
    """What prepare does to the running system, as a boot has to find it."""
    shown = (
        "hostname; getent ahostsv4 $(hostname) | head -n 1; wc -l </proc/swaps;"
        " sysctl net.ipv4.ip_forward net.bridge.bridge-nf-call-iptables; findmnt -no TARGET,PROPAGATION /;"
        " findmnt -no TARGET,PROPAGATION /sys; test -d /lib/modules && echo modules;"
        " systemctl is-active crio cni-lab-mounts systemd-sysctl; systemctl is-enabled crio kubelet; apt-mark showhold"
    )
    return host.read(shown).splitlines()


@pytest.mark.timeout(600)
def test_a_reboot_takes_nothing_away(hosts: Hosts, clean: Host, repositories: Repositories) -> None:
    prepare(clean, repositories)
    before, files_before = in_memory(clean), outcome(clean)
    assert "active" in before and "net.ipv4.ip_forward = 1" in before
    hosts.reboot(clean)
    assert in_memory(clean) == before
    log = prepare(clean, repositories)
    assert "nothing to install" in log and "wrote" not in log
    assert (in_memory(clean), outcome(clean)) == (before, files_before)


@pytest.mark.timeout(1800)
def test_killed_at_random_points(hosts: Hosts, clean: Host, repositories: Repositories) -> None:
    """Every process of the run is killed with SIGKILL. The next run completes."""
    begin = time.monotonic()
    prepare(clean, repositories)
    whole, expected = time.monotonic() - begin, outcome(clean)
    dice = random.Random(20)
    killed = 0
    for _ in range(KILLS):
        reset(clean)
        process = clean.start(program(clean, repositories))
        time.sleep(dice.uniform(0.05, 0.95) * whole)
        clean.kill()
        process.communicate(timeout=60)
        if process.returncode != 0:
            killed += 1
        else:
            whole /= 2  # the computer was busier when this was measured
        prepare(clean, repositories)
        assert outcome(clean) == expected
    assert killed >= KILLS // 2


@pytest.mark.timeout(600)
def test_the_connection_is_cut(clean: Host, repositories: Repositories) -> None:
    """The client is gone. The next run waits for what is still running, and completes."""
    prepare(clean, repositories)
    expected = outcome(clean)
    for after in (0.5, 2.0):
        reset(clean)
        process = clean.start(program(clean, repositories))
        time.sleep(after)
        process.kill()
        process.wait()
        prepare(clean, repositories)
        assert outcome(clean) == expected


@pytest.mark.timeout(600)
def test_two_hosts_at_once(hosts: Hosts, clean: Host, repositories: Repositories) -> None:
    other = hosts.make("two", 32)
    other.read(NO_MIRRORS)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda host: prepare(host, repositories), (clean, other)))
    assert outcome(clean) == outcome(other)
    hosts.remove(other)


@pytest.mark.timeout(600)
def test_two_runs_on_one_host(clean: Host, repositories: Repositories) -> None:
    with ThreadPoolExecutor(2) as pool:
        logs = list(pool.map(lambda _: prepare(clean, repositories), range(2)))
    assert sum("nothing to install" in log for log in logs) == 1


@pytest.mark.timeout(600)
def test_lower_version(clean: Host, repositories: Repositories) -> None:
    prepare(clean, repositories)
    if clean.shell("apt-cache madison kubelet | grep 1.36.2").returncode != 0:
        pytest.skip("the repository has one version only")
    log = prepare(clean, repositories, KUBERNETES_VERSION="1.36.2", CRIO_VERSION="1.36.2")
    assert "nothing to install" not in log
    assert clean.read("dpkg-query -W -f '${Version} ' kubelet cri-o; apt-mark showhold | xargs") == (
        "1.36.2-1.1 1.36.2-1.1 cri-o kubeadm kubectl kubelet"
    )


def test_minor_of_a_running_node(clean: Host, repositories: Repositories) -> None:
    prepare(clean, repositories)
    clean.read("touch /etc/kubernetes/kubelet.conf")
    message = refused(clean, repositories, KUBERNETES_VERSION="1.35.1", KUBERNETES_MINOR="1.35")
    assert "kubelet 1.36.3" in message and "1.35.1" in message and "replace the machines" in message


def test_wrong_key(clean: Host, repositories: Repositories) -> None:
    stranger = repositories.stranger.fingerprint
    message = refused(clean, repositories, KUBERNETES_KEY=stranger)
    assert f"holds the key {repositories.key.fingerprint}, pinned is {stranger}" in message
    assert clean.shell("ls /etc/apt/keyrings/cni-lab-kubernetes.asc").returncode != 0
    for nothing in ("", "DE15B144"):
        message = refused(clean, repositories, CRIO_KEY=nothing)
        assert f"no fingerprint of the cri-o repository's key is pinned ('{nothing}')" in message


def test_second_key_beside_the_pinned_one(clean: Host, repositories: Repositories) -> None:
    path = repositories.folder("core") / "Release.key"
    good = path.read_text()
    try:
        path.write_text(good + repositories.stranger.public())
        assert "pinned is" in refused(clean, repositories)
        path.write_text("<html>404</html>\n")
        assert "holds the key (none)" in refused(clean, repositories)
    finally:
        path.write_text(good)


def test_forged_index(clean: Host, repositories: Repositories) -> None:
    """The key is right, but another key signed the index. apt refuses it, and so does prepare."""
    release = repositories.folder("core") / "Release"
    try:
        repositories.stranger.sign(release)
        assert "did not install" in refused(clean, repositories)
    finally:
        repositories.key.sign(release)


def test_version_that_the_repository_lacks(clean: Host, repositories: Repositories) -> None:
    message = refused(clean, repositories, KUBERNETES_VERSION="1.36.99")
    assert "Kubernetes 1.36.99" in message and "does the repository have these versions" in message


@pytest.mark.timeout(600)
def test_repository_out_of_reach(clean: Host, repositories: Repositories) -> None:
    message = refused(clean, repositories, KUBERNETES_PACKAGES="http://127.0.0.1:1/core")
    assert "http://127.0.0.1:1/core/v1.36/deb/Release.key cannot be fetched" in message and "mirror" in message


@pytest.mark.parametrize("trace", ["admin.conf", "kubelet.conf", "manifests/etcd.yaml"])
def test_foreign_cluster(clean: Host, repositories: Repositories, trace: str) -> None:
    clean.read(f"install -D /dev/null /etc/kubernetes/{trace}")
    before = state(clean)
    message = refused(clean, repositories)
    assert f"already carries a cluster that is not ours (/etc/kubernetes/{trace})" in message
    assert state(clean) == before


def test_another_stack(clean: Host, repositories: Repositories) -> None:
    prepare(clean, repositories, OWNER="lab-a")
    message = refused(clean, repositories, OWNER="lab-b")
    assert "belongs to 'lab-a', not to 'lab-b'" in message
    prepare(clean, repositories, OWNER="lab-a")


def test_missing_module(clean: Host, repositories: Repositories) -> None:
    message = refused(clean, repositories, MODULES=f"{MODULES} no-such-module")
    assert "lacks no-such-module" in message and "modules package" in message


def test_a_host_without_a_default_route(clean: Host, repositories: Repositories) -> None:
    route = clean.read("ip -4 route show default").strip()
    # ssh's own connection is on the host's network, and needs no default route.
    clean.read("ip -4 route delete default")
    try:
        message = refused(clean, repositories)
        assert f"{clean.name} has no route to 169.254.1.1" in message and "ip route add 169.254.1.1 dev" in message
        assert clean.shell("test -e /var/lib/cni-lab/owner").returncode != 0, "the host is not claimed"
        clean.read("ip route add 169.254.1.1 dev eth0")
        prepare(clean, repositories)
    finally:
        clean.read(f"ip route replace {route}; ip route delete 169.254.1.1 dev eth0 || true")


def test_setting_undone_by_another_file(clean: Host, repositories: Repositories) -> None:
    clean.read("echo net.ipv4.ip_forward=0 >/etc/sysctl.d/zz-theirs.conf")
    try:
        message = refused(clean, repositories)
        assert "net.ipv4.ip_forward is 0, wanted 1" in message and "sets them later" in message
    finally:
        clean.read("rm /etc/sysctl.d/zz-theirs.conf")
    prepare(clean, repositories)


def test_full_disk(clean: Host, repositories: Repositories) -> None:
    clean.read("mkdir -p /etc/crio && mount -t tmpfs -o size=8k tmpfs /etc/crio && mkdir /etc/crio/crio.conf.d")
    try:
        clean.shell("cat /dev/zero >/etc/crio/fill")
        message = refused(clean, repositories)
        assert "cannot write /etc/crio/crio.conf.d/20-cni-lab.conf" in message and "free some space" in message
        assert clean.read("ls -A /etc/crio/crio.conf.d") == ""
        clean.read("rm /etc/crio/fill")
        prepare(clean, repositories)
    finally:
        clean.read("umount /etc/crio")


@pytest.mark.parametrize("system", ["debian 11", "ubuntu 20.04", "ubuntu 25.10", "fedora 42"])
def test_other_system(clean: Host, repositories: Repositories, system: str) -> None:
    name, version = system.split()
    clean.read(
        "cp /usr/lib/os-release /run/os-release && mount --bind /run/os-release /usr/lib/os-release &&"
        f" printf 'ID={name}\\nVERSION_ID={version}\\nPRETTY_NAME=\"{name} {version}\"\\n' >/run/os-release"
    )
    try:
        assert f"runs {system}: use Ubuntu 22.04, 24.04 or 26.04, or Debian 12 or 13" in refused(clean, repositories)
    finally:
        clean.read("umount /usr/lib/os-release")


def crio_since(host: Host) -> str:
    return host.read("systemctl show -P ActiveEnterTimestampMonotonic crio")


@pytest.mark.timeout(600)
def test_crio_restarts_only_for_its_own_files(clean: Host, repositories: Repositories) -> None:
    prepare(clean, repositories)
    since = crio_since(clean)

    mirrored = files(registries='[[registry]]\nprefix = "registry.k8s.io"\nlocation = "registry.k8s.io"\n')
    prepare(clean, repositories, mirrored)
    assert crio_since(clean) == since
    assert "Reloaded crio" in clean.read("journalctl -u crio -o cat --no-pager | grep Reloaded")

    prepare(clean, repositories, files(crio='[crio.image]\npause_image = "example.invalid/pause:1"\n'))
    assert crio_since(clean) != since
    assert clean.shell("ls /etc/containers/registries.conf.d/50-cni-lab.conf").returncode != 0

    # A run was interrupted between the file and the restart. The next one finds the files unchanged, and restarts.
    since = crio_since(clean)
    clean.read("echo /etc/crio/crio.conf.d/20-cni-lab.conf >>/var/lib/cni-lab/changed")
    prepare(clean, repositories, files(crio='[crio.image]\npause_image = "example.invalid/pause:1"\n'))
    assert crio_since(clean) != since


@pytest.mark.timeout(600)
def test_the_pause_image_of_an_unknown_minor_is_asked_of_kubeadm(clean: Host, repositories: Repositories) -> None:
    """With the real kubeadm in place of the stand-in of the same version."""
    kubeadm = shutil.which("kubeadm", path=os.environ.get("CNILAB_KUBE_BIN", ""))
    if kubeadm is None:
        pytest.skip("CNILAB_KUBE_BIN names no folder with kubeadm")
    prepare(clean, repositories)
    subprocess.run(["podman", "cp", kubeadm, f"{clean.container}:/usr/bin/kubeadm"], check=True, timeout=120)
    since = crio_since(clean)
    prepare(clean, repositories, PAUSE="ask kubeadm")
    setting = clean.read("cat /etc/crio/crio.conf.d/20-cni-lab-pause.conf")
    assert setting == '[crio.image]\npause_image = "registry.k8s.io/pause:3.10.2"'
    assert crio_since(clean) != since, "CRI-O reads it only when it starts"
    since = crio_since(clean)
    prepare(clean, repositories, PAUSE="ask kubeadm")
    assert crio_since(clean) == since


@pytest.mark.timeout(600)
def test_sample_network(clean: Host, repositories: Repositories) -> None:
    sample = "/etc/cni/net.d/10-crio-bridge.conflist"
    clean.read(f"install -D /dev/null {sample}; ip link add cni0 type bridge; ip link add veth9 type veth peer veth8")
    try:
        clean.read("ip link set veth9 master cni0")
        assert f"{sample} stays: pods are attached" in prepare(clean, repositories)
        assert clean.read(f"ls {sample}") == sample
        clean.read("ip link set veth9 nomaster")
        prepare(clean, repositories)
        assert clean.read("ls /etc/cni/net.d") == "10-crio-bridge.conflist.disabled"
    finally:
        clean.read("ip link delete veth9; ip link delete cni0")


@pytest.mark.timeout(600)
def test_networks_of_other_runtimes(clean: Host, repositories: Repositories) -> None:
    """prepare moves them aside and reset puts them back. One that a running container uses is refused by name."""
    podman = "/etc/cni/net.d/87-podman-bridge.conflist"
    flannel = "/etc/cni/net.d/10-flannel.conflist"
    config = '{"name": "podman", "plugins": [{"type": "bridge", "bridge" : "cni-podman0"}]}'
    clean.read(
        f"install -d /etc/cni/net.d; echo {shlex.quote(config)} >{podman}; echo '{{}}' >{flannel};"
        " install -D /dev/null /etc/cni/net.d/10-calico.conflist;"
        " ip link add cni-podman0 type bridge; ip link add veth9 type veth peer veth8;"
        " ip link set veth9 master cni-podman0"
    )
    try:
        assert f"{podman} on {clean.name} gives containers" in refused(clean, repositories)
        clean.read("ip link set veth9 nomaster")
        assert f"{podman}.cni-lab-aside until destroy puts it back" in prepare(clean, repositories)
        there = clean.read("ls /etc/cni/net.d").splitlines()
        aside = ["10-flannel.conflist.cni-lab-aside", "87-podman-bridge.conflist.cni-lab-aside"]
        assert there == ["10-calico.conflist", *sorted(aside)]
        prepare(clean, repositories)
        assert clean.read("ls /etc/cni/net.d").splitlines() == there
        # On a node of the cluster, the files there came after Calico.
        clean.read(f"install -D /dev/null /etc/kubernetes/kubelet.conf; echo '{{}}' >{flannel}")
        prepare(clean, repositories)
        assert clean.read(f"cat {flannel}") == "{}"
        clean.read(f"rm /etc/kubernetes/kubelet.conf {flannel}")
        done = clean.shell(f"timeout 300 bash {RESET}")
        assert done.returncode == 0, done.stderr
        assert clean.read("ls /etc/cni/net.d").splitlines() == ["10-flannel.conflist", "87-podman-bridge.conflist"]
        assert clean.read(f"cat {podman}") == config
    finally:
        clean.read("ip link delete veth9; ip link delete cni-podman0; rm -rf /etc/cni/net.d/*")


@pytest.mark.timeout(600)
def test_interrupted_dpkg(clean: Host, repositories: Repositories) -> None:
    """A package is unpacked and not configured, as an interrupted apt leaves it."""
    prepare(clean, repositories)
    clean.read("cd /var/cache/apt/archives && apt-get download cri-tools=1.36.0-1.1 && dpkg --unpack cri-tools_*.deb")
    assert clean.read("dpkg --audit") != ""
    prepare(clean, repositories)
    assert clean.read("dpkg --audit") == ""


@pytest.mark.timeout(600)
def test_other_apt_is_waited_for(clean: Host, repositories: Repositories) -> None:
    """Something holds dpkg's lock for some seconds, as the update of a first boot does."""
    hold = "import fcntl,time; f=open('/var/lib/dpkg/lock-frontend','w'); fcntl.lockf(f,fcntl.LOCK_EX); time.sleep(8)"
    holder = subprocess.Popen([*clean.ssh, f'sudo python3 -c "{hold}"'])
    time.sleep(2)
    prepare(clean, repositories)
    assert holder.wait(30) == 0


@pytest.mark.timeout(600)
def test_mounts_are_shared_after_a_boot(clean: Host, repositories: Repositories) -> None:
    prepare(clean, repositories)
    assert clean.read("systemctl is-enabled cni-lab-mounts; systemctl is-active cni-lab-mounts") == "enabled\nactive"
    clean.read("mount --make-private / && systemctl restart cni-lab-mounts")
    assert clean.read("findmnt -no PROPAGATION /; findmnt -no PROPAGATION /sys | head -n 1") == "shared\nshared"


@pytest.mark.timeout(600)
def test_reset(clean: Host, repositories: Repositories) -> None:
    """Everything of the lab is removed, everything else stays, and a host of another is not touched."""
    prepare(clean, repositories)
    theirs = "/etc/cni/net.d/99-theirs.conflist"
    clean.read(
        f"install -D /dev/null {theirs}; install -D /dev/null /etc/cni/net.d/10-calico.conflist;"
        " mkdir -p /etc/cni/net.d/multus.d /etc/cni/net.d/whereabouts.d;"
        " mkdir -p /var/lib/cni/networks/net-calico /var/lib/calico;"
        " ip link add vxlan.calico type vxlan id 4096 dstport 4789 local 127.0.0.1;"
        " ip link add cali123 type veth peer c1;"
        " ip link add cni5 type bridge; ip link add br-theirs type bridge; echo cni5 >/var/lib/cni-lab/bridges;"
        " iptables -N cali-FORWARD; iptables -A FORWARD -j cali-FORWARD; iptables -N KUBE-SERVICES;"
        " iptables -A cali-FORWARD -j ACCEPT; iptables -N THEIRS; iptables -A FORWARD -s 192.0.2.1 -j THEIRS;"
        " iptables -A FORWARD -m comment --comment cali:S93hcgKJrXEqnTfs -j ACCEPT;"
        " ip6tables -t mangle -N KUBE-IPTABLES-HINT; iptables-legacy -t mangle -N KUBE-IPTABLES-HINT;"
        " nft add table ip calico; nft add table ip theirs"
    )
    before = clean.read("systemctl show -P ActiveEnterTimestampMonotonic ssh")
    done = clean.shell(f"timeout 300 bash {RESET}")
    assert done.returncode == 0, done.stderr
    left = clean.read(
        "find / -xdev -path /proc -prune -o -path /sys -prune -o -name '*cni-lab*' -print; ls /etc/cni/net.d;"
        " ls -d /var/lib/cni /var/lib/calico || true; apt-mark showhold; ls /sys/class/net; iptables-save;"
        " ip6tables-save; iptables-legacy-save;"
        " nft list tables; grep '# cni-lab' /etc/hosts || true"
    )
    for gone in (
        "cni-lab",
        "10-calico",
        "multus.d",
        "whereabouts.d",
        "calico",
        "kubelet",
        "cni5",
        "cali123",
        "KUBE-",
        "cali-",
        "cali:",
    ):
        assert gone not in left, left
    for kept in ("99-theirs.conflist", "br-theirs", "-A FORWARD -s 192.0.2.1/32 -j THEIRS", "table ip theirs", "eth0"):
        assert kept in left, left
    assert clean.read("systemctl show -P ActiveEnterTimestampMonotonic ssh") == before
    clean.read("ip link delete br-theirs; nft delete table ip theirs; iptables -F FORWARD; iptables -X THEIRS")

    lone = installed_script("reset.sh", {"TUNNEL_DEVICES": "vxlan.calico tunl0"})
    clean.read("install -D /dev/null /etc/kubernetes/admin.conf; ip link add cali123 type dummy || true")
    done = clean.shell("bash -s", lone)
    assert done.returncode == 0 and "nothing of ours: it is left as it is" in done.stderr
    assert clean.read("ls /etc/kubernetes") == "admin.conf"


@pytest.mark.timeout(1200)
def test_reset_is_interrupted(clean: Host, repositories: Repositories) -> None:
    dice = random.Random(5)
    for _ in range(5):
        prepare(clean, repositories)
        process = subprocess.Popen([*clean.ssh, f"sudo timeout 300 bash {RESET}"], stderr=subprocess.PIPE)
        time.sleep(dice.uniform(0.3, 1.5))
        clean.kill()
        process.communicate(timeout=60)
        done = clean.shell(f"[[ ! -e {RESET} ]] || timeout 300 bash {RESET}")
        assert done.returncode == 0, done.stderr
        assert clean.shell("ls /var/lib/cni-lab").returncode != 0
        clean.read("rm -rf /usr/local/lib/cni-lab")


@pytest.mark.timeout(600)
def test_without_multus_its_files_are_removed(clean: Host, repositories: Repositories) -> None:
    """When Multus leaves the stack file, what the step `files` wrote is removed, and nothing else."""
    ours, theirs = "/etc/cni/net.d/00-multus.conf", "/etc/cni/net.d/10-calico.conflist"
    clean.read(f"install -D /dev/null {theirs}")
    done = clean.run(compose("files", {}, [File(ours, "{}")], []).replace("} </dev/null", "write_files\n} </dev/null"))
    assert done.returncode == 0, done.stderr
    prepare(clean, repositories)
    assert clean.read("ls /etc/cni/net.d") == "00-multus.conf\n10-calico.conflist"
    prepare(clean, repositories, MULTUS="no")
    assert clean.read("ls /etc/cni/net.d; cat /var/lib/cni-lab/changed || true").splitlines()[0] == "10-calico.conflist"


@pytest.mark.timeout(600)
def test_without_a_checksum_calicoctl_is_removed(clean: Host, repositories: Repositories) -> None:
    """When the stack file has no checksum for calicoctl any more, what calicoctl.sh installed is removed."""
    ours, theirs = "/usr/local/bin/calicoctl", "/usr/local/bin/other"
    clean.read(f"install -D /dev/null {theirs}; install -D /dev/null {ours}")
    clean.read(f"mkdir -p /var/lib/cni-lab/files && echo {ours} >/var/lib/cni-lab/files/calicoctl")
    prepare(clean, repositories, CALICOCTL_SHA256=f"amd64 {'0' * 64}\n")
    assert clean.read("ls /usr/local/bin").split() == ["calicoctl", "other"]
    prepare(clean, repositories)
    assert clean.read("ls /usr/local/bin").split() == ["other"]
    clean.read(f"rm {theirs}")
