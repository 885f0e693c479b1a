"""The nightly workflow: its form by GitHub's schema, and its steps run by the shell with stand-ins for programs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.graphs import ROOT

WORKFLOW = ROOT / ".github" / "workflows" / "nightly.yml"
JOBS: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]

# A stand-in records how it was called, and fails where the test says so.
RECORDER = """#!/bin/bash
printf '%s %s\\n' "${0##*/}" "$*" >>"$CALLS"
case "${0##*/} $*" in
  curl*) printf '%s' "$ADDRESS" ;;
  "gh issue list"*) printf '%s' "$OPEN" ;;
  "gh issue create"* | "gh issue comment"*) cat -- "${@: -1}" >"$CALLS.body" ;;
  "lab reap"*) printf '| stack old | left behind |\\n' >"${@: -1}" ;;
esac
[[ -z $FAIL || "${0##*/} $*" != $FAIL* ]]
"""


@dataclass
class Night:
    """A run of the workflow: what was called, and which jobs failed."""

    calls: list[str] = field(default_factory=list)
    failed: dict[str, bool] = field(default_factory=dict)
    body: str = ""
    stack_file: str = ""


def run_night(folder: Path, *, fail: str = "", open_issue: str = "", address: str = "192.0.2.7") -> Night:
    """Run every step by GitHub's rule: after a failure only those with `always()` and `failure()` run."""
    shutil.copytree(ROOT / "stacks", folder / "stacks")
    shutil.copytree(ROOT / ".github", folder / ".github")
    tools = folder / "bin"
    tools.mkdir()
    for tool in (tools / "curl", tools / "gh", tools / "sudo", folder / "lab"):
        tool.write_text(RECORDER)
        tool.chmod(0o755)
    calls = folder / "calls"
    calls.touch()
    environment = {"PATH": f"{tools}:/usr/bin:/bin", "CALLS": str(calls), "FAIL": fail, "OPEN": open_issue}
    environment |= {"ADDRESS": address, "HOME": str(folder), "AWS_REGION": "us-west-2", "RUN": "https://example/run/1"}
    night = Night()
    for job, content in JOBS.items():
        failed = False
        outcomes: dict[str, str] = {}
        for step in content["steps"]:
            if "run" not in step or not _runs(step.get("if", "success()"), failed, outcomes):
                continue
            done = subprocess.run(
                ["bash", "-eo", "pipefail", "-c", step["run"]], cwd=folder, env=environment, timeout=60
            )
            outcomes[step.get("id", "")] = "failure" if done.returncode else "success"
            failed = failed or bool(done.returncode)
        night.failed[job] = failed
    night.calls = calls.read_text().splitlines()
    body = folder / "calls.body"
    night.body = body.read_text() if body.exists() else ""
    night.stack_file = (folder / "stacks" / "Pulumi.nightly.yaml").read_text()
    return night


def _runs(condition: str, failed: bool, outcomes: dict[str, str]) -> bool:
    text = condition.removeprefix("${{").removesuffix("}}").strip()
    text = re.sub(r"steps\.(\w+)\.outcome", lambda m: repr(outcomes.get(m[1], "skipped")), text)
    for python, github in ((" and ", " && "), (" or ", " || ")):
        text = text.replace(github, python)
    words = {
        "always": lambda: True,
        "failure": lambda: failed,
        "success": lambda: not failed,
        "cancelled": lambda: False,
    }
    return bool(eval(text, {"__builtins__": {}}, words))


def test_a_good_night(tmp_path: Path) -> None:
    night = run_night(tmp_path)
    assert [call.split(" --")[0] for call in night.calls] == [
        "curl", "lab up nightly", "lab verify nightly", "lab destroy nightly", "lab reap", "sudo"
    ]  # fmt: skip
    assert "operatorCidrs: [192.0.2.7/32]" in night.stack_file and "203.0.113" not in night.stack_file
    assert not any(night.failed.values())
    assert night.calls[-1].endswith(" bash .ci/run --explore")


@pytest.mark.parametrize("fail", ["lab up", "lab verify"])
def test_a_lab_is_destroyed_after_a_failure_too(tmp_path: Path, fail: str) -> None:
    night = run_night(tmp_path, fail=fail)
    assert night.failed == {"lab": True, "reap": False, "explore": False}
    assert [call.split(" --")[0] for call in night.calls][-3:] == ["lab destroy nightly", "lab reap", "sudo"]
    assert ("lab verify nightly" in night.calls) == (fail == "lab verify")


def test_something_left_behind_opens_one_issue(tmp_path: Path) -> None:
    night = run_night(tmp_path, fail="lab reap")
    assert night.failed["reap"]
    assert sum("gh issue create" in call for call in night.calls) == 1
    assert "stack old | left behind" in night.body and "https://example/run/1" in night.body


def test_the_next_night_comments_on_it(tmp_path: Path) -> None:
    night = run_night(tmp_path, fail="lab reap", open_issue="7")
    assert not any("gh issue create" in call for call in night.calls)
    assert any(call.startswith("gh issue comment 7 ") for call in night.calls)


def test_a_job_without_a_report_still_opens_an_issue(tmp_path: Path) -> None:
    shutil.copytree(ROOT / ".github", tmp_path / ".github")
    night_tools = tmp_path / "bin"
    night_tools.mkdir()
    (night_tools / "gh").write_text(RECORDER)
    (night_tools / "gh").chmod(0o755)
    environment = {"PATH": f"{night_tools}:/usr/bin:/bin", "CALLS": str(tmp_path / "calls"), "FAIL": "", "OPEN": ""}
    script = ["bash", ".github/left-behind.sh", "nothing.md", "https://example/run/2"]
    subprocess.run(script, cwd=tmp_path, env=environment, check=True, timeout=60)
    assert "ended before it wrote a report" in (tmp_path / "calls.body").read_text()


@pytest.mark.parametrize("address", ["", "<html>busy</html>", "0.0.0.0/0", "2001:db8::1"])
def test_a_runner_that_does_not_know_its_address_opens_nothing(tmp_path: Path, address: str) -> None:
    night = run_night(tmp_path, address=address)
    assert night.failed["lab"] and not any("lab up" in call or "destroy" in call for call in night.calls)
    assert "203.0.113.7/32" in night.stack_file


def test_every_step_is_bounded_pinned_and_free_of_expressions() -> None:
    for job in JOBS.values():
        assert job["timeout-minutes"] <= 120 and job["permissions"]["contents"] == "read"
        with_role = any("configure-aws-credentials" in step.get("uses", "") for step in job["steps"])
        assert ("id-token" in job["permissions"]) is with_role
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step["uses"]), step["uses"]
            else:
                assert "${{" not in step["run"], "a value must reach the script by its environment, not by its text"
                assert len(step["run"].splitlines()) == 1
    bounded = [step["timeout-minutes"] for step in JOBS["lab"]["steps"] if "timeout-minutes" in step]
    assert sum(bounded) < JOBS["lab"]["timeout-minutes"], "destroy must have time left"


def test_a_lab_that_could_not_be_destroyed_is_reaped_once_its_time_is_over() -> None:
    document = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))
    first, second = (int(entry["cron"].split()[1]) for entry in document[True]["schedule"])  # YAML reads `on` as true
    stack = yaml.safe_load((ROOT / "stacks" / "Pulumi.nightly.yaml").read_text(encoding="utf-8"))
    assert second - first > stack["config"]["cni-lab:lab"]["ttlHours"]
    assert f"github.event.schedule != '{document[True]['schedule'][1]['cron']}'" in JOBS["lab"]["if"]
    assert "always()" in JOBS["reap"]["if"], "also where the lab's job is skipped"


def test_the_nightly_workflow_is_valid() -> None:
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", str(WORKFLOW)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
