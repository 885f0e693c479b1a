"""The machines of a local lab: how they, their networks and the packet filter are started again, and stopped.

The state lists the commands that made them, with every value. The same scripts run again here, so what is started is
what was made, even if the stack file has changed since.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cli import project
from cli.errors import FAILED, MISSING, CommandError
from cli.lifecycle.backend import Backend, BackendError, StackMissing
from cli.lifecycle.ready import wait_for_cluster
from cli.live.machines import State, installed_engine, run, states
from cli.live.stack import is_known_absent
from components.slowdown import scaled
from components.spec import names
from components.spec.models import Lab, LocalMachines

# A script waits for other runs and for a machine that boots or ends, each for a bounded time.
_SCRIPT_TIMEOUT_SECONDS = 600


@dataclass(frozen=True)
class Made:
    """A command of the state that ran a script of local machines. `environment`: the script's variables."""

    urn: str
    script: str
    environment: Mapping[str, str]

    @property
    def engine(self) -> str:
        return self.environment["ENGINE"]

    def run(self, word: str) -> str:
        """Run the script with this argument. Returns the script's own message if it fails, else nothing."""
        return run_script(self.script, word, self.environment)


@dataclass(frozen=True)
class LocalState:
    """What the state of a stack knows on this computer. Networks by their name, machines by node name."""

    kernel: Sequence[Made]
    networks: Mapping[str, Made]
    machines: Mapping[str, Made]

    def start(self, without: Collection[str] = ()) -> None:
        """Start everything in the order in which it was made; what runs stays as it is. `without`: names of what is
        gone. Raises CommandError with all that failed."""
        _run_all((made, "create") for made in self.kernel)
        _run_all((made, "update") for name, made in self.networks.items() if name not in without)
        _run_all((made, "start") for node, made in self.machines.items() if node not in without)

    def stop(self) -> None:
        """Stop all machines at once. Their networks and routes stay. Raises CommandError with all that failed."""
        _run_all((made, "stop") for made in self.machines.values())

    def gone(self, found: Mapping[str, State]) -> dict[str, Made]:
        """What the state has and this computer has not, by name: networks, and machines without a container or a
        network. `found`: the machines' states."""
        listed = {engine: _networks(engine) for engine in {made.engine for made in self.networks.values()}}
        networks = {name: made for name, made in self.networks.items() if name not in listed[made.engine]}
        lost = {node for node, state in found.items() if state == "gone"}
        return networks | {
            node: made
            for node, made in self.machines.items()
            if node in lost or made.environment["NETWORK"] in networks
        }


def refuse_gone(stack: str, gone: Collection[str]) -> None:
    """Raise CommandError if something is gone."""
    if gone:
        named, verb, them = ", ".join(gone), *(("is", "it") if len(gone) == 1 else ("are", "them"))
        raise CommandError(
            f"{named} of {stack} {verb} gone from this computer: ./lab up {stack} --repair makes {them} again", FAILED
        )


def _networks(engine: str) -> list[str]:
    """The names of the engine's networks. Raises CommandError."""
    try:
        return run([engine, "network", "ls", "--format", "{{.Name}}"]).split()
    except subprocess.CalledProcessError as error:
        said = " ".join(error.stderr.split())
        raise CommandError(f"{engine} does not list its networks ({said}): repair it first", FAILED) from None


def read_state(stack: str) -> LocalState:
    """What the state knows; all empty where there is no such stack. Raises CommandError."""
    if is_known_absent(stack):
        return LocalState([], {}, {})
    try:
        with tempfile.TemporaryDirectory(prefix="cni-lab-state.") as folder:
            resources = Backend(Path(folder)).resources(stack)
    except StackMissing:
        resources = []
    except BackendError as error:
        raise CommandError(str(error), FAILED) from None
    kernel, networks, machines = [], {}, {}
    for resource in resources:
        inputs = resource.get("inputs") or {}
        command = inputs.get("create")
        if resource.get("delete") or not isinstance(command, str) or f"bash {names.LOCAL_SCRIPTS}" not in command:
            continue
        made = Made(resource["urn"], shlex.split(command)[1], inputs["environment"])
        match made.script.removeprefix(names.LOCAL_SCRIPTS):
            case "kernel.sh":
                kernel.append(made)
            case "network.sh":
                networks[made.environment["NETWORK"]] = made
            case "machine.sh":
                machines[made.environment["NODE"]] = made
    return LocalState(kernel, networks, machines)


def require_root(verb: str, stack: str) -> None:
    """Raise CommandError for everybody but root, whom the container engine and the packet filter need."""
    if os.geteuid() != 0:
        raise CommandError(f"the machines of {stack} need root: sudo ./lab {verb} {stack}", MISSING)


def run_script(script: str, word: str, environment: Mapping[str, str]) -> str:
    """Run a script of local machines as pulumi does. Returns its message if it fails, else nothing."""
    try:
        done = subprocess.run(
            ["bash", script, word],
            cwd=project.ROOT,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=scaled(_SCRIPT_TIMEOUT_SECONDS),
        )
    except subprocess.TimeoutExpired:
        return f"{script} {word} was not done after {scaled(_SCRIPT_TIMEOUT_SECONDS):g} s and was stopped; run again"
    if done.returncode == 0:
        return ""
    lines = done.stderr.splitlines()
    # Its own message comes first; what a machine printed last explains it.
    messages = [line.removeprefix("cni-lab: ") for line in lines if line.startswith("cni-lab: ")]
    printed = [f"  {line}" for line in lines if not line.startswith("cni-lab: ")]
    return "\n".join([*messages, *printed]) or f"{script} {word} ended with status {done.returncode}"


def _run_all(runs: Iterator[tuple[Made, str]]) -> None:
    """Run these at the same time. Raises CommandError with every message."""
    with ThreadPoolExecutor(max_workers=16) as pool:
        messages = [message for message in pool.map(lambda each: each[0].run(each[1]), runs) if message]
    if messages:
        raise CommandError("\n".join(messages), FAILED)


def ranges_in_use(stack: str, lab: Lab, state: LocalState) -> list[str]:
    """A message for each subnet that the lab does not have yet and that something else on this computer uses.

    `state`: what `read_state` returned. Needs root, and the engine. network.sh refuses such a subnet, too, but only
    when `up` makes it.
    """
    # It imports pulumi.
    from components.machines.local.containers import network_environment

    assert isinstance(lab.machines, LocalMachines)
    owners = {made.environment["OWNER"] for made in state.networks.values()}
    common = {
        "STACK": stack,
        "ENGINE": str(installed_engine(lab.machines)),
        "OWNER": next(iter(owners), "nobody"),
    }
    wanted = [network_environment(lab, stack, subnet) for subnet in lab.network.subnets]
    return [
        message
        for environment in wanted
        if environment["NETWORK"] not in state.networks
        and (message := run_script(f"{names.LOCAL_SCRIPTS}network.sh", "check", common | environment))
    ]


def prepare_up(command: str, stack: str, lab: Lab, state: LocalState, *, repaired: bool) -> tuple[list[str], bool]:
    """Before `up` of a local lab: start machines that are stopped. `state`: what `read_state` returned.

    Returns options for `pulumi up`, and whether they make something again that is gone. Raises CommandError where
    something is gone and the caller did not ask for a repair. A preview only says what does not run.
    """
    found = states(stack, lab, state.machines)
    stopped = [node for node, seen in found.items() if seen == "stopped"]
    if command == "preview":
        if down := [node for node, seen in found.items() if seen != "running"]:
            print(f"lab preview: the machines of {', '.join(down)} do not run now", file=sys.stderr)
        return [], False
    if os.geteuid() != 0:
        if stopped:
            require_root("start", stack)
        return [], False
    gone = state.gone(found)
    # What the stack file no longer has is deleted anyway.
    wanted = {node.name for node in lab.nodes} | {f"cni-lab-{stack}-{subnet}" for subnet in lab.network.subnets}
    again = {name: made for name, made in gone.items() if name in wanted}
    if not repaired:
        refuse_gone(stack, again)
    if stopped:
        print(f"lab up: the machines of {', '.join(stopped)} are stopped and are started first", file=sys.stderr)
    if again:
        print(f"lab up: gone from this computer, and made again: {', '.join(again)}", file=sys.stderr)
    state.start(without=gone)
    options = [word for made in again.values() for word in ("--replace", made.urn)]
    if stopped and not again:
        wait_for_cluster("up", stack, list(state.machines))
        if lab.verify:
            # Its report is of the time before.
            options += ["--replace", f"**::{names.verification(names.STACK_LAB)}"]
    return options, bool(again)
