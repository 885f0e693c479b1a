"""An EC2 Instance Connect Endpoint, through which people reach workers that have no public address.

`aws ec2-instance-connect ssh` opens a tunnel through it for everyone whom IAM permits. The program itself reaches all
workers through the first control plane, because its remote commands speak SSH only and have no cloud session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.machines.aws.network import Network
from components.machines.machine import Machine
from components.spec import names
from components.spec.addresses import SSH_PORT


@dataclass(frozen=True)
class EndpointArgs:
    """`workers`: the machines behind the endpoint, which is in the first one's subnet."""

    network: Network
    workers: Sequence[Machine]
    tags: Mapping[str, str]


class Endpoint(pulumi.ComponentResource):
    """The endpoint, and the rules that let SSH through it to the nodes, and nothing else."""

    def __init__(self, name: str, args: EndpointArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(names.ENDPOINT, name, {"workers": [machine.name for machine in args.workers]}, opts)
        child = pulumi.ResourceOptions(parent=self)
        nodes = args.network.security_group_ids["nodes"]
        tags = {**args.tags, "Name": name}

        group = aws.ec2.SecurityGroup(
            name, vpc_id=args.network.vpc_id, description="cni-lab: Instance Connect Endpoint", tags=tags, opts=child
        )
        aws.vpc.SecurityGroupEgressRule(
            f"{name}-to-nodes",
            security_group_id=group.id,
            ip_protocol="tcp",
            from_port=SSH_PORT,
            to_port=SSH_PORT,
            referenced_security_group_id=nodes,
            tags=tags,
            opts=child,
        )
        aws.vpc.SecurityGroupIngressRule(
            f"{name}-to-ssh",
            security_group_id=nodes,
            ip_protocol="tcp",
            from_port=SSH_PORT,
            to_port=SSH_PORT,
            referenced_security_group_id=group.id,
            tags=tags,
            opts=child,
        )
        aws.ec2transitgateway.InstanceConnectEndpoint(
            name,
            subnet_id=args.network.subnet_ids[args.workers[0].node.subnet],
            security_group_ids=[group.id],
            # Packets then come from the endpoint's address, which a security group can name.
            preserve_client_ip=False,
            tags=tags,
            # EC2 chooses the endpoint's address. After the machines are made, it cannot be one of theirs. So `destroy`
            # deletes the machines after it, and both operations take EC2 minutes: the provider's 10 may be too few.
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[machine.resource for machine in args.workers if machine.resource],
                custom_timeouts=pulumi.CustomTimeouts(create="20m", delete="20m"),
            ),
        )
        self.register_outputs({})
