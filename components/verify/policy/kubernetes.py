"""Kubernetes' NetworkPolicies (networking.k8s.io/v1)."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from components.verify.model import Pod
from components.verify.policy.model import Labels, Policy, Rule, Side, Traffic

Item = Mapping[str, Any]
_ORDER = 1000.0
"""Where Calico puts them in its default tier."""


def network_policy(item: Item) -> Policy:
    """One policy. Raises KeyError, TypeError or ValueError for another form."""
    metadata, spec = item["metadata"], item.get("spec") or {}
    namespace = str(metadata["namespace"])
    pods = spec.get("podSelector") or {}
    types = spec.get("policyTypes") or ["Ingress", *(["Egress"] if spec.get("egress") else [])]

    def selects(pod: Pod, _: Labels) -> bool:
        return pod.namespace == namespace and label_selector(pods, pod.labels)

    rules: dict[Side, tuple[Rule, ...]] = {}
    if "Ingress" in types:
        rules["ingress"] = tuple(_rule(rule, "ingress", namespace) for rule in spec.get("ingress") or [])
    if "Egress" in types:
        rules["egress"] = tuple(_rule(rule, "egress", namespace) for rule in spec.get("egress") or [])
    return Policy("NetworkPolicy", f"{namespace}/{metadata['name']}", "default", _ORDER, selects, rules)


def label_selector(selector: Item, labels: Labels) -> bool:
    """matchLabels and matchExpressions. An empty selector matches everything."""
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != str(value):
            return False
    for term in selector.get("matchExpressions") or []:
        key, values, held = term["key"], term.get("values") or [], term["key"] in labels
        match term["operator"]:
            case "In":
                found = held and labels[key] in values
            case "NotIn":
                found = not held or labels[key] not in values
            case "Exists":
                found = held
            case "DoesNotExist":
                found = not held
            case other:
                raise ValueError(f"the operator {other} is not known")
        if not found:
            return False
    return True


def _rule(rule: Item, side: Side, namespace: str) -> Rule:
    peers, ports = rule.get("from" if side == "ingress" else "to") or [], rule.get("ports") or []

    def matches(traffic: Traffic) -> bool:
        by_peer = not peers or any(_peer(peer, side, namespace, traffic) for peer in peers)
        return by_peer and (not ports or any(_port(port, traffic) for port in ports))

    who = "; ".join(_peer_text(peer) for peer in peers) or "everybody"
    where = ", ".join(_port_text(port) for port in ports) or "everything"
    return Rule("allow", f"{'from' if side == 'ingress' else 'to'} {who}: {where}", matches)


def _peer(peer: Item, side: Side, namespace: str, traffic: Traffic) -> bool:
    party = traffic.source if side == "ingress" else traffic.destination
    if block := peer.get("ipBlock"):
        address = IPv4Address(party.address)
        if ":" in block["cidr"] or address not in IPv4Network(block["cidr"], strict=False):
            return False
        return not any(address in IPv4Network(cidr, strict=False) for cidr in block.get("except") or [])
    # Pods on the host's network have no address of their own, so no selector matches them.
    if party.pod is None or party.pod.host_network:
        return False
    if "namespaceSelector" in peer:
        if not label_selector(peer["namespaceSelector"] or {}, party.namespace):
            return False
    elif party.pod.namespace != namespace:
        return False
    return label_selector(peer.get("podSelector") or {}, party.pod.labels)


def _port(port: Item, traffic: Traffic) -> bool:
    """ICMP has no port, so a rule with ports does not allow it."""
    if str(port.get("protocol") or "TCP").lower() != traffic.protocol:
        return False
    wanted = port.get("port")
    if wanted is None:
        return True
    if isinstance(wanted, str) and not wanted.isdigit():
        named = traffic.destination.pod.ports.get(wanted) if traffic.destination.pod else None
        return named == traffic.port
    return int(wanted) <= traffic.port <= int(port.get("endPort") or wanted)


def _peer_text(peer: Item) -> str:
    if block := peer.get("ipBlock"):
        excepted = f" except {', '.join(block['except'])}" if block.get("except") else ""
        return f"ipBlock {block['cidr']}{excepted}"
    words = [f"{key} {_selector_text(peer[key] or {})}" for key in ("namespaceSelector", "podSelector") if key in peer]
    return " and ".join(words)


def _selector_text(selector: Item) -> str:
    words = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for term in selector.get("matchExpressions") or []:
        words.append(f"{term['key']} {term['operator']} {','.join(term.get('values') or [])}".strip())
    return ",".join(words) or "(all)"


def _port_text(port: Item) -> str:
    last = f"-{port['endPort']}" if port.get("endPort") else ""
    return f"{port.get('protocol') or 'TCP'} {port.get('port', '')}{last}".strip()
