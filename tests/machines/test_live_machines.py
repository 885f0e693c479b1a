"""What `up` does about live EC2 machines before it changes anything else, on the real engine with the stand-in for the
aws provider: machines that are gone, and machines of another type."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli import project
from cli.errors import CommandError
from cli.lifecycle.ec2_machines import Ec2State, Pulumi, find_gone, forget, state_of
from cli.lifecycle.instance_type import Cluster, change_in_turn, to_change
from components.aws_client import AwsSettings
from components.spec.load import parse_lab
from tests.support.aws_engine import INSTANCE, NEEDS_CLI, STACK, W2, Engine, lab, machines_engine
from tests.support.aws_engine import NODES as TWO
from tests.support.aws_provider import Event, machines, of, refusal
from tests.support.moto_ec2 import REGION

pytestmark = [NEEDS_CLI, pytest.mark.timeout(1800)]

NODES = [*TWO, W2]
HERE = AwsSettings(REGION)
LARGER = lab(NODES, machines={"instanceType": "t3.xlarge"})


class Stack(Engine):
    """With what the product reads and runs of it."""

    def pulumi(self, wanted: dict[str, Any]) -> Pulumi:
        self.write(wanted)
        return Pulumi("pulumi", self.environment, STACK, self.file)

    def made(self) -> Ec2State:
        return state_of(self.state())


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stack]:
    with machines_engine(tmp_path, Stack) as found:
        monkeypatch.setattr(project, "ROOT", tmp_path)
        yield found


def terminate(engine: Stack, address: str) -> None:
    """As AWS does to a spot instance, or a person in the console."""
    found = machines(engine.aws)[address]
    inputs = {"subnetId": found["SubnetId"], "privateIp": address}
    engine.aws.cloud.delete(INSTANCE, found["InstanceId"], inputs)


def test_a_machine_that_is_gone_is_made_again_and_no_other_one(engine: Stack) -> None:
    """Without the refresh pulumi sees no change, and its steps dial the machine for hours."""
    wanted = lab(NODES)
    engine.up(wanted)
    for node in ("w1", "cp"):
        before = engine.made()
        assert {name: str(machine.address) for name, machine in before.instances.items()} == {
            "cp": "10.0.1.10",
            "w1": "10.0.2.10",
            "w2": "10.0.2.11",
        }
        assert find_gone("up", "test", parse_lab(wanted), before, HERE) == []
        terminate(engine, str(before.instances[node].address))
        assert engine.up(wanted) == [], "pulumi alone does not notice"

        gone = find_gone("up", "test", parse_lab(wanted), before, HERE)
        assert gone == [before.instances[node]]
        forget(engine.pulumi(wanted), gone)
        assert set(engine.made().instances) == {"cp", "w1", "w2"} - {node}

        made = engine.up(wanted)
        assert of(made, INSTANCE) == [("create", f"lab-machines-{node}")]
        assert all(event.type == INSTANCE or (node == "cp" and "Eip" in event.type) for event in made), made
        assert len(engine.machines()) == 3


@dataclass(frozen=True)
class Watched(Cluster):
    """A cluster that writes down what it is asked, in one list with what happens to the machines."""

    log: list[str] = field(default_factory=list)
    failing: str = ""

    def drain(self, node: str) -> None:
        self.log.append(f"drain {node}")
        if node == self.failing:
            raise CommandError(f"{node} is not drained", 1)

    def wait_until_back(self, node: str) -> None:
        self.log.append(f"wait {node}")

    def uncordon(self, node: str) -> None:
        self.log.append(f"uncordon {node}")


def watched(engine: Stack, wanted: dict[str, Any], failing: str = "") -> Watched:
    made = Watched("test", parse_lab(wanted), "", {}, failing=failing)
    engine.aws.after = lambda event: made.log.append(f"{event.operation} {event.name.rpartition('-')[2]}")
    return made


def test_machines_change_their_type_one_after_the_other_each_drained(engine: Stack) -> None:
    """What fails stops there, and the next `up` goes on. Only the type changes then, and the rest of the file later:
    otherwise a change that then fails could not be set back, for its outputs would be those of the new file."""
    engine.up(lab(NODES))
    ids = {node: machine.id for node, machine in engine.made().instances.items()}
    w3 = {"name": "w3", "role": "worker", "subnet": "two", "address": "10.0.2.12"}
    wanted = lab([*NODES, w3], machines={"instanceType": "t3.xlarge"})
    files = sorted(path.name for path in engine.file.parent.iterdir())

    def try_to_change(*, failing: str = "") -> list[str]:
        cluster = watched(engine, lab(NODES), failing)
        machines = to_change(parse_lab(wanted), engine.made())
        change = partial(change_in_turn, engine.pulumi(wanted), cluster, "t3.xlarge", machines)
        if failing or engine.aws.before is refuse_w2:
            with pytest.raises(CommandError, match="w2"):
                change()
        else:
            change()
        return cluster.log

    def refuse_w2(event: Event) -> None:
        if event.name == "lab-machines-w2":
            raise refusal("InsufficientInstanceCapacity", "no t3.xlarge just now")

    done = {node: [f"drain {node}", f"update {node}", f"wait {node}", f"uncordon {node}"] for node in ids}
    assert try_to_change(failing="w2") == [*done["w1"], "drain w2"]
    assert engine.machines() == {"10.0.1.10": "t3.large", "10.0.2.10": "t3.xlarge", "10.0.2.11": "t3.large"}
    engine.aws.before = refuse_w2
    assert try_to_change() == ["drain w2"]
    assert engine.machines()["10.0.1.10"] == "t3.large", "the machines after it are unchanged"
    engine.aws.before = lambda event: None
    assert try_to_change() == [*done["w2"], *done["cp"]]
    assert set(engine.machines().values()) == {"t3.xlarge"}
    assert {node: machine.id for node, machine in engine.made().instances.items()} == ids, "none is another machine"
    assert sorted(path.name for path in engine.file.parent.iterdir()) == files
    assert yaml.safe_load(engine.file.read_text())["config"]["cni-lab:lab"] == wanted

    assert try_to_change() == [], "nothing is left for the `up` that follows but the new machine"
    assert of(engine.up(wanted), INSTANCE) == [("create", "lab-machines-w3")]


def test_what_pulumi_refuses_is_refused_before_the_first_drain(engine: Stack) -> None:
    """The state also names the nodes of an `up` that failed, which stores no lab."""
    engine.aws.refusals.vcpu_quota = 4
    assert engine.try_up(lab(NODES)).returncode != 0
    made = engine.made().made
    assert made.balanced is None and len(made.machines) == 2
    assert made.machines.items() <= {IPv4Address(node["address"]): node["name"] for node in NODES}.items()

    cluster = watched(engine, lab(NODES))
    program = engine.folder / "__main__.py"
    program.write_text(program.read_text() + 'if "xlarge" in lab.machines.instance_type: raise pulumi.RunError("no")\n')
    with pytest.raises(CommandError, match="pulumi refuses the change"):
        change_in_turn(engine.pulumi(LARGER), cluster, "t3.xlarge", to_change(parse_lab(LARGER), engine.made()))
    assert cluster.log == []
