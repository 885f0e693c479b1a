"""`./lab exercise STACK --answers`: what seeds stand for, so that a teacher can choose among them beforehand."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from rich.markup import escape

from cli.console import page
from cli.errors import FAILED, CommandError
from cli.live.stack import is_up, live
from cli.project import stack_file
from cli.sandbox.choice import sandbox_of
from components.sandbox.fit import fit
from components.sandbox.requirements import examine
from components.spec.load import load_stack_file
from components.verify.exercise.choose import choose
from components.verify.exercise.layers import Case
from components.verify.exercise.lessons import LESSONS
from components.verify.faults.model import Refused
from components.verify.faults.symptoms import symptoms
from components.verify.model import ObservedLab
from components.verify.read.reading import LiveLab, observed, read_cluster
from page.foreseen.lab import foresee

_SEEDS = range(1, 21)
"""Those that are listed where no seed is named: enough to choose a few of each level."""


@dataclass(frozen=True)
class Answer:
    """What one seed stands for. `answer`: what is done, and where; `report`: what the class is told."""

    seed: int
    level: int
    fault: str
    node: str
    answer: str
    report: str
    hints: int


def run(stack: str, seed: int | None, level: int | None, *, as_json: bool, sandbox: bool) -> int:
    """List a seed, or the first ones. Returns 0. Raises CommandError, SpecError."""
    of, on_sandbox, source = _lab(stack, sandbox=sandbox)
    seeds = _SEEDS if seed is None else [seed]
    try:
        found = [_answer(of, number, level, sandbox=on_sandbox) for number in seeds]
    except Refused as error:
        raise CommandError(str(error), FAILED) from None
    if as_json:
        print(json.dumps([vars(answer) for answer in found], indent=2, ensure_ascii=False))
        return 0
    console = page()
    option = f" --level {level}" if level else ""
    console.print(f"[bold]{escape(stack)}[/]: what `./lab exercise {escape(stack)} --seed N{option}` does {source}\n")
    for answer in found:
        console.print(
            f"{answer.seed:4}  level {answer.level}  [bold]{escape(answer.fault)}[/]: {escape(answer.answer)}",
            soft_wrap=True,
        )
        console.print(f"               [dim]{escape(answer.report)}[/]", soft_wrap=True)
    return 0


def _lab(stack: str, *, sandbox: bool) -> tuple[ObservedLab, bool, str]:
    """The lab as an exercise would find it, whether it is a sandbox, and where that was read."""
    live_sandbox = sandbox_of(stack, sandbox)
    if live_sandbox is None and is_up(stack):
        return _read(live(stack)), False, "in the deployed lab"
    if live_sandbox is not None:
        return _read(LiveLab.of(live_sandbox.lab, live_sandbox.outputs, None)), True, "in the sandbox"
    file_lab = load_stack_file(stack_file(stack)).lab
    lab, _ = fit(file_lab, examine(file_lab))
    return observed(*foresee(lab, stack)), True, "in a sandbox of this computer"


def _read(lab: LiveLab) -> ObservedLab:
    reading = asyncio.run(read_cluster(lab))
    if reading.no_api:
        raise CommandError(reading.no_api, FAILED)
    return observed(lab, reading)


def _answer(of: ObservedLab, seed: int, level: int | None, *, sandbox: bool) -> Answer:
    fault, target = choose(of, seed, level, sandbox=sandbox)
    case, lesson = Case.of(of, target, symptoms(fault, of, target)), LESSONS[fault.id]
    report, hints = lesson.report(case), len(lesson.hints(case))
    return Answer(seed, lesson.level, fault.id, target.node, target.sentence, report, hints)
