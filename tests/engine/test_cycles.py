"""The search for cycles answers as the SDK's own, and does so for chains that the SDK cannot search."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any, cast

import pytest
from pulumi import Resource
from pulumi.runtime import resource_cycle_breaker as sdk

from engine import cycles


def declare(resource: object, dependency: object) -> None:
    cycles.add_dependency(cast(Resource, resource), cast(Resource, dependency))


class Stub:
    """What the search sees of a resource: an object that can have attributes."""


def answer_of_the_sdk(start: Any, end: Any) -> bool:
    return any(found is end for found in sdk._with_transitive_deps(start, set()))


@pytest.mark.parametrize("seed", range(20))
def test_the_answers_are_those_of_the_sdk(seed: int) -> None:
    draw = random.Random(seed)
    made: list[Any] = [Stub() for _ in range(12)]
    # Also cycles, which the SDK would have refused to declare.
    for _ in range(draw.randrange(25)):
        declare(*draw.sample(made, 2))
    for start in made:
        for end in made:
            assert cycles.reachable(start, end) == answer_of_the_sdk(start, end)


def test_a_chain_of_ten_thousand() -> None:
    made: list[Any] = [Stub() for _ in range(10_000)]
    for resource, dependency in pairwise(made):
        declare(resource, dependency)
    assert cycles.reachable(made[0], made[-1])
    assert not cycles.reachable(made[-1], made[0])
    with pytest.raises(RecursionError):
        answer_of_the_sdk(made[0], made[-1])


def test_the_sdk_uses_it() -> None:
    import engine.run  # noqa: F401

    assert (sdk._add_dep, sdk._reachable) == (cycles.add_dependency, cycles.reachable)
