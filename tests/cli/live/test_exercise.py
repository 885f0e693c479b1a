"""Exercises on sandboxes: each is solved by typing the commands of its hints, and by nothing else of the program."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from cli import project
from components.sandbox.fit import fit
from components.sandbox.objects import make_objects
from components.sandbox.plan import make_plan
from components.sandbox.requirements import examine
from components.slowdown import scaled
from components.spec.load import load_stack_file
from components.verify.exercise.choose import choose
from components.verify.exercise.layers import Case
from components.verify.exercise.lessons import LESSONS
from components.verify.exercise.model import Exercise, Hint, pack, unpack
from components.verify.faults.symptoms import symptoms
from components.verify.faults.table import FAULTS
from components.verify.model import ObservedLab
from components.verify.read import facts
from components.verify.read.api import KINDS, Objects
from tests.support.cli import lab
from tests.support.graphs import ROOT
from tests.vm.machine import HINT

IMAGE = "docker.io/library/busybox:1.37"
POOLS = [
    {"name": "first", "cidr": "10.244.0.0/17", "blockSize": 24, "encapsulation": "VXLAN"},
    {"name": "second", "cidr": "10.244.128.0/17", "blockSize": 24, "encapsulation": "VXLANCrossSubnet"},
]
# Two pools by two ways, and a Service. Pods of one node are in one pool each.
WEB = {"name": "web", "image": IMAGE, "replicas": 3, "onControlPlane": True, "service": {"port": 80}}
TWO_WAYS = {
    "config": {
        "cni-lab:lab": {
            "machines": {"provider": "local"},
            "calico": {"pools": POOLS},
            "workloads": [WEB, WEB | {"name": "db", "replicas": 6}],
        }
    }
}
OF_EGRESS = [
    "vxlan-dropped",
    "fdb-gone",
    "stale-neighbour",
    "proxy-arp-off",
    "ip-forward-off",
    "nat-off",
    "mtu-too-large",
    "multus-emptied",
    "delegate-renamed",
    "range-moved",
    "wrong-default-route",
    "firewall-gone",
    "firewall-drops",
    "link-slow",
]
OF_TWO_WAYS = ["rp-filter-strict", "service-without-endpoints"]
# What begins `./lab` in a folder of the test: the same program with another home, and a stack file of the test.
LAB = """\
#!{python}
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from cli import project
here = Path(__file__).resolve().parent
project.HOME = here / ".lab"
known = project.stack_files
project.stack_files = lambda root=None: known(root) | {{"two-ways": here / "Pulumi.two-ways.yaml"}}
from cli.main import app
app()
"""


@dataclass
class Class:
    """A folder with a `./lab` of its own, and a sandbox."""

    folder: Path
    stack: str

    def type(self, command: str) -> subprocess.CompletedProcess[str]:
        """What a person types into a shell there.

        A command of plain words runs in this process, which need not load the program again.
        """
        words = shlex.split(command)
        if words[0] == "./lab" and shlex.join(words) == command:
            with chdir(self.folder):
                code, out, errors = self.run(*words[1:])
            return subprocess.CompletedProcess(command, code, out, errors)
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=scaled(120),
            env={**os.environ, "COLUMNS": "120"},
            check=False,
        )

    def run(self, *words: str) -> tuple[int, str, str]:
        """One command of `./lab` in this process, which is faster: exit code, stdout, stderr."""
        out, errors = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(errors):
            code = lab(*words)
        return code, out.getvalue(), errors.getvalue()

    def exercise(self, *options: str) -> dict[str, Any]:
        _, out, errors = self.run("exercise", self.stack, *options, "--json")
        assert out, errors
        found: dict[str, Any] = json.loads(out)
        return found

    def observed(self) -> ObservedLab:
        """The lab as verify would see it, by the plan alone."""
        return planned(project.stack_file(self.stack))

    def seed_of(self, fault: str) -> int:
        """A seed that stands for a fault."""
        of = self.observed()
        return next(seed for seed in range(2000) if choose(of, seed, None, sandbox=True)[0].id == fault)


def planned(path: Path) -> ObservedLab:
    spec = load_stack_file(path).lab
    spec, _ = fit(spec, examine(spec))
    plan = make_plan(spec)
    objects = make_objects(plan)
    read = Objects({kind: tuple(objects.get(where, ())) for kind, where in KINDS.items()})
    return ObservedLab.of(spec, plan.blocks, facts.cluster(read), facts.pods(read), {}, facts.services(read))


def test_every_seed_has_a_report_that_can_be_written(tmp_path: Path) -> None:
    """In a lab with two ways whose second pool has no pods, no walk shows what a strict reverse path filter drops."""
    text = (ROOT / "stacks/Pulumi.cross-node.yaml").read_text(encoding="utf-8")
    path = tmp_path / "Pulumi.mixed.yaml"
    path.write_text(text.replace("encapsulation: None", "encapsulation: VXLAN", 1), encoding="utf-8")
    of = planned(path)
    assert FAULTS["rp-filter-strict"].refusal(of.spec) is None
    for seed in range(8):
        fault, target = choose(of, seed, 3, sandbox=True)
        case = Case.of(of, target, symptoms(fault, of, target))
        assert LESSONS[fault.id].report(case) and LESSONS[fault.id].hints(case)


@pytest.fixture(scope="module", params=["cfos-egress"])
def room(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Class]:
    if problem := examine().problem:
        pytest.skip(f"no sandbox can be built here: {problem}")
    folder = tmp_path_factory.mktemp("class")
    two_ways = folder / "Pulumi.two-ways.yaml"
    two_ways.write_text(json.dumps(TWO_WAYS))
    (folder / "lab").write_text(LAB.format(python=sys.executable, root=str(ROOT)))
    (folder / "lab").chmod(0o755)
    made, known = Class(folder, request.param), project.stack_files
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(project, "HOME", folder / ".lab")
        patch.setattr(project, "stack_files", lambda root=None: known(root) | {"two-ways": two_ways})
        code, _, errors = made.run("sandbox", made.stack)
        assert code == 0, errors
        try:
            yield made
        finally:
            made.run("sandbox", made.stack, "--down")


# That verify sees each fault is in tests/verify/test_faults.py and tests/sandbox/test_firewall.py.
@pytest.mark.parametrize(
    ("room", "fault"),
    [*(("cfos-egress", fault) for fault in OF_EGRESS), *(("two-ways", fault) for fault in OF_TWO_WAYS)],
    indirect=["room"],
)
def test_the_hints_alone_solve_it(room: Class, fault: str) -> None:
    if fault == "service-without-endpoints" and shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed, by which its last hint mends it")
    seed = room.seed_of(fault)
    code, said, errors = room.run("exercise", room.stack, "--seed", str(seed), "--json")
    if "no sch_netem" in errors:
        assert room.exercise()["running"] is None
        pytest.skip(f"this kernel has no sch_netem. {HINT}")
    assert code == 0, errors
    started = json.loads(said)
    with left_whole(room):
        assert fault not in said + errors and started["report"]
        assert not any(fault in path.name or fault.encode() in path.read_bytes() for path in records(room))
        for number in range(1, started["hintsInAll"] + 1):
            hint = room.exercise("--hint")
            assert hint["hints"] == number and fault not in json.dumps(hint)
            typed = room.type(hint["command"])
            assert typed.returncode == 0, (hint["command"], typed.stdout, typed.stderr)
        solved = room.exercise("--check")
        assert solved["outcome"] == "solved" and solved["how"] == "hand", solved
        assert (solved["fault"], solved["hints"], solved["checks"]) == (fault, started["hintsInAll"], 1)
        assert room.exercise()["results"][-1]["seed"] == seed


@contextmanager
def left_whole(room: Class) -> Iterator[None]:
    """A test that fails leaves no fault to the next one. One that passes has seen that the lab is whole again."""
    try:
        yield
    except BaseException:
        room.run("exercise", room.stack, "--solution")
        room.run("mend", room.stack)
        raise


def records(room: Class) -> list[Path]:
    return [path for path in (room.folder / ".lab" / "exercises").iterdir() if path.suffix == ".running"]


def test_one_at_a_time_and_the_solution_mends(room: Class) -> None:
    first = room.exercise("--seed", "7", "--level", "1")
    try:
        code, _, errors = room.run("exercise", room.stack, "--seed", "8")
        assert code == 2 and "an exercise runs already (seed 7)" in errors
        code, said, _ = room.run("exercise", room.stack, "--check")
        assert code == 1 and "Not solved yet" in said
        answer = room.exercise("--solution")
        assert answer["outcome"] == "given up" and answer["fault"] in FAULTS and answer["answer"]
        assert LESSONS[answer["fault"]].level == first["level"] == 1
        assert room.run("verify", room.stack)[0] == 0
        code, _, errors = room.run("exercise", room.stack, "--hint")
        assert code == 2 and "no exercise of" in errors
    finally:
        room.run("mend", room.stack)


def test_mend_is_not_solved_by_hand(room: Class) -> None:
    room.exercise("--seed", "7", "--level", "1")
    assert room.run("mend", room.stack)[0] == 0
    assert room.exercise("--check")["how"] == "mend"


def test_a_lab_that_is_not_whole_begins_no_exercise(room: Class) -> None:
    assert room.run("break", room.stack, "proxy-arp-off", "--yes")[0] == 0
    try:
        code, _, errors = room.run("exercise", room.stack, "--seed", "1")
        assert code == 1 and "is not whole" in errors
        assert room.exercise()["running"] is None
    finally:
        assert room.run("mend", room.stack)[0] == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [("--hint --check", "one at a time"), ("--hint --seed 3", "leave them out"), ("--check", "no exercise of")],
)
def test_words_that_do_not_go_together(room: Class, options: str, words: str) -> None:
    code, _, errors = room.run("exercise", room.stack, *options.split())
    assert code == 2 and words in errors


def test_the_answers_of_a_teacher_are_what_the_class_gets(room: Class) -> None:
    code, said, errors = room.run("exercise", room.stack, "--answers", "--level", "1", "--json")
    assert code == 0, errors
    listed = json.loads(said)
    assert [answer["seed"] for answer in listed] == list(range(1, 21)) and {a["level"] for a in listed} == {1}
    assert room.exercise()["running"] is None, "nothing is broken"
    first = room.exercise("--seed", "1", "--level", "1")
    try:
        assert first["report"] == listed[0]["report"] and first["hintsInAll"] == listed[0]["hints"]
    finally:
        solved = room.exercise("--solution")
    assert (solved["fault"], solved["node"], solved["answer"]) == tuple(
        listed[0][key] for key in ("fault", "node", "answer")
    )
    assert datetime.fromisoformat(solved["ended"]).tzinfo is UTC
    code, _, errors = room.run("exercise", room.stack, "--answers", "--hint")
    assert code == 2 and "--answers begins no exercise" in errors


# --- without a sandbox ------------------------------------------------------------------------------------------------


def test_every_fault_is_a_lesson_and_every_lesson_a_fault() -> None:
    assert set(LESSONS) == set(FAULTS)
    assert {lesson.level for lesson in LESSONS.values()} == {1, 2, 3}


def test_a_seed_is_the_same_exercise_for_everybody() -> None:
    of = planned(project.stack_file("cfos-egress"))
    chosen = {seed: choose(of, seed, None, sandbox=True) for seed in range(60)}
    again = planned(project.stack_file("cfos-egress"))
    for seed, (fault, target) in chosen.items():
        repeated, there = choose(again, seed, None, sandbox=True)
        assert (fault.id, target.node, target.sentence) == (repeated.id, there.node, there.sentence)
    assert len({fault.id for fault, _ in chosen.values()}) > 8, "seeds differ"
    for level in (1, 2, 3):
        assert LESSONS[choose(of, 5, level, sandbox=True)[0].id].level == level


def test_on_a_cluster_nothing_that_felix_mends_at_once() -> None:
    of = planned(project.stack_file("cfos-egress"))
    assert not {"fdb-gone", "stale-neighbour", "nat-off"} & {
        choose(of, seed, None, sandbox=False)[0].id for seed in range(80)
    }


def test_the_record_is_packed_and_comes_back() -> None:
    exercise = Exercise("lab", 3, 1, "fdb-gone", "a", "report", "answer", (Hint("look", "./lab ssh"),), 1.0)
    assert unpack(pack(exercise)) == exercise
    assert b"fdb" not in pack(exercise)
    with pytest.raises(ValueError, match="no record"):
        unpack(b"{}")
