"""What a restart of the computer, or of its machines, takes away, and what `start` brings back: on real machines."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time

import pytest

import cli.project
from cli.errors import CommandError
from cli.lifecycle.local_machines import prepare_up, ranges_in_use, read_state
from cli.live.machines import states
from components.spec.models import Lab
from tests.machines.conftest import REAL_ENGINE, Project, Scripts, guard_routes, leftovers, make, run_engine, small, ssh

pytestmark = pytest.mark.xdist_group("hosts")
MACHINE = "local-machine.sh"
BRIDGE = {"podman": "{{.NetworkInterface}}", "docker": 'br-{{printf "%.12s" .Id}}'}[REAL_ENGINE]
"""As in components/machines/local/network.sh: what shows the bridge of a network."""
RANGES = {
    "a": ["10.78.1.0/24", "10.96.0.0/12", "10.244.0.0/16"],
    "b": ["10.78.2.0/24", "10.96.0.0/12", "10.244.0.0/16"],
}


def network_of(lab: Scripts) -> dict[str, object]:
    """What this computer has for the lab's two subnets beside the machines: packet filter, guard routes, bridges.

    A bridge is called BRIDGE, because docker gives a network that is made again a bridge of another name.
    """
    found: dict[str, object] = {}
    for subnet in "ab":
        name = f"cni-lab-{lab.stack}-{subnet}"
        rules = subprocess.run(["nft", "list", "table", "inet", name], capture_output=True, text=True)
        bridge = run_engine("network", "inspect", "--format", BRIDGE, name)
        address = subprocess.run(["ip", "-4", "-o", "address", "show", bridge], capture_output=True, text=True)
        shown = [text.replace(bridge, "BRIDGE") for text in (rules.stdout, address.stdout)]
        found[subnet] = (shown[0], sorted(guard_routes(name)), shown[1].split()[1:4])
    return found


def way_to(address: str) -> str:
    """The interface by which this computer reaches an address, or what it says instead."""
    done = subprocess.run(["ip", "-4", "route", "get", address], capture_output=True, text=True)
    words = (done.stdout or done.stderr).split()
    return words[words.index("dev") + 1] if "dev" in words else " ".join(words)


def stays_here(address: str) -> bool:
    """Whether no packet to an address of a stopped lab leaves this computer. docker keeps the bridges of its networks
    while no container runs."""
    way = way_to(address)
    kept = REAL_ENGINE == "docker" and address.startswith("10.78.") and way.startswith("br-")
    return kept or "unreachable" in way or "No route to host" in way


def lose_the_network(lab: Scripts) -> None:
    """What a restart of the computer removes beside the processes."""
    for subnet in "ab":
        name = f"cni-lab-{lab.stack}-{subnet}"
        subprocess.run(["nft", "delete", "table", "inet", name], check=True)
        routes = subprocess.run(["ip", "-4", "route", "show", "type", "unreachable"], capture_output=True, text=True)
        for line in routes.stdout.splitlines():
            if line.split()[1] in guard_routes(name):
                subprocess.run(["ip", "-4", "route", "delete", *line.split()], check=False)


@pytest.fixture
def machines(lab: Scripts) -> Scripts:
    """A machine in each of two subnets."""
    for subnet in "ab":
        make(lab.network("create", subnet))
        make(lab.machine("create", f"n{subnet}", subnet))
    return lab


def across(lab: Scripts) -> tuple[int, bool]:
    """A ping from one subnet to the other, as large as the MTU: its status, and whether one router was on the way."""
    status, said = ssh(lab, "ping -c 2 -W 2 -M do -s 8973 10.78.2.10", "na")
    return status, "ttl=63" in said


def test_stopped_machines_start_with_all_that_belongs_to_them(machines: Scripts) -> None:
    lab = machines
    before = network_of(lab)
    assert [sorted(RANGES[subnet]) for subnet in "ab"] == [
        sorted(guard_routes(f"cni-lab-{lab.stack}-{s}")) for s in "ab"
    ]
    assert ssh(lab, "echo kept | sudo tee /etc/kept /var/lib/kept >/dev/null", "na")[0] == 0
    assert "eth0" not in way_to("10.78.1.10")
    for node in ("na", "nb"):
        make(lab.machine("stop", node))
        make(lab.machine("stop", node))
    # Nothing goes by the default route.
    for address in ("10.78.1.10", "10.78.2.10", "10.96.0.1", "10.244.1.1"):
        assert stays_here(address), way_to(address)
    lose_the_network(lab)
    lost = {"podman": "10.78.1.10", "docker": "10.244.1.1"}[REAL_ENGINE]
    assert way_to(lost) == "eth0", "without the guard route it would leave: this is what start must prevent"
    for subnet in "ab":
        make(lab.network("update", subnet))
        make(lab.machine("start", f"n{subnet}", subnet))
        make(lab.machine("start", f"n{subnet}", subnet))
    assert network_of(lab) == before
    assert across(lab) == (0, True)
    assert ssh(lab, "cat /etc/kept /var/lib/kept", "na") == (0, "kept\nkept\n")
    for subnet in "ab":
        make(lab.machine("delete", f"n{subnet}", subnet))
        make(lab.network("delete", subnet))
    assert leftovers(lab.stack) == []


@pytest.mark.timeout(900)
def test_stop_and_start_may_be_cut_anywhere(machines: Scripts) -> None:
    lab = machines
    before = network_of(lab)
    choose = random.Random(11)
    for number in range(6):
        verb = "stop" if number % 3 == 0 else "start"
        process = lab.start(MACHINE, verb, **lab.of_machine("na", "a", 10))
        time.sleep(choose.uniform(0.1, 4))
        if process.poll() is None:
            # Pulumi or a shell kills the script alone; a lost session kills its whole process group.
            os.kill(process.pid, signal.SIGKILL) if number % 2 else os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=200)
    for verb in ("stop", "start"):
        make(lab.machine(verb, "na", "a"))
    assert network_of(lab) == before
    assert across(lab) == (0, True)


def test_a_machine_that_lost_its_power_starts_again(machines: Scripts) -> None:
    lab = machines
    before = network_of(lab)
    for node in ("na", "nb"):
        run_engine("kill", "--signal", "KILL", lab.container(node))
    lose_the_network(lab)
    for subnet in "ab":
        make(lab.network("update", subnet))
        make(lab.machine("start", f"n{subnet}", subnet))
    assert network_of(lab) == before and across(lab) == (0, True)


def test_a_machine_that_is_gone_is_named_with_the_fix(lab: Scripts) -> None:
    make(lab.network("create"))
    for verb in ("start", "update"):
        refused = lab.machine(verb)
        assert refused.status == 1
        assert f"n1 is gone from {REAL_ENGINE}; ./lab up {lab.stack} --repair makes it again" in refused.refusal
    make(lab.machine("stop"))


def test_a_vpn_that_has_the_pods_range_keeps_its_route(lab: Scripts) -> None:
    subprocess.run(["ip", "route", "add", "10.240.0.0/12", "dev", "lo"], check=True)
    try:
        made = lab.network("create")
        assert made.status == 0
        assert "10.244.0.0/16 is a part of 10.240.0.0/12, to which this computer has a route through lo" in made.stderr
        assert sorted(guard_routes(f"cni-lab-{lab.stack}-a")) == ["10.78.1.0/24", "10.96.0.0/12"]
    finally:
        subprocess.run(["ip", "route", "delete", "10.240.0.0/12", "dev", "lo"], check=True)
    # A changed range takes its guard route along.
    make(lab.network("update", CLUSTER_RANGES="10.96.0.0/12 10.250.0.0/16"))
    assert sorted(guard_routes(f"cni-lab-{lab.stack}-a")) == ["10.250.0.0/16", "10.78.1.0/24", "10.96.0.0/12"]
    make(lab.network("delete"))
    assert leftovers(lab.stack) == []


def prepare(command: str, lab: Scripts, spec: Lab, *, repaired: bool) -> tuple[list[str], bool]:
    return prepare_up(command, lab.stack, spec, read_state(lab.stack), repaired=repaired)


@pytest.mark.timeout(900)
def test_up_starts_what_is_stopped_and_makes_again_what_is_gone(
    project: Project, lab: Scripts, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the real engine's state, and containers that people stopped or removed with the container engine."""
    project.up(small(10))
    for name in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE", "PULUMI_SKIP_UPDATE_CHECK"):
        monkeypatch.setenv(name, project.environment[name])
    monkeypatch.setattr(cli.project, "HOME", lab.folder / "home")
    spec = Lab.model_validate(small(10))
    before, ids = network_of(lab), project.outputs()
    assert set(read_state(lab.stack).machines) == {"cp", "w10"}
    assert set(read_state(lab.stack).networks) == {f"cni-lab-{lab.stack}-{subnet}" for subnet in "ab"}
    assert prepare("up", lab, spec, repaired=False) == ([], False)
    capsys.readouterr()

    run_engine("stop", "--time", "30", lab.container("cp"), lab.container("w10"))
    lose_the_network(lab)
    assert states(lab.stack, spec, ["cp", "w10"]) == {"cp": "stopped", "w10": "stopped"}
    prepare("preview", lab, spec, repaired=False)
    assert re.search(r"lab preview: the machines of (cp, w10|w10, cp) do not run now", capsys.readouterr().err)
    assert prepare("up", lab, spec, repaired=False) == ([], False)
    assert re.search(
        r"lab up: the machines of (cp, w10|w10, cp) are stopped and are started first", capsys.readouterr().err
    )
    assert network_of(lab) == before
    assert set(project.up(small(10))) == {"same"} and project.outputs() == ids
    assert read_state(lab.stack).gone(states(lab.stack, spec, ["cp", "w10"])) == {}

    run_engine("rm", "--force", lab.container("w10"))
    with pytest.raises(CommandError, match=rf"w10 of {lab.stack} is gone from this computer: \./lab up "):
        prepare("up", lab, spec, repaired=False)
    options, again = prepare("up", lab, spec, repaired=True)
    assert again and "gone from this computer, and made again: w10" in capsys.readouterr().err
    project.call("up", "--yes", "--skip-preview", *options)
    assert project.outputs()["cp"] == ids["cp"]
    assert project.outputs()["w10"]["said"] == "w10\n0" and project.outputs()["w10"]["id"] != ids["w10"]["id"]

    run_engine("rm", "--force", lab.container("w10"))
    run_engine("network", "rm", f"cni-lab-{lab.stack}-b")
    options, again = prepare("up", lab, spec, repaired=True)
    assert again and f"made again: cni-lab-{lab.stack}-b, w10" in capsys.readouterr().err
    project.call("up", "--yes", "--skip-preview", *options)
    assert network_of(lab) == before
    assert prepare("up", lab, spec, repaired=False) == ([], False)
    # A second lab with the same ranges is refused before anything is made.
    assert ranges_in_use(lab.stack, spec, read_state(lab.stack)) == []
    found = ranges_in_use(f"{lab.stack}-2", spec, read_state(f"{lab.stack}-2"))
    assert [message.split()[1] for message in found] == ["10.78.1.0/24", "10.78.2.0/24"]
    assert all(f"by the lab {lab.stack} ({REAL_ENGINE}'s network" in message for message in found)
