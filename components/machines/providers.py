"""The providers of machines, by their word for `machines.provider`."""

from __future__ import annotations

from collections.abc import Mapping

from components.machines import aws, existing, local
from components.machines.machine import Provider

PROVIDERS: Mapping[str, Provider] = {
    "aws": aws.make_machines,
    "existing": existing.make_machines,
    "local": local.make_machines,
}
