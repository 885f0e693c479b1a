"""What the operating system refuses is one line and an exit code, whatever the command."""

from __future__ import annotations

import errno
import os
import pwd
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import main, project
from cli.errors import MISSING
from components.system_errors import system_message

COMMANDS = [
    ["plan", "local", "--out", "FILE/deeper"],
    ["verify", "local"],
    ["walk", "local", "a", "b"],
    ["addresses", "local"],
    ["kubeconfig", "local"],
    ["ssh", "local", "ip1001100"],
    ["mend", "local"],
    ["preview", "local"],
    ["up", "local", "--yes"],
    ["destroy", "local", "--yes"],
    ["sandbox", "local"],
    ["sandbox", "--list"],
    ["list"],
    ["status", "local"],
    ["env", "local"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_home_that_is_no_folder_is_one_line(
    command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`.lab` is a file, and so is a folder on the way to --out: refused for root too, unlike a missing permission."""
    file = tmp_path / "file"
    file.write_text("not a folder")
    monkeypatch.setattr(project, "HOME", file)
    pulumi = tmp_path / "bin/pulumi"
    pulumi.parent.mkdir()
    pulumi.write_text("#!/bin/sh\nexit 0\n")
    pulumi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{pulumi.parent}:{os.environ['PATH']}")
    result = CliRunner().invoke(main.app, [word.replace("FILE", str(file)) for word in command])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    if command not in (["sandbox", "--list"], ["list"], ["status", "local"], ["destroy", "local", "--yes"]):
        assert result.exit_code in (1, 2, 3) and "lab " in result.stderr, result.output


def test_a_folder_of_roots_names_the_fix() -> None:
    error = PermissionError(errno.EACCES, "Permission denied", "/srv/lab/file")
    assert system_message(error).startswith("/srv/lab/file: Permission denied. If a command that ran with sudo made it")
    assert system_message(OSError(errno.ENOSPC, "No space left on device", "/x")) == "/x: No space left on device"
    assert system_message(OSError("odd")) == "OSError" and MISSING == 3


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, as sudo gives it")
def test_what_sudo_made_is_given_to_the_user_who_typed_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    user = pwd.getpwnam("nobody")
    home = tmp_path / ".lab"
    for path in ("state/deep/file", "sandbox/mine/root/etc/passwd"):
        (home / path).parent.mkdir(parents=True)
        (home / path).touch()
    (home / "link").symlink_to("/etc/passwd")
    monkeypatch.setattr(project, "HOME", home)
    monkeypatch.setenv("SUDO_UID", str(user.pw_uid))
    monkeypatch.setenv("SUDO_GID", str(user.pw_gid))
    project.give_to_sudo_user()
    assert {p.lstat().st_uid for p in (home, home / "link", home / "state/deep/file")} == {user.pw_uid}
    assert (home / "sandbox/mine/root/etc/passwd").stat().st_uid == 0
    assert Path("/etc/passwd").stat().st_uid == 0
