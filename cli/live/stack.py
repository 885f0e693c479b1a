"""A lab that is up: the outputs of its stack, which the pulumi CLI reads from the state."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from cli import project
from cli.errors import MISSING, USAGE, CommandError
from cli.lifecycle.pulumi_cli import config_folder, environment_for_state, find_pulumi
from cli.live.machines import require_running
from cli.project import not_up, stack_file
from components.aws_client import AwsSettings
from components.slowdown import scaled
from components.spec.load import load_stack_file
from components.verify.read.reading import LiveLab

_TIMEOUT_SECONDS = 60.0


def outputs(stack: str) -> dict[str, Any]:
    """The stack's outputs, secrets in clear. Raises CommandError where there is no such stack, or it has none."""
    if is_known_absent(stack):
        raise not_up(stack)
    command = [find_pulumi(), "stack", "output", "--json", "--show-secrets", "--stack", stack, "--non-interactive"]
    try:
        result = subprocess.run(
            command,
            cwd=config_folder(),
            env=environment_for_state(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=scaled(_TIMEOUT_SECONDS),
        )
    except subprocess.TimeoutExpired:
        raise CommandError(
            f"the stack's outputs cannot be read: the backend did not answer in {scaled(_TIMEOUT_SECONDS):g} s", MISSING
        ) from None
    if result.returncode:
        said = " ".join(result.stderr.split()).removeprefix("error: ")
        if "no stack named" in said:
            raise not_up(stack)
        reason = said or f"exit code {result.returncode}"
        raise CommandError(f"the stack's outputs cannot be read: {reason}", MISSING)
    try:
        found = json.loads(result.stdout)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CommandError("pulumi printed no outputs", MISSING)
    return found


def live(stack: str) -> LiveLab:
    """The lab of a stack. Raises CommandError, SpecError, and MachinesDown where its local machines are stopped; a lab
    that is only half up has empty parts."""
    file = load_stack_file(stack_file(stack))
    found = outputs(stack)
    if not found.get("access"):
        raise not_up(stack, "access")
    require_running(stack, file.lab, found["access"])
    return LiveLab.of(file.lab, found, AwsSettings.of(file.config))


def is_known_absent(stack: str) -> bool:
    """Whether there is certainly no such stack. This answer needs no pulumi CLI; another backend may have one. Another
    user's state raises PermissionError."""
    return "PULUMI_BACKEND_URL" not in os.environ and not _has_state_file(stack)


def is_up(stack: str) -> bool:
    """Whether the state has a stack of this name. A backend that cannot be read may have one."""
    try:
        if "PULUMI_BACKEND_URL" not in os.environ:
            return _has_state_file(stack)
        outputs(stack)
    except CommandError as error:
        return error.code != USAGE
    except PermissionError:
        pass
    return True


def state_files() -> list[str]:
    """The names of the stacks' files in the lab's own state. Another user's state raises PermissionError: it is not
    empty."""
    try:
        return [path.name for path in (project.HOME / "state/.pulumi/stacks" / project.NAME).iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _has_state_file(stack: str) -> bool:
    return any(name.startswith(f"{stack}.json") for name in state_files())
