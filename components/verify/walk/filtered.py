"""What the network policies decide for the packet at one of its ends."""

from __future__ import annotations

from components.verify.model import Expectation, Pod, Result, Topic
from components.verify.policy.decide import decide
from components.verify.policy.model import Decision, Party, Side, Traffic
from components.verify.walk.trace import Trace


def policy_hop(trace: Trace, side: Side, destination: Pod | None) -> None:
    """A hop where policies select the pod that sends (egress) or the one that receives (ingress); none where no policy
    does. They see the packet as it is now: behind kube-proxy's translation, and with the source that a node gave it."""
    source = _party(trace, trace.source, trace.sender)
    to = _party(trace, destination, trace.address)
    decision = decide(trace.policies, Traffic(source, to, trace.protocol, trace.port), side)
    if decision is None:
        return
    pod = decision.pod
    names = ", ".join(policy.title for policy in decision.selecting)
    sentence = f"{side} of {pod.id}: selected by {names}; {_verdict(trace, decision)}"
    trace.add("policy", pod.node, pod.interface, sentence, [_result(trace, decision)])


def _party(trace: Trace, pod: Pod | None, address: str) -> Party:
    """Who has an address, as the policies see it: a translated source is a node's, not the pod's."""
    if pod is None or pod.address != address or pod.host_network:
        return Party(address, None)
    return Party(address, pod, trace.policies.namespaces.get(pod.namespace, {}))


def _verdict(trace: Trace, decision: Decision) -> str:
    if decision.allowed is None:
        return f"whether it passes is not known: {decision.reason}"
    if decision.rule is not None:
        return f"{decision.policy.title} {'allows' if decision.allowed else 'denies'} it: {decision.rule.text}"
    if decision.allowed:
        return decision.reason
    what = f"{trace.protocol.upper()}{f' port {trace.port}' if trace.port else ''}"
    return f"no rule allows {what} from {trace.sender} to {trace.address}, so it is denied"


def _result(trace: Trace, decision: Decision) -> Result:
    policy, pod = decision.policy, decision.pod
    words = {
        "NetworkPolicy": "networkpolicies.networking.k8s.io",
        "Calico NetworkPolicy": "networkpolicies.crd.projectcalico.org",
        "GlobalNetworkPolicy": "globalnetworkpolicies.crd.projectcalico.org",
    }
    namespace, _, name = policy.id.rpartition("/")
    flag = f"-n {namespace} " if namespace else ""
    expectation = Expectation(
        topic=Topic.POLICY,
        key=f"{policy.title} {decision.side}",
        expected={"decision": "allow"},
        sentence=f"the policies that select {pod.id} allow this packet's {decision.side}",
        command=f"kubectl {flag}get {words[policy.kind]} {name} -o yaml",
        because="a policy that selects a pod denies what no rule allows",
        cause=f"{policy.title} does not allow it",
        advice=f"add a rule for {trace.protocol.upper()} to {policy.title}, or change the labels that it selects by",
        node=pod.node,
        about=pod.id,
    )
    seen = decision.rule.text if decision.rule else "no rule matches"
    if decision.allowed is None:
        return Result(expectation, "unknown", "", decision.reason)
    if decision.allowed:
        return Result(expectation, "passed", seen)
    return Result(expectation, "failed", seen, f"decision is deny, expected allow ({policy.title})")
