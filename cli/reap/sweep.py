"""What no state remembers: things on AWS whose tags say that they are an ephemeral lab's, past its time.

Only the tags are trusted. A thing without `cni-lab:stack` and `cni-lab:ttl-hours` is never looked at twice, nor is a
stack that the state knows. The things of one stack go together, and the youngest decides: a machine's time runs from
its creation. What has no time of its own (a VPC, a subnet, an address) goes with what has; where nothing has, the
first sweep writes `cni-lab:lost-since` on the things, and one past the time to live from then takes them.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Literal

from components.aws_client import clients

OWNER, TTL, LOST = "cni-lab:stack", "cni-lab:ttl-hours", "cni-lab:lost-since"
PREFIX = "cni-lab-"
"""How the names of a lab's roles and instance profiles begin."""
PARAMETERS = "/cni-lab"

PATIENCE = 600.0
"""Seconds for a stack's things to go: machines and network interfaces take minutes."""
PAUSE = 10.0

_REFUSED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}
"""What another try does not change."""
_GONE = ("NotFound", "NotFoundException", "NoSuchEntity")

Tags = dict[str, str]


class SweepError(Exception):
    """A region cannot be looked at; the message is one line."""

    def __init__(self, message: str, *, no_credentials: bool = False) -> None:
        super().__init__(message)
        self.no_credentials = no_credentials


@dataclass(frozen=True)
class Sweep:
    """What was found of one lost stack, and what became of it."""

    stack: str
    outcome: Literal["destroyed", "would be destroyed", "kept", "left behind"]
    why: str


@dataclass(frozen=True)
class Thing:
    """`born` is None for what AWS keeps no creation time of. `mark` writes the tag that says since when it is lost."""

    kind: str
    id: str
    tags: Tags
    born: datetime | None
    delete: Callable[[], None]
    mark: Callable[[list[dict[str, str]]], None] | None = None


def sweep(region: str, now: datetime, known: frozenset[str], *, dry_run: bool) -> list[Sweep]:
    """Delete what lost ephemeral stacks left in a region; `known` stacks are the state's and stay untouched."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        stacks: dict[str, list[Thing]] = defaultdict(list)
        for thing in _Account(clients(region)).things():
            if _hours(thing) is not None and thing.tags[OWNER] not in known:
                stacks[thing.tags[OWNER]].append(thing)
        return [_judge(stack, things, now, dry_run=dry_run) for stack, things in sorted(stacks.items())]
    except NoCredentialsError:
        message = "not looked at: no AWS credentials (aws configure, AWS_PROFILE)"
        raise SweepError(message, no_credentials=True) from None
    except (BotoCoreError, ClientError, ValueError) as error:  # an invalid region's name is a ValueError
        raise SweepError(f"cannot be looked at: {_line(error)}") from None


def _judge(stack: str, things: Sequence[Thing], now: datetime, *, dry_run: bool) -> Sweep:
    count = ", ".join(f"{number} {kind}" for kind, number in sorted(Counter(t.kind for t in things).items()))
    times = [time for thing in things if (time := thing.born or _lost_since(thing)) is not None]
    hours = max(_hours(thing) or 0 for thing in things)
    if not times:
        if not dry_run:
            tag = [{"Key": LOST, "Value": now.strftime("%Y-%m-%dT%H:%M:%SZ")}]
            for thing in things:
                if thing.mark:
                    thing.mark(tag)
        return Sweep(stack, "kept", f"{count}: none has a creation time; counted as lost from now, {hours} h to live")
    end = max(times) + timedelta(hours=hours)
    if now < end:
        return Sweep(stack, "kept", f"{count}: until {end:%Y-%m-%d %H:%M} UTC")
    why = f"{count}: {hours} h to live, over since {end:%Y-%m-%d %H:%M} UTC"
    if dry_run:
        return Sweep(stack, "would be destroyed", why)
    left = _delete(things)
    if left:
        name, reason = next(iter(left.items()))
        return Sweep(stack, "left behind", f"{len(left)} of {len(things)} things, such as {name}: {reason}")
    return Sweep(stack, "destroyed", why)


def _delete(things: Sequence[Thing]) -> dict[str, str]:
    """Delete in passes, for one thing's end lets the next one go; returns what is left and why, by `kind id`."""
    from botocore.exceptions import BotoCoreError, ClientError

    deadline = time.monotonic() + PATIENCE
    left = list(things)
    refused: dict[str, str] = {}
    while True:
        failed: list[Thing] = []
        reasons: dict[str, str] = {}
        for thing in left:
            try:
                thing.delete()
            except (BotoCoreError, ClientError) as error:
                code = _code(error)
                if code in _REFUSED:
                    refused[f"{thing.kind} {thing.id}"] = _line(error)
                elif not code.endswith(_GONE):
                    failed.append(thing)
                    reasons[f"{thing.kind} {thing.id}"] = _line(error)
        if not failed or time.monotonic() > deadline:
            return refused | reasons
        # A pass that freed something is followed at once by the next; one that did not waits for AWS.
        if len(failed) == len(left):
            time.sleep(PAUSE)
        left = failed


def _hours(thing: Thing) -> int | None:
    """The time to live on a thing's tags, None where they do not make it an ephemeral lab's."""
    text = thing.tags.get(TTL, "")
    return int(text) if OWNER in thing.tags and text.isascii() and text.isdigit() and int(text) >= 1 else None


def _lost_since(thing: Thing) -> datetime | None:
    try:
        return datetime.fromisoformat(thing.tags.get(LOST, ""))
    except ValueError:
        return None


def _code(error: Exception) -> str:
    return str(getattr(error, "response", {}).get("Error", {}).get("Code", ""))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


class _Account:
    """Everything of labs in one region, in the order in which it can be deleted. IAM, which knows no regions, too."""

    def __init__(self, client: Callable[[str], Any]) -> None:
        self.ec2, self.elb, self.iam, self.ssm = (client(name) for name in ("ec2", "elbv2", "iam", "ssm"))

    def things(self) -> Iterator[Thing]:
        yield from self._balancers()
        yield from self._in_ec2()
        yield from self._parameters()
        yield from self._profiles()
        yield from self._roles()

    def _in_ec2(self) -> Iterator[Thing]:
        """Every kind of EC2's at once: tags are a list of their own there."""
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
        # By the ids' prefix, and in this order most of them go in the first pass.
        kinds: list[tuple[str, str, Callable[[str], tuple[bool, datetime | None]], Callable[[str], Any]]] = [
            ("i", "instance", self._instance, self._terminate),
            ("nat", "NAT gateway", self._nat, lambda id: self.ec2.delete_nat_gateway(NatGatewayId=id)),
            ("eice", "connect endpoint", self._connect_endpoint, self._delete_connect_endpoint),
            ("eipalloc", "address", self._address, lambda id: self.ec2.release_address(AllocationId=id)),
            ("vol", "volume", self._volume, lambda id: self.ec2.delete_volume(VolumeId=id)),
            ("eni", "interface", self._interface, lambda id: self.ec2.delete_network_interface(NetworkInterfaceId=id)),
            ("igw", "internet gateway", self._gateway, self._delete_gateway),
            ("rtb", "route table", self._route_table, self._delete_route_table),
            ("sg", "security group", self._group, self._delete_group),
            ("subnet", "subnet", self._subnet, lambda id: self.ec2.delete_subnet(SubnetId=id)),
            ("vpc", "VPC", self._vpc, lambda id: self.ec2.delete_vpc(VpcId=id)),
            ("key", "key pair", self._key_pair, self._delete_key_pair),
        ]
        for prefix, kind, look, delete in kinds:
            for name in found[prefix]:
                try:
                    there, born = look(name)
                except ClientError as error:  # some kinds' ids cannot be a filter, and naming what is gone fails
                    if not _code(error).endswith(_GONE):
                        raise
                    continue
                if there:
                    yield Thing(kind, name, tags[name], born, partial(delete, name), partial(self._tag, name))

    def _tag(self, name: str, tags: list[dict[str, str]]) -> None:
        self.ec2.create_tags(Resources=[name], Tags=tags)

    # What each kind says of one id: whether it is still there (its tags outlive it for a while), and since when.

    def _instance(self, name: str) -> tuple[bool, datetime | None]:
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
        # Its launch time is that of its last start; its first interface was attached when it was made.
        times = [
            time
            for instance in found
            for time in (
                instance["LaunchTime"],
                *(nic.get("Attachment", {}).get("AttachTime") for nic in instance.get("NetworkInterfaces", [])),
            )
            if isinstance(time, datetime)
        ]
        return bool(found), min(times, default=None)

    def _terminate(self, name: str) -> None:
        self.ec2.terminate_instances(InstanceIds=[name])
        self.ec2.get_waiter("instance_terminated").wait(
            InstanceIds=[name], WaiterConfig={"Delay": 5, "MaxAttempts": 60}
        )

    def _nat(self, name: str) -> tuple[bool, datetime | None]:
        found = self.ec2.describe_nat_gateways(
            NatGatewayIds=[name], Filters=[{"Name": "state", "Values": ["pending", "available", "failed"]}]
        )["NatGateways"]
        return bool(found), found[0]["CreateTime"] if found else None

    def _connect_endpoint(self, name: str) -> tuple[bool, datetime | None]:
        found = self.ec2.describe_instance_connect_endpoints(InstanceConnectEndpointIds=[name])
        live = [e for e in found["InstanceConnectEndpoints"] if not e["State"].startswith("delete")]
        return bool(live), live[0]["CreatedAt"] if live else None

    def _delete_connect_endpoint(self, name: str) -> None:
        self.ec2.delete_instance_connect_endpoint(InstanceConnectEndpointId=name)

    def _address(self, name: str) -> tuple[bool, datetime | None]:
        return bool(self.ec2.describe_addresses(Filters=_named("allocation-id", name))["Addresses"]), None

    def _interface(self, name: str) -> tuple[bool, datetime | None]:
        return bool(
            self.ec2.describe_network_interfaces(Filters=_named("network-interface-id", name))["NetworkInterfaces"]
        ), None

    def _gateway(self, name: str) -> tuple[bool, datetime | None]:
        return bool(
            self.ec2.describe_internet_gateways(Filters=_named("internet-gateway-id", name))["InternetGateways"]
        ), None

    def _route_table(self, name: str) -> tuple[bool, datetime | None]:
        return bool(self.ec2.describe_route_tables(Filters=_named("route-table-id", name))["RouteTables"]), None

    def _subnet(self, name: str) -> tuple[bool, datetime | None]:
        return bool(self.ec2.describe_subnets(Filters=_named("subnet-id", name))["Subnets"]), None

    def _vpc(self, name: str) -> tuple[bool, datetime | None]:
        return bool(self.ec2.describe_vpcs(Filters=_named("vpc-id", name))["Vpcs"]), None

    def _volume(self, name: str) -> tuple[bool, datetime | None]:
        found = self.ec2.describe_volumes(Filters=_named("volume-id", name))["Volumes"]
        return bool(found), found[0]["CreateTime"] if found else None

    def _key_pair(self, name: str) -> tuple[bool, datetime | None]:
        found = self.ec2.describe_key_pairs(Filters=_named("key-pair-id", name))["KeyPairs"]
        return bool(found), found[0].get("CreateTime") if found else None

    def _delete_key_pair(self, name: str) -> None:
        for key in self.ec2.describe_key_pairs(Filters=_named("key-pair-id", name))["KeyPairs"]:
            self.ec2.delete_key_pair(KeyName=key["KeyName"])

    def _group(self, name: str) -> tuple[bool, datetime | None]:
        found = self.ec2.describe_security_groups(Filters=_named("group-id", name))["SecurityGroups"]
        # The default group goes with its VPC, and cannot go without.
        return bool(found) and found[0]["GroupName"] != "default", None

    def _delete_group(self, name: str) -> None:
        """Its rules first: groups that name one another hold each other."""
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
        """Balancers before their target groups, which they hold."""
        balancers = _all(self.elb, "describe_load_balancers", "LoadBalancers")
        groups = _all(self.elb, "describe_target_groups", "TargetGroups")
        kinds = [
            ("load balancer", balancers, "LoadBalancerArn", self.elb.delete_load_balancer),
            ("target group", groups, "TargetGroupArn", self.elb.delete_target_group),
        ]
        for kind, found, key, delete in kinds:
            arns = {each[key]: each.get("CreatedTime") for each in found}
            listed = sorted(arns)
            for some in (listed[i : i + 20] for i in range(0, len(listed), 20)):  # 20 are the most it answers for
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
                # A list leaves the tags out.
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


def _named(key: str, value: str) -> list[dict[str, Any]]:
    return [{"Name": key, "Values": [value]}]


def _tags(listed: Sequence[dict[str, str]]) -> Tags:
    return {tag["Key"]: tag["Value"] for tag in listed}


def _all(client: Any, operation: str, key: str, **arguments: Any) -> list[dict[str, Any]]:
    return [each for page in client.get_paginator(operation).paginate(**arguments) for each in page[key]]
