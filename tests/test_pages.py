"""The pages keep their word: links, commands and options exist, stack files validate, messages are the program's."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from cli.main import app
from components.spec.load import load_stack_file
from components.spec.names import base_name
from tests.support.cli import invoke
from tests.support.graphs import ROOT, STACKS

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").glob("*/*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# Typer has a click of its own, and shows this class of it only.
USAGE: Any = typer.BadParameter.__base__
# Options of pulumi's own that pages show behind `up`, `preview` and `destroy`.
PULUMI = {"--diff", "--refresh", "--non-interactive", "--json", "--skip-preview", "--yes"}
# A stack that a page tells the reader to make.
MADE_BY_READERS = {"mine"}
PLACES = (
    "cli",
    "engine",
    "page",
    "components",
    "tests",
    "docs",
    "policy",
    "stacks",
    "benchmarks",
    "examples",
    ".github",
)


def prose(page: Path) -> str:
    """A page without its fenced parts."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    titles = re.findall(r"^#+ +(.+?)\s*$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_to_files_and_headings(name: str) -> None:
    page = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"https?://", target):
            continue
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists(), f"{name}: {target}"
        assert not anchor or anchor in anchors(found), f"{name}: {target} names no heading"


@pytest.mark.parametrize("name", NAMES)
def test_paths_of_the_repository_exist(name: str) -> None:
    for path in re.findall(r"`([\w./-]+/[\w./-]*)`", prose(ROOT / name)):
        placeholder = re.search(r"[A-Z]{4}|mine", path)
        if path.split("/")[0] in PLACES and not placeholder:
            assert (ROOT / path).exists(), f"{name}: {path}"


# --- docs/proof.md ---------------------------------------------------------------------------------------------------


PROOF = ROOT / "docs/proof.md"


def proof_tables() -> list[list[list[str]]]:
    """The tables that end with the column `again`: the cells of each row, the header first."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", PROOF.read_text(encoding="utf-8"), re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in table.splitlines(keepends=False)]
        if rows[0][-1] == "again":
            found.append([rows[0], *rows[2:]])
    return found


ROWS = [(table[0], row) for table in proof_tables() for row in table[1:]]


@pytest.mark.parametrize(("header", "row"), ROWS, ids=[row[0][:60] for _, row in ROWS])
def test_a_row_of_the_proof_has_days_and_a_way_to_see_it_again(header: list[str], row: list[str]) -> None:
    assert len(row) == len(header)
    days = row[1:-1]
    assert any(days) and all(re.fullmatch(r"|\d\d-\d\d", day) for day in days), row
    same = re.match(r"the same\b", row[-1])
    assert same or re.search(r"`[^`]*(\./lab|tests/)[^`]*`|\]\(", row[-1]), f"nothing to repeat: {row[-1]}"


def test_a_row_that_refers_to_the_one_before_has_one() -> None:
    for table in proof_tables():
        assert not table[1][-1].startswith("the same"), table[1]


def test_the_tests_that_the_proof_names_exist() -> None:
    named = set(re.findall(r"\btests/[\w/.]*\w|\b(?<!/)test_\w+\.py", PROOF.read_text(encoding="utf-8")))
    assert len(named) > 30
    for name in named:
        path = ROOT / name
        files = [path] if path.suffix else sorted(path.rglob("test_*.py"))
        assert files, f"{name} has no tests"
        for file in files:
            assert re.search(r"^(async )?def test_", file.read_text(encoding="utf-8"), re.MULTILINE), f"{file}: no test"


def test_every_column_of_the_proof_is_explained() -> None:
    explained = set(re.findall(r"^\| (\S.*?) \|", PROOF.read_text(encoding="utf-8"), re.MULTILINE))
    for table in proof_tables():
        assert set(table[0][1:-1]) <= explained, table[0]


def test_every_page_is_reachable_from_the_readme() -> None:
    seen, new = set(), [ROOT / "README.md"]
    while new:
        page = new.pop()
        seen.add(page)
        links = {(page.parent / file).resolve() for file in re.findall(r"\]\(([^)#\s]+\.md)", prose(page))}
        new += links - seen
    assert {page for page in PAGES if page.is_relative_to(ROOT / "docs")} <= seen


def commands(page: Path) -> Iterator[list[str]]:
    """What follows each `./lab`, in fences and in the text."""
    text = page.read_text(encoding="utf-8")
    # In a console fence everything but the lines behind a prompt is output.
    typed = ((kind, line) for kind, body in FENCE.findall(text) for line in body.splitlines())
    lines = [line.split("#")[0] for kind, line in typed if kind != "console" or line.startswith("$ ")]
    lines += re.findall(r"`([^`\n]+)`", prose(page))
    for line in lines:
        # `sudo ./lab …`, `CNILAB_X=1 ./lab …`, and brackets around what may be left out
        if found := re.match(r"\s*(?:\$ )?(?:sudo |\w+=\S+ )*\./lab(?:\s+(.*))?$", line):
            words = re.sub(r"[\[\]…]", "", found[1] or "")
            found_words = shlex.split(words)
            # An option of the whole program, before the command.
            yield found_words[2:] if found_words[:1] == ["--backend"] else found_words


@cache
def lab() -> Any:
    return typer.main.get_command(app)


@pytest.mark.parametrize("name", NAMES)
def test_commands_and_their_options_exist(name: str) -> None:
    for words in commands(ROOT / name):
        if not words:
            continue
        command = lab().get_command(None, words[0])
        assert command is not None, f"{name}: ./lab {words[0]}"
        if len(words) == 1:
            continue  # the command is spoken of, not shown
        try:
            context = command.make_context(words[0], words[1:])
        except USAGE as error:
            pytest.fail(f"{name}: ./lab {' '.join(words)}: {error.format_message()}")
        passed = [word for word in context.args if word.startswith("-")]
        assert words[0] == "test" or set(passed) <= PULUMI, f"{name}: ./lab {' '.join(words)}: {passed}"
        stack = context.params.get("stack")
        assert stack is None or not stack.islower() or base_name(stack) in {*STACKS, *MADE_BY_READERS}, (
            f"{name}: {stack}"
        )


def test_the_readme_shows_every_command() -> None:
    assert {words[0] for words in commands(ROOT / "README.md") if words} == set(lab().commands)


def shown_plans() -> set[tuple[str, ...]]:
    """`./lab plan` of shipped stacks; --against has tests of its own."""
    shown = {tuple(words) for page in PAGES for words in commands(page)}
    return {words for words in shown if words[:1] == ("plan",) and words[1:2] in {(s,) for s in STACKS}}


@pytest.mark.parametrize("words", sorted(words for words in shown_plans() if "--against" not in words), ids=" ".join)
def test_plans_that_are_shown_run(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    if "--out" in words:
        folder = tmp_path / words[words.index("--out") + 1]
        # What docs/troubleshooting.md and docs/airgap.md send the reader to.
        assert {"graph.svg", "kubernetes", "nodes"} <= {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("name", NAMES)
def test_yaml_is_yaml_and_stack_files_validate(name: str, tmp_path: Path) -> None:
    for number, (kind, body) in enumerate(FENCE.findall((ROOT / name).read_text(encoding="utf-8"))):
        if kind == "yaml":
            found = yaml.safe_load(body)
            if "cni-lab:lab" in body and "config" in found:
                file = tmp_path / f"Pulumi.page{number}.yaml"
                file.write_text(body)
                load_stack_file(file)


def test_the_costs_in_the_readme_are_the_programs() -> None:
    result = invoke("cost", "cfos-egress")
    [line] = [line for line in result.stdout.splitlines() if line.startswith("sum ")]
    hour, evening, month, stopped = map(float, line.split()[1:])
    text = " ".join((ROOT / "README.md").read_text().split())
    assert f"is about {hour:.2f} USD an hour, {evening:.2f} an evening" in text
    assert f"{month:.0f} a month left on, and {stopped:.0f} a month stopped" in text


@cache
def source() -> str:
    """All texts of the program, with strings that go over several lines put together."""
    files = [
        path
        for folder in ("cli", "engine", "components", "page")
        for end in ("py", "sh")
        for path in (ROOT / folder).rglob(f"*.{end}")
    ]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    text = re.sub(r'" *\\?\n\s*"', " ", text)  # shell: words of one command
    text = re.sub(r' ?" ?\n\s*f?"', " ", text)  # Python: strings that stand beside each other
    return re.sub(r"\s+", " ", text.replace("\\`", "`"))


def messages() -> list[str]:
    """The first column of the tables of messages, but for what others say (AWS, pulumi)."""
    found = []
    for table in re.findall(r"^\| message .*?(?:\n\n|\Z)", (ROOT / "docs/troubleshooting.md").read_text(), re.S | re.M):
        for row in table.strip().splitlines()[2:]:
            first = row.split("|")[1]
            found += [] if first.strip().startswith("AWS:") else re.findall(r"`([^`]+)`", first)
    return found


PULUMIS = ("the stack is currently locked by", "incorrect passphrase")


@pytest.mark.parametrize("message", [m for m in messages() if not m.startswith(PULUMIS)])
def test_messages_in_troubleshooting_are_the_programs(message: str) -> None:
    for part in re.split(r"…|ADDRESS\S*|\b420 s", message):
        words = part.strip(" ,:;")
        assert len(words) < 4 or words in source(), f"nobody says {words!r}"


def test_there_are_enough_of_each_to_mean_something() -> None:
    assert len(messages()) > 30
    assert len(shown_plans()) > 2 and any("--out" in words for words in shown_plans())
    assert json.dumps(NAMES).count("docs/labs/") >= len(STACKS)
