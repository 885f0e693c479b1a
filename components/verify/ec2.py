"""EC2, asked about the lab's instances: bounded, and with a sentence where it does not answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from components.verify.iproute import Seen, Table

Answer = TypeVar("Answer")


def client(region: str | None) -> Any:
    # Here, and not above: labs that are not on AWS do without.
    import boto3
    from botocore.config import Config

    limits = Config(connect_timeout=10, read_timeout=30, retries={"max_attempts": 3, "mode": "standard"})
    return boto3.client("ec2", region_name=region, config=limits)


def instances(ec2: Any, machines: Iterable[str]) -> dict[str, Mapping[str, Any]]:
    """Instance id → what EC2 says of it. A filter passes over those that are gone, where naming them would fail."""
    pages = ec2.get_paginator("describe_instances").paginate(
        Filters=[{"Name": "instance-id", "Values": sorted(machines)}]
    )
    return {
        str(instance["InstanceId"]): instance
        for page in pages
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    }


def asked(call: Callable[[], Answer]) -> Answer | str:
    """What a call gives; a sentence why EC2 did not answer it."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        return "boto3 is not installed: pip install -r requirements.txt"
    try:
        return call()
    except (BotoCoreError, ClientError) as error:
        return f"EC2 did not do it: {' '.join(str(error).split())}"


def source_dest_checks(machines: Mapping[str, str], region: str | None) -> Table | str:
    """Node → field `check` (on, off) for the instances that are there; a sentence why EC2 could not be asked.

    `machines`: node → instance id.
    """

    def read() -> Table:
        found = instances(client(region), machines.values())
        return {node: (_check(i, found[i]),) for node, i in machines.items() if i in found}

    return asked(read)


def _check(machine: str, instance: Mapping[str, Any]) -> Seen:
    on = bool(instance.get("SourceDestCheck", True))
    return Seen({"check": "on" if on else "off"}, f"{machine} SourceDestCheck={str(on).lower()}")
