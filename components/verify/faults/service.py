"""A Service whose selector matches no pod, and back again, by the Kubernetes API. An annotation of the Service records
the selector that it had."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from components.verify.faults.model import Refused, Undone
from components.verify.read import api
from components.verify.services import service_ports

FAULT = "service-without-endpoints"
ANNOTATION = "cni-lab/fault"
_WRONG = {"app": "nobody"}
_FOLLOW_SECONDS = 20.0
"""How long the EndpointSlices and kube-proxy may take to follow."""


async def empty(kubeconfig: str, service: str) -> None:
    """Change the selector of a Service, NAMESPACE/NAME. Raises Refused, NoApi."""
    found = await _service(kubeconfig, service)
    metadata, selector = found["metadata"], found["spec"].get("selector")
    if ANNOTATION in (metadata.get("annotations") or {}):
        raise Refused(f"{FAULT} is broken on {service} already: mend first")
    if not selector:
        raise Refused(f"the Service {service} has no selector to change")
    # In a merge patch, a key that is to go is null.
    wrong = dict.fromkeys(selector) | _WRONG
    record = {"annotations": {ANNOTATION: json.dumps(selector)}}
    await _patch(kubeconfig, service, {"metadata": record, "spec": {"selector": wrong}})
    await _followed(kubeconfig, service, ready=False)


async def refill(kubeconfig: str) -> list[Undone]:
    """Put back the selector of every Service that `empty` changed. Raises NoApi, Refused."""
    undone = []
    objects = await api.read(kubeconfig, {"services": api.KINDS["services"]})
    for item in objects.of("services"):
        metadata = item.get("metadata") or {}
        record = (metadata.get("annotations") or {}).get(ANNOTATION)
        if record is None:
            continue
        name, now = f"{metadata['namespace']}/{metadata['name']}", item["spec"].get("selector") or {}
        change: dict[str, Any] = {"metadata": {"annotations": {ANNOTATION: None}}}
        if now == _WRONG:
            change["spec"] = {"selector": dict.fromkeys(now) | json.loads(record)}
        await _patch(kubeconfig, name, change)
        if now == _WRONG:
            await _followed(kubeconfig, name, ready=True)
        result = "put back" if now == _WRONG else "its selector has been changed since"
        undone.append(Undone(name, FAULT, result))
    return undone


async def _service(kubeconfig: str, service: str) -> Mapping[str, Any]:
    objects = await api.read(kubeconfig, {"services": api.KINDS["services"]})
    for item in objects.of("services"):
        if f"{item['metadata'].get('namespace')}/{item['metadata'].get('name')}" == service:
            return item
    raise Refused(
        f"there is no Service {service}{': ' + '; '.join(objects.missing.values()) if objects.missing else ''}"
    )


async def _patch(kubeconfig: str, service: str, change: object) -> None:
    namespace, _, name = service.partition("/")
    path = f"/api/v1/namespaces/{namespace}/services/{name}"
    headers = {"Content-Type": "application/merge-patch+json"}
    async with api.connected(kubeconfig) as client:
        response = await api.send(client, "PATCH", path, content=json.dumps(change), headers=headers)
    if response.status_code != 200:
        raise Refused(f"the Service {service} cannot be changed: HTTP {response.status_code}")


async def _followed(kubeconfig: str, service: str, *, ready: bool) -> None:
    """Wait until the EndpointSlices say so; what they do not do in time, verify shows."""
    kinds = {kind: api.KINDS[kind] for kind in ("services", "endpointslices")}
    for _ in range(int(_FOLLOW_SECONDS)):
        objects = await api.read(kubeconfig, kinds)
        ports = service_ports(objects.of("services"), objects.of("endpointslices"))
        if all(bool(port.endpoints) == ready for port in ports if port.id == service):
            return
        await asyncio.sleep(1)
