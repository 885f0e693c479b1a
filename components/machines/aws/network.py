"""The VPC of a lab: its subnets, its routes to the internet, and its security groups."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.machines.aws.security import security_groups
from components.spec import names
from components.spec.addresses import nat_address
from components.spec.models import AwsMachines, Lab

# A zone of the region itself, e.g. us-west-2a. Local and Wavelength Zones have longer names, e.g. us-west-2-lax-1a.
_ZONE = re.compile(r"[a-z]{2}(-[a-z]+)+-\d[a-z]")


@dataclass(frozen=True)
class NetworkArgs:
    """`tags` go on everything; the resource's own name is added as `Name`."""

    lab: Lab
    tags: Mapping[str, str]


class Network(pulumi.ComponentResource):
    """`subnet_ids` by the stack file's subnet names; `security_group_ids` by `nodes` and `control-plane`.

    `routed`: for each subnet the resource to depend on where a machine must reach the internet. Its route goes through
    the internet gateway, or through a NAT gateway for workers without public addresses.
    """

    vpc_id: pulumi.Output[str]
    subnet_ids: dict[str, pulumi.Output[str]]
    security_group_ids: dict[str, pulumi.Output[str]]
    routed: dict[str, pulumi.Resource]

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        network = args.lab.network
        subnets = {subnet: str(cidr) for subnet, cidr in network.subnets.items()}
        super().__init__(names.NETWORK, name, {"vpcCidr": str(network.vpc_cidr), "subnets": subnets}, opts)
        child = pulumi.ResourceOptions(parent=self)
        # Everything in the old network is deleted first, in its order: the machines, which have public addresses,
        # before the gateway, and the old subnet before one whose range overlaps it.
        replaced = pulumi.ResourceOptions(parent=self, delete_before_replace=True)

        def tags(resource: str) -> dict[str, str]:
            return {**args.tags, "Name": resource}

        vpc = aws.ec2.Vpc(
            f"{name}-vpc",
            cidr_block=str(network.vpc_cidr),
            enable_dns_hostnames=True,
            enable_dns_support=True,
            tags=tags(f"{name}-vpc"),
            opts=replaced,
        )
        gateway = aws.ec2.InternetGateway(
            f"{name}-gateway",
            vpc_id=vpc.id,
            tags=tags(f"{name}-gateway"),
            # The provider would move it to the new VPC. EC2 does not detach it while the old one has public addresses.
            opts=pulumi.ResourceOptions.merge(replaced, pulumi.ResourceOptions(replace_on_changes=["vpcId"])),
        )
        routes = aws.ec2.RouteTable(
            f"{name}-routes",
            vpc_id=vpc.id,
            routes=[{"cidr_block": "0.0.0.0/0", "gateway_id": gateway.id}],
            tags=tags(f"{name}-routes"),
            opts=child,
        )
        groups = security_groups(name, args.lab, vpc, args.tags, child)

        # The default, which is asked only if a subnet needs it.
        zone = _zone(self, args.lab) if set(subnets) - set(network.zones) else None
        self.subnet_ids = {}
        for subnet_name, cidr in subnets.items():
            subnet = aws.ec2.Subnet(
                f"{name}-{subnet_name}",
                vpc_id=vpc.id,
                cidr_block=cidr,
                availability_zone=network.zones.get(subnet_name, zone),
                map_public_ip_on_launch=False,
                tags=tags(f"{name}-{subnet_name}"),
                # The default may differ tomorrow, which is no reason to replace a lab.
                opts=pulumi.ResourceOptions.merge(
                    replaced,
                    pulumi.ResourceOptions(
                        ignore_changes=[] if subnet_name in network.zones else ["availability_zone"]
                    ),
                ),
            )
            self.subnet_ids[subnet_name] = subnet.id

        tables = dict.fromkeys(subnets, routes)
        if args.lab.private_workers:
            nat = self._nat_routes(f"{name}-nat", args, vpc, gateway)
            tables |= {node.subnet: nat for node in args.lab.workers}
        self.routed = {
            subnet_name: aws.ec2.RouteTableAssociation(
                f"{name}-{subnet_name}",
                subnet_id=subnet_id,
                route_table_id=tables[subnet_name].id,
                # The provider would change it in place, whereby EC2 gives it another id, and pulumi keeps the old one:
                # a refresh finds it gone, and EC2 refuses a second one for the subnet (pulumi-aws#3911).
                opts=pulumi.ResourceOptions.merge(
                    replaced,
                    pulumi.ResourceOptions(depends_on=[groups.egress], replace_on_changes=["routeTableId"]),
                ),
            )
            for subnet_name, subnet_id in self.subnet_ids.items()
        }

        self.vpc_id = vpc.id
        self.security_group_ids = groups.ids
        self.register_outputs(
            {"vpcId": self.vpc_id, "subnetIds": self.subnet_ids, "securityGroupIds": self.security_group_ids}
        )

    def _nat_routes(
        self, name: str, args: NetworkArgs, vpc: aws.ec2.Vpc, gateway: aws.ec2.InternetGateway
    ) -> aws.ec2.RouteTable:
        """A NAT gateway in the first control plane's subnet, and the route table that leads to it."""
        tags, child = {**args.tags, "Name": name}, pulumi.ResourceOptions(parent=self)
        address = aws.ec2.Eip(name, domain="vpc", tags=tags, opts=child)
        nat = aws.ec2.NatGateway(
            name,
            subnet_id=self.subnet_ids[args.lab.control_planes[0].subnet],
            allocation_id=address.allocation_id,
            private_ip=str(nat_address(args.lab)),
            tags=tags,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[gateway]),
        )
        return aws.ec2.RouteTable(
            name,
            vpc_id=vpc.id,
            routes=[{"cidr_block": "0.0.0.0/0", "nat_gateway_id": nat.id}],
            tags=tags,
            opts=child,
        )


def _zone(parent: pulumi.Resource, lab: Lab) -> pulumi.Output[str]:
    """The first availability zone, by name, that offers the instance type. All subnets that name no zone are
    in this one: traffic inside a zone is free."""
    assert isinstance(lab.machines, AwsMachines)
    instance_type = lab.machines.instance_type
    offers = aws.ec2.get_instance_type_offerings_output(
        filters=[{"name": "instance-type", "values": [instance_type]}],
        location_type="availability-zone",
        opts=pulumi.InvokeOutputOptions(parent=parent),
    )

    def first(zones: list[str]) -> str:
        zones = [zone for zone in zones if _ZONE.fullmatch(zone)]
        if not zones:
            raise pulumi.RunError(
                f"machines.instanceType: {instance_type} — no zone of the region offers it. "
                "Fix: choose another type, or another aws:region"
            )
        return min(zones)

    return offers.locations.apply(first)
