"""What makes a replica a lab that verify can read: EC2 by moto, and BIRD's answers where BGP is on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

import asyncssh
import boto3

from components.aws_client import AwsSettings
from components.spec.models import Lab
from components.verify.model import Result
from components.verify.read import ssh
from components.verify.read.reading import LiveLab, Reading, read_lab
from components.verify.report import verify
from tests.support.moto_ec2 import mocked_aws
from tests.verify.replica import Replica, standing

REGION = "us-west-2"


@contextmanager
def bed(lab: Lab, **options: object) -> Iterator[tuple[Replica, LiveLab]]:
    """A replica that stands, and the lab as its outputs have it. Its machines are moto's, with the check off."""
    with standing(lab, **options) as replica, mocked_aws():
        if lab.calico.bgp == "Enabled":
            for node in lab.nodes:
                give_bird(replica, node.name)
        outputs = replica.outputs | {"nodes": instances(lab, replica.plan.stack)}
        yield replica, LiveLab.of(lab, outputs, AwsSettings(REGION))


def instances(lab: Lab, stack: str) -> dict[str, str]:
    ec2 = boto3.client("ec2", REGION)
    image = ec2.register_image(Name="image", Architecture="x86_64")["ImageId"]
    made = {}
    for node in lab.nodes:
        tags = [{"Key": "cni-lab:stack", "Value": stack}, {"Key": "Name", "Value": node.name}]
        answer = ec2.run_instances(
            ImageId=image, MinCount=1, MaxCount=1, TagSpecifications=[{"ResourceType": "instance", "Tags": tags}]
        )
        made[node.name] = answer["Instances"][0]["InstanceId"]
        ec2.modify_instance_attribute(InstanceId=made[node.name], SourceDestCheck={"Value": False})
    return made


def give_bird(replica: Replica, node: str, state: str = "Established") -> None:
    """A crictl that answers for calico-node's birdcl: a session to every other node."""
    lines = ["BIRD v0.3.3+birdv1.6.8 ready.", "name     proto    table    state  since       info"]
    for peer in replica.lab.nodes:
        if peer.name != node:
            name = f"Mesh_{str(peer.address).replace('.', '_')}"
            lines.append(f"{name} BGP      master   up     15:20:49    {state}")
    text = "\n".join(lines)
    script = f"#!/bin/sh\ncase $1 in\nps) echo 4f2c ;;\nexec) cat <<'EOF'\n{text}\nEOF\n;;\nesac\n"
    write = 'printf %s "$1" >/opt/sandbox/bin/crictl && chmod 0755 /opt/sandbox/bin/crictl'
    done = replica.exec(node, ["sh", "-c", write, "-", script])
    assert done.returncode == 0, done.stderr


def read(live: LiveLab) -> tuple[Reading, list[Result]]:
    reading = asyncio.run(read_lab(live))
    return reading, verify(live, reading)


def bad(results: Sequence[Result]) -> dict[str, str]:
    """Id → status and difference of what did not pass."""
    return {r.expectation.id: f"{r.status}: {r.difference}" for r in results if r.status != "passed"}


@contextmanager
def counted() -> Iterator[list[tuple[str, int]]]:
    """Host and port of every SSH connection that is made meanwhile."""
    made: list[tuple[str, int]] = []
    real = asyncssh.connect

    def connect(*arguments: object, **options: object) -> object:
        made.append((str(options["host"]), int(str(options["port"]))))
        return real(*arguments, **options)

    with patch.object(ssh.asyncssh, "connect", connect):
        yield made
