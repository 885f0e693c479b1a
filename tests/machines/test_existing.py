"""Existing hosts: their connections follow the stack file, and all unusable key files are reported at once."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pulumi
import pytest

from components.machines.existing import Hosts, HostsArgs
from components.machines.machine import Machine
from components.spec.models import Lab
from engine.model import Deployment, ProgramError
from engine.run import run_program

# The head of an OpenSSH key file without a passphrase.
KEY = (
    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQ==\n"
    "-----END OPENSSH PRIVATE KEY-----\n"
)
HOST_KEYS = [f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOFBmAgNisWSMUt9Ik0yXc8dT9cHcAwz7MVL9I1SLpP{c}" for c in "ABC"]


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(KEY)
    path.chmod(0o600)
    return path


def existing_lab(machines: dict[str, Any] | None = None, *ssh: dict[str, Any]) -> Lab:
    """Three hosts. `ssh`: what is different for the first, the second and the third."""
    nodes = [
        {
            "name": f"host{i}",
            "role": "worker" if i else "control-plane",
            "subnet": "hosts",
            "address": f"192.168.56.1{i}",
            "ssh": {"hostKey": HOST_KEYS[i], **(ssh[i] if i < len(ssh) else {})},
        }
        for i in range(3)
    ]
    own = {"provider": "existing", "user": "vagrant", **(machines or {})}
    network = {"subnets": {"hosts": "192.168.56.0/24"}}
    return Lab.model_validate({"machines": own, "network": network, "nodes": nodes})


def deploy(lab: Lab, *, dry_run: bool = False) -> tuple[Deployment, dict[str, Machine]]:
    machines: dict[str, Machine] = {}

    def program() -> None:
        machines.update(Hosts("machines", HostsArgs(lab)).machines)
        pulumi.export("connections", {name: m.connection for name, m in machines.items()})
        pulumi.export("ids", {name: m.id for name, m in machines.items()})
        pulumi.export("apiHosts", {name: m.api_host for name, m in machines.items()})

    return run_program(program, dry_run=dry_run, timeout_seconds=60), machines


def test_connections_follow_the_stack_file(key: Path) -> None:
    lab = existing_lab(
        {"privateKeyFile": str(key), "port": 2200},
        {"user": "root", "hostKey": HOST_KEYS[0] + " root@somewhere"},
        {"address": "gateway.example", "port": 2022},
    )
    made, machines = deploy(lab)
    common = {"private_key": "<secret>", "dial_error_limit": 8, "per_dial_timeout": 15}
    connections = made.outputs["connections"]
    assert connections["host0"] == {
        **common, "host": "192.168.56.10", "port": 2200, "user": "root", "host_key": HOST_KEYS[0]
    }  # fmt: skip
    assert connections["host1"] == {
        **common, "host": "gateway.example", "port": 2022, "user": "vagrant", "host_key": HOST_KEYS[1]
    }  # fmt: skip
    assert connections["host2"]["host"] == "192.168.56.12"
    assert {name: m.root for name, m in machines.items()} == {"host0": True, "host1": False, "host2": False}
    assert all(m.resource is None for m in machines.values())
    assert [r.type for r in made.resources] == ["pulumi:pulumi:Stack", "cnilab:machines:ExistingMachines"]


def test_api_host_is_an_address_that_people_can_reach(key: Path) -> None:
    forwarded = [{"address": "127.0.0.1", "port": 2222}, {"address": "localhost"}, {"address": "198.51.100.4"}]
    made, _ = deploy(existing_lab({"privateKeyFile": str(key)}, *forwarded))
    assert made.outputs["apiHosts"] == {"host0": "192.168.56.10", "host1": "192.168.56.11", "host2": "198.51.100.4"}


def test_id_changes_only_with_the_host(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ids(*ssh: dict[str, Any]) -> dict[str, str]:
        found: dict[str, str] = deploy(existing_lab({"privateKeyFile": str(key)}, *ssh))[0].outputs["ids"]
        return found

    before = ids()
    assert len(set(before.values())) == 3
    assert ids({"address": "198.51.100.4", "user": "root", "hostKey": HOST_KEYS[0] + " a comment"}) == before
    after = ids({"hostKey": HOST_KEYS[0].replace("AAAAI", "AAAAJ")})
    assert {name for name in before if before[name] != after[name]} == {"host0"}


def test_a_jump_host_with_a_key_of_its_own(key: Path) -> None:
    missing = {"address": "bastion.example", "user": "ops", "privateKeyFile": str(key.with_name("gone"))}
    with pytest.raises(ProgramError, match=r"gone — does not exist.*for the jump host"):
        deploy(existing_lab({"privateKeyFile": str(key), "jumpHost": missing}))


def test_jump_host(key: Path) -> None:
    jump = {"address": "bastion.example", "user": "ops", "port": 2222, "hostKey": HOST_KEYS[2]}
    made, _ = deploy(existing_lab({"privateKeyFile": str(key), "jumpHost": jump}))
    for connection in made.outputs["connections"].values():
        assert connection["proxy"] == {
            "host": "bastion.example", "port": 2222, "user": "ops", "host_key": HOST_KEYS[2],
            "private_key": "<secret>", "dial_error_limit": 8, "per_dial_timeout": 15,
        }  # fmt: skip


def test_the_agent_is_used_when_no_key_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    made, _ = deploy(existing_lab())
    assert all("private_key" not in c for c in made.outputs["connections"].values())


def test_no_key_file_and_no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(ProgramError, match=r"privateKeyFile: none.*Fix: .*\(for host0, host1, host2\)"):
        deploy(existing_lab())
    deploy(existing_lab(), dry_run=True)


def test_home_is_expanded(key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(key.parent))
    made, _ = deploy(existing_lab({"privateKeyFile": "~/key"}))
    assert made.outputs["connections"]["host0"]["private_key"] == "<secret>"


def test_all_unusable_key_files_are_reported_at_once(tmp_path: Path, key: Path) -> None:
    open_to_all, public = tmp_path / "open", tmp_path / "key.pub"
    open_to_all.write_text(KEY)
    open_to_all.chmod(0o644)
    public.write_text(HOST_KEYS[0])
    public.chmod(0o600)
    lab = existing_lab(
        {"privateKeyFile": str(tmp_path / "absent")},
        {},
        {"privateKeyFile": str(open_to_all)},
        {"privateKeyFile": str(public)},
    )
    with pytest.raises(ProgramError) as caught:
        deploy(lab)
    absent, world, half = str(caught.value).splitlines()
    assert f"{tmp_path}/absent" in absent and "Fix: create it" in absent and "(for host0)" in absent
    assert "mode 0644" in world and f"Fix: chmod 600 {open_to_all}" in world and "(for host1)" in world
    assert "not a private key" in half and "(for host2)" in half
    assert HOST_KEYS[0] not in str(caught.value), "a message must not contain a file's content"


def test_a_folder_is_not_a_key(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match=r"cannot be read.*Fix"):
        deploy(existing_lab({"privateKeyFile": str(tmp_path)}))


def test_a_preview_needs_no_key(tmp_path: Path) -> None:
    made, _ = deploy(existing_lab({"privateKeyFile": str(tmp_path / "absent")}), dry_run=True)
    assert [m.severity for m in made.messages] == ["warning"]
    assert "absent" in made.messages[0].text and "up" in made.messages[0].text
    assert len(made.outputs["connections"]) == 3


def test_a_preview_refuses_a_key_that_others_can_read(key: Path) -> None:
    key.chmod(0o640)
    with pytest.raises(ProgramError, match="mode 0640"):
        deploy(existing_lab({"privateKeyFile": str(key)}), dry_run=True)


@pytest.mark.parametrize("form", [[], ["-m", "PEM", "-t", "rsa"]])
def test_a_key_with_a_passphrase_needs_the_agent(tmp_path: Path, form: list[str]) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("needs ssh-keygen")
    for name, passphrase in [("open", ""), ("locked", "passphrase")]:
        subprocess.run(["ssh-keygen", "-q", *form, "-N", passphrase, "-f", tmp_path / name], check=True)
    deploy(existing_lab({"privateKeyFile": str(tmp_path / "open")}))
    with pytest.raises(ProgramError, match=r"has a passphrase\. Fix: give it to an SSH agent"):
        deploy(existing_lab({"privateKeyFile": str(tmp_path / "locked")}))


@pytest.mark.parametrize(
    "content", [pytest.param(b"", id="empty"), pytest.param(b"\xff\xfe", id="not ASCII"), b"\0" * 9]
)
def test_content_that_is_not_a_key(key: Path, content: bytes) -> None:
    key.write_bytes(content)
    with pytest.raises(ProgramError, match="not a private key"):
        deploy(existing_lab({"privateKeyFile": str(key)}))


def test_a_home_of_an_unknown_user() -> None:
    with pytest.raises(ProgramError, match="Fix: write the path in full"):
        deploy(existing_lab({"privateKeyFile": "~nobody-of-that-name/key"}))
