"""`./lab plan`: run the program in this process and show its graph, with no cloud, no pulumi CLI and no network."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text

from cli import project
from cli.console import page
from cli.errors import FAILED, USAGE, CommandError
from cli.plan.policy import note, violations
from cli.project import stack_file
from components.node.script import LIBRARY, text_of
from components.spec.load import load_stack_file
from components.spec.names import STEP
from engine.graph import Graph, Node
from engine.mermaid import mermaid
from engine.model import UNKNOWN, Deployment, ProgramError
from engine.run import run_program
from engine.svg import svg
from policy.check import ConfigError

MARKER = ".cni-lab-plan"
"""The file in an output folder that lists the paths that a plan wrote there, one a line."""

WIDTH = 100

# Protobuf loses the order of an object's keys. These come first, as people write them.
_FIRST_KEYS = ("apiVersion", "kind", "metadata", "cniVersion", "name", "namespace", "type")


def plan(stack: str, *, as_json: bool, out: Path | None) -> int:
    """Print a stack's plan, or its JSON, and write it to `out`.

    Returns 0, or 1 where the program logs an error or breaks a mandatory rule of the policy. Raises CommandError,
    SpecError. LAB_TRACEBACK=1 in the environment shows the Python traceback of a failing program.
    """
    deployment = _run(stack)
    graph = Graph.of(deployment.to_json()["resources"])
    try:
        broken = violations(deployment)
    except ConfigError as error:
        raise CommandError(str(error), USAGE) from None
    notes = [f"{message.severity}: {message.text}" for message in deployment.messages]
    notes += [note(finding) for finding in broken]
    document = json.dumps(_document(deployment, graph), indent=2, ensure_ascii=False) + "\n"
    if out is not None:
        files, warnings = render(deployment, graph, document)
        notes += [f"warning: {warning}" for warning in warnings]
        write(out, files)
    try:
        if as_json:
            sys.stdout.write(document)
            print(*notes, sep="\n", end="\n" if notes else "", file=sys.stderr)
        else:
            show(deployment, graph, notes, page(WIDTH))
            if out is not None:
                print(f"\nwritten to {out}: {len(files)} files")
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    failed = any(message.severity == "error" for message in deployment.messages)
    return 1 if failed or any(finding.mandatory for finding in broken) else 0


def _run(stack: str) -> Deployment:
    file = load_stack_file(stack_file(stack))
    try:
        return run_program(project.ROOT / project.PROGRAM, stack=stack, config=file.config)
    except ProgramError as error:
        trace = f"\n{error.trace}" if os.environ.get("LAB_TRACEBACK") else ""
        raise CommandError(f"{error}{trace}", FAILED) from None


def summary(stack: str) -> list[str]:
    """A stack's plan in a few lines: how many resources, and the order. Raises CommandError, SpecError."""
    graph = Graph.of(_run(stack).to_json()["resources"])
    chain = [node.name for node in graph.longest_chain()]
    return [
        f"{_count(len(graph.nodes), 'resource')} in {_count(graph.wave_count, 'wave')}; resources of a wave wait for "
        "earlier waves.",
        f"The longest chain has {len(chain)}: {chain[0]}, …, {chain[-1]}.",
    ]


def _document(deployment: Deployment, graph: Graph) -> dict[str, Any]:
    return deployment.to_json() | {"longestChain": [node.urn for node in graph.longest_chain()]}


# --- the page --------------------------------------------------------------------------------------------------------


def show(deployment: Deployment, graph: Graph, notes: Sequence[str], console: Console) -> None:
    """Header, tree with waves, counts by type, longest chain, outputs, and the program's log."""
    providers = sum(node.package == "pulumi" for node in graph.custom)
    kinds = [
        f"{len(graph.custom) - providers} made",
        _count(len(graph.nodes) - len(graph.custom), "component"),
        _count(providers, "provider"),
    ]
    size = f"{_count(len(graph.nodes), 'resource')} in {_count(graph.wave_count, 'wave')} ({', '.join(kinds)})"
    console.print(Text.assemble((deployment.stack, "bold"), f": {size}"), soft_wrap=True)
    console.print("Waves are the order: resources of a wave wait for earlier waves, and not for each other.\n")

    rows = list(graph.tree())
    # A narrow page must still show the type.
    width = min(max((len(row.label) for row in rows), default=0), 54, max(console.width - 28, 24))
    _line(console, (f"{'wave':>5}  {'resource':{width}}  type", "dim"))
    for row in rows:
        label = (f"{_cut(row.label, width):{width}}", "" if row.node.custom else "bold")
        _line(console, (f"{row.waves:>5}  ", "cyan"), label, (f"  {row.kind}", "dim"))

    console.print("\n[bold]Resources by type[/]")
    counts = [_cut(f"{count:>5}  {kind}", 50) for kind, count in graph.counts()]
    half = (len(counts) + 1) // 2 if console.width >= WIDTH else len(counts)
    for one, other in zip_longest(counts[:half], counts[half:], fillvalue=""):
        _line(console, f"{one:50}{other}".rstrip())

    console.print("\n[bold]Longest chain[/]: each resource waits for the one before")
    for node in graph.longest_chain():
        title = graph.title(node)
        if console.width < WIDTH:
            _line(console, (f"{node.wave:>5}  ", "cyan"), title)
        else:
            _line(console, (f"{node.wave:>5}  ", "cyan"), f"{_cut(title, 54):54}", (f"  {node.name}", "dim"))

    if deployment.outputs:
        console.print("\n[bold]Outputs[/]")
        for key, value in deployment.outputs.items():
            console.print(f"  {key}: {json.dumps(value, ensure_ascii=False)}", markup=False, soft_wrap=True)
    if notes:
        console.print("\n[bold]Notes[/]")
        for note in notes:
            console.print(f"  {note}", markup=False, soft_wrap=True)


def _line(console: Console, *parts: str | tuple[str, str]) -> None:
    console.print(Text.assemble(*parts), no_wrap=True, overflow="ellipsis")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


# --- the folder ------------------------------------------------------------------------------------------------------


def render(deployment: Deployment, graph: Graph, document: str) -> tuple[dict[str, str], list[str]]:
    """The files of the output folder by their paths in it, and warnings."""
    files = {
        "resources.json": document,
        "graph.mmd": mermaid(graph),
        "graph.svg": svg(graph, f"{deployment.stack}: {len(graph.custom)} resources in {graph.wave_count} waves"),
    }
    node_files, warnings = _node_files(graph)
    return files | node_files | _kubernetes_files(graph), warnings


def _node_files(graph: Graph) -> tuple[dict[str, str], list[str]]:
    """For each node, its files after all steps, and the program of each step in order; and warnings."""
    files: dict[str, str] = {}
    writers: dict[str, str] = {}
    warnings: list[str] = []
    steps: dict[str, list[Node]] = defaultdict(list)
    for row in graph.tree():
        if row.node.type == STEP:
            steps[_file_name(row.node.inputs["node"])].append(row.node)
    for machine, of_machine in steps.items():
        of_machine.sort(key=lambda step: max((graph.nodes[urn].wave for urn in step.children), default=0))
        for number, step in enumerate(of_machine, 1):
            phase = _file_name(step.inputs["phase"])
            files[f"nodes/{machine}/steps/{number:02d}-{phase}.sh"] = _step_text(step)
            for file in _listed(step.inputs.get("files")):
                path = PurePosixPath(file["path"])
                if not path.is_absolute() or ".." in path.parts:
                    warnings.append(
                        f"{step.name} writes {file['path']!r}, which is not an absolute path: it is left out"
                    )
                    continue
                target = f"nodes/{machine}{path}"
                text = text_of(str(path), ordered(file["content"]))
                if files.get(target, text) != text:
                    warnings.append(
                        f"{writers[target]} and {step.name} write {path} on {machine}: the folder has the later one"
                    )
                files[target], writers[target] = text, step.name
    return files, warnings


def _step_text(step: Node) -> str:
    """What a step runs: the names of its files, its variables as shell assignments, the text of its scripts."""
    inputs = step.inputs
    lines = [f"# {inputs['phase']} on {inputs['node']}, within {inputs.get('timeout', UNKNOWN)} s (step {step.name})"]
    if isinstance(inputs.get("files"), str):
        lines.append(f"# files: {inputs['files']}")
    lines += [f"# file {file['mode']} {file['path']}" for file in _listed(inputs.get("files"))]
    variables = inputs.get("variables") or {}
    if isinstance(variables, str):
        lines.append(f"# variables: {variables}")
    else:
        lines += [f"{name}={shlex.quote(_shell_value(value))}" for name, value in variables.items()]
    scripts = inputs.get("scripts") or {}
    # The library runs first on the node. The graph does not have the order of the other scripts.
    for name in sorted(scripts, key=lambda script: (script != LIBRARY, script)):
        lines += ["", f"# --- {name}", scripts[name].rstrip("\n")]
    return "\n".join(lines) + "\n"


def _shell_value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _listed(value: Any) -> list[Mapping[str, Any]]:
    """A list of files; empty if it is not known yet."""
    return value if isinstance(value, list) else []


def _kubernetes_files(graph: Graph) -> dict[str, str]:
    """Each Kubernetes object as YAML, numbered in the order of creation."""
    objects = sorted((node for node in graph.custom if node.package == "kubernetes"), key=lambda node: node.wave)
    digits = max(2, len(str(len(objects))))
    files = {}
    for number, node in enumerate(objects, 1):
        metadata = node.inputs.get("metadata")
        names = metadata if isinstance(metadata, dict) else {}
        kind = str(node.inputs.get("kind", node.type.rpartition(":")[2])).lower()
        parts = [kind, names.get("namespace"), names.get("name", node.name)]
        name = "-".join(_file_name(str(part)) for part in parts if part)
        files[f"kubernetes/{number:0{digits}d}-{name}.yaml"] = yaml_text(node.inputs)
    return files


def yaml_text(value: Any, width: int = 120) -> str:
    """YAML as people write it: familiar keys first, text of several lines as a block."""
    return yaml.dump(ordered(value), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=width)


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as a block."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def ordered(value: Any) -> Any:
    """The same value, with _FIRST_KEYS first in each object."""
    if isinstance(value, dict):
        keys = [key for key in _FIRST_KEYS if key in value]
        return {key: ordered(value[key]) for key in [*keys, *(key for key in value if key not in keys)]}
    return [ordered(item) for item in value] if isinstance(value, list) else value


def _file_name(text: str) -> str:
    """A name that is one component of a path; marks such as <known after up> lose their brackets."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-.") or "unnamed"


def write(out: Path, files: Mapping[str, str]) -> None:
    """Replace what an earlier plan wrote to `out` by `files`; raises CommandError where it holds other files.

    The marker lists old and new files before any of them is touched, so that an interrupted run can be repeated.
    """
    try:
        earlier = _earlier(out)
        out.mkdir(parents=True, exist_ok=True)
        _mark(out, {*earlier, *files})
        for name in sorted(earlier - files.keys(), reverse=True):
            (out / name).unlink(missing_ok=True)
            for folder in list((out / name).relative_to(out).parents)[:-1]:
                if (out / folder).is_dir() and not any((out / folder).iterdir()):
                    (out / folder).rmdir()
        for name, text in files.items():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_text(text, encoding="utf-8")
        _mark(out, files)
    except OSError as error:
        raise CommandError(f"--out {out}: {error.strerror or error}: {error.filename or out}", USAGE) from None


def _earlier(out: Path) -> set[str]:
    """The paths of what an earlier plan wrote to the folder."""
    if not out.exists():
        return set()
    if not out.is_dir():
        raise CommandError(f"--out {out} is a file: name a folder", USAGE)
    marker = out / MARKER
    ours = set(marker.read_text(encoding="utf-8").splitlines()) if marker.exists() else set()
    found = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_symlink() or not path.is_dir()}
    foreign = sorted(found - ours - {MARKER, f"{MARKER}.new"})
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise CommandError(
            f"--out {out} holds files that no plan wrote ({', '.join(foreign[:3])}{more}): "
            "name an empty or new folder, or move them away",
            USAGE,
        )
    return ours & found


def _mark(out: Path, names: set[str] | Mapping[str, str]) -> None:
    draft = out / f"{MARKER}.new"
    draft.write_text("".join(f"{name}\n" for name in sorted(names)), encoding="utf-8")
    draft.replace(out / MARKER)
