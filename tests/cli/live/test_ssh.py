"""`./lab ssh`: the real ssh to real sshds, also through a jump host; no file and no process is left."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from cli.live import ssh
from components.verify.read.ssh import Jump, SshAccess
from tests.support.cli import lab
from tests.support.graphs import ROOT
from tests.support.signals import default_signals
from tests.verify import replica_labs as labs
from tests.verify.replica import Replica, standing

FIRST, WORKER = "ip1001100", "ip-10-0-2-200"
KEY = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n"
PLAIN = SshAccess("node1", "192.0.2.7", 22, "ubuntu", KEY, "ssh-ed25519 AAAA", None)


@pytest.fixture(scope="module")
def replica() -> Iterator[Replica]:
    with standing(labs.EGRESS, system_pods=False) as it:
        yield it


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for the files of a connection. Its name has characters that are special in ssh_config(5)."""
    folder = tmp_path / "a %h b"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def answers(monkeypatch: pytest.MonkeyPatch, outputs: dict[str, Any]) -> None:
    monkeypatch.setattr(ssh, "chosen_outputs", lambda _stack, sandbox: outputs)


def test_a_command_runs_on_its_node_and_returns_its_exit_code(
    replica: Replica, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    answers(monkeypatch, replica.outputs)
    assert lab("ssh", "local", WORKER, "--", "hostname; echo $((6 * 7)); exit 7") == 7
    assert capfd.readouterr().out.split() == [WORKER, "42"]
    # Without `--` the options belong to the remote command too, and not to ssh.
    assert lab("ssh", "local", WORKER, "ip", "-o", "-4", "address") == 0
    assert "10.0.2.200/24" in capfd.readouterr().out
    assert list(place.iterdir()) == []


def test_through_a_jump_host(replica: Replica, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    entry = SshAccess.of(FIRST, replica.access[FIRST])
    jump = Jump(entry.host, entry.port, entry.user, entry.private_key, entry.host_key)
    behind = SshAccess.of(WORKER, replica.access[WORKER] | {"host": "10.0.2.200", "port": 22})
    assert ssh.connect(replace(behind, jump=jump), ["hostname"]) == 0
    assert capfd.readouterr().out.strip() == WORKER
    other = replica.access["ip-10-0-2-201"]["hostKey"]
    assert ssh.connect(replace(behind, jump=replace(jump, host_key=other)), ["hostname"]) == 255
    assert "Host key verification failed" in capfd.readouterr().err
    assert ssh.connect(replace(behind, jump=replace(jump, host_key=None)), ["hostname"]) == 0
    assert list(place.iterdir()) == []


def test_another_host_key_is_refused(replica: Replica, place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    access = SshAccess.of(FIRST, replica.access[FIRST] | {"hostKey": replica.access[WORKER]["hostKey"]})
    assert ssh.connect(access, ["hostname"]) == 255
    said = capfd.readouterr()
    assert said.out == "" and "Host key verification failed" in said.err


def test_the_agent_is_used_without_a_key(
    replica: Replica, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    access = SshAccess.of(FIRST, replica.access[FIRST])
    key = tmp_path / "key"
    key.touch(0o600)
    key.write_text(str(access.private_key))
    socket = tmp_path / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        for _ in range(100):
            if socket.exists():
                break
            time.sleep(0.05)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(socket))
        asked = replace(access, private_key=None)
        assert ssh.connect(asked, ["true"]) == 255
        assert "Permission denied" in capfd.readouterr().err
        subprocess.run(["ssh-add", "-q", str(key)], check=True)
        assert ssh.connect(asked, ["true"]) == 0
    finally:
        agent.terminate()
        agent.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_no_key_and_no_process(replica: Replica, place: Path, number: int) -> None:
    access = asdict(SshAccess.of(FIRST, replica.access[FIRST]))
    call = f"connect(SshAccess(**{access!r}), ['echo up; sleep 60'])"
    imports = "import sys; from cli.live.ssh import *; from components.verify.read.ssh import *"
    program = f"{imports}; sys.exit({call})"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=ROOT, env=os.environ | {"TMPDIR": str(place)}, stdout=subprocess.PIPE, preexec_fn=default_signals,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == b"up\n"
    [folder] = place.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / f"{FIRST}.key").stat().st_mode) == 0o600
    arguments = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    [ssh_itself] = [words for words in arguments if words.startswith(b"ssh\0") and str(folder).encode() in words]
    assert b"PRIVATE" not in ssh_itself
    process.send_signal(number)
    process.wait(20)
    assert process.returncode in (128 + number, 255)
    assert list(place.iterdir()) == []


def test_the_users_own_ssh_settings_do_not_matter(tmp_path: Path) -> None:
    """As ssh itself reads the files."""
    jump = Jump("jump.example", 2222, "me", None, None)
    config = ssh.write_files(tmp_path, replace(PLAIN, jump=jump))
    read = {}
    for name in ("node1", "node1.jump"):
        done = subprocess.run(["ssh", "-G", "-F", str(config), "--", name], capture_output=True, text=True, check=True)
        read[name] = dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)
    assert read["node1"] | {
        "hostname": "192.0.2.7", "user": "ubuntu", "stricthostkeychecking": "true", "identitiesonly": "yes",
        "identityagent": "none", "identityfile": str(tmp_path / "node1.key"),
        "userknownhostsfile": str(tmp_path / "node1.known"), "globalknownhostsfile": "/dev/null",
        "hostkeyalias": "node1",
    } == read["node1"]  # fmt: skip
    assert read["node1.jump"]["hostname"] == "jump.example" and read["node1.jump"]["port"] == "2222"
    assert read["node1"]["proxycommand"].endswith("-- node1.jump") and "proxycommand" not in read["node1.jump"]
    assert read["node1.jump"]["identitiesonly"] == "no"
    assert "PRIVATE" not in config.read_text()


@pytest.mark.parametrize(
    ("outputs", "node", "words"),
    [
        ({"access": {FIRST: {}, WORKER: {}}}, "worker1", rf"local has no node 'worker1'; it has: {FIRST}, {WORKER}"),
        ({}, FIRST, r"the lab local is not up: .* Run `\./lab up local`"),
    ],
)
def test_a_node_that_does_not_exist(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    outputs: dict[str, Any],
    node: str,
    words: str,
) -> None:
    answers(monkeypatch, outputs)
    assert lab("ssh", "local", node) == 2
    assert re.fullmatch(rf"lab ssh: {words}\n", capsys.readouterr().err)


def test_an_unknown_stack_and_no_ssh(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab("ssh", "loca", FIRST) == 2
    assert "stacks/ has: " in capsys.readouterr().err
    entry = {"host": "192.0.2.7", "port": 22, "user": "root", "privateKey": KEY, "hostKey": "ssh-ed25519 AAAA"}
    answers(monkeypatch, {"access": {FIRST: entry}})
    monkeypatch.setenv("PATH", "/nowhere")
    assert lab("ssh", "local", FIRST) == 3
    assert capsys.readouterr().err == "lab ssh: ssh is not on PATH: install OpenSSH's client\n"
