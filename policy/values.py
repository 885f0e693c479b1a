"""Values among a resource's inputs: what is unknown or secret, and how the rules read the rest."""

from __future__ import annotations

import base64
import binascii
import gzip
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

UNKNOWN = "<known after up>"
"""Stands in a plan for a value that is not known before `up`."""
SECRET = "<secret>"
"""Stands in a plan for a secret."""


def is_known(value: Any) -> bool:
    return bool(value != UNKNOWN)


def shown(value: Any) -> str:
    """A number or text as a message shows it. Over the wire whole numbers come as floats."""
    return "missing" if value is None else str(int(value) if isinstance(value, float) else value)


def mapping(value: Any) -> Mapping[str, Any]:
    """The value itself, or an empty mapping if it is not one."""
    return value if isinstance(value, Mapping) else {}


def sequence(value: Any) -> Sequence[Any]:
    """A list as it is, and a single value as a list of one. Empty if there is no value or it is not known."""
    if value is None or value == UNKNOWN:
        return ()
    return (value,) if isinstance(value, str | Mapping) else tuple(value)


def decoded(text: str) -> str:
    """The text behind base64, and behind gzip inside it. Text that is not encoded is returned as it is."""
    try:
        data = base64.b64decode(text, validate=True)
        return (gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data).decode("utf-8", "replace")
    except (binascii.Error, ValueError, OSError, EOFError, zlib.error):
        return text
