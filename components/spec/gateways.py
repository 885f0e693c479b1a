"""Pods that are the gateway of other pods: firewalls with a fixed address on the node's own bridge.

A workload's `defaultRoute` may name an address that another workload has by `ips` (or from a static network) on the
same bridge. Every node has a bridge of its own, so every node of the one workload needs a pod of the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address

from components.spec.links import fixed_addresses
from components.spec.models import BridgeNetwork, Lab, Workload


@dataclass(frozen=True)
class Firewall:
    """A workload whose pods have `address` on the bridge of `network`, at `interface`."""

    workload: Workload
    network: BridgeNetwork
    interface: str
    address: IPv4Address


def holders(lab: Lab, network: BridgeNetwork, address: IPv4Address) -> Iterator[Firewall]:
    """The workloads whose pods have this fixed address on the network's bridge."""
    same_bridge = {n.name: n for n in lab.networks if isinstance(n, BridgeNetwork) and n.bridge == network.bridge}
    for workload in lab.workloads:
        for interface, attachment in workload.interfaces.items():
            own = same_bridge.get(attachment.name)
            if own is not None and address in fixed_addresses(own, attachment):
                yield Firewall(workload, own, interface, address)


def firewalls_of(lab: Lab, workload: Workload) -> list[Firewall]:
    """The workloads through whose pods this workload's pods have their default route."""
    networks = {n.name: n for n in lab.networks if isinstance(n, BridgeNetwork)}
    found: list[Firewall] = []
    for attachment in workload.networks:
        if attachment.default_route is not None and attachment.name in networks:
            others = holders(lab, networks[attachment.name], attachment.default_route)
            found += [firewall for firewall in others if firewall.workload != workload]
    return found


def firewalls(lab: Lab) -> list[Firewall]:
    """Every workload whose pods are the gateway of other pods."""
    found = {(f.workload.namespace, f.workload.name): f for w in lab.workloads for f in firewalls_of(lab, w)}
    return list(found.values())


def forwards(lab: Lab, workload: Workload) -> bool:
    """Whether Calico's plugin lets the workload's pods forward packets."""
    delegate = lab.delegate_of(workload)
    own = delegate.allow_ip_forwarding if delegate is not None else None
    return lab.calico.container_ip_forwarding == "Enabled" if own is None else own
