"""Which of the project's stacks the state knows, and since when each lab is up."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cli.lifecycle.backend import Backend, BackendError, Summary
from cli.live.stack import state_files

_STACK_TYPE = "pulumi:pulumi:Stack"


@dataclass(frozen=True)
class Deployment:
    """What the state has of a stack. `since`: when its oldest resource was made; `changed`: the end of the last update.
    `resources`: how many, without the stack itself. `updating`: whether an update runs now, or was killed."""

    since: datetime | None
    changed: datetime | None
    resources: int
    updating: bool


def deployments(stacks: Sequence[str] = ()) -> dict[str, Deployment]:
    """The stacks with resources, or those among `stacks`, by name. Raises BackendError, CommandError and OSError.

    Without a state of the lab's own, and without PULUMI_BACKEND_URL, it needs no pulumi CLI.
    """
    if "PULUMI_BACKEND_URL" not in os.environ and not state_files():
        return {}
    found = {}
    with tempfile.TemporaryDirectory(prefix="cni-lab-list.") as folder:
        backend = Backend(Path(folder))
        for summary in backend.summaries():
            if not stacks or summary.name in stacks:
                deployment = _deployment(summary, backend)
                if deployment.resources:
                    found[summary.name] = deployment
    return found


def _deployment(summary: Summary, backend: Backend) -> Deployment:
    try:
        resources = [it for it in backend.resources(summary.name) if it.get("type") != _STACK_TYPE]
    except BackendError:
        # Its checkpoint cannot be read now, but the list says that there is one.
        return Deployment(None, summary.changed, summary.resources or 1, summary.updating)
    made = [time for it in resources if (time := _time(it))]
    return Deployment(min(made, default=None), summary.changed, len(resources), summary.updating)


def _time(resource: Mapping[str, Any]) -> datetime | None:
    try:
        return datetime.fromisoformat(resource["created"]).astimezone(UTC)
    except (KeyError, TypeError, ValueError):
        return None
