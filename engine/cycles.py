"""The SDK's question whether a dependency would close a cycle, answered without recursion.

The SDK asks it for every dependency of every resource. It searches with nested generators, so along a chain of n
resources one question takes n² steps, and more than about 900 exceed Python's recursion limit. A lab has such a chain,
because its nodes are upgraded one after the other: at 100 nodes the searches were a third of a plan's time.
"""

from __future__ import annotations

from pulumi import Resource
from pulumi.runtime import resource_cycle_breaker

_DEPENDENCIES: str = resource_cycle_breaker._DEPENDENCIES_PROPERTY


def reachable(from_resource: Resource, to_resource: Resource) -> bool:
    """Whether a chain of declared dependencies, perhaps an empty one, leads from one resource to the other."""
    seen, left = {from_resource}, [from_resource]
    while left:
        resource = left.pop()
        if resource is to_resource:
            return True
        for dependency in vars(resource).get(_DEPENDENCIES, ()):
            if dependency not in seen:
                seen.add(dependency)
                left.append(dependency)
    return False


def install() -> None:
    """Let the SDK in this process search in this way."""
    resource_cycle_breaker._reachable = reachable
