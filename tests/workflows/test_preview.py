"""preview.yml and comment.yml: their form, and their steps in a temporary repository."""

from __future__ import annotations

import hashlib
import http.server
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import pytest
import yaml

from cli.review.pages import LIMIT, MARKER
from tests.support.graphs import STACKS
from tests.support.scratch import Scratch

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = ROOT / ".github" / "workflows"
OURS = ("preview", "comment")


def workflow(name: str) -> dict[str, Any]:
    # YAML 1.1 reads `on` as true.
    return {"on" if key is True else key: value for key, value in yaml.safe_load(text(name)).items()}


def text(name: str) -> str:
    return (WORKFLOWS / f"{name}.yml").read_text()


def steps(name: str) -> Iterator[dict[str, Any]]:
    for job in workflow(name)["jobs"].values():
        yield from job["steps"]


def script(name: str, step: str) -> tuple[str, dict[str, str]]:
    """A step's `run`, and the names in its `env`."""
    found = next(s for s in steps(name) if s.get("name") == step)
    return found["run"], found["env"]


# --- form


@pytest.mark.parametrize("name", OURS)
def test_the_workflow_is_valid(name: str) -> None:
    spec = importlib.util.find_spec("check_jsonschema")
    if spec is None or spec.origin is None:
        pytest.skip("check-jsonschema, which carries GitHub's schema of workflows, is not installed")
    schema = Path(spec.origin).parent / "builtin_schemas" / "vendor" / "github-workflows.json"
    jsonschema.Draft7Validator(json.loads(schema.read_text())).validate(workflow(name))


@pytest.mark.parametrize("name", OURS)
def test_actionlint_finds_nothing(name: str) -> None:
    actionlint = shutil.which("actionlint")
    if actionlint is None:
        pytest.skip("actionlint is not on PATH")
    done = subprocess.run([actionlint, str(WORKFLOWS / f"{name}.yml")], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", OURS)
def test_actions_are_pinned_and_scripts_see_no_expression(name: str) -> None:
    for step in steps(name):
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"])
            assert re.search(re.escape(step["uses"]) + r" # v\d+\.\d+\.\d+\n", text(name))
            if step["uses"].startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False
                assert "ref" not in step["with"] and "repository" not in step["with"]
        # Values that others choose, such as the name of a branch, must reach a script as variables, not in its text.
        assert "${{" not in step.get("run", "")
    assert all("timeout-minutes" in job for job in workflow(name)["jobs"].values())


def test_a_job_that_runs_the_pull_requests_code_cannot_write() -> None:
    preview = workflow("preview")
    assert list(preview["on"]) == ["pull_request"] and preview["permissions"] == {"contents": "read"}
    compare, pulumi = preview["jobs"]["compare"], preview["jobs"]["pulumi"]
    assert "permissions" not in compare and "secrets." not in json.dumps(compare)
    assert pulumi["permissions"] == {"contents": "read", "id-token": "write"}
    assert "github.event.pull_request.head.repo.full_name == github.repository" in pulumi["if"]
    comment = workflow("comment")
    assert list(comment["on"]) == ["workflow_run"] and comment["on"]["workflow_run"]["workflows"] == [preview["name"]]
    assert comment["permissions"] == {}
    assert comment["jobs"]["comment"]["permissions"]["pull-requests"] == "write"


# --- compare.sh and preview.sh


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Scratch:
    """The project with a merge commit like GitHub's, and a .venv that ./lab accepts."""
    scratch = Scratch(tmp_path_factory.mktemp("workflow") / "project")
    scratch.git("checkout", "--quiet", "-b", "change")
    for stack in {*STACKS} - {"cross-node", "packet-life"}:
        (scratch.folder / "stacks" / f"Pulumi.{stack}.yaml").unlink()
    scratch.commit()
    scratch.git("checkout", "--quiet", "-B", "main")
    scratch.git("checkout", "--quiet", "-b", "pull")
    scratch.edit("stacks/Pulumi.packet-life.yaml", "address: 172.17.0.32", "address: 172.17.0.33")
    scratch.commit()
    scratch.git("checkout", "--quiet", "main")
    scratch.git("merge", "--quiet", "--no-ff", "--message=merge", "pull")
    python = scratch.folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    wanted = (scratch.folder / "requirements.txt").read_bytes() * 2
    digest = hashlib.sha256(wanted).hexdigest()
    (scratch.folder / ".venv" / ".installed-requirements").write_text(f"{digest}  -")
    return scratch


def run(
    scratch: Scratch, tmp_path: Path, name: str, step: str, **values: str
) -> tuple[subprocess.CompletedProcess[str], str, str]:
    """Run a step's script as the runner does; returns also its outputs and its summary."""
    command, names = script(name, step)
    assert set(values) <= set(names) | {"PATH"}
    output, summary = tmp_path / "output", tmp_path / "summary"
    output.touch()
    summary.touch()
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "PYTHONPATH"))}
    # The values that the workflow sets without expressions.
    environment |= {key: value for key, value in names.items() if "${{" not in str(value)}
    environment |= {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(summary)} | values
    done = subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command],
        cwd=scratch.folder, env=environment, capture_output=True, text=True, timeout=250,
    )  # fmt: skip
    return done, output.read_text(), summary.read_text()


@pytest.mark.parametrize("labelled", ["false", "true"])
def test_the_gate_opens_with_the_label(project: Scratch, tmp_path: Path, labelled: str) -> None:
    done, output, summary = run(project, tmp_path, "preview", "Compare", LABELLED=labelled)
    assert done.returncode == (0 if labelled == "true" else 4), done.stdout + done.stderr
    assert ("::notice::" if labelled == "true" else "::error::a control plane would be replaced") in done.stdout
    assert output == "stacks=packet-life\n"
    folder = project.folder / "comparison"
    assert summary == (folder / "comment.md").read_text() and summary.startswith(MARKER)
    assert "Not touched: cross-node." in summary
    uploaded = next(s for s in steps("preview") if "upload-artifact" in s.get("uses", ""))["with"]["path"]
    assert folder.name == uploaded


def test_an_unknown_revision_fails_the_step(project: Scratch, tmp_path: Path) -> None:
    shutil.rmtree(project.folder / "comparison", ignore_errors=True)
    done, output, summary = run(project, tmp_path, "preview", "Compare", LABELLED="false", BASE="HEAD^2^2")
    assert done.returncode == 2 and output == summary == ""
    assert "git knows no such commit" in done.stderr


def test_every_stack_with_a_state_is_previewed(project: Scratch, tmp_path: Path) -> None:
    lab = project.folder / "lab"
    real = lab.read_text()
    lab.write_text('#!/bin/sh\necho "$@"\n[ "$2" != two ]\n')
    try:
        done, _, summary = run(
            project, tmp_path, "preview", "Preview",
            STACKS="one two three four", WITH_STATE="two three one-more four", PULUMI_CONFIG_PASSPHRASE="x",
            PULUMI_BACKEND_URL="file:///nowhere",
        )  # fmt: skip
    finally:
        lab.write_text(real)
    assert done.returncode == 1 and "::error::pulumi preview failed: two\n" in done.stdout
    told = re.findall(r"<summary>pulumi preview of (\w+): (\w+)</summary>", summary)
    assert told == [("two", "failed"), ("three", "done"), ("four", "done")]
    assert "preview three --diff --non-interactive --color never" in summary


# --- comment.py, against a server that answers as GitHub does


class GitHub(http.server.BaseHTTPRequestHandler):
    """Open pull requests and their comments; `asked` collects the requests that change something."""

    pulls: ClassVar[list[dict[str, Any]]] = []
    comments: ClassVar[list[dict[str, Any]]] = []
    asked: ClassVar[list[tuple[str, str, Any]]] = []

    def do_GET(self) -> None:
        assert self.headers["Authorization"] == "Bearer t0ken"
        path, _, query = self.path.partition("?")
        if path == "/repos/o/r/pulls":
            assert query == "state=open&head=stranger%3Aa+%26+b%2F%22x"
            return self.answer(self.pulls)
        assert path == "/repos/o/r/issues/7/comments"
        page = int(query.rpartition("=")[2])
        return self.answer(self.comments[(page - 1) * 100 : page * 100])

    def change(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.command, self.path, body))
        self.answer({})

    do_POST = do_PATCH = change

    def answer(self, value: Any) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def github(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of comment.py, with a server that has one open pull request and no comments."""
    GitHub.pulls = [{"number": 6, "head": {"sha": "old"}}, {"number": 7, "head": {"sha": "new"}}]
    GitHub.comments, GitHub.asked = [], []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), GitHub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {
            "GITHUB_API_URL": f"http://127.0.0.1:{server.server_port}",
            "GITHUB_REPOSITORY": "o/r",
            "GITHUB_TOKEN": "t0ken",
            "HEAD_OWNER": "stranger",
            "HEAD_BRANCH": 'a & b/"x',
            "HEAD_SHA": "new",
            "RUNNER_TEMP": str(tmp_path),
            "PATH": os.environ["PATH"],
        }
        server.shutdown()


def post(environment: dict[str, str], body: str = f"{MARKER}\nhello ä\n") -> subprocess.CompletedProcess[str]:
    command, names = script("comment", "Comment")
    assert set(names) | {"GITHUB_API_URL", "GITHUB_REPOSITORY", "RUNNER_TEMP", "PATH"} == set(environment)
    file = Path(environment["RUNNER_TEMP"], "comparison", "comment.md")
    file.parent.mkdir(exist_ok=True)
    if not file.is_symlink():
        file.write_text(body)
    return subprocess.run(["bash", "-ec", command], cwd=ROOT, env=environment, capture_output=True, text=True)


def comment(number: int, login: str, body: str) -> dict[str, Any]:
    return {"id": number, "user": {"login": login}, "body": body}


def test_the_first_run_posts_a_comment_and_later_ones_update_it(github: dict[str, str]) -> None:
    done = post(github)
    assert done.returncode == 0 and done.stdout == "comment: #7 has a new comment\n", done.stderr
    assert GitHub.asked == [("POST", "/repos/o/r/issues/7/comments", {"body": f"{MARKER}\nhello ä\n"})]

    GitHub.comments = [comment(n, "somebody", f"{MARKER} mine") for n in range(100)]
    GitHub.comments += [comment(100, "github-actions[bot]", "of another workflow")]
    GitHub.comments += [comment(101, "github-actions[bot]", f"{MARKER}\nold")]
    GitHub.asked = []
    done = post(github)
    assert done.returncode == 0 and done.stdout == "comment: #7 is up to date\n", done.stderr
    assert [(method, path) for method, path, _ in GitHub.asked] == [("PATCH", "/repos/o/r/issues/comments/101")]


def test_a_run_of_an_older_commit_posts_nothing(github: dict[str, str]) -> None:
    done = post(github | {"HEAD_SHA": "older"})
    assert done.returncode == 0 and "the run of a newer commit will comment" in done.stdout and GitHub.asked == []


@pytest.mark.parametrize("body", ["no marker", f"{MARKER}\n" + "x" * 65_536])
def test_a_file_that_is_no_comparison_is_not_posted(github: dict[str, str], body: str) -> None:
    done = post(github, body)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and GitHub.asked == []


def test_a_link_in_the_artifact_is_not_followed(github: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{MARKER}\nwhat only this job may read")
    (tmp_path / "comparison").mkdir()
    (tmp_path / "comparison" / "comment.md").symlink_to(tmp_path / "secret")
    done = post(github)
    assert done.returncode == 1 and done.stderr == "comment: comment.md is not a plain file\n" and GitHub.asked == []


def test_a_server_that_refuses_is_one_line(github: dict[str, str]) -> None:
    done = post(github | {"GITHUB_API_URL": "http://127.0.0.1:1"})
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "GET /pulls" in done.stderr


def test_marker_and_limit_agree() -> None:
    source = (ROOT / ".github" / "comment.py").read_text()
    assert f'MARKER = "{MARKER}"\n' in source and "LIMIT = 65_536\n" in source and LIMIT < 65_536
