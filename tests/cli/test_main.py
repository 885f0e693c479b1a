"""The front door: its help, its version, and the folder it is called from."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import main, project
from tests.support.cli import needs_venv
from tests.support.graphs import ROOT
from tests.support.signals import default_signals


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


@needs_venv
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


@needs_venv
@pytest.mark.parametrize("seconds", [0.02, 0.1, 0.2, 0.4, 0.7, 1.0])
def test_ctrl_c_shows_no_traceback(seconds: float) -> None:
    """Whenever it is pressed: while Python starts, while modules are imported, while the command runs. `plan` may have
    ended, and Python does not see a key that was pressed before its first line."""
    started = subprocess.Popen(
        [str(ROOT / "lab"), "plan", "local"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=default_signals,
    )  # fmt: skip
    time.sleep(seconds)
    os.killpg(started.pid, signal.SIGINT)
    output, errors = started.communicate(timeout=60)
    assert "Traceback" not in output + errors and "Error" not in errors
    assert started.returncode in (0, -signal.SIGINT, 128 + signal.SIGINT)


def test_what_fails_because_of_ctrl_c_is_not_shown_as_a_fault(tmp_path: Path) -> None:
    """Some libraries take an interruption for something else."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, types\n"
        "def fails(**_):\n"
        "    import os, signal\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
        "        while True: pass\n"
        "    except KeyboardInterrupt:\n"
        "        raise ValueError('it does not match') from None\n"
        "def loses(**_): raise ValueError('a fault')\n"
        "main = types.ModuleType('cli.main')\n"
        "main.app = fails if 'interrupted' in sys.orig_argv else loses\n"
        "sys.modules['cli.main'] = main\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}

    def run(word: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli", word]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    interrupted = run("interrupted")
    assert (interrupted.returncode, interrupted.stderr) == (130, "")
    assert run("other").returncode == 1 and "ValueError: a fault" in run("other").stderr
