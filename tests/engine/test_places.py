"""A resource's place in the program is the SDK's own answer."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest
from pulumi.runtime import resource as sdk

from engine import places


def sdk_s_answer() -> Callable[[], Any]:
    """The SDK's function as it is before `install`, from a second copy of its module."""
    spec = importlib.util.find_spec(sdk.__name__)
    assert spec and spec.loader
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    found: Callable[[], Any] = fresh._get_stack_trace
    return found


class Resource:
    def __init__(self, ask: Callable[[], Any]) -> None:
        self.register(ask)

    def register(self, ask: Callable[[], Any]) -> None:
        self.answer = ask()


class CustomResource(Resource):
    def __init__(self, ask: Callable[[], Any]) -> None:
        super().__init__(ask)


class Instance(CustomResource):
    def __init__(self, ask: Callable[[], Any]) -> None:
        self._internal_init(ask)

    def _internal_init(self, ask: Callable[[], Any]) -> None:
        super().__init__(ask)


class Component(CustomResource):
    def __init__(self, ask: Callable[[], Any]) -> None:
        super().__init__(ask)
        self.inner = Instance(ask)


@pytest.mark.parametrize("kind", [Instance, Component])
def test_the_place_is_the_sdk_s(kind: type[Any]) -> None:
    theirs, ours = [kind(ask) for ask in (sdk_s_answer(), places.stack_trace)]
    assert ours.answer.frames[0].pc.uri.endswith("/tests/engine/test_places.py")
    assert ours.answer.frames[0] == theirs.answer.frames[0]
    if kind is Component:
        assert ours.inner.answer.frames[0] == theirs.inner.answer.frames[0]


def test_a_program_without_a_file() -> None:
    found: dict[str, Any] = {"Instance": Instance}
    for name, ask in (("theirs", sdk_s_answer()), ("ours", places.stack_trace)):
        exec(compile(f"{name} = Instance(ask).answer.frames[0]", "<string>", "exec"), found | {"ask": ask}, found)
    assert found["ours"] == found["theirs"]
    assert not found["ours"].HasField("pc")


def test_the_sdk_uses_it() -> None:
    import engine.run  # noqa: F401

    assert sdk._get_stack_trace is places.stack_trace
