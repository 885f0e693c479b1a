"""An internal network load balancer for the API of several control planes.

It is internal because nodes reach it from their private addresses, which a security group can name. Operators reach the
API at the first control plane's fixed public address.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.machines.aws.network import Network
from components.machines.machine import Machine
from components.spec import names
from components.spec.addresses import API_PORT


@dataclass(frozen=True)
class BalancerArgs:
    """`control_planes`: the machines behind the balancer, which is in the first one's subnet. `address`: its own
    address there."""

    network: Network
    control_planes: Sequence[Machine]
    address: str
    tags: Mapping[str, str]


class Balancer(pulumi.ComponentResource):
    """`host` is the balancer's DNS name; it is known before any control plane answers."""

    host: pulumi.Output[str]

    def __init__(self, name: str, args: BalancerArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(
            names.BALANCER, name, {"controlPlanes": [machine.name for machine in args.control_planes]}, opts
        )
        child = pulumi.ResourceOptions(parent=self)
        groups = args.network.security_group_ids
        tags = {**args.tags, "Name": name}

        group = aws.ec2.SecurityGroup(
            name, vpc_id=args.network.vpc_id, description="cni-lab: API load balancer", tags=tags, opts=child
        )
        aws.vpc.SecurityGroupIngressRule(
            f"{name}-from-nodes",
            security_group_id=group.id,
            ip_protocol="tcp",
            from_port=API_PORT,
            to_port=API_PORT,
            referenced_security_group_id=groups["nodes"],
            tags=tags,
            opts=child,
        )
        aws.vpc.SecurityGroupEgressRule(
            f"{name}-to-control-plane",
            security_group_id=group.id,
            ip_protocol="tcp",
            from_port=API_PORT,
            to_port=API_PORT,
            referenced_security_group_id=groups["control-plane"],
            tags=tags,
            opts=child,
        )
        aws.vpc.SecurityGroupIngressRule(
            f"{name}-to-api",
            security_group_id=groups["control-plane"],
            ip_protocol="tcp",
            from_port=API_PORT,
            to_port=API_PORT,
            referenced_security_group_id=group.id,
            tags=tags,
            opts=child,
        )
        balancer = aws.lb.LoadBalancer(
            name,
            name_prefix="k8s-",
            load_balancer_type="network",
            internal=True,
            # Chosen here because EC2 would choose any, also one of a node that is made later.
            subnet_mappings=[
                {
                    "subnet_id": args.network.subnet_ids[args.control_planes[0].node.subnet],
                    "private_ipv4_address": args.address,
                }
            ],
            security_groups=[group.id],
            tags=tags,
            # A balancer keeps the address that it has. Another one would be another balancer with another name, which
            # the certificates of a live lab do not have.
            opts=pulumi.ResourceOptions(parent=self, ignore_changes=["subnetMappings", "subnets"]),
        )
        targets = aws.lb.TargetGroup(
            name,
            name_prefix="k8s-",
            vpc_id=args.network.vpc_id,
            target_type="instance",
            protocol="TCP",
            port=API_PORT,
            # When the balancer sends a control plane's connection back to that same control plane, packets with its own
            # address as their source would be dropped.
            preserve_client_ip="false",
            deregistration_delay=10,
            health_check={
                "protocol": "HTTPS",
                "path": "/readyz",
                "matcher": "200",
                "interval": 5,
                "timeout": 3,
                "healthy_threshold": 2,
                "unhealthy_threshold": 2,
            },
            tags=tags,
            opts=child,
        )
        aws.lb.Listener(
            name,
            load_balancer_arn=balancer.arn,
            protocol="TCP",
            port=API_PORT,
            default_actions=[{"type": "forward", "target_group_arn": targets.arn}],
            tags=tags,
            opts=child,
        )
        for machine in args.control_planes:
            aws.lb.TargetGroupAttachment(
                f"{name}-{machine.name}",
                target_group_arn=targets.arn,
                target_id=machine.id,
                port=API_PORT,
                opts=pulumi.ResourceOptions(parent=self, deleted_with=machine.resource),
            )
        self.host = balancer.dns_name
        self.register_outputs({"host": self.host})
