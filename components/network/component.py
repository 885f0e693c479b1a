"""The VPC of a lab: subnets by name, one way out, and exactly the traffic in that the lab's mode needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.spec.addresses import Rule, nat_address, rules
from components.spec.models import AwsMachines, Lab


@dataclass(frozen=True)
class NetworkArgs:
    """`tags` go on everything; the resource's own name is added as `Name`."""

    lab: Lab
    tags: Mapping[str, str]


class Network(pulumi.ComponentResource):
    """`subnet_ids` by the stack file's subnet names; `security_group_ids` by `nodes` and `control-plane`.

    `routed` has, for each subnet, the leaf to depend on where the way out must stand: the internet gateway, and for
    workers without public addresses a NAT gateway.
    """

    vpc_id: pulumi.Output[str]
    subnet_ids: dict[str, pulumi.Output[str]]
    security_group_ids: dict[str, pulumi.Output[str]]
    routed: dict[str, pulumi.Resource]

    def __init__(self, name: str, args: NetworkArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        network = args.lab.network
        subnets = {subnet: str(cidr) for subnet, cidr in network.subnets.items()}
        super().__init__("cnilab:network:Network", name, {"vpcCidr": str(network.vpc_cidr), "subnets": subnets}, opts)
        child = pulumi.ResourceOptions(parent=self)

        def tags(resource: str) -> dict[str, str]:
            return {**args.tags, "Name": resource}

        vpc = aws.ec2.Vpc(
            f"{name}-vpc",
            cidr_block=str(network.vpc_cidr),
            enable_dns_hostnames=True,
            enable_dns_support=True,
            tags=tags(f"{name}-vpc"),
            opts=child,
        )
        # The group that AWS gives every VPC lets its members reach one another; ours says what may pass, so empty it.
        aws.ec2.DefaultSecurityGroup(f"{name}-default", vpc_id=vpc.id, tags=tags(f"{name}-default-unused"), opts=child)

        gateway = aws.ec2.InternetGateway(f"{name}-gateway", vpc_id=vpc.id, tags=tags(f"{name}-gateway"), opts=child)
        routes = aws.ec2.RouteTable(
            f"{name}-routes",
            vpc_id=vpc.id,
            routes=[{"cidr_block": "0.0.0.0/0", "gateway_id": gateway.id}],
            tags=tags(f"{name}-routes"),
            opts=child,
        )
        groups = {
            group: aws.ec2.SecurityGroup(
                f"{name}-{group}",
                vpc_id=vpc.id,
                description=f"cni-lab: {text}",
                tags=tags(f"{name}-{group}"),
                opts=child,
            )
            for group, text in {"nodes": "every node", "control-plane": "control planes only"}.items()
        }
        egress = aws.vpc.SecurityGroupEgressRule(
            f"{name}-egress",
            security_group_id=groups["nodes"].id,
            ip_protocol="-1",
            cidr_ipv4="0.0.0.0/0",
            description="packages, images, time",
            tags=tags(f"{name}-egress"),
            opts=child,
        )
        for rule in rules(args.lab):
            for suffix, cidr in _sources(args.lab, rule):
                rule_name = f"{name}-{rule.name}{suffix}"
                aws.vpc.SecurityGroupIngressRule(
                    rule_name,
                    security_group_id=groups[rule.to].id,
                    ip_protocol=rule.protocol,
                    # Ports mean something to tcp, udp and icmp only; EC2 has none for other protocols and for all.
                    from_port=rule.from_port if rule.protocol in {"tcp", "udp", "icmp"} else None,
                    to_port=rule.to_port if rule.protocol in {"tcp", "udp", "icmp"} else None,
                    cidr_ipv4=cidr,
                    referenced_security_group_id=groups["nodes"].id if cidr is None else None,
                    description=f"{rule.name} from {rule.source}",
                    tags=tags(rule_name),
                    opts=child,
                )

        zone = _zone(self, args.lab)
        self.subnet_ids = {}
        for subnet_name, cidr in subnets.items():
            subnet = aws.ec2.Subnet(
                f"{name}-{subnet_name}",
                vpc_id=vpc.id,
                cidr_block=cidr,
                availability_zone=zone,
                map_public_ip_on_launch=False,
                tags=tags(f"{name}-{subnet_name}"),
                # Another zone on offer tomorrow is no reason to build the lab anew.
                opts=pulumi.ResourceOptions(parent=self, ignore_changes=["availability_zone"]),
            )
            self.subnet_ids[subnet_name] = subnet.id

        ways_out = dict.fromkeys(subnets, routes)
        if args.lab.private_workers:
            nat = self._nat(f"{name}-nat", args, vpc, gateway)
            ways_out |= {node.subnet: nat for node in args.lab.workers}
        self.routed = {
            subnet_name: aws.ec2.RouteTableAssociation(
                f"{name}-{subnet_name}",
                subnet_id=subnet_id,
                route_table_id=ways_out[subnet_name].id,
                opts=pulumi.ResourceOptions(parent=self, depends_on=[egress]),
            )
            for subnet_name, subnet_id in self.subnet_ids.items()
        }

        self.vpc_id = vpc.id
        self.security_group_ids = {group: resource.id for group, resource in groups.items()}
        self.register_outputs(
            {"vpcId": self.vpc_id, "subnetIds": self.subnet_ids, "securityGroupIds": self.security_group_ids}
        )

    def _nat(
        self, name: str, args: NetworkArgs, vpc: aws.ec2.Vpc, gateway: aws.ec2.InternetGateway
    ) -> aws.ec2.RouteTable:
        """A NAT gateway in the first control plane's subnet, and the routes that lead to it."""
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


def _sources(lab: Lab, rule: Rule) -> Iterator[tuple[str, str | None]]:
    """Name suffix and CIDR of every row that a rule makes; no CIDR stands for the nodes' own security group."""
    if rule.source == "nodes":
        yield "", None
    elif rule.source == "operators":
        assert isinstance(lab.machines, AwsMachines)
        for cidr in lab.machines.operator_cidrs:
            yield f"-{str(cidr).replace('/', '-')}", str(cidr)
    else:
        for pool in lab.calico.pools:
            if pool.mode.sends_plain:
                yield f"-{pool.name}", str(pool.cidr)


def _zone(parent: pulumi.Resource, lab: Lab) -> pulumi.Output[str]:
    """The first zone, by name, that offers the lab's instance type. One zone: traffic between nodes costs nothing."""
    assert isinstance(lab.machines, AwsMachines)
    offers = aws.ec2.get_instance_type_offerings_output(
        filters=[{"name": "instance-type", "values": [lab.machines.instance_type]}],
        location_type="availability-zone",
        opts=pulumi.InvokeOutputOptions(parent=parent),
    )
    problem = f"machines.instanceType: {lab.machines.instance_type} — no zone of the region offers it"

    def first(zones: list[str]) -> str:
        if not zones:
            raise pulumi.RunError(f"{problem}. Fix: another type, or another aws:region")
        return min(zones)

    return offers.locations.apply(first)
