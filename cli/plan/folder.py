"""The folder of `./lab plan --out`: pictures, every node's files and steps, and every Kubernetes object."""

from __future__ import annotations

import json
import re
import shlex
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from cli.errors import USAGE, CommandError
from components.node.script import LIBRARY, text_of
from components.spec.names import STEP
from engine.graph import Graph, Node
from engine.mermaid import mermaid
from engine.model import UNKNOWN, Deployment
from engine.svg import svg

MARKER = ".cni-lab-plan"
"""The file in an output folder that lists the paths that a plan wrote there, one a line."""

# Protobuf loses the order of an object's keys. These come first, as people write them.
_FIRST_KEYS = ("apiVersion", "kind", "metadata", "cniVersion", "name", "namespace", "type")


def render(deployment: Deployment, graph: Graph, document: str) -> tuple[dict[str, str], list[str]]:
    """The files of the output folder by their paths in it, and warnings."""
    files = {
        "resources.json": document,
        "graph.mmd": mermaid(graph),
        "graph.svg": svg(graph, f"{deployment.stack}: {len(graph.active)} resources in {graph.wave_count} waves"),
    }
    node_files, warnings = _node_files(graph)
    return files | node_files | _kubernetes_files(graph), warnings


def _node_files(graph: Graph) -> tuple[dict[str, str], list[str]]:
    """For each node, its files after all steps, and the program of each step in order; and warnings."""
    files: dict[str, str] = {}
    writers: dict[str, str] = {}
    warnings: list[str] = []
    steps: dict[str, list[Node]] = defaultdict(list)
    for node in graph.nodes.values():
        if node.type == STEP:
            steps[_file_name(node.inputs["node"])].append(node)
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
