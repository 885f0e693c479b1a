"""The node files on a real host with systemd, sshd, CRI-O, and the real Multus if it is available."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.calico.blocks import block_of, range_of
from components.multus import delegates
from components.node.script import File, compose
from components.spec.models import Lab
from tests.calico.labs import SEED, SEED_BLOCKS, lab
from tests.node.conftest import BAKED_IMAGE, Host, Hosts

# One test worker for all tests on real hosts, because they share a network.
pytestmark = pytest.mark.xdist_group("hosts")

NODE = "ip-10-0-2-200"
# In place of a plugin that is not available: it answers the one request that CRI-O makes before it uses a file.
STAND_IN = """#!/bin/sh
echo '{"cniVersion":"0.3.1","supportedVersions":["0.3.0","0.3.1","0.4.0","1.0.0"]}'
"""
CALICO_CONFLIST = {
    "name": "k8s-pod-network",
    "cniVersion": "0.3.1",
    "plugins": [{"type": "calico", "ipam": {"type": "calico-ipam"}}],
}


def node_files(spec: Lab) -> list[File]:
    """The files that the component writes, with the blocks of the seed and a kubeconfig of no cluster."""
    assert spec.multus is not None
    files = []
    for delegate in spec.multus.delegates:
        first, last = range_of(spec, SEED_BLOCKS, NODE, delegate)
        subnet = str(block_of(spec, SEED_BLOCKS, NODE, delegate))
        config = delegates.delegate_config(spec, delegate, subnet=subnet, start=str(first), end=str(last))
        files.append(File(f"{delegates.DELEGATE_DIRECTORY}/{delegate.name}.conf", config))
    files.append(File(delegates.KUBECONFIG, {"apiVersion": "v1", "kind": "Config"}, "0600"))
    files.append(File("/etc/cni/net.d/00-multus.conf", delegates.multus_config(spec.multus)))
    return files


def program(spec: Lab, **changed: str) -> str:
    plugins = " ".join(delegates.plugins(spec))
    variables = {"DEFAULT_NETWORK": delegates.DEFAULT_NETWORK, "PLUGINS": plugins, "TIMEOUT_SECONDS": "30"} | changed
    return compose("files", variables, node_files(spec), ["files.sh"])


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """A machine with CRI-O and with the files that Calico and Multus leave on a node."""
    maker = Hosts(tmp_path_factory.mktemp("ssh"))
    try:
        made = maker.make("files", 231, image=BAKED_IMAGE)
        _install(made, "multus", os.environ.get("CNILAB_MULTUS_BIN"))
        _install(made, "calico", os.environ.get("CNILAB_CALICO_BIN"))
        made.read("mkdir -p /etc/cni/net.d /var/lib/calico && echo kubeconfig >/etc/cni/net.d/calico-kubeconfig")
        made.read(f"printf %s {NODE} >/var/lib/calico/nodename")
        done = made.shell("cat >/etc/cni/net.d/10-calico.conflist", json.dumps(CALICO_CONFLIST))
        assert done.returncode == 0
        made.read("systemctl enable --now crio")
        yield made
    finally:
        maker.close()


def _install(host: Host, plugin: str, folder: str | None) -> None:
    binary = Path(folder, plugin) if folder else None
    if binary is None or not binary.is_file():
        assert host.shell(f"cat >/opt/cni/bin/{plugin}", STAND_IN).returncode == 0
    else:
        assert shutil.which("podman")
        subprocess.run(["podman", "cp", str(binary), f"{host.container}:/opt/cni/bin/{plugin}"], check=True)
    host.read(f"chmod 0755 /opt/cni/bin/{plugin}")


def read_json(host: Host, path: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(host.read(f"cat {path}"))
    return found


def names(host: Host) -> list[str]:
    return host.read("cd /etc/cni && find multus net.d -type f | sort").split()


def default_network(host: Host) -> str:
    log = host.read("journalctl -u crio -o cat | grep 'Updated default CNI network name to' | tail -n 1")
    return log.partition("network name to ")[2].rstrip('"')


def clean(host: Host) -> None:
    host.read("rm -rf /etc/cni/multus /etc/cni/net.d/00-multus.conf /var/lib/cni-lab")


def test_crio_uses_multus_and_a_second_run_changes_nothing(host: Host) -> None:
    clean(host)
    done = host.run(program(lab()))
    assert done.returncode == 0, done.stderr
    assert default_network(host) == "multus-cni-network"
    config = read_json(host, "/etc/cni/multus/net.d/net-calico.conf")
    assert config["ipam"]["ranges"] == [
        [{"subnet": "10.244.97.0/24", "rangeStart": "10.244.97.150", "rangeEnd": "10.244.97.250"}]
    ]
    assert host.read("stat -c %a /etc/cni/multus/multus.kubeconfig") == "600"
    before = host.read("stat -c '%n %i %Y' /etc/cni/multus/net.d/* /etc/cni/net.d/*")
    again = host.run(program(lab()))
    assert again.returncode == 0, again.stderr
    assert "wrote" not in again.stderr
    assert host.read("stat -c '%n %i %Y' /etc/cni/multus/net.d/* /etc/cni/net.d/*") == before


CRICTL = """#!/bin/bash
case $3 in --timeout) shift 2 ;; esac
case $3 in
  pods) [[ -e /tmp/stopped ]] || printf '%s\\n' own system host gone ;;
  inspectp)
    case ${!#} in
      own) echo default POD early ;;
      system) echo kube-system POD coredns ;;
      host) echo default NODE firewall ;;
      *) exit 1 ;;
    esac ;;
  stopp) [[ ! -e /tmp/cut ]] || exit 1; echo "$4" >>/tmp/stopped ;;
esac
"""


def test_pods_that_started_before_multus_start_again_once(host: Host) -> None:
    """CRI-O is real. Its pods have a stand-in, because without a cluster Calico's plugin makes none."""
    clean(host)
    assert host.shell("cat >/usr/local/bin/crictl && chmod +x /usr/local/bin/crictl", CRICTL).returncode == 0
    try:
        host.read("touch /tmp/cut")
        assert host.run(program(lab())).returncode == 1
        host.read("rm /tmp/cut")
        done = host.run(program(lab()))
        assert done.returncode == 0, done.stderr
        assert "pod default/early started before Multus: it starts again" in done.stderr
        assert host.run(program(lab())).returncode == 0
        assert host.read("cat /tmp/stopped") == "own"
    finally:
        host.read("rm -f /usr/local/bin/crictl /tmp/stopped /tmp/cut")


def test_crio_is_asked_again_if_the_journal_is_gone(host: Host) -> None:
    """The journal may be gone at the next run, and CRI-O logs nothing while no file changes."""
    host.run(program(lab()))
    host.read("journalctl --rotate && journalctl --vacuum-time=1s")
    done = host.run(program(lab()))
    assert done.returncode == 0, done.stderr


def test_an_old_file_is_removed_and_a_foreign_one_stays(host: Host) -> None:
    clean(host)
    host.run(program(lab()))
    host.read("echo '{}' >/etc/cni/multus/net.d/zz-foreign.conf")
    one = lab(multus={**SEED["multus"], "delegates": SEED["multus"]["delegates"][:1]}, workloads=[])
    done = host.run(program(one))
    assert done.returncode == 0, done.stderr
    left = set(names(host)) - {"net.d/10-crio-bridge.conflist.disabled"}
    assert left == {
        "multus/multus.kubeconfig",
        "multus/net.d/net-calico.conf",
        "multus/net.d/zz-foreign.conf",
        "net.d/00-multus.conf",
        "net.d/10-calico.conflist",
        "net.d/calico-kubeconfig",
    }


def test_a_killed_run_leaves_whole_files_and_the_next_run_completes(host: Host) -> None:
    chance = random.Random(7)
    for _ in range(8):
        clean(host)
        process = host.start(program(lab()))
        time.sleep(chance.uniform(0.1, 2.0))
        process.kill()
        host.read("pkill -KILL -f '^bash -s$' || true")
        process.communicate()
        for path in names(host):
            if path.endswith(".conf") and "cni-lab" not in path:
                assert read_json(host, f"/etc/cni/{path}")["cniVersion"] == "0.3.1"
        done = host.run(program(lab()))
        assert done.returncode == 0, done.stderr
        assert default_network(host) == "multus-cni-network"
        assert not [name for name in names(host) if ".cni-lab." in name]


def test_a_file_that_crio_skips_is_named_with_the_reason(host: Host) -> None:
    clean(host)
    host.read("mv /opt/cni/bin/multus /opt/cni/multus.away")
    try:
        missing = host.run(program(lab(), TIMEOUT_SECONDS="2"))
        assert missing.returncode == 1
        assert "/opt/cni/bin/multus is missing" in missing.stderr
        assert "net.d/00-multus.conf" not in names(host), "nothing is half-written"
        skipped = host.run(program(lab(), TIMEOUT_SECONDS="5", PLUGINS="calico host-local"))
        assert skipped.returncode == 1
        assert "Error validating CNI config file" in skipped.stderr and "00-multus.conf" in skipped.stderr
        assert "k8s-pod-network" in skipped.stderr
    finally:
        host.read("mv /opt/cni/multus.away /opt/cni/bin/multus")


def test_a_file_that_sorts_before_ours_is_reported(host: Host) -> None:
    clean(host)
    first = {"name": "other", "cniVersion": "0.3.1", "type": "bridge", "ipam": {"type": "host-local"}}
    assert host.shell("cat >/etc/cni/net.d/00-aaa.conf", json.dumps(first)).returncode == 0
    try:
        done = host.run(program(lab(), TIMEOUT_SECONDS="5"))
        assert done.returncode == 1
        assert "CRI-O's default network is other" in done.stderr
    finally:
        host.read("rm /etc/cni/net.d/00-aaa.conf")
