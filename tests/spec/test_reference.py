"""docs/reference.md is current, and says something about every key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from components.spec.described import lab_schema
from components.spec.document import read_document
from components.spec.load import LAB_KEY
from components.spec.reference import REFERENCE_FILE, render
from tests.support.graphs import ROOT, STACKS


def test_the_page_is_current() -> None:
    """`python -m components.spec.reference` writes it anew."""
    assert REFERENCE_FILE.read_text(encoding="utf-8") == render()


def rows() -> Iterator[tuple[str, list[str]]]:
    """Each section's path, and the cells of each of its keys."""
    path = ""
    for line in render().splitlines():
        if line.startswith("## "):
            path = found[1] if (found := re.match(r"## `([^`]+)`", line)) else ""
        elif line.startswith("| `"):
            yield path, [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_every_key_of_every_model_has_a_row_with_a_meaning() -> None:
    schema = lab_schema()
    models = [schema, *(found for found in schema["$defs"].values() if "properties" in found)]
    keys = {key for found in models for key in found["properties"]}
    shown = {cells[0].strip("`") for _, cells in rows()}
    assert keys == shown
    for path, (key, kind, _, meaning) in rows():
        assert len(meaning) > 5 and kind, f"{path}.{key} needs a description in components/spec/models"


def keys_of(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from keys_of(item, f"{path}[]")
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield f"{path}.{key}" if path else key
            yield from keys_of(inner, f"{path}.{key}" if path else key)


@pytest.mark.parametrize("stack", STACKS)
def test_every_key_of_a_shipped_stack_is_in_it(stack: str) -> None:
    document, _, _ = read_document(ROOT / "stacks" / f"Pulumi.{stack}.yaml")
    shown = {f"{path}.{cells[0]}" if path else cells[0] for path, cells in ((p, [c[0].strip("`")]) for p, c in rows())}
    free = re.compile(r"(labels|annotations|nodeSelector|subnets|zones|requests|limits|sha256)\.")
    config: Any = document["config"]
    for key in keys_of(config[LAB_KEY], ""):
        assert key in shown or free.search(key), key
