"""Deployments whose pods ask for the lab's networks, as plain dicts."""

from __future__ import annotations

import json
from typing import Any

from components.multus.manifests import BUILT_IN_NAMESPACES, namespace
from components.spec.links import static_addresses
from components.spec.models import Lab, Workload

Manifest = dict[str, Any]


def namespaces(lab: Lab) -> dict[str, Manifest]:
    """The namespaces of the workloads, by name, without those that Kubernetes or the networks make."""
    made = BUILT_IN_NAMESPACES | {network.namespace for network in lab.networks}
    names = {workload.namespace for workload in lab.workloads} - made
    return {name: namespace(name) for name in sorted(names)}


def network_annotations(lab: Lab, workload: Workload) -> dict[str, str]:
    """The annotations that Multus reads when a pod's sandbox is made. Both are JSON lists."""
    found: dict[str, str] = {}
    if workload.default_network is not None:
        # Without a namespace, Multus looks in kube-system, where the delegates' definitions are.
        found["v1.multus-cni.io/default-network"] = json.dumps([{"name": workload.default_network}])
    if workload.networks:
        home = {network.name: network.namespace for network in lab.networks}
        elements = []
        for attachment in workload.networks:
            element: dict[str, Any] = {"name": attachment.name}
            if home.get(attachment.name, workload.namespace) != workload.namespace:
                element["namespace"] = home[attachment.name]
            if attachment.default_route is not None:
                element["default-route"] = [str(attachment.default_route)]
            elements.append(element)
        found["k8s.v1.cni.cncf.io/networks"] = json.dumps(elements)
    return found


def deployment(lab: Lab, workload: Workload) -> Manifest:
    """A Deployment whose pods are spread over all nodes that accept them."""
    labels = {"app": workload.name}
    container: Manifest = {
        "name": workload.name,
        "image": workload.image,
        # For ping, arping and tcpdump. CRI-O gives containers no raw sockets by default.
        "securityContext": {"capabilities": {"add": ["NET_RAW"]}},
    }
    if workload.command:
        container["command"] = list(workload.command)
    pod: Manifest = {
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "DoNotSchedule",
                # Nodes that do not accept the pods are not counted, and neither are pods of an earlier version.
                "nodeTaintsPolicy": "Honor",
                "labelSelector": {"matchLabels": labels},
                "matchLabelKeys": ["pod-template-hash"],
            }
        ],
        "containers": [container],
    }
    if workload.on_control_plane:
        pod["tolerations"] = [
            {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}
        ]
    if workload.node_selector:
        pod["nodeSelector"] = dict(workload.node_selector)
    # The second label lets vacate.sh restart the pod.
    metadata: Manifest = {"labels": labels | {"cni-lab/workload": workload.name}}
    if wanted := network_annotations(lab, workload):
        metadata["annotations"] = wanted
    spec: Manifest = {
        "replicas": workload.replicas,
        "selector": {"matchLabels": labels},
        "template": {"metadata": metadata, "spec": pod},
    }
    if _has_static_address(lab, workload):
        # Neither an old pod nor another new one may hold the address while a pod starts.
        spec["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
        pod["affinity"] = {
            "podAntiAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": [
                    {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": labels}}
                ]
            }
        }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": workload.name, "namespace": workload.namespace, "labels": labels},
        "spec": spec,
    }


def _has_static_address(lab: Lab, workload: Workload) -> bool:
    """Whether one of its networks gives every pod the same address."""
    names = {attachment.name for attachment in workload.networks}
    return any(network.name in names and static_addresses(network) for network in lab.networks)
