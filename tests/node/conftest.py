"""Hosts that the node scripts run on: podman containers with systemd, reached through real sshd.

CNILAB_HOST_IMAGE names a bare Debian 12 with systemd, sshd and a user `ubuntu` who may sudo. CNILAB_BAKED_IMAGE names
one that also has kubeadm, kubelet, kubectl, CRI-O and crictl. CNILAB_BAKED_MOUNTS is what its hosts mount (FROM:TO:ro
…), such as a store of container images. Where podman, runc or an image is missing, the tests skip.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from components.node.script import File, compose

HOST_IMAGE = os.environ.get("CNILAB_HOST_IMAGE", "")
BAKED_IMAGE = os.environ.get("CNILAB_BAKED_IMAGE", "")
BAKED_MOUNTS = os.environ.get("CNILAB_BAKED_MOUNTS", "").split()
NETWORK = "cni-lab-test-node"
LABEL = "cni-lab-test=node"
# Kills every process of the steps that run on a host: timeout, bash, and whatever they started.
KILL_STEPS = (
    "for lock in /run/lock/cni-lab*; do flock -n $lock true ||"
    " kill -KILL -- -$(ps -o pgid= -p $(cat $lock) | tr -d ' '); done"
)


@dataclass(frozen=True)
class Host:
    """One container. `ssh`: the command line that reaches it."""

    name: str
    container: str
    address: str
    ssh: tuple[str, ...]

    def shell(self, command: str, stdin: str = "", timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command line as root through sshd."""
        return subprocess.run(
            [*self.ssh, f"sudo -n bash -c {shlex.quote(command)}"],
            input=stdin, capture_output=True, text=True, timeout=timeout,
        )  # fmt: skip

    def read(self, command: str) -> str:
        """The output of a command line that must succeed."""
        done = self.shell(command)
        assert done.returncode == 0, f"{command} on {self.name}:\n{done.stderr}"
        return done.stdout.strip()

    def start(self, program: str, limit: int = 900) -> subprocess.Popen[str]:
        """Send a program as a Step does, and do not wait for it."""
        process = subprocess.Popen(
            [*self.ssh, f"sudo -n timeout --kill-after=30 {limit} bash -s"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(program)
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, program: str, limit: int = 900) -> subprocess.CompletedProcess[str]:
        """Send a program as a Step does, and wait for its end."""
        process = self.start(program, limit)
        stdout, stderr = process.communicate(timeout=limit + 60)
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def kill(self) -> None:
        """Kill the steps that run on the host, with a signal that no step can catch."""
        self.shell(KILL_STEPS)

    def step(
        self, phase: str, scripts: Sequence[str], variables: Mapping[str, str], files: Sequence[File] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run scripts of components/node; the step must succeed."""
        done = self.run(compose(phase, variables, files, scripts))
        assert done.returncode == 0, f"{phase} on {self.name}:\n{done.stderr}"
        return done


def _podman(*arguments: str) -> str:
    done = subprocess.run(["podman", *arguments], capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise RuntimeError(f"podman {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def require_image(image: str) -> None:
    """Skip the test if this computer cannot run hosts from `image`, or if no image was named for privileged hosts."""
    if not image:
        pytest.skip("no image for systemd hosts: set CNILAB_HOST_IMAGE and CNILAB_BAKED_IMAGE")
    for tool in ("podman", "runc", "ssh", "ssh-keygen"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    if os.geteuid() != 0:
        pytest.skip("systemd hosts in podman need root")
    if subprocess.run(["podman", "image", "exists", image]).returncode != 0:
        pytest.skip(f"the image {image} is not here")


class Hosts:
    """Makes hosts on a network of their own, and removes all of it. `made`: the names of their containers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._run = uuid.uuid4().hex[:8]
        self.network = f"{NETWORK}-{self._run}"
        self._subnet = ""
        self.made: list[str] = []

    def make(self, name: str, octet: int, image: str = HOST_IMAGE, options: Sequence[str] = ()) -> Host:
        """A new host that answers on SSH, at the address that ends in `octet`."""
        require_image(image)
        key = self._folder / "key"
        if not key.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        container, address = f"{self.network}-{name}", self.address(octet)
        self.made.append(container)
        mounts = [part for mount in BAKED_MOUNTS for part in ("--volume", mount)] if image == BAKED_IMAGE else []
        _podman(
            "run", "--detach", "--name", container, "--hostname", name, "--label", LABEL, "--runtime", "runc",
            "--privileged", "--systemd=always", "--ulimit", "nofile=10000:10000", "--ulimit", "nproc=10000:10000",
            "--pids-limit=-1", "--network", self.network, "--ip", address, *options, *mounts, image,
        )  # fmt: skip
        _wait_until(lambda: _authorise(container, key.with_suffix(".pub").read_text()), f"{container}: no user ubuntu")
        known = self._folder / f"known-{name}"
        _wait_until(lambda: _know(container, address, known), f"{container}: no SSH host key")
        ssh = (
            "ssh", "-i", str(key), "-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes",
            "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=30", "-o", "LogLevel=ERROR", f"ubuntu@{address}",
        )  # fmt: skip
        host = Host(name, container, address, ssh)
        _wait_until(lambda: host.shell("true").returncode == 0, f"{container}: sshd does not answer")
        return host

    def address(self, octet: int) -> str:
        """An address on the hosts' network, which is made at the first call. 1 is this computer."""
        if not self._subnet:
            self._subnet = self._make_network()
        return f"{self._subnet}.{octet}"

    def _make_network(self) -> str:
        """Make the network in the first free range of 10.77.0.0/24, 10.77.1.0/24, …; returns e.g. 10.77.0."""
        for third in range(50):
            subnet = ["--subnet", f"10.77.{third}.0/24"]
            create = ["podman", "network", "create", "--disable-dns", "--label", LABEL, *subnet, self.network]
            done = subprocess.run(create, capture_output=True, text=True)
            if done.returncode == 0:
                return f"10.77.{third}"
        raise RuntimeError(f"no free network among 10.77.0.0/24 … 10.77.49.0/24: {done.stderr.strip()}")

    def reboot(self, host: Host) -> None:
        """Shut the host down and start it again; its disk stays, what is in memory is lost."""
        _podman("stop", "--time", "60", host.container)
        _podman("start", host.container)
        _wait_until(lambda: host.shell("true").returncode == 0, f"{host.container}: no sshd after a reboot")

    def remove(self, host: Host) -> None:
        """Remove one host."""
        subprocess.run(["podman", "rm", "--force", "--time", "2", "--volumes", host.container], capture_output=True)
        self.made.remove(host.container)

    def close(self) -> None:
        """Remove all hosts and their network."""
        for container in self.made:
            subprocess.run(["podman", "rm", "--force", "--time", "2", "--volumes", container], capture_output=True)
        if self._subnet:
            subprocess.run(["podman", "network", "rm", self.network], capture_output=True)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    """Makes hosts, and removes them when the module's tests end."""
    maker = Hosts(tmp_path_factory.mktemp("ssh"))
    yield maker
    maker.close()


def _wait_until(condition: Callable[[], bool], otherwise: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{otherwise} within {seconds:.0f} s")
        time.sleep(0.3)


def _exec(container: str, command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["podman", "exec", "-i", container, "bash", "-c", command], input=stdin, capture_output=True, text=True
    )


def _authorise(container: str, public_key: str) -> bool:
    command = "install -d -m 0700 -o ubuntu ~ubuntu/.ssh && cat >~ubuntu/.ssh/authorized_keys"
    return _exec(container, f"{command} && chown -R ubuntu ~ubuntu/.ssh", public_key).returncode == 0


def _know(container: str, address: str, known: Path) -> bool:
    done = _exec(container, "cat /etc/ssh/ssh_host_ed25519_key.pub")
    known.write_text(f"{address} {done.stdout}")
    return done.returncode == 0
