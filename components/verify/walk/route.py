"""A packet's way from one end to the other and back, hop by hop: what each hop is, by which command a person sees it,
what was read there and what must be true.

The way is looked up in what was read, as the kernel looks it up, not in what should be there: routes by the longest
prefix, packet filter rules one after the other. Each hop is then compared with the lab's expectations. The packet is
lost at the first hop that fails.
"""

from __future__ import annotations

from dataclasses import replace

from components.verify.expect import by_entry, expectations
from components.verify.expect.probes import tried
from components.verify.model import Pod, Result
from components.verify.policy.model import Policies
from components.verify.read.reading import LiveLab, Reading, observed
from components.verify.report import compare
from components.verify.walk.arrive import deliver, outside
from components.verify.walk.cross import cross
from components.verify.walk.ends import Ends
from components.verify.walk.filtered import policy_hop
from components.verify.walk.leave import leave
from components.verify.walk.model import Walk
from components.verify.walk.trace import Trace
from components.verify.walk.translate import back_from_endpoint, back_to_source, masquerade, to_endpoint


def walk(live: LiveLab, reading: Reading, ends: Ends, policies: Policies | None = None, *, chosen: str = "") -> Walk:
    """The way out, and back from a pod or a node, between ends whose nodes were read. `chosen`: ADDRESS:PORT of the
    endpoint that the real connection to a Service went to."""
    lab = observed(live, reading)
    known = by_entry(expectations(lab))
    [ping] = compare([tried(lab, ends.source, ends.target, ends.address, ends.service, ends.port)], reading)
    if ends.protocol == "udp":
        ping = Result(ping.expectation, "unknown", "", "not tried: UDP gives no answer of its own")
    all_policies = policies or Policies()
    out = Trace(lab, reading, known, all_policies, "out", ends.source, ends.address)
    out.protocol, out.port, out.sent = ends.protocol, ends.port, ping.status != "unknown"
    arrived = _out(out, ends, chosen)
    hops = out.hops
    # What left by a bridge has another source address, so its answer does not go to the pod's own.
    if arrived and ends.target is not None and all(hop.kind not in ("bridge", "firewall") for hop in hops):
        back = Trace(lab, reading, known, all_policies, "back", ends.target, out.sender)
        back.protocol, back.port, back.sender = ends.protocol, out.port, out.address
        # Without conntrack nobody knows which endpoint of a Service has answered.
        back.sent = ping.status == "passed" and (ends.service is None or chosen == f"{out.address}:{out.port}")
        _back(back, ends)
        hops += back.hops
    if ping.status != "passed":
        lost = next((number for number, hop in enumerate(hops) if hop.status == "failed"), None)
        if lost is not None:
            hops = [replace(hop, reached=number <= lost) for number, hop in enumerate(hops)]
    return Walk(ends.source, ends.target, ends.address, ping, tuple(hops), ends.service, ends.protocol, ends.port)


def _out(trace: Trace, ends: Ends, chosen: str) -> bool:
    """Every hop, also those behind one that fails. Returns whether the target is reached."""
    source, target = ends.source, ends.target
    if source.host_network:
        # The node chooses its address by the route to what was asked, before any translation.
        trace.sender = source.address if ends.service or target is None else ""
    elif not leave(trace):
        return False
    if ends.service is not None and not to_endpoint(trace, ends.service, target.address if target else "", chosen):
        return False
    if trace.inbound and trace.inbound == trace.source.interface:
        policy_hop(trace, "egress", target)
    if target is None:
        outside(trace)
        return False
    _across(trace, target)
    if not target.host_network:
        policy_hop(trace, "ingress", target)
    deliver(trace, target)
    return True


def _back(trace: Trace, ends: Ends) -> None:
    """The answer. No policy is asked: it belongs to a connection that was let through."""
    source, sender = ends.source, trace.sender
    if not trace.source.host_network and not leave(trace):
        return
    trace.sender = sender
    _across(trace, source)
    if trace.address != source.address and not source.host_network:
        back_to_source(trace, source.address)
    if ends.service is not None:
        back_from_endpoint(trace, ends.service)
    deliver(trace, source)


def _across(trace: Trace, target: Pod) -> None:
    """From the node of one end to the node of the other."""
    here = trace.source.node
    if here != target.node:
        cross(trace, target)
        # The node that forwards to its pod lowers it once more; one that is the target does not.
        trace.ttl -= int(not target.host_network)
    elif target.host_network:
        # The node itself receives it, and forwards nothing.
        trace.ttl += int(not trace.source.host_network)
    else:
        trace.sender = trace.sender or trace.address_of(here, target.interface)
        masquerade(trace, here, target.interface)
