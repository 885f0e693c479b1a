"""Multus' objects, as plain dicts: after `deployments/multus-daemonset.yml` of its release, with a pinned image,
narrow rights, and a configuration of ours instead of one made up on each node."""

from __future__ import annotations

import json
from typing import Any, Final

from components.multus.delegates import multus_config, network_config
from components.spec.models import Lab, Multus

Manifest = dict[str, Any]

NAMESPACE: Final = "kube-system"
BUILT_IN_NAMESPACES: Final = frozenset({"default", "kube-system", "kube-public", "kube-node-lease"})
USER: Final = "cni-lab:multus"
"""Whom the CNI plugin is to the API: the subject of its client certificate."""
STANDBY: Final = "multus-standby"
"""Inner name of 70-multus.conf: two files of one name and CRI-O would ignore the second."""

_LABELS: Final = {"tier": "node", "app": "multus", "name": "multus"}


def image(multus: Multus) -> str:
    return f"ghcr.io/k8snetworkplumbingwg/multus-cni:v{multus.version}"


def definition() -> Manifest:
    """CRD of NetworkAttachmentDefinition (Network Plumbing Working Group, multi-net-spec)."""
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": "network-attachment-definitions.k8s.cni.cncf.io",
            # Pulumi takes a CRD for ready as soon as it is made.
            "annotations": {"pulumi.com/waitFor": "condition=Established"},
        },
        "spec": {
            "group": "k8s.cni.cncf.io",
            "scope": "Namespaced",
            "names": {
                "plural": "network-attachment-definitions",
                "singular": "network-attachment-definition",
                "kind": "NetworkAttachmentDefinition",
                "shortNames": ["nad", "net-attach-def"],
            },
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {
                                "apiVersion": {"type": "string"},
                                "kind": {"type": "string"},
                                "metadata": {"type": "object"},
                                "spec": {"type": "object", "properties": {"config": {"type": "string"}}},
                            },
                        }
                    },
                }
            ],
        },
    }


def service_account() -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "multus", "namespace": NAMESPACE},
    }


def cluster_role() -> Manifest:
    """What the plugin does: read networks and pods, write a pod's network-status, record events."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "multus"},
        "rules": [
            {"apiGroups": ["k8s.cni.cncf.io"], "resources": ["network-attachment-definitions"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
            {"apiGroups": [""], "resources": ["pods/status"], "verbs": ["get", "update", "patch"]},
            {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch", "update"]},
        ],
    }


def cluster_role_binding() -> Manifest:
    group = "rbac.authorization.k8s.io"
    return {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "multus"},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "multus"},
        "subjects": [
            {"kind": "ServiceAccount", "name": "multus", "namespace": NAMESPACE},
            {"kind": "User", "name": USER, "apiGroup": group},
        ],
    }


def config_map(multus: Multus) -> Manifest:
    """70-multus.conf, which sorts after Calico's file: there, and not in use until 00-multus.conf is."""
    text = json.dumps(multus_config(multus, STANDBY), indent=2)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "multus-cni-config", "namespace": NAMESPACE, "labels": {"tier": "node", "app": "multus"}},
        "data": {"cni-conf.json": text + "\n"},
    }


def daemon_set(multus: Multus) -> Manifest:
    """Thin Multus: the plugin's binary and 70-multus.conf on every node, also before any CNI works there."""
    binaries = {"name": "cnibin", "mountPath": "/host/opt/cni/bin"}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "kube-multus-ds", "namespace": NAMESPACE, "labels": dict(_LABELS)},
        "spec": {
            "selector": {"matchLabels": {"name": "multus"}},
            "updateStrategy": {"type": "RollingUpdate"},
            "template": {
                "metadata": {"labels": dict(_LABELS)},
                "spec": {
                    "hostNetwork": True,
                    "priorityClassName": "system-node-critical",
                    "tolerations": [
                        {"operator": "Exists", "effect": "NoSchedule"},
                        {"operator": "Exists", "effect": "NoExecute"},
                    ],
                    "serviceAccountName": "multus",
                    "terminationGracePeriodSeconds": 10,
                    "initContainers": [
                        {
                            "name": "install-multus-binary",
                            "image": image(multus),
                            "command": ["/install_multus"],
                            "args": ["--type", "thin"],
                            "resources": {"requests": {"cpu": "10m", "memory": "15Mi"}},
                            "securityContext": {"privileged": True},
                            "terminationMessagePolicy": "FallbackToLogsOnError",
                            "volumeMounts": [binaries | {"mountPropagation": "Bidirectional"}],
                        }
                    ],
                    "containers": [
                        {
                            "name": "kube-multus",
                            "image": image(multus),
                            "command": ["/thin_entrypoint"],
                            # A named file, never `auto`: that would write 00-multus.conf itself.
                            "args": [
                                "--multus-conf-file=/tmp/multus-conf/70-multus.conf",
                                "--cni-conf-dir=/host/etc/cni/net.d",
                            ],
                            "resources": {
                                "requests": {"cpu": "100m", "memory": "50Mi"},
                                "limits": {"cpu": "100m", "memory": "50Mi"},
                            },
                            "securityContext": {"privileged": True},
                            "terminationMessagePolicy": "FallbackToLogsOnError",
                            "volumeMounts": [
                                {"name": "cni", "mountPath": "/host/etc/cni/net.d"},
                                binaries,
                                {"name": "multus-cfg", "mountPath": "/tmp/multus-conf"},
                            ],
                        }
                    ],
                    "volumes": [
                        {"name": "cni", "hostPath": {"path": "/etc/cni/net.d"}},
                        {"name": "cnibin", "hostPath": {"path": "/opt/cni/bin"}},
                        {
                            "name": "multus-cfg",
                            "configMap": {
                                "name": "multus-cni-config",
                                "items": [{"key": "cni-conf.json", "path": "70-multus.conf"}],
                            },
                        },
                    ],
                },
            },
        },
    }


def namespaces(lab: Lab) -> dict[str, Manifest]:
    """Namespaces that the networks need and Kubernetes does not make itself, by name."""
    names = {network.namespace for network in lab.networks} - BUILT_IN_NAMESPACES
    return {name: namespace(name) for name in sorted(names)}


def namespace(name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def attachments(lab: Lab) -> dict[str, Manifest]:
    """NetworkAttachmentDefinitions by `namespace/name`.

    A delegate's has no spec: Multus then takes the file of that inner name in its confDir on the pod's node.
    """
    found: dict[str, Manifest] = {}
    for delegate in lab.multus.delegates if lab.multus else ():
        found[f"{NAMESPACE}/{delegate.name}"] = _attachment(delegate.name, NAMESPACE)
    for network in lab.networks:
        config = json.dumps(network_config(lab, network), indent=2)
        found[f"{network.namespace}/{network.name}"] = _attachment(network.name, network.namespace) | {
            "spec": {"config": config}
        }
    return found


def _attachment(name: str, namespace: str) -> Manifest:
    return {
        "apiVersion": "k8s.cni.cncf.io/v1",
        "kind": "NetworkAttachmentDefinition",
        "metadata": {"name": name, "namespace": namespace},
    }
