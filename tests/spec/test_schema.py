"""stacks/schema.json is up to date, accepts what the models accept, and refuses plain mistakes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from jsonschema import Draft202012Validator

from components.spec.schema import SCHEMA_FILE, render, stack_file_schema
from tests.strategies import CONFIG, labs
from tests.support.examples import examples

ROOT = Path(__file__).parents[2]
STACKS = sorted((ROOT / "stacks").glob("Pulumi.*.yaml"))
VALIDATOR = Draft202012Validator(stack_file_schema())


def test_the_committed_file_is_up_to_date() -> None:
    assert SCHEMA_FILE == ROOT / "stacks" / "schema.json"
    assert SCHEMA_FILE.read_text(encoding="utf-8") == render(), "run python -m components.spec.schema"


def test_it_is_a_json_schema() -> None:
    Draft202012Validator.check_schema(stack_file_schema())


def test_the_stacks_that_ship() -> None:
    names = [path.name.removeprefix("Pulumi.").removesuffix(".yaml") for path in STACKS]
    assert names == ["cfos-egress", "components", "cross-node", "local", "nightly", "packet-life"]


@pytest.mark.parametrize("path", STACKS, ids=lambda path: path.name)
def test_a_shipped_stack_is_valid(path: Path) -> None:
    VALIDATOR.validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    # Editors find the schema by this line.
    assert path.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=schema.json\n")


@examples(40)
@given(labs())
def test_a_lab_that_the_models_accept_is_valid(raw: dict[str, Any]) -> None:
    VALIDATOR.validate({"config": {**CONFIG, "cni-lab:lab": raw}})


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"config": {}},
        {"config": {"cni-lab:lab": {}}},
        {"config": {"cni-lab:lab": {"machines": {"provider": "lokal"}}}},
        {"config": {"cni-lab:lab": {"machines": {"provider": "local", "engin": "docker"}}}},
        {"config": {"cni-lab:lab": {"machines": {"provider": "local"}, "network": {"vpcCidr": "10.0.0.0/33"}}}},
        {"config": {"cni-lab:lab": {"machines": {"provider": "local"}, "nodes": []}}},
        {"config": {"cni-lab:lap": {}, "cni-lab:lab": {"machines": {"provider": "local"}}}},
        {"config": {"aws:region": "Oregon", "cni-lab:lab": {"machines": {"provider": "local"}}}},
        {"confg": {}, "config": {"cni-lab:lab": {"machines": {"provider": "local"}}}},
    ],
)
def test_a_mistake_is_refused(document: Any) -> None:
    assert not VALIDATOR.is_valid(document)


def test_pulumis_own_keys_are_allowed() -> None:
    VALIDATOR.validate(
        {
            "secretsprovider": "passphrase",
            "encryptionsalt": "v1:abc=",
            "config": {"aws:secretKey": {"secure": "v1:abc="}, "cni-lab:lab": {"machines": {"provider": "local"}}},
        }
    )


def test_every_key_has_a_description() -> None:
    definitions = stack_file_schema()["$defs"]
    assert "may reach SSH" in definitions["AwsMachines"]["properties"]["operatorCidrs"]["description"]
    assert definitions["Lab"]["description"] == "One Kubernetes networking lab."
    bare = [
        f"{name}.{key}"
        for name, body in definitions.items()
        for key, schema in body.get("properties", {}).items()
        if "description" not in schema and "const" not in schema
    ]
    assert not bare, "these keys in components/spec/models have no docstring"


def test_no_definition_is_missing_or_unused() -> None:
    """Every reference leads to a definition, and every definition is referred to."""
    text = json.dumps(stack_file_schema())
    for name in stack_file_schema()["$defs"]:
        assert f'"#/$defs/{name}"' in text
