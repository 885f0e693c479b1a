"""Machines on this computer: containers that run systemd and sshd."""

from __future__ import annotations

import pulumi

from components.machines.local.containers import Containers, ContainersArgs
from components.machines.machine import Machines, MachinesArgs
from components.spec.addresses import api_endpoint

__all__ = ["Containers", "ContainersArgs", "make_machines"]


def make_machines(name: str, args: MachinesArgs, opts: pulumi.ResourceOptions) -> Machines:
    containers = Containers(f"{name}-machines", ContainersArgs(args.lab, args.stack), opts)
    return Machines(containers.machines, api_endpoint(args.lab))
