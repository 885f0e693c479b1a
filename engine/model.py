"""What a run of a program returns, as plain values: resources, outputs and log; and the errors that it can raise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

UNKNOWN = "<known after up>"
SECRET = "<secret>"
STACK_TYPE = "pulumi:pulumi:Stack"

Json = dict[str, Any]


class ProgramError(Exception):
    """The program failed. str() is its message; `trace` is the Python traceback that led to it."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


class HangError(ProgramError):
    """The program did not end. str() says what it had registered and which resource waits for which."""


@dataclass(frozen=True)
class Registration:
    """A resource as a provider sees it. `Create` gets its inputs in clear; `Known` gets them as a Resource has them."""

    urn: str
    type: str
    name: str
    inputs: Json


Create = Callable[[Registration], tuple[str, Json]]
"""Creates a resource: returns its id and the outputs that its inputs do not have."""

Invoke = Callable[[str, Json], Json]
"""Answers a data source, given its token and arguments."""

Known = Callable[[Registration], Json]
"""The outputs that a preview knows of a resource, as pulumi knows them from its state."""


@dataclass(frozen=True)
class Resource:
    """A resource as pulumi's engine would receive it, with the options that it inherits from its parent.

    In `inputs` an unknown leaf is UNKNOWN and a secret one SECRET. `dependencies` holds the URNs of `depends_on` and
    those behind the properties, sorted. `provider` is the provider's URN, or None for the package's default provider.
    `source` is FILE:LINE of the call that made it.
    """

    urn: str
    type: str
    name: str
    parent: str | None
    custom: bool
    inputs: Json
    dependencies: tuple[str, ...] = ()
    property_dependencies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    provider: str | None = None
    providers: Mapping[str, str] = field(default_factory=dict)
    deleted_with: str | None = None
    ignore_changes: tuple[str, ...] = ()
    replace_on_changes: tuple[str, ...] = ()
    replace_with: tuple[str, ...] = ()
    replacement_trigger: Any = None
    delete_before_replace: bool | None = None
    additional_secret_outputs: tuple[str, ...] = ()
    protect: bool = False
    retain_on_delete: bool = False
    custom_timeouts: Mapping[str, str] = field(default_factory=dict)
    version: str | None = None
    source: str | None = None

    def to_json(self) -> Json:
        """Keys in pulumi's camelCase. The first ten are always there, the others only where they have a value.

        `source` is left out, because every edit of the program moves it.
        """
        always = {
            "urn": self.urn,
            "type": self.type,
            "name": self.name,
            "parent": self.parent,
            "custom": self.custom,
            "inputs": self.inputs,
            "dependencies": list(self.dependencies),
            "provider": self.provider,
            "deletedWith": self.deleted_with,
            "ignoreChanges": list(self.ignore_changes),
        }
        sometimes = {
            "propertyDependencies": {key: list(urns) for key, urns in self.property_dependencies.items()},
            "providers": dict(self.providers),
            "replaceOnChanges": list(self.replace_on_changes),
            "replaceWith": list(self.replace_with),
            "replacementTrigger": self.replacement_trigger,
            "deleteBeforeReplace": self.delete_before_replace,
            "additionalSecretOutputs": list(self.additional_secret_outputs),
            "protect": self.protect or None,
            "retainOnDelete": self.retain_on_delete or None,
            "customTimeouts": dict(self.custom_timeouts),
            "version": self.version,
        }
        return always | {key: value for key, value in sometimes.items() if value not in (None, [], {})}


@dataclass(frozen=True)
class Message:
    """A line of the program's log. The severity is info, warning or error."""

    severity: str
    text: str
    urn: str | None = None


@dataclass(frozen=True)
class Deployment:
    """One run of a program: its resources in the order in which the program made them, its outputs and its log."""

    project: str
    stack: str
    resources: tuple[Resource, ...]
    outputs: Json
    messages: tuple[Message, ...]

    def to_json(self) -> Json:
        return {
            "stack": self.stack,
            "resources": [resource.to_json() for resource in self.resources],
            "outputs": self.outputs,
        }
