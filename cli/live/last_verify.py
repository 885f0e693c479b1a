"""What the last `./lab verify` of a stack found, for `./lab status`."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cli import project
from components.verify.model import Status


@dataclass(frozen=True)
class LastVerify:
    at: datetime
    passed: int
    failed: int
    unknown: int


def remember(stack: str, numbers: Mapping[Status, int], *, sandbox: bool) -> None:
    """Keep the numbers of passed, failed and unknown checks. What cannot be written is left out: the checks count."""
    text = json.dumps({"at": datetime.now(UTC).isoformat(timespec="seconds"), **numbers})
    path = _path(stack, sandbox=sandbox)
    with contextlib.suppress(OSError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)


def forget(stack: str, *, sandbox: bool) -> None:
    """After `break`, `mend` or an exercise: what was found before is no longer so."""
    with contextlib.suppress(OSError):
        _path(stack, sandbox=sandbox).unlink(missing_ok=True)


def last(stack: str, *, sandbox: bool) -> LastVerify | None:
    """The last one; None if there was none, or its file cannot be read."""
    try:
        found = json.loads(_path(stack, sandbox=sandbox).read_text(encoding="utf-8"))
        numbers = {key: int(found[key]) for key in ("passed", "failed", "unknown")}
        return LastVerify(datetime.fromisoformat(found["at"]), **numbers)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _path(stack: str, *, sandbox: bool) -> Path:
    return project.HOME / "verify" / f"{stack}{'.sandbox' if sandbox else ''}.json"
