"""`up` and `destroy` on a terminal: a live picture of the run, its log in a file, and what to do where it fails."""

from __future__ import annotations

import contextlib
import json
import os
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

# Options that mean the same with a live picture; with any other, the engine's own output is shown.
UNDERSTOOD = {
    "-y", "--yes", "-f", "--skip-preview", "-t", "--target", "--target-dependents", "--replace", "-r", "--refresh",
    "-m", "--message", "--policy-pack", "-p", "--parallel"
}  # fmt: skip
KEPT_LOGS = 20
KEPT_RUNS = 5
MOST_WORKS = 12  # lines of one picture
MARKS = {"done": "✓", "running": "▸", "waiting": "·", "failed": "✗", "unchanged": "="}
PLAIN_MARKS = MARKS | {"done": "+", "running": ">", "waiting": ".", "failed": "x"}
STYLES = {"done": "green", "running": "bold", "waiting": "dim", "failed": "bold red", "unchanged": "dim"}


def wanted(command: str, arguments: Sequence[str]) -> bool:
    """Whether a person looks on, and asked for nothing that only the engine's own output shows."""
    options = {argument.split("=")[0] for argument in arguments if argument.startswith("-")}
    return (
        command in ("up", "destroy")
        and sys.stdout.isatty()
        and os.environ.get("TERM", "") not in ("", "dumb")
        and options <= UNDERSTOOD
    )


@dataclass
class Screen:
    """One `up` or `destroy` of a lab. `home`: the folder `.lab`, where the log and the times of runs are kept."""

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
        """Preview, ask, run. `events`: where the engine's events of the last part are to be found afterwards.
        Returns the engine's exit code; 1 where the person said no."""
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
            self.console.print(changes(plan, name_gone=self.command == "up"), highlight=False, markup=False)
            if plan.changes and not agreed and not self._agree(log):
                return 1
        self._interrupts = 0
        code, progress = self._stage([self.command, *passed, "--yes", "--skip-preview"], events, log, total)
        if code == 0 and (run := model.run_of(self.command, progress)):
            remember(self.home, self.stack, run)
        return self._end(code, progress, log)

    # --- one run of the engine ---

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
                # Ctrl-C comes to the engine once, from here: a second one would make it drop what it is at.
                process_group=0,
            )
        with self._interrupts_to(process), Live(console=self.console, auto_refresh=False, transient=preview) as live:
            read = reader(events)

            def show(ended: bool) -> None:
                for event in read():
                    progress.take(event)
                seconds = time.time() - started
                live.update(
                    self._previewing(seconds) if preview else self._picture(progress, seconds, earlier, log, ended),
                    refresh=True,
                )

            while process.poll() is None:
                show(False)
                time.sleep(0.2)
            show(True)
        return (process.returncode if process.returncode >= 0 else 128 - process.returncode), progress

    @contextlib.contextmanager
    def _interrupts_to(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """The engine ends what it is at on a first interrupt, and drops it on a second."""

        def interrupt(_number: int) -> None:
            self._interrupts += 1
            process.send_signal(signal.SIGINT)

        with signals.handling(dict.fromkeys((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), interrupt)):
            yield

    # --- what is shown ---

    def _previewing(self, seconds: float) -> Text:
        said = f"\n{self._interrupted()}" if self._interrupts else ""
        return Text(f"{self.command} {self.stack}: what changes … {span(seconds)}{said}")

    def _picture(
        self, progress: Progress, seconds: float, earlier: Sequence[Run], log: Path, ended: bool
    ) -> RenderableType:
        phases = [phase for phase in model.PHASES if phase in self._phases(progress)]
        working = [phase for phase in phases if state_of(progress, phase) != "unchanged"]
        guess = model.expected(self.command, self.lab.machines, working, earlier)
        title = f"{self.command} {self.stack}: {span(seconds)}{'' if ended else of_about(guess)}"
        if self.command == "destroy":
            phases.reverse()
        where = Text(f"log: {self._short(log)}", style="dim", no_wrap=True, overflow="ignore")
        lines: list[RenderableType] = [Text(title, style="bold"), table(progress, phases, guess, self._marks()), where]
        if self._interrupts:
            lines.append(Text(self._interrupted(), style="bold"))
        return Group(*lines)

    def _phases(self, progress: Progress) -> set[str]:
        if progress.total is not None:
            return set(progress.total) | set(progress.phases)
        return set(progress.phases) | (set(model.phases_of(self.lab)) if self.command == "up" else set())

    def _marks(self) -> Mapping[str, str]:
        return MARKS if self.console.encoding.lower().startswith("utf") else PLAIN_MARKS

    def _interrupted(self) -> str:
        if self._interrupts > 1:
            return "interrupted: drops what it is at"
        return "interrupted: ends what it is at first; Ctrl-C again drops it"

    def _agree(self, log: Path) -> bool:
        asks = {"up": "Make it so?", "destroy": "Take it away?"}[self.command]
        while True:
            try:
                answer = self.console.input(f"{asks} yes, no, details: ").strip().lower()
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
            say = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
            for failure in progress.failures:
                say.print("\n".join(told(failure)))
            if not progress.failures:
                last = log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:]
                say.print("\n".join(f"  {model.clean(line)}" for line in last))
            say.print(f"The whole log: {self._short(log)}\nTry again: ./lab {self.command} {self.stack}")
        return code

    def _short(self, path: Path) -> str:
        return str(path.relative_to(self.root) if path.is_relative_to(self.root) else path)

    def _new_log(self) -> Path:
        """Readable by its owner alone. The engine shows no secret in it, but what a script says is the script's."""
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
    """A line for each phase, and under it what is being worked on, the longest first."""
    now = max(time.time(), progress.last) if now is None else now
    grid = Table.grid(padding=(0, 1), expand=True)
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True)
    grid.add_column(no_wrap=True, justify="right")
    # What does not fit on the line is cut here and nowhere else.
    grid.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    left = MOST_WORKS
    for name in phases:
        phase = progress.phases.get(name, model.Phase())
        state = state_of(progress, name)
        due = guess.phases.get(name)
        took = span(phase.seconds(now)) if phase.began is not None else ""
        about = f"of about {span(due)}" if due and state in ("running", "waiting") else ""
        total = (progress.total or {}).get(name)
        count = f"{phase.done}/{total}  " if total and state == "running" else ""
        grid.add_row(
            Text(f" {marks[state]}", STYLES[state]), Text(name, STYLES[state]), Text(took), Text(count + about, "dim")
        )
        for work in sorted(phase.running.values(), key=lambda w: w.began)[:left]:
            left -= 1
            grid.add_row("", Text(f"  {work.node or work.what}"), span(now - work.began), Text(work.line or work.what))
    if more := sum(len(phase.running) for phase in progress.phases.values()) - (MOST_WORKS - left):
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


def of_about(guess: Expected) -> str:
    if not guess.total:
        return ""
    source = {0: "a rule of thumb", 1: "as its last run"}.get(guess.runs, f"as its last {guess.runs} runs")
    return f" of about {span(guess.total)} ({source})"


def span(seconds: float) -> str:
    """42 s, 3 min 07 s."""
    whole = max(0, round(seconds))
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02} s"


def changes(plan: Progress, *, name_gone: bool) -> str:
    """What a preview found: counts, and by name what goes."""
    if not plan.changes:
        return "Nothing changes."
    lines = ["Changes: " + ", ".join(f"{count} {op}" for op, count in sorted(plan.changes.items()))]
    gone = [*plan.planned.get("delete-replaced", ()), *plan.planned.get("delete", ())] if name_gone else []
    lines += [f"  goes: {name}" for name in gone[:10]]
    if len(gone) > 10:
        lines.append(f"  … and {len(gone) - 10} more")
    return "\n".join(lines)


def told(failure: Failure) -> list[str]:
    """A failure for a person: where, and the last lines."""
    where = ", ".join(
        [f"phase {failure.phase}"] * bool(failure.phase)
        + [f"node {failure.node}"] * bool(failure.node)
        + [failure.what] * bool(failure.what)
    )
    return [f"Failed: {where or 'the program'}", *(f"  {line}" for line in failure.lines)]


def reader(path: Path) -> Callable[[], list[Any]]:
    """Returns the events that were added since it was called last; a line that is not whole yet waits."""
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


def keep_time(home: Path, stack: str, command: str, lab: Lab, events: Path) -> None:
    """The same for a run that nobody looked on."""
    progress = Progress([node.name for node in lab.nodes])
    for event in reader(events)():
        progress.take(event)
    if run := model.run_of(command, progress):
        remember(home, stack, run)


def recall(home: Path, stack: str) -> list[Run]:
    """Runs of a stack that ended well, the oldest first. A file that cannot be read is none."""
    try:
        found = json.loads((home / "times" / f"{stack}.json").read_text(encoding="utf-8"))
        return [
            Run(str(run["command"]), {p: (float(a), float(b)) for p, (a, b) in run["phases"].items()}) for run in found
        ]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return []


def remember(home: Path, stack: str, run: Run) -> None:
    """Keep the last runs of each command that ended well."""
    runs = [*recall(home, stack), run]
    kept = [it for c in ("up", "destroy") for it in [r for r in runs if r.command == c][-KEPT_RUNS:]]
    folder = home / "times"
    folder.mkdir(mode=0o700, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as draft:
        json.dump([{"command": it.command, "phases": it.phases} for it in kept], draft)
    Path(draft.name).replace(folder / f"{stack}.json")
