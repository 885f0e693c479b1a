"""`./lab stop` and `./lab start`: stops a lab's machines, for example overnight, and starts them again.

On EC2 the instances are those of the stack's output `nodes` and no others in the account. Disks, private addresses and
the API's fixed address stay, so the cluster comes back as it was. On this computer they are the containers that the
stack's state lists. `start` also restores what a restart of the computer removed, and waits until the cluster serves.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from cli.errors import FAILED, MISSING, USAGE, CommandError
from cli.lifecycle import local_machines
from cli.lifecycle.backend import Backend, BackendError
from cli.lifecycle.ready import wait_for_cluster
from cli.live.machines import states
from cli.live.stack import is_known_absent
from cli.project import not_up, stack_file
from components.aws_client import AwsSettings, clients
from components.spec.load import load_stack_file
from components.spec.models import AwsMachines, Lab
from components.verify.read.ec2 import instances

WAIT = {"Delay": 5, "MaxAttempts": 120}
"""Seconds between two looks, and how many: ten minutes. EC2 itself forces an instance off within a few."""

Verb = Literal["stop", "start"]
_FINAL_STATE: dict[Verb, str] = {"stop": "stopped", "start": "running"}
# In the first state an instance takes no order; the second one follows by itself.
_PASSING_STATE: dict[Verb, tuple[str, str]] = {"stop": ("pending", "running"), "start": ("stopping", "stopped")}


def run(verb: Verb, stack: str) -> int:
    """Stop or start a lab's machines and wait until it is done. Returns 0, or 1 where the started cluster still lacks
    something. Raises CommandError, SpecError."""
    file = load_stack_file(stack_file(stack))
    if refusal := file.lab.machines.power_refusal(verb):
        raise CommandError(refusal.replace("STACK", stack), USAGE)
    on_ec2 = isinstance(file.lab.machines, AwsMachines)
    if on_ec2:
        nodes, changed = _switch_instances(verb, stack, AwsSettings.of(file.config))
    else:
        nodes, changed = _switch_containers(verb, stack, file.lab)
    print(f"{stack}: {len(changed)} of {len(nodes)} machines {_FINAL_STATE[verb]} now, the others were before")
    if verb == "stop":
        cost = f"disks and the fixed address still cost money: ./lab cost {stack}. " if on_ec2 else ""
        print(f"{cost}To go on: ./lab start {stack}")
        return 0
    return 0 if wait_for_cluster(verb, stack, nodes) else 1


def _switch_instances(verb: Verb, stack: str, aws: AwsSettings) -> tuple[list[str], list[str]]:
    """The lab's nodes, and those whose instance changed its state."""
    if is_known_absent(stack):
        raise not_up(stack)
    try:
        with tempfile.TemporaryDirectory(prefix="cni-lab-power.") as folder:
            nodes = Backend(Path(folder)).outputs(stack).get("nodes")
    except BackendError as error:
        raise CommandError(str(error), FAILED) from None
    if not isinstance(nodes, dict) or not nodes:
        raise CommandError(f"{stack} has no machines yet; run ./lab up {stack}", USAGE)
    return list(nodes), switch(verb, nodes, aws)


def _switch_containers(verb: Verb, stack: str, lab: Lab) -> tuple[list[str], list[str]]:
    """The lab's nodes, and those whose container changed its state."""
    local_machines.require_root(verb, stack)
    state = local_machines.read_state(stack)
    if not state.machines:
        raise CommandError(f"{stack} has no machines yet; run ./lab up {stack}", USAGE)
    before = states(stack, lab, state.machines)
    if verb == "stop":
        state.stop()
    else:
        local_machines.refuse_gone(stack, state.gone(before))
        state.start()
    passed_over = "stopped" if verb == "stop" else "running"
    return list(state.machines), [node for node in state.machines if before.get(node) != passed_over]


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
