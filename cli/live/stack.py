"""A stack that stands: what its outputs say of it. The state is read by the pulumi CLI; nothing else is asked."""

from __future__ import annotations

import glob
import json
import os
import subprocess
from typing import Any

from cli.lifecycle import pulumi_cli
from cli.lifecycle.pulumi_cli import CannotRun, environment_for_state, find_pulumi, stack_file
from cli.sandbox.choice import sandbox_of
from components.spec import models
from components.spec.load import load_stack_file
from components.verify.__main__ import live_of
from components.verify.reading import Live

PATIENCE = 60.0  # seconds
_NOWHERE = "the lab {stack} does not stand: run `./lab up {stack}`, or `./lab sandbox {stack}` for one without machines"


def outputs(stack: str) -> dict[str, Any]:
    """The stack's outputs, secrets in clear. Raises CannotRun where there is no such stack, or it has none."""
    kept = pulumi_cli.HOME / "state" / ".pulumi" / "stacks" / "cni-lab"
    if "PULUMI_BACKEND_URL" not in os.environ and not any(kept.glob(f"{glob.escape(stack)}.json*")):
        # Nothing has to be installed to say so.
        raise CannotRun(_NOWHERE.format(stack=stack), code=2)
    folder = pulumi_cli.HOME / "config"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "Pulumi.yaml").write_text("name: cni-lab\nruntime: python\n", encoding="utf-8")
    command = [find_pulumi(), "stack", "output", "--json", "--show-secrets", "--stack", stack, "--non-interactive"]
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            env=environment_for_state(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise CannotRun(f"the stack's outputs cannot be read: the backend did not answer in {PATIENCE:g} s") from None
    if result.returncode:
        said = " ".join(result.stderr.split()).removeprefix("error: ")
        if "no stack named" in said:
            raise CannotRun(_NOWHERE.format(stack=stack), code=2)
        raise CannotRun(f"the stack's outputs cannot be read: {said or f'exit code {result.returncode}'}")
    try:
        found = json.loads(result.stdout)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CannotRun("pulumi printed no outputs")
    return found


def live(stack: str) -> Live:
    """The lab of a stack that stands. Raises CannotRun, SpecError; a lab that is half up has empty parts."""
    file = load_stack_file(stack_file(stack))
    found = outputs(stack)
    if not found.get("access"):
        raise CannotRun(
            f"the lab {stack} does not stand: its last `up` gave out no `access`. Run `./lab up {stack}`", code=2
        )
    return of_outputs(file.lab, found, file.config.get("aws:region"))


def standing_outputs(stack: str, *, sandbox: bool = False) -> dict[str, Any]:
    """The outputs of the stack's deployed lab, or of its sandbox where that is meant (cli/sandbox/choice.py)."""
    chosen = sandbox_of(stack, sandbox)
    return outputs(stack) if chosen is None else dict(chosen.outputs)


def standing_live(stack: str, *, sandbox: bool = False) -> Live:
    """The stack's deployed lab, or its sandbox where that is meant. Raises CannotRun, SpecError."""
    chosen = sandbox_of(stack, sandbox)
    return live(stack) if chosen is None else of_outputs(chosen.lab, dict(chosen.outputs), None)


def of_outputs(lab: models.Lab, found: dict[str, Any], region: str | None) -> Live:
    """The same from the outputs as JSON."""
    return live_of(found | {"lab": lab, "region": region})
