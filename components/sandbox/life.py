"""Sandboxes that outlive the command that made them: build, find, list and remove.

Everything that one leaves on disk is in HOME/NAME/. Whoever holds the lock on HOME/NAME/lock is that sandbox: its
processes inherit the locked descriptor, so the lock is free exactly when no process of it is left, also after a crash
or a reboot. A directory whose lock is free is rubbish, and the next command removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.sandbox.fit import fit
from components.sandbox.plan import make_plan
from components.sandbox.requirements import examine, is_root
from components.sandbox.running import Running, SandboxError, end
from components.slowdown import scaled
from components.spec.models import Lab
from components.system_errors import system_message

_STATE = "state.json"
_FORMAT = 1
_WAIT_SECONDS = 180.0
"""How long a command waits for another one that builds or removes the same sandbox."""


@dataclass(frozen=True)
class LiveSandbox:
    """A sandbox that is up. `file_lab`: the stack file's lab when it was built; `lab`: what was built, and `notes`
    how that differs. `outputs`: as a deployed stack's. `pid`: the process that holds it. `since`: seconds since
    1970."""

    name: str
    pid: int
    since: float
    rootless: bool
    file_lab: Mapping[str, Any]
    lab: Lab
    notes: Sequence[str]
    outputs: Mapping[str, Any]


class BeingBuilt(SandboxError):
    """Another command builds or removes the sandbox at this moment."""


def build(name: str, lab: Lab, home: Path, *, stay: bool = True) -> Running:
    """Build a lab's sandbox. Without `stay` it ends with this process. Raises SandboxError."""
    kernel = examine(lab)
    if kernel.problem:
        raise SandboxError(kernel.problem)
    fitted, notes = fit(lab, kernel)
    try:
        plan = make_plan(fitted, stack=name)
    except ValueError as error:
        raise SandboxError(str(error)) from None
    with _locked(name, home) as (directory, lock):
        services = "services" not in kernel.lacks
        running = Running(plan, directory / "machines", keep_open=[lock], services=services)
        try:
            (directory / "machines").mkdir()
            running.start()
            state = {
                "format": _FORMAT,
                "pid": running.pid,
                "since": time.time(),
                "rootless": not is_root(),
                "file": dump(lab),
                "lab": dump(fitted),
                "notes": notes,
                "outputs": running.outputs,
            }
            draft = directory / f"{_STATE}.new"
            with open(draft, "w", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                json.dump(state, file)
            draft.rename(directory / _STATE)
            if stay:
                running.stay()
        except OSError as error:
            running.stop()
            raise SandboxError(system_message(error, directory)) from None
        except BaseException:
            running.stop()
            raise
    return running


def find(name: str, home: Path) -> LiveSandbox | None:
    """The sandbox of a stack; None where there is none. Raises BeingBuilt."""
    directory = home / name
    if not _is_locked(directory):
        return None
    state = _read_state(directory)
    if state.get("format") != _FORMAT:
        fix = f"`./lab sandbox {name} --down` removes it"
        raise SandboxError(f"another version of this program built the sandbox {name}: {fix}")
    return LiveSandbox(
        name=name,
        pid=state["pid"],
        since=state["since"],
        rootless=state["rootless"],
        file_lab=state["file"],
        lab=Lab.model_validate(state["lab"]),
        notes=state["notes"],
        outputs=state["outputs"],
    )


def _read_state(directory: Path) -> dict[str, Any]:
    """What the sandbox in a directory wrote when it was up. Raises BeingBuilt, SandboxError."""
    path = directory / _STATE
    try:
        state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        now = "is being built or removed by another command at this moment"
        raise BeingBuilt(f"the sandbox {directory.name} {now}") from None
    except OSError as error:
        raise SandboxError(system_message(error, directory)) from None
    except ValueError as error:
        raise SandboxError(f"{path} cannot be read: {error}") from None
    return state


def is_up(name: str, home: Path) -> bool:
    """Whether a sandbox of this name is up, without reading it."""
    return _is_locked(home / name)


def names(home: Path) -> list[str]:
    """The sandboxes that are up or being built."""
    return sorted(path.parent.name for path in home.glob("*/lock") if _is_locked(path.parent))


def remove(name: str, home: Path) -> bool:
    """End a sandbox and remove its directory; returns whether there was one. Raises SandboxError."""
    directory = home / name
    was_up = _is_locked(directory)
    if was_up:
        try:
            end(_read_state(directory)["pid"])
        except KeyError as error:
            raise SandboxError(f"{directory / _STATE} cannot be read: {error}") from None
        except PermissionError:
            raise SandboxError(f"the sandbox {name} is another user's") from None
    seconds = scaled(_WAIT_SECONDS)
    deadline = time.monotonic() + seconds
    while _is_locked(directory):
        if time.monotonic() > deadline:
            raise SandboxError(f"the sandbox {name} did not end within {seconds:.0f} s")
        time.sleep(0.02)
    sweep(home)
    return was_up


def sweep(home: Path) -> list[str]:
    """Remove the directories of sandboxes that ended; returns their names. Raises SandboxError where they are another
    user's."""
    removed = []
    try:
        directories = list(home.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise SandboxError(system_message(error, home)) from None
    for directory in directories:
        if directory.is_dir() and not _is_locked(directory):
            with contextlib.suppress(BeingBuilt), _locked(directory.name, home, wait_seconds=0):
                removed.append(directory.name)
                shutil.rmtree(directory, ignore_errors=True)
    with contextlib.suppress(OSError):
        home.rmdir()
    return removed


def dump(lab: Lab) -> dict[str, Any]:
    """A lab as JSON, every default in it."""
    return lab.model_dump(mode="json", by_alias=True)


def differences(before: Any, after: Any, key: str = "") -> list[str]:
    """What differs between two labs as JSON: "KEY: OLD → NEW", by the stack file's keys."""
    if isinstance(before, dict) and isinstance(after, dict):
        found = []
        for name in [*before, *(name for name in after if name not in before)]:
            where = f"{key}.{name}" if key else name
            found += differences(before.get(name), after.get(name), where)
        return found
    if isinstance(before, list) and isinstance(after, list):
        found = []
        for number in range(max(len(before), len(after))):
            old, new = ((it[number] if number < len(it) else None) for it in (before, after))
            found += differences(old, new, f"{key}[{number}]")
        return found
    if before == after:
        return []
    return [f"{key}: {_short(before)} → {_short(after)}"]


def _short(value: Any) -> str:
    if value is None:
        return "(absent)"
    if isinstance(value, dict):
        return str(value.get("name", "(a mapping)"))
    return str(value)


# --- the lock ---------------------------------------------------------------------------------------------------------


def _is_locked(directory: Path) -> bool:
    try:
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        return True  # another user's
    try:
        # Shared: two that look at once do not take each other for the sandbox.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


@contextlib.contextmanager
def _locked(name: str, home: Path, *, wait_seconds: float = 1.0) -> Iterator[tuple[Path, int]]:
    """HOME/NAME, empty but for its lock, which is held. Who fails to fill it leaves nothing. Raises SandboxError."""
    directory = home / name
    try:
        home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.mkdir(mode=0o700, exist_ok=True)
        lock = _take(directory, time.monotonic() + wait_seconds)
    except OSError as error:
        raise SandboxError(system_message(error, directory)) from None
    if lock is None:
        raise BeingBuilt(f"the sandbox {name} is up already, or another command is building it")
    try:
        for path in directory.iterdir():
            if path.name != "lock":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        yield directory, lock
    except BaseException:
        # The directory goes while the lock is held, so that nobody else has begun to fill it.
        shutil.rmtree(directory, ignore_errors=True)
        raise
    finally:
        os.close(lock)


def _take(directory: Path, deadline: float) -> int | None:
    """The lock of a directory, made where it is not there; None where another has it until the deadline."""
    while True:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = directory / "lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # removed at this moment
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who had the lock before may have removed the file with its directory.
            if path.exists() and os.fstat(descriptor).st_ino == path.stat().st_ino:
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(descriptor)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.02)
