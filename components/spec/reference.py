"""docs/reference.md: every key of the stack file, from the models. `python -m components.spec.reference` writes it.

The descriptions are the models' docstrings, which are also those of stacks/schema.json.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.spec.described import lab_schema

REFERENCE_FILE = Path(__file__).parents[2] / "docs" / "reference.md"
_HEAD = """\
# Reference of the stack file

<!-- Written by `python -m components.spec.reference` from components/spec/models. Do not edit it by hand. -->

A stack file is `stacks/Pulumi.STACK.yaml`. Its lab is under `config` → `cni-lab:lab`; the keys below are those of the
lab. Only `machines` is required. On EC2 `config` also has `aws:region`. Unknown keys are refused, and so are values
that cannot work together; every finding names the key, the value and the fix.

```yaml
# yaml-language-server: $schema=schema.json
config:
  aws:region: us-west-2 # on EC2
  cni-lab:lab:
    machines: {provider: aws, operatorCidrs: [203.0.113.7/32]}
    calico:
      pools:
        - {name: default-ipv4-ippool, cidr: 10.244.0.0/16, blockSize: 26, encapsulation: VXLAN}
```

`calico.pools[]` means each entry of the list `pools` in `calico`. Addresses are IPv4. A range is written as
`10.244.0.0/16`.
"""
_FORMATS = {
    "ipv4": "an address",
    "ipv4network": "a range",
    "ipv4interface": "an address with its prefix length",
}


@dataclass(frozen=True)
class _Section:
    """A model at its place in the file. `path`: from the lab; `remark`: which of several models it is."""

    path: str
    remark: str
    model: Mapping[str, Any]


def render() -> str:
    """The text of docs/reference.md."""
    schema = lab_schema()
    definitions: Mapping[str, Any] = schema["$defs"]
    lines = [_HEAD]
    for section in _sections(_Section("", "", schema), definitions):
        title = f"`{section.path}`" if section.path else "The lab"
        lines.append(f"## {title}{f', {section.remark}' if section.remark else ''}\n")
        description = section.model.get("description")
        if description and section.path:
            lines.append(f"{_text(description)}\n")
        lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
        lines += [_row(key, value, section, definitions) for key, value in section.model["properties"].items()]
        lines.append("")
    return "\n".join(lines)


def _sections(section: _Section, definitions: Mapping[str, Any]) -> Iterator[_Section]:
    """The section and those of the models below it, in the order of the keys."""
    yield section
    for key, value in section.model["properties"].items():
        path = f"{section.path}.{key}" if section.path else key
        for suffix, name, remark in _models(value, definitions):
            yield from _sections(_Section(f"{path}{suffix}", remark, definitions[name]), definitions)


def _models(value: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """The models that a key may hold: what to add to its path, the model's name, and how to tell it from the others."""
    if "$ref" in value:
        name = value["$ref"].rpartition("/")[2]
        if "properties" in definitions[name]:
            yield "", name, ""
    elif "discriminator" in value:
        mapping = value["discriminator"]["mapping"]
        for word, ref in mapping.items():
            yield "", ref.rpartition("/")[2], f"`{value['discriminator']['propertyName']}: {word}`"
    elif "items" in value:
        for suffix, name, remark in _models(value["items"], definitions):
            yield f"[]{suffix}", name, remark
    elif isinstance(value.get("additionalProperties"), dict):
        for suffix, name, remark in _models(value["additionalProperties"], definitions):
            yield f".NAME{suffix}", name, remark
    else:
        for option in (*value.get("anyOf", ()), *value.get("oneOf", ())):
            yield from _models(option, definitions)


def _row(key: str, value: Mapping[str, Any], section: _Section, definitions: Mapping[str, Any]) -> str:
    kind = _kind(value, definitions)
    default = "**required**" if key in section.model.get("required", ()) else _default(value)
    return f"| `{key}` | {_cell(kind)} | {_cell(default)} | {_cell(_text(value.get('description', '')))} |"


def _default(value: Mapping[str, Any]) -> str:
    """The default, where it is a plain value. Elsewhere the meaning names it."""
    if "const" in value:
        return ""
    default = value.get("default")
    if default is None or default in ([], {}, "") or isinstance(default, dict):
        return ""
    if isinstance(default, list) and any(isinstance(item, dict) for item in default):
        return ""
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


def _kind(value: Mapping[str, Any], definitions: Mapping[str, Any]) -> str:
    """Which values it may have, in words."""
    if "$ref" in value:
        found = definitions[value["$ref"].rpartition("/")[2]]
        return "a mapping, below" if "properties" in found else _kind(found, definitions)
    if "discriminator" in value:
        return "a mapping, below"
    if "const" in value:
        return f"`{value['const']}`"
    if "enum" in value:
        *words, last = [f"`{word}`" for word in value["enum"]]
        return f"{', '.join(words)} or {last}" if words else last
    if options := [it for it in (*value.get("anyOf", ()), *value.get("oneOf", ())) if it.get("type") != "null"]:
        return " or ".join(dict.fromkeys(_kind(option, definitions) for option in options))
    match value.get("type"):
        case "array":
            return _list(_kind(value.get("items", {}), definitions))
        case "object" if values := _values(value):
            plural = {"an address": "addresses", "a range": "ranges"}
            inner = _kind(values, definitions)
            return f"a mapping of names to {plural.get(inner, inner)}"
        case "object":
            return "a mapping"
        case "boolean":
            return "`true` or `false`"
        case "integer" | "number":
            return _number(value)
    return _FORMATS.get(str(value.get("format")), "text")


def _values(value: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The schema of the values of a mapping whose keys are names."""
    for found in (value.get("additionalProperties"), *value.get("patternProperties", {}).values()):
        if isinstance(found, dict):
            return found
    return None


def _list(inner: str) -> str:
    if inner == "a mapping, below":
        return "a list of mappings, below"
    plural = {"an address": "addresses", "a range": "ranges", "text": "texts"}
    return f"a list of {plural.get(inner, inner)}"


def _number(value: Mapping[str, Any]) -> str:
    low, high = value.get("minimum"), value.get("maximum")
    if low is not None and high is not None:
        return f"{low} to {high}"
    if low is not None:
        return f"a number from {low}"
    if value.get("exclusiveMinimum") == 0:
        return "a number above 0"
    return "a number"


def _text(text: str) -> str:
    return " ".join(text.split())


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    REFERENCE_FILE.write_text(render(), encoding="utf-8")
