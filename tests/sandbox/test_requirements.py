"""What a sandbox says where it cannot stand: every missing tool at once, and which setting forbids it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from components.sandbox import requirements
from components.sandbox.fit import fit
from components.sandbox.requirements import Kernel, examine, missing_tools
from components.spec.models import Lab
from components.verify.model import Topic
from tests.verify import replica_labs as labs
from tests.verify.expect.labs import BLOCKS, expected


def without(monkeypatch: pytest.MonkeyPatch, *tools: str) -> None:
    real = requirements.find
    monkeypatch.setattr(requirements, "find", lambda tool: None if tool in tools else real(tool))


@pytest.mark.parametrize(
    ("release", "command"),
    [
        ('ID=ubuntu\nID_LIKE="debian"', "apt-get install iproute2 iptables iputils-ping"),
        ("ID=debian", "apt-get install iproute2 iptables iputils-ping"),
        ("ID=fedora", "dnf install iproute iptables-nft iputils"),
        ("ID=arch", "pacman -S iproute2 iptables-nft iputils"),
        ("ID=alpine", "apk add iproute2 iptables iputils"),
    ],
)
def test_all_missing_tools_are_named_with_their_packages(
    release: str, command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    without(monkeypatch, "ip", "bridge", "iptables", "nft", "ping")
    (tmp_path / "os-release").write_text(release)
    family = requirements._family(tmp_path / "os-release")
    monkeypatch.setattr(requirements, "_family", lambda: family)
    assert missing_tools() == f"missing: ip, bridge, iptables or nft, ping. Install: {command}"


def test_on_an_unknown_system_every_family_s_command_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "tcpdump")
    monkeypatch.setattr(requirements, "_family", lambda: None)
    message = missing_tools(["tcpdump"])
    assert message.startswith("missing: tcpdump. Install: ")
    for command in ("apt-get install tcpdump (Debian, Ubuntu)", "dnf install tcpdump (Fedora)", "apk add tcpdump"):
        assert command in message


def test_nft_alone_will_do_and_busybox_will_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(requirements, "_family", lambda: 3)
    (tmp_path / "busybox").write_text("#!/bin/sh\n")
    (tmp_path / "busybox").chmod(0o755)
    for name in (*requirements._ALWAYS, "nft"):
        target = tmp_path / name
        if " " not in name:
            target.write_text("#!/bin/sh\n")
            target.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(requirements, "PATH", "")
    assert missing_tools() == ""
    (tmp_path / "ip").unlink()
    (tmp_path / "ip").symlink_to(tmp_path / "busybox")
    assert missing_tools() == "missing: ip. Install: apk add iproute2"


@pytest.mark.parametrize(
    ("file", "value", "setting"),
    [
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ],
)
def test_the_setting_that_forbids_user_namespaces_is_named(
    file: str, value: str, setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requirements, "is_root", lambda: False)
    monkeypatch.setattr(requirements, "_read", lambda path: value if path == file else "")
    message = requirements._why_not("unshare: unshare failed: Operation not permitted")
    assert f"sudo sysctl -w {setting}" in message and "\n" not in message


def test_an_ordinary_user_of_any_other_system_is_told_to_be_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requirements, "is_root", lambda: False)
    monkeypatch.setattr(requirements, "_read", lambda path: "")
    message = requirements._why_not("first\nunshare: unshare failed: Operation not permitted\n")
    assert "Operation not permitted" in message and ("sudo ./lab" in message or "--privileged" in message)


@pytest.mark.parametrize(("platform", "word"), [("darwin", "macOS"), ("win32", "WSL 2")])
def test_another_system_is_told_what_to_do(platform: str, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    problem = examine().problem
    assert word in problem and "\n" not in problem


def test_this_computer_s_own_answer_is_true() -> None:
    """Where a sandbox can stand it says so; the other tests of this folder rely on it."""
    kernel = examine(labs.VXLAN)
    assert kernel.problem or "vxlan" not in kernel.lacks


def changed(lab: Lab, **keys: object) -> Lab:
    document = lab.model_dump(mode="json", by_alias=True)
    document["calico"] |= keys
    return Lab.model_validate(document)


def test_without_ipip_or_wireguard_the_lab_stands_otherwise_and_says_so() -> None:
    lab, notes = fit(labs.IPIP, Kernel(lacks=frozenset({"ipip"})))
    assert [pool.encapsulation for pool in lab.calico.pools] == ["VXLAN"]
    assert "pool first has VXLAN instead of IPIP: this kernel has no IPIP" in notes
    lab, notes = fit(changed(labs.VXLAN, wireguard=True), Kernel(lacks=frozenset({"wireguard"})))
    assert not lab.calico.wireguard and any("no WireGuard" in note for note in notes)
    lab, notes = fit(changed(labs.VXLAN, wireguard=True), Kernel())
    assert lab.calico.wireguard and notes == []
    assert lab.machines.provider == "local" and lab.link_mtu == labs.VXLAN.link_mtu


@pytest.mark.parametrize(
    ("here", "asked", "built", "note"),
    [
        ({"iptables", "nft"}, "Iptables", "Iptables", ""),
        ({"iptables", "nft"}, "Nftables", "Nftables", ""),
        ({"iptables"}, "Nftables", "Iptables", "iptables' instead of nftables': nft is not installed"),
        ({"nft"}, "Iptables", "Nftables", "nftables' instead of iptables': iptables is not installed"),
    ],
)
def test_the_dataplane_is_that_of_the_program_that_is_here(
    monkeypatch: pytest.MonkeyPatch, here: set[str], asked: str, built: str, note: str
) -> None:
    """So that the commands that verify and walk print can be typed."""
    monkeypatch.setattr(requirements, "find", lambda tool: tool if tool in here else None)
    fitted, notes = fit(changed(labs.VXLAN, linuxDataplane=asked), Kernel())
    assert fitted.calico.linux_dataplane == built and fit(fitted, Kernel()) == (fitted, [])
    assert notes == ([f"Felix' and kube-proxy's rules are {note}"] if note else [])
    commands = [it.command for it in expected(fitted, BLOCKS).all if it.topic in (Topic.FILTER, Topic.NAT)]
    assert commands and all(("nft " in command) == (built == "Nftables") for command in commands), commands
