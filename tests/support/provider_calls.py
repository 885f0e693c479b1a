"""Which calls the aws provider makes for each resource type of a lab's graph: create, read, update and delete.

Source: hashicorp/terraform-provider-aws, internal/service/{ec2,elbv2,iam,ssm}, the resources of these names, and for
what EC2 asks besides: AWS, "Grant permissions for EC2 Instance Connect Endpoint".
"""

from __future__ import annotations

_EC2_RULES = "AuthorizeSecurityGroup{0} RevokeSecurityGroup{0} ModifySecurityGroupRules DescribeSecurityGroupRules"

CALLS: dict[str, str] = {
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup": "ec2: DescribeSecurityGroups RevokeSecurityGroupIngress "
    "RevokeSecurityGroupEgress CreateTags DeleteTags",
    "aws:ec2/eip:Eip": "ec2: AllocateAddress DescribeAddresses DescribeAddressesAttribute DisassociateAddress "
    "ReleaseAddress",
    "aws:ec2/eipAssociation:EipAssociation": "ec2: AssociateAddress DescribeAddresses DisassociateAddress",
    "aws:ec2/instance:Instance": "ec2: RunInstances DescribeInstances DescribeInstanceAttribute DescribeInstanceTypes "
    "DescribeInstanceCreditSpecifications DescribeVolumes DescribeImages DescribeTags ModifyInstanceAttribute "
    "ModifyInstanceMetadataOptions ModifyInstanceCreditSpecification ModifyNetworkInterfaceAttribute "
    "ModifyVolume DescribeVolumesModifications "
    "StopInstances StartInstances TerminateInstances CancelSpotInstanceRequests DescribeSpotInstanceRequests "
    "DescribeIamInstanceProfileAssociations AssociateIamInstanceProfile DisassociateIamInstanceProfile "
    "ReplaceIamInstanceProfileAssociation CreateTags DeleteTags; iam: PassRole",
    "aws:ec2/internetGateway:InternetGateway": "ec2: CreateInternetGateway AttachInternetGateway "
    "DescribeInternetGateways DetachInternetGateway DeleteInternetGateway",
    "aws:ec2/keyPair:KeyPair": "ec2: ImportKeyPair DescribeKeyPairs DeleteKeyPair",
    "aws:ec2/natGateway:NatGateway": "ec2: CreateNatGateway DescribeNatGateways DeleteNatGateway",
    "aws:ec2/routeTable:RouteTable": "ec2: CreateRouteTable CreateRoute ReplaceRoute DeleteRoute DescribeRouteTables "
    "DisassociateRouteTable DeleteRouteTable",
    "aws:ec2/routeTableAssociation:RouteTableAssociation": "ec2: AssociateRouteTable ReplaceRouteTableAssociation "
    "DescribeRouteTables DisassociateRouteTable",
    "aws:ec2/securityGroup:SecurityGroup": "ec2: CreateSecurityGroup DescribeSecurityGroups DescribeNetworkInterfaces "
    "RevokeSecurityGroupEgress DeleteSecurityGroup",
    "aws:ec2/subnet:Subnet": "ec2: CreateSubnet ModifySubnetAttribute DescribeSubnets DescribeNetworkInterfaces "
    "DeleteSubnet",
    "aws:ec2/vpc:Vpc": "ec2: CreateVpc ModifyVpcAttribute DescribeVpcs DescribeVpcAttribute DescribeNetworkAcls "
    "DescribeRouteTables DescribeSecurityGroups DeleteVpc",
    "aws:ec2transitgateway/instanceConnectEndpoint:InstanceConnectEndpoint": "ec2: CreateInstanceConnectEndpoint "
    "CreateNetworkInterface CreateTags DescribeInstanceConnectEndpoints DeleteInstanceConnectEndpoint; "
    "iam: CreateServiceLinkedRole",
    "aws:iam/instanceProfile:InstanceProfile": "iam: CreateInstanceProfile GetInstanceProfile GetRole "
    "AddRoleToInstanceProfile RemoveRoleFromInstanceProfile TagInstanceProfile UntagInstanceProfile "
    "DeleteInstanceProfile",
    "aws:iam/role:Role": "iam: CreateRole GetRole ListRolePolicies GetRolePolicy ListAttachedRolePolicies "
    "UpdateAssumeRolePolicy TagRole UntagRole ListInstanceProfilesForRole RemoveRoleFromInstanceProfile "
    "DeleteRolePolicy DeleteRole",
    "aws:iam/rolePolicy:RolePolicy": "iam: PutRolePolicy GetRolePolicy DeleteRolePolicy",
    "aws:lb/listener:Listener": "elasticloadbalancing: CreateListener DescribeListeners DescribeListenerAttributes "
    "ModifyListener ModifyListenerAttributes DescribeTags AddTags RemoveTags DeleteListener",
    "aws:lb/loadBalancer:LoadBalancer": "elasticloadbalancing: CreateLoadBalancer DescribeLoadBalancers "
    "DescribeLoadBalancerAttributes DescribeCapacityReservation ModifyLoadBalancerAttributes SetSubnets "
    "SetSecurityGroups DescribeTags AddTags RemoveTags DeleteLoadBalancer; ec2: DescribeNetworkInterfaces; "
    "iam: CreateServiceLinkedRole",
    "aws:lb/targetGroup:TargetGroup": "elasticloadbalancing: CreateTargetGroup DescribeTargetGroups "
    "DescribeTargetGroupAttributes ModifyTargetGroup ModifyTargetGroupAttributes DescribeTags AddTags RemoveTags "
    "DeleteTargetGroup",
    "aws:lb/targetGroupAttachment:TargetGroupAttachment": "elasticloadbalancing: RegisterTargets DescribeTargetHealth "
    "DeregisterTargets",
    "aws:ssm/parameter:Parameter": "ssm: PutParameter GetParameter GetParameters DescribeParameters "
    "ListTagsForResource AddTagsToResource RemoveTagsFromResource DeleteParameter",
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": f"ec2: {_EC2_RULES.format('Egress')} CreateTags",
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": f"ec2: {_EC2_RULES.format('Ingress')} CreateTags",
}  # fmt: skip

# The data sources, which a preview asks too, and the calls of ./lab doctor.
LOOKUPS = "ec2: DescribeInstanceTypeOfferings; ssm: GetParameter"
DOCTOR = (
    "ec2: DescribeRegions DescribeAvailabilityZones DescribeInstanceTypes DescribeImages DescribeInstances "
    "DescribeAddresses DescribeVpcs; elasticloadbalancing: DescribeLoadBalancers; iam: GetRole "
    "SimulatePrincipalPolicy; servicequotas: GetServiceQuota GetAWSDefaultServiceQuota"
)
# ./lab stop and start, and break and mend of the source/destination check.
LIFE = "ec2: DescribeInstances StopInstances StartInstances ModifyInstanceAttribute CreateTags DeleteTags"

_HERE = "us-west-2:123456789012"
_RESOURCES = {
    "ssm": f"arn:aws:ssm:{_HERE}:parameter/cni-lab/test/n/ssh-host-key",
    "iam": "arn:aws:iam::123456789012:role/cni-lab-n-1",
    "elasticloadbalancing": f"arn:aws:elasticloadbalancing:{_HERE}:loadbalancer/net/k8s-1/1",
}
_CANONICAL = "arn:aws:ssm:us-west-2::parameter/aws/service/canonical/ubuntu/server/24.04/x"
_LINKED = "arn:aws:iam::123456789012:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"
_NO_RESOURCE = ("Describe", "Simulate", "ListRoles", "ListInstanceProfiles$")


def calls(text: str, *, lookup: bool = False) -> set[tuple[str, str]]:
    """The calls that a text of this module stands for: (action, ARN of what it is about, or *)."""
    found = set()
    for part in text.split(";"):
        service, _, names = part.strip().partition(": ")
        for name in names.split():
            resource = _RESOURCES.get(service, "*")
            if name.startswith(_NO_RESOURCE):
                resource = "*"
            elif "InstanceProfile" in name and not name.endswith("ForRole") and service == "iam":
                resource = resource.replace(":role/", ":instance-profile/")
            elif "TargetGroup" in name or name.endswith("Targets"):
                resource = resource.replace("loadbalancer/net", "targetgroup")
            elif "Listener" in name and name != "CreateListener":
                resource = resource.replace("loadbalancer", "listener") + "/1"
            elif name == "CreateServiceLinkedRole" or (lookup and service == "iam"):
                resource = _LINKED
            elif lookup and service == "ssm":
                resource = _CANONICAL
            found.add((f"{service}:{name}", resource))
    return found
