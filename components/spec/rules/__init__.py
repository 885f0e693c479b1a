"""The rules that check the values of a stack file against one another. RULES has them in the file's order."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from components.spec.findings import Finding
from components.spec.keypath import KeyPath
from components.spec.models import Lab
from components.spec.rules import (
    addresses,
    attachments,
    calico,
    cluster,
    machines,
    multus,
    networks,
    placement,
    workloads,
)

RULES = (
    *machines.RULES,
    *addresses.RULES,
    *cluster.RULES,
    *calico.RULES,
    *multus.RULES,
    *networks.RULES,
    *placement.RULES,
    *workloads.RULES,
    *attachments.RULES,
)


def check(lab: Lab, config: Mapping[str, str] | None, unreliable: Collection[KeyPath]) -> Iterator[Finding]:
    """The findings of all rules, without those that rely on an unreliable key.

    `config`: the stack's configuration. With None, `aws:region` is not checked.
    """
    if config is not None and not {("machines",), ("machines", "provider")} & set(unreliable):
        yield from machines.region(lab, config)
    for rule in RULES:
        yield from rule.findings(lab, unreliable)
