"""What an attached network gives its pods: a link that ends at the node or is shared, addresses, a gateway.

On a link that ends at the node, each node may use the same address once. On a shared link an address must be unique in
the cluster. This decides which IPAM plugin works: host-local has a list on each node and does not know the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Interface
from typing import Any, Final

from components.spec.models import AddressedNetwork, AttachedNetwork, Attachment, CustomNetwork, StaticAddresses

_SHARED: Final = {"macvlan", "ipvlan", "host-device", "vlan", "sriov", "ib-sriov"}
"""Plugins that put pods on a link of the node itself. All other plugins count as ending at the node."""


def plugin_of(network: AttachedNetwork) -> str:
    """The CNI plugin that makes the pod's interface. Empty if a custom configuration names none."""
    return str(_first_plugin(network).get("type", "")) if isinstance(network, CustomNetwork) else network.type


def is_shared(network: AttachedNetwork) -> bool:
    """Whether pods of different nodes share one link. A bridge ends at its node, also if others have the same name."""
    return plugin_of(network) in _SHARED


def ipam_of(network: AttachedNetwork) -> str:
    """The IPAM plugin. Empty if there is none."""
    if isinstance(network, AddressedNetwork):
        return network.ipam.type
    return str(_ipam(network).get("type", ""))


def static_addresses(network: AttachedNetwork) -> tuple[IPv4Address, ...]:
    """The addresses that every pod of the network gets. Empty if its IPAM plugin is not static."""
    if isinstance(network, AddressedNetwork):
        return tuple(a.ip for a in network.ipam.addresses) if isinstance(network.ipam, StaticAddresses) else ()
    listed = _ipam(network).get("addresses") if ipam_of(network) == "static" else None
    texts = [entry.get("address") for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    return tuple(address for text in texts if (address := _address(text)) is not None)


def fixed_addresses(network: AttachedNetwork, attachment: Attachment) -> tuple[IPv4Address, ...]:
    """The addresses that every pod with this attachment gets. Empty if an IPAM plugin chooses them."""
    return tuple(address.ip for address in attachment.ips) or static_addresses(network)


def gateway(network: AddressedNetwork) -> IPv4Address:
    """The gateway. Default: the first address of the subnet."""
    return network.ipam.gateway or network.subnet[min(1, network.subnet.num_addresses - 1)]


def definition_name(network: AttachedNetwork, attachment: Attachment) -> str:
    """The NetworkAttachmentDefinition that the attachment asks Multus for.

    For an attachment with `ips` the lab makes a second one of the network, with the IPAM plugin static. host-local
    takes a requested address only from its own range, and might give it to another pod before.
    """
    own = attachment.ips and isinstance(network, AddressedNetwork)
    return f"{network.name}-fixed" if own else network.name


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
