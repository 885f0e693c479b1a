"""How often and how patiently kubelet asks whether one of Calico's pods is ready and alive.

The operator has the readiness of its pods asked for every 30 s, of its API server every 60 s
(tigera/operator, pkg/controller/utils/component.go, setProbeTimeouts), and no field of its API changes that. A kubelet
that has run for less than one period also waits for a random part of it first (kubernetes,
pkg/kubelet/prober/worker.go). A new lab waits for three of these in turn: Felix for Typha, the API server for Felix,
and `up` for the API server.

On a slow computer the same times are too short instead: kubelet restarts a pod that works, and each restart makes the
computer slower.

So a policy of the cluster changes the probes in the pods, which the operator does not maintain itself: it makes
Deployments and DaemonSets. Calico by manifest needs no policy: its times are in the manifest, which is patched
(components/calico/manifests.py).
"""

from __future__ import annotations

from collections.abc import Mapping
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


def probe_policy(lab: Lab) -> dict[str, Manifest]:
    """The policy and what binds it, by a short name. Empty where the cluster has no such policies, and for Calico by
    manifest."""
    if lab.calico.install != "operator" or versions.numbers(lab.kubernetes.version)[:2] < _OLDEST_KUBERNETES:
        return {}
    factor = slowdown.factor()
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
        "mutations": _sooner() if factor == 1 else _more_patient(factor),
    }
    return {
        "probes": _object("MutatingAdmissionPolicy", policy),
        "probes-binding": _object("MutatingAdmissionPolicyBinding", {"policyName": NAME}),
    }


def _sooner() -> list[Manifest]:
    """As many failures as fill the operator's time are allowed, so a pod that was ready is given up no sooner than
    without the policy."""
    probe = "c.readinessProbe"
    period = f"(has({probe}.exec) ? {_COMMAND_SECONDS} : {_REQUEST_SECONDS})"
    failures = f"{probe}.failureThreshold * {probe}.periodSeconds / {period}"
    return [_mutation("readinessProbe", {"periodSeconds": period, "failureThreshold": failures})]


def _more_patient(factor: int) -> list[Manifest]:
    """Longer answers, and rarer questions whether a pod is alive. Readiness is asked for as often as before, because
    `up` waits for it."""

    def times(kind: str, field: str) -> dict[str, str]:
        return {field: f"c.{kind}.{field} * {factor}"}

    alive = times("livenessProbe", "periodSeconds") | times("livenessProbe", "timeoutSeconds")
    return [_mutation("livenessProbe", alive), _mutation("readinessProbe", times("readinessProbe", "timeoutSeconds"))]


def _mutation(kind: str, fields: Mapping[str, str]) -> Manifest:
    """Changes one kind of probe of every container that has it. `fields`: CEL expressions about the container `c`.

    Kubernetes has filled in the defaults of a probe before a policy sees it.
    """
    values = ", ".join(f"{name}: {value}" for name, value in fields.items())
    expression = f"""\
Object{{spec: Object.spec{{containers:
  object.spec.containers.filter(c, has(c.{kind})).map(c,
    Object.spec.containers{{name: c.name, {kind}: Object.spec.containers.{kind}{{{values}}}}}
  )
}}}}
"""
    return {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}


def _object(kind: str, spec: Manifest) -> Manifest:
    return {"apiVersion": _GROUP, "kind": kind, "metadata": {"name": NAME}, "spec": spec}
