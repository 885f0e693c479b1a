"""Reads a stack file into a `Lab`. Everything that is wrong with it is in one `SpecError`."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from components.spec.document import MAX_DEPTH, read_document
from components.spec.findings import Finding, SpecError, nearest, shown, shown_key
from components.spec.keypath import KeyPath, dotted, value_at
from components.spec.model_paths import known_keys
from components.spec.models import Lab
from components.spec.models.base import CONFIG_KEY
from components.spec.names import stack_name
from components.spec.rules import check
from components.spec.translate import PASSWORD_FIX, Flaw, flaws, has_placeholder, with_placeholder

__all__ = ["LAB_KEY", "Finding", "SpecError", "StackFile", "load_stack_file", "parse_lab"]

LAB_KEY = "cni-lab:lab"
# Pulumi's own keys beside `config` (pulumi sdk/go/common/workspace, ProjectStack).
PULUMI_KEYS = ("config", "secretsprovider", "encryptedkey", "encryptionsalt", "environment")
# Removing a value may leave its mapping without a key that it needs. Then the mapping is removed as well, and so on up.
# The models are not deeper than this.
MAX_REPAIRS = 6
# A reader does not need more, and finding thousands takes long.
MAX_FINDINGS = 500
_COUNTS = (("controlPlanes",), ("workers",))
_NOT_TEXT = "holds a control character or half a surrogate pair"
_REMOVE = "remove that character"


@dataclass(frozen=True)
class StackFile:
    """A valid stack file: the name of the stack, its lab, and its configuration as Pulumi gives it to a program.

    `config` maps `namespace:key` to text; objects are JSON. Encrypted values are left out, because only Pulumi can read
    them. The passwords that the lab names have a word in their place, and their keys are in `secret_keys`.
    """

    path: Path
    name: str
    lab: Lab
    config: dict[str, str]

    @property
    def secret_keys(self) -> list[str]:
        return [f"cni-lab:{key}" for key in self.lab.calico.passwords.values()]


def load_stack_file(path: Path) -> StackFile:
    """The stack file at `path`. Raises SpecError with every finding, also if the file cannot be read."""
    document, broken, lines = read_document(path)
    config = document.get("config")
    lab, flat = None, {}
    found = [flaw.finding for flaw in broken if flaw.finding]
    if isinstance(config, dict):
        flat = _flatten(config)
        if LAB_KEY in config:
            lab, found = _lab(config[LAB_KEY], flat, broken)
    found += _file_findings(document)
    if found or lab is None:
        raise SpecError([replace(finding, line=lines.of(finding.key)) for finding in found], path.name)
    file = StackFile(path, stack_name(path), lab, flat)
    flat.update(dict.fromkeys(file.secret_keys, "[secret]"))
    return file


def parse_lab(value: object, config: Mapping[str, str] | None = None) -> Lab:
    """The lab in `value`, the object under `cni-lab:lab`. Raises SpecError with every finding.

    `config`: the configuration of the stack, as in StackFile. With None, nothing outside the lab is checked.
    """
    lab, found = _lab(value, config, [])
    if found or lab is None:
        raise SpecError(found, LAB_KEY)
    return lab


def _file_findings(document: Mapping[str, object]) -> Iterator[Finding]:
    """What is wrong outside the lab: in Pulumi's own keys, and in the names of the configuration's keys."""
    for key in document:
        if key not in PULUMI_KEYS:
            meant = nearest(key, PULUMI_KEYS)
            fix = f"did you mean {meant}?" if meant else f"put it under config, as {LAB_KEY} or namespace:key"
            if key in known_keys(None, ()):
                fix = f"put it under {LAB_KEY}, which is under config"
            yield Finding(shown_key(key), shown(document[key]), "is not a key that Pulumi has in a stack file", fix)
    config = document.get("config")
    if not isinstance(config, dict):
        problem = "must be a mapping" if "config" in document else "this key is required"
        seen = shown(config) if "config" in document else "missing"
        yield Finding("config", seen, problem, f"write config: with {LAB_KEY}: and the lab under it")
        return
    for key, value in config.items():
        if ":" not in key:
            meant = LAB_KEY if nearest(key, ["lab", "cni-lab"]) else f"cni-lab:{key}"
            yield Finding(f"config.{shown_key(key)}", shown(value), "has no namespace", f"did you mean {meant}?")
        elif key.startswith("cni-lab:") and key.removeprefix("cni-lab:") in _password_keys(config.get(LAB_KEY)):
            if not _is_secret(value):
                fix = f"remove it, and run ./lab secret STACK {key.removeprefix('cni-lab:')}, which encrypts it"
                yield Finding(shown_key(key), "a password", "is not encrypted", fix)
        elif key.startswith("cni-lab:") and key != LAB_KEY:
            yield Finding(shown_key(key), shown(value), "is an unknown key", f"did you mean {LAB_KEY}?")
    if LAB_KEY not in config:
        fix = f"add {LAB_KEY}: under config:, at least with machines: {{provider: local}}"
        yield Finding(LAB_KEY, "missing", "this key is required", fix)


def _password_keys(lab: object) -> set[str]:
    """The keys of the configuration that the lab's peers name for their passwords, also of a broken lab."""
    peers = value_at(lab, ("calico", "peers"))
    found = [value_at(peer, ("password", "config")) for peer in peers] if isinstance(peers, list) else []
    return {key for key in found if isinstance(key, str) and re.fullmatch(CONFIG_KEY, key)}


def _flatten(config: Mapping[str, object]) -> dict[str, str]:
    """Configuration as Pulumi gives it to a program: text, and objects as JSON. Encrypted values are left out."""
    plain = {key: _json_value(value, (), []) for key, value in config.items() if not _is_secret(value)}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in plain.items()}


def _lab(value: object, config: Mapping[str, str] | None, known: Sequence[Flaw]) -> tuple[Lab | None, list[Finding]]:
    """The lab, and every finding, including those of the `known` flaws.

    Broken values are removed or replaced by placeholders until the models accept the lab. Then the rules run, except
    those that read a broken key.
    """
    broken = list(known)
    rest = _json_value(value, (), broken)
    unreliable = {flaw.unreliable for flaw in broken}
    findings = [flaw.finding for flaw in broken if flaw.finding]
    lab = None
    for attempt in range(MAX_REPAIRS):
        # Strict validation of JSON accepts text for addresses and not for numbers, which is what a reader expects. Of
        # Python values it accepts neither.
        try:
            lab = Lab.model_validate_json(json.dumps(rest), strict=True)
            break
        except ValidationError as error:
            errors = error.errors(include_url=False)
            found = list(flaws(errors[:MAX_FINDINGS], rest))
        # Later attempts find what follows from the placeholders, but nodes are counted only when all else is right.
        new = [flaw for flaw in found if attempt == 0 or flaw.path in _COUNTS]
        findings += [flaw.finding for flaw in new if flaw.finding and flaw.path not in unreliable]
        unreliable |= {flaw.unreliable for flaw in found}
        paths = {flaw.path[:-1] if flaw.missing and not has_placeholder(flaw.path) else flaw.path for flaw in found}
        unreliable |= paths
        if () in paths or len(errors) > MAX_FINDINGS:
            break
        # From the end, so that the indices of the items still to be removed stay the same.
        for path in sorted(paths, key=lambda path: [(isinstance(part, str), part) for part in path], reverse=True):
            rest = with_placeholder(rest, path)
    if lab is not None:
        findings += islice(check(lab, config, unreliable), MAX_FINDINGS)
    return (None if findings else lab), findings


def _is_secret(value: object) -> bool:
    return isinstance(value, dict) and list(value) == ["secure"]


def _json_value(value: object, path: KeyPath, broken: list[Flaw]) -> Any:
    """`value` as JSON can hold it. A value that JSON cannot hold becomes null and is added to `broken`."""
    problem = None
    if _is_secret(value):
        problem = "a secret cannot be part of a lab: it would end up in files and pods that many can read"
        fix = "write the plain value, or remove it"
        if path[-1:] == ("password",):
            problem, fix = "a secret cannot be part of a lab", PASSWORD_FIX
    elif len(path) > MAX_DEPTH:
        problem, fix = f"is more than {MAX_DEPTH} levels deep", "remove it: nothing in a lab is that deep"
    elif isinstance(value, dict):
        found = {}
        for key, item in value.items():
            # A broken key stays, escaped: removing it could leave an empty mapping, which would be a second finding.
            name = str(key) if _is_text(str(key)) else shown_key(str(key))
            place = (*path, name)
            if name != str(key):
                broken.append(Flaw(Finding(dotted(place), shown(item), f"its key {_NOT_TEXT}", _REMOVE), place, place))
            found[name] = _json_value(item, place, broken)
        return found
    elif isinstance(value, list):
        return [_json_value(item, (*path, index), broken) for index, item in enumerate(value)]
    elif isinstance(value, str):
        if _is_text(value):
            return value
        problem, fix = _NOT_TEXT, _REMOVE
    elif isinstance(value, bool) or value is None:
        return value
    elif isinstance(value, int):
        if abs(value) < 1 << 63:
            return value
        problem, fix = "is too large for any key here", "write a smaller number"
    elif isinstance(value, float):
        if math.isfinite(value):
            return value
        problem, fix = "is not a finite number", "write a number"
    else:
        problem, fix = "is not text, a number, true, false, a list or a mapping", "write one of these"
    broken.append(Flaw(Finding(dotted(path), shown(value), problem, fix), path, path))
    return None


def _is_text(value: str) -> bool:
    """Whether it has no halves of surrogate pairs and no control characters except for line ends and tabs."""
    return all(c.isprintable() or c in "\n\t" or (ord(c) >= 0xA0 and not 0xD800 <= ord(c) < 0xE000) for c in value)
