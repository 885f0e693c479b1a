"""JSON schema of a stack file, from which editors complete: `python -m components.spec.schema` writes it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from components.spec.described import lab_schema
from components.spec.rules.machines import REGION

SCHEMA_FILE = Path(__file__).parents[2] / "stacks" / "schema.json"


def stack_file_schema() -> dict[str, Any]:
    """The schema of a whole stack file: the lab under `cni-lab:lab`, and the keys that Pulumi keeps beside it."""
    lab = _tidy(lab_schema())
    definitions = lab.pop("$defs")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "cni-lab stack file",
        "type": "object",
        "required": ["config"],
        "properties": {
            "config": {
                "description": "Configuration of the stack. Every key has the form namespace:key.",
                "type": "object",
                "required": ["cni-lab:lab"],
                "properties": {
                    "aws:region": {
                        "description": "AWS region. Needed if machines.provider is aws.",
                        "type": "string",
                        "pattern": f"^{REGION.pattern}$",
                    },
                    "cni-lab:lab": {"$ref": "#/$defs/Lab"},
                },
                # Passwords that calico.peers name, encrypted.
                "patternProperties": {
                    "^cni-lab:(?!lab$)": {
                        "type": "object",
                        "required": ["secure"],
                        "additionalProperties": False,
                        "properties": {"secure": {"type": "string"}},
                    }
                },
                "propertyNames": {"pattern": "^.+:.+$"},
            },
            "encryptionsalt": {
                "description": "Pulumi's own key: the passphrase's salt.",
                "type": "string",
            },
            "secretsprovider": {"description": "Pulumi's own key: who encrypts the secrets.", "type": "string"},
            "encryptedkey": {"description": "Pulumi's own key: the stack's encrypted key.", "type": "string"},
            "environment": {"description": "Pulumi's own key: the environments from which configuration is taken."},
        },
        "additionalProperties": False,
        "$defs": {**definitions, "Lab": lab},
    }


# JSON schema has no format for these two.
_BYTE = r"(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_ADDRESS, _PREFIX = rf"{_BYTE}(\.{_BYTE}){{3}}", r"/(3[0-2]|[12]?[0-9])"
_PATTERNS = {"ipv4network": f"^{_ADDRESS}{_PREFIX}$", "ipv4interface": f"^{_ADDRESS}({_PREFIX})?$"}


def _tidy(schema: Any) -> Any:
    """The schema without titles (they only repeat the keys), with patterns for networks and one-line descriptions."""
    if isinstance(schema, list):
        return [_tidy(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    tidy = {key: _tidy(value) for key, value in schema.items() if not (key == "title" and isinstance(value, str))}
    if pattern := _PATTERNS.get(str(tidy.get("format"))):
        del tidy["format"]
        tidy["pattern"] = pattern
    if isinstance(description := tidy.get("description"), str):
        tidy["description"] = " ".join(description.split())
    return tidy


def render() -> str:
    """The text of stacks/schema.json."""
    return json.dumps(stack_file_schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(render(), encoding="utf-8")
