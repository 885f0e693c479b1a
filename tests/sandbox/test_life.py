"""A sandbox's life: it outlives its maker, ends as a whole, and changes nothing outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from components.sandbox import life
from components.sandbox.requirements import examine
from components.sandbox.running import SandboxError
from components.spec.models import Lab
from components.verify.read.namespace import NamespaceAccess
from tests.sandbox.maker import begin_to_build, build_and_end, quiet_computer
from tests.verify import replica_labs as labs

ROOT = Path(__file__).parents[2]
LAB = labs.CROSS_SUBNET

if examine().problem:
    pytest.skip(f"no sandbox can be built here: {examine().problem}", allow_module_level=True)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    home = tmp_path / "sandbox"
    yield home
    for name in life.names(home):
        life.remove(name, home)


@pytest.fixture(scope="module")
def computer() -> Iterator[int]:
    with quiet_computer() as pid:
        yield pid


def state(computer: int) -> dict[str, str]:
    """What a sandbox must not change on a computer."""
    enter = ["nsenter", f"--target={computer}", "--net", "--mount", "--"] if os.geteuid() == 0 else []
    commands = {
        "addresses": ["ip", "-o", "addr"],
        "routes": ["ip", "route", "show", "table", "all"],
        "rules": ["ip", "rule"],
        "filter": ["iptables-save"],
        "mounts": ["cat", "/proc/self/mounts"],
        "namespaces": ["ls", "/run/netns"],
        "sysctls": ["cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv4/conf/all/rp_filter"],
    }
    found = {}
    for name, command in commands.items():
        done = subprocess.run([*enter, *command], capture_output=True, text=True, check=False)
        lines = (line for line in done.stdout.splitlines() if not line.startswith("#"))
        found[name] = "\n".join(line.split(" valid_lft")[0].split("[")[0] for line in lines)
    return found


def processes(home: Path) -> list[str]:
    """Command lines that name the home."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(home) in words and int(entry.name) != os.getpid():
            found.append(f"{entry.name} {words}")
    return found


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


def run(standing: life.LiveSandbox, node: str, *argv: str) -> subprocess.CompletedProcess[str]:
    command = NamespaceAccess.of(node, standing.outputs["access"][node]).command(argv)
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def found(name: str, home: Path) -> life.LiveSandbox:
    standing = life.find(name, home)
    assert standing is not None
    return standing


def test_it_outlives_its_maker_changes_nothing_and_goes_whole(home: Path, computer: int) -> None:
    before = state(computer)
    build_and_end(home, "lab", computer)
    standing = found("lab", home)
    assert run(standing, "worker1", "hostname").stdout == "worker1\n"
    assert life.names(home) == ["lab"] and processes(home)
    assert state(computer) == before
    assert (home / "lab").stat().st_mode & 0o77 == 0
    assert life.remove("lab", home)
    assert not processes(home) and not home.exists()
    assert state(computer) == before
    assert not life.remove("lab", home)


def part(standing: life.LiveSandbox, which: str) -> int:
    if which == "unshare":
        return standing.pid
    if which == "machine":
        return int(standing.outputs["access"]["worker1"]["pid"])
    child = int(Path(f"/proc/{standing.pid}/task/{standing.pid}/children").read_text().split()[0])
    if which == "holder":
        return child
    (router,) = Path(f"/proc/{child}/task/{child}/children").read_text().split()
    return int(router)


@pytest.mark.parametrize("which", ["unshare", "holder", "router", "machine"])
def test_a_part_that_is_killed_takes_all_with_it(home: Path, computer: int, which: str) -> None:
    build_and_end(home, "lab", computer)
    standing = found("lab", home)
    os.kill(part(standing, which), signal.SIGKILL)
    until(lambda: not processes(home) and not life.is_up("lab", home))
    assert life.find("lab", home) is None
    assert life.sweep(home) == ["lab"] and not home.exists()


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.15, 0.3, 0.6, 1.0])
def test_a_maker_that_is_killed_leaves_nothing(home: Path, computer: int, seconds: float) -> None:
    before = state(computer)
    maker = begin_to_build(home, computer)
    time.sleep(seconds)
    maker.kill()
    maker.join()
    # A process that ends has no command line any more before its files are closed.
    until(lambda: not processes(home) and not life.names(home))
    assert state(computer) == before
    life.sweep(home)
    assert not home.exists()


def test_two_that_build_one_name_at_once_make_one(home: Path) -> None:
    outcomes: list[str] = []

    def build() -> None:
        try:
            life.build("lab", LAB, home)
            outcomes.append("built")
        except life.BeingBuilt as error:
            outcomes.append(str(error))

    threads = [threading.Thread(target=build) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("built") == 1, outcomes
    assert run(found("lab", home), "worker2", "true").returncode == 0


def test_two_stacks_of_the_same_addresses_stand_side_by_side(home: Path, computer: int) -> None:
    for name in ("one", "two"):
        build_and_end(home, name, computer)
    one, two = found("one", home), found("two", home)
    assert life.names(home) == ["one", "two"]
    assert run(one, "worker1", "touch", "/root/mark").returncode == 0
    assert run(two, "worker1", "ls", "/root/mark").returncode != 0
    assert run(two, "worker1", "ping", "-c", "1", "-w", "3", "10.0.2.31").returncode == 0
    assert life.remove("one", home) and life.find("one", home) is None
    assert run(two, "worker1", "ping", "-c", "1", "-w", "3", "10.0.2.31").returncode == 0


def test_a_computer_with_the_lab_s_routes_and_a_firewall_that_drops(home: Path) -> None:
    """In a network namespace that is such a computer: its loopback is open, as a computer's is."""
    if os.geteuid() != 0:
        pytest.skip("only root makes such a computer here")
    rules = "*filter\n:INPUT DROP [0:0]\n:FORWARD DROP [0:0]\n:OUTPUT DROP [0:0]\n"
    rules += "-A INPUT -i lo -j ACCEPT\n-A OUTPUT -o lo -j ACCEPT\nCOMMIT\n"
    script = (
        "ip link set lo up; ip link add lan type veth peer name wire; ip link set lan up; "
        "ip address add 10.0.0.9/16 dev lan; ip route add 10.244.0.0/16 dev lan; ip route add default dev lan; "
        'iptables-restore <<<"$1"; before=$(ip address; ip route; iptables-save | grep -v "^[:#]"); '
        '"$2" -c "$3" "$4"; after=$(ip address; ip route; iptables-save | grep -v "^[:#]"); '
        '[[ $before == "$after" ]]'
    )
    python = (
        "import sys; from pathlib import Path; from tests.sandbox.test_stacks import check, sandbox\n"
        "from tests.verify import replica_labs\n"
        "with sandbox(replica_labs.EGRESS, Path(sys.argv[1])) as (live, _): assert check(live) == {}"
    )
    command = ["unshare", "--net", "--", "bash", "-euc", script, "-", rules, sys.executable, python, str(home)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_full_disk_is_said_so(home: Path, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root mounts a small disk")
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(home)], check=True)
    try:
        with pytest.raises(SandboxError, match=f"{home}.*: No space left on device"):
            life.build("lab", LAB, home)
        assert life.names(home) == [] and not processes(home)
        assert not list(home.iterdir())
    finally:
        subprocess.run(["umount", str(home)], check=True)


def test_another_user_s_sandboxes_are_said_so(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_: Path) -> Iterator[Path]:
        raise PermissionError(13, "Permission denied", str(home))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", denied)
        with pytest.raises(SandboxError, match=f"{home}: Permission denied. .* sudo chown -R"):
            life.sweep(home)


def test_the_difference_between_two_labs_is_named_by_key() -> None:
    before = life.dump(labs.VXLAN)
    other = labs.VXLAN.model_dump(mode="json", by_alias=True)
    other["calico"]["pools"][0]["encapsulation"] = "None"
    other["calico"]["bgp"] = "Enabled"
    other["nodes"] = other["nodes"][:2]
    lines = life.differences(before, life.dump(Lab.model_validate(other)))
    assert lines == [
        "nodes[2]: worker2 → (absent)",
        "calico.bgp: Disabled → Enabled",
        "calico.pools[0].encapsulation: VXLAN → None",
    ]
    assert life.differences(before, before) == []


def test_it_takes_nothing_from_the_expectations() -> None:
    for file in (ROOT / "components" / "sandbox").glob("*.py"):
        lines = [line for line in file.read_text().splitlines() if line.startswith(("import ", "from "))]
        taken = [line for line in lines if "components.verify" in line and "components.verify.read." not in line]
        assert not taken, f"{file.name}: {taken}"
