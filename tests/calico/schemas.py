"""The CRDs of a Calico and Multus release as closed JSON schemas, in which an unknown field is an error."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

CALICO_FILES = ("v1_crd_projectcalico_org.yaml", "v3_projectcalico_org.yaml")


def upstream(*parts: str) -> Path:
    """A file of the upstream folder. Skips the test if there is none."""
    folder = os.environ.get("CNILAB_UPSTREAM")
    if not folder:
        pytest.skip("CNILAB_UPSTREAM is not set: the folder that holds calico-v3.32.1/ and multus-v4.3.0/")
    path = Path(folder, *parts)
    assert path.is_file(), f"CNILAB_UPSTREAM has no {'/'.join(parts)}"
    return path


@cache
def _documents(path: Path) -> list[dict[str, Any]]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [d for d in yaml.load_all(path.read_text(), loader) if d]


def definitions() -> list[dict[str, Any]]:
    """Every CustomResourceDefinition of the releases."""
    paths = [upstream("calico-v3.32.1", name) for name in CALICO_FILES]
    paths.append(upstream("multus-v4.3.0", "multus-daemonset.yml"))
    return [d for path in paths for d in _documents(path) if d["kind"] == "CustomResourceDefinition"]


def objects(*parts: str) -> list[dict[str, Any]]:
    """Every document of an upstream file."""
    return _documents(upstream(*parts))


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not open_ended:
        closed["additionalProperties"] = False
    return closed


@cache
def _schemas() -> dict[tuple[str, str], dict[str, Any]]:
    found = {}
    for definition in definitions():
        spec = definition["spec"]
        for version in spec["versions"]:
            schema = _closed(version["schema"]["openAPIV3Schema"])
            # The API server checks the metadata.
            schema["properties"]["metadata"] = {"type": "object", "required": ["name"]}
            found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


def check(manifest: dict[str, Any]) -> None:
    """Raises jsonschema.ValidationError if the object does not match its CRD, and KeyError if it has none."""
    # jsonschema.validate would refuse the CRDs' patterns, which are regular expressions of Go.
    jsonschema.Draft202012Validator(_schemas()[manifest["apiVersion"], manifest["kind"]]).validate(manifest)
