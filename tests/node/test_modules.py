"""modules.sh, run by bash on this computer's own kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from components.node.script import read_script
from components.spec.modes import TUNNELS, Tunnel, links_for_shell


def run(command: str, links: str = "") -> subprocess.CompletedProcess[str]:
    # Without modprobe, as in a container that has no modules: then only what the kernel can do counts.
    program = f"set -euo pipefail\nmodprobe() {{ return 1; }}\n{read_script('modules.sh')}\n{command}\n"
    environment = os.environ | {"TUNNEL_LINKS": links}
    return subprocess.run(["bash", "-c", program], env=environment, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    ("kernel", "enough"),
    [("5.10.0-30-amd64", False), ("5.4.0-1103-aws", False), ("5.13.0-1014-aws", True), ("6.1.0", True), ("5.13", True)],
)
def test_kernel_at_least(kernel: str, enough: bool) -> None:
    done = run(f"uname() {{ echo {kernel}; }}\nkernel_at_least 5.13")
    assert (done.returncode == 0) == enough, done.stderr


needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare"))), reason="network namespaces need root and ip"
)


def kernel_makes(link: str) -> bool:
    """Whether the kernel makes such a link, by a command that is not the script's."""
    command = ["unshare", "--net", "sh", "-c", f"ip link add x {link}"]
    return subprocess.run(command, capture_output=True, timeout=60).returncode == 0


@needs_namespaces
@pytest.mark.parametrize("tunnel", TUNNELS, ids=lambda tunnel: tunnel.module)
def test_a_tunnels_module(tunnel: Tunnel) -> None:
    by_hand = {
        "vxlan": "type vxlan id 7 dstport 9 local 127.0.0.1",
        "ipip": "type ipip local 127.0.0.1 remote 127.0.0.3",
        "wireguard": "type wireguard",
    }
    done = run(f"has_module {tunnel.module}", links_for_shell(TUNNELS))
    assert (done.returncode == 0) == kernel_makes(by_hand[tunnel.module]), done.stderr
    assert not Path("/sys/class/net/probe").exists(), "the link ends with its namespace"


@needs_namespaces
@pytest.mark.parametrize(
    ("module", "link"),
    [
        ("bridge", "type bridge"),
        ("macvlan", "type veth peer name y && ip link add z link x type macvlan"),
        ("ipvlan", "type veth peer name y && ip link add z link x type ipvlan"),
        ("no-such-module", "type no-such-module"),
    ],
)
def test_a_networks_module(module: str, link: str) -> None:
    done = run(f"has_module {module}")
    assert (done.returncode == 0) == kernel_makes(link), done.stderr
    if done.returncode:
        assert done.stdout + done.stderr, "it says why not"


def test_overlay_is_looked_up_in_proc() -> None:
    wanted = "overlay" in Path("/proc/filesystems").read_text().split()
    assert (run("has_module overlay").returncode == 0) == wanted
