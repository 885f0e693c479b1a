"""Which changed inputs make the engine replace a resource instead of updating it, for the types that the labs use.

Sources: `ForceNew` and `RequiresReplace` in hashicorp/terraform-provider-aws (a test compares them with
tests/support/aws_schema.py, which names the file and the function of each type), terraform-provider-tls and
terraform-provider-random; in pulumi-kubernetes `forceNew` of
provider/pkg/provider/diff.go and DiffConfig of provider.go. Commands set `replaceOnChanges` for their `triggers`
themselves. Resources that are deletedWith a replaced one are replaced too: pulumi/pulumi#23818, engines from 3.260 on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from components.spec.models.machines import architecture_of

EVERY = "*"

_RULES: dict[str, tuple[str, ...]] = {
    "aws:ec2/eip:Eip": ("domain", "address", "publicIpv4Pool"),
    "aws:ec2/eipAssociation:EipAssociation": (EVERY,),
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup": ("vpcId",),
    "aws:ec2/instance:Instance": (
        "ami", "associatePublicIpAddress", "availabilityZone", "cpuOptions", "ebsOptimized", "hibernation", "hostId",
        "instanceMarketOptions", "keyName", "privateIp", "rootBlockDevice.encrypted", "rootBlockDevice.kmsKeyId",
        "securityGroups", "subnetId", "tenancy",
    ),
    "aws:ec2/keyPair:KeyPair": ("keyName", "keyNamePrefix", "publicKey"),
    "aws:ec2/natGateway:NatGateway": ("allocationId", "connectivityType", "privateIp", "subnetId"),
    "aws:ec2/routeTable:RouteTable": ("vpcId",),
    "aws:ec2/routeTableAssociation:RouteTableAssociation": ("gatewayId", "subnetId"),
    "aws:ec2/securityGroup:SecurityGroup": ("description", "name", "namePrefix", "vpcId"),
    "aws:ec2/subnet:Subnet": ("availabilityZone", "availabilityZoneId", "cidrBlock", "vpcId"),
    "aws:ec2/vpc:Vpc": ("cidrBlock", "ipv4IpamPoolId", "ipv4NetmaskLength"),
    "aws:ec2transitgateway/instanceConnectEndpoint:InstanceConnectEndpoint": (
        "preserveClientIp", "securityGroupIds", "subnetId",
    ),
    "aws:iam/instanceProfile:InstanceProfile": ("name", "namePrefix", "path"),
    "aws:iam/role:Role": ("name", "namePrefix", "path"),
    "aws:iam/rolePolicy:RolePolicy": ("name", "namePrefix", "role"),
    "aws:lb/listener:Listener": ("loadBalancerArn",),
    "aws:lb/loadBalancer:LoadBalancer": ("internal", "loadBalancerType", "name", "namePrefix"),
    "aws:lb/targetGroup:TargetGroup": ("name", "namePrefix", "port", "protocol", "targetType", "vpcId"),
    "aws:lb/targetGroupAttachment:TargetGroupAttachment": (EVERY,),
    "aws:ssm/parameter:Parameter": ("dataType", "name"),
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": ("securityGroupId",),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": ("securityGroupId",),
    "kubernetes:apps/v1:DaemonSet": ("spec.selector",),
    "kubernetes:apps/v1:Deployment": ("spec.selector",),
    "kubernetes:apps/v1:StatefulSet": ("spec.selector", "spec.serviceName", "spec.volumeClaimTemplates"),
    # The provider treats both as immutable unless it is configured otherwise, which ours is not.
    "kubernetes:core/v1:ConfigMap": ("binaryData", "data"),
    "kubernetes:core/v1:Secret": ("data", "stringData", "type"),
    "kubernetes:core/v1:Service": ("spec.clusterIP",),
    "kubernetes:rbac.authorization.k8s.io/v1:ClusterRoleBinding": ("roleRef",),
    "kubernetes:rbac.authorization.k8s.io/v1:RoleBinding": ("roleRef",),
    "pulumi:providers:kubernetes": ("clusterIdentifier",),
    "random:index/randomBytes:RandomBytes": (EVERY,),
    "random:index/randomPassword:RandomPassword": (EVERY,),
    "tls:index/certRequest:CertRequest": (EVERY,),
    "tls:index/locallySignedCert:LocallySignedCert": (EVERY,),
    "tls:index/privateKey:PrivateKey": (EVERY,),
    "tls:index/selfSignedCert:SelfSignedCert": (EVERY,),
}  # fmt: skip

_RESTARTS = {"aws:ec2/instance:Instance": ("cpuOptions", "instanceType", "userData", "userDataBase64")}
"""Inputs that the provider changes on a stopped machine: modifyInstanceAttributeWithStopStart in ec2_instance.go."""

_IN_PLACE = ("earlyRenewalHours", "tags")
"""Inputs that are updated in place even where every other input replaces."""


def replacing(resource: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """The inputs of a resource (an entry of plan's JSON) whose change replaces it; `EVERY` stands for all.

    `before`: the resource as it was, where a change of one input may or may not replace it.
    """
    own = tuple(path.removesuffix("[*]") for path in resource.get("replaceOnChanges", ()))
    rules = _RULES.get(resource["type"], ())
    if resource["type"].startswith("kubernetes:"):
        rules += ("metadata.name", "metadata.namespace")
    if resource["type"] == "aws:ec2/instance:Instance" and resource["inputs"].get("userDataReplaceOnChange"):
        rules += ("userData", "userDataBase64")
    if resource["type"] == "aws:ec2/instance:Instance" and before and _has_other_processor(before, resource):
        rules += ("instanceType",)
    return own + rules


def _has_other_processor(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    """Whether no processor runs both types: the provider then replaces the machine (CustomizeDiff of the instance)."""
    was, will = (side["inputs"].get("instanceType", "") for side in (before, after))
    return architecture_of(was) != architecture_of(will)


def restarting(resource: Mapping[str, Any]) -> tuple[str, ...]:
    """The inputs of a machine whose change stops it and starts it again."""
    return _RESTARTS.get(resource["type"], ())


def matching(paths: Iterable[str], rules: Iterable[str]) -> list[str]:
    """Those of `paths` (such as `spec.pools[0].cidr`) that are one of `rules` or below one."""
    rules = tuple(rules)
    return [
        path
        for path in paths
        if any(path == rule or path.startswith((f"{rule}.", f"{rule}[")) for rule in rules)
        or (EVERY in rules and not path.startswith(_IN_PLACE))
    ]
