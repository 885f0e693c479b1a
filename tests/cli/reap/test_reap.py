"""`./lab reap`: which stacks are destroyed, which stay, and that a failure stops none of the others."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pulumi.automation import CommandResult

from cli.errors import MISSING, CommandError
from cli.lifecycle import backend as backends
from cli.lifecycle.backend import (
    Backend,
    BackendError,
    BackendSilent,
    BoundedPulumi,
    Lock,
    StackLocked,
    StackMissing,
    latest_lock,
    reason_of,
)
from cli.reap import command as module
from cli.reap.command import MARK, STACK, Life, Row, as_markdown, life_of, reap
from cli.reap.sweep import Sweep, SweepError
from components.aws_client import AwsSettings
from components.spec import names
from tests.support.cli import lab
from tests.support.graphs import ROOT, run_lab
from tests.support.plugins import skip_without_plugins

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
OLD, FRESH = NOW - timedelta(hours=9), NOW - timedelta(hours=1)
BOUND = timedelta(hours=2)


def checkpoint(born: datetime | str | None = OLD, **inputs: Any) -> list[dict[str, Any]]:
    text = born.isoformat().replace("+00:00", ".123456789Z") if isinstance(born, datetime) else born
    made = [{"type": STACK, "created": text}, {"type": names.LAB, "inputs": inputs}, {"type": "aws:ec2/vpc:Vpc"}]
    return made if born is not None else [{"type": STACK}, *made[1:]]


@dataclass
class Fake:
    """A fake backend: a checkpoint or an error for each stack, and the calls that were made."""

    known: dict[str, Any]
    trouble: dict[str, list[BackendError]] = field(default_factory=dict)
    silent: bool = False
    calls: list[str] = field(default_factory=list)
    url: str = "s3://somewhere"

    def stacks(self) -> list[str]:
        if self.silent:
            raise BackendSilent("`pulumi stack` was not done after 1 min and was stopped")
        return sorted(self.known)

    def answering(self) -> list[str]:
        return []

    def resources(self, stack: str) -> list[dict[str, Any]]:
        if isinstance(self.known[stack], BackendError):
            raise self.known[stack]
        found: list[dict[str, Any]] = self.known[stack]
        return found

    def destroy(self, stack: str) -> None:
        self.calls.append(f"destroy {stack}")
        if self.trouble.get(stack):
            raise self.trouble[stack].pop(0)

    def cancel(self, stack: str) -> None:
        self.calls.append(f"cancel {stack}")


def run(fake: Fake, *, dry_run: bool = False) -> tuple[dict[str, Row], frozenset[str] | None]:
    rows, known = reap(fake, NOW, dry_run=dry_run, older_than=BOUND)
    return {row.what.removeprefix("stack "): row for row in rows}, known


def locked(hours: float | None) -> StackLocked:
    return StackLocked(Lock("ann@box (pid 7)", None if hours is None else NOW - timedelta(hours=hours)))


def test_only_marked_and_expired_stacks_are_destroyed_and_a_failure_stops_none_of_them() -> None:
    fake = Fake(
        {
            "broken": BackendError("failed to load checkpoint: unexpected end of JSON input"),
            "empty": [],
            "fresh": checkpoint(FRESH, ttlHours=4),
            "gone": StackMissing("there is no such stack"),
            "old": checkpoint(ttlHours=4),
            "plain": checkpoint(owner="me"),
            "stuck": checkpoint(ttlHours=4),
            "zzz": checkpoint(ttlHours=4),
        },
        {"stuck": [BackendError("DependencyViolation")]},
    )
    rows, known = run(fake)
    assert {name: row.outcome for name, row in rows.items()} == {
        "broken": "left behind",
        "empty": "kept",
        "fresh": "kept",
        "gone": "kept",
        "old": "destroyed",
        "plain": "kept",
        "stuck": "left behind",
        "zzz": "destroyed",
    }
    assert fake.calls == ["destroy old", "destroy stuck", "destroy zzz"]
    assert known == {"broken", "empty", "fresh", "gone", "plain", "stuck"}, "what the state still knows is not swept"
    assert "DependencyViolation" in rows["stuck"].why and "not ephemeral" in rows["plain"].why


def test_tags_have_no_organization() -> None:
    assert run(Fake({"acme/plain": checkpoint()}))[1] == {"plain"}


def test_a_dry_run_of_reap_changes_nothing() -> None:
    fake = Fake({"old": checkpoint(ttlHours=4), "fresh": checkpoint(FRESH, ttlHours=4)})
    rows, known = run(fake, dry_run=True)
    assert rows["old"].outcome == "would be destroyed" and rows["fresh"].outcome == "kept"
    assert fake.calls == [] and known == {"old", "fresh"}


@pytest.mark.parametrize(
    ("hours", "calls", "outcome"),
    [
        (5, ["destroy old", "cancel old", "destroy old"], "destroyed"),
        (1, ["destroy old"], "left behind"),
        (2, ["destroy old"], "left behind"),
        (None, ["destroy old"], "left behind"),
    ],
)
def test_a_lock_protects_until_it_is_old(hours: float | None, calls: list[str], outcome: str) -> None:
    fake = Fake({"old": checkpoint(ttlHours=4), "other": checkpoint(ttlHours=4)}, {"old": [locked(hours)]})
    rows, _ = run(fake)
    assert rows["old"].outcome == outcome and "ann@box" in rows["old"].why
    assert fake.calls == [*calls, "destroy other"]


def test_a_lock_that_comes_back_is_respected() -> None:
    fake = Fake({"old": checkpoint(ttlHours=4)}, {"old": [locked(5), locked(0)]})
    rows, _ = run(fake)
    assert rows["old"].outcome == "left behind" and fake.calls.count("cancel old") == 1


def test_a_backend_without_an_answer_is_one_row() -> None:
    rows, known = run(Fake({}, silent=True))
    assert "none answers" in rows["backend"].why
    assert [row.outcome for row in rows.values()] == ["left behind"] and known is None


@pytest.mark.parametrize(
    ("resources", "life"),
    [
        ([], None),
        ([{"type": STACK, "created": "2026-11-21T03:00:00Z"}], None),
        (checkpoint(owner="me"), None),
        (checkpoint(ttlHours=None), None),
        (checkpoint("2026-11-21T03:00:00.500000789Z", ttlHours=4.0), Life(OLD + timedelta(seconds=0.5), 4)),
        (checkpoint("2026-11-21T05:00:00+02:00", ttlHours=4), Life(OLD, 4)),
    ],
)
def test_the_mark_and_the_creation_time(resources: list[dict[str, Any]], life: Life | None) -> None:
    assert life_of(resources) == life


@pytest.mark.parametrize(
    ("resources", "reason"),
    [
        (checkpoint(ttlHours="soon"), "its mark ttlHours is 'soon'"),
        (checkpoint(ttlHours=True), "its mark ttlHours is True"),
        (checkpoint(ttlHours=0), "its mark ttlHours is 0"),
        (checkpoint(None, ttlHours=4), "does not say when it was created"),
        (checkpoint("yesterday", ttlHours=4), "does not say when it was created"),
    ],
)
def test_an_invalid_mark_is_reported_and_the_stack_stays(resources: list[dict[str, Any]], reason: str) -> None:
    fake = Fake({"odd": resources})
    rows, _ = run(fake)
    assert rows["odd"].outcome == "left behind" and reason in rows["odd"].why and fake.calls == []


def test_the_program_sets_the_mark_from_ttl_hours() -> None:
    marked = run_lab({"machines": {"provider": "local"}, "ttlHours": 4, "owner": "ann"}).one(names.LAB)
    assert marked.inputs == {MARK: 4, "owner": "ann"}
    assert run_lab({"machines": {"provider": "local"}, "owner": "ann"}).one(names.LAB).inputs == {}


# --- the report ---


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`lab reap` on a fake backend and a fake cloud."""
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)

    def run(fake: Fake, swept: list[Sweep] | SweepError, *options: object) -> int:
        seen: list[tuple[frozenset[str], bool]] = []

        def sweep(aws: AwsSettings, now: datetime, known: frozenset[str], *, dry_run: bool) -> list[Sweep]:
            seen.append((known, dry_run))
            if isinstance(swept, SweepError):
                raise swept
            return swept

        monkeypatch.setattr(module, "Backend", lambda folder, seconds: fake)
        monkeypatch.setattr(module, "sweep", sweep)
        code = lab("reap", *options)
        assert all(dry_run for _, dry_run in seen) or not fake.silent, "without a list nothing is swept"
        return code

    return run


def test_the_exit_code_says_whether_something_is_left_behind(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    done = Sweep("lost", "destroyed", "1 VPC")
    assert command(Fake({"old": checkpoint("2026-01-01T00:00:00Z", ttlHours=4)}), [done], "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["backend"] == "s3://somewhere" and document["left"] == 0
    assert {row["outcome"] for row in document["rows"]} == {"destroyed"}
    assert command(Fake({}), [Sweep("lost", "left behind", "1 of 2 things")]) == 1
    assert "left behind" in capsys.readouterr().out
    assert command(Fake({}), []) == 0


def test_without_credentials_the_sweep_is_optional_unless_a_region_is_named(command: Callable[..., int]) -> None:
    none = SweepError("not looked at: no AWS credentials", no_credentials=True)
    assert command(Fake({}), none) == 0
    assert command(Fake({}), none, "--region", "us-west-2") == 1
    assert command(Fake({}), SweepError("cannot be looked at: AuthFailure")) == 1


def test_the_cloud_is_swept_without_changes_if_the_backend_fails(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(Fake({}, silent=True), [Sweep("lost", "would be destroyed", "1 VPC")]) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "cannot list its stacks" in said and "not deleted" in said


def test_the_report_is_also_the_summary_of_the_job(
    command: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    summary, file = tmp_path / "summary.md", tmp_path / "report.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    assert command(Fake({"plain": checkpoint()}), [], "--markdown", file) == 0
    assert summary.read_text() == "before\n" + file.read_text()
    assert "| stack plain | kept | not ephemeral |" in file.read_text()
    assert command(Fake({}), [], "--markdown", tmp_path / "no" / "such" / "folder.md") == 1
    assert "the report cannot be written" in capsys.readouterr().err


def test_error_messages_do_not_break_the_markdown() -> None:
    text = as_markdown([Row("stack a", "left behind", "exit 1 | cat")], NOW, dry_run=True)
    assert r"exit 1 \| cat" in text and "**1 left behind.**" in text and "(dry run)" in text


def test_without_the_cli_one_clear_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def missing(folder: Path, seconds: float) -> Backend:
        raise CommandError("the pulumi CLI is not on PATH", MISSING)

    monkeypatch.setattr(module, "Backend", missing)
    assert (lab("reap"), capsys.readouterr().err) == (3, "lab reap: the pulumi CLI is not on PATH\n")


# --- what the CLI says ---

LOCKED = """ code: 255
 stderr: error: the stack is currently locked by 2 lock(s). Either wait for the other process(es) to end or delete …
  s3://b/.pulumi/locks/organization/cni-lab/a/1.json: created by ann@box (pid 4711) at 2026-11-21T09:00:00Z
  s3://b/.pulumi/locks/organization/cni-lab/a/2.json: created by ann@box (pid 4712) at 2026-11-21T11:00:00+01:00
"""
FAILED = """ code: 255
 stdout: Diagnostics:
  command:local:Command (stuck):
    error: exit status 1: running "false":
    cannot go

  pulumi:pulumi:Stack (cni-lab-stuck):
    error: update failed
"""


def test_the_latest_lock_counts() -> None:
    assert latest_lock(LOCKED) == Lock("ann@box (pid 4712)", datetime(2026, 11, 21, 10, tzinfo=UTC))
    assert latest_lock("[409] Conflict: Another update is currently in progress.") == Lock("another process", None)


def test_the_reason_is_the_error_of_the_resource() -> None:
    assert reason_of(FAILED) == 'exit status 1: running "false": cannot go'
    assert reason_of("") == "the pulumi CLI gave no reason"
    assert len(reason_of("error: " + "x" * 9000)) <= 300


def test_a_cli_that_does_not_end_is_killed(tmp_path: Path) -> None:
    program = tmp_path / "pulumi"
    # It forks, ignores interrupts, and keeps the pipes open.
    program.write_text("#!/bin/bash\ntrap '' INT\nsleep 300 &\nwhile :; do sleep 1; done\n")
    program.chmod(0o755)
    begun = datetime.now(UTC)
    with pytest.raises(BackendSilent, match="`pulumi stack` was not done after"):
        bounded = BoundedPulumi(str(program), 1, answer_seconds=0.5, end_seconds=0.5)
        bounded.run(["stack", "ls"], str(tmp_path), {})
    assert datetime.now(UTC) - begun < timedelta(seconds=20)


def test_output_that_is_not_json_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PULUMI_BACKEND_URL", "s3://somewhere")
    monkeypatch.setenv("PULUMI_CONFIG_PASSPHRASE", "x")
    monkeypatch.setattr(backends, "find_pulumi", lambda: "pulumi")
    monkeypatch.setattr(backends, "environment_for_state", lambda: {"PULUMI_BACKEND_URL": "s3://somewhere"})
    answer = CommandResult("not\njson", "", 0)
    monkeypatch.setattr(BoundedPulumi, "run", lambda self, *_: answer)
    backend = Backend(tmp_path)
    with pytest.raises(BackendError, match="answer cannot be read") as caught:
        backend.resources("a")
    assert "\n" not in str(caught.value)


# --- the real CLI on a real folder ---

PROGRAM = """
import pulumi
from pulumi_command import local
from pulumi_random import RandomPet

config = pulumi.Config("t")
hours = config.get_int("ttl")


class Lab(pulumi.ComponentResource):
    def __init__(self) -> None:
        super().__init__("cnilab:index:Lab", "lab", {"ttlHours": hours} if hours else {})
        RandomPet("pet", opts=pulumi.ResourceOptions(parent=self, protect=config.get_bool("protect")))
        # Local machines are removed like this: by a script whose path is relative to the project.
        script = "test -f components/machines/local-machine.sh"
        local.Command("room", create="true", delete=script, opts=pulumi.ResourceOptions(parent=self))
        self.register_outputs({})


Lab()
"""


@pytest.mark.timeout(900)
def test_reap_with_the_real_cli(tmp_path: Path) -> None:
    """Expired, fresh, unmarked, empty, locked, busy, protected and broken stacks in one folder."""
    pulumi = shutil.which("pulumi")
    if pulumi is None:
        pytest.skip("the pulumi CLI is not installed")
    state, program = tmp_path / "state", tmp_path / "program"
    state.mkdir()
    program.mkdir()
    (program / "__main__.py").write_text(PROGRAM)
    (program / "venv").symlink_to(sys.prefix)
    runtime = "runtime: {name: python, options: {toolchain: pip, virtualenv: venv}}\n"
    (program / "Pulumi.yaml").write_text("name: cni-lab\n" + runtime)
    environment = dict(os.environ) | {
        "PULUMI_BACKEND_URL": state.as_uri(),
        "PULUMI_CONFIG_PASSPHRASE": "test",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "GITHUB_STEP_SUMMARY"):
        environment.pop(name, None)

    def cli(*arguments: str) -> str:
        done = subprocess.run(
            [pulumi, *arguments, "--non-interactive"],
            cwd=program,
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
        )
        skip_without_plugins(done)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def made(name: str, *config: str) -> None:
        cli("stack", "init", name)
        for pair in config:
            cli("config", "set", "--stack", name, *pair.split("="))
        cli("up", "--yes", "--skip-preview", "--stack", name)

    folder = state / ".pulumi"
    made("old", "t:ttl=4")
    for name in ("locked", "busy", "fresh"):
        # The same checkpoint under another name is another stack.
        text = (folder / "stacks/cni-lab/old.json").read_text().replace("urn:pulumi:old:", f"urn:pulumi:{name}:")
        (folder / f"stacks/cni-lab/{name}.json").write_text(text.replace("cni-lab-old", f"cni-lab-{name}"))
    made("protected", "t:ttl=4", "t:protect=true")
    made("plain")
    cli("stack", "init", "empty")
    again = cli("up", "--yes", "--skip-preview", "--stack", "old", "--expect-no-changes")
    assert "unchanged" in again, "the mark is no change"
    for name in ("old", "locked", "busy", "protected", "plain"):
        file = folder / f"stacks/cni-lab/{name}.json"
        document = json.loads(file.read_text())
        for resource in document["checkpoint"]["latest"]["resources"]:
            resource["created"] = "2026-01-01T00:00:00Z"
        file.write_text(json.dumps(document))
    now = datetime.now(UTC)
    for name, since in (("locked", now - timedelta(hours=5)), ("busy", now - timedelta(minutes=5))):
        locks = folder / "locks/organization/cni-lab" / name
        locks.mkdir(parents=True)
        lock = {"pid": 1, "username": "ann", "hostname": "box", "timestamp": since.isoformat().replace("+00:00", "Z")}
        (locks / "1.json").write_text(json.dumps(lock))
    (folder / "stacks/cni-lab/broken.json").write_text("{")

    def reaped(*options: str) -> tuple[int, dict[str, dict[str, str]]]:
        command = [sys.executable, "-m", "cli", "reap", "--json", *options]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
        rows = json.loads(done.stdout)["rows"]
        return done.returncode, {row["what"].removeprefix("stack "): row for row in rows}

    code, rows = reaped()
    assert code == 1
    outcomes = {name: row["outcome"] for name, row in rows.items() if not name.startswith("lost")}
    assert outcomes == {
        "backend": "left behind",
        "broken": "left behind",
        "busy": "left behind",
        "empty": "kept",
        "fresh": "kept",
        "locked": "destroyed",
        "old": "destroyed",
        "plain": "kept",
        "protected": "left behind",
    }, rows
    assert "ann@box" in rows["busy"]["why"] and "ann@box" in rows["locked"]["why"]
    assert "protected" in rows["protected"]["why"]
    (folder / "stacks/cni-lab/broken.json").unlink()
    left = {stack["name"] for stack in json.loads(cli("stack", "ls", "--json"))}
    assert left == {"busy", "empty", "fresh", "plain", "protected"}
