"""`./lab plan`: the page, the JSON, the folder, and errors."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

import cli.plan.command
import cli.project
from cli.errors import CommandError
from cli.plan.folder import MARKER, render, write
from cli.plan.page import show
from cli.plan.topology import topology
from components.calico.blocks import foreseen
from components.spec.load import load_stack_file
from engine.graph import Graph
from engine.model import SECRET, UNKNOWN
from engine.run import run_program
from tests.engine import lab_program
from tests.support.cli import lab
from tests.support.graphs import STACKS

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = "from tests.engine.lab_program import program\nprogram()\n"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one valid stack file, `lab`, and a small program."""
    folder = tmp_path / "project"
    (folder / "stacks").mkdir(parents=True)
    shutil.copy(ROOT / "stacks" / "Pulumi.cfos-egress.yaml", folder / "stacks" / "Pulumi.lab.yaml")
    (folder / "__main__.py").write_text(PROGRAM)
    monkeypatch.setattr(cli.project, "ROOT", folder)
    return folder


def tree_of(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


PAGE = """\
lab: 3 nodes on EC2 in us-west-2, 9 pods of workloads
  Kubernetes 1.36.3, CRI-O 1.36.3, Calico 3.32.1 by the operator, Multus 4.3.0
  ip1001100      control plane  10.0.1.100  pods foreseen in 10.244.6.0/24
  ip-10-0-2-200  worker         10.0.2.200  pods foreseen in 10.244.97.0/24
  ip-10-0-2-201  worker         10.0.2.201  pods foreseen in 10.244.93.0/24
  pool default-ipv4-ippool: 10.244.0.0/16 in blocks of /24, VXLAN between nodes
  delegate net-calico: eth0 with addresses 150-250 of each block, the default
  delegate default-calico: eth0 with addresses 50-100 of each block
  network cfosdefaultcni5: further interfaces, bridge cni5 10.1.128.0/24
  pods: 3 normal, 2 normal-default-calico, 2 normal-egress, 2 firewall
  cost: nothing; no cloud is used

16 resources in 5 waves (9 made, 6 components, 1 provider). Waves are the order: resources of a wave
wait for earlier waves, and not for each other.

 wave  resource            type
  1-4  ├─ net              cnilab:network:Network
    1  │  ├─ key           tls:PrivateKey
    1  │  ├─ token         random:RandomPassword
    2  │  ├─ prepare-one   Step on one
    2  │  ├─ prepare-two   Step on two
    3  │  ├─ init          Step on one
    4  │  └─ join          Step on two
    2  ├─ api              pulumi:providers:kubernetes
  4-5  └─ calico           cnilab:calico:Calico
    4     ├─ config        ConfigMap v1
    4     ├─ account       ServiceAccount v1
    5     └─ installation  Installation operator.tigera.io/v1

Resources by type
    4  cnilab:node:Step                        1  cnilab:calico:Calico
    4  command:remote:Command                  1  cnilab:network:Network
    1  ConfigMap v1                            1  pulumi:providers:kubernetes
    1  Installation operator.tigera.io/v1      1  random:RandomPassword
    1  ServiceAccount v1                       1  tls:PrivateKey

Longest chain: each resource waits for the one before
    1  PrivateKey key
    2  prepare on one
    3  init on one
    4  ConfigMap lab
    5  Installation default

Outputs
  installation: "default"
  private: "<secret>"
  public: "<known after up>"

Notes
  warning: a word of warning
"""


def test_the_page(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab("plan", "lab") == 0
    captured = capsys.readouterr()
    assert captured.out == PAGE and captured.err == ""
    assert max(map(len, PAGE.splitlines())) <= 100


@pytest.mark.parametrize("stack", STACKS)
def test_at_80_columns_no_word_is_cut(
    stack: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli.plan.command, "page", lambda _: Console(width=80, highlight=False))
    assert lab("plan", stack) == 0
    out = capsys.readouterr().out
    assert "…" not in out
    assert [line for line in out.splitlines() if len(line) > 80] == []
    words = set(out.split())
    assert {node.name for node in load_stack_file(ROOT / "stacks" / f"Pulumi.{stack}.yaml").lab.nodes} <= words
    assert "drain" not in out.partition("Longest chain")[2].partition("Outputs")[0]


def test_a_label_that_leaves_no_room_has_its_type_on_the_next_line(capsys: pytest.CaptureFixture[str]) -> None:
    long = {"urn": "u", "type": "aws:ec2/instance:Instance", "name": "n" * 70, "parent": None, "custom": True}
    graph = Graph.of([long | {"inputs": {}, "dependencies": [], "provider": None}])
    show([], run_program(lambda: None), graph, [], Console(width=80, highlight=False))
    lines = capsys.readouterr().out.splitlines()
    at = next(index for index, line in enumerate(lines) if "n" * 70 in line)
    assert lines[at + 1].split() == ["aws:ec2:Instance"]


@pytest.mark.parametrize("stack", STACKS)
def test_the_topology_names_every_node_network_and_workload(stack: str) -> None:
    spec = load_stack_file(ROOT / "stacks" / f"Pulumi.{stack}.yaml").lab
    text = topology(spec, foreseen(spec))
    assert text.startswith("flowchart TB\n") and "subgraph legend" in text
    boxes = set(re.findall(r"^ +(\w+)[(\[]", text, re.MULTILINE))
    ends = {end for edge in re.findall(r"^  (\w+) -[^>]*?-[->] (\w+)$", text, re.MULTILINE) for end in edge}
    assert ends <= boxes
    for named in (*spec.nodes, *spec.networks, *spec.workloads, *spec.calico.pools):
        assert named.name in text


def test_the_json(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab("plan", "lab", "--json") == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert list(document) == ["stack", "resources", "outputs", "longestChain"]
    assert document["stack"] == "lab"
    always = {"urn", "type", "name", "parent", "custom", "inputs"}
    always |= {"dependencies", "provider", "deletedWith", "ignoreChanges"}
    assert all(always <= r.keys() for r in document["resources"])
    by_urn = {r["urn"]: r for r in document["resources"]}
    assert [by_urn[urn]["name"] for urn in document["longestChain"]] == [
        "key", "prepare-one", "init", "config", "installation",
    ]  # fmt: skip
    init = next(r for r in document["resources"] if r["name"] == "init" and r["type"] == "cnilab:node:Step")
    assert init["inputs"]["files"][0]["content"]["delegates"] == [{"subnet": UNKNOWN, "token": SECRET}]
    assert init["inputs"]["variables"]["TOKEN"] == SECRET
    assert "s3cret" not in captured.out
    # Notes go to stderr, so that stdout is JSON.
    assert captured.err == "warning: a word of warning\n"


def test_an_error_in_the_programs_log_fails_the_plan(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "__main__.py").write_text("import pulumi\npulumi.log.error('this will not work')\n")
    assert lab("plan", "lab") == 1
    assert "error: this will not work" in capsys.readouterr().out


# --- the folder


def test_the_folder(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "deep" / "out"
    assert lab("plan", "lab", "--out", out) == 0
    files = tree_of(out)
    assert set(files) == {
        MARKER,
        "resources.json",
        "graph.mmd",
        "graph.svg",
        "topology.mmd",
        "kubernetes/01-configmap-kube-system-lab.yaml",
        "kubernetes/02-serviceaccount-lab.yaml",
        "kubernetes/03-installation-default.yaml",
        "nodes/one/etc/crio/lab.conf",
        "nodes/one/etc/cni/net.d/00-multus.conf",
        "nodes/one/etc/kubernetes/init.yaml",
        "nodes/one/steps/01-prepare.sh",
        "nodes/one/steps/02-init.sh",
        "nodes/two/etc/crio/lab.conf",
        "nodes/two/steps/01-prepare.sh",
        "nodes/two/steps/02-join.sh",
    }
    assert f"written to {out}: {len(files) - 1} files" in capsys.readouterr().out
    assert json.loads(files["resources.json"])["stack"] == "lab"
    assert files["graph.mmd"].startswith("flowchart LR\n")
    ElementTree.fromstring(files["graph.svg"])
    assert files["nodes/one/etc/crio/lab.conf"] == "[crio]\n"
    assert json.loads(files["nodes/one/etc/cni/net.d/00-multus.conf"]) == {
        "type": "multus",
        "delegates": [{"subnet": UNKNOWN, "token": SECRET}],
    }
    assert list(yaml.safe_load_all(files["nodes/one/etc/kubernetes/init.yaml"])) == [{"kind": "A"}, {"kind": "B"}]
    assert files["kubernetes/01-configmap-kube-system-lab.yaml"] == (
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: lab\n  namespace: kube-system\n"
        "data:\n  a: |\n    one\n    two\n"
    )
    assert yaml.safe_load(files["kubernetes/03-installation-default.yaml"])["spec"] == {
        "calicoNetwork": {"bgp": "Disabled", "ipPools": [{"blockSize": 24}]}
    }
    assert files["nodes/one/steps/02-init.sh"] == (
        "# init on one, within 900 s (step init)\n"
        "# file 0600 /etc/cni/net.d/00-multus.conf\n"
        "NODE=one\n"
        """QUOTED='it'"'"'s $HOME'\n"""
        "TOKEN='<secret>'\n"
        "\n# --- lib.sh\nlog() { :; }\n"
        "\n# --- init.sh\nset -euo pipefail\necho hello\n"
    )
    assert "s3cret" not in "".join(files.values())


def test_an_earlier_plan_is_replaced_file_by_file(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, {"a": "1", "old/deep/b": "2", "old/c": "3"})
    write(out, {"a": "4", "old/c": "3", "new/d": "5"})
    assert tree_of(out) == {"a": "4", "old/c": "3", "new/d": "5", MARKER: "a\nnew/d\nold/c\n"}
    assert not (out / "old" / "deep").exists()
    write(out, {"a": "4"})
    assert [p.name for p in out.iterdir() if p.is_dir()] == []


def test_an_interrupted_run_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    write(out, {"a": "1", "b": "1"})
    original = Path.write_text

    def cut(self: Path, *args: Any, **options: Any) -> int:
        if self.name == "c":
            raise KeyboardInterrupt
        return original(self, *args, **options)

    monkeypatch.setattr(Path, "write_text", cut)
    with pytest.raises(KeyboardInterrupt):
        write(out, {"a": "2", "c": "2", "d": "2"})
    monkeypatch.undo()
    write(out, {"d": "3"})
    assert tree_of(out) == {"d": "3", MARKER: "d\n"}


@pytest.mark.parametrize("with_ours", [False, True])
def test_other_files_are_never_touched(tmp_path: Path, with_ours: bool) -> None:
    out = tmp_path / "out"
    out.mkdir()
    if with_ours:
        write(out, {"a": "1"})
    (out / "notes").mkdir()
    (out / "notes" / "mine.txt").write_text("dear diary")
    before = tree_of(out)
    with pytest.raises(CommandError, match=r"holds files that no plan wrote \(notes/mine.txt\): name an empty or new"):
        write(out, {"a": "2"})
    assert tree_of(out) == before


def test_a_folder_that_is_a_file_or_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(CommandError, match="is a file: name a folder"):
        write(tmp_path / "file", {"a": "1"})
    with pytest.raises(CommandError, match="Not a directory"):
        write(tmp_path / "file" / "below", {"a": "1"})


def test_a_bad_folder_is_exit_2(project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x").write_text("x")
    assert lab("plan", "lab", "--out", tmp_path / "x") == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1


def step(name: str, *files: dict[str, str], phase: str = "p", **inputs: Any) -> dict[str, Any]:
    face = {"node": "n", "phase": phase, "files": list(files), "variables": {}, "scripts": {}, "timeout": 9, **inputs}
    return {
        "urn": name, "type": "cnilab:node:Step", "name": name, "parent": None, "custom": False, "inputs": face,
        "dependencies": [], "provider": None,
    }  # fmt: skip


def rendered(*resources: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
    return render(run_program(lambda: None), Graph.of(resources), "{}")


def test_of_two_steps_that_write_one_file_the_later_one_counts_with_a_warning() -> None:
    one = {"path": "/etc/x", "mode": "0644", "content": "one"}
    files, warnings = rendered(step("a", one), step("b", one), step("c", one | {"content": "two"}))
    assert files["nodes/n/etc/x"] == "two\n"
    assert warnings == ["b and c write /etc/x on n: the folder has the later one"]


@pytest.mark.parametrize("path", ["etc/x", "/etc/../../x", "../x"])
def test_no_path_leaves_the_folder(path: str) -> None:
    files, warnings = rendered(step("a", {"path": path, "mode": "0644", "content": "x"}, node="../../n", phase="../p"))
    assert not [name for name in files if name.endswith("/x")]
    assert warnings == [f"a writes {path!r}, which is not an absolute path: it is left out"]
    assert "nodes/n/steps/01-p.sh" in files


def test_unknown_files_and_variables_are_marked() -> None:
    files, _ = rendered(step("a", files=UNKNOWN, variables=UNKNOWN))
    text = files["nodes/n/steps/01-p.sh"]
    assert f"# files: {UNKNOWN}" in text and f"# variables: {UNKNOWN}" in text


# --- errors


def test_an_unknown_stack_is_one_line_with_the_known_ones(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lab("plan", "lap") == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert "'lap'" in captured.err and "lab" in captured.err


def test_a_bad_stack_file_shows_every_finding(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stack = project / "stacks" / "Pulumi.lab.yaml"
    text = stack.read_text()
    assert "blockSize: 24" in text
    stack.write_text(text.replace("blockSize: 24", "blockSize: 64"))
    assert lab("plan", "lab", "--json") == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "blockSize" in captured.err and "Traceback" not in captured.err


@pytest.mark.parametrize("asked", [False, True])
def test_a_failing_program_shows_its_message(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    if asked:
        monkeypatch.setenv("LAB_TRACEBACK", "1")
    (project / "__main__.py").write_text("import pulumi\nraise pulumi.RunError('no such pool')\n")
    assert lab("plan", "lab") == 1
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("lab plan: no such pool\n")
    assert ("Traceback" in captured.err) is asked


def test_a_reader_that_ends_early() -> None:
    """`plan | head -1`, with the real program and a shipped stack."""
    command = [sys.executable, "-m", "cli", "plan", "local", "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == "{\n"
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0 and "Traceback" not in errors and "BrokenPipe" not in errors


def test_the_small_program_is_a_pulumi_program() -> None:
    """It also runs as a file, as pulumi would run it."""
    deployment = run_program(Path(lab_program.__file__))
    assert len(deployment.resources) == 17
