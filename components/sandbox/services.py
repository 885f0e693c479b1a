"""Services and their EndpointSlices, as the API server and its EndpointSlice controller make them.

The standard library is all it needs: holder.py runs it without the lab's virtual environment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Object = dict[str, Any]

SERVICES = "/api/v1/services"
SLICES = "/apis/discovery.k8s.io/v1/endpointslices"
PODS = "/api/v1/pods"


class Port(NamedTuple):
    """One port of a Service: `port` on its ClusterIP, `target` on its endpoints. `name` is empty where there is only
    one."""

    name: str
    protocol: str
    port: int
    target: int


def service(
    namespace: str, name: str, address: str, ports: Sequence[Port], selector: Mapping[str, str] | None
) -> Object:
    """A Service with a ClusterIP. `selector` None: its endpoints are made by hand."""
    spec: Object = {
        "clusterIP": address,
        "clusterIPs": [address],
        "internalTrafficPolicy": "Cluster",
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
        "ports": [
            ({"name": p.name} if p.name else {}) | {"port": p.port, "protocol": p.protocol, "targetPort": p.target}
            for p in ports
        ],
        "sessionAffinity": "None",
        "type": "ClusterIP",
    }
    if selector:
        spec["selector"] = dict(selector)
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec, "status": {"loadBalancer": {}}}


def endpoint_slice(of: Object, name: str, pods: Sequence[Object]) -> Object:
    """The EndpointSlice of a Service with a selector: every pod of its namespace whose labels match and that has an
    address."""
    namespace, selector = of["metadata"]["namespace"], of["spec"].get("selector") or {}
    endpoints = []
    for pod in pods:
        labels, status = pod["metadata"].get("labels") or {}, pod["status"]
        ours = pod["metadata"]["namespace"] == namespace and selector.items() <= labels.items()
        if not selector or not ours or not status.get("podIP") or status["phase"] not in ("Running", "Pending"):
            continue
        ready = any(it["type"] == "Ready" and it["status"] == "True" for it in status["conditions"])
        reference = {"kind": "Pod", "name": pod["metadata"]["name"], "namespace": namespace}
        endpoints.append(endpoint(status["podIP"], pod["spec"]["nodeName"], ready) | {"targetRef": reference})
    return sliced(of, name, endpoints)


def endpoint(address: str, node: str, ready: bool = True) -> Object:
    """One entry of an EndpointSlice."""
    conditions = {"ready": ready, "serving": ready, "terminating": False}
    return {"addresses": [address], "conditions": conditions, "nodeName": node}


def sliced(of: Object, name: str, endpoints: Sequence[Object]) -> Object:
    """The EndpointSlice of a Service with these endpoints."""
    return {
        "metadata": {
            "name": name,
            "namespace": of["metadata"]["namespace"],
            "labels": {"kubernetes.io/service-name": of["metadata"]["name"]},
        },
        "addressType": "IPv4",
        "endpoints": list(endpoints),
        "ports": [
            {"name": port.get("name", ""), "port": port["targetPort"], "protocol": port["protocol"]}
            for port in of["spec"]["ports"]
        ],
    }


def merge_patch(it: Object, patch: Object) -> Object:
    """A JSON merge patch (RFC 7396) of an object."""
    found = dict(it)
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        elif isinstance(value, dict):
            old = found.get(key)
            found[key] = merge_patch(old if isinstance(old, dict) else {}, value)
        else:
            found[key] = value
    return found
