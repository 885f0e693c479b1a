"""A lab that plain `pulumi up -s STACK` makes, on the real engine: its file stays, and every command finds it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from components.sandbox import life
from components.sandbox.requirements import examine
from components.spec.load import load_stack_file
from tests.support.cli import needs_venv
from tests.support.graphs import ROOT

pytestmark = [
    pytest.mark.skipif(shutil.which("pulumi") is None, reason="pulumi is not on the PATH"),
    needs_venv,
]

# The outputs of a lab, which here are a sandbox's: no machine is needed to read them back and to use them.
PROGRAM = """
import json
import pulumi

config = pulumi.Config("cni-lab").require_object("lab")
pulumi.ComponentResource("cnilab:index:Lab", "lab")
for key, value in json.load(open("outputs.json")).items():
    pulumi.export(key, value if key in ("blocks", "nodes") else pulumi.Output.secret(value))
pulumi.export("lab", pulumi.Output.secret(config))
"""


class Project:
    """A copy of this project, with a stack `mine` and a state and passphrase of the team's own."""

    def __init__(self, folder: Path) -> None:
        self.root, self.state = folder / "project", folder / "state"
        self.root.mkdir()
        self.state.mkdir()
        for name in ("cli", "components", "engine", "policy", "stacks"):
            shutil.copytree(ROOT / name, self.root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("lab", "Pulumi.yaml", "__main__.py", "pyproject.toml", "requirements.txt"):
            shutil.copy(ROOT / name, self.root / name)
        (self.root / ".venv").symlink_to((ROOT / ".venv").resolve())
        self.file = self.root / "stacks/Pulumi.mine.yaml"
        shutil.copy(ROOT / "stacks/Pulumi.cross-node.yaml", self.file)
        self.backend = f"file://{self.state}"

    def run(self, command: str, **more: str) -> subprocess.CompletedProcess[str]:
        ours = ("PULUMI_", "CNI_LAB_", "AWS_")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        given: Mapping[str, str] = {
            "PULUMI_CONFIG_PASSPHRASE": "the team's own",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
        }
        return subprocess.run(
            ["bash", "-c", command],
            cwd=self.root,
            env=environment | given | more,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def succeeds(self, command: str, **more: str) -> str:
        done = self.run(command, **more)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


@pytest.fixture
def sandbox(project: Project, tmp_path: Path) -> Iterator[None]:
    """The project's program exports the outputs of a sandbox that stands."""
    if problem := examine().problem:
        pytest.skip(f"no sandbox can be built here: {problem}")
    home = tmp_path / "sandboxes"
    life.build("other", load_stack_file(project.file).lab, home)
    standing = life.find("other", home)
    assert standing is not None
    (project.root / "outputs.json").write_text(json.dumps(dict(standing.outputs)))
    (project.root / "__main__.py").write_text(PROGRAM)
    yield
    life.remove("other", home)


def test_up_with_a_backend_and_a_passphrase_of_ones_own(project: Project, sandbox: None) -> None:
    before = project.file.read_bytes()
    settings = f'eval "$(./lab --backend {project.backend} env mine)"'
    up = project.succeeds(f"{settings} && pulumi up -s mine --yes --skip-preview --non-interactive")
    assert "cnilab:index:Lab" in up
    assert project.file.read_bytes() == before
    assert "the team's own" not in project.succeeds(f"./lab --backend {project.backend} env mine")

    # Every command finds it, by the option and by the environment.
    verify = project.run(f"./lab --backend {project.backend} verify mine").stdout
    # Only EC2 could say whether its source/destination check is off.
    assert "passed, 0 failed, 3 unknown" in verify
    there = {"PULUMI_BACKEND_URL": project.backend}
    assert "The ping  ok" in project.succeeds("./lab walk mine multitool@worker1 multitool@worker2", **there)
    status = project.succeeds("./lab status mine", **there)
    assert "lab       up since" in status
    listed = json.loads(project.succeeds("./lab list --json", **there))
    assert [row["stack"] for row in listed if row["up"]] == ["mine"]
    # Without them the state is .lab/state, where there is no such lab.
    assert "is not up" in project.run("./lab verify mine").stderr

    project.succeeds(f"{settings} && pulumi destroy -s mine --yes --skip-preview --non-interactive")
    assert "lab       not up" in project.succeeds("./lab status mine", **there)
    assert project.file.read_bytes() == before


def test_the_settings_are_those_of_lab_up(project: Project) -> None:
    """With nothing set, they name the state and the passphrase in .lab, which `./lab up` uses."""
    text = project.succeeds("unset PULUMI_CONFIG_PASSPHRASE; ./lab env mine")
    assert f"export PULUMI_BACKEND_URL=file://{project.root}/.lab/state\n" in text
    assert f"export PULUMI_CONFIG_PASSPHRASE_FILE={project.root}/.lab/passphrase\n" in text
    assert "export PULUMI_PARALLEL=64\n" in text
    # A copy that is older than the file is replaced.
    copy = project.root / ".lab/config/Pulumi.mine.yaml"
    project.file.write_text(project.file.read_text().replace("replicas: 3", "replicas: 2"))
    project.succeeds("unset PULUMI_CONFIG_PASSPHRASE; ./lab env mine")
    assert "replicas: 2" in copy.read_text() and "encryptionsalt" in copy.read_text()


def test_a_stack_file_that_is_not_valid_is_refused_before_anything_is_made(project: Project) -> None:
    project.file.write_text("config: {'cni-lab:lab': {machines: {provider: azure}}}\n")
    done = project.run(f"./lab --backend {project.backend} env mine")
    assert done.returncode == 2 and "azure" in done.stderr and done.stdout == ""
    assert not list(project.state.iterdir())


def test_without_lab_env_pulumi_writes_its_salt_once(project: Project) -> None:
    """The second way of docs/pulumi.md."""
    (project.root / "outputs.json").write_text("{}")
    (project.root / "__main__.py").write_text(PROGRAM)
    settings = f"export PULUMI_BACKEND_URL={project.backend} PATH=$PWD/.venv/bin:$PATH"
    project.succeeds(f"{settings} && pulumi stack init mine")
    salted = project.file.read_text()
    assert "encryptionsalt: " in salted
    for _ in range(2):
        project.succeeds(f"{settings} && pulumi up -s mine --yes --skip-preview --non-interactive")
        assert project.file.read_text() == salted
    assert "lab       half up" in project.succeeds(f"./lab --backend {project.backend} status mine")


@pytest.mark.skipif(
    any(shutil.which(f"pulumi-resource-{name}") is None for name in ("kubernetes", "command", "tls", "random")),
    reason="not all providers of a local lab are on the PATH",
)
def test_preview_of_a_whole_lab(project: Project) -> None:
    before = (project.root / "stacks/Pulumi.local.yaml").read_bytes()
    settings = f'eval "$(./lab --backend {project.backend} env local)"'
    preview = project.succeeds(f"{settings} && pulumi preview -s local --non-interactive --policy-pack policy")
    assert "kubernetes:apps/v1:DaemonSet lab-multus-daemonset create" in preview
    assert (project.root / "stacks/Pulumi.local.yaml").read_bytes() == before
