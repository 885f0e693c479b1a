"""What link an attached network's pods stand on: one inside their node, or one that they share with other nodes' pods.

The same address may stand once on every node where the link ends at the node, and once in all on a shared one. So this
decides which IPAM can work: host-local keeps its list on each node and knows nothing of the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Interface
from typing import Any, Final

from components.spec.models import AddressedNetwork, AttachedNetwork, CustomNetwork, StaticAddresses

_SHARED: Final = {"macvlan", "ipvlan", "host-device", "vlan", "sriov", "ib-sriov"}
"""Plugins that put pods on a link of the node's own. Of a plugin that is not known here nothing is assumed."""


def plugin_of(network: AttachedNetwork) -> str:
    """The CNI plugin that makes the pod's interface; empty where a custom configuration names none."""
    return str(_first_plugin(network).get("type", "")) if isinstance(network, CustomNetwork) else network.type


def is_shared(network: AttachedNetwork) -> bool:
    """Whether pods of different nodes stand on one link. A bridge ends at its node, whatever its name elsewhere."""
    return plugin_of(network) in _SHARED


def ipam_of(network: AttachedNetwork) -> str:
    """The IPAM plugin; empty where there is none."""
    if isinstance(network, AddressedNetwork):
        return network.ipam.type
    return str(_ipam(network).get("type", ""))


def static_addresses(network: AttachedNetwork) -> tuple[IPv4Address, ...]:
    """The addresses that every pod of the network gets, none where its IPAM is not static."""
    if isinstance(network, AddressedNetwork):
        return tuple(a.ip for a in network.ipam.addresses) if isinstance(network.ipam, StaticAddresses) else ()
    listed = _ipam(network).get("addresses") if ipam_of(network) == "static" else None
    texts = [entry.get("address") for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return tuple(address for text in texts if (address := _address(text)) is not None)


def _address(text: object) -> IPv4Address | None:
    try:
        return IPv4Interface(str(text)).ip
    except ValueError:
        return None


def _ipam(network: AttachedNetwork) -> Mapping[str, Any]:
    ipam = _first_plugin(network).get("ipam")
    return ipam if isinstance(ipam, dict) else {}


def _first_plugin(network: AttachedNetwork) -> Mapping[str, Any]:
    """The part of a custom configuration that makes the interface: all of it, or the first of its plugins."""
    if not isinstance(network, CustomNetwork):
        return {}
    plugins = network.config.get("plugins", [network.config])
    first = plugins[0] if isinstance(plugins, list) and plugins else {}
    return first if isinstance(first, dict) else {}
