"""Whether a command means a stack's deployed lab or its sandbox, and the line by which a sandbox's output says so."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from cli import project
from cli.errors import FAILED, USAGE, CommandError
from cli.live.machines import require_running
from cli.live.stack import is_up, live, outputs
from cli.project import stack_file
from components.sandbox import life
from components.sandbox.life import LiveSandbox
from components.sandbox.running import SandboxError
from components.spec.load import load_stack_file
from components.verify.read.reading import LiveLab


def home() -> Path:
    """Where sandboxes keep their state."""
    return project.HOME / "sandbox"


def chosen_outputs(stack: str, *, sandbox: bool) -> dict[str, Any]:
    """The outputs of the stack's deployed lab, or of its sandbox.

    Raises CommandError, SpecError, and MachinesDown where the machines of a local lab are stopped.
    """
    chosen = sandbox_of(stack, sandbox)
    if chosen is not None:
        return dict(chosen.outputs)
    found = outputs(stack)
    require_running(stack, load_stack_file(stack_file(stack)).lab, found.get("access") or ())
    return found


def chosen_live(stack: str, *, sandbox: bool) -> LiveLab:
    """The stack's deployed lab, or its sandbox. Raises CommandError, SpecError."""
    chosen = sandbox_of(stack, sandbox)
    return live(stack) if chosen is None else LiveLab.of(chosen.lab, chosen.outputs, None)


def sandbox_of(stack: str, wanted: bool) -> LiveSandbox | None:
    """The sandbox that a command means; None where it means the deployed lab. `wanted`: --sandbox was given.

    It says on stderr which one is meant. Raises CommandError where there is no such stack or, if wanted, no sandbox.
    """
    stack_file(stack)
    try:
        life.sweep(home())
        live_sandbox = life.find(stack, home())
    except SandboxError as error:
        raise CommandError(str(error), FAILED) from None
    if live_sandbox is None:
        if wanted:
            raise CommandError(f"{stack} has no sandbox: run `./lab sandbox {stack}` first", USAGE)
        return None
    if not wanted and is_up(stack):
        print(
            f"lab: {stack} is deployed and has a sandbox, too. This is the deployed lab; --sandbox means the sandbox",
            file=sys.stderr,
        )
        return None
    announce(live_sandbox)
    return live_sandbox


def announce(live_sandbox: LiveSandbox) -> None:
    """Say on stderr that a sandbox answers, and whether its stack file has changed since."""
    print(f"sandbox: {live_sandbox.name} in network namespaces of this computer, without Kubernetes", file=sys.stderr)
    changed = changes(live_sandbox)
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        print(
            f"sandbox: the stack file has changed since it was built ({changed[0]}{more}): "
            f"`./lab sandbox {live_sandbox.name} --rebuild` builds it anew",
            file=sys.stderr,
        )


def changes(live_sandbox: LiveSandbox) -> list[str]:
    """What differs between the stack file now and when the sandbox was built. Raises SpecError."""
    return life.differences(live_sandbox.file_lab, life.dump(load_stack_file(stack_file(live_sandbox.name)).lab))
