"""What every model and several of their fields are made of."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

DnsLabel = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
Version = Annotated[str, StringConstraints(pattern=r"^\d{1,3}\.\d{1,3}\.\d{1,3}$")]
InterfaceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,15}$")]
UserName = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]
HostName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$")]
Line = Annotated[str, StringConstraints(pattern=r"^[^\n]*[^\s][^\n]*$")]
AbsolutePath = Annotated[str, StringConstraints(pattern=r"^/[^:\n]*$")]
Cidr = IPv4Network
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
