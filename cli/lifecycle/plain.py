"""`./lab env STACK`: the settings with which plain `pulumi up -s STACK` works as `./lab up STACK` does.

They are printed as lines for a shell. Pulumi reads a copy of the stack file (PULUMI_OPTION_CONFIG_FILE), into which it
may write a salt or an encrypted key: the file under stacks/ stays as its author wrote it.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from cli.lifecycle.pulumi_cli import environment_for_state, find_pulumi, select
from cli.project import stack_file
from components.spec.load import load_stack_file

_PRINTED = (
    "PULUMI_BACKEND_URL",
    "PULUMI_CONFIG_PASSPHRASE_FILE",
    "PULUMI_DIY_BACKEND_ZSTD",
    "PULUMI_PARALLEL",
    "CNI_LAB_PYTHON",
)
"""What `./lab` sets for the pulumi CLI, if the caller has not. The caller's own passphrase is not printed."""


def run(stack: str, secrets_provider: str | None) -> int:
    """Make sure that the stack exists, copy its file, and print the settings. Returns 0.

    Raises CommandError, SpecError.
    `secrets_provider`: of a stack that does not exist yet, as in `pulumi stack init --secrets-provider`.
    """
    path = stack_file(stack)
    load_stack_file(path)
    environment, pulumi = environment_for_state(), find_pulumi()
    copy = select(pulumi, stack, path, environment, secrets_provider=secrets_provider)
    for key in _PRINTED:
        if key in environment:
            _export(key, environment[key])
    _export("PULUMI_OPTION_CONFIG_FILE", str(copy))
    # The engine starts `python` and the pulumi CLI's language host from PATH.
    folders = [str(Path(sys.executable).parent), str(Path(pulumi).parent)]
    known = os.environ.get("PATH", "").split(os.pathsep)
    if new := [folder for folder in dict.fromkeys(folders) if folder not in known]:
        print(f'export PATH={shlex.quote(os.pathsep.join(new))}{os.pathsep}"$PATH"')
    print(
        f"lab env: now, in the project's folder: pulumi up -s {stack}. Repeat this when its stack file changes",
        file=sys.stderr,
    )
    return 0


def _export(key: str, value: str) -> None:
    print(f"export {key}={shlex.quote(value)}")
