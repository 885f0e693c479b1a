"""The machines of an EC2 lab before `up` and `preview`: what the state, EC2 and the stack file say of them.

Pulumi compares the program with its state, and does not look at EC2. It would dial a machine that is gone or stopped
for as long as one may take to boot.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from cli import project
from cli.errors import FAILED, USAGE, CommandError
from cli.lifecycle.backend import Backend, BackendError, StackMissing
from cli.live.stack import is_known_absent
from cli.signals import wait_for
from components.aws_client import AwsSettings
from components.spec import names
from components.spec.changes import Made
from components.spec.models import Lab
from components.verify.read import ec2

INSTANCE = "aws:ec2/instance:Instance"
BALANCER = "aws:lb/loadBalancer:LoadBalancer"
REMOTE_COMMAND = "command:remote:Command"
_GONE = {"gone", "shutting-down", "terminated"}
_STOPPED = {"stopping", "stopped"}


@dataclass(frozen=True)
class Instance:
    """A machine of the state."""

    urn: str
    id: str
    type: str
    address: IPv4Address


@dataclass(frozen=True)
class Ec2State:
    """What the state of a stack has on EC2. `instances` by node. `balanced`: as in `Made`."""

    instances: Mapping[str, Instance]
    balanced: bool | None = None

    @property
    def made(self) -> Made:
        return Made({machine.address: node for node, machine in self.instances.items()}, self.balanced)


@dataclass(frozen=True)
class Pulumi:
    """How the pulumi CLI runs for a stack: its program, the environment, the copy of the stack file, and options."""

    program: str
    environment: Mapping[str, str]
    stack: str
    config: Path
    options: tuple[str, ...] = ()

    def command(self, *words: str, config: Path | None = None) -> list[str]:
        """The command line of `pulumi WORDS`."""
        return [self.program, *words, "--stack", self.stack, "--config-file", str(config or self.config)]

    def run(self, *words: str, config: Path | None = None, quiet: bool = False) -> int:
        """Run it in the foreground; returns its exit code. `quiet`: its output is shown only if it fails."""
        command = self.command(*words, "--non-interactive", config=config)
        if not quiet:
            return wait_for(subprocess.Popen(command, cwd=project.ROOT, env=dict(self.environment)))
        with tempfile.TemporaryFile() as output:
            both: dict[str, Any] = {"stdout": output, "stderr": subprocess.STDOUT}
            code = wait_for(subprocess.Popen(command, cwd=project.ROOT, env=dict(self.environment), **both))
            if code:
                output.seek(0)
                sys.stderr.write(output.read().decode(errors="replace"))
        return code


def read_state(stack: str) -> Ec2State:
    """What the state has; nothing where there is no such stack. Raises CommandError."""
    if is_known_absent(stack):
        return Ec2State({})
    try:
        with tempfile.TemporaryDirectory(prefix="cni-lab-state.") as folder:
            return state_of(Backend(Path(folder)).resources(stack))
    except StackMissing:
        return Ec2State({})
    except BackendError as error:
        raise CommandError(str(error), FAILED) from None


def state_of(resources: Sequence[Mapping[str, Any]]) -> Ec2State:
    """What these resources of a checkpoint are."""
    there = [resource for resource in resources if not resource.get("delete")]
    prefix = f"{names.machines(names.STACK_LAB)}-"
    machines = {
        name.removeprefix(prefix): Instance(
            resource["urn"],
            str(resource["id"]),
            str(resource["inputs"]["instanceType"]),
            IPv4Address(resource["inputs"]["privateIp"]),
        )
        for resource in there
        if resource["type"] == INSTANCE and (name := resource["urn"].rpartition("::")[2]).startswith(prefix)
    }
    inits = {r["urn"] for r in there if r["type"] == names.STEP and r.get("inputs", {}).get("phase") == "init"}
    has_cluster = any(r["type"] == REMOTE_COMMAND and r.get("parent") in inits for r in there)
    has_balancer = any(resource["type"] == BALANCER for resource in there)
    return Ec2State(machines, has_balancer if has_cluster else None)


def find_gone(command: str, stack: str, lab: Lab, state: Ec2State, aws: AwsSettings) -> list[Instance]:
    """The machines of the state that EC2 no longer has.

    Raises CommandError for `up` if a machine that the lab keeps is stopped: to start it costs money, and is the
    caller's decision. Where EC2 cannot be asked, nothing is known, and that is said.
    """
    if not state.instances:
        return []
    try:
        with ec2.client(aws) as client:
            seen = ec2.instances(client, [machine.id for machine in state.instances.values()])
    except (ec2.NoEc2, ValueError) as error:  # an invalid region's name is a ValueError
        print(f"lab {command}: it is not known whether the machines of {stack} run: {error}", file=sys.stderr)
        return []
    found = {n: seen[m.id]["State"]["Name"] if m.id in seen else "gone" for n, m in state.instances.items()}
    kept = {node.name for node in lab.nodes}
    if stopped := [node for node, condition in found.items() if node in kept and condition in _STOPPED]:
        if command == "up":
            which = "" if len(stopped) == len(found) else f" ({', '.join(stopped)})"
            raise CommandError(f"the machines of {stack} are stopped{which}: ./lab start {stack} first", USAGE)
        print(f"lab {command}: stopped now: {', '.join(stopped)}", file=sys.stderr)
    gone = [node for node, condition in found.items() if condition in _GONE]
    if gone:
        print(f"lab {command}: EC2 no longer has the machines of {', '.join(gone)}", file=sys.stderr)
    return [state.instances[node] for node in gone]


def forget(pulumi: Pulumi, gone: Sequence[Instance]) -> None:
    """Let the state know that these machines are gone. Raises CommandError.

    Only they are refreshed. If the Kubernetes API did not answer, a refresh of everything would drop its objects.
    """
    targets = [word for machine in gone for word in ("--target", machine.urn)]
    if pulumi.run("refresh", "--yes", "--skip-preview", *targets, quiet=True):
        raise CommandError("pulumi could not remove them from the state: see above, then repeat", FAILED)
