"""The security groups of a lab: exactly the traffic that its mode needs comes in, everything may go out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from components.spec.addresses import IngressRule, ingress_rules
from components.spec.models import AwsMachines, Lab

# Ports mean something to these protocols only; EC2 takes none with any other, nor with -1 for all.
_PROTOCOLS_WITH_PORTS = frozenset({"tcp", "udp", "icmp"})


@dataclass(frozen=True)
class SecurityGroups:
    """`ids`: the groups' ids by `nodes` (every node has it) and `control-plane`. `egress`: the rule that must exist
    before a machine can reach anything."""

    ids: dict[str, pulumi.Output[str]]
    egress: aws.vpc.SecurityGroupEgressRule


def security_groups(
    name: str, lab: Lab, vpc: aws.ec2.Vpc, tags: Mapping[str, str], opts: pulumi.ResourceOptions
) -> SecurityGroups:
    """Make the groups and their rules. `name` starts every resource's name; `opts` has their parent."""
    # Every VPC has a default group that lets its members reach one another. Our groups say what may pass: empty it.
    aws.ec2.DefaultSecurityGroup(
        f"{name}-default", vpc_id=vpc.id, tags={**tags, "Name": f"{name}-default-unused"}, opts=opts
    )
    groups = {
        group: aws.ec2.SecurityGroup(
            f"{name}-{group}",
            vpc_id=vpc.id,
            description=f"cni-lab: {text}",
            tags={**tags, "Name": f"{name}-{group}"},
            opts=opts,
        )
        for group, text in {"nodes": "every node", "control-plane": "control planes only"}.items()
    }
    egress = aws.vpc.SecurityGroupEgressRule(
        f"{name}-egress",
        security_group_id=groups["nodes"].id,
        ip_protocol="-1",
        cidr_ipv4="0.0.0.0/0",
        description="packages, images, time",
        tags={**tags, "Name": f"{name}-egress"},
        opts=opts,
    )
    for rule in ingress_rules(lab):
        has_ports = rule.protocol in _PROTOCOLS_WITH_PORTS
        for suffix, cidr in _sources(lab, rule):
            rule_name = f"{name}-{rule.name}{suffix}"
            aws.vpc.SecurityGroupIngressRule(
                rule_name,
                security_group_id=groups[rule.to].id,
                ip_protocol=rule.protocol,
                from_port=rule.from_port if has_ports else None,
                to_port=rule.to_port if has_ports else None,
                cidr_ipv4=cidr,
                referenced_security_group_id=groups["nodes"].id if cidr is None else None,
                description=f"{rule.name} from {rule.source}",
                tags={**tags, "Name": rule_name},
                opts=opts,
            )
    return SecurityGroups({group: resource.id for group, resource in groups.items()}, egress)


def _sources(lab: Lab, rule: IngressRule) -> Iterator[tuple[str, str | None]]:
    """For each ingress rule that `rule` becomes, the suffix of its name and its CIDR; None stands for the group of all
    nodes."""
    match rule.source:
        case "nodes":
            yield "", None
        case "operators":
            assert isinstance(lab.machines, AwsMachines)
            for cidr in lab.machines.operator_cidrs:
                yield f"-{str(cidr).replace('/', '-')}", str(cidr)
        case "pods":
            for pool in lab.calico.pools:
                if pool.mode.sends_plain:
                    yield f"-{pool.name}", str(pool.cidr)
