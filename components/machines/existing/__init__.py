"""Machines that exist already: hosts of your own that answer on SSH."""

from __future__ import annotations

import pulumi

from components.machines.existing.hosts import Hosts, HostsArgs
from components.machines.machine import Machines, MachinesArgs
from components.spec.addresses import api_endpoint

__all__ = ["Hosts", "HostsArgs", "make_machines"]


def make_machines(name: str, args: MachinesArgs, opts: pulumi.ResourceOptions) -> Machines:
    return Machines(Hosts(f"{name}-machines", HostsArgs(args.lab), opts).machines, api_endpoint(args.lab))
