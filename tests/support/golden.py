"""A plan as data for a golden file, and the difference of two plans.

A resource is one entry: its type, its parent, what it waits for and by which of its inputs, its options, its inputs. A
Step and the command that carries it are one entry. Left out are the text of scripts and user data, which have tests of
their own, and the versions of the provider plugins, which requirements.txt pins.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import yaml

from engine.model import Resource
from tests.support.graphs import COMMAND, STEP, Graph

Plan = dict[str, Any]
GONE = "(gone)"
ORDER = "(order)"
_NOT_SHOWN = {"urn", "name", "custom", "dependencies", "propertyDependencies", "version"}


# --- a plan as data


def plan_of(graph: Graph) -> Plan:
    """Sorted by name, for resources that do not wait for one another may be registered in any order."""
    names = _names(graph)
    commands = {step.urn: graph.command(step) for step in graph.of_type(STEP)}
    folded = {command.urn for command in commands.values()}
    resources = {}
    for resource in graph.deployment.resources:
        if resource.urn in folded:
            continue
        entry = _entry(resource, names)
        if command := commands.get(resource.urn):
            inputs = entry["inputs"]
            inputs["scripts"] = list(inputs["scripts"])
            inputs["files"] = {file.pop("path"): file for file in copy.deepcopy(inputs["files"])}
            for path, file in inputs["files"].items():
                if path.endswith(".sh"):
                    file["content"] = "…"
            entry["command"] = _entry(command, names)
            assert (command.name, entry["command"].pop("parent")) == (resource.name, names[resource.urn])
            assert entry["command"].pop("type") == COMMAND
            entry["command"]["inputs"].pop("stdin")  # the Step has it leaf by leaf
        resources[names[resource.urn]] = entry
    return _sorted({"outputs": graph.deployment.outputs, "resources": resources})


def _names(graph: Graph) -> dict[str, str]:
    """Each URN's name, with the type where another resource has the name too. A Step shares it with its command."""
    resources = graph.deployment.resources
    steps = {step.urn for step in graph.of_type(STEP)}
    count = Counter(r.name for r in resources if r.parent not in steps)
    return {
        r.urn: r.name if r.parent in steps or count[r.name] == 1 else f"{r.name} ({r.type.split(':')[-1]})"
        for r in resources
    }


def _entry(resource: Resource, names: dict[str, str]) -> Plan:
    options = {key: value for key, value in resource.to_json().items() if key not in _NOT_SHOWN}
    waits: dict[str, list[str]] = {names[urn]: [] for urn in resource.dependencies}
    for key, urns in resource.property_dependencies.items():
        for urn in urns:
            waits.setdefault(names[urn], []).append(key)
    entry = {
        **{key: _renamed(value, names) for key, value in options.items() if value not in (None, [], {})},
        "inputs": copy.deepcopy(resource.inputs),
        "waits": {name: ", ".join(sorted(keys)) for name, keys in waits.items()},
    }
    if resource.type.startswith("aws:ec2/instance:"):
        entry["inputs"].pop("userData")
    return {key: value for key, value in entry.items() if value not in (None, {})}


def _renamed(value: Any, names: dict[str, str]) -> Any:
    """An option's value with names instead of URNs."""
    if isinstance(value, dict):
        return {key: _renamed(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    return names.get(value, value) if isinstance(value, str) else value


def _sorted(value: Any) -> Any:
    """Mappings in the order of their keys; those of files keep theirs, for it is the order of writing."""
    if isinstance(value, dict):
        return {key: item if key == "files" else _sorted(item) for key, item in sorted(value.items())}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


# --- the difference of two plans


def difference(base: Plan, now: Plan) -> Plan:
    """What `apply` needs to make `now` of `base`: mappings with the keys that differ, and whole values below them.

    GONE stands for a key that `base` alone has, ORDER names a mapping's keys where adding the new ones at the end would
    not give their order.
    """
    changed = {}
    for key, value in now.items():
        if key not in base:
            changed[key] = value
        elif isinstance(value, dict) and isinstance(base[key], dict):
            if inner := difference(base[key], value):
                changed[key] = inner
        elif repr(value) != repr(base[key]):  # `==` takes 1 for True
            changed[key] = value
    changed |= {key: GONE for key in base if key not in now}
    if list(now) != _keys(base, changed):
        changed[ORDER] = list(now)
    return changed


def apply(base: Plan, changed: Plan) -> Plan:
    """The plan that differs from the base by what `difference` returned."""
    now = {}
    for key in changed.get(ORDER, _keys(base, changed)):
        if key not in changed:
            now[key] = base[key]
        elif isinstance(changed[key], dict) and isinstance(base.get(key), dict):
            now[key] = apply(base[key], changed[key])
        else:
            now[key] = changed[key]
    return now


def _keys(base: Plan, changed: Plan) -> list[str]:
    """The keys after a change that says nothing of their order: sorted where they were, else new ones last."""
    kept = [key for key in base if changed.get(key) != GONE]
    new = [key for key in changed if key not in base and key != ORDER]
    return sorted(kept + new) if kept == sorted(kept) else kept + new


# --- the file


def written(plan: Plan) -> str:
    return yaml.dump(plan, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def read(text: str) -> Plan:
    plan: Plan = yaml.safe_load(text)
    return plan


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, text: str) -> yaml.Node:
        return self.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)

    def represent_list(self, data: list[Any]) -> yaml.Node:
        """Short lists of plain values on one line."""
        short = all(not isinstance(item, dict | list) for item in data) and len(str(data)) < 80
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=short)


_Dumper.add_representer(str, _Dumper.represent_text)
_Dumper.add_representer(list, _Dumper.represent_list)
