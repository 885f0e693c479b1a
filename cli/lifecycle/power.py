"""`./lab stop` and `./lab start`: a lab's EC2 machines, off overnight and on again.

The machines are the ones the stack's output `nodes` names, whatever else runs in the account. Disks, private addresses
and the API's fixed address stay, so the cluster comes back as it was.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from cli.lifecycle.backend import Backend, BackendError
from cli.lifecycle.pulumi_cli import CannotRun, refuse, stack_file
from components.spec.load import SpecError, load_stack_file
from components.verify.ec2 import instances

WAIT = {"Delay": 5, "MaxAttempts": 120}
"""Ten minutes: a machine that does not end is switched off by EC2 itself within a few."""

Verb = Literal["stop", "start"]
# What the machines are when it is done, and the state a machine passes through that takes no order until it is over.
_DONE: dict[Verb, str] = {"stop": "stopped", "start": "running"}
_FIRST: dict[Verb, tuple[str, str]] = {"stop": ("pending", "running"), "start": ("stopping", "stopped")}


class Failed(Exception):
    """EC2 did not do it; the message is one line."""


def run(verb: Verb, stack: str) -> int:
    """Stop or start a lab's machines and wait until they are; returns 0, 1 where it failed, 2 or 3 as CannotRun."""
    try:
        region = region_of(verb, stack)
        with tempfile.TemporaryDirectory(prefix="cni-lab-power.") as folder:
            nodes = Backend(Path(folder)).outputs(stack).get("nodes")
        if not isinstance(nodes, dict) or not nodes:
            raise CannotRun(f"{stack} has no machines yet; run ./lab up {stack}", code=2)
        changed = switch(verb, nodes, region)
    except (CannotRun, SpecError) as error:
        return refuse(verb, error)
    except (BackendError, Failed) as error:
        print(f"lab {verb}: {error}", file=sys.stderr)
        return 1
    print(f"{stack}: {len(changed)} of {len(nodes)} machines {_DONE[verb]} now, the others were before")
    if verb == "stop":
        print(f"disks and the fixed address still cost: ./lab cost {stack}. On again: ./lab start {stack}")
    else:
        print(f"the API's address is the same; the cluster is back in a minute or two: ./lab verify {stack}")
    return 0


def region_of(verb: Verb, stack: str) -> str:
    """The region of a lab whose machines can be switched. Raises CannotRun with the reason for all others."""
    file = load_stack_file(stack_file(stack))
    if refusal := file.lab.machines.power_refusal(verb):
        raise CannotRun(refusal.replace("STACK", stack), code=2)
    return file.config["aws:region"]


def switch(verb: Verb, nodes: Mapping[str, str], region: str) -> list[str]:
    """Bring every node's machine (id by node name) to its state; returns the nodes that were not there before.

    Raises CannotRun without credentials, and Failed where EC2 refuses, a machine is gone, or the wait is over.
    """
    # Here, and not above: the other commands do without AWS.
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    limits = Config(connect_timeout=10, read_timeout=60, retries={"max_attempts": 4, "mode": "standard"})
    try:
        session = boto3.Session(region_name=region)
        if session.get_credentials() is None:
            raise CannotRun("no AWS credentials; set them (aws configure, AWS_PROFILE) and run the same command again")
        ec2 = session.client("ec2", config=limits)
        states = _states(ec2, nodes)
        gone = sorted(node for node, state in states.items() if state in ("gone", "shutting-down", "terminated"))
        if gone:
            raise Failed(f"the machines of {', '.join(gone)} are gone; ./lab up makes them again")
        passing, settled = _FIRST[verb]
        _wait(ec2, settled, [nodes[node] for node, state in states.items() if state == passing])
        wanted = [node for node in nodes if states[node] != _DONE[verb]]
        ids = [nodes[node] for node in wanted]
        if ids and verb == "stop":
            ec2.stop_instances(InstanceIds=ids)
        elif ids:
            ec2.start_instances(InstanceIds=ids)
        _wait(ec2, _DONE[verb], ids)
    except (BotoCoreError, ClientError, ValueError) as error:  # a region that is no region is a ValueError
        raise Failed(" ".join(str(error).split())) from None
    return wanted


def _states(ec2: Any, nodes: Mapping[str, str]) -> dict[str, str]:
    """Each node's machine: EC2's word for its state, `gone` where EC2 has forgotten it."""
    found = instances(ec2, nodes.values())
    return {node: found[i]["State"]["Name"] if i in found else "gone" for node, i in nodes.items()}


def _wait(ec2: Any, state: str, ids: list[str]) -> None:
    if ids:
        ec2.get_waiter(f"instance_{state}").wait(InstanceIds=ids, WaiterConfig=WAIT)
