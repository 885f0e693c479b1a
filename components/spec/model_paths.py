"""What the models say of a path: the type of the value there, and the keys that a mapping may have."""

from __future__ import annotations

import json
import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError

from components.spec.keypath import KeyPath, value_at
from components.spec.models import Lab


def known_keys(raw: object, path: KeyPath) -> list[str]:
    """The keys that the mapping at `path` may have."""
    model = bare(annotation_at(raw, path))
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return []
    return [field.alias or name for name, field in model.model_fields.items()]


def annotation_at(raw: object, path: KeyPath) -> Any:
    """The type that the models give to the value at `path`, or None. `raw` decides which member of a union it is."""
    found: Any = Lab
    for depth, part in enumerate(path):
        found = _inside(found, part)
        if (members := union_members(found)) and depth + 1 <= len(path):
            found = members.get(str(_tag(value_at(raw, path[: depth + 1]))), found)
    return found


def _inside(annotation: Any, part: str | int) -> Any:
    annotation = bare(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = {field.alias or name: field for name, field in annotation.model_fields.items()}
        return fields[part].annotation if part in fields else None
    arguments = get_args(annotation)
    match get_origin(annotation):
        case origin if origin is tuple:
            return arguments[0]
        case origin if origin is dict:
            return arguments[1]
    return None


def bare(annotation: Any) -> Any:
    """The type without Annotated and without None."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
            continue
        if get_origin(annotation) in (Union, types.UnionType):
            rest = [a for a in get_args(annotation) if a is not types.NoneType]
            if len(rest) == 1:
                annotation = rest[0]
                continue
        return annotation


def union_members(annotation: Any) -> dict[str, Any]:
    """The models of a tagged union, by their tag. Empty for any other type."""
    union = bare(annotation)
    if get_origin(union) not in (Union, types.UnionType):
        return {}
    found = {}
    for model in get_args(union):
        for name in ("provider", "type"):
            if name in model.model_fields and get_origin(literal := model.model_fields[name].annotation) is Literal:
                found[str(get_args(literal)[0])] = model
    return found


def _tag(value: object) -> object:
    return value.get("provider", value.get("type")) if isinstance(value, dict) else None


def tags_at(raw: object, path: KeyPath) -> list[str]:
    """The tags of the union at `path`."""
    return list(union_members(annotation_at(raw, path)))


def every_key() -> Iterator[tuple[str, str]]:
    """Every key of the models with its place, e.g. ("gateway", "networks[].ipam.gateway")."""
    yield from _keys_below(Lab, "")


def _keys_below(annotation: Any, place: str) -> Iterator[tuple[str, str]]:
    annotation = bare(annotation)
    if members := union_members(annotation):
        for member in members.values():
            yield from _keys_below(member, place)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            key = field.alias or name
            inner = f"{place}.{key}".removeprefix(".")
            yield key, inner
            yield from _keys_below(field.annotation, inner)
    elif get_origin(annotation) is tuple:
        yield from _keys_below(get_args(annotation)[0], f"{place}[]")


def has_shape_of(annotation: Any, value: object) -> bool:
    """Whether the value has the shape that the type needs: a mapping, a list, or neither."""
    annotation = bare(annotation)
    if get_origin(annotation) is tuple:
        return isinstance(value, list)
    is_model = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    if is_model or get_origin(annotation) is dict or union_members(annotation):
        return isinstance(value, dict)
    return not isinstance(value, dict | list)


def accepts(annotation: Any, value: object) -> bool:
    """Whether a text, number or boolean in the file has the type. Patterns of texts are not checked."""
    if annotation is None or isinstance(value, dict | list):
        return False
    try:
        TypeAdapter(annotation).validate_json(json.dumps(value), strict=True)
    except ValidationError:
        return False
    return True
