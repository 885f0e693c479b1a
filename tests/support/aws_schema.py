"""Which inputs of an aws resource replace it, and which are changed in place, by the provider's own schema.

Source: hashicorp/terraform-provider-aws, the file that each entry names, below internal/service. `replace`: attributes
with ForceNew, or RequiresReplace in the newer framework. `in_place`: the other inputs that the labs use. Written apart
from cli/review/rules.py, so that a test can compare the two. An input that stands in neither list is an error: nobody
has looked at how the provider changes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

TAGS = ("tags", "tagsAll")


@dataclass(frozen=True)
class Type:
    """`source`: the file, and the function that makes the schema."""

    source: str
    replace: tuple[str, ...] = ()
    in_place: tuple[str, ...] = ()


TYPES: dict[str, Type] = {
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup": Type(
        "ec2/vpc_default_security_group.go, resourceDefaultSecurityGroup", ("vpcId",)
    ),
    "aws:ec2/eip:Eip": Type("ec2/ec2_eip.go, resourceEIP", ("address", "domain", "publicIpv4Pool")),
    "aws:ec2/eipAssociation:EipAssociation": Type(
        "ec2/ec2_eip_association.go, resourceEIPAssociation", ("allocationId", "instanceId")
    ),
    "aws:ec2/instance:Instance": Type(
        "ec2/ec2_instance.go, resourceInstance",
        (
            "ami", "associatePublicIpAddress", "instanceMarketOptions", "keyName", "privateIp",
            "rootBlockDevice.encrypted", "rootBlockDevice.kmsKeyId", "subnetId",
        ),
        (
            "disableApiTermination", "iamInstanceProfile", "instanceType", "metadataOptions",
            "rootBlockDevice.deleteOnTermination", "rootBlockDevice.tags", "rootBlockDevice.volumeSize",
            "rootBlockDevice.volumeType", "sourceDestCheck", "userData", "userDataReplaceOnChange",
            "vpcSecurityGroupIds",
        ),
    ),
    "aws:ec2/internetGateway:InternetGateway": Type(
        "ec2/vpc_internet_gateway.go, resourceInternetGateway", (), ("vpcId",)
    ),
    "aws:ec2/keyPair:KeyPair": Type(
        "ec2/ec2_key_pair.go, resourceKeyPair", ("keyName", "keyNamePrefix", "publicKey")
    ),
    "aws:ec2/natGateway:NatGateway": Type(
        "ec2/vpc_nat_gateway.go, resourceNATGateway", ("allocationId", "connectivityType", "privateIp", "subnetId")
    ),
    "aws:ec2/routeTable:RouteTable": Type("ec2/vpc_route_table.go, resourceRouteTable", ("vpcId",), ("routes",)),
    "aws:ec2/routeTableAssociation:RouteTableAssociation": Type(
        "ec2/vpc_route_table_association.go, resourceRouteTableAssociation",
        ("gatewayId", "subnetId"),
        ("routeTableId",),
    ),
    "aws:ec2/securityGroup:SecurityGroup": Type(
        "ec2/vpc_security_group.go, resourceSecurityGroup", ("description", "name", "namePrefix", "vpcId")
    ),
    "aws:ec2/subnet:Subnet": Type(
        "ec2/vpc_subnet.go, resourceSubnet",
        ("availabilityZone", "availabilityZoneId", "cidrBlock", "vpcId"),
        ("mapPublicIpOnLaunch",),
    ),
    "aws:ec2/vpc:Vpc": Type(
        "ec2/vpc_.go, resourceVPC",
        ("cidrBlock", "ipv4IpamPoolId", "ipv4NetmaskLength"),
        ("enableDnsHostnames", "enableDnsSupport"),
    ),
    "aws:ec2transitgateway/instanceConnectEndpoint:InstanceConnectEndpoint": Type(
        "ec2/ec2_instance_connect_endpoint.go, instanceConnectEndpointResource.Schema",
        ("preserveClientIp", "securityGroupIds", "subnetId"),
    ),
    "aws:iam/instanceProfile:InstanceProfile": Type(
        "iam/instance_profile.go, resourceInstanceProfile", ("name", "namePrefix", "path"), ("role",)
    ),
    "aws:iam/role:Role": Type("iam/role.go, resourceRole", ("name", "namePrefix", "path"), ("assumeRolePolicy",)),
    "aws:iam/rolePolicy:RolePolicy": Type(
        "iam/role_policy.go, resourceRolePolicy", ("name", "namePrefix", "role"), ("policy",)
    ),
    "aws:lb/listener:Listener": Type(
        "elbv2/listener.go, resourceListener", ("loadBalancerArn",), ("defaultActions", "port", "protocol")
    ),
    # Its subnets would replace it too, by customizeDiffLoadBalancerNLB; the labs ignore their changes.
    "aws:lb/loadBalancer:LoadBalancer": Type(
        "elbv2/load_balancer.go, resourceLoadBalancer",
        ("internal", "loadBalancerType", "name", "namePrefix"),
        ("securityGroups",),
    ),
    "aws:lb/targetGroup:TargetGroup": Type(
        "elbv2/target_group.go, resourceTargetGroup",
        ("name", "namePrefix", "port", "protocol", "targetType", "vpcId"),
        ("deregistrationDelay", "healthCheck", "preserveClientIp"),
    ),
    "aws:lb/targetGroupAttachment:TargetGroupAttachment": Type(
        "elbv2/target_group_attachment.go, resourceTargetGroupAttachment", ("port", "targetGroupArn", "targetId")
    ),
    "aws:ssm/parameter:Parameter": Type(
        "ssm/parameter.go, resourceParameter", ("dataType", "name"), ("description", "overwrite", "type", "value")
    ),
    # Between a CIDR and a group as the source, ModifyPlan replaces the rule.
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": Type(
        "ec2/vpc_security_group_ingress_rule.go, Schema",
        ("securityGroupId",),
        ("cidrIpv4", "description", "fromPort", "ipProtocol", "referencedSecurityGroupId", "toPort"),
    ),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": Type(
        "ec2/vpc_security_group_ingress_rule.go, Schema",
        ("securityGroupId",),
        ("cidrIpv4", "description", "fromPort", "ipProtocol", "referencedSecurityGroupId", "toPort"),
    ),
}  # fmt: skip

IGNORED_BY_THE_LABS = {"aws:lb/loadBalancer:LoadBalancer": ("subnetMappings", "subnets")}


def is_below(path: str, names: Iterable[str]) -> bool:
    """Whether a path, such as `metadataOptions.httpTokens`, is one of these names or below one."""
    return any(path == name or path.startswith((f"{name}.", f"{name}[")) for name in names)


def replacing(kind: str, paths: Iterable[str], new: dict[str, Any]) -> list[str]:
    """Those of the changed paths that replace a resource. Raises KeyError for one that nobody has looked at."""
    found = TYPES[kind]
    replace = found.replace
    if kind == "aws:ec2/instance:Instance" and new.get("userDataReplaceOnChange"):
        replace += ("userData",)  # its CustomizeDiff
    paths = list(paths)
    for path in paths:
        if not is_below(path, (*found.replace, *found.in_place, *TAGS)):
            raise KeyError(f"{path} of {kind}: see {found.source}, and add it to tests/support/aws_schema.py")
    return [path for path in paths if is_below(path, replace)]
