"""What EC2 refuses and moto allows, in EC2's own words, and what EC2 does not find yet although it is there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any

from botocore.exceptions import ClientError

from tests.support.moto_ec2 import Cloud

Json = dict[str, Any]
INSTANCE = "aws:ec2/instance:Instance"
BALANCER = "aws:lb/loadBalancer:LoadBalancer"
ENDPOINT = "aws:ec2transitgateway/instanceConnectEndpoint:InstanceConnectEndpoint"
GATEWAY = "aws:ec2/internetGateway:InternetGateway"
ASSOCIATION = "aws:ec2/routeTableAssociation:RouteTableAssociation"
NAT = "aws:ec2/natGateway:NatGateway"

# The types of a Free plan: aws-samples/eks-workshop-v2#1644.
FREE_TYPES = frozenset({"c7i-flex.large", "m7i-flex.large", "t3.micro", "t3.small", "t4g.micro", "t4g.small"})
ENDED = ("terminated", "shutting-down")


def refusal(code: str, message: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "StandIn")


class Refusals:
    """The limits of an account, and the rules of EC2 that moto does not have.

    `vcpu_quota`: how many vCPU may run. `free_plan`: only FREE_TYPES are launched. `coveted`: addresses that EC2 takes
    first where it may choose one, if they are free then: those of machines that are made later, to be as unlucky as
    EC2 can be.
    """

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.vcpu_quota = 1000
        self.free_plan = False
        self.coveted: tuple[str, ...] = ()
        self._held: dict[str, tuple[str, str]] = {}  # by a thing's id: subnet and address

    # --- what is there ---

    def running(self) -> Iterator[Json]:
        """The instances that are not terminated."""
        for reservation in self.cloud.ec2.describe_instances()["Reservations"]:
            for instance in reservation["Instances"]:
                if instance["State"]["Name"] not in ENDED:
                    yield instance

    def _taken(self, subnet: str) -> set[str]:
        machines = {i["PrivateIpAddress"] for i in self.running() if i["SubnetId"] == subnet}
        return machines | {address for place, address in self._held.values() if place == subnet}

    def _take(self, subnet: str, address: str) -> None:
        if address in self._taken(subnet):
            raise refusal("InvalidIPAddress.InUse", f"Address {address} is in use.")

    def _choose(self, subnet: str) -> str:
        cidr = ip_network(self.cloud.ec2.describe_subnets(SubnetIds=[subnet])["Subnets"][0]["CidrBlock"])
        coveted = [address for address in self.coveted if ip_address(address) in cidr]
        # EC2 keeps the first four addresses and the last one for itself.
        others = (str(cidr[number]) for number in range(cidr.num_addresses - 2, 3, -1))
        taken = self._taken(subnet)
        return next(address for address in (*coveted, *others) if address not in taken)

    # --- before and after a step ---

    def before_create(self, kind: str, inputs: Json) -> None:
        if kind == INSTANCE:
            self._take(inputs["subnetId"], inputs["privateIp"])
            self.launch(inputs["instanceType"])
        elif kind == NAT:
            self._take(inputs["subnetId"], inputs["privateIp"])
        elif kind == ASSOCIATION:
            self._associate(inputs["subnetId"])
        elif kind == BALANCER:
            for mapping in inputs.get("subnetMappings", ()):
                if "privateIpv4Address" in mapping:
                    self._take(mapping["subnetId"], mapping["privateIpv4Address"])

    def after_create(self, kind: str, id_: str, inputs: Json) -> None:
        if kind == NAT:
            self._held[id_] = (inputs["subnetId"], inputs["privateIp"])
        elif kind == ENDPOINT:
            self._held[id_] = (inputs["subnetId"], self._choose(inputs["subnetId"]))
        elif kind == BALANCER:
            for mapping in inputs.get("subnetMappings") or [{"subnetId": subnet} for subnet in inputs["subnets"]]:
                subnet = mapping["subnetId"]
                self._held[id_] = (subnet, mapping.get("privateIpv4Address") or self._choose(subnet))

    def before_delete(self, kind: str, id_: str, inputs: Json) -> None:
        if kind == "aws:ec2/subnet:Subnet" and self._taken(id_):
            raise refusal("DependencyViolation", f"The subnet '{id_}' has dependencies and cannot be deleted.")
        if kind == GATEWAY and inputs["vpcId"]:
            self.detach(inputs["vpcId"])
        if kind == "aws:ec2/securityGroup:SecurityGroup" and self._is_used(id_):
            raise refusal("DependencyViolation", f"resource {id_} has a dependent object")

    def after_delete(self, id_: str) -> None:
        self._held.pop(id_, None)

    # --- single rules ---

    def launch(self, type_: str, *, besides: str = "") -> None:
        """Refuses a type that the account may not run, or not so much of it. `besides`: a machine that is stopped."""
        if self.free_plan and type_ not in FREE_TYPES:
            raise refusal(
                "InvalidParameterCombination",
                "The specified instance type is not eligible for Free Tier. For a list of Free Tier instance types, "
                "run 'describe-instance-types' with the filter 'free-tier-eligible=true'.",
            )
        types = [i["InstanceType"] for i in self.running() if i["InstanceId"] != besides]
        if sum(self._vcpus(each) for each in (*types, type_)) > self.vcpu_quota:
            raise refusal(
                "VcpuLimitExceeded",
                f"You have requested more vCPU capacity than your current vCPU limit of {self.vcpu_quota} allows for "
                "the instance bucket that the specified instance type belongs to.",
            )

    def _vcpus(self, type_: str) -> int:
        (found,) = self.cloud.ec2.describe_instance_types(InstanceTypes=[type_])["InstanceTypes"]
        return int(found["VCpuInfo"]["DefaultVCpus"])

    def stop(self, id_: str) -> None:
        if any(i["InstanceId"] == id_ and i.get("InstanceLifecycle") == "spot" for i in self.running()):
            raise refusal(
                "UnsupportedOperation",
                f"You can't stop the Spot Instance '{id_}' because it is associated with a one-time Spot Instance "
                "request. You can only stop Spot Instances associated with persistent Spot Instance requests.",
            )

    def resize(self, volume: str, size: int) -> None:
        before = self.cloud.ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]["Size"]
        if size < before:
            raise refusal("InvalidParameterValue", f"New size cannot be smaller than existing size {before}")

    def _associate(self, subnet: str) -> None:
        """A subnet has one route table of its own."""
        filters = [{"Name": "association.subnet-id", "Values": [subnet]}]
        if self.cloud.ec2.describe_route_tables(Filters=filters)["RouteTables"]:
            raise refusal(
                "Resource.AlreadyAssociated",
                f"the specified association for the subnet {subnet} conflicts with an existing association",
            )

    def detach(self, vpc: str) -> None:
        """A gateway does not leave a VPC in which anything has a public address."""
        gateways = self.cloud.ec2.describe_nat_gateways(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["NatGateways"]
        public = any(i["VpcId"] == vpc and i.get("PublicIpAddress") for i in self.running())
        if public or any(gateway["State"] == "available" for gateway in gateways):
            raise refusal(
                "DependencyViolation",
                f"Network {vpc} has some mapped public address(es). Please unmap those public address(es) before "
                "detaching the gateway.",
            )

    def _is_used(self, group: str) -> bool:
        """By a machine, or by a rule of another group."""
        if any(group == g["GroupId"] for i in self.running() for n in i["NetworkInterfaces"] for g in n["Groups"]):
            return True
        rules = self.cloud.ec2.describe_security_group_rules()["SecurityGroupRules"]
        return any(
            rule.get("ReferencedGroupInfo", {}).get("GroupId") == group and rule["GroupId"] != group for rule in rules
        )


# --- eventual consistency ---


@dataclass(frozen=True)
class Use:
    """A step that uses a thing which may not be known everywhere yet, and what AWS answers then.

    `input`: the input that names the thing; empty for a read or a change of the new thing itself, after it was made.
    `retried`: the provider tries again; `source` says where, below internal/service of terraform-provider-aws.
    """

    kind: str
    input: str
    code: str
    message: str
    retried: bool
    source: str


_EC2_GROUP = "InvalidGroup.NotFound"
_RULES = (
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule",
)
USES: tuple[Use, ...] = (
    Use(INSTANCE, "iamInstanceProfile", "InvalidParameterValue", "Invalid IAM Instance Profile name", True,
        "ec2/ec2_instance.go, resourceInstanceCreate: RetryWhen, 2 minutes"),
    Use(INSTANCE, "subnetId", "InvalidSubnetID.NotFound", "The subnet ID does not exist", False,
        "ec2/ec2_instance.go, resourceInstanceCreate"),
    Use(INSTANCE, "vpcSecurityGroupIds", _EC2_GROUP, "The security group does not exist", False,
        "ec2/ec2_instance.go, resourceInstanceCreate"),
    Use(INSTANCE, "keyName", "InvalidKeyPair.NotFound", "The key pair does not exist", False,
        "ec2/ec2_instance.go, resourceInstanceCreate"),
    # waitInstanceCreated is patient; the change of the source/destination check after it is not.
    Use(INSTANCE, "", "InvalidInstanceID.NotFound", "The instance ID does not exist", False,
        "ec2/ec2_instance.go, resourceInstanceUpdate"),
    Use("aws:ec2/eipAssociation:EipAssociation", "instanceId", "InvalidInstanceID.NotFound",
        "The instance ID does not exist", False, "ec2/ec2_eip_association.go, resourceEIPAssociationCreate"),
    Use(GATEWAY, "vpcId", "InvalidVpcID.NotFound", "The vpc ID does not exist", False,
        "ec2/vpc_internet_gateway.go, attachInternetGateway: retries for the gateway's own id only"),
    Use("aws:ec2/routeTableAssociation:RouteTableAssociation", "routeTableId", "InvalidRouteTableID.NotFound",
        "The routeTable ID does not exist", True,
        "ec2/vpc_route_table_association.go, resourceRouteTableAssociationCreate"),
    Use("aws:ec2/routeTableAssociation:RouteTableAssociation", "subnetId", "InvalidSubnetID.NotFound",
        "The subnet ID does not exist", False,
        "ec2/vpc_route_table_association.go, resourceRouteTableAssociationCreate"),
    Use("aws:ec2/subnet:Subnet", "", "InvalidSubnetID.NotFound", "The subnet ID does not exist", True,
        "ec2/vpc_subnet.go, waitSubnetAvailable and resourceSubnetRead: RetryWhenNewResourceNotFound"),
    Use("aws:ec2/securityGroup:SecurityGroup", "", _EC2_GROUP, "The security group does not exist", True,
        "ec2/vpc_security_group.go, waitSecurityGroupCreated"),
    *(Use(kind, "securityGroupId", _EC2_GROUP, "The security group does not exist", False,
          "ec2/vpc_security_group_ingress_rule.go, Create") for kind in _RULES),
    Use("aws:iam/instanceProfile:InstanceProfile", "role", "NoSuchEntity", "The role with name cannot be found", True,
        "iam/instance_profile.go, instanceProfileAddRole"),
    Use("aws:iam/instanceProfile:InstanceProfile", "", "NoSuchEntity", "Instance Profile cannot be found", True,
        "iam/instance_profile.go, resourceInstanceProfileCreate: RetryWhenNotFound, waitInstanceProfileReady"),
    Use("aws:iam/rolePolicy:RolePolicy", "role", "NoSuchEntity", "The role with name cannot be found", False,
        "iam/role_policy.go, resourceRolePolicyPut"),
    Use("aws:iam/rolePolicy:RolePolicy", "", "NoSuchEntity", "The role policy cannot be found", True,
        "iam/role_policy.go, resourceRolePolicyPut: RetryWhenNotFound"),
    Use("aws:ssm/parameter:Parameter", "", "ParameterNotFound", "", False,
        "ssm/parameter.go, resourceParameterRead: retries for aws:ec2:image only"),
    Use("aws:lb/targetGroupAttachment:TargetGroupAttachment", "targetId", "InvalidTarget",
        "The following targets are not in a running state and cannot be registered", True,
        "elbv2/target_group_attachment.go, resourceAttachmentCreate: RetryWhenIsA, 10 minutes"),
)  # fmt: skip


class Propagation:
    """New things of the types in `slow` are not found by as many uses of each kind as it says.

    `retried` and `failed`: the kinds of use that did not find a thing, by whether the provider tried again.
    """

    def __init__(self) -> None:
        self.slow: dict[str, int] = {}
        self.retried: set[Use] = set()
        self.failed: set[Use] = set()
        self._kinds: dict[str, str] = {}
        self._misses: dict[tuple[Use, str], int] = {}

    def made(self, kind: str, id_: str) -> None:
        self._kinds[id_] = kind

    def use(self, kind: str, inputs: Json) -> ClientError | None:
        """What a step does not find of the things that it names: the first error that the provider gives up on."""
        errors = []
        for use in USES:
            if use.kind == kind and use.input:
                named = inputs.get(use.input)
                for id_ in named if isinstance(named, list) else [named]:
                    if error := self._miss(use, id_):
                        errors.append(error)
        return errors[0] if errors else None

    def use_of_own(self, kind: str, id_: str) -> ClientError | None:
        """The same for a thing that was just made: the error, if there is one."""
        found = [self._miss(use, id_) for use in USES if use.kind == kind and not use.input]
        return next((error for error in found if error), None)

    def _miss(self, use: Use, id_: str) -> ClientError | None:
        misses = self._misses.setdefault((use, id_), self.slow.get(self._kinds.get(id_, ""), 0))
        if not misses:
            return None
        if use.retried:
            self._misses[use, id_] = 0
            self.retried.add(use)
            return None
        self._misses[use, id_] -= 1
        self.failed.add(use)
        return refusal(use.code, use.message)
