"""The policies of a cluster, from its API."""

from __future__ import annotations

from components.spec.grammar.selector import SelectorError
from components.verify.policy.calico import calico_policy
from components.verify.policy.kubernetes import network_policy
from components.verify.policy.model import Policies, Policy
from components.verify.read.api import Objects

_CRD = "/apis/crd.projectcalico.org/v1"
KINDS = {
    "namespaces": "/api/v1/namespaces",
    "networkpolicies": "/apis/networking.k8s.io/v1/networkpolicies",
    "calico networkpolicies": f"{_CRD}/networkpolicies",
    "globalnetworkpolicies": f"{_CRD}/globalnetworkpolicies",
    "tiers": f"{_CRD}/tiers",
}


def policies(objects: Objects) -> Policies:
    """All that were listed. One that is not understood is named in `unread`."""
    found: list[Policy] = []
    unread = [why for why in objects.missing.values() if "404" not in why]
    for kind in ("networkpolicies", "calico networkpolicies", "globalnetworkpolicies"):
        for item in objects.of(kind):
            try:
                if kind == "networkpolicies":
                    found.append(network_policy(item))
                else:
                    found.append(calico_policy(item, namespaced=kind != "globalnetworkpolicies"))
            except (SelectorError, ValueError, KeyError, TypeError, AttributeError) as error:
                name = (item.get("metadata") or {}).get("name", "")
                unread.append(f"{kind} {name} is not understood ({error})")
    return Policies(
        tuple(found),
        {
            str(it["metadata"]["name"]): float(it["spec"]["order"])
            for it in objects.of("tiers")
            if (it.get("spec") or {}).get("order") is not None
        },
        {
            str(it["metadata"]["name"]): {
                "kubernetes.io/metadata.name": str(it["metadata"]["name"]),
                **(it["metadata"].get("labels") or {}),
            }
            for it in objects.of("namespaces")
        },
        "; ".join(unread),
    )
