"""Where the tests that need a virtual machine run, and why they skip elsewhere. No machine is started."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.vm import machine


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a stamp as build.sh leaves it, on a computer with qemu."""
    programs, folder = tmp_path / "bin", tmp_path / "vm"
    programs.mkdir()
    folder.mkdir()
    (programs / machine.QEMU).write_text("#!/bin/sh\nexit 1\n")
    (programs / machine.QEMU).chmod(0o755)
    stamp = subprocess.run([machine.HERE / "stamp.sh"], capture_output=True, text=True, check=True, timeout=60).stdout
    (folder / "stamp").write_text(stamp)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("CNILAB_VM", str(folder))
    return folder


def test_a_disk_and_qemu_are_enough(disk: Path) -> None:
    assert machine.missing() is None
    assert machine.unasked() is None


def test_without_qemu(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert machine.missing() == "qemu-system-x86_64 is not installed (apt-get install qemu-system-x86)"


def test_without_a_disk(disk: Path) -> None:
    (disk / "stamp").unlink()
    assert machine.missing() == f"{disk} has no disk of a virtual machine: run tests/vm/build.sh"


def test_with_a_disk_of_other_files(disk: Path) -> None:
    (disk / "stamp").write_text("0\n")
    assert machine.missing() == f"the disk in {disk} was made from other files than these: run tests/vm/build.sh"


@pytest.mark.parametrize("kvm", [True, False])
def test_in_software_only_when_asked(kvm: bool, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "has_kvm", lambda: kvm)
    assert machine.unasked() is None
    monkeypatch.delenv("CNILAB_VM")
    assert (machine.unasked() is None) == kvm


def test_a_machine_that_does_not_start_is_no_result(disk: Path) -> None:
    result = machine.run("true", timeout_seconds=1)
    assert result.code is None
