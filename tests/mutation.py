"""Mutation run: whether the tests notice that a program is wrong. `python -m tests.mutation [FILE ...]`.

cosmic-ray changes one thing in a product file (a comparison, a number, a condition, a decorator), and the tests of that
file's room must then fail. A change that no test notices is a survivor, and is printed. Without FILE, the files run
that differ from the branch `main`. pyproject.toml has the rooms and their tests ([tool.cni-lab.mutation]).

It works on a copy of the checkout. A run of all mutants takes long. `--sample N` tries N of each file, the same ones
every time; `--new` those of lines that the branch does not have; `--again LOG` those that an earlier run has left.
A change that makes no other program stands in tests/same_program.toml with the reason, and is not tried. Exit code 1 if
fewer than `--least` per cent of the mutants are noticed, or if that file has a change that no mutant makes.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import gc
import importlib
import multiprocessing
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from itertools import groupby
from multiprocessing.connection import Connection
from operator import or_
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any

import pytest
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).resolve().parents[1]
SETTINGS: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["cni-lab"]["mutation"]
SAME_PROGRAM: dict[str, dict[str, str]] = tomllib.loads((ROOT / "tests" / "same_program.toml").read_text())
CONTEXT = multiprocessing.get_context("fork")
PYTEST = ("-x", "-q", "-p", "no:cacheprovider")


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
        for compiled in {Path(name).parent / "__pycache__" for name in listed.split("\0") if name.endswith(".py")}:
            if (ROOT / compiled).is_dir():
                shutil.copytree(ROOT / compiled, Path(folder, compiled))
        with contextlib.chdir(folder):
            yield Path(folder)


@dataclass(frozen=True, order=True)
class Mutant:
    """The change that an operator of cosmic-ray makes at one of its places in a file, which it counts.

    `start`: the line, from 1, and the column.
    """

    start: tuple[int, int]
    operator: str
    occurrence: int

    def applied(self, text: str) -> str:
        return str(mutate_code(text, get_operator(self.operator)(), self.occurrence))


def says_nothing(mutant: Mutant, lines: Sequence[str]) -> bool:
    """Whether a mutant is the same program for all that matters.

    It puts something in place of the `*` before parameters that are given by name, which cosmic-ray takes for a
    product. Or it compares a word of the stack file by the alphabet.
    """
    line, column = mutant.start
    code = lines[line - 1][column:]
    if re.search(r"_(Eq_[GL]tE|NotEq_[GL]t)$", mutant.operator):
        return re.match(r"[=!]= ?[\"']", code) is not None
    return "_Mul_" in mutant.operator and code.startswith("*,")


def mutants_of(text: str, sample: int | None) -> list[Mutant]:
    """The mutants in the order of the file, without those that say nothing; only `sample` of them if it is given."""
    excluded = re.compile("|".join(SETTINGS["exclude-operators"]))
    nodes = list(ast_nodes(get_ast(text)))
    found = []
    for name in operator_names():
        operator = get_operator(name)
        if not excluded.fullmatch(name) and not operator.arguments():
            places = [start for node in nodes for start, _ in operator().mutation_positions(node)]
            found += [Mutant(start, name, number) for number, start in enumerate(places)]
    lines = text.splitlines()
    useful = sorted(mutant for mutant in found if not says_nothing(mutant, lines))
    if sample is None or sample >= len(useful):
        return useful
    return sorted(random.Random(0).sample(useful, sample))


# --- one mutant -------------------------------------------------------------------------------------------------------
#
# Most mutants take tens of milliseconds, because nothing is imported or collected for them. This process imports the
# packages that the tests need. A fork of it, the collector, collects the tests, and runs them once to see which lines
# each of them reaches. For each mutant, a fork of the collector gets the changed code into its functions, and runs the
# tests, first those that reach most lines of a changed function. That sees no changed constant, decorator or
# annotation, and no function that had its effect during the import. So what these tests do not notice is tried again: a
# fork of this process imports the changed file and runs the same tests from the start.


def _start_child(folder: Path) -> None:
    """Make this process, a fork, ready to import the copy of the checkout in `folder`. Its output is discarded."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, sys.stdout.fileno())
    os.dup2(null, sys.stderr.fileno())
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    # Bytecode is found by time in seconds and by size, and two mutants of one second may have the same size.
    sys.dont_write_bytecode = True


def _limit_cpu_time() -> None:
    """A mutant may be a loop without end. Processor time is the same on a busy computer."""
    resource.setrlimit(resource.RLIMIT_CPU, (SETTINGS["cpu-seconds"], SETTINGS["cpu-seconds"]))


def _run_from_the_start(folder: Path, tests: Sequence[str], keep_bytecode: bool, report: Connection) -> None:
    _start_child(folder)
    sys.dont_write_bytecode = not keep_bytecode
    _limit_cpu_time()
    code = int(pytest.main([*PYTEST, *tests]))
    files = [(name, getattr(module, "__file__", None)) for name, module in list(sys.modules.items())]
    report.send([name for name, file in files if file and not Path(file).is_relative_to(folder)])
    os._exit(code)


def run_from_the_start(tests: Sequence[str], keep_bytecode: bool = False) -> tuple[int, list[str]]:
    """The exit code of the tests, and the modules from outside the checkout that they loaded."""
    receiver, sender = CONTEXT.Pipe(duplex=False)
    child = CONTEXT.Process(target=_run_from_the_start, args=(Path.cwd(), tests, keep_bytecode, sender))
    child.start()
    sender.close()
    loaded: list[str] = []
    with contextlib.suppress(EOFError):  # The process may end without a report, by a signal.
        loaded = receiver.recv()
    child.join()
    return child.exitcode or 0, loaded


Place = tuple[str, str, int]
"""A function: its file, its qualified name and its first line."""


def _compiled(file: str, text: str) -> Iterator[tuple[Place, CodeType]]:
    """Every function of a file, also those inside others."""
    return _codes(compile(text, file, "exec", dont_inherit=True))


def _codes(code: CodeType) -> Iterator[tuple[Place, CodeType]]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield _place(constant), constant
            yield from _codes(constant)


def _place(code: CodeType) -> Place:
    return code.co_filename, code.co_qualname, code.co_firstlineno


Lines = dict[str, int]
"""Lines by file, as the bits of a number."""


def _lines(code: CodeType) -> int:
    """The lines of a function, and of those inside it."""
    own = (1 << line for *_, line in code.co_lines() if line)
    return reduce(or_, [*own, *(_lines(inner) for inner in code.co_consts if isinstance(inner, CodeType))], 0)


class Collector:
    """A pytest plugin. In place of a run of the collected tests, it has one run of them for each mutant.

    It sends whether the tests pass. Then it receives a file and its changed text, and answers whether a test failed.
    """

    def __init__(self, files: Collection[str], connection: Connection) -> None:
        self.files, self.connection = frozenset(files), connection

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        order = list(session.items)
        gc.collect()
        functions = [
            thing
            for thing in gc.get_objects()
            if isinstance(thing, FunctionType) and thing.__code__.co_filename in self.files
        ]
        gc.freeze()
        before = {place: code for file in self.files for place, code in _compiled(file, Path(file).read_text("utf-8"))}
        for place in before.keys() - {_place(function.__code__) for function in functions}:
            # A function inside another, which differs too then.
            del before[place]
        recorded, code = self._fork(self._record, order, session)
        self.connection.send(recorded is not None and code == 0)
        reached: dict[str, Lines] = recorded or {}
        while (changed := self.connection.recv()) is not None:
            file, text = changed
            try:
                codes = dict(_compiled(file, text))
            except SyntaxError:
                self.connection.send(True)
                continue
            there = {place for place in before.keys() & codes.keys() if before[place] != codes[place]}
            if not there:
                self.connection.send(False)
                continue
            lines = reduce(or_, (_lines(before[place]) for place in there))
            order.sort(key=lambda item: (reached[item.nodeid].get(file, 0) & lines).bit_count(), reverse=True)
            failed, code = self._fork(self._try, codes, functions, order, session)
            self.connection.send(code != 0)
            if failed is not None:
                # The next mutant is probably noticed by the same test.
                order.insert(0, order.pop(failed))
        return True

    def _fork(self, work: Callable[..., None], *arguments: Any) -> tuple[Any, int | None]:
        """What a fork that does the work reports, None if nothing, and its exit code."""
        receiver, sender = CONTEXT.Pipe(duplex=False)
        child = CONTEXT.Process(target=work, args=(*arguments, sender))
        child.start()
        sender.close()
        reported = None
        with contextlib.suppress(EOFError):
            reported = receiver.recv()
        child.join()
        return reported, child.exitcode

    def _record(self, order: Sequence[pytest.Item], session: pytest.Session, report: Connection) -> None:
        """Report the lines of the files that each test reaches."""
        reached: dict[str, Lines] = {}
        seen: Lines = {}

        def enter(frame: FrameType, _: str, __: object) -> Callable[..., Any] | None:
            return note if frame.f_code.co_filename in self.files else None

        def note(frame: FrameType, _: str, __: object) -> Callable[..., Any]:
            file = frame.f_code.co_filename
            seen[file] = seen.get(file, 0) | 1 << frame.f_lineno
            return note

        for number, item in enumerate(order):
            seen = {}
            sys.settrace(enter)
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=_after(order, number))
            sys.settrace(None)
            reached[item.nodeid] = seen
        report.send(reached)
        os._exit(bool(session.testsfailed))

    def _try(
        self,
        codes: Mapping[Place, CodeType],
        functions: Sequence[FunctionType],
        order: Sequence[pytest.Item],
        session: pytest.Session,
        report: Connection,
    ) -> None:
        _limit_cpu_time()
        for function in functions:
            code = function.__code__
            with contextlib.suppress(ValueError):  # It uses other variables of the function around it than before.
                function.__code__ = codes.get(_place(code), code)
        for number, item in enumerate(order):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=_after(order, number))
            if session.testsfailed:
                report.send(number)
                break
        os._exit(bool(session.testsfailed))


def _after(order: Sequence[pytest.Item], number: int) -> pytest.Item | None:
    return order[number + 1] if number + 1 < len(order) else None


def _collect(folder: Path, files: Collection[str], tests: Sequence[str], connection: Connection) -> None:
    _start_child(folder)
    os._exit(int(pytest.main([*PYTEST, *tests], plugins=[Collector(files, connection)])))


@contextlib.contextmanager
def collector(files: Sequence[str], tests: Sequence[str]) -> Iterator[Callable[[str, str], bool]]:
    """A function that says of a file and its changed text whether one of the collected tests fails with it."""
    mine, its = CONTEXT.Pipe()
    absolute = {file: str(Path(file).resolve()) for file in files}
    child = CONTEXT.Process(target=_collect, args=(Path.cwd(), [*absolute.values()], tests, its))
    child.start()
    its.close()

    def notices(file: str, text: str) -> bool:
        mine.send((absolute[file], text))
        return bool(mine.recv())

    try:
        if not mine.recv():
            sys.exit(f"tests fail if they are collected once and run by a fork: {' '.join(tests)}")
        yield notices
    finally:
        with contextlib.suppress(OSError):
            mine.send(None)
        child.join()


# --- the mutants of a file --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Score:
    """The number of mutants of a file that were tried, and the difference of each survivor. `unmade`: the lines of
    tests/same_program.toml that no mutant makes."""

    file: str
    tried: int
    survivors: list[str]
    unmade: list[str]


Wanted = Callable[[str, str], bool]
"""Whether the mutant of a file with this difference is to be tried."""


def of_new_lines(base: str) -> Wanted:
    """The mutants of lines that the files do not have at the commit `base`."""

    @cache
    def known(file: str) -> Collection[str]:
        command = ["git", "-C", str(ROOT), "show", f"{base}:{file}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return {line.strip() for line in done.stdout.splitlines()}

    return lambda file, difference: any(line not in known(file) for line in lines_of(difference, "-"))


def of_survivors(log: Path) -> Wanted:
    """The mutants that an earlier run printed."""
    text = log.read_text(encoding="utf-8")
    left: set[tuple[str, str]] = set()
    for part in re.split(r"^(?=\S+: \d+ of \d+ mutants noticed)", text, flags=re.MULTILINE):
        file = part.partition(":")[0]
        left |= {(file, _changes(one)) for one in re.split(r"^ +about line .*$", part, flags=re.MULTILINE)[1:]}
    return lambda file, difference: (file, _changes(difference)) in left


def _changes(difference: str) -> str:
    return "\n".join(lines_of(difference, "-") + lines_of(difference, "+"))


def run(files: Sequence[str], tests: Sequence[str], sample: int | None, wanted: Wanted) -> Iterator[Score]:
    """The scores of files whose mistakes the same tests must notice."""
    code, modules = run_from_the_start(tests, keep_bytecode=True)
    if code:
        sys.exit(f"tests fail without a mutant: python -m pytest {' '.join(tests)}")
    for name in modules:
        with contextlib.suppress(Exception):  # Some modules exist only under a name that their package gave them.
            importlib.import_module(name)
    with collector(files, tests) as notices:
        for file in files:
            before = Path(file).read_text(encoding="utf-8")
            same = SAME_PROGRAM.get(file, {})
            tried, survivors, made = 0, [], set()
            for mutant in mutants_of(before, sample):
                after = mutant.applied(before)
                difference = "\n".join(difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm=""))
                if (line := changed_line(difference)) in same:
                    made.add(line)
                    continue
                if not wanted(file, difference):
                    continue
                tried += 1
                if notices(file, after):
                    continue
                Path(file).write_text(after, encoding="utf-8")
                if run_from_the_start(tests)[0] == 0:
                    survivors.append(difference)
                Path(file).write_text(before, encoding="utf-8")
            yield Score(file, tried, survivors, [] if sample else [line for line in same if line not in made])


def lines_of(difference: str, sign: str) -> list[str]:
    """The lines that a difference adds (+) or removes (-), without their indents."""
    found = re.finditer(rf"^ *{re.escape(sign)}(?!{re.escape(sign)}{{2}} )(.*)$", difference, re.MULTILINE)
    return [line[1].strip() for line in found]


def changed_line(difference: str) -> str:
    """What a mutant has in place of one line. For a line that it removes, that line after a minus sign."""
    return "\n".join(lines_of(difference, "+") or [f"-{line}" for line in lines_of(difference, "-")])


def shown(difference: str) -> str:
    """The place and the changed lines of a mutant, without their surroundings."""
    place = re.search(r"^@@ -(\d+)", difference, re.MULTILINE)
    lines = [line for line in difference.splitlines() if re.match(r"[-+](?![-+]{2} )", line)]
    first = int(place[1]) + 3 if place else 0
    return f"about line {first}:\n" + "\n".join(f"    {line}" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("files", nargs="*", metavar="FILE", help="product files; default: those that differ from BASE")
    parser.add_argument("--base", default="main", help="the commit that files and lines are compared with")
    parser.add_argument("--new", action="store_true", help="try the mutants of lines that BASE does not have")
    parser.add_argument("--again", type=Path, metavar="LOG", help="try the mutants that the run with this output left")
    parser.add_argument("--sample", type=int, help="try so many mutants of each file")
    parser.add_argument("--least", type=float, default=95, help="per cent of mutants that must be noticed")
    given = parser.parse_args(arguments)
    if homeless := [file for file in given.files if not tests_of(file)]:
        parser.error(f"{homeless[0]} is in no room of [tool.cni-lab.mutation] in pyproject.toml")
    files = given.files or changed_files(given.base)
    chosen = [*([of_new_lines(given.base)] if given.new else []), *([of_survivors(given.again)] if given.again else [])]
    tried, survived, unmade = 0, 0, False
    with copy_of_checkout():
        for tests, group in groupby(sorted(files, key=tests_of), key=tests_of):
            for score in run(
                list(group), tests, given.sample, lambda *mutant: not chosen or any(are(*mutant) for are in chosen)
            ):
                tried, survived = tried + score.tried, survived + len(score.survivors)
                noticed = score.tried - len(score.survivors)
                print(f"{score.file}: {noticed} of {score.tried} mutants noticed", flush=True)
                for difference in score.survivors:
                    print(f"  {shown(difference)}", flush=True)
                for line in score.unmade:
                    print(f"  tests/same_program.toml has a change that no mutant makes: {line}", flush=True)
                unmade |= bool(score.unmade)
    if not tried:
        print("no mutants: no changed file is in a room of [tool.cni-lab.mutation]")
        return 0
    score = 100 * (tried - survived) / tried
    print(f"in all {tried - survived} of {tried} mutants noticed: {score:.1f} % (at least {given.least:g} %)")
    return int(score < given.least or unmade)


if __name__ == "__main__":
    sys.exit(main())
