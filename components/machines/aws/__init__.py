"""Machines on EC2, in a VPC of the lab's own."""

from __future__ import annotations

import pulumi

from components.machines.aws.balancer import Balancer, BalancerArgs
from components.machines.aws.endpoint import Endpoint, EndpointArgs
from components.machines.aws.instances import Instances, InstancesArgs
from components.machines.aws.network import Network, NetworkArgs
from components.machines.machine import Machines, MachinesArgs
from components.spec import names
from components.spec.addresses import API_PORT, api_endpoint, balancer_address, has_balancer

__all__ = [
    "Balancer",
    "BalancerArgs",
    "Endpoint",
    "EndpointArgs",
    "Instances",
    "InstancesArgs",
    "Network",
    "NetworkArgs",
    "make_machines",
]


def make_machines(name: str, args: MachinesArgs, opts: pulumi.ResourceOptions) -> Machines:
    """The VPC, the instances, and what the lab needs besides: an API load balancer for several control planes, and an
    Instance Connect Endpoint for workers without public addresses."""
    lab = args.lab
    network = Network(f"{name}-network", NetworkArgs(lab, args.tags), opts)
    instances = InstancesArgs(lab, network, args.stack, args.tags)
    machines = Instances(names.machines(name), instances, opts).machines
    endpoint: pulumi.Input[str] = api_endpoint(lab)
    if has_balancer(lab):
        control_planes = [machines[node.name] for node in lab.control_planes]
        balancer = Balancer(
            f"{name}-balancer", BalancerArgs(network, control_planes, str(balancer_address(lab)), args.tags), opts
        )
        endpoint = pulumi.Output.concat(balancer.host, f":{API_PORT}")
    if lab.private_workers:
        workers = [machines[node.name] for node in lab.workers]
        Endpoint(f"{name}-endpoint", EndpointArgs(network, workers, args.tags), opts)
    return Machines(machines, endpoint)
