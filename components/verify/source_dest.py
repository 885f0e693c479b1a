"""EC2's source/destination check, switched on by purpose and back. The instance's own tag remembers that, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.verify import ec2

TAG = "cni-lab:fault"
STACK_TAG = "cni-lab:stack"
WAS_OFF = "source-dest-check: was off"


def switch_on(instances: Mapping[str, str], node: str, stack: str, region: str | None) -> str:
    """Switch a node's check on, after its instance's tag says that it was off. Returns why not, or nothing.

    `instances`: node → instance id, as the stack's output `nodes` has it.
    """
    machine = instances.get(node)
    if machine is None:
        return f"the stack's output `nodes` does not name {node}: `up` has not made it yet"
    return ec2.asked(lambda: _switch_on(ec2.client(region), machine, node, stack))


def _switch_on(client: Any, machine: str, node: str, stack: str) -> str:
    found = _describe(client, [machine])
    if machine not in found:
        return f"{node}: its instance {machine} is gone"
    tags, check = found[machine]
    if tags.get(STACK_TAG) != stack:
        return (
            f"{node}: instance {machine} carries the tag {STACK_TAG}={tags.get(STACK_TAG, '(none)')}, not {stack}: "
            "it is not this lab's, and is left as it is"
        )
    if TAG in tags:
        return f"source-dest-check is broken on {node} already, or was cut while it broke: mend first"
    if check:
        return f"{node}: the source/destination check is on already, and not by `break`: `up --refresh` switches it off"
    client.create_tags(Resources=[machine], Tags=[{"Key": TAG, "Value": WAS_OFF}])
    client.modify_instance_attribute(InstanceId=machine, SourceDestCheck={"Value": True})
    return ""


def switch_back(instances: Mapping[str, str], stack: str, region: str | None) -> dict[str, str] | str:
    """Switch off what switch_on switched on: node → how it went; a sentence why EC2 could not be asked."""
    found: dict[str, str] = {}
    return ec2.asked(lambda: _switch_back(ec2.client(region), instances, stack, found)) or found


def _switch_back(client: Any, instances: Mapping[str, str], stack: str, found: dict[str, str]) -> str:
    described = _describe(client, sorted(instances.values()))
    for node, machine in instances.items():
        tags, check = described.get(machine, ({}, False))
        if TAG not in tags or tags.get(STACK_TAG) != stack:
            continue
        if check:
            client.modify_instance_attribute(InstanceId=machine, SourceDestCheck={"Value": False})
        client.delete_tags(Resources=[machine], Tags=[{"Key": TAG}])
        found[node] = "put back" if check else "the check is off again, or was not on yet"
    return ""


def _describe(client: Any, machines: list[str]) -> dict[str, tuple[dict[str, str], bool]]:
    """Instance id → its tags, and whether the check is on."""
    return {
        machine: (
            {str(tag["Key"]): str(tag["Value"]) for tag in instance.get("Tags", ())},
            bool(instance.get("SourceDestCheck", True)),
        )
        for machine, instance in ec2.instances(client, machines).items()
    }
