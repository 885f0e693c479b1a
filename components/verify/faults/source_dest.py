"""EC2's source/destination check, switched on by purpose and off again. The instance's own tag records it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from components.aws_client import AwsSettings
from components.verify.faults.model import Refused, Undone
from components.verify.read import ec2

FAULT = "source-dest-check"
TAG = "cni-lab:fault"
STACK_TAG = "cni-lab:stack"
WAS_OFF = "source-dest-check: was off"


@dataclass(frozen=True)
class _Instance:
    tags: Mapping[str, str]
    check: bool


def switch_on(instances: Mapping[str, str], node: str, stack: str, aws: AwsSettings) -> None:
    """Switch a node's check on, after its instance's tag records that it was off. Raises Refused, NoEc2.

    `instances`: node → instance id, as the stack's output `nodes` has it.
    """
    machine = instances.get(node)
    if machine is None:
        raise Refused(f"the stack's output `nodes` does not name {node}: `up` has not made it yet")
    with ec2.client(aws) as client:
        instance = _describe(client, [machine]).get(machine)
        if instance is None:
            raise Refused(f"{node}: its instance {machine} is gone")
        if instance.tags.get(STACK_TAG) != stack:
            raise Refused(
                f"{node}: instance {machine} has the tag {STACK_TAG}={instance.tags.get(STACK_TAG, '(none)')}, not "
                f"{stack}: it is not this lab's, and is not changed"
            )
        if TAG in instance.tags:
            raise Refused(f"{FAULT} is broken on {node} already, or was cut while it broke: mend first")
        if instance.check:
            raise Refused(
                f"{node}: the source/destination check is on already, not by `break`: `up --refresh` switches it off"
            )
        client.create_tags(Resources=[machine], Tags=[{"Key": TAG, "Value": WAS_OFF}])
        client.modify_instance_attribute(InstanceId=machine, SourceDestCheck={"Value": True})


def switch_back(instances: Mapping[str, str], stack: str, aws: AwsSettings) -> list[Undone]:
    """Switch off every check that switch_on switched on. Raises NoEc2."""
    undone: list[Undone] = []
    with ec2.client(aws) as client:
        described = _describe(client, instances.values())
        for node, machine in instances.items():
            instance = described.get(machine)
            if instance is None or TAG not in instance.tags or instance.tags.get(STACK_TAG) != stack:
                continue
            if instance.check:
                client.modify_instance_attribute(InstanceId=machine, SourceDestCheck={"Value": False})
            client.delete_tags(Resources=[machine], Tags=[{"Key": TAG}])
            result = "put back" if instance.check else "the check is off again, or was not on yet"
            undone.append(Undone(node, FAULT, result))
    return undone


def _describe(client: Any, machines: Iterable[str]) -> dict[str, _Instance]:
    """By instance id."""
    return {
        machine: _Instance(
            {str(tag["Key"]): str(tag["Value"]) for tag in instance.get("Tags", ())},
            bool(instance.get("SourceDestCheck", True)),
        )
        for machine, instance in ec2.instances(client, machines).items()
    }
