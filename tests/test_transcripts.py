"""What pages show of a command's output is what the command prints.

A fence of the kind `console` holds commands behind `$ `, each with its output. Every command runs in this process, on a
sandbox of its stack, in the order of the page. A line `…` stands for any lines, and `…` in a line for any text. Beside
`./lab`, a page may edit a stack file by `sed -i`: it edits a copy of the project, and the next page finds a fresh one.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cli import project
from cli.sandbox.choice import home
from components.sandbox import life
from components.sandbox.requirements import examine, missing_tools
from components.spec.load import load_stack_file
from components.verify.exercise.choose import choose
from components.verify.exercise.lessons import LESSONS
from tests.cli.live.test_exercise import planned
from tests.support.cli import invoke
from tests.support.graphs import ROOT, STACKS
from tests.test_pages import FENCE, PAGES

CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TYPED = r"eval|\./lab|aws|pulumi|pip|git|curl|export|source|apt|sudo"
"""How lines begin that a reader types."""
READ_ONLY = {"plan", "cost", "list", "status", "help"}
"""Commands that need no sandbox."""
ON_SANDBOX = {"verify", "walk", "addresses", "break", "mend", "exercise", "ssh", "sandbox", "status"}
NEVER_CAPTURED = {"ssh"}
"""Commands whose output a program of their own writes."""


@dataclass(frozen=True)
class Shown:
    """A command, `./lab …` or `sed -i …`, and the output that the page shows."""

    words: tuple[str, ...]
    output: str

    @property
    def is_edit(self) -> bool:
        return self.words[0] == "sed"

    @property
    def command(self) -> str:
        """The command of `./lab`."""
        return self.words[1]

    @property
    def stack(self) -> str | None:
        """The stack that is meant, if it is a shipped one."""
        names = (Path(word).name.removeprefix("Pulumi.").removesuffix(".yaml") for word in self.words[2:])
        return next((name for name in names if name in STACKS), None)


def shown(page: Path) -> Iterator[Shown]:
    for body in CONSOLE.findall(page.read_text(encoding="utf-8")):
        for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            words = tuple(shlex.split(command, comments=True))
            edits = words[:2] == ("sed", "-i") and len(words) == 4 and words[3].startswith("stacks/Pulumi.")
            assert words[0] == "./lab" or edits, f"{page.name}: {command}"
            yield Shown(words, output)


def pattern(output: str) -> re.Pattern[str]:
    lines = output.rstrip("\n").split("\n")
    text = ""
    for line in lines:
        if line.strip() == "…":
            text += r"(?:[^\n]*\n)*?"
        else:
            text += ".*".join(re.escape(part) for part in line.rstrip().split("…")) + r"[ ]*\n"
    return re.compile(text)


def matches(output: str, printed: str) -> bool:
    return pattern(output).fullmatch(printed.rstrip("\n") + "\n") is not None


WITH_OUTPUT = [page for page in PAGES if CONSOLE.search(page.read_text(encoding="utf-8"))]


@pytest.fixture(scope="module")
def sandboxes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home in which the sandboxes of all pages stand: each is built for the first command that needs it."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("pages") / ".lab"
        patch.setattr(project, "HOME", folder)
        yield folder
        for name in life.names(home()):
            life.remove(name, home())


@pytest.fixture
def tree(sandboxes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the project's stack files, for a page to edit. A sandbox that follows an edit is removed at the end."""
    shutil.copytree(ROOT / "stacks", tmp_path / "stacks")
    for name in ("docs", "components", project.PROGRAM):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.setattr(project, "ROOT", tmp_path)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for stack in STACKS:
        name = f"Pulumi.{stack}.yaml"
        if (tmp_path / "stacks" / name).read_bytes() != (ROOT / "stacks" / name).read_bytes():
            life.remove(stack, home())


def stand(command: Shown) -> None:
    """Have the sandbox that a command needs, and none where the page shows how it is built."""
    stack = command.stack
    if stack is None:
        return
    if command.command == "sandbox" and not {"--down", "--rebuild"} & set(command.words):
        life.remove(stack, home())
    elif command.command in ON_SANDBOX - {"sandbox"} and not life.is_up(stack, home()):
        life.build(stack, load_stack_file(project.stack_file(stack)).lab, home())


@pytest.mark.skipif(bool(examine().problem), reason=f"no sandbox can be built here: {examine().problem}")
@pytest.mark.xdist_group("transcripts")
@pytest.mark.parametrize("page", WITH_OUTPUT, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_output_on_a_page_is_the_programs(page: Path, tree: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for command in shown(page):
        if "--capture" in command.words and missing_tools(["tcpdump"]):
            continue
        typed = shlex.join(command.words)
        if command.is_edit:
            before = [path.read_bytes() for path in sorted((tree / "stacks").iterdir())]
            subprocess.run(command.words, cwd=tree, check=True, timeout=30)
            assert before != [path.read_bytes() for path in sorted((tree / "stacks").iterdir())], f"{typed}: no change"
            continue
        stand(command)
        capfd.readouterr()
        result = invoke(*command.words[1:])
        printed = capfd.readouterr().out if command.command in NEVER_CAPTURED else result.stdout
        if not matches(command.output, printed):
            pytest.fail(
                f"{typed}\n--- the page\n{command.output}\n--- the program\n{printed}{result.stderr}",
                pytrace=False,
            )


WALK = re.compile(r"^\./lab walk .*$", re.MULTILINE)
WALKS = [
    (page, line)
    for page in PAGES
    for kind, body in FENCE.findall(page.read_text(encoding="utf-8"))
    for line in (WALK.findall(body) if not kind else ())
]


@pytest.mark.skipif(bool(examine().problem), reason=f"no sandbox can be built here: {examine().problem}")
@pytest.mark.xdist_group("transcripts")
@pytest.mark.parametrize(("page", "line"), WALKS, ids=lambda part: part if isinstance(part, str) else part.stem)
def test_a_walk_that_a_page_proposes_arrives_in_a_sandbox(page: Path, line: str, tree: Path) -> None:
    command = Shown(tuple(shlex.split(line)), "")
    stand(command)
    result = invoke(*command.words[1:])
    assert result.exit_code == 0, result.stdout + result.stderr


EXERCISE = re.compile(r"`\./lab exercise (\S+) --seed (\d+)` \(level (\d)\)")
ANSWER = re.compile(r"^\d+\. `([a-z-]+)` on (\S+): ", re.MULTILINE)
WITH_EXERCISES = [page for page in PAGES if EXERCISE.search(page.read_text(encoding="utf-8"))]


@pytest.mark.skipif(bool(examine().problem), reason=f"no sandbox can be built here: {examine().problem}")
@pytest.mark.xdist_group("transcripts")
@pytest.mark.parametrize("page", WITH_EXERCISES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_seed_on_a_page_is_the_exercise_of_its_answer(page: Path, tree: Path) -> None:
    """With the stack file as it is at the page's end. tests/cli/live/test_exercise.py sees that a seed stands for the
    same in the plan and in the sandbox."""
    text = page.read_text(encoding="utf-8")
    exercises, answers = EXERCISE.findall(text), ANSWER.findall(text)
    assert len(exercises) == len(answers)
    (stack,) = {stack for stack, _, _ in exercises}
    for command in shown(page):
        if command.is_edit:
            subprocess.run(command.words, cwd=tree, check=True, timeout=30)
    seen = planned(project.stack_file(stack))
    found = [choose(seen, int(seed), None, sandbox=True) for _, seed, _ in exercises]
    assert [(fault.id, target.node) for fault, target in found] == answers
    assert [str(LESSONS[fault.id].level) for fault, _ in found] == [level for _, _, level in exercises]


def test_every_lesson_has_exercises() -> None:
    assert {page.stem for page in WITH_EXERCISES} == {"cfos-egress", "components", "cross-node", "packet-life"}


def test_pages_show_only_commands_that_change_no_lab() -> None:
    for page in WITH_OUTPUT:
        for command in shown(page):
            assert command.is_edit or command.command in READ_ONLY | ON_SANDBOX, f"{page.name}: {command.words}"


def test_there_are_enough_of_them_to_mean_something() -> None:
    commands = {command.command for page in WITH_OUTPUT for command in shown(page)}
    assert {"verify", "walk", "addresses", "break", "mend", "exercise", "ssh", "plan", "cost"} <= commands


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_output_stands_only_where_it_is_compared(page: Path) -> None:
    """A fence without a kind holds commands; a text that cannot be compared here says so by the kind `text`."""
    for kind, body in FENCE.findall(page.read_text(encoding="utf-8")):
        for line in re.sub(r"\\\n", "", body).splitlines() if not kind else ():
            assert re.match(rf"\s*(#|$|(sudo |\w+=\S* )*({TYPED})\b)", line), f"{page.name}: {line!r} is no command"


@pytest.mark.parametrize(
    ("output", "printed", "same"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\nb\n", "a\nb\nc\n", False),
        ("a\n", "b\n", False),
        ("…\nb\n", "a\na\nb\n", True),
        ("a\n…\n", "a\n", True),
        ("a\n…\nc\n", "a\nb\nd\n", False),
        ("in … s\n", "in 0.7 s\n", True),
        ("in … s\n", "in 0.7\n s\n", False),
        ("a (b) [c]\n", "a (b) [c]\n", True),
        ("a.c\n", "abc\n", False),
        ("a\n\nb\n", "a\n\nb\n", True),
    ],
)
def test_how_an_output_is_compared(output: str, printed: str, same: bool) -> None:
    assert matches(output, printed) is same
