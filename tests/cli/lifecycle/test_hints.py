"""Hints about hosts that SSH cannot reach, also with pulumi itself where it is installed."""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli import project
from cli.lifecycle.hints import hints, meaning_of
from tests.support.cli import lab as lab_command
from tests.support.graphs import ROOT

# A message of pulumi-command 1.2.1.
DIAL = "after 8 failed attempts: dial tcp 192.168.56.10:22: connect: connection refused\n"
REFUSED = (
    "after 8 failed attempts: ssh: handshake failed: ssh: unable to authenticate, attempted methods [none publickey], "
    "no supported methods remain\n"
)
MISMATCH = "after 8 failed attempts: ssh: handshake failed: ssh: host key mismatch\n"


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (DIAL, "it does not answer at 192.168.56.10:22. Fix: start it"),
        (DIAL.replace("connect: connection refused", "i/o timeout"), "it does not answer at 192.168.56.10:22"),
        (f"proxy: {DIAL}", "the jump host does not answer at 192.168.56.10:22"),
        ("after 8 failed attempts: dial tcp: lookup a.invalid on 192.0.2.53:53: no such host", "the name a.invalid"),
        (MISMATCH, "it shows another host key than the pinned one. Fix: if it is the right machine"),
        (f"proxy: {MISMATCH}", "it, or the jump host, shows another host key"),
        (REFUSED, "it refuses the key. Fix: add the public half"),
        (f"proxy: {REFUSED}", "it, or the jump host, refuses the key"),
        (
            "proxy: after 8 failed attempts: ssh: rejected: administratively prohibited (open failed)",
            "the jump host does not forward connections. Fix: set AllowTcpForwarding yes",
        ),
        (
            "proxy: after 8 failed attempts: ssh: rejected: connect failed (Connection refused)",
            "the jump host cannot reach it",
        ),
    ],
)
def test_each_failure_has_its_fix(message: str, words: str) -> None:
    meaning = meaning_of(message)
    assert meaning is not None and words in meaning and meaning.endswith("; then run the same command again")


def test_errors_of_scripts_get_no_hint() -> None:
    said = "cni-lab: error: after 3 failed attempts: dial tcp 192.0.2.1:6443: i/o timeout"
    assert meaning_of(f'Process exited with status 1: running "sudo -n timeout 900 bash -s":\n{said}\n') is None


def test_no_event_log_no_hints(tmp_path: Path) -> None:
    assert hints(tmp_path / "absent") == []


@dataclass
class Daemon:
    """An sshd of this user, which accepts `key` and forwards no connections."""

    folder: Path
    port: int
    key: Path
    host_key: str


def answers(port: int) -> bool:
    """Whether a program of this computer listens there."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    plugins = (f"pulumi-resource-{name}" for name in ("command", "kubernetes", "random", "tls"))
    for tool in ("pulumi", *plugins, "ssh-keygen"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not on the PATH")
    if sshd is None:
        pytest.skip("sshd is not installed")
    for name in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    lines = [
        "ListenAddress 127.0.0.1", f"Port {port}", f"HostKey {tmp_path}/host", f"AuthorizedKeysFile {tmp_path}/key.pub",
        "PidFile none", "StrictModes no", "PasswordAuthentication no", "AllowTcpForwarding no",
    ]  # fmt: skip
    (tmp_path / "sshd").write_text("\n".join(lines) + "\n")
    if os.geteuid() == 0:  # Debian's sshd.service makes it, and may never have run here
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    process = subprocess.Popen([sshd, "-D", "-f", str(tmp_path / "sshd"), "-E", str(tmp_path / "log")])
    deadline = time.monotonic() + 30
    while not answers(port):
        assert process.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
        time.sleep(0.05)
    public = (tmp_path / "host.pub").read_text()
    yield Daemon(tmp_path, port, tmp_path / "key", " ".join(public.split()[:2]))
    process.terminate()
    process.wait()


@pytest.mark.timeout(300)
def test_a_jump_host_that_forwards_nothing_is_named_with_its_fix(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """From the stack file through program, pulumi, provider and sshd to the message."""
    root = daemon.folder / "project"
    (root / "stacks").mkdir(parents=True)
    for name in ("components", "engine", "cli", "policy", "__main__.py"):
        (root / name).symlink_to(ROOT / name)
    (root / "Pulumi.yaml").write_text("name: cni-lab\nruntime: python\nstackConfigDir: stacks\n")
    lab = {
        "machines": {
            "provider": "existing",
            "user": getpass.getuser(),
            "privateKeyFile": str(daemon.key),
            "jumpHost": {
                "address": "127.0.0.1", "port": daemon.port, "user": getpass.getuser(), "hostKey": daemon.host_key
            },
        },
        "network": {"subnets": {"hosts": "192.0.2.0/24"}},
        "nodes": [
            {"name": "host1", "role": "control-plane", "subnet": "hosts", "address": "192.0.2.10",
             "ssh": {"hostKey": daemon.host_key}},
        ],
        # As if a VPN led there: without SSH no step comes this far.
        "kubernetes": {"controlPlaneEndpoint": "192.0.2.10:6443"},
    }  # fmt: skip
    (root / "stacks" / "Pulumi.jump.yaml").write_text(json.dumps({"config": {"cni-lab:lab": lab}}))
    monkeypatch.setattr(project, "ROOT", root)
    monkeypatch.setattr(project, "HOME", root / ".lab")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    for name in ("PULUMI_BACKEND_URL", "PULUMI_STACK"):
        monkeypatch.delenv(name, raising=False)
    assert lab_command("up", "jump", "--yes", "--skip-preview", "--policy-pack=") != 0
    said = re.findall(r"^lab up: .*", capfd.readouterr().err, re.MULTILINE)
    assert said == [
        "lab up: host1: the jump host does not forward connections. Fix: set AllowTcpForwarding yes in its "
        "sshd_config, or take another jump host; then run the same command again"
    ]
