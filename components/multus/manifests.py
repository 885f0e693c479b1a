"""Multus' Kubernetes objects, as plain dicts.

They follow `deployments/multus-daemonset.yml` of the release, with a pinned image, fewer permissions, and a fixed
configuration instead of one that is generated on each node.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from components.multus import kinds
from components.multus.delegates import calico_config, fixed_config, multus_config, network_config, uses_calico_network
from components.multus.kinds import NAMESPACE, Manifest
from components.spec.models import CALICO_NETWORK, Lab, Multus

BUILT_IN_NAMESPACES: Final = frozenset({"default", "kube-system", "kube-public", "kube-node-lease"})
USER: Final = "cni-lab:multus"
"""The user that the CNI plugin is to the API, the subject of its client certificate."""
STANDBY: Final = "multus-standby"
"""The network's name in 70-multus.conf. CRI-O ignores a second file with the same name."""

_LABELS: Final = {"tier": "node", "app": "multus", "name": "multus"}


def image(multus: Multus) -> str:
    return f"ghcr.io/k8snetworkplumbingwg/multus-cni:v{multus.version}"


def definition() -> Manifest:
    """The CRD of NetworkAttachmentDefinition (Network Plumbing Working Group, multi-net-spec)."""
    names = {
        "plural": "network-attachment-definitions",
        "singular": "network-attachment-definition",
        "kind": "NetworkAttachmentDefinition",
        "shortNames": ["nad", "net-attach-def"],
    }
    spec = {"type": "object", "properties": {"config": kinds.TEXT}}
    return kinds.definition("k8s.cni.cncf.io", "v1", names, spec)


def service_account() -> Manifest:
    return kinds.service_account("multus")


def cluster_role() -> Manifest:
    """The plugin's permissions: read networks and pods, write a pod's network-status, and record events."""
    rules = [
        {"apiGroups": ["k8s.cni.cncf.io"], "resources": ["network-attachment-definitions"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["pods/status"], "verbs": ["get", "update", "patch"]},
        {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch", "update"]},
    ]
    return kinds.cluster_role("multus", rules)


def cluster_role_binding() -> Manifest:
    return kinds.cluster_role_binding("multus", "multus", USER)


def config_map(multus: Multus) -> Manifest:
    """70-multus.conf. It sorts after Calico's file, so it is not used; 00-multus.conf is used once it exists."""
    text = json.dumps(multus_config(multus, STANDBY), indent=2)
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "multus-cni-config", "namespace": NAMESPACE, "labels": {"tier": "node", "app": "multus"}},
        "data": {"cni-conf.json": text + "\n"},
    }


def daemon_set(multus: Multus) -> Manifest:
    """Thin Multus: it puts the plugin and 70-multus.conf on every node, also before any CNI works there."""
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
                            # With `auto` instead of a file it would write 00-multus.conf itself.
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
    """The namespaces of the networks, by name, without those that Kubernetes makes itself."""
    names = {network.namespace for network in lab.networks} - BUILT_IN_NAMESPACES
    return {name: namespace(name) for name in sorted(names)}


def namespace(name: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def attachments(lab: Lab) -> dict[str, Manifest]:
    """The NetworkAttachmentDefinitions, by `namespace/name`.

    A delegate's definition has no spec: Multus then uses the file in its confDir, on the pod's node, that has this name
    inside. Calico's own network is the same on all nodes, so its definition is complete.
    """
    found: dict[str, Manifest] = {}
    if uses_calico_network(lab):
        found[f"{NAMESPACE}/{CALICO_NETWORK}"] = _attachment(CALICO_NETWORK, NAMESPACE) | {
            "spec": {"config": json.dumps(calico_config(lab), indent=2)}
        }
    for delegate in lab.multus.delegates if lab.multus else ():
        found[f"{NAMESPACE}/{delegate.name}"] = _attachment(delegate.name, NAMESPACE)
    for network in lab.networks:
        configs = {network.name: network_config(lab, network)}
        if fixed := fixed_config(lab, network):
            configs[fixed["name"]] = fixed
        for name, config in configs.items():
            made = _attachment(name, network.namespace, network.annotations)
            found[f"{network.namespace}/{name}"] = made | {"spec": {"config": json.dumps(config, indent=2)}}
    return found


def _attachment(name: str, namespace: str, annotations: Mapping[str, str] | None = None) -> Manifest:
    metadata: Manifest = {"name": name, "namespace": namespace}
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", "metadata": metadata}
