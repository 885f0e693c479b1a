"""Another `machines.instanceType` for a live lab on EC2: one machine after the other, each drained first.

EC2 changes the type of a machine that is stopped. Pulumi would stop all of them at once and leave their pods to their
fate. So before `up` changes anything else, each machine is changed by an `up` of its own: with the lab as it is live,
the new type, and this machine as its only target. Pulumi remains the one who changes machines, and its state says which
of them are done. An `up` that was cut goes on where it stopped.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from cli.errors import FAILED, USAGE, CommandError
from cli.lifecycle import ready
from cli.lifecycle.ec2_machines import Ec2State, Instance, Pulumi
from cli.live.stack import outputs
from components.node.script import compose
from components.spec.models import AwsMachines, Lab
from components.verify.read import api
from components.verify.read.access import access_of
from components.verify.read.connection import Unreachable

_DRAIN_TIMEOUT_SECONDS = 300
_UNCORDON_TIMEOUT_SECONDS = 60
_READY_TIMEOUT_SECONDS = 600
_API_TIMEOUT_SECONDS = 5.0
_PAUSE_SECONDS = 2.0
_CORDONED = "cni-lab/cordoned"


@dataclass(frozen=True)
class Cluster:
    """What a live lab's outputs say of it. `first`: the control plane on which nodes are drained."""

    stack: str
    spec: Lab
    kubeconfig: str
    access: Mapping[str, Any]

    @property
    def first(self) -> str:
        return self.spec.control_planes[0].name

    @classmethod
    def of(cls, stack: str) -> Cluster | None:
        """None where no `up` has reached its end yet, or another version of this program made the lab."""
        try:
            found = outputs(stack)
            spec = Lab.model_validate(found["lab"])
            return cls(stack, spec, str(found["kubeconfig"]), dict(found["access"]))
        except (CommandError, KeyError, TypeError, ValueError, ValidationError):
            return None

    def drain(self, node: str) -> None:
        """Raises CommandError."""
        # drain.sh leaves a node alone that has the wanted versions. None has these.
        versions = {"KUBERNETES_VERSION": "none", "CRIO_VERSION": "none"}
        program = compose("drain", {"DRAINED": node, **versions}, [], ["drain.sh"])
        self._on_first(program, _DRAIN_TIMEOUT_SECONDS, f"{node} is not drained, and nothing was done to its machine")

    def uncordon(self, node: str) -> None:
        """Raises CommandError."""
        program = compose("drain", {"UNCORDONED": node}, [], ["uncordon.sh"])
        self._on_first(program, _UNCORDON_TIMEOUT_SECONDS, f"{node} stays cordoned")

    def _on_first(self, program: str, timeout_seconds: float, otherwise: str) -> None:
        async def run() -> int:
            async with access_of(self.first, self.access[self.first]).connect() as connection:
                done = await connection.run(program, timeout_seconds=timeout_seconds)
            sys.stderr.write(done.stderr)
            return done.status

        try:
            status = asyncio.run(run())
        except Unreachable as error:
            raise CommandError(f"{otherwise}: {error}; then repeat ./lab up {self.stack}", FAILED) from None
        if status:
            raise CommandError(f"{otherwise}: see above; then repeat ./lab up {self.stack}", FAILED)

    def cordoned(self) -> list[str]:
        """The nodes that drain.sh cordoned; none where the API does not answer."""
        try:
            read = api.read(self.kubeconfig, {"nodes": api.KINDS["nodes"]})
            nodes = asyncio.run(asyncio.wait_for(read, _API_TIMEOUT_SECONDS)).of("nodes")
        except (api.NoApi, TimeoutError):
            return []
        names = {str(n["metadata"]["name"]) for n in nodes if (n["metadata"].get("annotations") or {}).get(_CORDONED)}
        return [node for node in self.access if node in names]

    def wait_until_back(self, node: str) -> None:
        """Until the API answers and the node's kubelet reports, Ready. Raises CommandError."""
        asyncio.run(self._wait_until_back(node))

    async def _wait_until_back(self, node: str) -> None:
        end, first = time.monotonic() + _READY_TIMEOUT_SECONDS, dict[str, str]()
        while True:
            lacking, _ = await ready.missing(self.kubeconfig, [node], first)
            # The API's extensions are pods, which may wait for this node.
            lacking = [line for line in lacking if not line.startswith("the API ") or "does not answer" in line]
            if not lacking:
                return
            if time.monotonic() > end:
                said = f"{node} did not come back within {_READY_TIMEOUT_SECONDS} s: {'; '.join(lacking)}"
                raise CommandError(f"{said}. The machines after it are unchanged; repeat ./lab up {self.stack}", FAILED)
            await asyncio.sleep(_PAUSE_SECONDS)


def finish(cluster: Cluster) -> None:
    """Let pods onto the nodes again that a change which was cut left cordoned. Raises CommandError."""
    for node in cluster.cordoned():
        print(f"lab up: {node} is still cordoned by an earlier change, and takes pods again", file=sys.stderr)
        cluster.uncordon(node)


def wanted_type(lab: Lab) -> str:
    """The type that the machines of a lab on EC2 must have."""
    assert isinstance(lab.machines, AwsMachines)
    return lab.machines.instance_type


def to_change(lab: Lab, state: Ec2State) -> dict[str, Instance]:
    """The machines of another type than the file's, by node, in the order in which they are changed: workers, further
    control planes, then the first one, through which all others are reached."""
    first = lab.control_planes[0]
    ordered = sorted(lab.nodes, key=lambda node: (node is first, node.role == "control-plane"))
    return {
        node.name: state.instances[node.name]
        for node in ordered
        if node.name in state.instances and state.instances[node.name].type != wanted_type(lab)
    }


def announce(command: str, lab: Lab, machines: Mapping[str, Instance]) -> None:
    """Say what `up` does to these machines."""
    kinds = ", ".join(sorted({machine.type for machine in machines.values()}))
    change = f"machines.instanceType: {kinds} → {wanted_type(lab)}"
    how = "one after the other is drained, stopped and started again"
    print(f"lab {command}: {change}: {how}: {', '.join(machines)}", file=sys.stderr)


def confirm() -> None:
    """Ask on the terminal. Raises CommandError unless the answer is yes."""
    print("Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise CommandError("nothing was changed", USAGE)


def change_in_turn(pulumi: Pulumi, cluster: Cluster, instance_type: str, machines: Mapping[str, Instance]) -> None:
    """Change these machines one after the other. Raises CommandError, after which the next `up` goes on."""
    with tempfile.TemporaryDirectory(dir=pulumi.config.parent) as folder:
        config = Path(folder) / pulumi.config.name
        config.write_text(yaml.safe_dump(_as_live(pulumi.config, cluster.spec, instance_type)), encoding="utf-8")

        def run(*words: str, targets: Sequence[Instance]) -> int:
            chosen = [word for machine in targets for word in ("--target", machine.urn)]
            return pulumi.run(*words, *pulumi.options, *chosen, config=config, quiet=True)

        # What the policy or the provider refuses is refused before the first machine is drained.
        if run("preview", targets=list(machines.values())):
            raise CommandError("pulumi refuses the change, see above; nothing was done to the machines", FAILED)

        def change(machine: Instance) -> int:
            return run("up", "--yes", "--skip-preview", targets=[machine])

        in_turn(machines, cluster, change)


def in_turn(machines: Mapping[str, Instance], cluster: Cluster, change: Callable[[Instance], int]) -> None:
    """Drain, change, wait, uncordon: one machine after the other. `change` returns an exit code."""
    for number, (node, machine) in enumerate(machines.items(), start=1):
        print(f"lab up: {node} ({number} of {len(machines)}): its pods leave it", file=sys.stderr)
        cluster.drain(node)
        print(f"lab up: {node}: {machine.id} gets the new type", file=sys.stderr)
        if change(machine):
            left = f"{node} stays cordoned, and the machines after it are unchanged"
            raise CommandError(
                f"{node} could not be changed, see above; {left}: repeat ./lab up {cluster.stack}", FAILED
            )
        cluster.wait_until_back(node)
        cluster.uncordon(node)
        print(f"lab up: {node} is back", file=sys.stderr)


def _as_live(config: Path, live: Lab, instance_type: str) -> dict[str, Any]:
    """The stack file's copy with the lab as it is live, but for the type of its machines."""
    document: dict[str, Any] = yaml.safe_load(config.read_text(encoding="utf-8"))
    lab = live.model_dump(mode="json", by_alias=True, exclude_none=True)
    lab["machines"]["instanceType"] = instance_type
    document["config"]["cni-lab:lab"] = lab
    return document
