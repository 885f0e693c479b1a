"""A node's NAT rules from observe.sh's answer, and what they make of the Services and of the pools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from components.spec.models import Pool
from components.verify.model import Entry, NodeFacts, Table, Topic, addresses_of
from components.verify.nat.evaluate import outcomes
from components.verify.nat.iptables import add_iptables, ipsets
from components.verify.nat.model import Flow, Outcome, Ruleset
from components.verify.nat.nft import add_nft
from components.verify.services import ServicePort

OUTSIDE = "203.0.113.1"
"""An address in no lab (RFC 5737), for rules about what leaves the pools."""


class Printed(NamedTuple):
    """What the programs printed; None where a program is not installed."""

    iptables: str | None
    nft: str | None
    ipset: str | None


def rules_of(printed: Printed, node: NodeFacts) -> Ruleset:
    """The node's NAT rules, of iptables and of nftables. Raises ValueError where they are not understood at all."""
    rules = Ruleset()
    links = node.topics.get(Topic.LINK, {}).values()
    own = frozenset(address for entries in links for entry in entries for address in addresses_of(entry))
    if printed.iptables is not None:
        add_iptables(rules, printed.iptables, ipsets(printed.ipset or ""), own)
    if printed.nft is not None:
        try:
            add_nft(rules, printed.nft, own, iptables=printed.iptables is not None)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"nft's JSON has another form ({type(error).__name__}: {error})") from None
    return rules


def services(rules: Ruleset, ports: Iterable[ServicePort], source: str) -> Table:
    """The topic SERVICE of a node: to which endpoints its rules translate a Service's address. Fields: endpoints
    (ADDRESS:PORT, sorted, separated by spaces), rejected (yes, no). `source`: a pod's address."""
    found: Table = {}
    for port in ports:
        flow = Flow(port.protocol, source, port.address, port.port, inbound="cali0")
        ended = [it for it in outcomes(rules, flow, "prerouting") if it.kind == "dnat"]
        rejected = [it for it in outcomes(rules, flow, "forward", "filter") if it.kind == "drop"] if not ended else []
        fields = {
            "endpoints": " ".join(sorted({outcome.target for outcome in ended})),
            "rejected": "yes" if rejected else "no",
        }
        found[port.key] = (Entry(fields, _line(ended or rejected)),)
    return found


def masquerades(rules: Ruleset, pools: Iterable[Pool], nic: str) -> Table:
    """The topic NAT of a node, by the pool's range: whether what a pod of the pool sends outside gets the node's
    address. Field: masquerade (yes, no)."""
    found: Table = {}
    for pool in pools:
        flow = Flow("tcp", str(pool.cidr[1]), OUTSIDE, 443, inbound="cali0", outbound=nic)
        ended = [it for it in outcomes(rules, flow, "postrouting") if it.kind in ("masquerade", "snat")]
        found[str(pool.cidr)] = (Entry({"masquerade": "yes" if ended else "no"}, _line(ended)),)
    return found


def _line(ended: Sequence[Outcome]) -> str:
    """The last rule of each outcome, which says what is done."""
    lines = [outcome.path[-1] for outcome in ended if outcome.path]
    more = f"; and {len(lines) - 3} more" if len(lines) > 3 else ""
    return "; ".join(islice(lines, 3)) + more or "no rule"


def printed(sections: Mapping[str, str | None]) -> Printed:
    """From the sections of observe.sh that are there."""
    return Printed(*(sections.get(f"nat {name}") for name in Printed._fields))
