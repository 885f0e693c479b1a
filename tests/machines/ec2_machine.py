"""A systemd host that boots as an EC2 instance does. cloud-init reads the user data of a lab from a stand-in for the
metadata service at 169.254.169.254; the host key comes from a stand-in for Parameter Store.

CNILAB_HOST_IMAGE is the host. Debian's cloud-init is installed in a copy of it, once.
"""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import pytest

from components.machines.aws.instances import user_data
from tests.node.conftest import HOST_IMAGE, LABEL, Host, Hosts, require_image
from tests.support.ec2_services import SSM_HOST, Services, metadata

NODE = "w1"
_RUN = ("--runtime", "runc", "--ulimit", "nofile=10000:10000", "--ulimit", "nproc=10000:10000")
INSTALL = """
set -e
export DEBIAN_FRONTEND=noninteractive
# An AMI has no host keys and no user; nothing but cloud-init makes them.
systemctl disable host-keys.service || true
rm -f /etc/ssh/ssh_host_*
if id ubuntu >/dev/null 2>&1; then userdel --remove ubuntu; fi
rm -f /etc/sudoers.d/*ubuntu*
apt-get update -qq
apt-get install -y -qq --no-install-recommends cloud-init
apt-get clean
"""
# What the AMI's maker sets: the datasource, and the default user, who gets the key pair's public key. The network is
# podman's.
CLOUD = """\
datasource_list: [Ec2]
datasource: {Ec2: {strict_id: false, timeout: 10, max_wait: 60}}
network: {config: disabled}
locale: C.UTF-8
apt: {preserve_sources_list: true}
system_info:
  default_user: {name: ubuntu, lock_passwd: true, shell: /bin/bash, sudo: ["ALL=(ALL) NOPASSWD:ALL"]}
"""
# Requests to the services' well-known places go to this computer, and nothing goes anywhere else.
UNIT = """\
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/iptables -A OUTPUT ! -o lo ! -d {network} -j REJECT
ExecStart=/usr/sbin/iptables -t nat -A OUTPUT -d 169.254.169.254 -p tcp --dport 80 -j DNAT --to {here}:{imds}
ExecStart=/usr/sbin/iptables -t nat -A OUTPUT -d {here} -p tcp --dport 443 -j DNAT --to {here}:{ssm}
"""
AFTER_UNIT = """\
[Unit]
Requires=ec2-services.service
After=ec2-services.service
"""


def cloud_image() -> str:
    """The host image with cloud-init; made at the first call. Skips the test where it cannot be made."""
    require_image(HOST_IMAGE)
    source = podman("image", "inspect", "--format", "{{.Id}}", HOST_IMAGE)
    tag = f"{source[:12]}-{hashlib.sha256(INSTALL.encode()).hexdigest()[:6]}"
    image = f"localhost/cni-lab-test-cloud-init:{tag}"
    if subprocess.run(["podman", "image", "exists", image]).returncode == 0:
        return image
    container = f"cni-lab-test-cloud-init-{tag}"
    make = ["podman", "run", "--replace", "--name", container, "--label", LABEL, "--network", "host", *_RUN, HOST_IMAGE]
    try:
        done = subprocess.run([*make, "bash", "-c", INSTALL], capture_output=True, text=True, timeout=900)
        if done.returncode:
            pytest.skip(f"cloud-init cannot be installed in {HOST_IMAGE}: {done.stderr.strip()[-300:]}")
        podman("commit", "--change", 'CMD ["/sbin/init"]', "--change", "STOPSIGNAL SIGRTMIN+3", container, image)
    finally:
        subprocess.run(["podman", "rm", "--force", container], capture_output=True)
    return image


def podman(*arguments: str, stdin: str | None = None) -> str:
    done = subprocess.run(["podman", *arguments], input=stdin, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, f"podman {' '.join(arguments)}: {done.stderr.strip()}"
    return done.stdout.strip()


@dataclass(frozen=True)
class Machine:
    """One instance. `host` reaches it as a lab does: with the host key that is pinned before the machine exists."""

    host: Host
    services: Services

    def start(self) -> None:
        podman("start", self.host.container)

    def cut(self) -> None:
        """Take the power away."""
        # On a loaded computer podman itself may not wait long enough for the end.
        subprocess.run(["podman", "kill", "--signal", "KILL", self.host.container], capture_output=True)
        state = ("container", "inspect", "--format", "{{.State.Status}}", self.host.container)
        wait_until(lambda: podman(*state) == "exited", lambda: f"the machine is {podman(*state)}", 120)

    def inside(self, command: str) -> str:
        """The output of a command line, read without SSH."""
        return podman("exec", self.host.container, "bash", "-c", command)

    def wait_for_ssh(self, seconds: float = 400) -> None:
        """Until a login with the pinned host key succeeds, and cloud-init is done."""
        wait_until(lambda: self.host.shell("cloud-init status --wait >/dev/null; true").returncode == 0,
                   lambda: self.why(), seconds)  # fmt: skip

    def why(self) -> str:
        """What the machine says about a boot that does not come to its end."""
        return self.inside(
            "cloud-init status --long; tail -n 30 /var/log/cloud-init-output.log; ls -l /etc/ssh; "
            "systemctl --failed --no-pager; journalctl -u ssh -n 20 --no-pager; cat /run/nologin; true"
        )

    def state(self) -> str:
        """What every first boot leaves, whatever happened on the way."""
        return self.host.read(
            "ls /etc/ssh/ssh_host_* /etc/ssh/.cni-lab* 2>&1; sha256sum /etc/ssh/ssh_host_*; stat -c '%a %U %n' "
            "/etc/ssh/ssh_host_*; hostname; cat /etc/hostname; id ubuntu; cat ~ubuntu/.ssh/authorized_keys; "
            "ls /var/lib/cloud/instance/cni-lab-host-key; ls /run/nologin 2>&1; systemctl is-active ssh; "
            "ssh-keyscan -t rsa,ecdsa,ed25519 127.0.0.1 2>/dev/null | sort"
        )


class Machines:
    """Makes instances on a network of their own, and removes all of it. All are the node NODE, with the same keys, so
    that their states can be compared."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._hosts = folder, Hosts(folder)
        self._made: list[Machine] = []
        for key in ("login", "host"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", key, "-f", folder / key], check=True)

    def make(self, files: Mapping[str, str] = MappingProxyType({})) -> Machine:
        """An instance that has never booted. `files`: programs that its disk has besides."""
        image = cloud_image()
        serial = len(self._made)
        folder = self._folder / str(serial)
        folder.mkdir()
        # The network is made at the first call, and the gateway's address when the first container is on it.
        here, address = self._hosts.address(1), self._hosts.address(10 + serial)
        container = f"{self._hosts.network}-{serial}"
        self._hosts.made.append(container)
        podman(
            "create", "--name", container, "--label", LABEL, "--privileged", "--systemd=always", *_RUN,
            "--pids-limit=-1", "--network", self._hosts.network, "--ip", address, "--add-host", f"{SSM_HOST}:{here}",
            "--volume", "/var/lib/containers", image,
        )  # fmt: skip
        podman("init", container)
        role, place = f"cni-lab-{NODE}-0a1b2c", f"/cni-lab/test/{NODE}/ssh-host-key"
        tree = metadata(f"i-{serial:017x}", role, address, (self._folder / "login.pub").read_text().strip())
        services = Services(here, folder, tree, user_data(NODE, place))
        services.parameters[f"{place}/{role}"] = (self._folder / "host").read_text()
        self._copy(container, folder, "/etc/cloud/cloud.cfg.d/99-ec2.cfg", CLOUD)
        ports = {"imds": services.imds.server_port, "ssm": services.ssm.server_port}
        unit = UNIT.format(here=here, network=f"{here}/24", **ports)
        self._copy(container, folder, "/etc/systemd/system/ec2-services.service", unit)
        for stage in ("cloud-init-local", "cloud-init"):
            self._copy(container, folder, f"/etc/systemd/system/{stage}.service.d/ec2-services.conf", AFTER_UNIT)
        self._copy(container, folder, "/usr/lib/ssl/cert.pem", services.certificate)
        for path, text in files.items():
            self._copy(container, folder, path, text, 0o755)
        known = folder / "known_hosts"
        known.write_text(f"{address} {(self._folder / 'host.pub').read_text()}")
        ssh = (
            "ssh", "-i", str(self._folder / "login"), "-o", f"UserKnownHostsFile={known}",
            "-o", "StrictHostKeyChecking=yes", "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=5",
            "-o", "LogLevel=ERROR", "-o", "BatchMode=yes", f"ubuntu@{address}",
        )  # fmt: skip
        made = Machine(Host(NODE, container, address, ssh), services)
        self._made.append(made)
        return made

    def remove(self, machine: Machine) -> None:
        machine.services.close()
        self._hosts.remove(machine.host)

    def here(self) -> str:
        """This computer, as the machines see it."""
        return self._hosts.address(1)

    def _copy(self, container: str, folder: Path, path: str, text: str, mode: int = 0o644) -> None:
        """Put a file into a container that has not started."""
        root = folder / "files"
        draft = root / path.lstrip("/")
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(text)
        draft.chmod(mode)
        podman("cp", f"{root}/.", f"{container}:/")

    def close(self) -> None:
        for machine in self._made:
            if machine.host.container in self._hosts.made:
                machine.services.close()
        self._hosts.close()


def wait_until(condition: Callable[[], bool], otherwise: Callable[[], str], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {otherwise()}"
        time.sleep(0.5)
