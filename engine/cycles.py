"""The SDK's question whether a dependency would close a cycle, answered without recursion and from the other end.

The SDK asks it for every dependency of every resource, and searches with nested generators from the dependency. Along a
chain of n resources one question takes n² steps, and more than about 900 exceed Python's recursion limit. A lab has
such a chain, because its nodes are upgraded one after the other: at 100 nodes the searches were a third of a plan.

Here the search starts at the resource that gets the dependency. Nearly always nothing depends on it yet, because it is
being made.
"""

from __future__ import annotations

from pulumi import Resource
from pulumi.runtime import resource_cycle_breaker

_DEPENDENCIES: str = resource_cycle_breaker._DEPENDENCIES_PROPERTY
_DEPENDENTS = "_direct_dependents"
"""The attribute with the resources that depend on a resource, as the SDK's has those that it depends on."""


def add_dependency(from_resource: Resource, to_resource: Resource) -> None:
    """Remember that one resource depends on the other."""
    vars(from_resource).setdefault(_DEPENDENCIES, set()).add(to_resource)
    vars(to_resource).setdefault(_DEPENDENTS, set()).add(from_resource)


def reachable(from_resource: Resource, to_resource: Resource) -> bool:
    """Whether a chain of declared dependencies, perhaps an empty one, leads from one resource to the other."""
    seen, left = {to_resource}, [to_resource]
    while left:
        resource = left.pop()
        if resource is from_resource:
            return True
        for dependent in vars(resource).get(_DEPENDENTS, ()):
            if dependent not in seen:
                seen.add(dependent)
                left.append(dependent)
    return False


def install() -> None:
    """Let the SDK in this process remember and search in this way."""
    resource_cycle_breaker._add_dep = add_dependency
    resource_cycle_breaker._reachable = reachable
