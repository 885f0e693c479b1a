"""Which leaves of two values differ, by their paths, such as `spec.pools[0].cidr`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any


def different(before: Any, after: Any) -> dict[str, tuple[Any, Any]]:
    """The old and the new value of each leaf that differs, by path; None where there is no such leaf."""
    old, new = dict(leaves(before)), dict(leaves(after))
    return {path: (old.get(path), new.get(path)) for path in {**old, **new} if old.get(path) != new.get(path)}


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}[{index}]")
    else:
        yield path, value


def top_level(paths: Sequence[str]) -> list[str]:
    """Each path without the index that follows, once: triggers[0] and triggers[3] are both triggers."""
    return list(dict.fromkeys(path.partition("[")[0] for path in paths))
