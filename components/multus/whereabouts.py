"""The Kubernetes objects of whereabouts, an IPAM plugin with one list of addresses for a cluster, as plain dicts.

They follow `doc/crds` of k8snetworkplumbingwg/whereabouts v0.9.4, with a pinned image, and without what only its
node slices and its reconciler need. The image's own scripts put the plugin, its configuration and a kubeconfig on each
node, and write that again when the account's token changes. A network's configuration names none of these files: the
plugin knows their places (pkg/config/config.go).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from components.multus import kinds
from components.multus.delegates import plugins
from components.multus.kinds import NAMESPACE, TEXT, Manifest
from components.spec import versions
from components.spec.models import Lab

PLUGIN: Final = "whereabouts"
GROUP: Final = "whereabouts.cni.cncf.io"
IMAGE: Final = f"ghcr.io/k8snetworkplumbingwg/whereabouts:v{versions.WHEREABOUTS}"

_LABELS: Final = {"tier": "node", "app": "whereabouts", "name": "whereabouts"}
_ROLE: Final = "whereabouts-cni"


def objects(lab: Lab) -> dict[str, Manifest]:
    """Every object, by a short name, in the order in which they are made. Empty if no network asks for the plugin."""
    if PLUGIN not in plugins(lab):
        return {}
    return {
        "whereabouts-pools": pools_definition(),
        "whereabouts-reservations": reservations_definition(),
        "whereabouts-account": service_account(),
        "whereabouts-role": cluster_role(),
        "whereabouts-binding": cluster_role_binding(),
        "whereabouts-daemonset": daemon_set(),
    }


def _definition(kind: str, spec: Manifest, *, required: Sequence[str] = ()) -> Manifest:
    plural = f"{kind.lower()}s"
    names = {"kind": kind, "listKind": f"{kind}List", "plural": plural, "singular": kind.lower()}
    return kinds.definition(GROUP, "v1alpha1", names, spec, required=required)


def pools_definition() -> Manifest:
    """The addresses that pods have, one object for each range."""
    allocation: Manifest = {
        "type": "object",
        "properties": {"id": TEXT, "ifname": TEXT, "podref": TEXT},
        "required": ["id", "podref"],
    }
    spec: Manifest = {
        "type": "object",
        "properties": {"allocations": {"type": "object", "additionalProperties": allocation}, "range": TEXT},
        "required": ["allocations", "range"],
    }
    return _definition("IPPool", spec)


def reservations_definition() -> Manifest:
    """One object for each address, so that ranges which overlap give it once."""
    spec: Manifest = {
        "type": "object",
        "properties": {"containerid": TEXT, "ifname": TEXT, "podref": TEXT},
        "required": ["podref"],
    }
    return _definition("OverlappingRangeIPReservation", spec, required=["spec"])


def service_account() -> Manifest:
    return kinds.service_account(PLUGIN)


def cluster_role() -> Manifest:
    """The permissions of the plugin, and of the loop that frees the addresses of deleted pods."""
    everything = ["get", "list", "watch", "create", "update", "patch", "delete"]
    read = ["get", "list", "watch"]
    rules = [
        {"apiGroups": [GROUP], "resources": ["ippools", "overlappingrangeipreservations"], "verbs": everything},
        # Leader election: one plugin at a time gives addresses (pkg/storage/kubernetes/ipam.go).
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": read},
        {"apiGroups": [""], "resources": ["nodes"], "verbs": read},
        {"apiGroups": ["k8s.cni.cncf.io"], "resources": ["network-attachment-definitions"], "verbs": read},
        {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch", "update"]},
    ]
    return kinds.cluster_role(_ROLE, rules)


def cluster_role_binding() -> Manifest:
    return kinds.cluster_role_binding(PLUGIN, _ROLE)


def daemon_set() -> Manifest:
    """On each node: the plugin and its files, then the loop that frees the addresses of the node's deleted pods."""

    def from_field(path: str) -> Manifest:
        return {"valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}

    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": PLUGIN, "namespace": NAMESPACE, "labels": {"tier": "node", "app": "whereabouts"}},
        "spec": {
            "selector": {"matchLabels": {"name": "whereabouts"}},
            "updateStrategy": {"type": "RollingUpdate"},
            "template": {
                "metadata": {"labels": dict(_LABELS)},
                "spec": {
                    "hostNetwork": True,
                    "priorityClassName": "system-node-critical",
                    "serviceAccountName": PLUGIN,
                    "tolerations": [
                        {"operator": "Exists", "effect": "NoSchedule"},
                        {"operator": "Exists", "effect": "NoExecute"},
                    ],
                    "containers": [
                        {
                            "name": PLUGIN,
                            "image": IMAGE,
                            "command": ["/bin/sh"],
                            "args": [
                                "-c",
                                "SLEEP=false source /install-cni.sh\n"
                                "/token-watcher.sh &\n"
                                "exec /ip-control-loop -log-level verbose\n",
                            ],
                            "env": [
                                {"name": "NODENAME"} | from_field("spec.nodeName"),
                                {"name": "WHEREABOUTS_NAMESPACE"} | from_field("metadata.namespace"),
                            ],
                            "resources": {
                                "requests": {"cpu": "100m", "memory": "100Mi"},
                                "limits": {"cpu": "100m", "memory": "200Mi"},
                            },
                            "securityContext": {"privileged": True},
                            "terminationMessagePolicy": "FallbackToLogsOnError",
                            "volumeMounts": [
                                {"name": "cnibin", "mountPath": "/host/opt/cni/bin"},
                                {"name": "cni-net-dir", "mountPath": "/host/etc/cni/net.d"},
                            ],
                        }
                    ],
                    "volumes": [
                        {"name": "cnibin", "hostPath": {"path": "/opt/cni/bin"}},
                        {"name": "cni-net-dir", "hostPath": {"path": "/etc/cni/net.d"}},
                    ],
                },
            },
        },
    }
