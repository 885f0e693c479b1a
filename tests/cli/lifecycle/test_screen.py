"""`up` on a terminal: what it shows, asks and leaves behind. A stand-in for pulumi replays recorded events."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import stat
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.console import Console

from cli.lifecycle import progress as model
from cli.lifecycle import screen
from cli.lifecycle.progress import Expected, Progress, Run
from tests.cli.lifecycle.test_progress import EVENTS, LOCAL, NODES, played, recorded
from tests.support.graphs import ROOT

PULUMI = f"""#!{sys.executable} -IS
import json, os, signal, sys, time
words = sys.argv[1:]
if words == ["version"]:
    print("v999.0.0")
    sys.exit()
with open(os.environ["CALLS"], "a") as calls:
    calls.write(" ".join(words) + "\\n")
if words[0] == "stack":
    sys.exit()
print("the engine's own words")
preview = words[0] == "preview" or "--preview-only" in words
log = open(words[words.index("--event-log") + 1], "w")
def interrupted(*_):
    print("interrupted once", flush=True)
    sys.exit(3)
signal.signal(signal.SIGINT, interrupted)
signal.signal(signal.SIGTERM, lambda *_: os._exit(77))
for line in open(os.environ["PREVIEW" if preview else "UP"]):
    log.write(line)
    log.flush()
    if not preview:
        time.sleep(float(os.environ["PAUSE"]))
sys.exit(0 if preview else int(os.environ["CODE"]))
"""
PROGRAM = """
import sys
from pathlib import Path
from cli import project
from cli.lifecycle.deploy import run
project.HOME = Path(sys.argv[1])
sys.exit(run(sys.argv[2], "local", sys.argv[3:], examined=False))
"""


@dataclass
class Terminal:
    """A program on its own terminal."""

    folder: Path
    words: list[str]
    events: str = "up-again.jsonl"
    code: int = 0
    pause: float = 0
    columns: int = 100
    said: str = field(default="", init=False)

    def __post_init__(self) -> None:
        tool = self.folder / "bin" / "pulumi"
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(PULUMI)
        tool.chmod(0o755)
        if self.words[0] == "destroy":
            state = self.folder / "lab/state/.pulumi/stacks/cni-lab"
            state.mkdir(parents=True)
            (state / "local.json").write_text("{}")
        environment = {
            key: value for key, value in os.environ.items() if not key.startswith("PULUMI_")
        } | {
            "PATH": f"{tool.parent}:/usr/bin:/bin", "CALLS": str(self.folder / "calls"), "TERM": "xterm",
            "PREVIEW": str(EVENTS / "preview.jsonl"), "UP": str(EVENTS / self.events), "CODE": str(self.code),
            "PAUSE": str(self.pause), "COLUMNS": str(self.columns), "LINES": "40", "PYTHONIOENCODING": "utf-8",
        }  # fmt: skip
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(self.folder / "lab"), *self.words],
            cwd=ROOT, env=environment, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
        )  # fmt: skip
        os.close(slave)

    def until(self, pattern: str, seconds: float = 60) -> None:
        """Read until the output has the pattern."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.said):
            assert time.monotonic() < deadline, self.said[-2000:]
            self._read(0.2)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def end(self, seconds: float = 60) -> int:
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.said[-2000:]
            self._read(0.2)
        while self._read(0):
            pass
        os.close(self.master)
        return self.process.returncode

    def _read(self, seconds: float) -> bool:
        if not select.select([self.master], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:  # Linux reports this when no process has the terminal open
            return False
        self.said += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode(errors="replace"))
        return bool(data)

    @property
    def calls(self) -> list[list[str]]:
        """The calls of pulumi, without those that only read a stack."""
        words = [line.split() for line in (self.folder / "calls").read_text().splitlines()]
        return [call for call in words if call[0] != "stack"]

    @property
    def log(self) -> Path:
        [log] = (self.folder / "lab" / "logs").iterdir()
        return log


def test_an_up_is_previewed_confirmed_and_shown(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, ["up"], columns=200)
    terminal.until("yes, no, details: ")
    assert "create" in terminal.said and "Changes:" in terminal.said
    terminal.type("yes\n")
    assert terminal.end() == 0
    assert [call[0] for call in terminal.calls] == ["preview", "up"]
    preview, up = terminal.calls
    assert "--yes" not in preview and "--policy-pack" in preview
    assert {"--yes", "--skip-preview", "--non-interactive", "--policy-pack"} <= set(up)
    last = terminal.said[terminal.said.rindex("up local:") :]
    assert re.search(r"✓ node files +10 s", last) and re.search(r"= prepare", last)
    assert f"log: {terminal.log}" in last and "the engine's own words" not in terminal.said
    assert terminal.log.read_text().count("the engine's own words") == 2
    assert stat.S_IMODE(terminal.log.stat().st_mode) == 0o600
    # The times for the next run.
    [run] = screen.recall(tmp_path / "lab", "local")
    assert run.command == "up" and set(run.phases) == {"calico", "node files", "workloads", "verification"}


def test_the_answer_no_changes_nothing(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, ["destroy"])
    terminal.until("yes, no, details: ")
    terminal.type("details\n")
    terminal.until("the engine's own words")
    terminal.type("\n")
    assert terminal.end() == 1
    assert [call[:2] for call in terminal.calls] == [["destroy", "--preview-only"]]
    assert (tmp_path / "lab" / "config" / "Pulumi.local.yaml").exists()


def test_a_failure_ends_with_its_place_its_last_lines_and_what_to_do(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, ["up", "--yes", "--skip-preview"], "up-failed.jsonl", code=255)
    assert terminal.end() == 255
    assert [call[0] for call in terminal.calls] == ["up"]
    tail = terminal.said[terminal.said.index("Failed: ") :].splitlines()
    assert tail[0] == "Failed: phase calico, node ip1001100, lab-calico-install"
    assert tail[1] == "  cni-lab: calico.sh" and tail[2].startswith("  curl: (37) Couldn't open file")
    assert "cannot be fetched: open the way to it" in tail[-3]
    assert tail[-2:] == [f"The whole log: {terminal.log}", "Try again: ./lab up local"]
    assert screen.recall(tmp_path / "lab", "local") == []


def test_ctrl_c_reaches_pulumi_once_and_its_end_is_awaited(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, ["up", "-y", "-f"], "up-failed.jsonl", pause=0.2)
    terminal.until("▸ machines")
    os.killpg(terminal.process.pid, signal.SIGINT)  # as the terminal does
    assert terminal.end() == 3
    assert terminal.log.read_text().count("interrupted once") == 1
    assert "interrupted: finishes its current work first; Ctrl-C again abandons it" in terminal.said
    assert "Try again: ./lab up local" in terminal.said and "Traceback" not in terminal.said


@pytest.mark.parametrize("option", ["--non-interactive", "--json", "--diff", "--help"])
def test_with_other_options_pulumis_own_output_is_shown(tmp_path: Path, option: str) -> None:
    terminal = Terminal(tmp_path, ["up", "--skip-preview", option])
    assert terminal.end() == 0
    assert "the engine's own words" in terminal.said and "log:" not in terminal.said
    assert [call[0] for call in terminal.calls] == ["up"]
    assert not (tmp_path / "lab" / "logs").exists()
    assert len(screen.recall(tmp_path / "lab", "local")) == 1


def test_after_a_failure_it_is_said_what_the_run_still_waits_for() -> None:
    """Multus' DaemonSet may take ten minutes, after another step has failed."""
    progress = played(recorded("up-failed.jsonl"), 10_000)
    assert progress.failures
    assert screen.after_failure(progress, "up") == "", "nothing runs any more"
    phase = progress.phases["multus"] = model.Phase(began=1.0)
    for number, name in enumerate(["lab-multus-daemonset", "lab-a", "lab-b", "lab-c"]):
        phase.running[name] = model.Work("multus", None, name, 100.0 + number)
    said = screen.after_failure(progress, "up").splitlines()
    assert said[0].startswith("Failed: phase calico, node ip1001100, lab-calico-install")
    assert said[1].startswith("up ends when what runs has ended: lab-multus-daemonset, lab-a, lab-b and 1 more. ")
    progress.failures.clear()
    assert screen.after_failure(progress, "up") == "", "nothing has failed"


def picture(progress: Progress, phases: list[str], guess: Expected, width: int) -> list[str]:
    console = Console(width=width, record=True, file=open(os.devnull, "w"), color_system=None)  # noqa: SIM115, PTH123
    console.print(screen.table(progress, phases, guess, screen.MARKS, progress.last))
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_the_progress_fits_the_width_of_the_terminal() -> None:
    progress = played(recorded("up-failed.jsonl"), 36)
    guess = model.expected("up", LOCAL, ["prepare", "node files"], [])
    wide = picture(progress, ["machines", "prepare", "cluster", "node files"], guess, 100)
    assert re.fullmatch(r" ✓ machines +28 s", wide[0])
    assert re.fullmatch(r" ▸ prepare +\d s of about 1 min 30 s", wide[1])
    assert re.fullmatch(r"     ip-10-0-2-20\d +\d s wrote /etc/kubernetes/cni-lab/patches/kubelet.*", wide[2])
    assert re.fullmatch(r" · node files +of about 15 s", wide[-1])
    narrow = picture(progress, ["prepare"], guess, 50)
    assert max(map(len, narrow)) <= 50 and re.search(r"\d s wrote /etc/.*…$", narrow[1])
    again = played(recorded("up-again.jsonl"), 60)
    assert picture(again, ["prepare", "calico"], guess, 80)[0] == " = prepare"


def waiting(line: str, steps: int = 1) -> Progress:
    """Steps of which the first has just printed this line, as pulumi reports it."""
    progress = Progress([f"worker{i}" for i in range(steps)])
    for i in range(steps):
        urn = f"urn:pulumi:x::cni-lab::cnilab:cluster:Cluster$cnilab:node:Step$command:remote:Command::c-worker{i}-join"
        progress.take({"timestamp": 10, "resourcePreEvent": {"metadata": {"urn": urn, "op": "create"}}})
        said = {"urn": urn, "severity": "info", "message": f"cni-lab: {line}\n"}
        progress.take({"timestamp": 50, "diagnosticEvent": said})
    return progress


@pytest.mark.parametrize(
    "line",
    [
        "waiting since 35 s for TigeraStatus calico to be Available: tigerastatus/calico is not Available; pod "
        "calico-node-4xk2p on worker1: container calico-node: ErrImagePull: no such host",
        "kubeadm runs since 35 s: [api-check] Waiting for a healthy API server. This can take up to 4m0s; kubelet: "
        '"Error syncing pod, skipping" err="failed to start ErrImagePull: no such host"',
        "after 35 s of 300 s: 1 of 262 not as expected: Deployment kube-system/coredns has all its pods Ready: 1 of 2 "
        "Ready; kube-system/coredns-2d71c8ae77-83c27 on worker1: container coredns: ErrImagePull: no such host",
    ],
)
def test_what_a_long_wait_waits_for_is_shown_whole(line: str) -> None:
    lines = picture(waiting(line), ["joins"], Expected(0, {}, 0), 80)
    assert 3 <= len(lines) <= 6 and max(map(len, lines)) <= 80
    assert "ErrImagePull: no such host" in " ".join(" ".join(lines).split())
    many = picture(waiting(line, 20), ["joins"], Expected(0, {}, 0), 80)
    assert len(many) == screen.MAX_WORK_LINES + 2, "many steps have a line each"
    endless = picture(waiting("waiting since 35 s for x: " + "why " * 900), ["joins"], Expected(0, {}, 0), 80)
    assert len(endless) < 9


def test_many_nodes_do_not_fill_the_screen() -> None:
    progress = Progress([f"worker{i}" for i in range(40)])
    for i in range(40):
        urn = f"urn:pulumi:x::cni-lab::cnilab:cluster:Cluster$cnilab:node:Step$command:remote:Command::c-worker{i}-join"
        progress.take({"timestamp": 10, "resourcePreEvent": {"metadata": {"urn": urn, "op": "create"}}})
    lines = picture(progress, ["joins"], Expected(0, {}, 0), 80)
    assert len(lines) == screen.MAX_WORK_LINES + 2 and lines[-1].strip() == "… and 28 more"


def test_times_of_the_last_runs_are_kept_and_a_broken_file_is_ignored(tmp_path: Path) -> None:
    for number in range(7):
        screen.remember(tmp_path, "local", Run("up", {"calico": (0, number)}))
    screen.remember(tmp_path, "local", Run("destroy", {"machines": (0, 9)}))
    runs = screen.recall(tmp_path, "local")
    assert [run.phases["calico"][1] for run in runs if run.command == "up"] == [2, 3, 4, 5, 6]
    assert [run.command for run in runs].count("destroy") == 1
    for text in ("", "{}", "[1]", '[{"command": "up", "phases": {"calico": 3}}]', "null"):
        (tmp_path / "times" / "local.json").write_text(text)
        assert screen.recall(tmp_path, "local") == []


def test_an_incomplete_event_is_read_later(tmp_path: Path) -> None:
    file = tmp_path / "events"
    read = screen.reader(file)
    assert read() == []
    file.write_text('{"a": 1}\nno json\n{"b"')
    assert read() == [{"a": 1}]
    with file.open("a") as more:
        more.write(": 2}\n")
    assert read() == [{"b": 2}] and read() == []


def test_durations() -> None:
    assert [screen.duration(s) for s in (-1, 0.4, 59.4, 60, 187)] == ["0 s", "0 s", "59 s", "1 min 00 s", "3 min 07 s"]


def test_recorded_events_have_no_secret() -> None:
    text = "".join(json.dumps(recorded(file.name)) for file in EVENTS.iterdir())
    assert "PRIVATE KEY" not in text and "stdin" not in text and NODES[0] in text
