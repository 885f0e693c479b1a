"""Workloads whose pods ask for the lab's networks, as plain dicts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from components.multus.manifests import BUILT_IN_NAMESPACES, namespace
from components.spec.links import definition_name, fixed_addresses
from components.spec.models import AddressedNetwork, AttachedNetwork, Attachment, Lab, Workload
from components.spec.placement import pod_count

Manifest = dict[str, Any]


def namespaces(lab: Lab) -> dict[str, Manifest]:
    """The namespaces of the workloads, by name, without those that Kubernetes or the networks make."""
    made = BUILT_IN_NAMESPACES | {network.namespace for network in lab.networks}
    names = {workload.namespace for workload in lab.workloads} - made
    return {name: namespace(name) for name in sorted(names)}


def pod_annotations(lab: Lab, workload: Workload) -> dict[str, str]:
    """The pods' annotations: the workload's own, and the two that Multus reads when a pod's sandbox is made.

    Multus' are JSON lists (Network Plumbing Working Group, multi-net-spec).
    """
    found = dict(workload.annotations)
    if workload.default_network is not None:
        # Without a namespace, Multus looks in kube-system, where the delegates' definitions are.
        found["v1.multus-cni.io/default-network"] = json.dumps([{"name": workload.default_network}])
    if workload.networks:
        networks = {network.name: network for network in lab.networks}
        elements = []
        for attachment in workload.networks:
            network = networks[attachment.name]
            element: dict[str, Any] = {"name": definition_name(network, attachment)}
            if network.namespace != workload.namespace:
                element["namespace"] = network.namespace
            if attachment.interface is not None:
                element["interface"] = attachment.interface
            if attachment.ips:
                element["ips"] = _with_prefix(network, attachment)
            if attachment.mac is not None:
                element["mac"] = attachment.mac
            if attachment.default_route is not None:
                element["default-route"] = [str(attachment.default_route)]
            elements.append(element)
        found["k8s.v1.cni.cncf.io/networks"] = json.dumps(elements)
    return found


def _with_prefix(network: AttachedNetwork, attachment: Attachment) -> list[str]:
    """The fixed addresses with the subnet's prefix length, without which the pod would not reach its neighbours."""
    if not isinstance(network, AddressedNetwork):
        return [str(address) for address in attachment.ips]
    return [f"{address.ip}/{network.subnet.prefixlen}" for address in attachment.ips]


def workload_object(lab: Lab, workload: Workload) -> Manifest:
    """The Deployment, DaemonSet or Pod."""
    labels = {"app": workload.name}
    # The second label lets vacate.sh restart the pod.
    metadata: Manifest = {"labels": labels | {"cni-lab/workload": workload.name}}
    if wanted := pod_annotations(lab, workload):
        metadata["annotations"] = wanted
    pod = _pod(workload)
    own: Manifest = {"name": workload.name, "namespace": workload.namespace}
    if workload.kind == "Pod":
        return {"apiVersion": "v1", "kind": "Pod", "metadata": own | metadata, "spec": pod}
    spec: Manifest = {"selector": {"matchLabels": labels}, "template": {"metadata": metadata, "spec": pod}}
    if workload.kind == "Deployment":
        pod["topologySpreadConstraints"] = [_spread(labels)]
        spec["replicas"] = workload.replicas
        if _has_fixed_address(lab, workload):
            # Neither an old pod nor another new one may hold the address while a pod starts.
            spec["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
            pod["affinity"] = _one_for_each_node(labels)
    return {"apiVersion": "apps/v1", "kind": workload.kind, "metadata": own | {"labels": labels}, "spec": spec}


def service_object(lab: Lab, workload: Workload) -> Manifest | None:
    """The Service in front of a workload's pods, if it has one."""
    if workload.service is None:
        return None
    port = {
        "port": workload.service.port,
        "targetPort": workload.service.target_port or workload.service.port,
        "protocol": workload.service.protocol,
    }
    labels = {"app": workload.name}
    metadata: Manifest = {"name": workload.name, "namespace": workload.namespace, "labels": labels}
    if not pod_count(lab, workload):
        # The provider would wait for an endpoint.
        metadata["annotations"] = {"pulumi.com/skipAwait": "true"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"selector": labels, "ports": [port]},
    }


def _pod(workload: Workload) -> Manifest:
    container: Manifest = {
        "name": workload.name,
        "image": workload.image,
        # For ping, arping and tcpdump. CRI-O gives containers no raw sockets by default.
        "securityContext": {"capabilities": {"add": list(dict.fromkeys(["NET_RAW", *workload.capabilities]))}},
    }
    if workload.command:
        container["command"] = list(workload.command)
    if resources := workload.resources.model_dump(exclude_defaults=True):
        container["resources"] = resources
    pod: Manifest = {"containers": [container]}
    if workload.on_control_plane:
        pod["tolerations"] = [
            {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}
        ]
    if workload.node_selector:
        pod["nodeSelector"] = dict(workload.node_selector)
    return pod


def _spread(labels: Mapping[str, str]) -> Manifest:
    """Spread a Deployment's pods over all nodes that accept them."""
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        # Nodes that do not accept the pods are not counted, and neither are pods of an earlier version.
        "nodeTaintsPolicy": "Honor",
        "labelSelector": {"matchLabels": dict(labels)},
        "matchLabelKeys": ["pod-template-hash"],
    }


def _one_for_each_node(labels: Mapping[str, str]) -> Manifest:
    term = {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": dict(labels)}}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}


def _has_fixed_address(lab: Lab, workload: Workload) -> bool:
    """Whether one of its networks gives every pod the same address."""
    networks = {network.name: network for network in lab.networks}
    return any(fixed_addresses(networks[attachment.name], attachment) for attachment in workload.networks)
