"""The stacks of a state backend (a folder, a bucket, or Pulumi Cloud), through Pulumi's Automation API.

Nothing here reads a stack file or runs the program: all that is known of a stack is its checkpoint.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from pulumi.automation import (
    CommandError,
    CommandResult,
    ConcurrentUpdateError,
    LocalWorkspace,
    ProjectSettings,
    PulumiCommand,
    Stack,
    StackNotFoundError,
)
from pulumi.automation import errors as automation_errors

from cli import project
from cli.lifecycle.pulumi_cli import environment_for_state, find_pulumi

Json = dict[str, Any]


class BackendError(Exception):
    """The backend, or an operation on one stack, failed; the message is one line."""


@dataclass(frozen=True)
class Lock:
    """Who is updating a stack. `since` is None where the backend does not say."""

    holder: str
    since: datetime | None


class StackMissing(BackendError):
    """There is no such stack."""


class BackendSilent(BackendError):
    """No answer in time."""


class StackLocked(BackendError):
    """Somebody else is updating the stack."""

    def __init__(self, lock: Lock) -> None:
        since = f" since {lock.since:%Y-%m-%d %H:%M} UTC" if lock.since else ""
        super().__init__(f"{lock.holder} is updating it{since}")
        self.lock = lock


@dataclass(frozen=True)
class Summary:
    """A stack of the backend. `changed`: the end of its last update; `updating`: whether one runs now. `resources`: how
    many, None where the backend does not say."""

    name: str
    changed: datetime | None
    updating: bool
    resources: int | None


class Backend:
    """The project's stacks. Every wait is bounded; every failure is a BackendError."""

    def __init__(self, work_dir: Path, destroy_seconds: float = 1800.0) -> None:
        """`work_dir`: an empty folder. The CLI needs a project folder, and writes the stack's settings into it."""
        # The state of local machines names the scripts that remove them, relative to the project's folder.
        (work_dir / "components").symlink_to(project.ROOT / "components")
        environment = environment_for_state() | {
            # When the nodes are gone, there is no API that could delete the objects.
            "PULUMI_K8S_DELETE_UNREACHABLE": "true",
        }
        self.url = environment["PULUMI_BACKEND_URL"]
        self._workspace = LocalWorkspace(
            work_dir=str(work_dir),
            env_vars=environment,
            project_settings=ProjectSettings(name=project.NAME, runtime="python"),
            pulumi_command=BoundedPulumi(find_pulumi(), destroy_seconds),
        )

    def stacks(self) -> list[str]:
        """The names of the project's stacks."""
        return [summary.name for summary in self.summaries()]

    def summaries(self) -> list[Summary]:
        """The project's stacks, sorted by name."""
        with _one_line():
            found = [
                Summary(it.name, _utc(it.last_update), bool(it.update_in_progress), it.resource_count)
                for it in self._workspace.list_stacks()
            ]
            return sorted(found, key=lambda summary: summary.name)

    def answering(self) -> list[str]:
        """The stacks by asking for one after the other, for when `stacks` fails: to list them the CLI reads every
        checkpoint, so one broken checkpoint hides all the others.

        The names are those of the folder's files or, in another backend, of the stack files. A stack whose checkpoint
        is broken is in the result too. If no stack at all answers, the result is empty.
        """
        if self.url.startswith("file://"):
            folder = Path(unquote(urlsplit(self.url).path)).expanduser() / ".pulumi" / "stacks" / project.NAME
            files = [path.name for path in folder.glob("*.json*")]
            names = sorted({name.split(".json")[0] for name in files if name.endswith((".json", ".json.gz"))})
        else:
            names = list(project.stack_files())
        found, answered = [], False
        for name in names:
            try:
                self.resources(name)
                answered = True
            except StackMissing:
                answered = True
                continue
            except BackendSilent:
                return []
            except BackendError:
                pass
            found.append(name)
        return found if answered else []

    def resources(self, stack: str) -> list[Json]:
        """The resources of a stack's checkpoint; secrets stay encrypted."""
        with _one_line():
            state: Json = json.loads(self._read("stack", "export", "--stack", stack))
            return cast(list[Json], (state["deployment"] or {}).get("resources") or [])

    def outputs(self, stack: str) -> Json:
        """A stack's outputs; a secret one is "[secret]"."""
        with _one_line():
            return cast(Json, json.loads(self._read("stack", "output", "--json", "--stack", stack)))

    def destroy(self, stack: str) -> None:
        """Destroy what the checkpoint lists, go on after errors, and remove the stack if nothing is left of it.

        Raises StackLocked where somebody else is updating it.
        """
        with _one_line():
            selected = Stack.select(stack, self._workspace)
            selected.destroy(
                continue_on_error=True, remove=True, run_program=False, show_secrets=False, suppress_outputs=True
            )

    def cancel(self, stack: str) -> None:
        """Remove a stack's lock."""
        with _one_line():
            self._read("cancel", "--yes", "--stack", stack)

    def _read(self, *arguments: str) -> str:
        workspace = self._workspace
        return workspace.pulumi_command.run(list(arguments), workspace.work_dir, workspace.env_vars).stdout


def _utc(time: datetime | None) -> datetime | None:
    """The Automation API reads the CLI's time, which is UTC, without its zone."""
    return None if time is None else time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


class BoundedPulumi(PulumiCommand):
    """A CLI whose runs are bounded; the Automation API has no limit of its own."""

    def __init__(
        self, program: str, destroy_seconds: float, *, answer_seconds: float = 60.0, end_seconds: float = 60.0
    ) -> None:
        """The longest `destroy`; the longest other command, which only reads or writes the state; the longest wait for
        a CLI that was asked to end."""
        self.command = program
        self.version = None
        self._destroy_seconds, self._answer_seconds, self._end_seconds = destroy_seconds, answer_seconds, end_seconds

    def run(
        self,
        args: list[str],
        cwd: str,
        additional_env: Mapping[str, str],
        on_output: Any = None,
        on_error: Any = None,
    ) -> CommandResult:
        limit = self._destroy_seconds if args[0] == "destroy" else self._answer_seconds
        process = subprocess.Popen(
            [self.command, *args, "--non-interactive"],
            cwd=cwd,
            env={**os.environ, **additional_env, "PULUMI_AUTOMATION_API": "true"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            start_new_session=True,
        )
        try:
            stdout, stderr = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            _end(process, self._end_seconds)
            raise BackendSilent(f"`pulumi {args[0]}` was not done after {limit / 60:g} min and was stopped") from None
        except BaseException:
            _end(process, self._end_seconds)
            raise
        result = CommandResult(stdout=stdout, stderr=stderr, code=process.returncode)
        if result.code:
            raise automation_errors.create_command_error(result)
        return result


def _end(process: subprocess.Popen[str], timeout_seconds: float) -> None:
    """Interrupt it as Ctrl-C does, so that the CLI saves its state and releases its lock; kill it if that fails."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.communicate(timeout=timeout_seconds)
            return
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


@contextmanager
def _one_line() -> Iterator[None]:
    """Turns the errors of the CLI into BackendErrors of one line."""
    try:
        yield
    except ConcurrentUpdateError as error:
        raise StackLocked(latest_lock(str(error))) from None
    except StackNotFoundError:
        raise StackMissing("there is no such stack") from None
    except CommandError as error:
        raise BackendError(reason_of(str(error))) from None
    except (KeyError, ValueError) as error:
        raise BackendError(f"the backend's answer cannot be read: {' '.join(str(error).split())}") from None


def latest_lock(text: str) -> Lock:
    """The latest lock that a message of the CLI names.

    The form of a line: `…/organization/PROJECT/STACK/ID.json: created by USER@HOST (pid N) at TIME`
    (pulumi's pkg/backend/diy/lock.go).
    """
    locks = [
        Lock(holder, datetime.fromisoformat(time).astimezone(UTC))
        for holder, time in re.findall(r"created by (\S+ \(pid \d+\)) at (\S+)", text)
    ]
    unknown = Lock("another process", None)
    return max(locks, key=lambda lock: lock.since or datetime.min.replace(tzinfo=UTC), default=unknown)


def reason_of(text: str) -> str:
    """The paragraph with the cause: the CLI's last `error:` of a resource, else its last error."""
    said = re.findall(r"error: (.+(?:\n(?!\s*\n).+)?)", text) or [line for line in text.splitlines() if line.strip()]
    own = [line for line in said if "update failed" not in line and "resource operation" not in line] or said
    return " ".join(own[-1].split())[:300] if own else "the pulumi CLI gave no reason"
