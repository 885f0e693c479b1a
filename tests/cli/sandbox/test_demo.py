"""`./lab demo`: every stack in 80 columns, the fault found and mended; and what it shows where none can stand."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from rich.console import Console

from cli import project
from cli.sandbox import demo, story
from cli.sandbox.choice import home
from components.sandbox import life
from components.sandbox.requirements import examine
from tests.support.cli import invoke

STACKS = sorted(path.name.split(".")[1] for path in (project.ROOT / "stacks").glob("Pulumi.*.yaml"))
stands = pytest.mark.skipif(bool(examine().problem), reason=f"no sandbox can be built here: {examine().problem}")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(project, "HOME", tmp_path / ".lab")
    yield
    for name in life.names(home()):
        life.remove(name, home())


@cache
def shown(stack: str) -> str:
    """What the demo of a stack prints. Nothing stands afterwards."""
    result = invoke("demo", stack, "--fast")
    assert result.exit_code == 0, result.output
    assert not home().exists()
    return result.stdout


@stands
@pytest.mark.parametrize("stack", STACKS)
def test_a_stack_is_shown_broken_and_mended(stack: str) -> None:
    text = shown(stack)
    assert not [line for line in text.splitlines() if len(line) > 80]
    assert text.startswith("A sandbox: ")
    for number, title in enumerate(("Build it", "Check it", "Follow a packet", "Break it", "Mend it"), 1):
        assert f"\n{number}  {title}\n" in text
    assert text.count("all hold") == 2
    assert re.search(r"These \d+, and nothing else, are what this fault must break\.", text)
    assert re.search(r"^    STOP  ", text, re.M) and "The ping is answered." in text and "The ping is lost." in text
    assert "caught by tcpdump at each place" in text or "missing: tcpdump" in text


@stands
def test_with_keep_it_stands_under_the_stack_s_name() -> None:
    assert invoke("demo", "cross-node", "--keep").exit_code == 0
    assert life.names(home()) == ["cross-node"]
    assert invoke("verify", "cross-node").exit_code == 0
    again = invoke("demo", "cross-node", "--keep")
    assert (
        again.exit_code == 1 and "cross-node has a sandbox already: `./lab sandbox cross-node --down`" in again.stderr
    )


def test_where_no_sandbox_can_stand_plan_and_recording_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    result = invoke("demo")
    assert result.exit_code == 0
    first, *rest = result.stdout.splitlines()
    assert first.startswith("No live lab here: a sandbox needs Linux's network namespaces, which macOS has not")
    assert "$ ./lab plan cfos-egress" in rest and any("resources in" in line for line in rest)
    assert story.recorded_walk()[0] in rest


def steady(text: str) -> list[str]:
    """Without times, and without the port that the kernel chose."""
    text = re.sub(r"\+\d+\.\d+ ms", "+ ms", re.sub(r"in \d+\.\d s", "in … s", text))
    return [re.sub(r"\.\d+ > (\S+)\.4789", r".PORT > \1.4789", line).strip() for line in text.splitlines()]


@stands
def test_the_recording_is_what_the_demo_shows() -> None:
    """CNILAB_UPDATE_GOLDEN=1 records it anew."""
    text = shown("cfos-egress")
    if "caught by tcpdump" not in text:
        pytest.skip("tcpdump is not installed")
    if os.environ.get("CNILAB_UPDATE_GOLDEN"):
        story.RECORDING.write_text(text, encoding="utf-8")
    assert steady(text) == steady(story.RECORDING.read_text(encoding="utf-8"))


def test_the_readme_shows_a_part_of_the_recording() -> None:
    recording = steady(story.RECORDING.read_text(encoding="utf-8"))
    readme = (project.ROOT / "README.md").read_text(encoding="utf-8")
    fences = (block.partition("\n")[2] for block in readme.split("```")[1::2])
    (excerpt,) = [text for text in fences if "lab break cfos-egress fdb-gone" in text]
    assert set(steady(excerpt)) - {"…"} <= set(recording)


def test_a_person_gets_time_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(demo.time, "sleep", slept.append)
    console = Console(width=80, quiet=True)
    demo.Stage(console, paced=False).show(["one", "two"])
    assert slept == []
    demo.Stage(console, paced=True).show(["one", "two"])
    assert len(slept) == 2


def test_an_unknown_stack_is_refused() -> None:
    result = invoke("demo", "nosuch")
    assert result.exit_code == 2 and "there is no stack 'nosuch'" in result.stderr
