"""The front door: its help, its version, and the folder it is called from."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import main, project
from tests.support.graphs import ROOT


def test_version_names_the_release(monkeypatch: pytest.MonkeyPatch) -> None:
    result = CliRunner().invoke(main.app, ["--version"])
    assert result.exit_code == 0 and re.fullmatch(r"cni-lab \d+\.\d+\.\d+( \([0-9a-f]+\+?\))?\n", result.stdout)
    monkeypatch.setenv("PATH", "/nowhere")
    assert re.fullmatch(r"\d+\.\d+\.\d+", project.version()), "without git the release alone"


def test_the_front_door_loads_no_lab() -> None:
    """Completion starts the program at every Tab, and the models and the SDK take longer to load than all the rest."""
    program = "import sys, cli.main; print(*sorted({'pydantic', 'pulumi', 'rich', 'yaml'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


def test_a_command_on_a_running_lab_loads_no_sdk() -> None:
    """The SDK would take as long to load as such a command takes to read a sandbox."""
    modules = "cli.live.addresses, cli.live.exercise, cli.live.faults, cli.live.ssh, cli.live.verify, cli.live.walk"
    program = f"import sys, {modules}; print(*sorted({{'pulumi', 'grpc'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


def test_a_terminal_of_another_encoding_gets_question_marks() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "cli", "plan", "local"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii() and " ?? lab " in done.stdout


@pytest.mark.parametrize("words", [["-h"], ["plan", "-h"], ["ssh", "--help"]], ids=" ".join)
def test_both_options_show_help(words: list[str]) -> None:
    result = CliRunner().invoke(main.app, words)
    assert result.exit_code == 0 and result.stdout.startswith("Usage:")


@pytest.mark.skipif(not (ROOT / ".venv/.installed-requirements").exists(), reason="./lab has made no .venv here yet")
def test_lab_runs_from_any_folder_and_writes_into_the_callers(tmp_path: Path) -> None:
    """Through a symlink, and beside folders that have the names of the project's packages."""
    (tmp_path / "cli").mkdir()
    (tmp_path / "cli/__init__.py").write_text("raise SystemExit('the wrong cli')\n")
    (tmp_path / "lab").symlink_to(ROOT / "lab")
    done = subprocess.run(
        ["./lab", "plan", "local", "--out", "graph"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "graph/graph.svg").is_file()
