"""`./lab reap`: destroys and removes every ephemeral stack whose time is over, then sweeps AWS for lost ones.

A stack is ephemeral if its checkpoint says so: the component Lab has the stack file's `ttlHours` as an input. It is the
first resource that an `up` registers. So every backend has the mark, even if that `up` was killed a second later, and
an unchanged `up` shows no change. The time runs from the `created` of the stack's own resource.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Protocol

import yaml
from rich.markup import escape
from rich.table import Table

from cli.console import page
from cli.errors import FAILED, CommandError
from cli.lifecycle.backend import Backend, BackendError, Json, StackLocked, StackMissing
from cli.project import stack_files
from cli.reap.sweep import Sweep, SweepError, sweep
from components.aws_client import AwsSettings, account_config
from components.spec import names

STACK = "pulumi:pulumi:Stack"
MARK = "ttlHours"
_WIDTH = 160

Outcome = Literal["destroyed", "would be destroyed", "kept", "left behind"]


class Stacks(Protocol):
    """What reaping needs of a backend, such as cli.lifecycle.backend.Backend."""

    url: str

    def stacks(self) -> list[str]: ...
    def answering(self) -> list[str]: ...
    def resources(self, stack: str) -> list[Json]: ...
    def destroy(self, stack: str) -> None: ...
    def cancel(self, stack: str) -> None: ...


@dataclass(frozen=True)
class Row:
    """One line of the report. `left behind` is what should be gone but is not."""

    what: str
    outcome: Outcome
    why: str


@dataclass(frozen=True)
class Life:
    """The time of an ephemeral stack: `born` when its first resource was registered, with `hours` to live."""

    born: datetime
    hours: int

    @property
    def end(self) -> datetime:
        return self.born + timedelta(hours=self.hours)


def run(
    *,
    dry_run: bool,
    as_json: bool,
    markdown: Path | None,
    lock_hours: float,
    stack_minutes: float,
    regions: Sequence[str],
) -> int:
    """Reap, sweep and report. Returns 0, or 1 where something is left behind. Raises CommandError."""
    now = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="cni-lab-reap.") as folder:
        backend = Backend(Path(folder), stack_minutes * 60)
        rows, known = reap(backend, now, dry_run=dry_run, older_than=timedelta(hours=lock_hours))
    rows += _sweep(regions, now, known, dry_run=dry_run)
    left = sum(row.outcome == "left behind" for row in rows)
    if as_json:
        print(json.dumps({"backend": backend.url, "rows": [asdict(row) for row in rows], "left": left}, indent=2))
    else:
        _show(rows)
    for path in filter(None, (markdown, _path(os.environ.get("GITHUB_STEP_SUMMARY")))):
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(as_markdown(rows, now, dry_run=dry_run))
        except OSError as error:
            raise CommandError(f"the report cannot be written: {error}", FAILED) from None
    return 1 if left else 0


# --- the state -------------------------------------------------------------------------------------------------------


def reap(
    backend: Stacks, now: datetime, *, dry_run: bool, older_than: timedelta
) -> tuple[list[Row], frozenset[str] | None]:
    """Destroy the stacks whose time is over. A lock that is older than `older_than` is ignored.

    Returns the report's rows, and the stacks that the state still has afterwards; None if it cannot list them.
    """
    try:
        names, trouble = backend.stacks(), None
    except BackendError as error:
        names, trouble = backend.answering(), error
    rows = [_reap_one(backend, name, now, dry_run=dry_run, older_than=older_than) for name in names]
    if trouble is not None:
        asked = ", ".join(names) or "none answers"
        why = f"cannot list its stacks: {trouble}; read one by one: {asked}"
        return [Row("backend", "left behind", why), *rows], None
    left = (name for name, row in zip(names, rows, strict=True) if row.outcome != "destroyed")
    # Pulumi Cloud puts an organization before the name; tags have the name alone.
    return rows, frozenset(name.rsplit("/", 1)[-1] for name in left)


def _reap_one(backend: Stacks, name: str, now: datetime, *, dry_run: bool, older_than: timedelta) -> Row:
    what = f"stack {name}"
    try:
        life = life_of(backend.resources(name))
    except StackMissing:
        return Row(what, "kept", "no longer there")
    except BackendError as error:
        return Row(what, "left behind", f"cannot be read: {error}")
    if life is None:
        return Row(what, "kept", "not ephemeral")
    span = f"{life.hours} h to live since {life.born:%Y-%m-%d %H:%M} UTC"
    if now < life.end:
        return Row(what, "kept", f"{span}: until {life.end:%Y-%m-%d %H:%M} UTC")
    if dry_run:
        return Row(what, "would be destroyed", span)
    print(f"lab reap: destroying {name}", file=sys.stderr, flush=True)
    freed = ""
    try:
        try:
            backend.destroy(name)
        except StackLocked as locked:
            since = locked.lock.since
            if since is None or now - since <= older_than:
                raise
            freed = f"; a lock of {locked.lock.holder} since {since:%Y-%m-%d %H:%M} UTC was removed"
            backend.cancel(name)
            backend.destroy(name)
    except BackendError as error:
        return Row(what, "left behind", f"{span}: {error}{freed}")
    return Row(what, "destroyed", span + freed)


def life_of(resources: Sequence[Mapping[str, Any]]) -> Life | None:
    """The time of a checkpoint's stack; None if it is not ephemeral.

    Raises BackendError if the mark is invalid: such a stack is not destroyed, and not silently kept either.
    """
    hours = next(((r.get("inputs") or {}).get(MARK) for r in resources if r.get("type") == names.LAB), None)
    if hours is None:
        return None
    if not isinstance(hours, int | float) or isinstance(hours, bool) or hours < 1:
        raise BackendError(f"its mark {MARK} is {hours!r}, not a number of hours")
    born = next((r.get("created") for r in resources if r.get("type") == STACK), None)
    try:
        return Life(datetime.fromisoformat(str(born)).astimezone(UTC), int(hours))
    except ValueError:
        raise BackendError("it is ephemeral, but its state does not say when it was created") from None


# --- the cloud -------------------------------------------------------------------------------------------------------


def _sweep(regions: Sequence[str], now: datetime, known: frozenset[str] | None, *, dry_run: bool) -> list[Row]:
    """Sweep the regions for stacks that are not `known`. Without a list of the known ones nothing is deleted."""
    rows = []
    for aws in [AwsSettings(region) for region in regions] or _accounts():
        region = " with ".join(filter(None, (aws.region, aws.account_words)))
        what = f"lost resources in {region}"
        try:
            found = sweep(aws, now, known or frozenset(), dry_run=dry_run or known is None)
        except SweepError as error:
            # Without credentials there is nothing to sweep, unless a region was named.
            rows.append(Row(what, "left behind" if regions or not error.no_credentials else "kept", str(error)))
            continue
        rows += [_swept(each, region, blind=known is None and not dry_run) for each in found]
        if not found:
            rows.append(Row(what, "kept", "none"))
    return rows


def _swept(found: Sweep, region: str, *, blind: bool) -> Row:
    what = f"lost resources of {found.stack} in {region}"
    if blind and found.outcome == "would be destroyed":
        why = f"{found.why}; not deleted, because the backend cannot list its stacks"
        return Row(what, "left behind", why)
    return Row(what, found.outcome, found.why)


def _accounts() -> list[AwsSettings]:
    """The regions that the stack files under stacks/ name, each with the account that they name."""
    named = {}
    for path in stack_files().values():
        try:
            config = (yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get("config") or {}
        except (OSError, ValueError, AttributeError, yaml.YAMLError):
            continue  # plan and up report what is wrong with such a file
        if isinstance(config, dict) and isinstance(config.get("aws:region"), str):
            texts = {str(key): text if isinstance(text, str) else json.dumps(text) for key, text in config.items()}
            with contextlib.suppress(ValueError):  # plan and up report this too
                named[json.dumps(account_config(texts), sort_keys=True)] = AwsSettings.of(texts)
    return sorted(named.values(), key=repr)


# --- the report ------------------------------------------------------------------------------------------------------


def _show(rows: Sequence[Row]) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("what", "outcome", "why"):
        table.add_column(heading, overflow="fold")
    for row in rows:
        style = {"left behind": "bold red", "destroyed": "green"}.get(row.outcome, "")
        table.add_row(row.what, f"[{style}]{row.outcome}[/]" if style else row.outcome, escape(row.why))
    page(_WIDTH).print(table if rows else "no stacks")


def as_markdown(rows: Sequence[Row], now: datetime, *, dry_run: bool) -> str:
    """The report as a job summary."""
    left = sum(row.outcome == "left behind" for row in rows)
    verdict = f"**{left} left behind.**" if left else "Nothing is left behind."
    cells = [[text.replace("|", r"\|") for text in (row.what, row.outcome, row.why)] for row in rows]
    return "\n".join(
        [
            f"## Reap, {now:%Y-%m-%d %H:%M} UTC{' (dry run)' if dry_run else ''}",
            "",
            verdict,
            "",
            "| what | outcome | why |",
            "|---|---|---|",
            *(f"| {' | '.join(cell)} |" for cell in cells),
            "",
            "",
        ]
    )


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
