"""`./lab stop` and `./lab start`: stops a lab's EC2 instances, for example overnight, and starts them again.

The instances are those of the stack's output `nodes` and no others in the account. Disks, private addresses and the
API's fixed address stay, so the cluster comes back as it was.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from cli.errors import FAILED, MISSING, USAGE, CommandError
from cli.lifecycle.backend import Backend, BackendError
from cli.project import stack_file
from components.aws_client import AwsSettings, clients
from components.spec.load import load_stack_file
from components.verify.read.ec2 import instances

WAIT = {"Delay": 5, "MaxAttempts": 120}
"""Seconds between two looks, and how many: ten minutes. EC2 itself forces an instance off within a few."""

Verb = Literal["stop", "start"]
_FINAL_STATE: dict[Verb, str] = {"stop": "stopped", "start": "running"}
# In the first state an instance takes no order; the second one follows by itself.
_PASSING_STATE: dict[Verb, tuple[str, str]] = {"stop": ("pending", "running"), "start": ("stopping", "stopped")}


def run(verb: Verb, stack: str) -> int:
    """Stop or start a lab's machines and wait until it is done. Returns 0. Raises CommandError, SpecError."""
    aws = settings_of(verb, stack)
    try:
        with tempfile.TemporaryDirectory(prefix="cni-lab-power.") as folder:
            nodes = Backend(Path(folder)).outputs(stack).get("nodes")
    except BackendError as error:
        raise CommandError(str(error), FAILED) from None
    if not isinstance(nodes, dict) or not nodes:
        raise CommandError(f"{stack} has no machines yet; run ./lab up {stack}", USAGE)
    changed = switch(verb, nodes, aws)
    print(f"{stack}: {len(changed)} of {len(nodes)} machines {_FINAL_STATE[verb]} now, the others were before")
    if verb == "stop":
        print(f"disks and the fixed address still cost money: ./lab cost {stack}. To go on: ./lab start {stack}")
    else:
        print(f"the API's address is the same; the cluster is ready in a minute or two: ./lab verify {stack}")
    return 0


def settings_of(verb: Verb, stack: str) -> AwsSettings:
    """The account and region of a lab whose machines can be stopped or started.

    Raises CommandError with the reason for others.
    """
    file = load_stack_file(stack_file(stack))
    if refusal := file.lab.machines.power_refusal(verb):
        raise CommandError(refusal.replace("STACK", stack), USAGE)
    return AwsSettings.of(file.config)


def switch(verb: Verb, nodes: Mapping[str, str], aws: AwsSettings) -> list[str]:
    """Bring every node's instance (its id by node name) to its state; returns the nodes that were not in it before.

    Raises CommandError: MISSING without credentials, FAILED where EC2 refuses, an instance is gone, or time is up.
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        ec2 = clients(aws)("ec2")
        states = _states(ec2, nodes)
        gone = sorted(node for node, state in states.items() if state in ("gone", "shutting-down", "terminated"))
        if gone:
            raise CommandError(f"the machines of {', '.join(gone)} are gone; ./lab up makes them again", FAILED)
        passing, settled = _PASSING_STATE[verb]
        _wait(ec2, settled, [nodes[node] for node, state in states.items() if state == passing])
        wanted = [node for node in nodes if states[node] != _FINAL_STATE[verb]]
        ids = [nodes[node] for node in wanted]
        if ids and verb == "stop":
            ec2.stop_instances(InstanceIds=ids)
        elif ids:
            ec2.start_instances(InstanceIds=ids)
        _wait(ec2, _FINAL_STATE[verb], ids)
    except NoCredentialsError:
        raise CommandError(
            "no AWS credentials; set them (aws configure, AWS_PROFILE) and run the same command again", MISSING
        ) from None
    except (BotoCoreError, ClientError, ValueError) as error:  # an invalid region's name is a ValueError
        raise CommandError(" ".join(str(error).split()), FAILED) from None
    return wanted


def _states(ec2: Any, nodes: Mapping[str, str]) -> dict[str, str]:
    """The state of each node's instance in EC2's words, or `gone` where EC2 no longer lists it."""
    found = instances(ec2, nodes.values())
    return {node: found[i]["State"]["Name"] if i in found else "gone" for node, i in nodes.items()}


def _wait(ec2: Any, state: str, ids: list[str]) -> None:
    if ids:
        ec2.get_waiter(f"instance_{state}").wait(InstanceIds=ids, WaiterConfig=WAIT)
