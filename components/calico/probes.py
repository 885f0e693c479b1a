"""How soon kubelet notices that one of Calico's pods is ready.

The operator has the readiness of its pods asked for every 30 s, of its API server every 60 s
(tigera/operator, pkg/controller/utils/component.go, setProbeTimeouts), and no field of its API changes that. A kubelet
that has run for less than one period also waits for a random part of it first (kubernetes,
pkg/kubelet/prober/worker.go). A new lab waits for three of these in turn: Felix for Typha, the API server for Felix,
and `up` for the API server.

So a policy of the cluster changes these periods in the pods, which the operator does not maintain itself: it makes
Deployments and DaemonSets.
"""

from __future__ import annotations

from typing import Any, Final

from components import slowdown
from components.spec import versions
from components.spec.models import Lab

Manifest = dict[str, Any]

NAME: Final = "cni-lab-calico-probes"
_GROUP: Final = "admissionregistration.k8s.io/v1"
_OLDEST_KUBERNETES: Final = (1, 36)
"""The first minor in which MutatingAdmissionPolicy is on by default (KEP-3962)."""

# A request costs next to nothing, a command of calico-node a twentieth of a second of CPU time.
_REQUEST_SECONDS: Final = 1
_COMMAND_SECONDS: Final = 5

# As many failures as fill the operator's time are allowed, so a pod that was ready is given up no sooner than without
# this policy. Kubernetes has filled in the defaults of a probe before a policy sees it.
_EXPRESSION: Final = f"""\
Object{{spec: Object.spec{{containers:
  object.spec.containers.filter(c, has(c.readinessProbe)).map(c,
    Object.spec.containers{{name: c.name, readinessProbe: Object.spec.containers.readinessProbe{{
      periodSeconds: has(c.readinessProbe.exec) ? {_COMMAND_SECONDS} : {_REQUEST_SECONDS},
      failureThreshold: c.readinessProbe.failureThreshold * c.readinessProbe.periodSeconds
        / (has(c.readinessProbe.exec) ? {_COMMAND_SECONDS} : {_REQUEST_SECONDS})
    }}}}
  )
}}}}
"""


def quick_probes(lab: Lab) -> dict[str, Manifest]:
    """The policy and what binds it, by a short name. Empty where the cluster has no such policies, and for Calico by
    manifest, whose periods are 10 s. Empty too on a slow computer, where each probe is a load."""
    if slowdown.factor() > 1:
        return {}
    if lab.calico.install != "operator" or versions.numbers(lab.kubernetes.version)[:2] < _OLDEST_KUBERNETES:
        return {}
    policy = {
        # Calico comes up without it, only later.
        "failurePolicy": "Ignore",
        "reinvocationPolicy": "Never",
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "calico-system"}},
            "resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
            ],
        },
        "mutations": [{"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": _EXPRESSION}}],
    }
    return {
        "probes": _object("MutatingAdmissionPolicy", policy),
        "probes-binding": _object("MutatingAdmissionPolicyBinding", {"policyName": NAME}),
    }


def _object(kind: str, spec: Manifest) -> Manifest:
    return {"apiVersion": _GROUP, "kind": kind, "metadata": {"name": NAME}, "spec": spec}
