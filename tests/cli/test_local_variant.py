"""`--local`: a lab of EC2 or of existing hosts in local machines, under a name and a state of its own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cli.project
from cli.errors import USAGE
from cli.project import stack_file
from tests.cli.list.test_list import MADE, entry
from tests.support import fake_pulumi
from tests.support.cli import invoke, lab
from tests.support.graphs import ROOT

Edit = Callable[[str, str, str], None]


@pytest.fixture
def stacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the shipped stacks, the real program and a home of its own."""
    root = tmp_path / "project"
    shutil.copytree(ROOT / "stacks", root / "stacks")
    shutil.copytree(ROOT / "docs/labs", root / "docs/labs")
    shutil.copy(ROOT / "__main__.py", root / "__main__.py")
    monkeypatch.setattr(cli.project, "ROOT", root)
    monkeypatch.setattr(cli.project, "HOME", root / ".lab")
    return root / "stacks"


@pytest.fixture
def edit(stacks: Path) -> Edit:
    def replace(stack: str, old: str, new: str) -> None:
        path = stacks / f"Pulumi.{stack}.yaml"
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    return replace


WITH_STACK = [
    "plan", "doctor", "cost", "preview", "up", "destroy", "stop", "start", "env", "airgap", "unlock", "secret",
    "status", "verify", "walk", "page", "addresses", "ssh", "kubeconfig", "break", "mend", "exercise", "sandbox",
    "demo",
]  # fmt: skip
WITHOUT = ["list", "new", "pin", "reap", "help", "completion", "test"]


@pytest.mark.parametrize("command", [*WITH_STACK, *WITHOUT])
def test_the_commands_that_take_it(command: str) -> None:
    shown = invoke(command, "--help").stdout
    assert ("--local" in shown) is (command in WITH_STACK)


def test_every_command_is_listed_here() -> None:
    shown = invoke("help").stdout
    rows = [line.split()[0] for line in shown.splitlines() if line.startswith("  ") and line[2:3].isalpha()]
    assert set(rows) - {"Kubernetes"} == {*WITH_STACK, *WITHOUT}


@pytest.mark.parametrize(
    "words",
    ["cross-node --local", "--local cross-node", "cross-node-local", "cross-node-local --local"],
)
def test_it_is_a_stack_of_its_own(words: str, stacks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab("plan", *words.split()) == 0
    out = capsys.readouterr().out
    assert out.startswith("cross-node-local: 3 nodes in containers on this computer, 3 pods of workloads\n")
    assert not (stacks / "Pulumi.cross-node-local.yaml").exists(), "nothing is written among the stack files"
    assert lab("plan", "cross-node") == 0
    assert capsys.readouterr().out.startswith("cross-node: 3 nodes on EC2 in us-west-2")


def test_it_follows_the_file_of_its_lab(edit: Edit, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab("plan", "cross-node", "--local") == 0
    assert "pool default-ipv4-ippool: 10.48.0.0/24 in blocks of /26, no encapsulation" in capsys.readouterr().out
    edit("cross-node", "10.48.0.0/24, blockSize: 26, encapsulation: None", "10.48.0.0/24, encapsulation: VXLAN")
    assert lab("plan", "cross-node", "--local") == 0
    assert "pool default-ipv4-ippool: 10.48.0.0/24 in blocks of /26, VXLAN" in capsys.readouterr().out


def test_a_file_of_that_name_is_the_variant(stacks: Path, edit: Edit, capsys: pytest.CaptureFixture[str]) -> None:
    """With `./lab new` a variant becomes a file, whose machines may then get memory, an image or mirrors."""
    assert lab("new", "cross-node-local", "--from", "cross-node-local") == 0
    text = (stacks / "Pulumi.cross-node-local.yaml").read_text(encoding="utf-8")
    assert "# A copy of cross-node-local." in text and "# One subnet, because" in text
    edit("cross-node-local", "{provider: local}", "{provider: local, memory: 4Gi}")
    assert stack_file("cross-node-local") == stacks / "Pulumi.cross-node-local.yaml"
    capsys.readouterr()
    assert lab("plan", "cross-node", "--local", "--json") == 0
    resources = json.loads(capsys.readouterr().out)["resources"]
    assert {it["inputs"]["environment"]["MEMORY"] for it in resources if "-node-" in it["name"] and "environment" in
            it["inputs"]} == {"4g"}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["plan", "local", "--local"],
            "lab plan: local has local machines itself, and no other variant: name local, without --local\n",
        ),
        (["doctor", "--local"], "lab doctor: --local needs the name of a stack\n"),
        (["plan", "nope", "--local"], "lab plan: there is no stack 'nope-local'; stacks/ has: cfos-egress,"),
        (
            ["plan", "cross-node", "--local", "--against", "HEAD"],
            "lab plan: cross-node-local has no file of its own, because it follows cross-node: compare cross-node, "
            "without --local\n",
        ),
    ],
)
def test_what_has_no_variant(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    if "--against" not in words:  # which needs the real tree's history
        request.getfixturevalue("stacks")
    assert lab(*words) == USAGE
    assert capsys.readouterr().err.startswith(message)


def test_mistakes_are_those_of_the_lab_and_its_variant_says_what_it_cannot(
    edit: Edit, capsys: pytest.CaptureFixture[str]
) -> None:
    edit("cross-node", "blockSize: 26, encapsulation: None}", "blockSize: 99, encapsulation: None}")
    assert lab("plan", "cross-node", "--local") == USAGE
    assert "Pulumi.cross-node.yaml:19: calico.pools[0].blockSize: 99" in capsys.readouterr().err
    # On a host of one's own a node may have the first address; here this computer has it.
    edit("components", "address: 192.168.56.15", "address: 192.168.56.1")
    assert lab("plan", "components", "--local") == USAGE
    err = capsys.readouterr().err
    assert err.startswith(
        "Pulumi.components.yaml, with local machines, has 1 mistake:\n  nodes[4].address: 192.168.56.1 "
    )


def test_it_is_listed_where_it_stands(
    stacks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = [entry("cross-node-local"), entry("other-local")]
    resources: dict[str, Any] = {"cross-node-local": MADE, "other-local": MADE}
    fake_pulumi.install(tmp_path, monkeypatch, list=known, resources=resources)
    assert lab("list", "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    names = [row["stack"] for row in rows]
    assert names.index("cross-node-local") == names.index("cross-node") + 1 and names[-1] == "other-local"
    row = rows[names.index("cross-node-local")]
    assert (row["where"], row["nodes"], row["up"], row["usdPerHour"]) == ("this computer", 3, True, 0)
    assert [row["up"] for row in rows if row["stack"] == "cross-node"] == [False]
    assert rows[-1]["problem"] == "no file in stacks/"


def test_status_of_a_lab_elsewhere_proposes_it(
    stacks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_pulumi.install(tmp_path, monkeypatch)
    assert lab("status", "cross-node") == 0
    assert "  ./lab up cross-node --local\n" in capsys.readouterr().out
    assert lab("status", "cross-node", "--local") == 0
    out = capsys.readouterr().out
    assert "  ./lab up cross-node-local\n" in out and "--local" not in out


def test_its_page_has_the_lesson_of_its_lab(stacks: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    assert lab("page", "cross-node", "--local", "--plan", "--out", out) == 0
    text = out.read_text(encoding="utf-8")
    assert "cross-node-local" in text and 'id="lesson-title"' in text
