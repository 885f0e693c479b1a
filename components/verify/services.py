"""The cluster's Services as the API has them: what kube-proxy's rules on every node must follow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

Item = Mapping[str, Any]


@dataclass(frozen=True)
class Endpoint:
    """A pod, or another address, behind a Service. `pod`: NAMESPACE/NAME, empty where it is none."""

    address: str
    port: int
    node: str
    pod: str

    @property
    def text(self) -> str:
        return f"{self.address}:{self.port}"


@dataclass(frozen=True)
class ServicePort:
    """One port of a Service with a ClusterIP. `name`: the port's, empty where the Service has only one; `protocol`:
    tcp, udp or sctp; `endpoints`: the ready ones; `selector`: of its pods."""

    namespace: str
    service: str
    name: str
    protocol: str
    address: str
    port: int
    endpoints: tuple[Endpoint, ...]
    selector: Mapping[str, str]

    @property
    def id(self) -> str:
        """NAMESPACE/NAME of the Service."""
        return f"{self.namespace}/{self.service}"

    @property
    def proxy_name(self) -> str:
        """As kube-proxy names it in its rules: NAMESPACE/NAME[:PORT]."""
        return f"{self.id}:{self.name}" if self.name else self.id

    @property
    def key(self) -> str:
        """Its key in the topic SERVICE of a node."""
        return f"{self.id}:{self.port}/{self.protocol}"


def service_ports(services: Iterable[Item], slices: Iterable[Item]) -> list[ServicePort]:
    """Every port of every Service that has a ClusterIP of IPv4, by its Service. Headless ones have none."""
    by_service: dict[tuple[str, str], list[Item]] = {}
    for item in slices:
        metadata = item.get("metadata") or {}
        name = (metadata.get("labels") or {}).get("kubernetes.io/service-name", "")
        if item.get("addressType", "IPv4") == "IPv4":
            by_service.setdefault((str(metadata.get("namespace", "")), name), []).append(item)
    found = []
    for item in services:
        metadata, spec = item.get("metadata") or {}, item.get("spec") or {}
        key = (str(metadata.get("namespace", "")), str(metadata.get("name", "")))
        address = str(spec.get("clusterIP") or "")
        if not address or address == "None" or ":" in address:
            continue
        for port in spec.get("ports") or []:
            name = str(port.get("name") or "")
            endpoints = sorted(_endpoints(by_service.get(key, ()), name), key=lambda e: (e.node, e.address))
            found.append(
                ServicePort(
                    *key,
                    name=name,
                    protocol=str(port.get("protocol") or "TCP").lower(),
                    address=address,
                    port=int(port["port"]),
                    endpoints=tuple(endpoints),
                    selector=dict(spec.get("selector") or {}),
                )
            )
    return sorted(found, key=lambda port: (port.namespace, port.service, port.port, port.protocol))


def _endpoints(slices: Iterable[Item], name: str) -> Iterable[Endpoint]:
    """The ready endpoints of one port. A Pod may be in two slices while they are changed."""
    seen = set()
    for item in slices:
        for port in item.get("ports") or []:
            if str(port.get("name") or "") != name or port.get("port") is None:
                continue
            for endpoint in item.get("endpoints") or []:
                about = endpoint.get("targetRef") or {}
                pod = f"{about.get('namespace')}/{about.get('name')}" if about.get("kind") == "Pod" else ""
                # Absent means ready (discovery.k8s.io/v1).
                ready = (endpoint.get("conditions") or {}).get("ready")
                for address in (endpoint.get("addresses") or [])[:1]:
                    found = Endpoint(str(address), int(port["port"]), str(endpoint.get("nodeName") or ""), pod)
                    if ready is not False and found not in seen:
                        seen.add(found)
                        yield found
