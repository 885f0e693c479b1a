"""`./lab exercise`: break something without saying what, help to find it, and say whether it is found."""

from __future__ import annotations

import asyncio
import fcntl
import json
import random
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from cli import project
from cli.console import page
from cli.errors import FAILED, USAGE, CommandError
from cli.live import last_verify
from cli.sandbox.choice import chosen_live
from components.verify.exercise.choose import choose
from components.verify.exercise.layers import Case
from components.verify.exercise.lessons import LESSONS
from components.verify.exercise.model import RECORDED_AS, Exercise, pack, unpack
from components.verify.faults.inject import inject
from components.verify.faults.inject import mend as undo
from components.verify.faults.model import Mended, Refused
from components.verify.faults.symptoms import symptoms
from components.verify.faults.table import FAULTS
from components.verify.model import Result
from components.verify.read.connection import Unreachable
from components.verify.read.reading import LiveLab, observed, read_lab
from components.verify.report import count
from components.verify.report import verify as check_all

_SEEDS = 10_000


def run(
    stack: str,
    seed: int | None = None,
    level: int | None = None,
    *,
    hint: bool = False,
    check: bool = False,
    solution: bool = False,
    as_json: bool = False,
    sandbox: bool = False,
) -> int:
    """Start an exercise, or go on with the one that runs. Returns 0; 1 where `check` finds it unsolved. Raises
    CommandError, SpecError."""
    if hint + check + solution > 1:
        raise CommandError("--hint, --check and --solution: one at a time", USAGE)
    going_on = hint or check or solution
    if going_on and (seed is not None or level is not None):
        raise CommandError("--seed and --level begin an exercise: leave them out", USAGE)
    with _records(stack) as records:
        if not going_on:
            if as_json and seed is None and level is None:
                print(json.dumps(records.document(), indent=2, ensure_ascii=False))
                return 0
            return _start(stack, records, seed, level, as_json, sandbox)
        exercise = records.running
        if exercise is None:
            raise CommandError(f"no exercise of {stack} runs: `./lab exercise {shlex.quote(stack)}` begins one", USAGE)
        if hint:
            return _hint(records, exercise, as_json)
        lab = chosen_live(stack, sandbox=sandbox)
        return _check(records, exercise, lab, as_json) if check else _solve(records, exercise, lab, as_json)


# --- what is kept -----------------------------------------------------------------------------------------------------


class _Records:
    """The exercise of a stack that runs, and the results of those that are over."""

    def __init__(self, stack: str, folder: Path) -> None:
        self.stack = stack
        self._file, self._results = folder / f"{stack}.running", folder / f"{stack}.json"

    @property
    def running(self) -> Exercise | None:
        """Raises CommandError where the record is damaged."""
        try:
            return unpack(self._file.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise CommandError(
                f"{self._file}: {error}; remove it, then `./lab mend {shlex.quote(self.stack)}`", FAILED
            ) from None

    @property
    def results(self) -> list[dict[str, Any]]:
        """Of the exercises that are over, the oldest first."""
        try:
            found = json.loads(self._results.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return []
        except ValueError:
            raise CommandError(f"{self._results} is damaged: move it away", FAILED) from None
        return list(found)

    def keep(self, exercise: Exercise) -> None:
        """The exercise as it is now; one that is over becomes a result."""
        if exercise.outcome == "running":
            _write(self._file, pack(exercise))
            return
        results = [*self.results, exercise.result()]
        _write(self._results, (json.dumps(results, indent=2, ensure_ascii=False) + "\n").encode())
        self._file.unlink(missing_ok=True)

    def drop(self) -> None:
        """Forget the exercise that runs."""
        self._file.unlink(missing_ok=True)

    def document(self) -> dict[str, Any]:
        running = self.running
        return {"stack": self.stack, "running": running and running.result(), "results": self.results}


def _write(path: Path, content: bytes) -> None:
    """At once or not at all."""
    draft = path.with_name(f".{path.name}.new")
    draft.write_bytes(content)
    draft.replace(path)


@contextmanager
def _records(stack: str) -> Iterator[_Records]:
    """Locked: two commands at once would break two things. Raises CommandError."""
    project.stack_file(stack)
    folder = project.HOME / "exercises"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / f".{stack}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CommandError(f"another ./lab exercise {stack} is at work: wait for it", FAILED) from None
        yield _Records(stack, folder)


# --- the commands -----------------------------------------------------------------------------------------------------


def _start(stack: str, records: _Records, seed: int | None, level: int | None, as_json: bool, sandbox: bool) -> int:
    quoted = shlex.quote(stack)
    if (running := records.running) is not None:
        raise CommandError(
            f"an exercise runs already (seed {running.seed}): `./lab exercise {quoted} --check` when it is solved, "
            f"`--solution` to give up",
            USAGE,
        )
    seed = random.SystemRandom().randrange(1, _SEEDS) if seed is None else seed
    lab = chosen_live(stack, sandbox=sandbox)
    results, reading = _look(lab)
    if bad := [result for result in results if result.status != "passed"]:
        raise CommandError(
            f"{stack} is not whole, so an exercise would show more than one fault: {len(bad)} of {len(results)} checks "
            f"do not pass. See `./lab verify {quoted}`; what `./lab break` did, `./lab mend {quoted}` undoes",
            FAILED,
        )
    of = observed(lab, reading)
    try:
        fault, target = choose(of, seed, level, sandbox=lab.sandbox)
        wanted = symptoms(fault, of, target)
        case, lesson = Case.of(of, target, wanted), LESSONS[fault.id]
        exercise = Exercise(
            stack=stack,
            seed=seed,
            level=lesson.level,
            fault=fault.id,
            node=target.node,
            report=lesson.report(case),
            answer=target.sentence,
            hints=tuple(lesson.hints(case)),
            started=time.time(),
        )
        # The record first: a fault without one would be found by verify alone.
        records.keep(exercise)
        last_verify.forget(stack, sandbox=lab.sandbox)
        asyncio.run(inject(lab, stack, fault, target, RECORDED_AS))
    except Refused as error:
        records.drop()
        raise CommandError(f"seed {seed} cannot be had here: {error}. Take another --seed or --level", FAILED) from None
    except Unreachable as error:
        raise CommandError(f"{error}. `./lab exercise {quoted} --solution` undoes what was done", FAILED) from None
    if as_json:
        print(json.dumps(exercise.result(), indent=2, ensure_ascii=False))
        return 0
    console = page()
    console.print(f"[bold]{escape(stack)}[/], exercise {seed}, level {exercise.level} of 3\n", soft_wrap=True)
    console.print(f"  {escape(exercise.report)}\n", soft_wrap=True)
    console.print("Find out what is broken, and repair it on the nodes: `./lab ssh`, `walk`, `addresses`, `verify`.")
    for option, what in (
        ("--hint", f"the next of {len(exercise.hints)} hints, from layer to layer"),
        ("--check", "is it solved?"),
        ("--solution", "what was broken; repairs it"),
    ):
        console.print(f"  ./lab exercise {escape(quoted)} {option:10}  {what}", soft_wrap=True)
    return 0


def _look(lab: LiveLab) -> tuple[list[Result], Any]:
    reading = asyncio.run(read_lab(lab))
    return check_all(lab, reading), reading


def _hint(records: _Records, exercise: Exercise, as_json: bool) -> int:
    number = min(exercise.shown + 1, len(exercise.hints))
    text, command = exercise.hints[number - 1]
    exercise = replace(exercise, shown=number)
    records.keep(exercise)
    command = command.replace("STACK", shlex.quote(exercise.stack))
    if as_json:
        print(json.dumps(exercise.result() | {"hint": text, "command": command}, indent=2, ensure_ascii=False))
        return 0
    console = page()
    last = " (the last)" if number == len(exercise.hints) else ""
    console.print(f"[bold]Hint {number} of {len(exercise.hints)}[/]{last}: {escape(text)}", soft_wrap=True)
    console.print(f"  {escape(command)}", soft_wrap=True)
    return 0


def _check(records: _Records, exercise: Exercise, lab: LiveLab, as_json: bool) -> int:
    """verify's verdict. What it finds is counted, not named: that would be the answer."""
    results, _ = _look(lab)
    last_verify.remember(exercise.stack, count(results), sandbox=lab.sandbox)
    failed = sum(result.status != "passed" for result in results)
    exercise = replace(exercise, checks=exercise.checks + 1)
    if failed:
        records.keep(exercise)
        if as_json:
            print(json.dumps(exercise.result() | {"failed": failed}, indent=2, ensure_ascii=False))
        else:
            page().print(f"[yellow]Not solved yet[/]: {failed} of {len(results)} checks do not pass.")
        return 1
    # What is recorded on the nodes is not needed any more; it also tells whether `./lab mend` was there first.
    mended = asyncio.run(undo(lab, exercise.stack))
    how = "hand" if _undone(mended, exercise) else "mend"
    exercise = replace(exercise, outcome="solved", ended=time.time(), how=how)
    records.keep(exercise)
    if as_json:
        print(json.dumps(exercise.result(), indent=2, ensure_ascii=False))
        return 0
    console = page()
    by = " by ./lab mend" if how == "mend" else ""
    effort = f"{_count(exercise.shown, 'hint')} of {len(exercise.hints)} and {_count(exercise.checks, 'check')}"
    console.print(
        f"[green]Solved{by}[/] in {_duration(exercise)}, with {effort}. All {len(results)} checks pass.",
        soft_wrap=True,
    )
    _explain(exercise, console)
    return 0


def _undone(mended: Mended, exercise: Exercise) -> bool:
    return any(undone.fault in (RECORDED_AS, exercise.fault) for undone in mended.undone)


def _solve(records: _Records, exercise: Exercise, lab: LiveLab, as_json: bool) -> int:
    last_verify.forget(exercise.stack, sandbox=lab.sandbox)
    mended = asyncio.run(undo(lab, exercise.stack))
    if mended.failed:
        node, why = next(iter(mended.failed.items()))
        raise CommandError(f"{node}: {why}: repeat when it answers", FAILED)
    exercise = replace(exercise, outcome="given up", ended=time.time())
    records.keep(exercise)
    if as_json:
        print(json.dumps(exercise.result() | {"answer": exercise.answer}, indent=2, ensure_ascii=False))
        return 0
    console = page()
    _explain(exercise, console)
    console.print("\nThe way there:")
    for text, command in exercise.hints:
        console.print(f"  {escape(text)}", soft_wrap=True)
        console.print(f"    {escape(command.replace('STACK', shlex.quote(exercise.stack)))}", soft_wrap=True)
    console.print("\nThe lab is repaired.")
    return 0


def _explain(exercise: Exercise, console: Console) -> None:
    fault = FAULTS.get(exercise.fault)
    console.print(f"\n[bold]{escape(exercise.fault)}[/]: {escape(fault.title if fault else '')}", soft_wrap=True)
    console.print(f"What was done: {escape(exercise.answer)}.", soft_wrap=True)


def _duration(exercise: Exercise) -> str:
    minutes, seconds = divmod(round(exercise.ended - exercise.started), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
