"""Every command that reads a stack file shows the findings of a bad one, and nothing else happens."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import typer.main

from cli import project
from cli.errors import USAGE
from cli.main import app
from components.spec.findings import SpecError
from components.spec.load import load_stack_file
from tests.support.cli import invoke
from tests.support.graphs import ROOT

COMMANDS = [
    "addresses bad",
    "airgap bad",
    "break bad --list",
    "break bad fdb-gone",
    "cost bad",
    "demo bad --fast",
    "destroy bad --yes",
    "doctor bad",
    "env bad",
    "exercise bad",
    "exercise bad --answers",
    "mend bad",
    "new other --from bad",
    "page bad",
    "pin calico 3.33.0 --stack bad",
    "plan bad",
    "plan bad --json",
    "plan bad --local",
    "preview bad",
    "sandbox bad",
    "secret bad torPassword",
    "start bad",
    "status bad",
    "stop bad",
    "up bad --yes",
    "verify bad",
    "walk bad a b",
]
NEED_NO_FILE = {"kubeconfig", "ssh", "unlock"}
"""Commands on what stands, whatever the file says by now."""
FILES = ["file-tab", "keys-unknown", "version-with-leading-zero"]


@pytest.fixture
def project_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "stacks").mkdir()
    for name in ("docs", "components", project.PROGRAM):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.setattr(project, "ROOT", tmp_path)
    monkeypatch.setattr(project, "HOME", tmp_path / ".lab")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["Ünï", "a b", "", "x" * 101])
def test_a_name_that_pulumi_does_not_allow(name: str, project_of: Path) -> None:
    shutil.copy(ROOT / "stacks/Pulumi.local.yaml", project_of / f"stacks/Pulumi.{name}.yaml")
    result = invoke("plan", name)
    assert (result.exit_code, result.stdout) == (USAGE, "")
    assert result.stderr.startswith(f"lab plan: stacks/Pulumi.{name}.yaml: {name!r} cannot be the name of a stack")
    listed = invoke("list", "--json")
    assert listed.exit_code == 0 and "not a name of a stack: rename its file" in listed.stdout


def test_every_command_is_here() -> None:
    with_stack = {
        name
        for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
        if "stack" in {parameter.name for parameter in command.params}
    }
    assert {line.split()[0] for line in COMMANDS} | NEED_NO_FILE == with_stack | {"new"}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("file", FILES)
def test_a_command_shows_all_findings(file: str, command: str, project_of: Path) -> None:
    bad = project_of / "stacks/Pulumi.bad.yaml"
    shutil.copy(ROOT / f"tests/data/bad/{file}.yaml", bad)
    with pytest.raises(SpecError) as expected:
        load_stack_file(bad)
    result = invoke(*command.split())
    assert (result.exit_code, result.stdout) == (USAGE, "")
    assert result.stderr == f"{expected.value}\n"
    assert [path.name for path in (project_of / "stacks").iterdir()] == ["Pulumi.bad.yaml"]
    assert not (project_of / ".lab/state").exists()
