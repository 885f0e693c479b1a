"""What a shell may offer for an argument. A stack file that is not valid, or is not there, offers nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

Candidate = str | tuple[str, str]
"""A word, or a word and what it means."""


def _matching(find: Callable[[Any], Iterator[Candidate]]) -> Callable[..., list[Candidate]]:
    """The completer that Typer calls: the candidates that begin as the typed word does. It never raises."""

    def complete(ctx: Any, incomplete: str) -> list[Candidate]:
        found: list[Candidate] = []
        # A traceback in the middle of a command line helps nobody; the command itself will say what is wrong.
        with suppress(Exception):
            found = list(find(ctx))
        return [it for it in found if (it if isinstance(it, str) else it[0]).startswith(incomplete)]

    return complete


def _stacks(_: Any) -> Iterator[Candidate]:
    from cli.project import stack_files

    yield from stack_files()


def _nodes(ctx: Any) -> Iterator[Candidate]:
    for node in _lab(ctx).nodes:
        yield node.name, f"{node.role}, {node.address}"


def _pods(ctx: Any) -> Iterator[Candidate]:
    """Workloads, and each workload on each node that accepts it."""
    from components.spec.placement import nodes_for, pod_count

    lab = _lab(ctx)
    for workload in lab.workloads:
        if pod_count(lab, workload):
            yield workload.name, f"a pod of this {workload.kind}"
            yield from ((f"{workload.name}@{node.name}", "its pod on this node") for node in nodes_for(lab, workload))


def _faults(ctx: Any) -> Iterator[Candidate]:
    from components.verify.faults.table import FAULTS

    lab = _lab(ctx)
    for fault in FAULTS.values():
        if fault.refusal(lab) is None:
            yield fault.id


def _commands(ctx: Any) -> Iterator[Candidate]:
    group = ctx.find_root().command
    for name in group.list_commands(ctx):
        yield name, group.get_command(ctx, name).get_short_help_str(limit=200)


def _lab(ctx: Any) -> Any:
    from cli.project import stack_file
    from components.spec.load import load_stack_file

    # While an option waits for its value, Typer has parsed no argument yet.
    stack = ctx.params.get("stack") or ctx.args[0]
    return load_stack_file(stack_file(stack)).lab


stacks = _matching(_stacks)
nodes = _matching(_nodes)
pods = _matching(_pods)
faults = _matching(_faults)
commands = _matching(_commands)
