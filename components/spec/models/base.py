"""What every model and several of their fields are made of."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv4Network
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

DnsLabel = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
InterfaceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,15}$")]
UserName = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]
HostName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$")]
Line = Annotated[str, StringConstraints(pattern=r"^[^\n]*[^\s][^\n]*$")]
AbsolutePath = Annotated[str, StringConstraints(pattern=r"^/[^:\n]*$")]


def _without_mask(value: object) -> object:
    """Refuse a mask, such as 255.255.255.0, which ipaddress would read as a prefix length."""
    if isinstance(value, str) and "/" in value and not value.rpartition("/")[2].isdecimal():
        raise ValueError("a mask in place of a prefix length")
    return value


def _with_prefix(value: object) -> object:
    """Refuse a network without a prefix length, which ipaddress would read as one address."""
    if isinstance(value, str) and "/" not in value:
        raise ValueError("no prefix length")
    return _without_mask(value)


Cidr = Annotated[IPv4Network, BeforeValidator(_with_prefix)]
Interface = Annotated[IPv4Interface, BeforeValidator(_without_mask)]
AsNumber = Annotated[int, Field(ge=1, le=4294967295)]
Port = Annotated[int, Field(ge=1, le=65535)]
Mtu = Annotated[int, Field(ge=1280, le=9216)]
Labels = dict[str, str]

Switch = Literal["Enabled", "Disabled"]

CONFIG_KEY = r"^[A-Za-z][A-Za-z0-9_-]{3,62}$"
"""A key of the stack's configuration in this project's namespace. It is longer than the lab's own, `lab`."""

DEFAULT_POD_CIDR = IPv4Network("10.244.0.0/16")
"""The default of kubernetes.podCidr, from which the default pool follows."""


class Model(BaseModel):
    """The docstrings below the fields are the descriptions in the schema: see components/spec/described.py."""

    # A model that is part of another needs no validator of its own, so pydantic builds one only where it is asked for.
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, hide_input_in_errors=True, defer_build=True
    )
