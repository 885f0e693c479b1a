"""The link, the IPAM plugin and the fixed addresses of an attached network, also of a custom configuration."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

import pytest
from pydantic import TypeAdapter

from components.spec.links import (
    definition_name,
    fixed_addresses,
    gateway,
    ipam_of,
    is_shared,
    plugin_of,
    static_addresses,
)
from components.spec.models import AttachedNetwork, Attachment

NETWORK: TypeAdapter[AttachedNetwork] = TypeAdapter(AttachedNetwork)
STATIC = {"type": "static", "addresses": [{"address": "10.1.1.5/24"}, {"address": "10.1.1.6/24"}]}
HOST_LOCAL = STATIC | {"type": "host-local"}


def custom(config: dict[str, Any]) -> AttachedNetwork:
    return NETWORK.validate_python({"name": "net", "type": "custom", "config": config})


def bridge(**keys: Any) -> AttachedNetwork:
    return NETWORK.validate_python({"name": "net", "type": "bridge", "bridge": "br1", "subnet": "10.1.1.0/24"} | keys)


@pytest.mark.parametrize(
    ("network", "plugin", "shared", "ipam", "addresses"),
    [
        (bridge(), "bridge", False, "host-local", []),
        (bridge(ipam={"type": "static", "addresses": ["10.1.1.5/24"]}), "bridge", False, "static", ["10.1.1.5"]),
        (custom({"type": "macvlan", "ipam": STATIC}), "macvlan", True, "static", ["10.1.1.5", "10.1.1.6"]),
        # The first plugin of a list makes the interface.
        (
            custom({"plugins": [{"type": "ptp", "ipam": STATIC}, {"type": "vlan"}]}),
            "ptp",
            False,
            "static",
            ["10.1.1.5", "10.1.1.6"],
        ),
        (custom({"plugins": [{"type": "vlan"}, {"type": "ptp", "ipam": STATIC}]}), "vlan", True, "", []),
        # Only the plugin static reads addresses.
        (custom({"type": "ptp", "ipam": HOST_LOCAL}), "ptp", False, "host-local", []),
        # Another rule has the findings of what follows.
        (
            custom({"type": "ptp", "ipam": STATIC | {"addresses": [{"address": "x"}, 7, {}]}}),
            "ptp",
            False,
            "static",
            [],
        ),
        (custom({"type": "ptp", "ipam": STATIC | {"addresses": "10.1.1.5/24"}}), "ptp", False, "static", []),
        (custom({"type": "ptp", "ipam": 7}), "ptp", False, "", []),
        (custom({"plugins": []}), "", False, "", []),
        (custom({"plugins": "vlan"}), "", False, "", []),
        (custom({"plugins": [7]}), "", False, "", []),
    ],
)
def test_the_link_and_the_addresses_of_a_network(
    network: AttachedNetwork, plugin: str, shared: bool, ipam: str, addresses: list[str]
) -> None:
    assert (plugin_of(network), is_shared(network), ipam_of(network)) == (plugin, shared, ipam)
    assert [str(address) for address in static_addresses(network)] == addresses


def test_the_addresses_of_an_attachment_come_before_those_of_its_network() -> None:
    network = custom({"type": "ptp", "ipam": STATIC})
    own = Attachment.model_validate({"name": "net", "ips": ["10.1.1.9/24"]})
    assert fixed_addresses(network, own) == (IPv4Address("10.1.1.9"),)
    assert fixed_addresses(network, Attachment(name="net")) == (IPv4Address("10.1.1.5"), IPv4Address("10.1.1.6"))


def test_only_fixed_addresses_of_a_network_of_the_lab_need_a_second_definition() -> None:
    """A custom configuration takes the addresses itself, by its capability."""
    plain, own = Attachment(name="net"), Attachment.model_validate({"name": "net", "ips": ["10.1.1.9/24"]})
    assert definition_name(bridge(), plain) == "net"
    assert definition_name(bridge(), own) == "net-fixed"
    assert definition_name(custom({"type": "ptp"}), plain) == "net"
    assert definition_name(custom({"type": "ptp"}), own) == "net"


@pytest.mark.parametrize(
    ("subnet", "ipam", "expected"),
    [
        ("10.1.128.0/24", {}, "10.1.128.1"),
        ("10.1.128.0/24", {"gateway": "10.1.128.254"}, "10.1.128.254"),
        ("10.1.128.0/31", {}, "10.1.128.1"),
        ("10.1.128.0/32", {}, "10.1.128.0"),
    ],
)
def test_the_gateway_of_a_network(subnet: str, ipam: dict[str, Any], expected: str) -> None:
    assert str(gateway(bridge(subnet=subnet, ipam={"type": "host-local"} | ipam))) == expected
