"""`up` and `destroy` on a terminal: the progress of the run, its log in a file, and what to do if it fails."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from cli import signals
from cli.lifecycle import progress as model
from cli.lifecycle.progress import Expected, Failure, Progress, Run
from components.spec.models import Lab

# Options under which the progress can be shown. With any other, pulumi's own output is shown.
SUPPORTED_OPTIONS = {
    "-y", "--yes", "-f", "--skip-preview", "-t", "--target", "--target-dependents", "--replace", "-r", "--refresh",
    "-m", "--message", "--policy-pack", "-p", "--parallel"
}  # fmt: skip
KEPT_LOGS = 20
KEPT_RUNS = 5
MAX_WORK_LINES = 12
# What a step prints while it waits for longer (components/node/lib.sh, components/verify/waiting.py) says why, and is
# shown on several lines: so many characters of it, if no more than so many steps run.
REASON = re.compile(r"(waiting|\S+ runs) since \d+ s|after \d+ s of \d+ s:")
MAX_REASON_CHARACTERS = 300
MAX_REASONS = 3
MARKS = {"done": "✓", "running": "▸", "waiting": "·", "failed": "✗", "unchanged": "="}
PLAIN_MARKS = MARKS | {"done": "+", "running": ">", "waiting": ".", "failed": "x"}
STYLES = {"done": "green", "running": "bold", "waiting": "dim", "failed": "bold red", "unchanged": "dim"}


def is_wanted(command: str, arguments: Sequence[str]) -> bool:
    """Whether a terminal can show the progress, and no option asks for pulumi's own output."""
    options = {argument.split("=")[0] for argument in arguments if argument.startswith("-")}
    return (
        command in ("up", "destroy")
        and sys.stdout.isatty()
        and os.environ.get("TERM", "") not in ("", "dumb")
        and options <= SUPPORTED_OPTIONS
    )


@dataclass
class Screen:
    """One `up` or `destroy` of a lab. `home`: the folder `.lab`, which keeps the log and the times of runs."""

    command: str
    stack: str
    lab: Lab
    pulumi: str
    environment: Mapping[str, str]
    root: Path
    home: Path
    console: Console = field(default_factory=Console)
    _interrupts: int = 0

    def run(self, options: Sequence[str], arguments: Sequence[str], events: Path) -> int:
        """Preview, ask, run. `events`: the file that gets the events of the last of these.

        Returns pulumi's exit code, or 1 where the answer was no.
        """
        flags = set(arguments)
        passed = [a for a in [*options, *arguments] if a not in ("-y", "--yes", "-f", "--skip-preview")]
        agreed = bool({"-y", "--yes"} & (flags | set(options)))
        log = self._new_log()
        total: dict[str, int] | None = None
        if not {"-f", "--skip-preview"} & flags:
            words = ["preview"] if self.command == "up" else ["destroy", "--preview-only"]
            code, plan = self._stage([*words, *passed], events, log, None)
            if code:
                return self._end(code, plan, log)
            total = {name: phase.done + len(phase.running) for name, phase in plan.phases.items() if phase.began}
            self.console.print(changes(plan, name_deleted=self.command == "up"), highlight=False, markup=False)
            if plan.changes and not agreed and not self._agree(log):
                return 1
        self._interrupts = 0
        code, progress = self._stage([self.command, *passed, "--yes", "--skip-preview"], events, log, total)
        if code == 0 and (run := model.run_of(self.command, progress)):
            remember(self.home, self.stack, run)
        return self._end(code, progress, log)

    # --- one run of pulumi ---

    def _stage(
        self, words: Sequence[str], events: Path, log: Path, total: Mapping[str, int] | None
    ) -> tuple[int, Progress]:
        preview = words[0] == "preview" or "--preview-only" in words
        progress = Progress([node.name for node in self.lab.nodes], total)
        events.unlink(missing_ok=True)
        started, earlier = time.time(), recall(self.home, self.stack)
        with log.open("a", encoding="utf-8") as output:
            output.write(f"\n--- pulumi {words[0]}{' (preview)' if preview else ''} of {self.stack} ---\n")
            output.flush()
            process = subprocess.Popen(
                [self.pulumi, *words, "--event-log", str(events), "--non-interactive", "--color", "never"],
                cwd=self.root,
                env={**self.environment, "PULUMI_DEBUG_COMMANDS": "true"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C reaches pulumi once, from here: a second interrupt would make it abandon its work.
                process_group=0,
            )
        with self._interrupts_to(process), Live(console=self.console, auto_refresh=False, transient=preview) as live:
            read = reader(events)

            def show(ended: bool) -> None:
                for event in read():
                    progress.take(event)
                seconds = time.time() - started
                live.update(
                    self._previewing(seconds) if preview else self._progress(progress, seconds, earlier, log, ended),
                    refresh=True,
                )

            while process.poll() is None:
                show(False)
                time.sleep(0.2)
            show(True)
        return (process.returncode if process.returncode >= 0 else 128 - process.returncode), progress

    @contextlib.contextmanager
    def _interrupts_to(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """Pulumi finishes its current work on the first interrupt, and abandons it on the second."""

        def interrupt(_number: int) -> None:
            self._interrupts += 1
            process.send_signal(signal.SIGINT)

        with signals.handling(dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), interrupt)):
            yield

    # --- what is shown ---

    def _previewing(self, seconds: float) -> Text:
        said = f"\n{self._interrupted()}" if self._interrupts else ""
        return Text(f"{self.command} {self.stack}: what changes … {duration(seconds)}{said}")

    def _progress(
        self, progress: Progress, seconds: float, earlier: Sequence[Run], log: Path, ended: bool
    ) -> RenderableType:
        phases = [phase for phase in model.PHASES if phase in self._phases(progress)]
        working = [phase for phase in phases if state_of(progress, phase) != "unchanged"]
        guess = model.expected(self.command, self.lab.machines, working, earlier)
        title = f"{self.command} {self.stack}: {duration(seconds)}{'' if ended else expected_time(guess)}"
        if self.command == "destroy":
            phases.reverse()
        where = Text(f"log: {self._short(log)}", style="dim", no_wrap=True, overflow="ignore")
        lines: list[RenderableType] = [Text(title, style="bold"), table(progress, phases, guess, self._marks()), where]
        if self._interrupts:
            lines.append(Text(self._interrupted(), style="bold"))
        elif failed := after_failure(progress, self.command):
            lines.append(Text(failed, style="bold"))
        return Group(*lines)

    def _phases(self, progress: Progress) -> set[str]:
        if progress.total is not None:
            return set(progress.total) | set(progress.phases)
        return set(progress.phases) | (set(model.phases_of(self.lab)) if self.command == "up" else set())

    def _marks(self) -> Mapping[str, str]:
        return MARKS if self.console.encoding.lower().startswith("utf") else PLAIN_MARKS

    def _interrupted(self) -> str:
        if self._interrupts > 1:
            return "interrupted: abandons its current work"
        return "interrupted: finishes its current work first; Ctrl-C again abandons it"

    def _agree(self, log: Path) -> bool:
        question = {"up": "Apply these changes?", "destroy": "Remove the lab?"}[self.command]
        while True:
            try:
                answer = self.console.input(f"{question} yes, no, details: ").strip().lower()
            except (EOFError, KeyboardInterrupt):
                answer = "no"
            if answer in ("d", "details"):
                self.console.print(log.read_text(encoding="utf-8", errors="replace"), markup=False, highlight=False)
            elif answer in ("y", "yes"):
                return True
            elif answer in ("n", "no", ""):
                return False

    def _end(self, code: int, progress: Progress, log: Path) -> int:
        if code:
            errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
            for failure in progress.failures:
                errors.print("\n".join(describe(failure)))
            if not progress.failures:
                last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:]
                errors.print("\n".join(f"  {model.clean(line)}" for line in last))
            errors.print(f"The whole log: {self._short(log)}\nTry again: ./lab {self.command} {self.stack}")
        return code

    def _short(self, path: Path) -> str:
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    def _new_log(self) -> Path:
        """A new file with mode 0600: pulumi masks secrets in its output, but a script may print anything."""
        folder = self.home / "logs"
        folder.mkdir(mode=0o700, exist_ok=True)
        older = sorted(folder.glob(f"{self.stack}-[0-9]*.log"))
        for path in older[: max(0, len(older) - KEPT_LOGS + 1)]:
            path.unlink(missing_ok=True)
        path = folder / f"{self.stack}-{time.strftime('%Y%m%d-%H%M%S')}.log"
        path.touch(mode=0o600)
        return path


def table(
    progress: Progress, phases: Sequence[str], guess: Expected, marks: Mapping[str, str], now: float | None = None
) -> Table:
    """A line for each phase, and below it what is being worked on, the oldest first."""
    now = max(time.time(), progress.last) if now is None else now
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, justify="right")
    # Only this column is shortened if a line is too long.
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    left = MAX_WORK_LINES
    few = sum(len(phase.running) for phase in progress.phases.values()) <= MAX_REASONS
    for name in phases:
        phase = progress.phases.get(name, model.Phase())
        state = state_of(progress, name)
        due = guess.phases.get(name)
        took = duration(phase.seconds(now)) if phase.began is not None else ""
        about = f"of about {duration(due)}" if due and state in ("running", "waiting") else ""
        total = (progress.total or {}).get(name)
        count = f"{phase.done}/{total}  " if total and state == "running" else ""
        grid.add_row(
            Text(f" {marks[state]}", STYLES[state]), Text(name, STYLES[state]), Text(took), Text(count + about, "dim")
        )
        for work in sorted(phase.running.values(), key=lambda w: w.began)[:left]:
            left -= 1
            doing = Text(work.line or work.what)
            if few and REASON.match(work.line):
                doing = Text(work.line[:MAX_REASON_CHARACTERS], no_wrap=False, overflow="fold")
            grid.add_row("", Text(f"  {work.node or work.what}"), duration(now - work.began), doing)
    if more := sum(len(phase.running) for phase in progress.phases.values()) - (MAX_WORK_LINES - left):
        grid.add_row("", Text(f"  … and {more} more"))
    return grid


def state_of(progress: Progress, name: str) -> str:
    phase = progress.phases.get(name)
    total = (progress.total or {}).get(name)
    if phase is None:
        return "waiting"
    if phase.failed:
        return "failed"
    if phase.running:
        return "running"
    if phase.began is None and phase.unchanged:
        return "unchanged"
    return "done" if total is None or phase.done >= total else "waiting"


def after_failure(progress: Progress, command: str) -> str:
    """What a run that has failed still waits for: pulumi begins nothing new, and ends when all that runs has ended."""
    running = sorted((work for phase in progress.phases.values() for work in phase.running.values()), key=_began)
    if not progress.failures or not running:
        return ""
    named = ", ".join(work.what for work in running[:MAX_REASONS])
    more = f" and {len(running) - MAX_REASONS} more" if len(running) > MAX_REASONS else ""
    which = f"{describe(progress.failures[0])[0]}\n{command} ends when what runs has ended: {named}{more}"
    return f"{which}. A Kubernetes object may take 10 min; Ctrl-C twice abandons it"


def _began(work: model.Work) -> float:
    return work.began


def expected_time(guess: Expected) -> str:
    if not guess.total:
        return ""
    source = {0: "typical", 1: "as its last run"}.get(guess.runs, f"as its last {guess.runs} runs")
    return f" of about {duration(guess.total)} ({source})"


def duration(seconds: float) -> str:
    """42 s, 3 min 07 s."""
    whole = max(0, round(seconds))
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02} s"


def changes(plan: Progress, *, name_deleted: bool) -> str:
    """What a preview found: how many changes of each kind, and the names of what is deleted."""
    if not plan.changes:
        return "Nothing changes."
    lines = ["Changes: " + ", ".join(f"{count} {op}" for op, count in sorted(plan.changes.items()))]
    gone = [*plan.planned.get("delete-replaced", ()), *plan.planned.get("delete", ())] if name_deleted else []
    lines += [f"  deleted: {name}" for name in gone[:10]]
    if len(gone) > 10:
        lines.append(f"  … and {len(gone) - 10} more")
    return "\n".join(lines)


def describe(failure: Failure) -> list[str]:
    """A failure in lines: where it happened, and the end of its message."""
    where = ", ".join(
        [f"phase {failure.phase}"] * bool(failure.phase)
        + [f"node {failure.node}"] * bool(failure.node)
        + [failure.what] * bool(failure.what)
    )
    return [f"Failed: {where or 'the program'}", *(f"  {line}" for line in failure.lines)]


def reader(path: Path) -> Callable[[], list[Any]]:
    """A function that returns the events added since its last call. An incomplete line waits for its rest."""
    offset, rest = 0, b""

    def read() -> list[Any]:
        nonlocal offset, rest
        if not path.exists():
            return []
        with path.open("rb") as file:
            file.seek(offset)
            *lines, rest = (rest + file.read()).split(b"\n")
            offset = file.tell()
        events = []
        for line in lines:
            with contextlib.suppress(ValueError):
                events.append(json.loads(line))
        return events

    return read


# --- times of earlier runs --------------------------------------------------------------------------------------------


def remember_events(home: Path, stack: str, command: str, lab: Lab, events: Path) -> None:
    """Remember a run that had no screen, from its event log."""
    progress = Progress([node.name for node in lab.nodes])
    for event in reader(events)():
        progress.take(event)
    if run := model.run_of(command, progress):
        remember(home, stack, run)


def recall(home: Path, stack: str) -> list[Run]:
    """The successful runs of a stack, the oldest first; none if their file cannot be read."""
    try:
        found = json.loads((home / "times" / f"{stack}.json").read_text(encoding="utf-8"))
        return [
            Run(str(run["command"]), {p: (float(a), float(b)) for p, (a, b) in run["phases"].items()}) for run in found
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return []


def remember(home: Path, stack: str, run: Run) -> None:
    """Keep this run among the last successful ones of its command."""
    runs = [*recall(home, stack), run]
    kept = [it for c in ("up", "destroy") for it in [r for r in runs if r.command == c][-KEPT_RUNS:]]
    folder = home / "times"
    folder.mkdir(mode=0o700, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as draft:
        json.dump([{"command": it.command, "phases": it.phases} for it in kept], draft)
    Path(draft.name).replace(folder / f"{stack}.json")
