"""The checks of existing hosts: on podman hosts over real sshd, and on made-up facts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from cli.doctor import hosts as module
from cli.doctor.hosts import Hosts, checks, read_hosts
from cli.doctor.model import Answer, examine
from components.spec.models import Lab
from tests.node.conftest import Host
from tests.node.conftest import Hosts as Podman
from tests.node.conftest import hosts as hosts  # the fixture

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1+Xc5b1nHxgG6w7hFwV0aJ0yZ0b1Yk0pQyYV8Yx0aB"
FINE = {
    "system": ["debian 12"], "init": ["systemd"], "kernel": ["6.1"], "virtual": ["none"], "memory": ["4000000"],
    "processors": ["4"], "disk": ["/var/lib  40% 999 /", "/var/log  40% 999 /"], "address": ["192.0.2.11"],
    "end": ["reached"],
}  # fmt: skip
NODES = [
    {"name": f"n{i}", "address": f"192.0.2.1{i}", "ssh": {"hostKey": KEY}, "subnet_range": "192.0.2.0/24"}
    for i in (1, 2)
]


def lab(key: Path | str, nodes: list[dict[str, Any]]) -> Lab:
    machines = {"provider": "existing", "user": "ubuntu", "privateKeyFile": str(key)}
    network = {"subnets": {"hosts": nodes[0]["subnet_range"]}}
    made = [
        {"subnet": "hosts", "role": "worker" if index else "control-plane"}
        | {k: v for k, v in node.items() if k != "subnet_range"}
        for index, node in enumerate(nodes)
    ]
    return Lab.model_validate({"machines": machines, "network": network, "nodes": made})


def answers(spec: Lab) -> dict[str, Answer]:
    return {row.check.name.removeprefix("hosts."): row.answer for row in examine(checks(spec, "mine"))}


def judged(monkeypatch: pytest.MonkeyPatch, **facts: Any) -> dict[str, Answer]:
    """The answers for a control plane n1 and a worker n2, with these facts beside FINE. None takes a fact away."""
    read = {
        name: {key: value for key, value in (FINE | own).items() if value is not None} for name, own in facts.items()
    }
    monkeypatch.setattr(module, "read_hosts", lambda spec: Hosts(read, {}, {}))
    return answers(lab("~/key", NODES))


def test_fine_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    found = judged(monkeypatch, n1={}, n2={})
    assert {answer.verdict for answer in found.values()} == {"ok"} and len(found) == 11


@pytest.mark.parametrize(
    ("check", "facts", "verdict", "seen"),
    [
        ("system", {"system": ["fedora 40"]}, "stop", "n2 runs fedora 40"),
        ("system", {"system": ["ubuntu 28.04"]}, "warn", "a later release"),
        ("system", {"system": ["debian "]}, "warn", "a later release"),
        ("system", {"system": ["ubuntu 20.04"]}, "stop", "n2 runs ubuntu 20.04"),
        ("system", {"init": ["openrc"]}, "stop", "its first process is openrc"),
        ("address", {"address": None}, "stop", "n2 has no interface with 192.0.2.12"),
        ("cluster", {"owner": ["cni-lab/other"]}, "stop", "n2 belongs to cni-lab/other"),
        ("cluster", {"cluster": ["/var/lib/rancher/k3s"]}, "stop", "n2 has /var/lib/rancher/k3s"),
        ("cluster", {"owner": ["cni-lab/mine"], "cluster": ["/etc/kubernetes/kubelet.conf"]}, "ok", "2 hosts"),
        ("networks", {"network": ["/etc/cni/net.d/87-podman.conflist"]}, "warn", "87-podman.conflist"),
        ("networks", {"owner": ["cni-lab/mine"], "network": ["/etc/cni/net.d/00-multus.conf"]}, "ok", "no CNI files"),
        ("ports", {"port": ["10250", "6443"]}, "stop", "n2: 10250 in use"),
        ("ports", {"port": ["6443"]}, "ok", "2 hosts"),
        ("ports", {"owner": ["cni-lab/mine"], "port": ["10250"]}, "ok", "2 hosts"),
        ("swap", {"swap": ["/dev/sda2"]}, "warn", "n2: /dev/sda2"),
        ("swap", {"swap": ["/dev/sda2"], "virtual": ["podman"]}, "ok", "no swap"),
        ("kernel", {"lacks": ["vxlan (no module)"]}, "stop", "n2 (6.1) lacks vxlan (no module)"),
        ("disk", {"disk": ["/var/lib  91% 5 /", "/var/log  91% 5 /"]}, "warn", "n2: / is 91 % full"),
        ("disk", {"disk": ["/var/lib  85% 5 /"]}, "ok", "2 hosts"),
    ],
)  # fmt: skip
def test_what_is_wrong_on_one_host_names_it(
    monkeypatch: pytest.MonkeyPatch, check: str, facts: dict[str, Any], verdict: str, seen: str
) -> None:
    found = judged(monkeypatch, n1={}, n2=facts)
    assert found[check].verdict == verdict and seen in found[check].seen
    assert (found[check].fix == "") == (verdict == "ok")
    assert {name for name, answer in found.items() if answer.verdict != "ok"} == ({check} if verdict != "ok" else set())


@pytest.mark.parametrize(
    ("facts", "seen"),
    [({"memory": ["1000000"]}, "n1 has 976 MiB"), ({"processors": ["1"]}, "n1 has 1 CPU")],
)
def test_only_control_planes_need_what_kubeadm_wants(
    monkeypatch: pytest.MonkeyPatch, facts: dict[str, Any], seen: str
) -> None:
    found = judged(monkeypatch, n1=facts, n2={})["memory"]
    assert found.verdict == "stop" and seen in found.seen
    assert judged(monkeypatch, n1={}, n2=facts)["memory"].verdict == "ok"


def test_a_key_file_that_is_not_there_is_said_once(tmp_path: Path) -> None:
    found = answers(lab(tmp_path / "key", NODES))
    assert found == {"answer": found["answer"]} and found["answer"].verdict == "stop"
    assert found["answer"].seen == f"n1, n2: privateKeyFile: {tmp_path}/key does not exist"


# --- real hosts ---


def public_key(host: Host) -> str:
    return " ".join(host.read("cat /etc/ssh/ssh_host_ed25519_key.pub").split()[:2])


@pytest.fixture(scope="module")
def pair(hosts: Podman) -> tuple[Host, Host]:
    return hosts.make("n1", 11), hosts.make("n2", 12)


def spec_of(*found: Host, key: str | None = None) -> Lab:
    subnet = found[0].address.rpartition(".")[0] + ".0/24"
    nodes = [
        {
            "name": host.name,
            "address": host.address,
            "ssh": {"hostKey": key or public_key(host)},
            "subnet_range": subnet,
        }
        for host in found
    ]
    return lab(found[0].ssh[2], nodes)


@pytest.mark.timeout(300)
def test_real_hosts_are_read_at_once_and_unchanged(pair: tuple[Host, Host]) -> None:
    spec = spec_of(*pair)
    before = [host.read("find /etc /var/lib/cni-lab -newer /proc/1/cmdline -type f; lsmod || true") for host in pair]
    start = time.monotonic()
    read = read_hosts(spec)
    seconds = time.monotonic() - start
    assert read.silent == {} and read.refused == {}
    assert set(read.facts) == {"n1", "n2"} and seconds < 15
    for host in pair:
        facts = read.facts[host.name]
        assert facts["system"] == ["debian 12"] and facts["init"] == ["systemd"]
        assert facts["address"] == [host.address] and int(facts["memory"][0]) > 0 and len(facts["disk"]) == 2
        assert "owner" not in facts and "cluster" not in facts and "port" not in facts
    assert [
        host.read("find /etc /var/lib/cni-lab -newer /proc/1/cmdline -type f; lsmod || true") for host in pair
    ] == before
    found = answers(spec)
    assert found["answer"].seen == "2 hosts: SSH reaches them" and found["system"].verdict == "ok"


@pytest.mark.timeout(300)
def test_what_a_real_host_carries_is_seen(pair: tuple[Host, Host]) -> None:
    host = pair[1]
    host.read(
        "mkdir -p /etc/kubernetes /etc/cni/net.d && touch /etc/kubernetes/kubelet.conf /etc/cni/net.d/87-other.conflist"
    )
    try:
        found = answers(spec_of(*pair))
        assert found["cluster"] == Answer(
            "stop",
            "n2 has /etc/kubernetes/kubelet.conf",
            "take another host, or reset this one yourself: kubeadm reset",
        )
        assert "87-other.conflist" in found["networks"].seen
        listen = "import socket, time; s = socket.socket(); s.bind(('', 10250)); s.listen(); time.sleep(600)"
        host.read(f'systemd-run --unit=port-in-use python3 -c "{listen}"; sleep 2')
        assert answers(spec_of(*pair))["ports"].seen == "n2: 10250 in use"
    finally:
        host.shell("rm -rf /etc/kubernetes /etc/cni/net.d/87-other.conflist; systemctl stop port-in-use")


@pytest.mark.timeout(300)
def test_a_real_host_with_another_key_and_one_without_sudo(pair: tuple[Host, Host]) -> None:
    found = answers(spec_of(*pair, key=KEY))
    assert found["answer"].verdict == "stop" and "another host key" in found["answer"].seen
    host, spec = pair[1], spec_of(*pair)
    host.read("mkdir -p /root/kept && mv /etc/sudoers.d/* /root/kept/ && cp /etc/sudoers /root/sudoers && "
              "sed -i '/NOPASSWD/d' /etc/sudoers && printf 'ubuntu ALL=(ALL) ALL\\n' >/etc/sudoers.d/asks")  # fmt: skip
    try:
        found = answers(spec)
        assert found["sudo"].verdict == "stop" and "n2: " in found["sudo"].seen and "password" in found["sudo"].seen
        assert "NOPASSWD" in found["sudo"].fix
    finally:
        from tests.node.conftest import _exec

        _exec(host.container, "rm /etc/sudoers.d/asks; cp /root/sudoers /etc/sudoers; mv /root/kept/* /etc/sudoers.d/")
