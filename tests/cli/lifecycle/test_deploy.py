"""preview, up and destroy give the right program, state and stack file to the pulumi CLI."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import urllib.error
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli import project
from cli.doctor import command as doctor
from cli.doctor import local
from cli.doctor.model import Answer
from cli.errors import USAGE, CommandError
from cli.lifecycle import deploy, local_machines
from cli.lifecycle.backend import Backend
from cli.lifecycle.deploy import run
from cli.lifecycle.ec2_machines import Ec2State, Instance
from cli.lifecycle.pulumi_cli import find_pulumi, select
from cli.live.stack import is_known_absent
from components.spec.findings import SpecError
from components.spec.load import load_stack_file, parse_lab
from components.spec.notes import Note
from tests.support.cli import lab
from tests.support.graphs import ROOT
from tests.support.plugins import skip_without_plugins

# A lab that is not up has no outputs.
RECORDER = """#!/bin/sh
case $* in "stack output"*) exit 1 ;; version) echo v999.0.0; exit ;; esac
case $* in "stack export"*) echo '{"deployment": null}' && exit ;; esac
printf '%s\\n' "$PWD|$PULUMI_BACKEND_URL|$*" >>"$CALLS"
case $* in "stack select"*) ;; *) exit 0 ;; esac
[ -e Pulumi.local.yaml ] || echo 'encryptionsalt: v1:abc' >Pulumi.local.yaml
"""
# As a shell says it: 128 and the signal.
KILLED = 128 + signal.SIGKILL


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `.lab` for this test alone, without the caller's Pulumi settings."""
    monkeypatch.setattr(project, "HOME", tmp_path / ".lab")
    for name in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / ".lab"


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The state may have every stack: what is certainly not there is never destroyed."""
    monkeypatch.setattr(deploy, "is_known_absent", lambda stack: False)


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pulumi on PATH that records its calls: folder|backend|arguments."""
    program = tmp_path / "bin" / "pulumi"
    program.parent.mkdir()
    program.write_text(RECORDER)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


def test_up_uses_its_own_state_and_does_not_change_the_stack_file(home: Path, calls: Path) -> None:
    original = (ROOT / "stacks" / "Pulumi.local.yaml").read_text()
    assert run("up", "local", ["--yes", "--diff"]) == 0
    select, up = (line.split("|") for line in calls.read_text().splitlines())
    assert select[0] == str(home / "config") and up[0] == str(ROOT)
    assert up[1] == (home / "state").as_uri()
    copy = home / "config" / "Pulumi.local.yaml"
    assert (
        re.sub(r" --event-log \S+", "", up[2])
        == f"up --stack local --config-file {copy} --policy-pack {ROOT / 'policy'} --yes --diff"
    )
    written = yaml.safe_load(copy.read_text())
    assert written["encryptionsalt"] == "v1:abc", "what the CLI wrote there must stay"
    assert written["config"] == yaml.safe_load(original)["config"]
    assert (ROOT / "stacks" / "Pulumi.local.yaml").read_text() == original
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "passphrase").stat().st_mode) == 0o600
    assert len((home / "passphrase").read_text()) >= 32


def test_pulumi_gets_the_words_that_plan_sees(
    home: Path, calls: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In YAML 1.1, which PyYAML's own loader reads, none of these labels is text."""
    labels = {"a": "on", "b": "010", "c": "1_000", "d": "2026-08-20", "e": "0x1F"}
    node = {"name": "a", "role": "control-plane", "subnet": "control", "address": "10.0.1.10"}
    words = ", ".join(f"{key}: {value}" for key, value in (node | {"labels": "{%s}"}).items())
    words = words % ", ".join(f"{key}: {value}" for key, value in labels.items())
    (tmp_path / "stacks").mkdir()
    file = tmp_path / "stacks/Pulumi.local.yaml"
    file.write_text(
        f"config:\n  cni-lab:lab:\n    machines: {{provider: local, cpus: 1.50}}\n    nodes: [{{{words}}}]\n"
    )
    lab = load_stack_file(file).lab
    assert dict(lab.nodes[0].labels) == labels
    select(str(calls.parent / "bin/pulumi"), "local", file, dict(os.environ))
    copy = home / "config/Pulumi.local.yaml"
    assert parse_lab(yaml.safe_load(copy.read_text())["config"]["cni-lab:lab"]) == lab


def end_with(calls: Path, command: str, code: int) -> None:
    """From now on `pulumi COMMAND` ends with this code: with KILLED by a signal."""
    program = calls.parent / "bin" / "pulumi"
    end = "kill -9 $$" if code == KILLED else f"exit {code}"
    lines = program.read_text().splitlines(keepends=True)
    program.write_text("".join([*lines[:-2], f"case $* in '{command} '*) {end} ;; esac\n", *lines[-2:]]))


def with_stored_lab(home: Path, calls: Path, stored: Any) -> None:
    """A pulumi whose stack has this lab in its outputs."""
    program = calls.parent / "bin" / "pulumi"
    answer = calls.parent / "outputs.json"
    answer.write_text(json.dumps({"lab": stored}))
    program.write_text(RECORDER.replace("exit 1", f"cat {answer}; exit 0", 1))
    state = home / "state/.pulumi/stacks" / project.NAME
    state.mkdir(parents=True)
    (state / "local.json").write_text("{}")


@pytest.mark.parametrize("command", ["up", "preview"])
def test_what_a_live_lab_cannot_take_is_refused_before_anything_is_touched(
    home: Path, calls: Path, command: str
) -> None:
    live = load_stack_file(ROOT / "stacks" / "Pulumi.local.yaml").lab
    stored = live.model_dump(mode="json", by_alias=True, exclude_none=True)
    stored["kubernetes"]["version"] = "1.36.4"
    stored["calico"]["pools"][0]["blockSize"] = 26
    with_stored_lab(home, calls, stored)
    with pytest.raises(CommandError) as caught:
        run(command, "local", ["--yes"])
    assert caught.value.code == USAGE
    head, *lines = str(caught.value).splitlines()
    assert head == "local is up, and a live lab cannot take this:"
    assert [line.split(":")[0].strip() for line in lines] == ["kubernetes.version", "calico.pools[0].blockSize"]
    assert not calls.exists()


@pytest.mark.parametrize("stored", ["as it is", "of another program"])
def test_a_live_lab_that_can_take_it_is_changed(
    home: Path, calls: Path, stored: str, capsys: pytest.CaptureFixture[str]
) -> None:
    live = load_stack_file(ROOT / "stacks" / "Pulumi.local.yaml").lab
    known = stored == "as it is"
    with_stored_lab(home, calls, live.model_dump(mode="json", by_alias=True) if known else {"machines": 1})
    assert run("preview", "local", ["--diff"]) == 0
    assert ("it is not checked" in capsys.readouterr().err) is not known


@pytest.mark.parametrize(
    ("is_changed", "options", "waited"),
    [
        (True, ["--yes"], True),
        (False, ["--yes"], False),
        (True, ["--preview-only"], False),
        (True, ["--yes", "--target", "x"], False),
    ],
)
def test_up_waits_until_the_nodes_follow_a_change_of_calico(
    home: Path, calls: Path, monkeypatch: pytest.MonkeyPatch, is_changed: bool, options: list[str], waited: bool
) -> None:
    stored = load_stack_file(ROOT / "stacks" / "Pulumi.local.yaml").lab.model_dump(mode="json", by_alias=True)
    if is_changed:
        stored["calico"]["pools"][0]["encapsulation"] = "None"
    with_stored_lab(home, calls, stored)
    asked: list[str] = []
    monkeypatch.setattr(deploy, "wait_for_datapath", asked.append)
    assert run("up", "local", options) == 0
    assert asked == (["local"] if waited else [])


@pytest.mark.parametrize("code", [7, KILLED])
def test_no_up_waits_for_a_lab_that_was_not_there_or_that_failed(
    home: Path, calls: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(deploy, "wait_for_datapath", asked.append)
    assert run("up", "local", ["--yes"]) == 0
    stored = load_stack_file(ROOT / "stacks" / "Pulumi.local.yaml").lab.model_dump(mode="json", by_alias=True)
    stored["calico"]["pools"][0]["encapsulation"] = "None"
    with_stored_lab(home, calls, stored)
    end_with(calls, "up", code)
    assert run("up", "local", ["--yes"]) == code
    assert asked == []


@pytest.mark.parametrize(
    ("says", "used"),
    [("v3.148.0", False), ("v3.271.9", False), ("v3.272.0", True), ("v3.300.1-alpha.2", True), ("", True)],
)
def test_an_older_cli_on_path_is_not_used(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    says: str,
    used: bool,
) -> None:
    """The runners of GitHub have 3.148. It ignores the options that replace a machine together with its host key."""
    theirs, ours = tmp_path / "bin" / "pulumi", home / "pulumi" / "bin" / "pulumi"
    for program, version in (theirs, says), (ours, "v3.272.0"):
        program.parent.mkdir(parents=True)
        program.write_text(f'#!/bin/sh\n[ "$*" = version ] && echo {version}\n')
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{theirs.parent}:/usr/bin:/bin")
    assert find_pulumi() == str(theirs if used else ours)
    said = capsys.readouterr().err
    assert said == ("" if used else f"lab: {theirs} is {says.removeprefix('v')}, older than 3.272.0, and is not used\n")


@pytest.mark.parametrize("command", ["up", "preview", "destroy"])
def test_up_refuses_an_examples_address(home: Path, calls: Path, command: str) -> None:
    """With it machines would be built and billed, and then nobody could reach them."""
    if command == "up":
        with pytest.raises(SpecError, match=r"operatorCidrs\[0\]: 203\.0\.113\.7/32 — is an address for documentation"):
            run(command, "cfos-egress", ["--yes"])
        assert not calls.exists(), "nothing has been made"
    else:
        assert run(command, "cfos-egress", ["--yes"]) == 0


def test_the_callers_policy_pack_replaces_ours(home: Path, calls: Path) -> None:
    assert run("preview", "cfos-egress", ["--policy-pack=theirs"]) == 0
    assert calls.read_text().count("--policy-pack") == 1


def test_the_passphrase_is_generated_once(home: Path, calls: Path) -> None:
    for _ in range(2):
        assert run("preview", "cfos-egress", []) == 0
        first = (home / "passphrase").read_text()
    assert (home / "passphrase").read_text() == first
    assert {p.name for p in home.iterdir()} == {"config", "passphrase", "state"}


@pytest.mark.parametrize("command", ["up", "destroy"])
def test_without_a_terminal_nothing_is_changed_unless_the_caller_agrees(
    home: Path, calls: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("no\n"))
    with pytest.raises(CommandError, match="not a terminal, so nobody can confirm: add --yes"):
        run(command, "cfos-egress", ["--diff"])
    assert not calls.exists()


def test_up_reads_the_state_of_local_machines_once(home: Path, calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the check of the ranges, and to start what is stopped."""
    monkeypatch.setattr(local_machines, "is_known_absent", lambda stack: False)
    monkeypatch.setattr(deploy, "examine_before", doctor.examine_before)
    monkeypatch.setattr(local, "ranges_in_use", lambda stack, spec, state: [])
    monkeypatch.setattr(local, "_find_engine", lambda machines, here: "podman")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for name in ("_system", "_root", "_tools", "_engine", "_kernel", "_inotify", "_processors", "_memory", "_disk"):
        monkeypatch.setattr(local, name, lambda *_: Answer("ok", ""))
    monkeypatch.setattr(doctor.tools, "checks", lambda spec: [])
    asked: list[str] = []
    real = Backend.resources

    def counted(self: Backend, stack: str) -> list[Any]:
        asked.append(stack)
        return real(self, stack)

    monkeypatch.setattr(Backend, "resources", counted)
    assert run("up", "local", ["--yes", "--diff"]) == 0
    assert asked == ["local"]


@pytest.mark.parametrize("arguments", [[], ["--yes"]])
def test_what_was_never_up_is_not_destroyed(
    home: Path, calls: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """It asks nobody, and it does not need pulumi, which may not be installed yet."""
    monkeypatch.setattr(deploy, "is_known_absent", is_known_absent)
    assert run("destroy", "cfos-egress", arguments) == 0
    assert capsys.readouterr().out == "cfos-egress is not up: there is nothing to destroy\n"
    assert not calls.exists()
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://team")
    assert run("destroy", "cfos-egress", ["--yes"]) == 0
    assert "destroy" in calls.read_text(), "a team's state may have it"


def test_destroy_removes_the_stack(home: Path, calls: Path) -> None:
    assert run("destroy", "cfos-egress", ["--yes"]) == 0
    assert [line.split("|")[2].split()[0] for line in calls.read_text().splitlines()] == ["stack", "destroy", "stack"]
    assert calls.read_text().splitlines()[-1].endswith("stack rm --yes --preserve-config --stack cfos-egress")
    assert not (home / "config" / "Pulumi.cfos-egress.yaml").exists()


def test_only_a_destroy_skips_checkpoints(home: Path, calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An `up` that is killed must have in its state what it made."""
    given: list[str | None] = []
    real = subprocess.Popen

    def recorded(command: list[str], **options: Any) -> subprocess.Popen[Any]:
        if command[1] in ("up", "destroy"):
            given.append(options["env"].get("PULUMI_SKIP_CHECKPOINTS"))
        return real(command, **options)

    monkeypatch.setattr(subprocess, "Popen", recorded)
    monkeypatch.delenv("PULUMI_SKIP_CHECKPOINTS", raising=False)
    for command in ("up", "destroy"):
        assert run(command, "local", ["--yes"]) == 0
    assert given == [None, "true"]


@pytest.mark.parametrize(
    "options",
    [
        ["--yes", "--target", "urn"],
        ["--yes", "--target=urn"],
        ["-y", "-t", "urn"],
        ["-yturn"],
        ["--yes", "--exclude", "urn"],
        ["-yf", "-xurn"],
        ["--yes", "--exclude-protected"],
        ["--preview-only"],
    ],
)
def test_destroy_of_a_part_keeps_the_stack(home: Path, calls: Path, options: list[str]) -> None:
    assert run("destroy", "cfos-egress", options) == 0
    assert calls.read_text().splitlines()[-1].endswith(" ".join(options))
    assert (home / "config" / "Pulumi.cfos-egress.yaml").exists()


def test_a_message_is_no_option(home: Path, calls: Path) -> None:
    assert run("destroy", "cfos-egress", ["--yes", "-mtext"]) == 0
    assert "stack rm" in calls.read_text()


@pytest.mark.parametrize("code", [7, KILLED])
@pytest.mark.parametrize("command", ["destroy", "stack rm"])
def test_a_stack_that_cannot_be_removed_keeps_its_copy_of_the_file(
    home: Path, calls: Path, command: str, code: int
) -> None:
    """It may have the salt with which the state is encrypted."""
    end_with(calls, command, code)
    assert run("destroy", "cfos-egress", ["--yes"]) == code
    assert (home / "config" / "Pulumi.cfos-egress.yaml").exists()
    assert ("stack rm" in calls.read_text()) is (command == "stack rm")


def test_pulumi_itself_removes_no_stack_file(home: Path, calls: Path) -> None:
    assert run("destroy", "cfos-egress", ["--yes", "--remove"]) == 0
    assert not re.search(r"--remove\b", calls.read_text())
    assert "stack rm --yes --preserve-config" in calls.read_text()


# --- which part is asked when -----------------------------------------------------------------------------------------

GONE, STAYS = (Instance(f"urn:{n}", f"i-{n}", "t3.large", IPv4Address(f"10.0.1.1{n}")) for n in range(2))


@dataclass
class Parts:
    """The parts of an `up` that look at machines or at the last one. They find what is set here."""

    asked: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    local_gone: bool = False
    state: dict[str, Instance] = field(default_factory=dict)
    gone: list[Instance] = field(default_factory=list)
    cluster: object = None
    to_change: dict[str, Instance] = field(default_factory=dict)

    def part(self, name: str, answer: Callable[[], Any] = lambda: None) -> Callable[..., Any]:
        def called(*_: Any, **__: Any) -> Any:
            self.asked.append(name)
            return answer()

        return called


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Parts:
    parts = Parts()
    stand_ins: dict[str, Callable[..., Any]] = {
        "examine_before": parts.part("doctor"),
        "ec2_machines.read_state": parts.part("state", lambda: Ec2State(parts.state)),
        "ec2_machines.find_gone": parts.part("EC2", lambda: parts.gone),
        "ec2_machines.forget": parts.part("forget"),
        "instance_type.Cluster.of": lambda stack: parts.cluster,
        "instance_type.to_change": lambda lab, state: {
            node: machine for node, machine in parts.to_change.items() if node in state.instances
        },
        "instance_type.announce": parts.part("announce"),
        "instance_type.finish": parts.part("finish"),
        "instance_type.confirm": parts.part("confirm"),
        "instance_type.change_in_turn": parts.part("change"),
        "local_machines.prepare_up": parts.part("local machines", lambda: (parts.options, parts.local_gone)),
        "repair.options": parts.part("repair", lambda: []),
        "repair.moved": parts.part("moved", lambda: []),
        "screen.remember_events": parts.part("durations"),
        "hints": parts.part("hints", lambda: ["look there"]),
        "placeholders": lambda lab: (),
    }
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(f"cli.lifecycle.deploy.{name}", stand_in)
    return parts


@pytest.mark.parametrize(
    ("command", "stack", "options", "asked"),
    [
        ("preview", "local", {}, ["doctor", "local machines"]),
        ("preview", "local", {"examined": False}, ["local machines"]),
        ("preview", "cross-node", {}, ["doctor", "state", "EC2"]),
        ("preview", "components", {}, ["doctor"]),
        ("up", "local", {}, ["doctor", "local machines", "moved", "durations"]),
        ("up", "local", {"repaired": True}, ["doctor", "local machines", "repair", "durations"]),
        ("up", "cross-node", {}, ["doctor", "state", "moved", "EC2", "durations"]),
        ("up", "components", {"examined": False}, ["moved", "durations"]),
        ("up", "components", {"repaired": True}, ["doctor", "repair", "durations"]),
        ("destroy", "local", {}, ["durations"]),
        ("destroy", "cross-node", {}, ["durations"]),
    ],
)
def test_which_parts_a_command_asks(
    home: Path, calls: Path, parts: Parts, command: str, stack: str, options: dict[str, bool], asked: list[str]
) -> None:
    assert run(command, stack, ["--yes"], **options) == 0
    assert parts.asked == asked


@pytest.mark.parametrize("code", [7, KILLED])
@pytest.mark.parametrize(
    ("command", "asked"),
    [
        ("preview", ["doctor", "local machines", "hints"]),
        ("up", ["doctor", "local machines", "moved", "hints"]),
        ("destroy", ["hints"]),
    ],
)
def test_what_failed_is_explained_and_not_remembered(
    home: Path,
    calls: Path,
    parts: Parts,
    command: str,
    asked: list[str],
    code: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    end_with(calls, command, code)
    assert run(command, "local", ["--yes"]) == code
    assert parts.asked == asked
    assert capsys.readouterr().err.endswith(f"lab {command}: look there\n")


def test_a_part_of_a_lab_on_ec2_is_changed_without_a_look_at_its_machines(
    home: Path, calls: Path, parts: Parts
) -> None:
    assert run("up", "cross-node", ["--yes", "--target", "urn"]) == 0
    assert parts.asked == ["doctor", "state", "moved", "durations"]


def test_what_is_gone_is_made_again_and_not_looked_at(home: Path, calls: Path, parts: Parts) -> None:
    parts.options, parts.local_gone = ["--replace", "urn"], True
    assert run("up", "local", ["--yes"], repaired=True) == 0
    assert parts.asked == ["doctor", "local machines", "moved", "durations"]
    assert calls.read_text().endswith(" --yes --replace urn\n")


@pytest.mark.parametrize(
    ("command", "options", "found", "asked"),
    [
        ("preview", [], {}, []),
        ("preview", [], {"gone": [GONE]}, ["--refresh"]),
        ("preview", ["--refresh"], {"gone": [GONE]}, ["--refresh"]),
        ("preview", [], {"to_change": {"control1": STAYS}}, ["announce"]),
        ("up", ["-y"], {}, ["finish"]),
        ("up", ["-y"], {"gone": [GONE]}, ["forget", "finish"]),
        ("up", ["-y"], {"gone": [GONE, STAYS]}, ["forget"]),
        ("up", ["-y"], {"cluster": None, "to_change": {"control1": STAYS}}, []),
        ("up", ["-y"], {"to_change": {"control1": STAYS}}, ["announce", "finish", "change"]),
        ("up", [], {"to_change": {"control1": STAYS}}, ["announce", "finish", "confirm", "change"]),
        # What is gone is made anew with the type of the file.
        ("up", ["-y"], {"gone": [GONE], "to_change": {"worker1": GONE}}, ["forget", "finish"]),
    ],
)
def test_what_is_done_for_machines_on_ec2_before_pulumi_runs(
    home: Path,
    calls: Path,
    parts: Parts,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    options: list[str],
    found: dict[str, Any],
    asked: list[str],
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    parts.state, parts.cluster = {"worker1": GONE, "control1": STAYS}, object()
    for name, value in found.items():
        setattr(parts, name, value)
    assert run(command, "cross-node", options) == 0
    refreshed = ["--refresh"] * calls.read_text().count("--refresh")
    around = {"doctor", "state", "moved", "EC2", "durations"}
    assert [name for name in parts.asked if name not in around] + refreshed == asked


@pytest.mark.parametrize(
    ("command", "said"), [("up", ["warning: a: 1 — costs", "note: b: 2 — is rare"]), ("destroy", [])]
)
def test_the_screen_has_no_place_for_notes(
    home: Path,
    calls: Path,
    parts: Parts,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    said: list[str],
) -> None:
    class Screen:
        def __init__(self, *_: Any) -> None: ...

        def run(self, options: Sequence[str], arguments: Sequence[str], log: Path) -> int:
            return 0

    monkeypatch.setattr(deploy.screen, "is_wanted", lambda *_: True)
    monkeypatch.setattr(deploy.screen, "Screen", Screen)
    monkeypatch.setattr(deploy, "notes", lambda lab: [Note("a", "1", "costs", True), Note("b", "2", "is rare", False)])
    assert run(command, "local", ["--yes"]) == 0
    assert capsys.readouterr().err.splitlines() == [f"lab {command}: {line}" for line in said]


def test_the_callers_backend_replaces_ours(home: Path, calls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://somewhere")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "mine")
    assert run("preview", "cfos-egress", []) == 0
    assert {line.split("|")[1] for line in calls.read_text().splitlines()} == {"s3://somewhere"}
    assert not (home / "passphrase").exists() and not (home / "state").exists()


def test_without_the_cli_one_clear_line(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pulumi.automation import PulumiCommand

    def unreachable(**_: object) -> None:
        raise urllib.error.URLError(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))

    monkeypatch.setattr(PulumiCommand, "install", unreachable)
    monkeypatch.setenv("PATH", "/nowhere")
    assert lab("preview", "cfos-egress") == 3
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith(
        "lab preview: no pulumi CLI of version 3.272.0 or later is on PATH, and its installer could not be run "
        "(Name or service not known); install pulumi 3.272.0 from "
    )
    assert len(lines) == 2


def test_an_unknown_stack_names_the_known_ones(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab("up", "cfos-egres") == 2
    assert "cfos-egress" in capsys.readouterr().err


def test_first_preview_with_the_real_cli(tmp_path: Path) -> None:
    """No host is contacted, no cluster exists, and every Kubernetes object has its row."""
    pulumi = shutil.which("pulumi")
    if pulumi is None:
        pytest.skip("the pulumi CLI is not installed")
    if not (ROOT / ".venv").exists():
        pytest.skip("the program's .venv does not exist: run ./lab once")
    folder = tmp_path / "state"
    folder.mkdir()
    environment = dict(os.environ) | {"PULUMI_BACKEND_URL": folder.as_uri(), "PULUMI_CONFIG_PASSPHRASE": "test"}
    command = [sys.executable, "-m", "cli", "preview", "components", "--skip-doctor", "--json", "--non-interactive"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    skip_without_plugins(done)
    assert done.returncode == 0, done.stderr + done.stdout[-3000:]
    steps = json.loads(done.stdout[done.stdout.index("{") :])["steps"]
    kinds = {step["newState"]["type"] for step in steps if step["op"] == "create"}
    assert "kubernetes:operator.tigera.io/v1:Installation" in kinds and "kubernetes:apps/v1:Deployment" in kinds
    assert "command:remote:Command" in kinds


@pytest.mark.parametrize(
    ("stack", "words"),
    [
        ("mine", "mine.yaml is not read as a stack: name it stacks/Pulumi.mine.yaml, and its stack is mine"),
        ("stacks/mine.yaml", "mine.yaml is not read as a stack: name it stacks/Pulumi.mine.yaml"),
        ("mine.yaml", "name it stacks/Pulumi.mine.yaml"),
        ("old", "Pulumi.old.yml is not read as a stack: name it stacks/Pulumi.old.yaml"),
        ("stacks/Pulumi.right.yaml", "stacks/Pulumi.right.yaml is the file of a stack; write the stack's name: right"),
        ("Pulumi.right.yaml", "write the stack's name: right"),
        ("other", "there is no stack 'other'; stacks/ has: right"),
    ],
)
def test_a_file_of_another_name(stack: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stacks").mkdir()
    for name in ("mine.yaml", "Pulumi.old.yml", "Pulumi.right.yaml"):
        (tmp_path / "stacks" / name).touch()
    monkeypatch.setattr(project, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CommandError) as caught:
        project.stack_file(stack)
    assert words in str(caught.value)
    assert caught.value.code == USAGE
