"""Property values as protobuf structs, where a signature key marks secrets, outputs, resources and assets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from google.protobuf import json_format, struct_pb2  # type: ignore[import-untyped]
from pulumi.runtime import rpc

from engine.model import SECRET, UNKNOWN, Json


def to_struct(value: Mapping[str, Any]) -> struct_pb2.Struct:
    return json_format.ParseDict(dict(value), struct_pb2.Struct())


def to_value(value: Any) -> struct_pb2.Value:
    return json_format.ParseDict(value, struct_pb2.Value())


def is_secret(value: struct_pb2.Value) -> bool:
    return _signature(value.struct_value) == rpc._special_secret_sig


def as_secret(value: struct_pb2.Value) -> struct_pb2.Value:
    """The same value, marked as a secret."""
    marked = struct_pb2.Value()
    fields = marked.struct_value.fields
    fields[rpc._special_sig_key].string_value = rpc._special_secret_sig
    fields["value"].CopyFrom(value)
    return marked


def masked(struct: struct_pb2.Struct) -> Json:
    """The values for people to read: UNKNOWN and SECRET stand in for unknown and secret leaves."""
    return cast(Json, _from_struct(struct, mask=True))


def plain(struct: struct_pb2.Struct) -> Json:
    """The values as a provider gets them: secrets in clear."""
    return cast(Json, _from_struct(struct, mask=False))


def _signature(struct: struct_pb2.Struct) -> str | None:
    fields = struct.fields
    return fields[rpc._special_sig_key].string_value if rpc._special_sig_key in fields else None


def _from_struct(struct: struct_pb2.Struct, mask: bool) -> Any:
    signature = _signature(struct)
    if signature is None:
        return {key: _from_value(struct.fields[key], mask) for key in sorted(struct.fields)}
    fields = struct.fields
    if signature == rpc._special_secret_sig:
        return SECRET if mask else _from_value(fields["value"], mask)
    if signature == rpc._special_output_value_sig:
        if mask and fields["secret"].bool_value:
            return SECRET
        return _from_value(fields["value"], mask) if "value" in fields else UNKNOWN
    if signature == rpc._special_resource_sig:
        return fields["urn"].string_value
    # An asset or an archive: its path, text, uri or parts.
    return {key: _from_value(fields[key], mask) for key in sorted(fields) if key != rpc._special_sig_key}


def _from_value(value: struct_pb2.Value, mask: bool) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return UNKNOWN if value.string_value == rpc.UNKNOWN else value.string_value
    if kind == "struct_value":
        return _from_struct(value.struct_value, mask)
    if kind == "list_value":
        return [_from_value(item, mask) for item in value.list_value.values]
    if kind == "number_value":  # protobuf has only doubles
        return int(value.number_value) if value.number_value.is_integer() else value.number_value
    return value.bool_value if kind == "bool_value" else None
