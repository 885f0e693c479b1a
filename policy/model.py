"""What a policy is made of: the resources it sees, its rules, and their violations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from components.spec.names import AWS_MACHINES
from policy.values import mapping, sequence

Settings = Mapping[str, Any]
"""The settings of one rule, e.g. {"allowed": ["t3.*"]}."""


@dataclass(frozen=True)
class PlannedResource:
    """A resource as the rules see it.

    `props`: its inputs, with pulumi's camelCase keys. A leaf that is not known yet is UNKNOWN. A secret leaf is SECRET,
    if the caller knows that it is one.
    """

    type: str
    name: str
    props: Mapping[str, Any]
    urn: str = ""

    @property
    def is_node(self) -> bool:
        """Whether it belongs to the component whose instances are the lab's Kubernetes nodes."""
        return AWS_MACHINES in self.within

    @cached_property
    def within(self) -> tuple[str, ...]:
        """The types of the components around it, the outermost first."""
        parts = self.urn.split("::")
        return tuple(parts[2].split("$")[:-1]) if len(parts) > 2 else ()

    def mapping(self, key: str) -> Mapping[str, Any]:
        """The mapping at a key of the inputs. Empty if there is none."""
        return mapping(self.props.get(key))

    def mappings(self, key: str) -> list[Mapping[str, Any]]:
        """The mappings in the list at a key of the inputs. Empty if there is none. Unknown items are left out."""
        return [item for item in sequence(self.props.get(key)) if isinstance(item, Mapping)]


@dataclass(frozen=True)
class PolicyRule:
    """A rule that every stack keeps to.

    `check` judges one resource and yields a message for each violation. `check_stack` judges all resources together and
    names the resource beside each message. A rule has one of the two. `defaults` are its settings; `config.json` and
    the engine's --policy-pack-config override them.
    """

    name: str
    description: str
    fix: str
    check: Callable[[PlannedResource, Settings], Iterator[str]] | None = None
    check_stack: Callable[[Sequence[PlannedResource], Settings], Iterator[tuple[PlannedResource, str]]] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def run(self, resources: Sequence[PlannedResource], settings: Settings) -> Iterator[tuple[PlannedResource, str]]:
        """The resource and the message of every violation in a stack."""
        settings = {**self.defaults, **settings}
        if self.check_stack:
            yield from self.check_stack(resources, settings)
        for resource in resources if self.check else ():
            assert self.check
            yield from ((resource, message) for message in self.check(resource, settings))


@dataclass(frozen=True)
class Violation:
    """One resource that breaks one rule. As text: the resource, what is wrong, and the fix."""

    rule: PolicyRule
    resource: PlannedResource
    message: str
    mandatory: bool = True

    def __str__(self) -> str:
        return f"{self.resource.name}: {self.message}. Fix: {self.rule.fix}"
