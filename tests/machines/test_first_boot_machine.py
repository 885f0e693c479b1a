"""The first boot of an EC2 machine for real: cloud-init runs the user data of a lab on a systemd host. Only IMDS and
Parameter Store have stand-ins. Then the first step runs over SSH. However often it is cut, it comes good by itself.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machines.ec2_machine import NODE, Machine, Machines, wait_until
from tests.node.packages import Repositories
from tests.node.test_prepare import program

CUTS = int(os.environ.get("CNILAB_KILLS", "5"))
# The tests share one computer's memory, and the first one's state.
pytestmark = [pytest.mark.xdist_group("hosts"), pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    made = Machines(tmp_path_factory.mktemp("ec2"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def undisturbed(machines: Machines) -> Machine:
    """A machine that booted without any trouble."""
    machine = machines.make()
    machine.start()
    machine.wait_for_ssh()
    return machine


@pytest.fixture
def machine(machines: Machines) -> Iterator[Machine]:
    """A machine that has never booted."""
    made = machines.make()
    yield made
    machines.remove(made)


def test_a_machine_that_boots_has_its_name_its_one_host_key_and_its_user(undisturbed: Machine) -> None:
    assert undisturbed.services.problems == []
    state = undisturbed.state()
    assert "/etc/ssh/ssh_host_ed25519_key.pub" in state and "ssh_host_rsa" not in state
    assert ".cni-lab" not in state.partition("sha256")[0] or "No such file" in state
    assert f"\n{NODE}\n{NODE}\n" in state, "the node's name, not EC2's"
    assert "600 root /etc/ssh/ssh_host_ed25519_key\n" in state
    assert "ssh-ed25519" in state and "cannot access '/run/nologin'" in state
    output = undisturbed.host.read("cat /var/log/cloud-init.log /var/log/cloud-init-output.log")
    assert "installed" in output
    key = next(iter(undisturbed.services.parameters.values())).splitlines()[1]
    assert key not in output


def test_sshd_starts_after_the_key_is_there(undisturbed: Machine) -> None:
    times = undisturbed.host.read(
        'stat -c %.Y /etc/ssh/ssh_host_ed25519_key; date -d "$(systemctl show -P ExecMainStartTimestamp ssh)" +%s.%N'
    )
    key, sshd = map(float, times.split())
    assert int(key) <= sshd


def test_a_machine_that_is_gone_costs_seconds(undisturbed: Machine, machines: Machines) -> None:
    """A connection through the jump host waits as long as the kernel there tries: else 127 s, ninety times."""
    lost = machines.here().rpartition(".")[0] + ".9"
    took = undisturbed.host.read(
        f"iptables -A OUTPUT -d {lost} -j DROP; start=$(date +%s); "
        f"timeout 100 bash -c '</dev/tcp/{lost}/22' 2>/dev/null || true; echo $(($(date +%s) - start)); "
        f"iptables -D OUTPUT -d {lost} -j DROP"
    )
    assert 5 <= int(took) <= 30


def test_the_first_step_after_it_runs(undisturbed: Machine, machines: Machines, tmp_path: Path) -> None:
    """prepare.sh, the first step on every machine, over the connection that a lab uses. It waits for cloud-init."""
    repositories = Repositories(tmp_path, machines.here())
    try:
        undisturbed.host.read("rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*")
        for _ in range(2):
            done = undisturbed.host.run(program(undisturbed.host, repositories, MACHINE_KIND="aws"), 300)
            assert done.returncode == 0, done.stderr
            assert "status: done" in done.stderr
        assert undisturbed.host.read("cat /var/lib/cni-lab/owner") == "cni-lab/test"
    finally:
        repositories.close()


def test_a_reboot_asks_nothing_and_lets_people_in(undisturbed: Machine) -> None:
    before, state = len(undisturbed.services.asked), undisturbed.state()
    undisturbed.cut()
    undisturbed.start()
    undisturbed.wait_for_ssh()
    assert undisturbed.state() == state
    assert not [words for words in undisturbed.services.asked[before:] if words.startswith("parameter")]


REQUESTS = ["placement/region", "iam/security-credentials/", "iam/security-credentials/cni-lab", "parameter "]


def test_the_power_fails_while_a_request_is_on_its_way(machine: Machine, undisturbed: Machine) -> None:
    """At each request of the program in turn, also before cloud-init has the user data."""
    held, goes_on = threading.Event(), threading.Event()
    for cut_at in ["user-data", *REQUESTS]:
        held.clear()

        def hold(words: str, cut_at: str = cut_at) -> None:
            if cut_at in words and not held.is_set():
                held.set()
                goes_on.wait(60)

        machine.services.before = hold
        machine.start()
        assert held.wait(300), f"{cut_at} was not asked: {machine.services.asked}\n{machine.why()}"
        if cut_at != "user-data":
            assert "No such file" in machine.inside("ls /etc/ssh/ssh_host_ed25519_key 2>&1; true")
        machine.cut()
        goes_on.set()
        goes_on.clear()
    machine.services.before = lambda words: None
    machine.start()
    machine.wait_for_ssh()
    assert machine.state() == undisturbed.state()
    assert machine.services.problems == []


# Each waits for the cut the first time that it runs, and then does what it is for.
HANG = """#!/bin/sh
if mkdir /var/lib/cut-{name}; then sleep 600; fi
exec {path} "$@"
"""
PROGRAMS = {"useradd": "/usr/sbin/useradd", "ssh-keygen": "/usr/bin/ssh-keygen", "passwd": "/usr/bin/passwd"}


def test_the_power_fails_while_a_program_runs(machines: Machines, undisturbed: Machine) -> None:
    """cloud-init writes down that a thing is done before it does it: without our user data a machine whose power fails
    while its user is made would never have one."""
    hanging = {f"/usr/local/sbin/{name}": HANG.format(name=name, path=path) for name, path in PROGRAMS.items()}
    machine = machines.make(hanging)
    for name in ("ssh-keygen", "useradd", "passwd"):  # in the order in which they run
        machine.start()
        wait_until(lambda name=name: "yes" in machine.inside(f"[ -e /var/lib/cut-{name} ] && echo yes; true"),
                   machine.why, 300)  # fmt: skip
        machine.cut()
    machine.start()
    machine.wait_for_ssh()
    assert machine.state() == undisturbed.state()
    machines.remove(machine)


def test_the_power_fails_at_any_moment(machine: Machine, undisturbed: Machine) -> None:
    seed = int(os.environ.get("CNILAB_SEED", random.randrange(10**6)))
    moments = random.Random(seed)
    for _ in range(CUTS):
        machine.start()
        time.sleep(moments.uniform(0, 20))
        machine.cut()
    machine.start()
    machine.wait_for_ssh()
    assert machine.state() == undisturbed.state(), f"seed {seed}"


def test_parameter_store_knows_the_key_only_later(machine: Machine, undisturbed: Machine) -> None:
    """As right after the parameter was made, or while the new role is not known everywhere: nobody gets in with any
    other key meanwhile, and no reboot is needed."""
    parameters, machine.services.parameters = machine.services.parameters, {}
    machine.start()
    asked = lambda: [words for words in machine.services.asked if words.startswith("parameter")]  # noqa: E731
    wait_until(lambda: len(asked()) >= 2, machine.why, 300)
    assert "No such file" in machine.inside("ls /etc/ssh/ssh_host_*_key 2>&1; true")
    assert machine.host.shell("true").returncode == 255
    machine.services.parameters = parameters
    machine.wait_for_ssh()
    assert machine.state() == undisturbed.state()
