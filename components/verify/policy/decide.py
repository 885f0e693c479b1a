"""What the policies decide for a packet: tier by tier, policy by policy, rule by rule, as Calico does."""

from __future__ import annotations

from itertools import groupby

from components.verify.policy.model import Decision, Policies, Policy, Side, Traffic

_LAST = 1_000_000.0
"""The order of a tier that has none (Calico's default tier)."""


def decide(policies: Policies, traffic: Traffic, side: Side) -> Decision | None:
    """For the source's egress or the destination's ingress. None where no policy selects that pod: then everything is
    allowed. Policies do not hold for pods on the host's network."""
    party = traffic.source if side == "egress" else traffic.destination
    pod = party.pod
    if pod is None or pod.host_network:
        return None
    chosen: list[Policy] = []
    for policy in policies.all:
        if side not in policy.rules:
            continue
        selects = policy.selects(pod, party.namespace)
        if selects is None:
            reason = f"the selector of {policy.title} is not evaluated here"
            return Decision(side, pod, None, (policy,), policy, None, reason)
        if selects:
            chosen.append(policy)
    if not chosen:
        return None
    chosen.sort(key=lambda it: (policies.tiers.get(it.tier, _LAST), it.tier, it.order, it.id))
    selecting = tuple(chosen)
    for _, group in groupby(chosen, key=lambda it: it.tier):
        of_tier = list(group)
        passed = False
        for policy in of_tier:
            for rule in policy.rules[side]:
                matches = rule.matches(traffic)
                if matches is None:
                    reason = f"a rule of {policy.title} has a condition that is not evaluated here: {rule.text}"
                    return Decision(side, pod, None, selecting, policy, rule, reason)
                if not matches or rule.action == "log":
                    continue
                if rule.action == "pass":
                    passed = True
                    break
                return Decision(side, pod, rule.action == "allow", selecting, policy, rule)
            if passed:
                break
        if not passed:
            # The end of a tier denies what no rule of it allowed.
            return Decision(side, pod, False, selecting, of_tier[-1], None)
    return Decision(side, pod, True, selecting, chosen[-1], None, "every tier passed it on")
