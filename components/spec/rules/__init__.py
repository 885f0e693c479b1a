"""The rules that check the values of a stack file against one another. RULES has them in the file's order."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import wraps

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
from components.spec.rules.core import Check, Rule

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

# The rules that read the stack's configuration beside the lab, each with the keys of the lab that it reads.
ConfigCheck = Callable[[Lab, Mapping[str, str]], Iterator[Finding]]
CONFIG_RULES: tuple[tuple[ConfigCheck, str], ...] = (
    (machines.region, "machines.provider"),
    (machines.account, "machines.provider"),
    (machines.zones_in_region, "network.zones"),
)


def check(lab: Lab, config: Mapping[str, str] | None, unreliable: Collection[KeyPath]) -> Iterator[Finding]:
    """The findings of all rules, without those that rely on an unreliable key.

    `config`: the stack's configuration. With None, nothing outside the lab is checked.
    """
    with_config = [
        Rule(_bound(check_config, config), (key,), each=None)
        for check_config, key in CONFIG_RULES
        if config is not None
    ]
    for one in (*with_config, *RULES):
        yield from one.findings(lab, unreliable)


def _bound(check_config: ConfigCheck, config: Mapping[str, str]) -> Check:
    @wraps(check_config)
    def bound(lab: Lab) -> Iterator[Finding]:
        return check_config(lab, config)

    return bound
