"""Whether the machines of a local lab run.

Commands look here before they send a packet: a stopped machine leaves no network behind, and its address may be another
computer's.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Collection
from typing import Literal

from cli.errors import FAILED, CommandError
from components.slowdown import scaled
from components.spec.models import Lab, LocalMachines

State = Literal["running", "stopped", "gone"]
_TIMEOUT_SECONDS = 30


class MachinesDown(CommandError):
    """No machine of the lab runs."""


def require_running(stack: str, lab: Lab, nodes: Collection[str]) -> None:
    """Raise MachinesDown if no machine of a local lab runs. If only some do not, say on stderr which.

    `nodes`: those that have a machine. Does nothing for other labs, or where this computer does not tell.
    """
    found = states(stack, lab, nodes)
    down = {node: state for node, state in found.items() if state != "running"}
    if not down:
        return
    fix = f"./lab start {stack}" if "stopped" in down.values() else f"./lab up {stack} --repair"
    if len(down) == len(found):
        condition = "stopped" if "stopped" in down.values() else "gone"
        raise MachinesDown(f"the machines of {stack} are {condition}: {fix}", FAILED)
    named = ", ".join(f"{node} ({state})" for node, state in down.items())
    print(f"lab: these machines of {stack} do not run: {named}: {fix}", file=sys.stderr)


def states(stack: str, lab: Lab, nodes: Collection[str]) -> dict[str, State]:
    """The state of these nodes' machines in a local lab; empty for other labs, and where nothing is known."""
    if not nodes or not isinstance(lab.machines, LocalMachines):
        return {}
    engine = installed_engine(lab.machines)
    # To another user podman shows that user's own containers.
    return _by_containers(stack, nodes, engine) if engine and os.geteuid() == 0 else _by_bridges(lab, nodes)


def installed_engine(settings: LocalMachines) -> str | None:
    """The engine that the lab's machines run on, as engine.sh chooses it. None if it is not installed."""
    return next((engine for engine in possible_engines(settings) if shutil.which(engine)), None)


def possible_engines(settings: LocalMachines) -> tuple[str, ...]:
    """The engines that the stack file allows; the first that is installed is taken."""
    return ("podman", "docker") if settings.engine == "auto" else (settings.engine,)


def _by_containers(stack: str, nodes: Collection[str], engine: str) -> dict[str, State]:
    listing = [engine, "container", "ls", "--all", "--format", "{{.Names}}"]
    listing += ["--filter", f"label=cni-lab.stack={stack}"]
    try:
        known = run(listing).split()
        # In a format, podman writes the state as "Up 5 minutes ago".
        running = run([*listing, "--filter", "status=running"]).split()
    except subprocess.CalledProcessError as error:
        said = " ".join(error.stderr.split())
        raise CommandError(f"{engine} does not list its containers ({said}): repair it first", FAILED) from None
    found: dict[str, State] = {}
    for node in nodes:
        name = f"cni-lab-{stack}-{node}"
        found[node] = "running" if name in running else "stopped" if name in known else "gone"
    return found


def _by_bridges(lab: Lab, nodes: Collection[str]) -> dict[str, State]:
    """By what every user may see: a subnet's bridge has the subnet's first address, and is up while a machine on it
    runs. So a stopped machine counts as running where another one on its subnet runs."""
    if shutil.which("ip") is None:
        return {}
    try:
        interfaces = json.loads(run(["ip", "-json", "-4", "address", "show"]))
    except (subprocess.CalledProcessError, ValueError):
        return {}
    up = {
        entry.get("local")
        for interface in interfaces
        if interface.get("operstate") != "DOWN"
        for entry in interface.get("addr_info", ())
    }
    gateways = {name: str(cidr[1]) for name, cidr in lab.network.subnets.items()}
    return {
        node.name: "running" if gateways[node.subnet] in up else "stopped" for node in lab.nodes if node.name in nodes
    }


def run(command: list[str]) -> str:
    """The command's output. Raises CalledProcessError, also where it does not answer in time."""
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=scaled(_TIMEOUT_SECONDS),
            check=True,
        ).stdout
    except subprocess.TimeoutExpired:
        silent = f"no answer within {scaled(_TIMEOUT_SECONDS):g} s"
        raise subprocess.CalledProcessError(-1, command, stderr=silent) from None
