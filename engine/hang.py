"""Explains a program that does not end: what it had registered, and which resource waits for which."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import CoroutineType, FrameType
from typing import Any

import pulumi

from engine.model import STACK_TYPE, Resource

_LAST_REGISTERED = 10
_LINES_OF_WAITS = 40


def report(resources: Sequence[Resource], tasks: set[asyncio.Task[Any]]) -> str:
    """Lines for a person: how many resources were registered, the last of them, and what each other one waits for."""
    registered = [resource for resource in resources if resource.type != STACK_TYPE]
    last = ", ".join(f"{resource.name} ({resource.type})" for resource in registered[-_LAST_REGISTERED:])
    lines = [f"  {len(registered)} resources were registered" + (f", the last of them {last}" if last else "")]
    waits = list(_waits(tasks))
    lines += [f"  {wait}" for wait in waits[:_LINES_OF_WAITS]]
    if len(waits) > _LINES_OF_WAITS:
        lines.append(f"  and {len(waits) - _LINES_OF_WAITS} more wait")
    return "\n".join(lines)


def program_line(frame: FrameType | None) -> str | None:
    """FILE:LINE of the innermost frame that is the program's own code."""
    while frame is not None:
        name = frame.f_code.co_filename
        if not is_machinery(name) and not name.startswith(sys.base_prefix + "/lib"):
            return f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return None


def is_machinery(filename: str) -> bool:
    """Whether a frame of this file belongs to the engine, the SDK or Python, and not to the program."""
    ours = Path(filename).parent == Path(__file__).parent
    return ours or filename.startswith("<") or "site-packages" in filename or "asyncio" in filename


def _waits(tasks: set[asyncio.Task[Any]]) -> Iterator[str]:
    """One line for each unfinished registration: what it waits for.

    The SDK keeps no record of that, so it is read from its suspended coroutines. Each registration is a coroutine
    `do_register` with the resource in its closure. What it waits for is, through any number of applies, the promise
    behind another resource's output.
    """
    pending: dict[asyncio.Task[Any], pulumi.Resource] = {}
    for task in tasks:
        coroutine = task.get_coro()
        if isinstance(coroutine, CoroutineType) and coroutine.__name__ == "do_register" and coroutine.cr_frame:
            pending[task] = coroutine.cr_frame.f_locals["res"]
    promises = {
        id(value._data): f"{resource._name}.{key}"
        for resource in pending.values()
        for key, value in vars(resource).items()
        if isinstance(value, pulumi.Output)
    }
    for task, resource in sorted(pending.items(), key=lambda item: (item[1]._type, item[1]._name)):
        waits_for = sorted(set(_roots(task, promises, set()))) or ["the engine's answer"]
        yield f"{resource._name} ({resource._type}) waits for {', '.join(waits_for)}"


def _roots(future: Any, promises: Mapping[int, str], seen: set[int]) -> Iterator[str]:
    """The names of the promises at the end of a chain of futures."""
    if future is None or future.done() or id(future) in seen:
        return
    seen.add(id(future))
    if id(future) in promises:
        yield promises[id(future)]
    elif isinstance(future, asyncio.Task):
        yield from _roots(getattr(future, "_fut_waiter", None), promises, seen)
    elif children := getattr(future, "_children", None):  # asyncio.gather
        for child in children:
            yield from _roots(child, promises, seen)
    else:
        yield "a future that nothing resolves"
