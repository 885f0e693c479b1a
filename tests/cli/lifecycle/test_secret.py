"""`./lab secret` encrypts a password with the pulumi CLI, and `up` needs it."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import yaml

from cli import project
from cli.errors import USAGE, CommandError
from cli.lifecycle import secret
from cli.lifecycle.deploy import run
from tests.cli.lifecycle import test_deploy

home, calls = test_deploy.home, test_deploy.calls

LAB = """config:
  cni-lab:lab:
    machines: {provider: local}
    calico:
      bgp: Enabled
      peers: [{name: tor, peerIP: 10.0.1.1, asNumber: 65001, password: {config: torPassword}}]
"""
# `config set` writes what it gets on stdin, as the real one writes its encrypted form.
PULUMI = """#!/bin/sh
case $* in "stack output"*) exit 1 ;; version) echo v999.0.0; exit ;; esac
printf '%s\\n' "$*" >>"$CALLS"
case $* in "config set"*)
  printf '  cni-lab:torPassword: {secure: v1:%s}\\n' "$(cat | tr a-z n-za-m)" >>"${8}" ;;
esac
"""


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Path, calls: Path) -> Path:
    """The file of the stack `mine`, with a pulumi that records its calls."""
    (tmp_path / "stacks").mkdir()
    path = tmp_path / "stacks" / "Pulumi.mine.yaml"
    path.write_text(LAB)
    monkeypatch.setattr(project, "ROOT", tmp_path)
    (tmp_path / "bin" / "pulumi").write_text(PULUMI)
    return path


def give(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))


def test_every_password_that_lacks_is_named(stack: Path) -> None:
    peers = "".join(
        f"        - {{name: {name}, peerIP: 10.0.1.{n}, asNumber: 65001, password: {{config: {name}Password}}}}\n"
        for n, name in enumerate(("tor", "spare"), 1)
    )
    stack.write_text(LAB.partition("peers:")[0] + "peers:\n" + peers)
    with pytest.raises(CommandError) as caught:
        run("up", "mine", ["--yes"])
    assert str(caught.value) == (
        "calico.peers: torPassword, sparePassword — no password yet: "
        "run ./lab secret mine torPassword, then ./lab secret mine sparePassword"
    )


def test_a_password_goes_from_stdin_into_the_copy(
    stack: Path,
    home: Path,
    calls: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(CommandError, match=r"torPassword — no password yet: run \./lab secret mine torPassword") as no:
        run("up", "mine", ["--yes"])
    assert no.value.code == USAGE
    give(monkeypatch, "open sesame\n")
    assert secret.run("mine", "torPassword") == 0
    copy = home / "config" / "Pulumi.mine.yaml"
    assert yaml.safe_load(copy.read_text())["config"]["cni-lab:torPassword"] == {"secure": "v1:bcra frfnzr"}
    assert run("up", "mine", ["--yes", "--diff"]) == 0, "the next up keeps it, although the stack file does not have it"
    assert yaml.safe_load(copy.read_text())["config"]["cni-lab:torPassword"] == {"secure": "v1:bcra frfnzr"}
    assert "open sesame" not in calls.read_text() + capsys.readouterr().out
    assert stack.read_text() == LAB


@pytest.mark.parametrize(
    ("key", "text", "problem"),
    [
        ("torPassword", "", "is empty"),
        ("torPassword", 'with "quotes"', "double quote"),
        ("torPassword", "two\nlines", "unprintable"),
        ("torPassword", "x" * 81, "longer than the 80 bytes"),
        ("other", "x", r"is not a password that Pulumi\.mine\.yaml names \(it names torPassword\)"),
    ],
)
def test_what_is_refused(
    stack: Path,
    calls: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    text: str,
    problem: str,
) -> None:
    give(monkeypatch, text)
    with pytest.raises(CommandError, match=problem) as error:
        secret.run("mine", key)
    assert error.value.code == USAGE
    assert not calls.exists()
