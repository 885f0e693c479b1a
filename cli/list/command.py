"""`./lab list`: the stacks, where each lab runs, whether it is up, its sandbox, and what it costs by the hour."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from rich.table import Table

from cli.console import page
from cli.errors import CommandError
from cli.lifecycle.backend import BackendError
from cli.lifecycle.deployments import Deployment, deployments
from cli.plan.cost import hourly
from cli.project import stack_file, stack_files
from cli.sandbox.choice import home
from components.sandbox import life
from components.sandbox.running import SandboxError
from components.spec.findings import SpecError
from components.spec.load import load_stack_file
from components.spec.names import base_name
from components.system_errors import system_message

PLACES = {"aws": "EC2", "local": "this computer", "existing": "your hosts"}


@dataclass(frozen=True)
class Row:
    """A stack. Times are ISO 8601 in UTC. `up`: None where the state could not be read. `usd_per_hour`: None
    where it is not known. `problem`: why there is nothing more to say about it."""

    stack: str
    up: bool | None
    since: str | None
    updating: bool
    sandbox_since: str | None
    where: str = ""
    nodes: int = 0
    usd_per_hour: float | None = None
    problem: str = ""


def run(*, as_json: bool) -> int:
    """Print the table. Returns 0. Raises CommandError."""
    notes = []
    try:
        known: dict[str, Deployment] | None = deployments()
    except (BackendError, CommandError, OSError) as error:
        known = None
        reason = system_message(error) if isinstance(error, OSError) else error
        notes.append(f"the state cannot be read, so it is not known which labs are up: {reason}")
    sandboxes = _sandboxes(notes)
    files = stack_files()
    # A local variant has no file. It is listed if it is up, after its lab; what no file is behind comes last.
    stacks = sorted({*files, *(known or {}), *sandboxes}, key=lambda name: (base_name(name) not in files, name))
    rows = [_row(stack, known, sandboxes) for stack in stacks]
    if as_json:
        print(json.dumps([_document(row) for row in rows], indent=2, ensure_ascii=False))
    else:
        _show(rows)
    for note in notes:
        print(f"note: {note}")
    return 0


def _row(stack: str, known: dict[str, Deployment] | None, sandboxes: dict[str, str]) -> Row:
    found = (known or {}).get(stack)
    row = Row(
        stack,
        up=None if known is None else found is not None,
        since=_text(found.since or found.changed) if found else None,
        updating=found.updating if found else False,
        sandbox_since=sandboxes.get(stack),
    )
    try:
        file = load_stack_file(stack_file(stack))
    except CommandError:
        misnamed = stack in stack_files()
        return replace(row, problem="not a name of a stack: rename its file" if misnamed else "no file in stacks/")
    except SpecError as error:
        count = len(error.findings)
        problem = f"not valid: {count} finding{'' if count == 1 else 's'}; ./lab plan {stack} shows them"
        return replace(row, problem=problem)
    provider = file.lab.machines.provider
    region = file.config.get("aws:region", "") if file.lab.machines.in_vpc else ""
    where = f"{PLACES.get(provider, provider)} {region}".rstrip()
    return replace(row, where=where, nodes=len(file.lab.nodes), usd_per_hour=hourly(file))


def _sandboxes(notes: list[str]) -> dict[str, str]:
    """When each sandbox was built, by name. A sandbox that is being built now has no time yet."""
    found: dict[str, str] = {}
    try:
        life.sweep(home())
        for name in life.names(home()):
            try:
                live_sandbox = life.find(name, home())
            except SandboxError:
                found[name] = ""
                continue
            if live_sandbox is not None:
                found[name] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(live_sandbox.since))
    except SandboxError as error:
        notes.append(f"the sandboxes cannot be read: {error}")
    return found


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _document(row: Row) -> dict[str, Any]:
    values = asdict(row)
    return {
        "stack": values["stack"],
        "where": values["where"],
        "nodes": values["nodes"],
        "up": values["up"],
        "since": values["since"],
        "updating": values["updating"],
        "sandboxSince": values["sandbox_since"],
        "usdPerHour": values["usd_per_hour"],
        "problem": values["problem"],
    }


def local_time(text: str | None) -> str:
    """A time of a row for people: in this computer's zone, to the minute."""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M") if text else ""


def _show(rows: list[Row]) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    # On a narrow terminal texts are wrapped. The name of a stack is typed, so it stays whole.
    table.add_column("stack", no_wrap=True, min_width=max((len(row.stack) for row in rows), default=0))
    for heading in ("where", "nodes", "up since", "sandbox since", "USD an hour"):
        table.add_column(heading, justify="right" if heading in ("nodes", "USD an hour") else "left", overflow="fold")
    for row in rows:
        since = "not known" if row.up is None else (local_time(row.since) or "yes") if row.up else "-"
        if row.updating:
            since += ", changing"
        sandbox = "-" if row.sandbox_since is None else local_time(row.sandbox_since) or "being built"
        price = "?" if row.usd_per_hour is None else f"{row.usd_per_hour:.2f}"
        if row.problem:
            table.add_row(row.stack, row.problem, "", since, sandbox, "")
        else:
            table.add_row(row.stack, row.where, str(row.nodes), since, sandbox, price if row.usd_per_hour != 0 else "-")
    page().print(table)
