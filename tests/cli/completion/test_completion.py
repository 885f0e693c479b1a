"""Completion in real shells: bash always, zsh and fish where they are installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from cli.completion.command import Shell, script
from tests.support.cli import needs_venv
from tests.support.graphs import ROOT, STACKS

NODES = ["ip-10-0-2-200", "ip-10-0-2-201", "ip1001100"]


def needs(shell: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(shell) is None, reason=f"{shell} is not installed")


def run(command: list[str]) -> list[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("_LAB_")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return sorted(line for line in done.stdout.splitlines() if line)


def in_bash(line: str) -> list[str]:
    """What bash would offer behind this line: its own variables are set as readline sets them."""
    program = f"""{script(Shell.bash)}
COMP_LINE=$1 COMP_POINT=${{#1}}
complete -p lab >/dev/null
_cni_lab_completion
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    return run(["bash", "--norc", "-c", program, "bash", line])


@needs_venv
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("./lab compl", ["completion"]),
        ("./lab verify ", STACKS),
        ("./lab verify cr", ["cross-node"]),
        ("./lab ssh cfos-egress ", NODES),
        ("./lab walk cross-node mult", ["multitool", *(f"multitool@{n}" for n in ("control1", "worker1", "worker2"))]),
        # bash has the part before the @ already, and replaces what follows.
        ("./lab walk cross-node multitool multitool@work", ["worker1", "worker2"]),
        ("./lab break cfos-egress firewall-", ["firewall-drops", "firewall-gone"]),
        # A lab without a firewall cannot lose it.
        ("./lab break cross-node firewall-", []),
        ("./lab break cfos-egress --node ip1", ["ip1001100"]),
        ("./lab verify local --j", ["--json", "--junit"]),
        ("./lab completion ", ["bash", "fish", "zsh"]),
        ("./lab help addr", ["addresses"]),
        ("./lab new mine --from loc", ["local"]),
        ("./lab walk nosuch ", []),
    ],
)
def test_bash(line: str, offered: list[str]) -> None:
    assert in_bash(line) == sorted(offered)


@needs_venv
@needs("zsh")
def test_zsh(tmp_path: Path) -> None:
    """zsh completes only at a prompt, so `_arguments` is replaced by one that prints what it would offer."""
    program = f"""
compdef() {{ registered=$2 }}
_arguments() {{ print -r -- "$@" }}
_files() {{ print files }}
{script(Shell.zsh)}
[[ $registered == lab ]] || exit 9
words=(./lab ssh cfos-egress '') CURRENT=4
_cni_lab_completion
"""
    text = "\n".join(run(["zsh", "-f", "-c", program]))
    assert all(f'"{node}":' in text for node in NODES) and "worker, 10.0.2.200" in text


@needs_venv
@needs("zsh")
def test_zsh_accepts_what_it_loads(tmp_path: Path) -> None:
    run(["zsh", "-f", "-c", f"autoload -Uz compinit && compinit -D -d {tmp_path}/dump -u && {script(Shell.zsh)}"])


@needs_venv
@needs("fish")
@pytest.mark.parametrize(
    ("line", "offered"),
    [("./lab sandb", ["sandbox"]), ("./lab verify cr", ["cross-node"]), ("./lab ssh cfos-egress ", NODES)],
)
def test_fish(line: str, offered: list[str], tmp_path: Path) -> None:
    program = f'{script(Shell.fish)}\ncomplete --do-complete "{line}"'
    found = run(["env", f"HOME={tmp_path}", "fish", "--no-config", "-c", program])
    assert [text.split("\t")[0] for text in found] == offered


def test_a_path_with_a_blank_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.project.ROOT", Path("/home/a user/cni-lab"))
    for shell in Shell:
        assert "'/home/a user/cni-lab/lab'" in script(shell)


def test_tab_never_installs_anything(tmp_path: Path) -> None:
    """In a fresh clone the first TAB must not start the installation of .venv."""
    for name in ("lab", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    done = subprocess.run(
        [tmp_path / "lab"],
        env=os.environ | {"_LAB_COMPLETE": "complete_bash", "COMP_WORDS": "lab ", "COMP_CWORD": "1"},
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / ".venv").exists()
