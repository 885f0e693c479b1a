"""`./lab secret`: encrypt a password that a stack file names, and keep it in .lab with the stack's state."""

from __future__ import annotations

import getpass
import subprocess
import sys

from cli.errors import FAILED, USAGE, CommandError
from cli.lifecycle.pulumi_cli import environment_for_state, find_pulumi, select
from cli.project import stack_file
from components.spec.load import load_stack_file


def run(stack: str, key: str) -> int:
    """Ask for the password, or read it from stdin if that is no terminal. Returns 0. Raises CommandError, SpecError."""
    path = stack_file(stack)
    known = [full.removeprefix("cni-lab:") for full in load_stack_file(path).secret_keys]
    if key not in known:
        what = f"it names {', '.join(known)}" if known else "it names none"
        raise CommandError(
            f"{key} is not a password that {path.name} names ({what}): "
            f"write calico.peers[].password: {{config: {key}}}",
            USAGE,
        )
    value = getpass.getpass(f"{key}: ") if sys.stdin.isatty() else sys.stdin.read().rstrip("\n")
    if problem := _problem(value):
        raise CommandError(f"the password {problem}", USAGE)
    environment, pulumi = environment_for_state(), find_pulumi()
    config = select(pulumi, stack, path, environment)
    # On stdin, so that the password is in no process list.
    done = subprocess.run(
        [pulumi, "config", "set", "--secret", f"cni-lab:{key}", "--stack", stack, "--config-file", str(config)],
        cwd=config.parent,
        env=environment,
        input=value,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise CommandError(f"the password cannot be encrypted: {' '.join(done.stderr.split())}", FAILED)
    print(f"{key} is encrypted in {config}; ./lab up {stack} uses it, and ./lab destroy {stack} removes it")
    return 0


def _problem(value: str) -> str | None:
    """What BIRD would not take. confd writes the password between double quotes into bird.cfg, and TCP's MD5 option
    takes 80 bytes (Linux, TCP_MD5SIG_MAXKEYLEN)."""
    if not value:
        return "is empty"
    if not value.isprintable() or '"' in value:
        return "has a double quote or an unprintable character, which BIRD's configuration cannot hold"
    return "is longer than the 80 bytes of TCP's MD5 option" if len(value.encode()) > 80 else None
