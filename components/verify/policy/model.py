"""Policies as data. Kubernetes' and Calico's become one form: rules in order, tier by tier, as Calico goes through
them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from components.verify.model import Pod

Side = Literal["ingress", "egress"]
Labels = Mapping[str, str]


@dataclass(frozen=True)
class Party:
    """One end of a packet. `pod`: the pod that has the address as its own; None for a node or an address outside.
    `namespace`: the labels of the pod's namespace."""

    address: str
    pod: Pod | None
    namespace: Labels = field(default_factory=dict)


@dataclass(frozen=True)
class Traffic:
    """The first packet of a connection, as the policies see it: after kube-proxy has chosen an endpoint."""

    source: Party
    destination: Party
    protocol: str
    port: int


Test = Callable[[Traffic], bool | None]
"""Whether a rule matches; None where it asks for something that is not evaluated."""


@dataclass(frozen=True)
class Rule:
    """`action`: allow, deny, pass (on to the next tier) or log. `text`: what the rule says, in short."""

    action: str
    text: str
    matches: Test


@dataclass(frozen=True)
class Policy:
    """`kind`: NetworkPolicy, Calico NetworkPolicy or GlobalNetworkPolicy. `id`: [NAMESPACE/]NAME. `order`: as in
    Calico: the lowest first. `selects`: whether it applies to a pod; None where that is not evaluated."""

    kind: str
    id: str
    tier: str
    order: float
    selects: Callable[[Pod, Labels], bool | None]
    rules: Mapping[Side, tuple[Rule, ...]]

    @property
    def title(self) -> str:
        return f"{self.kind} {self.id}"


@dataclass(frozen=True)
class Policies:
    """All of a cluster's. `tiers`: name → order, of those that have one. `namespaces`: name → labels. `unread`: why
    some could not be read; empty where all were."""

    all: tuple[Policy, ...] = ()
    tiers: Mapping[str, float] = field(default_factory=dict)
    namespaces: Mapping[str, Labels] = field(default_factory=dict)
    unread: str = ""


@dataclass(frozen=True)
class Decision:
    """What the policies decide for a pod on one side. `allowed` None: it is not known. `selecting`: the policies that
    select the pod there, in order. `policy` and `rule`: what decided; `rule` None: no rule matched, and a policy that
    selects a pod denies what it does not allow."""

    side: Side
    pod: Pod
    allowed: bool | None
    selecting: tuple[Policy, ...]
    policy: Policy
    rule: Rule | None
    reason: str = ""
