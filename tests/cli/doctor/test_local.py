"""The checks of this computer: on the computer that runs the tests, and on made-up ones."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from cli.doctor import local, tools
from cli.doctor.local import Computer, checks, instances_per_machine
from cli.doctor.model import Answer, examine
from cli.lifecycle.pulumi_cli import VERSION
from components.spec.load import load_stack_file, parse_lab
from components.spec.models import Lab
from tests.support.cli import lab as lab_command
from tests.support.graphs import ROOT

GIB = 1 << 20  # in kB
POOL = {"name": "default-ipv4-ippool", "cidr": "10.244.0.0/16", "blockSize": 26}


def lab(**keys: Any) -> Lab:
    return Lab.model_validate({"machines": {"provider": "local", **keys.pop("machines", {})}, **keys})


class Engine:
    """A folder for PATH with a stand-in for podman and for whatever else a test names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def add(self, name: str, script: str) -> None:
        program = self.folder / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def which(self, name: str) -> str | None:
        found = self.folder / name
        return str(found) if found.exists() else None


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A /proc with room for everything."""
    folder = tmp_path / "proc"
    (folder / "sys/fs/inotify").mkdir(parents=True)
    (folder / "sys/fs/inotify/max_user_instances").write_text("8192\n")
    (folder / "sys/fs/inotify/max_user_watches").write_text("1000000\n")
    (folder / "meminfo").write_text(f"MemTotal: {32 * GIB} kB\nMemFree: 1 kB\nMemAvailable: {30 * GIB} kB\n")
    return folder


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    made = Engine(tmp_path / "bin")
    made.add("podman", f'case $1 in ps) ;; info) echo {tmp_path} ;; --version) echo "podman version 5" ;; esac')
    for tool in local.TOOLS:
        made.add(tool, "exit 0")
    monkeypatch.setenv("PATH", f"{made.folder}:{os.environ['PATH']}")
    monkeypatch.setattr(local, "ranges_in_use", lambda stack, spec, state: [])
    return made


def answers(spec: Lab, computer: Computer) -> dict[str, Answer]:
    return {row.check.name.removeprefix("local."): row.answer for row in examine(checks(spec, "mine", computer))}


def made_up(proc: Path, engine: Engine, **keys: Any) -> Computer:
    return Computer(**{"proc": proc, "system": "Linux", "is_root": True, "cpus": 4, "which": engine.which, **keys})


def test_a_computer_with_room_is_fine(proc: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "_lacking", lambda modules, here: {})
    found = answers(lab(), made_up(proc, engine))
    assert len(found) == 11
    assert {name: answer.verdict for name, answer in found.items() if answer.verdict not in ("ok",)} in (
        {},
        {"disk": "warn"},
    )


def test_podman_is_asked_once_for_its_info(
    proc: Path, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_lacking", lambda modules, here: {})
    engine.add("podman", f'case $1 in info) echo "$3" >>{tmp_path}/asked; echo false; echo {tmp_path}/store ;; esac')
    found = answers(lab(), made_up(proc, engine))
    assert (tmp_path / "asked").read_text() == "{{.Host.Security.Rootless}}\n{{.Store.GraphRoot}}\n"
    assert found["engine"].verdict == "ok" and found["disk"].seen.startswith(f"{tmp_path} has ")


def test_subnets_in_use_are_named_with_free_ones(proc: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    used = [f"network.subnets: 10.0.{n}.0/24 is in use; choose another range, e.g. 10.1.{n}.0/24" for n in (1, 2)]
    monkeypatch.setattr(local, "ranges_in_use", lambda stack, spec, state: used)
    assert answers(lab(), made_up(proc, engine))["ranges"] == Answer(
        "stop",
        "network.subnets: 10.0.1.0/24 is in use; 10.0.2.0/24 is in use",
        "choose other ranges, e.g. 10.1.1.0/24 and 10.1.2.0/24",
    )
    used[1:] = []
    assert answers(lab(), made_up(proc, engine))["ranges"].fix == "choose another range, e.g. 10.1.1.0/24"
    used[:] = [f"network.subnets: 10.0.{n}.0/24 is in use; choose another range" for n in (1, 2)]
    assert answers(lab(), made_up(proc, engine))["ranges"].fix == "choose other ranges"
    assert "ranges" not in answers(lab(), made_up(proc, engine, is_root=False)), "only root sees root's networks"
    used[:] = ["network.subnets: podman does not list its networks; run again"]
    engine.add("podman", "echo 'Error: cannot connect' >&2; exit 125")
    found = answers(lab(), made_up(proc, engine))
    assert found["engine"].verdict == "stop" and "ranges" not in found, "other ranges are no fix for that"


def test_everything_that_is_missing_is_said_at_once(
    proc: Path, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_lacking", lambda modules, here: {"vxlan": "no module", "ipip": "no module"})
    (engine.folder / "nft").unlink()
    engine.add("podman", "echo 'Error: cannot connect' >&2; exit 125")
    (proc / "sys/fs/inotify/max_user_instances").write_text("128")
    (proc / "sys/fs/inotify/max_user_watches").write_text("8192")
    (proc / "meminfo").write_text(f"MemTotal: {GIB} kB\nMemAvailable: {GIB} kB\n")
    found = answers(lab(), made_up(proc, engine, is_root=False, cpus=1))
    assert {name for name, answer in found.items() if answer.verdict == "stop"} == {
        "root", "tools", "inotify", "processors", "memory",
    }  # fmt: skip
    # Without root neither of these is certain.
    assert {name for name, answer in found.items() if answer.verdict == "unknown"} == {"engine", "kernel"}
    assert found["kernel"].seen == "only root can try whether this kernel has vxlan"
    assert found["root"].fix == "sudo ./lab up mine"
    assert found["tools"] == Answer("stop", "missing: nft", "apt install nftables")
    need = 3 * instances_per_machine()
    assert f"echo fs.inotify.max_user_instances={need} >>/etc/sysctl.d/" in found["inotify"].fix
    # The fix is a command line: with both limits too low it sets both.
    written = tmp_path / "90-cni-lab.conf"
    command = found["inotify"].fix.replace("/etc/sysctl.d/90-cni-lab.conf", str(written)).replace("sysctl", "true")
    subprocess.run(["bash", "-euc", command], check=True, timeout=60)
    lines = [f"fs.inotify.max_user_instances={need}", "fs.inotify.max_user_watches=24576"]
    assert written.read_text().splitlines() == lines
    assert all(answer.fix for answer in found.values() if answer.verdict != "ok")
    as_root = answers(lab(), made_up(proc, engine))
    assert as_root["engine"].verdict == as_root["kernel"].verdict == "stop"
    assert (
        "cannot connect" in as_root["engine"].seen and "vxlan, which VXLAN needs (no module)" in as_root["kernel"].seen
    )


@pytest.mark.parametrize(
    ("lacking", "keys", "seen", "fix"),
    [
        (
            {"ipip": "Unknown device type"},
            {"calico": {"bgp": "Enabled", "pools": [POOL | {"encapsulation": "IPIP"}]}},
            "this kernel lacks ipip, which IPIP needs (Unknown device type)",
            "write another encapsulation for the pool (VXLAN, None), or use a kernel that has ipip",
        ),
        (
            {"wireguard": "no module"},
            {"calico": {"wireguard": True}},
            "this kernel lacks wireguard, which WireGuard needs (no module)",
            "write calico.wireguard: false, or use a kernel that has wireguard",
        ),
        (
            {"nf_tables": "no module"},
            {"calico": {"linuxDataplane": "Nftables"}},
            "this kernel lacks nf_tables (no module)",
            "choose another type of network, or use a kernel that has nf_tables",
        ),
    ],
)
def test_a_mode_that_the_kernel_lacks_is_named(
    proc: Path,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    lacking: dict[str, str],
    keys: dict[str, Any],
    seen: str,
    fix: str,
) -> None:
    monkeypatch.setattr(local, "_lacking", lambda modules, here: lacking)
    spec = parse_lab({"machines": {"provider": "local"}, **keys})
    assert answers(spec, made_up(proc, engine))["kernel"] == Answer("stop", seen, fix)


def test_addresses_and_interfaces_of_other_computers_are_named(
    proc: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "_lacking", lambda modules, here: {})
    spec = load_stack_file(ROOT / "stacks/Pulumi.cfos-egress.yaml").lab
    here = spec.model_copy(update={"machines": lab().machines})
    found = answers(here, made_up(proc, engine))["places"]
    assert (found.verdict, found.fix) == ("warn", "walk to this computer, 10.0.1.1, or to a node instead")
    assert found.seen == (
        "networks[0].routes[1].dst: nothing on this computer has 10.0.0.2 (on EC2 it is the VPC's resolver)"
    )
    assert answers(lab(), made_up(proc, engine))["places"].verdict == "ok", "it reaches this computer at 10.0.1.1"
    calico = lab().calico
    for pattern, verdict in (("eth1", "stop"), ("eth.*", "ok"), ("ens5,eth0", "ok")):
        other = lab().model_copy(update={"calico": calico.model_copy(update={"interface": pattern})})
        assert answers(other, made_up(proc, engine))["places"].verdict == verdict, pattern
    macvlan = {"name": "second", "type": "macvlan", "master": "eth1", "subnet": "10.9.0.0/24"}
    parsed = parse_lab(
        {"machines": {"provider": "local"}, "multus": {"clusterNetwork": "k8s-pod-network"}, "networks": [macvlan]}
    )
    found = answers(parsed, made_up(proc, engine))["places"]
    assert found == Answer("stop", "networks[0].master: no machine has eth1", "write eth0")


def test_a_folder_that_is_not_here_is_named(proc: Path, engine: Engine, tmp_path: Path) -> None:
    paths = (str(tmp_path), f"{tmp_path}/typo")
    mounts = [{"hostPath": path, "containerPath": f"/mnt{number}"} for number, path in enumerate(paths)]
    found = answers(lab(machines={"extraMounts": mounts}), made_up(proc, engine))["places"]
    seen = f"machines.extraMounts[1].hostPath: {tmp_path}/typo is not on this computer"
    assert found == Answer("stop", seen, "make it, or correct the path")
    assert answers(lab(machines={"extraMounts": mounts[:1]}), made_up(proc, engine))["places"].verdict == "ok"


@pytest.mark.parametrize(
    ("word", "here", "seen"),
    [
        ("auto", (), "neither podman nor docker is installed"),
        ("docker", ("podman",), "docker is not installed"),
        ("auto", ("docker",), ""),
    ],
)
def test_the_engine_that_up_would_take(proc: Path, engine: Engine, word: str, here: tuple[str, ...], seen: str) -> None:
    for name in {"podman", "docker"} - set(here):
        (engine.folder / name).unlink(missing_ok=True)
    for name in here:
        engine.add(name, "exit 0")
    found = answers(lab(machines={"engine": word}), made_up(proc, engine))["engine"]
    assert (found.verdict, found.seen) == (("stop", seen) if seen else ("ok", "docker"))


@pytest.mark.parametrize(
    ("name", "info"), [("podman", "true"), ("docker", "[name=seccomp,profile=default name=rootless]")]
)
def test_a_rootless_engine_is_refused(proc: Path, engine: Engine, name: str, info: str) -> None:
    engine.add(name, f'case $1 in info) echo "{info}" ;; esac')
    found = answers(lab(machines={"engine": name}), made_up(proc, engine))["engine"]
    assert found.verdict == "stop" and f"{name} is rootless here" in found.seen
    engine.add(name, 'case $1 in info) echo "[name=seccomp,profile=default]" ;; esac')
    assert answers(lab(machines={"engine": name}), made_up(proc, engine))["engine"].verdict == "ok"


@pytest.mark.parametrize(
    ("version", "newest_capability", "verdict"),
    [("20.10.24+dfsg1", 40, "stop"), ("20.10.24+dfsg1", 37, "ok"), ("23.0.1", 40, "ok"), ("", 40, "ok")],
)
def test_a_docker_that_withholds_capabilities_is_refused(
    proc: Path, engine: Engine, version: str, newest_capability: int, verdict: str
) -> None:
    (proc / "sys" / "kernel").mkdir(parents=True, exist_ok=True)
    (proc / "sys" / "kernel" / "cap_last_cap").write_text(f"{newest_capability}\n")
    engine.add("docker", f'case $1 in version) echo "{version}" ;; esac')
    found = answers(lab(machines={"engine": "docker"}), made_up(proc, engine))["engine"]
    assert found.verdict == verdict
    if verdict == "stop":
        assert "docker 20.10.24+dfsg1 withholds capabilities" in found.seen
        assert found.fix == "use podman, or docker 23 or later"


def test_another_system_is_named(proc: Path, engine: Engine) -> None:
    found = answers(lab(), made_up(proc, engine, system="Darwin"))
    assert found["system"] == Answer("stop", "this is Darwin", "use a Linux VM")
    assert "kernel" not in found


def test_little_free_memory_is_a_warning_unless_the_machines_are_there(
    proc: Path, engine: Engine, tmp_path: Path
) -> None:
    (proc / "meminfo").write_text(f"MemTotal: {8 * GIB} kB\nMemAvailable: {GIB} kB\n")
    assert answers(lab(), made_up(proc, engine))["memory"].verdict == "warn"
    engine.add("podman", f"case $1 in ps) echo a b c ;; info) echo {tmp_path} ;; esac")
    assert answers(lab(), made_up(proc, engine))["memory"].verdict == "ok"


@pytest.mark.parametrize(("free", "verdict"), [(100 << 30, "ok"), (4 << 30, "warn"), (1 << 30, "stop")])
def test_disk_space_for_the_machines(
    proc: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch, free: int, verdict: str
) -> None:
    monkeypatch.setattr(local.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": free}))
    assert answers(lab(), made_up(proc, engine))["disk"].verdict == verdict


def test_this_kernel_is_examined_and_nothing_is_loaded() -> None:
    """On the real kernel: a module that no kernel has is missing, and no other appears in /proc/modules."""
    before = Path("/proc/modules").read_text() if Path("/proc/modules").exists() else ""
    found = local._lacking(["overlay", "nonsense"], Computer())
    assert set(found) == {"nonsense"} or not Computer().is_root
    if Path("/proc/modules").exists():
        assert {line.split()[0] for line in Path("/proc/modules").read_text().splitlines()} == {
            line.split()[0] for line in before.splitlines()
        }


@pytest.mark.skipif(os.geteuid() != 0, reason="links can be tried as root only")
@pytest.mark.parametrize("kind", ["macvlan", "ipvlan"])
def test_networks_of_the_lab_are_tried_on_this_kernel(kind: str) -> None:
    make = f"ip link add low type veth peer name high && ip link add probe link low type {kind}"
    have = subprocess.run(["unshare", "--net", "sh", "-c", make], capture_output=True).returncode == 0
    assert (kind not in local._lacking([kind], Computer())) == have


def test_this_computer_answers_within_a_few_seconds() -> None:
    start = time.monotonic()
    rows = examine([*tools.checks(lab()), *checks(lab(), "mine")])
    assert time.monotonic() - start < 10, "the machine that runs the tests may be busy; alone it takes a second"
    assert {"python", "pulumi", "plugins"} <= {row.check.name for row in rows}
    assert len(rows) >= 10


# --- tools ---


def cli(folder: Path, version: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pulumi").write_text(f"#!/bin/sh\necho {version}\n")
    (folder / "pulumi").chmod(0o755)


def test_an_older_cli_on_path_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.project.HOME", tmp_path / ".lab")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert tools.pulumi() == Answer("ok", f"up installs {VERSION} into .lab/pulumi")
    cli(tmp_path / "bin", "v3.148.0")
    assert "3.148.0, too old, and is not used; up installs" in tools.pulumi().seen
    cli(tmp_path / ".lab" / "pulumi" / "bin", f"v{VERSION}")
    assert tools.pulumi().seen.endswith(f"{tmp_path}/.lab/pulumi/bin/pulumi is {VERSION}")
    cli(tmp_path / "bin", "nonsense")
    assert tools.pulumi().verdict == "warn"
    cli(tmp_path / "bin", "v999.1.2")
    assert tools.pulumi() == Answer("ok", f"{tmp_path / 'bin'}/pulumi is 999.1.2")


def test_plugins_that_may_not_be_downloaded_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setenv("PULUMI_HOME", str(tmp_path))
    monkeypatch.delenv("PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", raising=False)
    assert tools.plugins(lab()).verdict == "ok"
    monkeypatch.setenv("PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION", "true")
    found = tools.plugins(lab())
    assert found.verdict == "stop" and found.fix.count("pulumi plugin install resource") == 4
    for name, version in tools._wanted(lab()):
        (tmp_path / "plugins" / f"resource-{name}-v{version}").mkdir(parents=True)
    assert tools.plugins(lab()).verdict == "ok"


# --- commands ---


def test_plan_shows_what_this_computer_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(local.Computer, "which", lambda self, name: None)
    monkeypatch.setattr(
        local, "checks", lambda spec, stack, **state: checks(spec, stack, Computer(which=lambda name: None), **state)
    )
    assert lab_command("plan", "local") == 0
    out = capsys.readouterr().out
    assert "note: up would stop: local.engine: neither podman nor docker is installed. Fix: apt install podman" in out
    assert lab_command("plan", "cfos-egress") == 0
    assert "local." not in capsys.readouterr().out
