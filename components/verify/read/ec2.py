"""What EC2 says of the lab's instances."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from components.aws_client import AwsSettings, clients
from components.verify.model import Entry, Table


class NoEc2(Exception):
    """EC2 did not do what was asked; str() says why."""


@contextmanager
def client(aws: AwsSettings) -> Iterator[Any]:
    """A boto3 client of EC2. Raises NoEc2, also for what fails while it is used."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        raise NoEc2("boto3 is not installed: pip install -r requirements.txt") from None
    try:
        yield clients(aws)("ec2")
    except (BotoCoreError, ClientError) as error:
        raise NoEc2(f"EC2 did not do it: {' '.join(str(error).split())}") from None


def instances(ec2: Any, machines: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """Instance id → its description. Instances that are gone are left out: a filter is asked, for a request that names
    them would fail."""
    pages = ec2.get_paginator("describe_instances").paginate(
        Filters=[{"Name": "instance-id", "Values": sorted(machines)}]
    )
    return {
        str(instance["InstanceId"]): instance
        for page in pages
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    }


def source_dest_checks(machines: Mapping[str, str], aws: AwsSettings) -> Table:
    """Node → field `check` (on, off), for the instances that exist. `machines`: node → instance id. Raises NoEc2."""
    with client(aws) as ec2:
        found = instances(ec2, machines.values())
    return {node: (_check(machine, found[machine]),) for node, machine in machines.items() if machine in found}


def _check(machine: str, instance: Mapping[str, Any]) -> Entry:
    on = bool(instance.get("SourceDestCheck", True))
    return Entry({"check": "on" if on else "off"}, f"{machine} SourceDestCheck={str(on).lower()}")
