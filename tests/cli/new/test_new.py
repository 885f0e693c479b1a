"""`./lab new`: every answer and every copy gives a file that can be planned, and no file is overwritten."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import cli.project
from cli.errors import USAGE, CommandError
from cli.new.command import Ask, run
from components.spec.load import load_stack_file
from components.spec.models import Lab
from components.spec.placement import pod_count
from tests.support.cli import lab
from tests.support.graphs import ROOT, STACKS


@pytest.fixture
def stacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the shipped stacks and the real program, into which new stacks are written."""
    root = tmp_path / "project"
    shutil.copytree(ROOT / "stacks", root / "stacks")
    shutil.copy(ROOT / "__main__.py", root / "__main__.py")
    monkeypatch.setattr(cli.project, "ROOT", root)
    return root / "stacks"


def typed(*lines: str) -> Ask:
    """What a person types, line by line, and then the end of the input."""
    waiting: Iterator[str] = iter(lines)

    def ask(_: str) -> str:
        try:
            return next(waiting)
        except StopIteration:
            raise EOFError from None

    return ask


def made(stacks: Path, name: str = "mine") -> Lab:
    return load_stack_file(stacks / f"Pulumi.{name}.yaml").lab


@pytest.mark.parametrize("source", STACKS)
def test_a_copy_is_the_same_lab(stacks: Path, source: str) -> None:
    assert run("mine", source) == 0
    assert made(stacks) == load_stack_file(stacks / f"Pulumi.{source}.yaml").lab
    text = (stacks / "Pulumi.mine.yaml").read_text()
    assert text.startswith(f"# yaml-language-server: $schema=schema.json\n# A copy of {source}.\n")


def test_the_defaults_are_a_local_lab_between_whose_pods_one_can_walk(
    stacks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("mine", None, typed("", "", "", "")) == 0
    spec = made(stacks)
    assert spec.machines.provider == "local" and [node.name for node in spec.nodes] == [
        "control1",
        "worker1",
        "worker2",
    ]
    assert [pod_count(spec, workload) for workload in spec.workloads] == [3]
    out = capsys.readouterr().out
    assert "./lab sandbox mine" in out and "Before `up`" not in out


ANSWERS = [
    ("local", "0", "vxlan", "no"),
    ("local", "3", "IPIP", "yes"),
    ("local", "1", "none", "no"),
    ("aws", "0", "none", "yes"),
    ("aws", "2", "vxlan", "yes"),
    ("aws", "20", "IPIP", "no"),
]


@pytest.mark.parametrize(("where", "workers", "between", "second"), ANSWERS, ids=" ".join)
def test_every_answer_gives_a_lab(stacks: Path, where: str, workers: str, between: str, second: str) -> None:
    cloud = ["eu-central-1", "198.51.100.9"] if where == "aws" else []
    assert run("mine", None, typed(where, *cloud, workers, between, second)) == 0
    spec = made(stacks)
    assert spec.machines.provider == where and len(spec.workers) == int(workers)
    assert {encapsulation.lower() for encapsulation in spec.encapsulations} == {between.lower()}
    assert bool(spec.networks) is (second == "yes") and sum(pod_count(spec, w) for w in spec.workloads) >= 2


def test_the_address_of_an_example_is_named_before_up(stacks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("mine", None, typed("aws", "", "", "", "", "")) == 0
    assert "Before `up`: " in (out := capsys.readouterr().out) and "machines.operatorCidrs[0]" in out


def test_what_is_none_of_the_answers_is_asked_again(stacks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run("mine", None, typed("azure", "local", "-1", "21", "two", "\u00b2", "1", "GRE", "VXLAN", "maybe", "no")) == 0
    )
    out = capsys.readouterr().out
    assert out.count(" is not one of ") == 7 and "'GRE' is not one of VXLAN, IPIP, None.\n" in out
    assert len(made(stacks).nodes) == 2


def test_an_input_that_ends_writes_nothing(stacks: Path) -> None:
    with pytest.raises(CommandError, match="nothing was written"):
        run("mine", None, typed("local"))
    assert not (stacks / "Pulumi.mine.yaml").exists()


def test_no_file_is_overwritten(stacks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (stacks / "Pulumi.local.yaml").read_text()
    with pytest.raises(CommandError, match=r"stacks/Pulumi\.local\.yaml exists already"):
        run("local", "cfos-egress")
    # Another command writes the file while this one asks.
    answers = typed("", "", "", "")

    def slow(question: str) -> str:
        (stacks / "Pulumi.mine.yaml").write_text("theirs")
        return answers(question)

    with pytest.raises(CommandError, match="written by another command meanwhile"):
        run("mine", None, slow)
    assert (stacks / "Pulumi.mine.yaml").read_text() == "theirs"
    assert (stacks / "Pulumi.local.yaml").read_text() == before


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a b", "../x", "a.b", "a" * 31])
def test_names_that_no_stack_can_have(stacks: Path, name: str) -> None:
    with pytest.raises(CommandError, match="cannot be the name of a stack"):
        run(name, "local")


def test_a_source_that_is_not_there_or_not_valid(stacks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab("new", "mine", "--from", "nosuch") == USAGE
    assert "there is no stack 'nosuch'" in capsys.readouterr().err
    (stacks / "Pulumi.bad.yaml").write_text("config: {'cni-lab:lab': {machines: {provider: azure}}}\n")
    assert lab("new", "mine", "--from", "bad") == USAGE
    assert "azure" in capsys.readouterr().err
    assert not (stacks / "Pulumi.mine.yaml").exists()


def test_without_a_terminal_it_names_the_stacks_to_copy(
    stacks: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("local\n"))
    assert lab("new", "mine") == USAGE
    assert "--from STACK (cfos-egress, components" in capsys.readouterr().err
