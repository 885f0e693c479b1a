"""What local machines need of this computer. Nothing is loaded, started or asked over a network."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cli.doctor.model import Answer, Check, NotAsked, Once, Verdict, worst
from cli.lifecycle.local_machines import LocalState, ranges_in_use, read_state
from cli.live.machines import possible_engines
from cli.project import ROOT
from components.slowdown import scaled
from components.spec.addresses import kernel_modules
from components.spec.grammar import regexp
from components.spec.models import Lab, LocalMachines
from components.spec.modes import TUNNELS, WIREGUARD, links_for_shell

MIB = 1 << 20
GIB = 1 << 30
CONTROL_PLANE_BYTES = 1700 * MIB
"""kubeadm's preflight check `Mem` (kubeadm's constants.ControlPlaneMem): it asks for what the whole computer has."""
CONTROL_PLANE_CPUS = 2
"""kubeadm's preflight check `NumCPU`."""
WORKER_BYTES = 768 * MIB
MACHINE_DISK_BYTES = 3 * GIB
"""What a machine's container and the images that it pulls take; each machine has a store of its own."""
LEAST_DISK_BYTES = 2 * GIB
WATCHES = 8192
"""inotify watches that systemd, CRI-O, kubelet and the pods of a machine may use."""
TOOLS = {"ip": "iproute2", "nft": "nftables", "unshare": "util-linux", "flock": "util-linux", "timeout": "coreutils"}
"""As in components/machines/local/engine.sh: tool → its package."""
ROOTLESS = {"podman": "{{.Host.Security.Rootless}}", "docker": "{{.SecurityOptions}}"}
"""As in components/machines/local/engine.sh: engine → what its `info` shows of who runs it."""
_STORAGE = {"podman": "{{.Store.GraphRoot}}", "docker": "{{.DockerRootDir}}"}
"""Engine → what its `info` shows of the folder where its containers are."""
_PRIVILEGED_DOCKER = 23
"""The first docker whose --privileged gives all capabilities; what an older one withholds, machine.sh explains."""
_WITHHELD_CAPABILITY = 38
"""CAP_PERFMON, the first that an older docker withholds. Linux has it since 5.8."""
_INTERFACE = "eth0"
"""The only interface of a machine."""
_ENGINE_TIMEOUT_SECONDS = 10
_MODULES_TIMEOUT_SECONDS = 15


@dataclass(frozen=True)
class Computer:
    """This computer, or in tests another one: where /proc is, who runs this, and how programs are found and run."""

    proc: Path = Path("/proc")
    system: str = field(default_factory=platform.system)
    is_root: bool = field(default_factory=lambda: os.geteuid() == 0)
    cpus: int = field(default_factory=lambda: len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)
    which: Callable[[str], str | None] = shutil.which

    def number(self, name: str) -> int | None:
        """A number in a file of /proc/sys, such as fs/inotify/max_user_instances."""
        try:
            return int((self.proc / "sys" / name).read_text())
        except (OSError, ValueError):
            return None

    def memory(self, name: str) -> int | None:
        """A line of /proc/meminfo, such as MemAvailable, in bytes."""
        try:
            found = re.search(rf"^{name}:\s+(\d+) kB", (self.proc / "meminfo").read_text(), re.MULTILINE)
        except OSError:
            return None
        return int(found[1]) * 1024 if found else None

    def run(
        self, command: Sequence[str], timeout_seconds: float, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=scaled(timeout_seconds),
        )


def checks(
    lab: Lab, stack: str, computer: Computer | None = None, state: Callable[[], LocalState] | None = None
) -> list[Check]:
    """Empty for a lab whose machines are elsewhere. `state`: reads what the lab has on this computer, so that a caller
    who needs it too shares one reading."""
    if not isinstance(lab.machines, LocalMachines):
        return []
    here = computer or Computer()
    engine = Once(partial(_find_engine, lab.machines, here))
    info = Once(partial(_info, engine, here))
    read = state or partial(read_state, stack)
    running = Once(partial(_running_machines, engine, stack, here))
    questions: list[tuple[str, str, Callable[[], Answer]]] = [
        ("system", "Is this Linux?", partial(_system, here)),
        ("root", "Is this run as root?", partial(_root, here, stack)),
        ("tools", f"Are {', '.join(TOOLS)} installed?", partial(_tools, here)),
        ("engine", "Is a container engine installed, and does it answer?", partial(_engine, engine, info, here)),
        ("kernel", "Does the kernel have what the lab's mode and networks need?", partial(_kernel, lab, here)),
        ("places", "Does this computer have what the stack file names?", partial(_places, lab)),
        ("ranges", "Are the lab's subnets free on this computer?", partial(_ranges, lab, stack, info, here, read)),
        ("inotify", "Are inotify's limits high enough?", partial(_inotify, lab, here)),
        ("processors", "Are there enough CPUs for kubeadm?", partial(_processors, lab.machines, here)),
        ("memory", "Is there enough memory for the machines?", partial(_memory, lab, running, here)),
        ("disk", "Is there enough disk space for the machines?", partial(_disk, lab, engine, info, running)),
    ]
    return [Check(f"local.{name}", question, ask) for name, question, ask in questions]


def _system(here: Computer) -> Answer:
    if here.system != "Linux":
        return Answer("stop", f"this is {here.system}", "use a Linux VM")
    return Answer("ok", f"Linux {platform.release()}")


def _root(here: Computer, stack: str) -> Answer:
    if not here.is_root:
        return Answer(
            "stop",
            "an ordinary user, whose containers are not on networks that this computer reaches",
            f"sudo ./lab up {stack}",
        )
    return Answer("ok", "root")


def _tools(here: Computer) -> Answer:
    missing = [tool for tool in TOOLS if here.which(tool) is None]
    if missing:
        packages = " ".join(dict.fromkeys(TOOLS[tool] for tool in missing))
        return Answer("stop", f"missing: {', '.join(missing)}", f"apt install {packages}")
    return Answer("ok", ", ".join(TOOLS))


# --- the engine ------------------------------------------------------------------------------------------------------


def _find_engine(machines: LocalMachines, here: Computer) -> str | Answer:
    """The engine that `up` would take, or why there is none."""
    wanted = possible_engines(machines)
    found = next((engine for engine in wanted if here.which(engine)), None)
    if found is None:
        seen = f"{wanted[0]} is not installed" if len(wanted) == 1 else f"neither {' nor '.join(wanted)} is installed"
        return Answer("stop", seen, f"apt install {wanted[0]}")
    return found


@dataclass(frozen=True)
class _Info:
    """What an engine says of itself: who runs it, as ROOTLESS shows it, and its folder; both empty if it fails."""

    who: str
    folder: str


def _info(engine: Once[str | Answer], here: Computer) -> _Info:
    """One call, because podman's takes several times as long as its other calls. Raises NotAsked without an engine."""
    name = engine()
    if isinstance(name, Answer):
        raise NotAsked
    shown = f"{ROOTLESS[name]}\n{_STORAGE[name]}"
    done = here.run([name, "info", "--format", shown], _ENGINE_TIMEOUT_SECONDS)
    lines = done.stdout.strip().splitlines() if done.returncode == 0 else []
    return _Info(lines[0], lines[-1]) if lines else _Info("", "")


def _engine(engine: Once[str | Answer], info: Once[_Info], here: Computer) -> Answer:
    name = engine()
    if isinstance(name, Answer):
        return name
    try:
        done = here.run([name, "ps", "--quiet"], _ENGINE_TIMEOUT_SECONDS)
        version = here.run([name, "--version"], _ENGINE_TIMEOUT_SECONDS).stdout.strip()
        who = info().who
        too_old = _old_docker(here) if name == "docker" else None
    except subprocess.TimeoutExpired:
        return Answer("stop", f"{name} does not answer within {scaled(_ENGINE_TIMEOUT_SECONDS):g} s", f"restart {name}")
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason was given"])[-1]
        seen = f"{name} does not work here: {reason}"
        if not here.is_root:
            return Answer("unknown", seen, "run this as root, whose machines they will be")
        return Answer("stop", seen, f"repair it until `{name} ps` succeeds")
    # Without root there is an answer of its own.
    if here.is_root and (who == "true" or "name=rootless" in who):
        seen = f"{name} is rootless here, and this computer does not reach rootless machines"
        fix = f"use the {name} of the real root: not in podman unshare, and no rootless docker context"
        return Answer("stop", seen, fix)
    return too_old or Answer("ok", version or name)


def _old_docker(here: Computer) -> Answer | None:
    """Why privileged pods would not start in the machines of this docker; None if they would."""
    asked = ["docker", "version", "--format", "{{.Server.Version}}"]
    version = here.run(asked, _ENGINE_TIMEOUT_SECONDS).stdout.strip()
    major = re.match(r"\d+", version)
    newest = here.number("kernel/cap_last_cap")
    if major is None or int(major[0]) >= _PRIVILEGED_DOCKER or newest is None or newest < _WITHHELD_CAPABILITY:
        return None
    seen = f"docker {version} withholds capabilities from the machines, so that kube-proxy could not start in them"
    return Answer("stop", seen, f"use podman, or docker {_PRIVILEGED_DOCKER} or later")


def _running_machines(engine: Once[str | Answer], stack: str, here: Computer) -> int:
    """How many machines of this lab there are. Raises NotAsked without an engine."""
    name = engine()
    if isinstance(name, Answer):
        raise NotAsked
    listed = [name, "ps", "--all", "--quiet", "--filter", f"label=cni-lab.stack={stack}"]
    done = here.run(listed, _ENGINE_TIMEOUT_SECONDS)
    return len(done.stdout.split()) if done.returncode == 0 else 0


# --- the kernel ------------------------------------------------------------------------------------------------------


def _kernel(lab: Lab, here: Computer) -> Answer:
    if here.system != "Linux":
        raise NotAsked
    needed = kernel_modules(lab)
    others = [tunnel.module for tunnel in TUNNELS if tunnel.module not in needed]
    lacking = _lacking([*needed, *others], here)
    reasons = {module: lacking[module] for module in needed if module in lacking}
    if reasons and not here.is_root:
        # No link can be tried, and modprobe does not know what is built in.
        return Answer("unknown", f"only root can try whether this kernel has {', '.join(reasons)}", "run this as root")
    if reasons:
        seen = "this kernel lacks " + ", ".join(_lack(module, reason) for module, reason in reasons.items())
        return Answer("stop", seen, "; ".join(_without(module, lacking) for module in reasons))
    absent = [tunnel.name for tunnel in TUNNELS if tunnel.module in lacking]
    rest = f"; it has no {' and no '.join(absent)}, which another mode would need" if absent and here.is_root else ""
    return Answer("ok", f"{', '.join(needed)}{rest}")


def _lack(module: str, reason: str) -> str:
    """A module that is missing, what needs it, and how that was seen: ipip, which IPIP needs (Unknown device type)."""
    needs = next((f", which {tunnel.name} needs" for tunnel in TUNNELS if tunnel.module == module), "")
    return f"{module}{needs} ({reason})"


def _without(module: str, lacking: Mapping[str, str]) -> str:
    """What to do on a kernel that lacks a module."""
    kernel = f"use a kernel that has {module}"
    if module == WIREGUARD.module:
        return f"write calico.wireguard: false, or {kernel}"
    if any(tunnel.module == module for tunnel in TUNNELS):
        others = [tunnel.name for tunnel in TUNNELS if tunnel is not WIREGUARD and tunnel.module not in lacking]
        return f"write another encapsulation for the pool ({', '.join([*others, 'None'])}), or {kernel}"
    return f"choose another type of network, or {kernel}"


def _lacking(modules: Sequence[str], here: Computer) -> dict[str, str]:
    """The modules that the kernel does not have, each with the reason."""
    done = here.run(
        ["bash", str(Path(__file__).with_name("modules.sh")), *modules],
        _MODULES_TIMEOUT_SECONDS,
        TUNNEL_LINKS=links_for_shell(TUNNELS),
        MODULES_LIBRARY=str(ROOT / "components" / "node" / "modules.sh"),
    )
    if done.returncode:
        raise RuntimeError(f"the kernel could not be examined: {done.stderr.strip() or done.returncode}")
    return dict(line.split("\t", 1) for line in done.stdout.splitlines())


def instances_per_machine() -> int:
    """inotify instances that a machine uses, as `up` requires them."""
    text = (ROOT / "components" / "machines" / "local" / "kernel.sh").read_text(encoding="utf-8")
    found = re.search(r"^INSTANCES=(\d+)$", text, re.MULTILINE)
    assert found, "kernel.sh sets INSTANCES"
    return int(found[1])


def _inotify(lab: Lab, here: Computer) -> Answer:
    instances, watches = (here.number(f"fs/inotify/max_user_{name}") for name in ("instances", "watches"))
    if instances is None or watches is None:
        return Answer(
            "unknown", "/proc/sys/fs/inotify cannot be read", "run this on the computer that gets the machines"
        )
    count = len(lab.nodes)
    answers = [
        _at_least("fs.inotify.max_user_instances", instances, count * instances_per_machine(), count, "stop"),
        _at_least("fs.inotify.max_user_watches", watches, count * WATCHES, count, "warn"),
    ]
    return worst(answers, f"{instances} instances, {watches} watches")


def _at_least(key: str, have: int, need: int, machines: int, verdict: Verdict) -> Answer:
    if have >= need:
        return Answer("ok", str(have))
    # In a file, because a restart of the computer forgets `sysctl -w`.
    fix = f"echo {key}={need} >>/etc/sysctl.d/90-cni-lab.conf; sysctl --system"
    return Answer(verdict, f"{key} is {have}, and {machines} machines need {need}", fix)


def _places(lab: Lab) -> Answer:
    """What the stack file names and this computer lacks: folders; addresses and interfaces of EC2, or of hosts of the
    user."""
    return worst(
        [*_absent_addresses(lab), *_absent_interfaces(lab), *_absent_mounts(lab)],
        "everything that the stack file names is here",
    )


def _absent_addresses(lab: Lab) -> Iterator[Answer]:
    """Routes to one address among the machines that no machine has, such as the resolver of a VPC."""
    ranges = [lab.network.vpc_cidr, *lab.network.subnets.values()]
    routers = [cidr[1] for cidr in lab.network.subnets.values()]
    present = {*routers, *(node.address for node in lab.nodes)}
    for index, network in enumerate(lab.networks):
        for number, route in enumerate(getattr(network, "routes", ())):
            address = route.dst.network_address
            if route.dst.prefixlen == 32 and address not in present and any(address in cidr for cidr in ranges):
                whose = " (on EC2 it is the VPC's resolver)" if address == lab.network.vpc_cidr[2] else ""
                seen = f"networks[{index}].routes[{number}].dst: nothing on this computer has {address}{whose}"
                yield Answer("warn", seen, f"walk to this computer, {routers[0]}, or to a node instead")


def _absent_interfaces(lab: Lab) -> Iterator[Answer]:
    for index, network in enumerate(lab.networks):
        if (master := getattr(network, "master", _INTERFACE)) != _INTERFACE:
            yield Answer("stop", f"networks[{index}].master: no machine has {master}", f"write {_INTERFACE}")
    given = lab.calico.interface
    if given is not None and not any(regexp.matches(pattern, _INTERFACE) for pattern in given.split(",")):
        yield Answer("stop", f"calico.interface: no machine has {given}", f"write {_INTERFACE}, or leave it out")


def _absent_mounts(lab: Lab) -> Iterator[Answer]:
    assert isinstance(lab.machines, LocalMachines)
    for index, mount in enumerate(lab.machines.extra_mounts):
        if not Path(mount.host_path).exists():
            seen = f"machines.extraMounts[{index}].hostPath: {mount.host_path} is not on this computer"
            yield Answer("stop", seen, "make it, or correct the path")


def _ranges(lab: Lab, stack: str, info: Once[_Info], here: Computer, read: Callable[[], LocalState]) -> Answer:
    if not here.is_root or not info().folder:
        raise NotAsked  # the checks of root and of the engine say why
    if found := ranges_in_use(stack, lab, read()):
        return _taken(found)
    return Answer("ok", ", ".join(str(cidr) for cidr in lab.network.subnets.values()))


def _taken(messages: Sequence[str]) -> Answer:
    """One answer from network.sh's messages: KEY: RANGE is in use …; choose another range, e.g. OTHER."""
    parts = [message.partition("; ") for message in messages]
    if len(parts) == 1:
        return Answer("stop", parts[0][0], parts[0][2])
    key = "network.subnets: "
    seen = key + "; ".join(said.removeprefix(key) for said, _, _ in parts)
    others = [fix.partition("e.g. ")[2] for _, _, fix in parts]
    proposed = f", e.g. {' and '.join(others)}" if all(others) else ""
    return Answer("stop", seen, f"choose other ranges{proposed}")


# --- room ------------------------------------------------------------------------------------------------------------


def _processors(machines: LocalMachines, here: Computer) -> Answer:
    # kubeadm counts the computer's CPUs, whatever machines.cpus allows.
    if here.cpus < CONTROL_PLANE_CPUS:
        fix = f"use a computer, or a VM, with {CONTROL_PLANE_CPUS} CPUs"
        return Answer("stop", f"{here.cpus} CPU, and kubeadm wants {CONTROL_PLANE_CPUS}", fix)
    return Answer("ok", f"{here.cpus} CPUs")


def _memory(lab: Lab, running: Once[int], here: Computer) -> Answer:
    total, available = here.memory("MemTotal"), here.memory("MemAvailable")
    if total is None or available is None:
        return Answer("unknown", "/proc/meminfo cannot be read", "run this on the computer that gets the machines")
    if total < CONTROL_PLANE_BYTES:
        seen = f"{_gib(total)}, and kubeadm wants {_gib(CONTROL_PLANE_BYTES)} on a control plane"
        return Answer("stop", seen, "use a computer with more memory")
    planes = len(lab.control_planes)
    need = planes * CONTROL_PLANE_BYTES + (len(lab.nodes) - planes) * WORKER_BYTES
    if available < need and not running():
        seen = f"{_gib(available)} are free, and {len(lab.nodes)} machines use about {_gib(need)}"
        return Answer("warn", seen, "end other programs, or remove workers from the stack file")
    return Answer("ok", f"{_gib(available)} of {_gib(total)} are free")


def _disk(lab: Lab, engine: Once[str | Answer], info: Once[_Info], running: Once[int]) -> Answer:
    name = engine()
    if isinstance(name, Answer) or not info().folder:
        raise NotAsked  # the engine's own check says why
    folder = Path(info().folder)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    missing = len(lab.nodes) - running()
    need = missing * MACHINE_DISK_BYTES
    if missing > 0 and free < LEAST_DISK_BYTES:
        return Answer("stop", f"{folder} has {_gib(free)} free", f"free {_gib(need)} there, or move {name}'s storage")
    if free < need:
        seen = f"{folder} has {_gib(free)} free, and {missing} machines use about {_gib(need)}"
        return Answer("warn", seen, f"free space there, or move {name}'s storage")
    return Answer("ok", f"{folder} has {_gib(free)} free")


def _gib(count: int) -> str:
    return f"{count / GIB:.1f} GiB"
