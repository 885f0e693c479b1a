"""The source/destination check of the lab's instances, as EC2 says it."""

from __future__ import annotations

from collections.abc import Mapping

from components.verify.iproute import Seen, Table


def source_dest_checks(instances: Mapping[str, str], region: str | None) -> Table | str:
    """Node → field `check` (on, off) from one call; a sentence why EC2 could not be asked."""
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        return "boto3 is not installed: pip install -r requirements.txt"
    try:
        client = boto3.client("ec2", region_name=region)
        answer = client.describe_instances(InstanceIds=sorted(instances.values()))
    except (BotoCoreError, ClientError) as error:
        return f"EC2 was not asked: {str(error).splitlines()[0]}"
    found = {
        str(instance["InstanceId"]): bool(instance.get("SourceDestCheck", True))
        for reservation in answer["Reservations"]
        for instance in reservation["Instances"]
    }
    return {
        node: (Seen({"check": "on" if found[i] else "off"}, f"{i} SourceDestCheck={str(found[i]).lower()}"),)
        for node, i in instances.items()
        if i in found
    }
