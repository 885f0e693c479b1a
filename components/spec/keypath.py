"""Paths to the values of a lab, and the two ways to write them."""

from __future__ import annotations

from typing import Any

from components.spec.findings import shown_key

KeyPath = tuple[str | int, ...]
"""The place of a value in the lab, e.g. ("nodes", 2, "address"); () is the lab itself."""


def dotted(path: KeyPath) -> str:
    """`("nodes", 2, "address")` as `nodes[2].address`, never shortened; the lab itself is `cni-lab:lab`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{shown_key(part)}" for part in path)
    return text.removeprefix(".") or "cni-lab:lab"


def pattern_of(path: KeyPath) -> str:
    """The path with `[]` for every list index, as rules name the keys that they read: `nodes[].address`."""
    return "".join("[]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def value_at(raw: object, path: KeyPath) -> Any:
    """The value at `path` of the stack file, or None."""
    for part in path:
        try:
            raw = raw[part]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return None
    return raw
