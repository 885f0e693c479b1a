"""Only the network and the machines of an aws lab, as a program."""

from __future__ import annotations

from typing import Any

import pulumi

from components.machines.aws import (
    Balancer,
    BalancerArgs,
    Endpoint,
    EndpointArgs,
    Instances,
    InstancesArgs,
    Network,
    NetworkArgs,
)
from components.machines.machine import Machine
from components.spec.addresses import balancer_address
from components.spec.models import Lab
from engine.model import Deployment, Resource
from engine.run import run_program
from tests.support.moto_ec2 import REGION, Cloud

TAGS = {"cni-lab:stack": "test"}
INGRESS = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
INSTANCE = "aws:ec2/instance:Instance"


def aws_lab(machines: dict[str, Any] | None = None, **keys: Any) -> Lab:
    """A valid lab on EC2 with the default nodes and the given keys."""
    own = {"provider": "aws", "operatorCidrs": ["203.0.113.7/32"], **(machines or {})}
    return Lab.model_validate({"machines": own, **keys})


def deploy(lab: Lab, cloud: Cloud | None = None, *, balancer: bool = False) -> tuple[Deployment, dict[str, Machine]]:
    """The graph of the lab: a preview without a cloud, an `up` with one."""
    machines: dict[str, Machine] = {}

    def program() -> None:
        network = Network("network", NetworkArgs(lab, TAGS))
        machines.update(Instances("machines", InstancesArgs(lab, network, "test", TAGS)).machines)
        if balancer:
            behind = [machines[node.name] for node in lab.control_planes]
            pulumi.export("host", Balancer("api", BalancerArgs(network, behind, str(balancer_address(lab)), TAGS)).host)
        if lab.private_workers:
            Endpoint("endpoint", EndpointArgs(network, [machines[node.name] for node in lab.workers], TAGS))
        # Connections are no resources, so they are exported for the tests.
        pulumi.export("connections", {name: machine.connection for name, machine in machines.items()})
        pulumi.export("apiHosts", {name: machine.api_host for name, machine in machines.items()})

    made = run_program(
        program,
        stack="test",
        config={"aws:region": REGION},
        dry_run=cloud is None,
        create=cloud.create if cloud else None,
        invoke=cloud.invoke if cloud else None,
        timeout_seconds=60,
    )
    return made, machines


def of_type(deployment: Deployment, kind: str) -> list[Resource]:
    return [resource for resource in deployment.resources if resource.type == kind]
