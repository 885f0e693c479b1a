"""Where a node changes a packet's addresses: kube-proxy's choice of an endpoint, masquerading, and the way back."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address

from components.verify.expect.services import no_endpoint, translated
from components.verify.model import Expectation, Result, Topic
from components.verify.nat.model import Outcome
from components.verify.services import ServicePort
from components.verify.walk.trace import Trace


def to_endpoint(trace: Trace, service: ServicePort, endpoint: str, chosen: str) -> bool:
    """kube-proxy's rules on the source's node: the ClusterIP becomes an endpoint's address. `endpoint`: ADDRESS of the
    one that the walk follows; `chosen`: ADDRESS:PORT of the one that the real connection went to, if that is known.
    Returns whether the packet goes on."""
    node, hook = trace.source.node, "output" if trace.source.host_network else "prerouting"
    where = "OUTPUT" if trace.source.host_network else "PREROUTING"
    check = trace.expected(Topic.SERVICE, service.key, node) or [translated(trace.lab, node, service)]
    results = trace.compared(*check)
    name = f"{service.address}:{service.port} ({service.proxy_name})"
    if not service.endpoints:
        missing = trace.expected(Topic.SERVICE, service.id, None) or [no_endpoint(service)]
        sentence = f"{where}: {name} has no ready endpoint, so kube-proxy rejects the packet: connection refused"
        trace.add("service", node, "", sentence, [*trace.compared(*missing), *results])
        return False
    found = trace.outcomes(node, hook) or []
    targets = sorted({outcome.target for outcome in found if outcome.kind == "dnat"})
    used = next((it for it in found if it.kind == "dnat" and it.target.partition(":")[0] == endpoint), None)
    port = next((it.port for it in service.endpoints if it.address == endpoint), service.port)
    pod = next((it.pod for it in service.endpoints if it.address == endpoint), "")
    trace.mark = used.flow.mark if used else trace.mark
    trace.address, trace.port = endpoint, port
    one = f"its endpoint {endpoint}:{port}"
    if len(targets) > 1:
        how = "conntrack: this connection went to" if chosen == f"{endpoint}:{port}" else "the walk follows"
        one = f"one of its {len(targets)} endpoints at random ({', '.join(targets)}); {how} {endpoint}:{port}"
    sentence = f"{where}: kube-proxy translates {name} to {one}{f', {pod}' if pod else ''} (DNAT)"
    trace.add("service", node, "", sentence, results)
    return True


def masquerade(trace: Trace, node: str, device: str, *, leaves: bool = False) -> None:
    """The node's rules behind its routing table: the packet may get another source. `leaves`: it leaves the lab, so
    that the hop is shown in any case."""
    if trace.direction == "back":
        # These rules see the first packet of a connection only.
        return
    found = trace.outcomes(node, "postrouting", outbound=device)
    checks = _of_pool(trace, node) if leaves else []
    used = next((it for it in found or () if it.kind in ("masquerade", "snat")), None)
    if used is None:
        if leaves:
            sentence = _unread(trace, node, device, checks) if found is None else _kept(trace, node)
            trace.add("masquerade", node, device, sentence, checks)
        return
    before = trace.sender
    trace.sender = used.target.partition(":")[0] or trace.address_of(node, device)
    if not checks:
        checks = [Result(_rule(trace, node, before), "passed", used.path[-1])]
    change = "stays, perhaps with another port" if before == trace.sender else f"becomes {trace.sender}"
    sentence = f"POSTROUTING: the source {before} {change} ({_whose(used)}: {_brief(used.path[-1])})"
    trace.add("masquerade", node, device, sentence, checks)


def _unread(trace: Trace, node: str, device: str, checks: Sequence[Result]) -> str:
    """The rules could not be read: the packet goes on as it must be."""
    before, unread = trace.sender, "the node's rules could not be read"
    if any((check.expectation.expected or {}).get("masquerade") == "yes" for check in checks):
        trace.sender = trace.address_of(node, device)
        return f"POSTROUTING: the source {before} should become {trace.sender} (natOutgoing); {unread}"
    return f"POSTROUTING: the packet should keep its source {before}; {unread}"


def _kept(trace: Trace, node: str) -> str:
    sentence = f"POSTROUTING: the packet keeps its source {trace.sender}: no rule of the node translates it"
    if IPv4Address(trace.sender) not in _own(trace, node):
        sentence += "; outside, only a network that has a route to the pods can answer"
    return sentence


def _own(trace: Trace, node: str) -> list[IPv4Address]:
    return [IPv4Address(address) for name, address in trace.lab.addresses.items() if name == node]


def _of_pool(trace: Trace, node: str) -> list[Result]:
    """The expectation of the pool that the source is of."""
    pool = trace.lab.pool_of(trace.sender)
    return trace.compared(*(trace.expected(Topic.NAT, str(pool.cidr), node) if pool else []))


def _rule(trace: Trace, node: str, source: str) -> Expectation:
    return Expectation(
        topic=Topic.NAT,
        key=f"{source} {trace.address}",
        expected={},
        sentence=f"{node} translates the source {source} of packets to {trace.address}",
        command="nft list ruleset" if trace.lab.spec.calico.linux_dataplane == "Nftables" else "iptables-save -t nat",
        because="the answer must come back to this node, whose conntrack translates it back",
        cause="",
        node=node,
    )


def _whose(outcome: Outcome) -> str:
    rule = outcome.path[-1]
    if "cali-nat-outgoing" in rule:
        return "natOutgoing"
    if "KUBE-POSTROUTING" in rule or "kube-proxy masquerading" in rule:
        return "kube-proxy"
    return "Felix, for its own tunnel" if "cali-POSTROUTING" in rule else "ipMasq, or another rule"


def _brief(line: str) -> str:
    """A rule without its comments."""
    return re.sub(r'-m comment --comment ("[^"]*"|\S+) ', "", line)


def back_from_endpoint(trace: Trace, service: ServicePort) -> None:
    """On the way back conntrack undoes what kube-proxy did."""
    before = f"{trace.sender}:{trace.port}"
    trace.sender, trace.port = service.address, service.port
    sentence = (
        f"conntrack translates the source {before} back to {service.address}:{service.port}, the Service's address"
    )
    trace.add("conntrack", _node_of_answer(trace), "", sentence, [])


def back_to_source(trace: Trace, address: str) -> None:
    """On the way back conntrack undoes the masquerading."""
    before, trace.address = trace.address, address
    sentence = f"conntrack translates the destination {before} back to {address}, which sent the packet"
    trace.add("conntrack", _node_of_answer(trace), "", sentence, [])


def _node_of_answer(trace: Trace) -> str:
    """Where the answer is now. An endpoint on the network of the asking pod's node makes no hop before."""
    return trace.hops[-1].node if trace.hops else trace.source.node
