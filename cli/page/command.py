"""`./lab page`: one HTML file that shows a lab, from its plan, its sandbox or the deployed lab."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from cli import project
from cli.errors import FAILED, USAGE, CommandError
from cli.live.stack import is_up, live
from cli.plan.program import planned
from cli.project import stack_file
from cli.sandbox.choice import sandbox_of
from components.spec.load import load_stack_file
from components.spec.models import Lab
from components.spec.names import base_name
from components.verify.read.reading import LiveLab, read_lab
from engine.graph import Graph
from page.content.source import Source
from page.document import MARKER, Page, html
from page.foreseen.lab import foresee


def run(stack: str, *, out: Path | None = None, sandbox: bool = False, plan_only: bool = False) -> int:
    """Write the page. Returns 0. Raises CommandError, SpecError."""
    if sandbox and plan_only:
        raise CommandError("--sandbox and --plan exclude each other: leave one out", USAGE)
    target = out or Path(f"{stack}.html")
    file = load_stack_file(stack_file(stack))
    lab = file.lab
    _check_target(target)
    source = _planned(stack, lab) if plan_only else _chosen(stack, lab, sandbox)
    graph = Graph.of(planned(file).to_json()["resources"])
    text = html(Page(source, lab, graph, project.ROOT / "docs" / "labs" / f"{base_name(stack)}.md"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.new")
        draft.write_text(text, encoding="utf-8")
        draft.replace(target)
    except OSError as error:
        raise CommandError(f"--out {target}: {error.strerror or error}", USAGE) from None
    made_from = {"plan": "the plan", "sandbox": "the sandbox", "lab": "the deployed lab"}[source.kind]
    print(f"written to {target}: {len(text.encode()) / 1024:.0f} KiB, made from {made_from}; open it in a browser")
    return 0


def _check_target(target: Path) -> None:
    """Refuse to overwrite a file that no page is. Raises CommandError."""
    if target.is_dir():
        raise CommandError(f"--out {target} is a folder: name a file", USAGE)
    try:
        with target.open(encoding="utf-8", errors="replace") as file:
            beginning = file.read(200)
    except FileNotFoundError:
        return
    except OSError as error:
        raise CommandError(f"--out {target}: {error.strerror or error}", USAGE) from None
    if beginning and MARKER not in beginning:
        raise CommandError(f"--out {target} is a file that this command did not write: name another one", USAGE)


def _planned(stack: str, lab: Lab) -> Source:
    try:
        return Source(stack, "plan", *foresee(lab, stack))
    except ValueError as error:
        raise CommandError(f"no page: {error}", FAILED) from None


def _chosen(stack: str, lab: Lab, sandbox: bool) -> Source:
    """The sandbox or the deployed lab, as other commands choose; the plan where there is neither."""
    live_sandbox = sandbox_of(stack, sandbox)
    if live_sandbox is not None:
        return read_source(stack, LiveLab.of(live_sandbox.lab, live_sandbox.outputs, None))
    return read_source(stack, live(stack)) if is_up(stack) else _planned(stack, lab)


def read_source(stack: str, lab: LiveLab) -> Source:
    """What a page of a lab that is up is made from."""
    reading = asyncio.run(read_lab(lab))
    at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    # Nodes answer in any order.
    names = [node.name for node in lab.spec.nodes if node.name in reading.nodes]
    ordered = replace(
        reading,
        nodes={name: reading.nodes[name] for name in names},
        unreachable=dict(sorted(reading.unreachable.items())),
    )
    return Source(stack, "sandbox" if lab.sandbox else "lab", lab, ordered, at)
