"""Calico's NetworkPolicies and GlobalNetworkPolicies, as crd.projectcalico.org/v1 stores them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from components.spec.grammar.selector import Selector, parse
from components.verify.model import Pod
from components.verify.policy.model import Labels, Party, Policy, Rule, Side, Traffic

Item = Mapping[str, Any]
_PROTOCOLS = {"1": "icmp", "6": "tcp", "17": "udp"}
_NOT_EVALUATED = ("serviceAccounts", "services", "domains")
_LAST = float("inf")


def calico_policy(item: Item, *, namespaced: bool) -> Policy:
    """One policy. Raises KeyError, TypeError or ValueError (SelectorError too) for another form."""
    metadata, spec = item["metadata"], item.get("spec") or {}
    namespace = str(metadata["namespace"]) if namespaced else ""
    selector, spaces = parse(spec.get("selector") or ""), parse(spec.get("namespaceSelector") or "")

    def selects(pod: Pod, labels: Labels) -> bool | None:
        if namespaced and pod.namespace != namespace:
            return False
        if not namespaced and spec.get("namespaceSelector") and not spaces.selects(labels):
            return False
        if not selector.selects(_labels(pod)):
            return False
        return None if spec.get("serviceAccountSelector") or spec.get("preDNAT") or spec.get("doNotTrack") else True

    given = spec.get("types") or [
        *(["Ingress"] if spec.get("ingress") or not spec.get("egress") else []),
        *(["Egress"] if spec.get("egress") else []),
    ]
    sides: tuple[Side, Side] = ("ingress", "egress")
    rules: dict[Side, tuple[Rule, ...]] = {
        side: tuple(_rule(rule, namespace) for rule in spec.get(side) or [])
        for side in sides
        if side.capitalize() in given
    }
    kind = "Calico NetworkPolicy" if namespaced else "GlobalNetworkPolicy"
    name = f"{namespace}/{metadata['name']}" if namespaced else str(metadata["name"])
    order = float(spec["order"]) if spec.get("order") is not None else _LAST
    return Policy(kind, name, str(spec.get("tier") or "default"), order, selects, rules)


def _labels(pod: Pod) -> dict[str, str]:
    """With those that Calico adds to a workload endpoint."""
    return {
        **pod.labels,
        "projectcalico.org/namespace": pod.namespace,
        "projectcalico.org/orchestrator": "k8s",
    }


def _rule(rule: Item, namespace: str) -> Rule:
    source, destination = rule.get("source") or {}, rule.get("destination") or {}
    odd = [key for side in (source, destination) for key in _NOT_EVALUATED if side.get(key)]
    odd += [key for key in ("http", "notICMP", "notProtocol") if rule.get(key)]
    of_source, of_destination = _selectors(source), _selectors(destination)

    def matches(traffic: Traffic) -> bool | None:
        if rule.get("protocol") is not None and _protocol(rule["protocol"]) != traffic.protocol:
            return False
        found = _party(source, of_source, traffic.source, namespace, traffic, ports=False)
        found = found and _party(destination, of_destination, traffic.destination, namespace, traffic, ports=True)
        return None if found and (odd or source.get("ports") or rule.get("icmp")) else found

    words = [str(rule.get("protocol") or "any protocol")]
    words += [f"source {_text(source)}"] if source else []
    words += [f"destination {_text(destination)}"] if destination else []
    return Rule(str(rule["action"]).lower(), f"{rule['action']} {', '.join(words)}", matches)


def _selectors(entity: Item) -> dict[str, Selector]:
    """The selectors of a rule's `source` or `destination`, by key. Raises SelectorError."""
    keys = ("selector", "notSelector", "namespaceSelector")
    return {key: parse(entity[key]) for key in keys if entity.get(key)}


def _protocol(value: object) -> str:
    return _PROTOCOLS.get(str(value), str(value).lower())


def _party(
    entity: Item, selectors: Mapping[str, Selector], party: Party, namespace: str, traffic: Traffic, *, ports: bool
) -> bool:
    """Whether one end of a packet is what a rule's `source` or `destination` says."""
    address = IPv4Address(party.address)
    if entity.get("nets") and not _inside(address, entity["nets"]):
        return False
    if entity.get("notNets") and _inside(address, entity["notNets"]):
        return False
    if selectors:
        # A selector matches pods (and other endpoints that Calico knows) only.
        if party.pod is None or party.pod.host_network:
            return False
        labels = _labels(party.pod)
        # A namespaced policy means its own namespace where it names none.
        if spaces := selectors.get("namespaceSelector"):
            if spaces.text.strip() != "global()" and not spaces.selects(party.namespace):
                return False
        elif namespace and party.pod.namespace != namespace:
            return False
        if "selector" in selectors and not selectors["selector"].selects(labels):
            return False
        if "notSelector" in selectors and selectors["notSelector"].selects(labels):
            return False
    if ports and entity.get("ports") and not any(_is_port(port, party, traffic.port) for port in entity["ports"]):
        return False
    return not (
        ports and entity.get("notPorts") and any(_is_port(port, party, traffic.port) for port in entity["notPorts"])
    )


def _inside(address: IPv4Address, nets: Sequence[str]) -> bool:
    return any(":" not in cidr and address in IPv4Network(cidr, strict=False) for cidr in nets)


def _is_port(wanted: object, party: Party, port: int) -> bool:
    """A number, a range FIRST:LAST, or the name of a container's port."""
    first, _, last = str(wanted).partition(":")
    if first.isdigit():
        return int(first) <= port <= int(last or first)
    return party.pod is not None and party.pod.ports.get(first) == port


def _text(entity: Item) -> str:
    return " ".join(
        f"{key} {','.join(map(str, value)) if isinstance(value, list) else value}" for key, value in entity.items()
    )
