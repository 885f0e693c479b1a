"""Mutation run: whether the tests notice that a program is wrong. `python -m tests.mutation [FILE ...]`.

cosmic-ray changes one thing in a product file (a comparison, a number, a condition, a decorator), and the tests of that
file's room must then fail. A change that no test notices is a survivor, and is printed. Without FILE, the files run
that differ from the branch `main`. pyproject.toml has the rooms and their tests ([tool.cni-lab.mutation]).

It works on a copy of the checkout. A mutant takes as long as its tests: seconds. `--sample N` tries N mutants of each
file instead of all, the same ones every time. Exit code 1 if fewer than `--least` per cent of the mutants are noticed.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cosmic_ray.commands import execute, init
from cosmic_ray.config import ConfigDict
from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import TestOutcome, WorkerOutcome, WorkItem, WorkResult

ROOT = Path(__file__).resolve().parents[1]
SETTINGS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["cni-lab"]["mutation"]


def tests_of(file: str) -> list[str]:
    """The tests of the room that a file is in; none if the file is in no room. The longest path wins."""
    rooms = [room for room in SETTINGS["rooms"] if file == room or file.startswith(f"{room}/")]
    tests: list[str] = SETTINGS["rooms"][max(rooms, key=len)] if rooms else []
    return tests


def changed_files(base: str) -> list[str]:
    command = ["git", "diff", "--name-only", "--diff-filter=d", base, "--", "*.py"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in names if tests_of(name)]


@contextlib.contextmanager
def copy_of_checkout() -> Iterator[Path]:
    """A copy of the tracked files as they are now, so that nobody sees a mutant in the checkout."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    with tempfile.TemporaryDirectory(prefix="cnilab-mutation-") as folder:
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).is_file():
                target = Path(folder, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, target)
        with contextlib.chdir(folder):
            yield Path(folder)


def says_nothing(item: WorkItem, lines: Sequence[str]) -> bool:
    """Whether a mutant is the same program for all that matters.

    It puts something in place of the `*` before parameters that are given by name, which cosmic-ray takes for a
    product. Or it compares a word of the stack file by the alphabet.
    """
    mutation = item.mutations[0]
    line, column = mutation.start_pos
    operator, code = mutation.operator_name, lines[line - 1][column:]
    if re.search(r"_(Eq_[GL]tE|NotEq_[GL]t)$", operator):
        return re.match(r"[=!]= ?[\"']", code) is not None
    return "_Mul_" in operator and code.startswith("*,")


def choose(work: WorkDB, file: str, sample: int | None) -> None:
    """Leave out the operators that say nothing here, and all but `sample` of the rest."""
    excluded = re.compile("|".join(SETTINGS["exclude-operators"]))
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    items = sorted(work.pending_work_items, key=lambda item: (item.mutations[0].start_pos, item.job_id))
    useful = [item for item in items if not excluded.fullmatch(item.mutations[0].operator_name)]
    useful = [item for item in useful if not says_nothing(item, lines)]
    useful.sort(key=lambda item: (item.mutations[0].start_pos, item.mutations[0].operator_name))
    chosen = useful if sample is None else random.Random(0).sample(useful, min(sample, len(useful)))
    kept = {item.job_id for item in chosen}
    for item in items:
        if item.job_id not in kept:
            work.set_result(item.job_id, WorkResult(worker_outcome=WorkerOutcome.SKIPPED))


def run(file: str, sample: int | None) -> tuple[int, list[str]]:
    """The number of mutants of a file that were tried, and the difference of each survivor."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests_of(file)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        sys.exit(f"{file}: its tests fail without a mutant: {' '.join(command)}")
    config = ConfigDict(
        {
            "test-command": " ".join(command),
            "timeout": SETTINGS["timeout-seconds"],
            "distributor": {"name": "local"},
        }
    )
    with use_db("mutation.sqlite", WorkDB.Mode.create) as work:
        init([Path(file)], work, {})
        choose(work, file, sample)
        execute(work, config)
        results = [result for _, result in work.results if result.worker_outcome != WorkerOutcome.SKIPPED]
    broken = [result for result in results if result.worker_outcome == WorkerOutcome.EXCEPTION]
    if broken:
        sys.exit(f"{file}: a mutant could not be tried: {broken[0].output}")
    return len(results), [r.diff or "" for r in results if r.test_outcome == TestOutcome.SURVIVED]


def shown(difference: str) -> str:
    """The place and the changed lines of a mutant, without their surroundings."""
    place = re.search(r"^@@ -(\d+)", difference, re.MULTILINE)
    lines = [line for line in difference.splitlines() if re.match(r"[-+](?![-+]{2} )", line)]
    first = int(place[1]) + 3 if place else 0
    return f"about line {first}:\n" + "\n".join(f"    {line}" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("files", nargs="*", metavar="FILE", help="product files; default: those that differ from BASE")
    parser.add_argument("--base", default="main", help="the commit that changed files are compared with")
    parser.add_argument("--sample", type=int, help="try so many mutants of each file")
    parser.add_argument("--least", type=float, default=95, help="per cent of mutants that must be noticed")
    given = parser.parse_args(arguments)
    if homeless := [file for file in given.files if not tests_of(file)]:
        parser.error(f"{homeless[0]} is in no room of [tool.cni-lab.mutation] in pyproject.toml")
    files = given.files or changed_files(given.base)
    tried, survived = 0, 0
    with copy_of_checkout():
        for file in files:
            count, survivors = run(file, given.sample)
            tried, survived = tried + count, survived + len(survivors)
            print(f"{file}: {count - len(survivors)} of {count} mutants noticed", flush=True)
            for difference in survivors:
                print(f"  {shown(difference)}", flush=True)
    if not tried:
        print("no mutants: no changed file is in a room of [tool.cni-lab.mutation]")
        return 0
    score = 100 * (tried - survived) / tried
    print(f"in all {tried - survived} of {tried} mutants noticed: {score:.1f} % (at least {given.least:g} %)")
    return int(score < given.least)


if __name__ == "__main__":
    sys.exit(main())
