"""`./lab plan`: run the program in this process and show its graph, with no cloud, no pulumi CLI and no network."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.text import Text

from cli.console import page
from cli.errors import USAGE, CommandError
from cli.plan import cost
from cli.plan.overview import Deployed, overview
from cli.plan.page import WIDTH, show, sizes
from cli.plan.policy import note, violations
from cli.plan.program import planned
from cli.project import stack_file
from components.calico.blocks import foreseen
from components.spec.load import StackFile, load_stack_file
from engine.graph import Graph
from engine.model import Deployment
from policy.check import ConfigError


def plan(stack: str, *, as_json: bool, out: Path | None) -> int:
    """Print a stack's plan, or its JSON, and write it to `out`.

    Returns 0, or 1 where the program logs an error or breaks a mandatory rule of the policy. Raises CommandError,
    SpecError. LAB_TRACEBACK=1 in the environment shows the Python traceback of a failing program.
    """
    file = load_stack_file(stack_file(stack))
    deployment = planned(file)
    graph = Graph.of(deployment.to_json()["resources"])
    try:
        broken = violations(deployment)
    except ConfigError as error:
        raise CommandError(str(error), USAGE) from None
    notes = [f"{message.severity}: {message.text}" for message in deployment.messages]
    notes += [note(finding) for finding in broken]
    if file.lab.machines.provider == "local":
        from cli.doctor.command import local_notes

        notes += local_notes(file.lab, stack)
    if out is not None:
        from cli.plan.folder import render, write
        from cli.plan.topology import topology

        files, warnings = render(deployment, graph, _document(deployment, graph))
        notes += [f"warning: {warning}" for warning in warnings]
        write(out, files | {"topology.mmd": topology(file.lab, foreseen(file.lab))})
    try:
        if as_json:
            sys.stdout.write(_document(deployment, graph))
            print(*notes, sep="\n", end="\n" if notes else "", file=sys.stderr)
        else:
            show(_introduction(stack, file, deployment), deployment, graph, notes, page(WIDTH))
            if out is not None:
                print(f"\nwritten to {out}: {len(files) + 1} files")
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    failed = any(message.severity == "error" for message in deployment.messages)
    return 1 if failed or any(finding.mandatory for finding in broken) else 0


def _introduction(stack: str, file: StackFile, deployment: Deployment) -> Iterator[Text]:
    region = file.config.get("aws:region") if file.lab.machines.provider == "aws" else None
    deployed = Deployed(region, cost.sentence(deployment, file))
    return overview(stack, file.lab, foreseen(file.lab), foreseen=True, deployed=deployed)


def summary(stack: str) -> list[str]:
    """A stack's plan in a few lines: how many resources, and the order. Raises CommandError, SpecError."""
    graph = Graph.of(planned(load_stack_file(stack_file(stack))).to_json()["resources"])
    chain = [node.name for node in graph.longest_chain()]
    return [*sizes(graph), f"The longest chain has {len(chain)}: {chain[0]}, …, {chain[-1]}."]


def _document(deployment: Deployment, graph: Graph) -> str:
    """The whole graph as JSON."""
    content = deployment.to_json() | {"longestChain": [node.urn for node in graph.longest_chain()]}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
