"""Whether a command means a stack's deployed lab or its sandbox, and the line by which a sandbox's output says so."""

from __future__ import annotations

import glob
import os
import sys
from pathlib import Path

from cli.lifecycle import pulumi_cli
from cli.lifecycle.pulumi_cli import CannotRun, stack_file
from components.sandbox import life
from components.sandbox.life import Standing
from components.sandbox.running import SandboxError
from components.spec.load import load_stack_file


def home() -> Path:
    """Where sandboxes keep their state."""
    return pulumi_cli.HOME / "sandbox"


def sandbox_of(stack: str, wanted: bool) -> Standing | None:
    """The sandbox that a command means; None where it means the deployed lab. `wanted`: --sandbox was given.

    It says on stderr which one is meant. Raises CannotRun where there is no such stack or, if wanted, no sandbox.
    """
    stack_file(stack)
    try:
        life.sweep(home())
        standing = life.find(stack, home())
    except SandboxError as error:
        raise CannotRun(str(error), code=1) from None
    if standing is None:
        if wanted:
            raise CannotRun(f"no sandbox of {stack} stands: run `./lab sandbox {stack}` first", code=2)
        return None
    if not wanted and is_deployed(stack):
        print(
            f"lab: {stack} is deployed and has a sandbox too: the deployed lab is meant; say --sandbox for the sandbox",
            file=sys.stderr,
        )
        return None
    announce(standing)
    return standing


def announce(standing: Standing) -> None:
    """Say on stderr that a sandbox answers, and whether its stack file has changed since."""
    print(f"sandbox: {standing.name} in network namespaces of this computer; no Kubernetes runs there", file=sys.stderr)
    changed = changes(standing)
    if changed:
        more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
        print(
            f"sandbox: the stack file has changed since it was built ({changed[0]}{more}): "
            f"`./lab sandbox {standing.name} --rebuild` builds it anew",
            file=sys.stderr,
        )


def changes(standing: Standing) -> list[str]:
    """What differs between the stack file now and when the sandbox was built. Raises SpecError."""
    return life.differences(standing.file_lab, life.dump(load_stack_file(stack_file(standing.name)).lab))


def is_deployed(stack: str) -> bool:
    """Whether the state knows a deployed lab of this name."""
    if "PULUMI_BACKEND_URL" in os.environ:
        from cli.live.stack import outputs

        try:
            outputs(stack)
        except CannotRun as error:
            # 2: there is no such stack. Anything else may hide one.
            return error.code != 2
        return True
    kept = pulumi_cli.HOME / "state" / ".pulumi" / "stacks" / "cni-lab"
    return any(kept.glob(f"{glob.escape(stack)}.json*"))
