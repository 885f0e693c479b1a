"""EC2's source/destination check, switched on by purpose and back. The instance's own tag remembers that, and how."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
    return _asked(lambda: _switch_on(_client(region), machine, node, stack))


def _switch_on(ec2: Any, machine: str, node: str, stack: str) -> str:
    found = _describe(ec2, [machine])
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
    ec2.create_tags(Resources=[machine], Tags=[{"Key": TAG, "Value": WAS_OFF}])
    ec2.modify_instance_attribute(InstanceId=machine, SourceDestCheck={"Value": True})
    return ""


def switch_back(instances: Mapping[str, str], stack: str, region: str | None) -> dict[str, str] | str:
    """Switch off what switch_on switched on: node → how it went; a sentence why EC2 could not be asked."""
    found: dict[str, str] = {}
    return _asked(lambda: _switch_back(_client(region), instances, stack, found)) or found


def _switch_back(ec2: Any, instances: Mapping[str, str], stack: str, found: dict[str, str]) -> str:
    described = _describe(ec2, sorted(instances.values()))
    for node, machine in instances.items():
        tags, check = described.get(machine, ({}, False))
        if TAG not in tags or tags.get(STACK_TAG) != stack:
            continue
        if check:
            ec2.modify_instance_attribute(InstanceId=machine, SourceDestCheck={"Value": False})
        ec2.delete_tags(Resources=[machine], Tags=[{"Key": TAG}])
        found[node] = "put back" if check else "the check is off again, or was not on yet"
    return ""


def _describe(ec2: Any, machines: list[str]) -> dict[str, tuple[dict[str, str], bool]]:
    """Instance id → its tags, and whether the check is on. A filter passes over those that are gone."""
    pages = ec2.get_paginator("describe_instances").paginate(Filters=[{"Name": "instance-id", "Values": machines}])
    return {
        str(instance["InstanceId"]): (
            {str(tag["Key"]): str(tag["Value"]) for tag in instance.get("Tags", ())},
            bool(instance.get("SourceDestCheck", True)),
        )
        for page in pages
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    }


def _client(region: str | None) -> Any:
    import boto3
    from botocore.config import Config

    limits = Config(connect_timeout=10, read_timeout=30, retries={"max_attempts": 3, "mode": "standard"})
    return boto3.client("ec2", region_name=region, config=limits)


def _asked(call: Any) -> str:
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        return "boto3 is not installed: pip install -r requirements.txt"
    try:
        return str(call())
    except (BotoCoreError, ClientError) as error:
        return f"EC2 did not do it: {' '.join(str(error).split())}"
