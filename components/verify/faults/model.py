"""Faults as data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from components.spec import models
from components.verify.model import EntryKey, Expectation, ObservedLab, Pod


class Refused(ValueError):
    """A fault cannot be made there; str() says why and what can be done."""


@dataclass(frozen=True)
class Target:
    """Where a fault is made. `sentence`: what it does there, as an order. `breaks`: the entries whose expectations are
    then not met. `variables`: fault.sh's, beside those of the fault itself. `pod`, `peer`: the pod, or the other node,
    where there is one. `end`: the other end of a walk from `pod` that shows it; empty: an address outside. `object`:
    NAMESPACE/NAME of the Service, or NAME of the BGPPeer, that is changed."""

    node: str
    sentence: str
    breaks: tuple[EntryKey, ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    pod: Pod | None = None
    peer: str = ""
    end: str = ""
    object: str = ""


Cuts = Callable[[ObservedLab, Target, Pod, Pod], bool]
"""Whether a fault at a target loses what the first pod sends to the second, on another node."""


def cuts_nothing(lab: ObservedLab, target: Target, source: Pod, destination: Pod) -> bool:
    """Of a fault that loses no packet of a running pod."""
    return False


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One kind of fault.

    `title`: what it does. `without_mend`: whether it stays, or what repairs it. `kind`: what fault.sh does; empty: it
    is not made on a node, but by EC2's API, or by that of Kubernetes where its targets name an object. `hop`: where a
    walk then stops; None where no packet of a running pod is lost. `refusal`: why a lab has nothing to break, or None.
    `targets`: where it can be made, the best place first. `shown`: whether a walk from the first pod to the second
    stops there although a ping still passes. `not_in_sandbox`: why a sandbox cannot have it; empty where it can.
    """

    id: str
    title: str
    without_mend: str
    kind: str
    hop: str | None
    refusal: Callable[[models.Lab], str | None]
    targets: Callable[[ObservedLab], Iterator[Target]]
    cuts: Cuts = cuts_nothing
    shown: Cuts = cuts_nothing
    not_in_sandbox: str = ""


@dataclass(frozen=True)
class Symptoms:
    """What must be seen while a fault is there. `failed`: what verify reports as failed; it reports nothing else.
    `walk`: two ends, as `./lab walk` takes them, between which a walk stops at `hop` of `node`; None where there are
    none."""

    failed: tuple[Expectation, ...]
    walk: tuple[str, str] | None
    hop: str | None
    node: str


@dataclass(frozen=True)
class Undone:
    """A fault that was undone on a node. `result`: put back, or why there was nothing to do."""

    node: str
    fault: str
    result: str


@dataclass(frozen=True)
class Mended:
    """`failed`: node (or EC2) → why something may still be broken there."""

    undone: tuple[Undone, ...]
    failed: Mapping[str, str]
