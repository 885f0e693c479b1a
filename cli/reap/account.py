"""What labs have in an AWS account, with how to delete it. Only tags and names decide what belongs to a lab."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

OWNER, TTL, LOST = "cni-lab:stack", "cni-lab:ttl-hours", "cni-lab:lost-since"
"""The tags of a lab's things: the stack, its time to live, and when a sweep first found it lost."""

PREFIX = "cni-lab-"
"""The names of a lab's roles and instance profiles start with this."""

PARAMETERS = "/cni-lab"
"""The folder of the labs' SSM parameters."""

_GONE = ("NotFound", "NotFoundException", "NoSuchEntity")

Tags = dict[str, str]


@dataclass(frozen=True)
class Thing:
    """Something of a lab. `born` is None where AWS keeps no creation time. `mark` adds tags, where that is possible."""

    kind: str
    id: str
    tags: Tags
    born: datetime | None
    delete: Callable[[], None]
    mark: Callable[[list[dict[str, str]]], None] | None = None


class Present(NamedTuple):
    """A thing that still exists; `born` is its creation time, if AWS keeps one."""

    born: datetime | None


class _Kind(NamedTuple):
    """A kind of EC2's things: the prefix of its ids, its name for people, and what to do with an id."""

    prefix: str
    name: str
    look: Callable[[str], Present | None]
    delete: Callable[[str], Any]


def error_code(error: Exception) -> str:
    """The code of a botocore ClientError, such as "AccessDenied"; empty for other errors."""
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


def is_gone(error: Exception) -> bool:
    """Whether the error says that the thing does not exist."""
    return error_code(error).endswith(_GONE)


class Account:
    """An account's things in one region, and those of IAM, which has no regions."""

    def __init__(self, client: Callable[[str], Any]) -> None:
        self.ec2, self.elb, self.iam, self.ssm = (client(name) for name in ("ec2", "elbv2", "iam", "ssm"))

    def things(self) -> Iterator[Thing]:
        """Everything with a lab's tags or name, in the order in which it can be deleted."""
        yield from self._balancers()
        yield from self.in_ec2()
        yield from self._parameters()
        yield from self._profiles()
        yield from self._roles()

    def in_ec2(self) -> Iterator[Thing]:
        """Everything in EC2, which can list the tags of all its kinds at once."""
        from botocore.exceptions import ClientError

        pages = self.ec2.get_paginator("describe_tags").paginate(
            Filters=[{"Name": "key", "Values": [OWNER, TTL, LOST]}]
        )
        tags: dict[str, Tags] = defaultdict(dict)
        for tag in (tag for page in pages for tag in page["Tags"]):
            tags[tag["ResourceId"]][tag["Key"]] = tag["Value"]
        found: dict[str, list[str]] = defaultdict(list)
        for name in sorted(tags):
            found[name.split("-")[0]].append(name)
        # In this order most of them can be deleted in the first pass.
        kinds = [
            _Kind("i", "instance", self.instance, self._terminate),
            _Kind("nat", "NAT gateway", self._nat, lambda id: self.ec2.delete_nat_gateway(NatGatewayId=id)),
            _Kind("eice", "connect endpoint", self.connect_endpoint, self.delete_connect_endpoint),
            _Kind("eipalloc", "address", self._address, lambda id: self.ec2.release_address(AllocationId=id)),
            _Kind("vol", "volume", self._volume, lambda id: self.ec2.delete_volume(VolumeId=id)),
            _Kind("eni", "interface", self._interface, self._delete_interface),
            _Kind("igw", "internet gateway", self._gateway, self._delete_gateway),
            _Kind("rtb", "route table", self._route_table, self._delete_route_table),
            _Kind("sg", "security group", self._group, self._delete_group),
            _Kind("subnet", "subnet", self._subnet, lambda id: self.ec2.delete_subnet(SubnetId=id)),
            _Kind("vpc", "VPC", self._vpc, lambda id: self.ec2.delete_vpc(VpcId=id)),
            _Kind("key", "key pair", self._key_pair, self._delete_key_pair),
        ]
        for kind in kinds:
            for name in found[kind.prefix]:
                try:
                    present = kind.look(name)
                except ClientError as error:  # some kinds cannot be filtered by id, and naming a deleted one fails
                    if not is_gone(error):
                        raise
                    continue
                if present:
                    delete, mark = partial(kind.delete, name), partial(self._tag, name)
                    yield Thing(kind.name, name, tags[name], present.born, delete, mark)

    def _tag(self, name: str, tags: list[dict[str, str]]) -> None:
        self.ec2.create_tags(Resources=[name], Tags=tags)

    # For each kind: whether a thing is still there, because its tags outlive it for a while, and how to delete it.

    def instance(self, name: str) -> Present | None:
        found = [
            instance
            for reservation in self.ec2.describe_instances(
                Filters=[
                    {"Name": "instance-id", "Values": [name]},
                    {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
                ]
            )["Reservations"]
            for instance in reservation["Instances"]
        ]
        # Its launch time moves with each start, but its first interface was attached when it was created.
        times = [
            time
            for instance in found
            for time in (
                instance["LaunchTime"],
                *(nic.get("Attachment", {}).get("AttachTime") for nic in instance.get("NetworkInterfaces", [])),
            )
            if isinstance(time, datetime)
        ]
        return Present(min(times, default=None)) if found else None

    def _terminate(self, name: str) -> None:
        self.ec2.terminate_instances(InstanceIds=[name])
        self.ec2.get_waiter("instance_terminated").wait(
            InstanceIds=[name],
            WaiterConfig={"Delay": 5, "MaxAttempts": 60},  # five minutes
        )

    def _nat(self, name: str) -> Present | None:
        found = self.ec2.describe_nat_gateways(
            NatGatewayIds=[name], Filters=[{"Name": "state", "Values": ["pending", "available", "failed"]}]
        )["NatGateways"]
        return Present(found[0]["CreateTime"]) if found else None

    def connect_endpoint(self, name: str) -> Present | None:
        found = self.ec2.describe_instance_connect_endpoints(InstanceConnectEndpointIds=[name])
        live = [e for e in found["InstanceConnectEndpoints"] if not e["State"].startswith("delete")]
        return Present(live[0]["CreatedAt"]) if live else None

    def delete_connect_endpoint(self, name: str) -> None:
        self.ec2.delete_instance_connect_endpoint(InstanceConnectEndpointId=name)

    def _address(self, name: str) -> Present | None:
        return _present(self.ec2.describe_addresses(Filters=_named("allocation-id", name))["Addresses"])

    def _interface(self, name: str) -> Present | None:
        found = self.ec2.describe_network_interfaces(Filters=_named("network-interface-id", name))
        return _present(found["NetworkInterfaces"])

    def _delete_interface(self, name: str) -> None:
        self.ec2.delete_network_interface(NetworkInterfaceId=name)

    def _gateway(self, name: str) -> Present | None:
        found = self.ec2.describe_internet_gateways(Filters=_named("internet-gateway-id", name))
        return _present(found["InternetGateways"])

    def _route_table(self, name: str) -> Present | None:
        return _present(self.ec2.describe_route_tables(Filters=_named("route-table-id", name))["RouteTables"])

    def _subnet(self, name: str) -> Present | None:
        return _present(self.ec2.describe_subnets(Filters=_named("subnet-id", name))["Subnets"])

    def _vpc(self, name: str) -> Present | None:
        return _present(self.ec2.describe_vpcs(Filters=_named("vpc-id", name))["Vpcs"])

    def _volume(self, name: str) -> Present | None:
        found = self.ec2.describe_volumes(Filters=_named("volume-id", name))["Volumes"]
        return Present(found[0]["CreateTime"]) if found else None

    def _key_pair(self, name: str) -> Present | None:
        found = self.ec2.describe_key_pairs(Filters=_named("key-pair-id", name))["KeyPairs"]
        return Present(found[0].get("CreateTime")) if found else None

    def _delete_key_pair(self, name: str) -> None:
        for key in self.ec2.describe_key_pairs(Filters=_named("key-pair-id", name))["KeyPairs"]:
            self.ec2.delete_key_pair(KeyName=key["KeyName"])

    def _group(self, name: str) -> Present | None:
        found = self.ec2.describe_security_groups(Filters=_named("group-id", name))["SecurityGroups"]
        # The default group is deleted with its VPC, and cannot be deleted before.
        return _present([group for group in found if group["GroupName"] != "default"])

    def _delete_group(self, name: str) -> None:
        """Deletes its rules first, because groups whose rules name each other cannot be deleted."""
        rules = self.ec2.describe_security_group_rules(Filters=_named("group-id", name))["SecurityGroupRules"]
        inward = [rule["SecurityGroupRuleId"] for rule in rules if not rule["IsEgress"]]
        outward = [rule["SecurityGroupRuleId"] for rule in rules if rule["IsEgress"]]
        if inward:
            self.ec2.revoke_security_group_ingress(GroupId=name, SecurityGroupRuleIds=inward)
        if outward:
            self.ec2.revoke_security_group_egress(GroupId=name, SecurityGroupRuleIds=outward)
        self.ec2.delete_security_group(GroupId=name)

    def _delete_gateway(self, name: str) -> None:
        for gateway in self.ec2.describe_internet_gateways(Filters=_named("internet-gateway-id", name))[
            "InternetGateways"
        ]:
            for attachment in gateway["Attachments"]:
                self.ec2.detach_internet_gateway(InternetGatewayId=name, VpcId=attachment["VpcId"])
        self.ec2.delete_internet_gateway(InternetGatewayId=name)

    def _delete_route_table(self, name: str) -> None:
        for table in self.ec2.describe_route_tables(Filters=_named("route-table-id", name))["RouteTables"]:
            for association in table["Associations"]:
                self.ec2.disassociate_route_table(AssociationId=association["RouteTableAssociationId"])
        self.ec2.delete_route_table(RouteTableId=name)

    def _balancers(self) -> Iterator[Thing]:
        """Balancers, then their target groups, which cannot be deleted before them."""
        balancers = _all(self.elb, "describe_load_balancers", "LoadBalancers")
        groups = _all(self.elb, "describe_target_groups", "TargetGroups")
        kinds = [
            ("load balancer", balancers, "LoadBalancerArn", self.elb.delete_load_balancer),
            ("target group", groups, "TargetGroupArn", self.elb.delete_target_group),
        ]
        for kind, found, key, delete in kinds:
            arns = {each[key]: each.get("CreatedTime") for each in found}
            listed = sorted(arns)
            for some in (listed[i : i + 20] for i in range(0, len(listed), 20)):  # the API's limit
                for entry in self.elb.describe_tags(ResourceArns=some)["TagDescriptions"]:
                    arn, tags = entry["ResourceArn"], _tags(entry["Tags"])
                    mark = partial(self._tag_balancer, arn)
                    yield Thing(kind, arn, tags, arns[arn], partial(delete, **{key: arn}), mark)

    def _tag_balancer(self, arn: str, tags: list[dict[str, str]]) -> None:
        self.elb.add_tags(ResourceArns=[arn], Tags=tags)

    def _parameters(self) -> Iterator[Thing]:
        here = [{"Key": "Path", "Option": "Recursive", "Values": [PARAMETERS]}]
        for parameter in _all(self.ssm, "describe_parameters", "Parameters", ParameterFilters=here):
            name = parameter["Name"]
            tags = _tags(self.ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=name)["TagList"])
            delete = partial(self.ssm.delete_parameter, Name=name)
            yield Thing("parameter", name, tags, parameter["LastModifiedDate"], delete)

    def _profiles(self) -> Iterator[Thing]:
        for profile in _all(self.iam, "list_instance_profiles", "InstanceProfiles"):
            name = profile["InstanceProfileName"]
            if name.startswith(PREFIX):
                # The list has no tags.
                found = self.iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]
                tags = _tags(found.get("Tags", []))
                yield Thing("instance profile", name, tags, profile["CreateDate"], partial(self._delete_profile, name))

    def _delete_profile(self, name: str) -> None:
        for role in self.iam.get_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Roles"]:
            self.iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=role["RoleName"])
        self.iam.delete_instance_profile(InstanceProfileName=name)

    def _roles(self) -> Iterator[Thing]:
        for role in _all(self.iam, "list_roles", "Roles"):
            name = role["RoleName"]
            if name.startswith(PREFIX):
                tags = _tags(self.iam.list_role_tags(RoleName=name)["Tags"])
                yield Thing("role", name, tags, role["CreateDate"], partial(self._delete_role, name))

    def _delete_role(self, name: str) -> None:
        for policy in self.iam.list_role_policies(RoleName=name)["PolicyNames"]:
            self.iam.delete_role_policy(RoleName=name, PolicyName=policy)
        self.iam.delete_role(RoleName=name)


def _present(found: Sequence[object]) -> Present | None:
    """A thing whose creation time AWS does not keep."""
    return Present(None) if found else None


def _named(key: str, value: str) -> list[dict[str, Any]]:
    return [{"Name": key, "Values": [value]}]


def _tags(listed: Sequence[dict[str, str]]) -> Tags:
    return {tag["Key"]: tag["Value"] for tag in listed}


def _all(client: Any, operation: str, key: str, **arguments: Any) -> list[dict[str, Any]]:
    return [each for page in client.get_paginator(operation).paginate(**arguments) for each in page[key]]
