"""Whether a sandbox can be built on this computer: its tools, the namespaces it may make, the kernel's devices."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from components.slowdown import scaled
from components.spec.models import Lab

HERE = Path(__file__).resolve().parent
PATH = f"{os.defpath}:/usr/local/sbin:/usr/sbin:/sbin:/run/current-system/sw/bin:/run/wrappers/bin"
"""Where tools are looked for beside the caller's own PATH, which often lacks /usr/sbin."""
_PROBE_SECONDS = 60
_FAMILIES = ("apt-get install", "dnf install", "pacman -S", "apk add")
_FAMILY_OF = {"debian": 0, "ubuntu": 0, "fedora": 1, "rhel": 1, "centos": 1, "arch": 2, "alpine": 3}
_FAMILY_NAMES = ("Debian, Ubuntu", "Fedora", "Arch", "Alpine")
# Tool → its package in the order of _FAMILIES.
_PACKAGES: dict[str, tuple[str, str, str, str]] = {
    "bash": ("bash", "bash", "bash", "bash"),
    "ip": ("iproute2", "iproute", "iproute2", "iproute2"),
    "bridge": ("iproute2", "iproute", "iproute2", "iproute2"),
    "iptables or nft": ("iptables", "iptables-nft", "iptables-nft", "iptables"),
    "ping": ("iputils-ping", "iputils", "iputils", "iputils"),
    "unshare": ("util-linux", "util-linux", "util-linux", "util-linux"),
    "nsenter": ("util-linux", "util-linux-core", "util-linux", "util-linux"),
    "mount": ("mount", "util-linux", "util-linux", "util-linux"),
    "pivot_root": ("util-linux", "util-linux-core", "util-linux", "util-linux"),
    "timeout": ("coreutils", "coreutils", "coreutils", "coreutils"),
    "tcpdump": ("tcpdump", "tcpdump", "tcpdump", "tcpdump"),
    "wg": ("wireguard-tools", "wireguard-tools", "wireguard-tools", "wireguard-tools"),
}
_ALWAYS = ("bash", "ip", "bridge", "iptables or nft", "ping", "unshare", "nsenter", "mount", "pivot_root", "timeout")


@dataclass(frozen=True)
class Kernel:
    """What this computer can do. `problem`: why no sandbox can be built, and what to do, in one line; empty where one
    can. `lacks`: what was asked for and the kernel has not: kinds of links (ipip, wireguard, macvlan, …), and
    "services", the matches that kube-proxy's rules need."""

    problem: str = ""
    lacks: frozenset[str] = frozenset()


def find(tool: str) -> str | None:
    """The path of a tool. BusyBox' small versions do not count: they lack options that are needed."""
    found = shutil.which(tool) or shutil.which(tool, path=PATH)
    return found if found and Path(found).resolve().name != "busybox" else None


def filter_tool(lab: Lab) -> Literal["iptables", "nft"]:
    """By which tool Felix' and kube-proxy's rules are made: the lab's own, if it is here."""
    if find("iptables") is None or (lab.calico.linux_dataplane == "Nftables" and find("nft")):
        return "nft"
    return "iptables"


def missing_tools(extra: Iterable[str] = ()) -> str:
    """Every tool that is missing, and the command that installs them, in one line; empty where none is."""
    absent = [tool for tool in (*_ALWAYS, *extra) if not any(find(name) for name in tool.split(" or "))]
    if not absent:
        return ""
    return f"missing: {', '.join(absent)}. Install: {_install(absent)}"


def _install(tools: Sequence[str]) -> str:
    family = _family()
    families = range(len(_FAMILIES)) if family is None else (family,)
    lines = []
    for number in families:
        packages = " ".join(dict.fromkeys(_PACKAGES[tool][number] for tool in tools))
        lines.append(f"{_FAMILIES[number]} {packages}" + (f" ({_FAMILY_NAMES[number]})" if family is None else ""))
    return "; ".join(lines)


def _family(path: Path = Path("/etc/os-release")) -> int | None:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    values = dict(line.split("=", 1) for line in lines if "=" in line)
    names = f"{values.get('ID', '')} {values.get('ID_LIKE', '')}".replace('"', "").replace("'", "").split()
    return next((_FAMILY_OF[name] for name in names if name in _FAMILY_OF), None)


def is_root() -> bool:
    """Whether namespaces are made as root; otherwise in a user namespace."""
    return os.geteuid() == 0


def unshare(*options: str) -> list[str]:
    """The start of a command in new namespaces, with a user namespace where the caller is not root."""
    user = [] if is_root() else ["--user", "--map-root-user"]
    return [find("unshare") or "unshare", *user, *options, "--"]


def examine(lab: Lab | None = None) -> Kernel:
    """Try on this computer what a sandbox of the lab needs."""
    if sys.platform != "linux":
        return Kernel(_other_system())
    wireguard = lab is not None and lab.calico.wireguard
    # `wg` is asked for only where the kernel can use it.
    if problem := missing_tools():
        return Kernel(problem)
    kinds = link_kinds(lab) if lab is not None else ["vxlan"]
    command = unshare("--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc")
    words = [filter_tool(lab) if lab is not None else "", *kinds]
    try:
        done = _probe(tuple(command), tuple(words), f"{os.environ.get('PATH', '')}:{PATH}")
    except (OSError, subprocess.TimeoutExpired) as error:
        return Kernel(f"namespaces cannot be made here: {error}")
    if done.returncode:
        return Kernel(_why_not(done.stderr))
    lacks = frozenset(done.stdout.split())
    if "vxlan" in lacks:
        return Kernel("the kernel makes no VXLAN devices: load its module (`modprobe vxlan`)")
    if wireguard and "wireguard" not in lacks and (problem := missing_tools(["wg"])):
        return Kernel(problem)
    return Kernel("", lacks)


@cache
def _probe(unshare: Sequence[str], words: Sequence[str], path: str) -> subprocess.CompletedProcess[str]:
    """Run probe.sh with these words, once in a process: what a kernel can do stays. Raises OSError, TimeoutExpired."""
    script = (HERE / "probe.sh").read_text(encoding="utf-8")
    return subprocess.run(
        [*unshare, "bash", "-c", script, "probe", *words],
        capture_output=True,
        text=True,
        timeout=scaled(_PROBE_SECONDS),
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PATH": path},
    )


def link_kinds(lab: Lab) -> list[str]:
    """Kinds of link that a sandbox of the lab makes, beside veth."""
    found = {"vxlan", "bridge"}
    if any(pool.encapsulation.startswith("IPIP") for pool in lab.calico.pools):
        found.add("ipip")
    if lab.calico.wireguard:
        found.add("wireguard")
    found |= {network.type for network in lab.networks} & {"macvlan", "ipvlan"}
    return sorted(found)


def _other_system() -> str:
    if sys.platform == "darwin":
        return (
            "a sandbox needs Linux's network namespaces, which macOS has not: run ./lab in a Linux virtual machine "
            "(`brew install lima && limactl start`), or in a container (`docker run --privileged`)"
        )
    return (
        "a sandbox needs Linux's network namespaces, which this system has not: run ./lab in WSL 2 (`wsl --install`), "
        "or in another Linux virtual machine"
    )


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _why_not(errors: str) -> str:
    """Why the namespaces could not be made, as far as this computer tells."""
    reported = (errors.strip().splitlines() or ["no reason was given"])[-1]
    container = any(Path(path).exists() for path in ("/.dockerenv", "/run/.containerenv"))
    if is_root():
        if container:
            return f"this container may not make namespaces ({reported}): start it with --privileged"
        return f"root may not make namespaces here ({reported}): run ./lab where root has CAP_SYS_ADMIN"
    if _read("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        setting = "kernel.unprivileged_userns_clone=1"
    elif _read("/proc/sys/user/max_user_namespaces") == "0":
        setting = "user.max_user_namespaces=15000"
    elif _read("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        setting = "kernel.apparmor_restrict_unprivileged_userns=0"
    elif container:
        return f"this container may not make user namespaces ({reported}): start it with --privileged and run as root"
    elif not Path("/proc/self/ns/user").exists():
        return "this kernel has no user namespaces: run ./lab as root (`sudo ./lab …`)"
    else:
        return f"an ordinary user may not make namespaces here ({reported}): run ./lab as root (`sudo ./lab …`)"
    return f"this computer forbids user namespaces: `sudo sysctl -w {setting}` allows them, or run ./lab as root"
