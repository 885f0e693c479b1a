"""The values of a stack file against one another. RULES is all of them, in the order of the stack file."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from components.spec.findings import Finding
from components.spec.keypath import KeyPath
from components.spec.models import Lab
from components.spec.rules import addresses, calico, cluster, machines, multus, networks, placement, workloads

RULES = (
    *machines.RULES,
    *addresses.RULES,
    *cluster.RULES,
    *calico.RULES,
    *multus.RULES,
    *networks.RULES,
    *placement.RULES,
    *workloads.RULES,
)


def check(lab: Lab, config: Mapping[str, str] | None, spoilt: Collection[KeyPath]) -> Iterator[Finding]:
    """Findings of all rules, none that rests on a spoilt key. `config` None: `aws:region` is not looked for."""
    if config is not None and not any(path[:1] == ("machines",) and path[1:] in ((), ("provider",)) for path in spoilt):
        yield from machines.region(lab, config)
    for rule in RULES:
        yield from rule.findings(lab, spoilt)
