"""What pages show of a command's output is what the command prints.

A fence of the kind `console` holds commands behind `$ `, each with its output. Every command runs in this process, on a
sandbox of its stack, in the order of the page. A line `…` stands for any lines, and `…` in a line for any text.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli import project
from cli.main import app
from cli.sandbox.choice import home
from components.sandbox import life
from components.sandbox.requirements import examine, missing_tools
from components.spec.load import load_stack_file
from tests.support.graphs import ROOT, STACKS
from tests.test_pages import FENCE, PAGES

CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
TYPED = r"eval|\./lab|aws|pulumi|pip|git|curl|export|source|apt|sudo"
"""How lines begin that a reader types."""
READ_ONLY = {"plan", "cost", "list", "status", "help"}
"""Commands that need no sandbox."""
ON_SANDBOX = {"verify", "walk", "addresses", "break", "mend", "exercise", "ssh", "sandbox", "status"}


@dataclass(frozen=True)
class Shown:
    """A command without `./lab`, and the output that the page shows."""

    words: tuple[str, ...]
    output: str


def shown(page: Path) -> Iterator[Shown]:
    for body in CONSOLE.findall(page.read_text(encoding="utf-8")):
        for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
            command, _, output = part.partition("\n")
            words = shlex.split(command, comments=True)
            assert words[0] == "./lab", f"{page.name}: {command}"
            yield Shown(tuple(words[1:]), output)


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


@pytest.mark.skipif(bool(examine().problem), reason=f"no sandbox can stand here: {examine().problem}")
@pytest.mark.xdist_group("transcripts")
@pytest.mark.parametrize("page", WITH_OUTPUT, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_output_on_a_page_is_the_programs(page: Path, sandboxes: Path) -> None:
    for command in shown(page):
        name, *others = command.words
        if "--capture" in others and missing_tools(["tcpdump"]):
            continue
        stack = next((word for word in others if word in STACKS), None)
        if name == "sandbox" and "--down" not in others and stack is not None:
            life.remove(stack, home())  # the page shows how it is built
        elif name in ON_SANDBOX and stack is not None and not life.stands(stack, home()):
            life.build(stack, load_stack_file(ROOT / "stacks" / f"Pulumi.{stack}.yaml").lab, home())
        result = CliRunner().invoke(app, list(command.words))
        if not matches(command.output, result.stdout):
            pytest.fail(
                f"./lab {shlex.join(command.words)}\n--- the page\n{command.output}\n--- the program\n"
                f"{result.stdout}{result.stderr}",
                pytrace=False,
            )


def test_pages_show_only_commands_that_change_no_lab() -> None:
    for page in WITH_OUTPUT:
        for command in shown(page):
            assert command.words[0] in READ_ONLY | ON_SANDBOX, f"{page.name}: {command.words}"


def test_there_are_enough_of_them_to_mean_something() -> None:
    commands = {command.words[0] for page in WITH_OUTPUT for command in shown(page)}
    assert {"verify", "walk", "addresses", "break", "mend", "plan", "cost"} <= commands


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
