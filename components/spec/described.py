"""The JSON schema of the lab with a description of every key, which is the docstring below the field in the models.

pydantic can read these docstrings itself (`use_attribute_docstrings`), but then it parses the source of each model
whenever the model is imported. Every command would pay for it, and only the schema and the reference need descriptions.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from components.spec.models import Lab
from components.spec.models.base import Model


def lab_schema() -> dict[str, Any]:
    """The JSON schema of the mapping under `cni-lab:lab`."""
    return Lab.model_json_schema(mode="validation", schema_generator=_WithDescriptions)


class _WithDescriptions(GenerateJsonSchema):
    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        found = super().model_schema(schema)
        model = schema["cls"]
        descriptions = _descriptions(model)
        for name, field in model.model_fields.items():
            if name in descriptions:
                found["properties"][field.alias or name]["description"] = descriptions[name]
        return found


def _descriptions(model: type[Model]) -> Mapping[str, str]:
    """The docstring of each field of a model, its own and inherited, by the field's name in Python."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, Model):
            found |= _docstrings(base.__module__).get(base.__name__, {})
    return found


@cache
def _docstrings(module: str) -> Mapping[str, Mapping[str, str]]:
    """The docstring of each field of each class in a module."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: dict(_fields(node)) for node in tree.body if isinstance(node, ast.ClassDef)}


def _fields(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for statement, following in zip(node.body, node.body[1:], strict=False):
        match statement, following:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as text)):
                yield name, inspect.cleandoc(text)
