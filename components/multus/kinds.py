"""Kubernetes objects of the kinds that Multus and whereabouts both have, as plain dicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

Manifest = dict[str, Any]

NAMESPACE: Final = "kube-system"
TEXT: Final = {"type": "string"}
_RBAC: Final = "rbac.authorization.k8s.io"


def definition(group: str, version: str, names: Manifest, spec: Manifest, *, required: Sequence[str] = ()) -> Manifest:
    """The CRD of a namespaced kind. `names`: as in the CRD. `spec`: the schema of the objects' spec."""
    schema: Manifest = {
        "type": "object",
        "properties": {"apiVersion": TEXT, "kind": TEXT, "metadata": {"type": "object"}, "spec": spec},
    }
    if required:
        schema["required"] = [*required]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{names['plural']}.{group}",
            # Without this, Pulumi considers a CRD ready as soon as it is created.
            "annotations": {"pulumi.com/waitFor": "condition=Established"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": names,
            "versions": [{"name": version, "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}],
        },
    }


def service_account(name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": NAMESPACE}}


def cluster_role(name: str, rules: Sequence[Manifest]) -> Manifest:
    return {"apiVersion": f"{_RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": name}, "rules": [*rules]}


def cluster_role_binding(account: str, role: str, *users: str) -> Manifest:
    """It has the account's name, and gives the role to the account, and to users that the API knows by certificates."""
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": account},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [
            {"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE},
            *({"kind": "User", "name": user, "apiGroup": _RBAC} for user in users),
        ],
    }
