"""Locks that a killed `up` or `destroy` left in the state, and how they are removed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlparse

from cli import project
from cli.errors import USAGE, CommandError
from cli.lifecycle.pulumi_cli import environment_for_state, find_pulumi
from cli.live.stack import is_known_absent
from cli.project import not_up, stack_file


def unlock(stack: str) -> int:
    """Remove every lock of a stack, whoever holds it (`pulumi cancel`); returns pulumi's exit code. Raises CommandError
    where there is no such stack."""
    stack_file(stack)
    if is_known_absent(stack):
        raise not_up(stack)
    cancel = [find_pulumi(), "cancel", "--yes", "--stack", stack]
    return subprocess.run(cancel, cwd=project.ROOT, env=environment_for_state(), stdin=subprocess.DEVNULL).returncode


def settle_locks(command: str, stack: str, environment: Mapping[str, str]) -> None:
    """Remove the locks of ended processes of this computer, and report it. Does nothing for other backends.

    Raises CommandError if a process that runs holds one: pulumi's own error would propose to remove its lock. A preview
    changes nothing, so it takes no lock.
    """
    backend = urlparse(environment["PULUMI_BACKEND_URL"])
    if backend.scheme != "file":
        return
    for lock, process, user in _locks(Path(unquote(backend.path)), stack):
        holder = f"process {process} of {user}"
        if not _runs(process):
            lock.unlink(missing_ok=True)
            lock.with_name(f"{lock.name}.attrs").unlink(missing_ok=True)
            print(f"lab {command}: removed the lock of {holder}, which ended without releasing it", file=sys.stderr)
        elif command != "preview":
            problem = f"{holder} is changing {stack} at this moment"
            raise CommandError(f"{problem}: wait until it has ended, then run this again", USAGE)


def _locks(backend: Path, stack: str) -> Iterator[tuple[Path, int, str]]:
    """Each lock of this computer, with its process and user. Their form: pulumi's pkg/backend/diy/lock.go."""
    folder = backend / ".pulumi/locks/organization" / project.NAME / stack
    for lock in sorted(folder.glob("*.json")):
        try:
            content = json.loads(lock.read_text(encoding="utf-8"))
            process, host, user = int(content["pid"]), str(content["hostname"]), str(content["username"])
        except (OSError, ValueError, KeyError, TypeError):
            continue  # it was removed meanwhile, or another version of pulumi wrote it
        if host == socket.gethostname() and process > 0:
            yield lock, process, user


def _runs(process: int) -> bool:
    """Whether a process is a running pulumi. One that nobody has waited for has ended, though its number is taken; and
    after a restart of the computer the number may be another program's."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    if not shutil.which("ps"):
        return True
    ask = ["ps", "-o", "stat=", "-o", "comm=", "-p", str(process)]
    state, _, name = subprocess.run(ask, capture_output=True, text=True, timeout=30).stdout.strip().partition(" ")
    return not state.startswith("Z") and "pulumi" in name
