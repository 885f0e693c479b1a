"""What `./lab up` and `preview` do about a lab's EC2 machines before pulumi changes anything. moto is EC2, and a
recorder stands in for pulumi."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli import project
from cli.errors import USAGE, CommandError
from cli.lifecycle import instance_type
from cli.lifecycle.deploy import run
from components.spec.load import load_stack_file
from components.verify.read import api
from tests.support.moto_ec2 import REGION, Cloud, cloud

NODES = [
    {"name": "cp", "role": "control-plane", "subnet": "workers", "address": "10.0.2.10"},
    {"name": "w1", "subnet": "workers", "address": "10.0.2.11"},
]
RECORDER = """#!/bin/sh
case "$1 $2" in
  "stack output") cat "$FOLDER/outputs.json"; exit ;;
  "stack export") cat "$FOLDER/state.json"; exit ;;
  "stack ls") echo '[{"name": "mine", "current": false, "updateInProgress": false}]'; exit ;;
esac
case $1 in version) echo v999.0.0; exit ;; esac
printf '%s\\n' "$*" >>"$FOLDER/calls"
case "$1 $2" in "stack select") [ -e Pulumi.mine.yaml ] || echo 'encryptionsalt: v1:abc' >Pulumi.mine.yaml ;; esac
"""


class Stack:
    """A stack `mine` on EC2: its file, its machines, its state."""

    def __init__(self, aws: Cloud, folder: Path) -> None:
        self.aws, self.folder = aws, folder
        made = aws.ec2.run_instances(ImageId=aws.image, MinCount=2, MaxCount=2, InstanceType="t3.large")["Instances"]
        self.ids = {node["name"]: i["InstanceId"] for node, i in zip(NODES, made, strict=True)}
        self.write()
        self.store(self.resources())

    def write(self, nodes: list[dict[str, Any]] | None = None, **machines: Any) -> None:
        spec = {"provider": "aws", "operatorCidrs": ["198.18.0.1/32"], **machines}
        lab = {"machines": spec, "nodes": nodes or NODES}
        (self.folder / "stacks").mkdir(exist_ok=True)
        text = yaml.safe_dump({"config": {"aws:region": REGION, "cni-lab:lab": lab}})
        (self.folder / "stacks" / "Pulumi.mine.yaml").write_text(text)

    def resources(self) -> list[dict[str, Any]]:
        return [
            {
                "urn": f"urn:pulumi:mine::cni-lab::aws:ec2/instance:Instance::lab-machines-{node['name']}",
                "type": "aws:ec2/instance:Instance",
                "id": self.ids[node["name"]],
                "inputs": {"instanceType": "t3.large", "privateIp": node["address"]},
            }
            for node in NODES
        ]

    def store(self, resources: list[dict[str, Any]], outputs: dict[str, Any] | None = None) -> None:
        state = {"version": 3, "deployment": {"resources": resources}}
        (self.folder / "state.json").write_text(json.dumps(state))
        (self.folder / "outputs.json").write_text(json.dumps(outputs or {}))

    def bring_up(self) -> None:
        """As after an `up` that reached its end, with the file as it is now."""
        lab = load_stack_file(self.folder / "stacks" / "Pulumi.mine.yaml").lab
        stored = lab.model_dump(mode="json", by_alias=True, exclude_none=True)
        access = {node["name"]: {} for node in NODES}
        self.store(self.resources(), {"lab": stored, "kubeconfig": "{}", "access": access})

    def calls(self) -> list[str]:
        """What pulumi was asked to do, each without the options that name the stack."""
        file = self.folder / "calls"
        lines = file.read_text().splitlines() if file.exists() else []
        words = [line.partition(" --event-log")[0].replace(" --stack mine", "").split() for line in lines]
        return [" ".join(w for w in line if "/" not in w and w != "--config-file") for line in words]


@pytest.fixture
def stack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    (tmp_path / "components").mkdir()
    monkeypatch.setattr(project, "ROOT", tmp_path)
    monkeypatch.setattr(project, "HOME", tmp_path / ".lab")
    state = tmp_path / ".lab" / "state" / ".pulumi" / "stacks" / project.NAME
    state.mkdir(parents=True)
    (state / "mine.json").write_text("{}")
    for name in ("PULUMI_BACKEND_URL", "PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE"):
        monkeypatch.delenv(name, raising=False)
    pulumi = tmp_path / "bin" / "pulumi"
    pulumi.parent.mkdir()
    pulumi.write_text(RECORDER)
    pulumi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{pulumi.parent}:/usr/bin:/bin")
    monkeypatch.setenv("FOLDER", str(tmp_path))
    with cloud() as aws:
        yield Stack(aws, tmp_path)


def test_nothing_is_done_where_nothing_is_wrong(stack: Stack) -> None:
    for command in ("up", "preview"):
        assert run(command, "mine", ["--yes"]) == 0
    assert [call.split()[0] for call in stack.calls()] == ["stack", "up", "stack", "preview"]
    assert "--refresh" not in " ".join(stack.calls())


def test_a_machine_that_is_gone_is_taken_from_the_state_first(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    """A step would dial it through the jump host, each time until the kernel there gives up: for hours."""
    stack.aws.ec2.terminate_instances(InstanceIds=[stack.ids["w1"]])
    assert run("up", "mine", ["--yes"]) == 0
    assert "EC2 no longer has the machines of w1" in capsys.readouterr().err
    _, refresh, up = stack.calls()
    urn = stack.resources()[1]["urn"]
    assert refresh.startswith("refresh --yes --skip-preview --target") and up.startswith("up")
    assert f"--target {urn}" in (stack.folder / "calls").read_text() and "lab-machines-cp" not in refresh


def test_a_preview_changes_no_state_for_it(stack: Stack) -> None:
    stack.aws.ec2.terminate_instances(InstanceIds=[stack.ids["w1"]])
    assert run("preview", "mine", []) == 0
    assert [call.split()[0] for call in stack.calls()] == ["stack", "preview"]
    assert "--refresh" in (stack.folder / "calls").read_text()


@pytest.mark.parametrize("which", ["all", "one"])
def test_up_starts_no_machine_that_is_stopped(stack: Stack, which: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Also not by a change of its type, which EC2's provider ends with a start."""
    stack.bring_up()
    stack.write(instanceType="t3.xlarge")
    ids = list(stack.ids.values()) if which == "all" else [stack.ids["w1"]]
    stack.aws.ec2.stop_instances(InstanceIds=ids)
    with pytest.raises(CommandError, match=r"are stopped(: | \(w1\): )\./lab start mine first") as caught:
        run("up", "mine", ["--yes"])
    assert caught.value.code == USAGE
    assert not [call for call in stack.calls() if not call.startswith("stack")]
    assert run("preview", "mine", []) == 0, "a preview only says so"
    assert "stopped now: " in capsys.readouterr().err


def test_where_ec2_cannot_be_asked_that_is_said(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    stack.write()
    text = (stack.folder / "stacks" / "Pulumi.mine.yaml").read_text()
    stack.folder.joinpath("stacks/Pulumi.mine.yaml").write_text(
        text.replace("config:", "config:\n  aws:profile: nobody")
    )
    assert run("preview", "mine", []) == 0
    assert "it is not known whether the machines of mine run: " in capsys.readouterr().err


class Changed:
    """Stands in for the change of a machine, and for the cluster that it is in."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.cordoned: list[str] = []
        for word in ("drain", "uncordon", "wait_until_back"):
            monkeypatch.setattr(
                instance_type.Cluster, word, lambda _, node, word=word: self.log.append(f"{word} {node}")
            )
        monkeypatch.setattr(instance_type.Cluster, "cordoned", lambda _: self.cordoned)


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch) -> Changed:
    return Changed(monkeypatch)


def test_a_live_lab_changes_its_type_before_the_rest(
    stack: Stack, changed: Changed, capsys: pytest.CaptureFixture[str]
) -> None:
    stack.bring_up()
    stack.write(instanceType="t3.xlarge")
    assert run("preview", "mine", []) == 0
    said = (
        "machines.instanceType: t3.large → t3.xlarge: one after the other is drained, stopped and started again: w1, cp"
    )
    assert said in capsys.readouterr().err and changed.log == []
    (stack.folder / "calls").unlink()
    assert run("up", "mine", ["--yes"]) == 0
    assert changed.log == [
        f"{word} {node}" for node in ("w1", "cp") for word in ("drain", "wait_until_back", "uncordon")
    ]
    assert [call.split()[0] for call in stack.calls()] == ["stack", "preview", "up", "up", "up"]
    targets = [line.count("--target ") for line in (stack.folder / "calls").read_text().splitlines()]
    assert targets == [0, 2, 1, 1, 0]


def test_without_an_answer_nothing_is_changed(stack: Stack, changed: Changed, monkeypatch: pytest.MonkeyPatch) -> None:
    stack.bring_up()
    stack.write(instanceType="t3.xlarge")

    class Terminal:
        isatty = staticmethod(lambda: True)
        readline = staticmethod(lambda: "n\n")

    monkeypatch.setattr("sys.stdin", Terminal)
    with pytest.raises(CommandError, match="nothing was changed"):
        run("up", "mine", [])
    assert changed.log == []


def test_a_node_that_a_cut_change_left_cordoned_takes_pods_again(stack: Stack, changed: Changed) -> None:
    stack.bring_up()
    changed.cordoned = ["w1"]
    assert run("up", "mine", ["--yes"]) == 0
    assert changed.log == ["uncordon w1"]


def test_who_is_cordoned_is_read_from_the_api(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    def node(name: str, **annotations: str) -> dict[str, Any]:
        return {"metadata": {"name": name, "annotations": annotations}}

    async def read(kubeconfig: str, kinds: Any) -> api.Objects:
        return api.Objects(
            {"nodes": (node("cp"), node("w1", **{"cni-lab/cordoned": "yes"}), {"metadata": {"name": "x"}})}
        )

    monkeypatch.setattr(api, "read", read)
    stack.bring_up()
    cluster = instance_type.Cluster.of("mine")
    assert cluster is not None and cluster.cordoned() == ["w1"]


RENAMED = [NODES[0], {"name": "other", "subnet": "workers", "address": "10.0.2.11"}]
SWAPPED = [NODES[0] | {"address": "10.0.2.11"}, NODES[1] | {"address": "10.0.2.10"}]


@pytest.mark.parametrize("live", [True, False], ids=["live", "half made"])
@pytest.mark.parametrize("command", ["up", "preview"])
@pytest.mark.parametrize("nodes", [RENAMED, SWAPPED], ids=["renamed", "swapped"])
def test_a_renamed_node_and_swapped_addresses_are_refused(
    stack: Stack, nodes: list[dict[str, Any]], command: str, live: bool
) -> None:
    """EC2 would say InvalidIPAddress.InUse at every `up`. An `up` that failed stored no lab; its state knows."""
    if live:
        stack.bring_up()
    stack.write(nodes)
    with pytest.raises(CommandError, match=r"nodes\[1\]\.name: w1 → other|nodes\[0\]\.name: w1 → cp") as caught:
        run(command, "mine", ["--yes"])
    assert caught.value.code == USAGE and "Fix: " in str(caught.value)
    assert ("is up" in str(caught.value)) == live
    assert stack.calls() == []


CP = {"role": "control-plane", "subnet": "workers"}
THREE = [*NODES, CP | {"name": "cp2", "address": "10.0.2.12"}, CP | {"name": "cp3", "address": "10.0.2.13"}]


@pytest.mark.parametrize(
    ("nodes", "refused"), [(THREE, True), ([*NODES, NODES[1] | {"name": "w2", "address": "10.0.2.12"}], False)]
)
def test_a_balancer_for_a_cluster_that_an_up_left_half_made(
    stack: Stack, nodes: list[dict[str, Any]], refused: bool
) -> None:
    """kubeadm has written the certificate by then."""
    step = "urn:pulumi:mine::cni-lab::cnilab:node:Step::lab-cluster-cp-init"
    cluster = [
        {"urn": step, "type": "cnilab:node:Step", "inputs": {"node": "cp", "phase": "init"}},
        {"urn": "urn:command", "type": "command:remote:Command", "parent": step, "id": "x", "inputs": {}},
    ]
    stack.store([*stack.resources(), *cluster])
    stack.write(nodes)
    if refused:
        with pytest.raises(CommandError, match="nodes: one control plane → the lab's load balancer"):
            run("up", "mine", ["--yes"])
    else:
        assert run("up", "mine", ["--yes"]) == 0
