"""The calls by which the aws provider changes each resource in place (tests/support/aws_schema.py names its files)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cli.review.paths import different
from tests.support.ec2_refusals import Refusals
from tests.support.moto_ec2 import Cloud

Json = dict[str, Any]


def update(cloud: Cloud, refusals: Refusals, kind: str, id_: str, old: Json, new: Json) -> bool:
    """Change what differs; True if a machine was stopped and started for it. An input without a call is an error."""
    paths = set(different(old, new))
    restarted = False
    for top in sorted({path.split(".")[0].split("[")[0] for path in paths}):
        change = _CHANGES.get((kind, top)) or _CHANGES.get(("", top))
        if change is None:
            raise NotImplementedError(f"update of {top} of {kind}")
        restarted |= change(cloud, refusals, id_, old, new) is True
    return restarted


_Change = Callable[[Cloud, Refusals, str, Json, Json], bool | None]


def _tags(cloud: Cloud, _: Refusals, id_: str, old: Json, new: Json) -> None:
    was, will = old.get("tags", {}), new.get("tags", {})
    wanted = [{"Key": key, "Value": value} for key, value in will.items()]
    lost = [key for key in was if key not in will]
    if id_.startswith("/"):
        cloud.ssm.add_tags_to_resource(ResourceType="Parameter", ResourceId=id_, Tags=wanted)
        cloud.ssm.remove_tags_from_resource(ResourceType="Parameter", ResourceId=id_, TagKeys=lost)
    elif id_.startswith("arn:"):
        cloud.elb.add_tags(ResourceArns=[id_], Tags=wanted)
        if lost:
            cloud.elb.remove_tags(ResourceArns=[id_], TagKeys=lost)
    elif id_.startswith("cni-lab-"):
        profile = id_ in {p["InstanceProfileName"] for p in cloud.iam.list_instance_profiles()["InstanceProfiles"]}
        if profile:
            cloud.iam.tag_instance_profile(InstanceProfileName=id_, Tags=wanted)
        else:
            cloud.iam.tag_role(RoleName=id_, Tags=wanted)
    else:
        cloud.ec2.create_tags(Resources=[id_], Tags=wanted)
        if lost:
            cloud.ec2.delete_tags(Resources=[id_], Tags=[{"Key": key} for key in lost])


# --- machines: resourceInstanceUpdate ---


def _type(cloud: Cloud, refusals: Refusals, id_: str, _: Json, new: Json) -> bool:
    """modifyInstanceAttributeWithStopStart."""
    refusals.stop(id_)
    cloud.ec2.stop_instances(InstanceIds=[id_])
    cloud.ec2.modify_instance_attribute(InstanceId=id_, InstanceType={"Value": new["instanceType"]})
    refusals.launch(new["instanceType"], besides=id_)
    cloud.ec2.start_instances(InstanceIds=[id_])
    return True


def _source_dest_check(cloud: Cloud, _: Refusals, id_: str, __: Json, new: Json) -> None:
    cloud.ec2.modify_instance_attribute(InstanceId=id_, SourceDestCheck={"Value": new["sourceDestCheck"]})


def _groups(cloud: Cloud, _: Refusals, id_: str, __: Json, new: Json) -> None:
    """The groups of the first interface, by a call of its own."""
    instance = cloud.ec2.describe_instances(InstanceIds=[id_])["Reservations"][0]["Instances"][0]
    interface = instance["NetworkInterfaces"][0]["NetworkInterfaceId"]
    cloud.ec2.modify_network_interface_attribute(NetworkInterfaceId=interface, Groups=new["vpcSecurityGroupIds"])


def _disk(cloud: Cloud, refusals: Refusals, id_: str, old: Json, new: Json) -> None:
    instance = cloud.ec2.describe_instances(InstanceIds=[id_])["Reservations"][0]["Instances"][0]
    volume = instance["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
    before, after = old["rootBlockDevice"], new["rootBlockDevice"]
    if before["volumeSize"] != after["volumeSize"]:
        refusals.resize(volume, after["volumeSize"])
        cloud.ec2.modify_volume(VolumeId=volume, Size=after["volumeSize"])
    if before["volumeType"] != after["volumeType"]:
        cloud.ec2.modify_volume(VolumeId=volume, VolumeType=after["volumeType"])
    if before["deleteOnTermination"] != after["deleteOnTermination"]:
        raise NotImplementedError("update of rootBlockDevice.deleteOnTermination")
    if before["tags"] != after["tags"]:
        _tags(cloud, refusals, volume, before, after)


def _profile(cloud: Cloud, _: Refusals, id_: str, __: Json, new: Json) -> None:
    filters = [{"Name": "instance-id", "Values": [id_]}]
    found = cloud.ec2.describe_iam_instance_profile_associations(Filters=filters)["IamInstanceProfileAssociations"]
    cloud.ec2.replace_iam_instance_profile_association(
        AssociationId=found[0]["AssociationId"], IamInstanceProfile={"Name": new["iamInstanceProfile"]}
    )


def _metadata(cloud: Cloud, _: Refusals, id_: str, __: Json, new: Json) -> None:
    options = new["metadataOptions"]
    cloud.ec2.modify_instance_metadata_options(
        InstanceId=id_,
        HttpEndpoint=options["httpEndpoint"],
        HttpTokens=options["httpTokens"],
        HttpPutResponseHopLimit=options["httpPutResponseHopLimit"],
    )


# --- network ---


def _move_gateway(cloud: Cloud, refusals: Refusals, id_: str, old: Json, new: Json) -> None:
    """resourceInternetGatewayUpdate: it is moved, and not made anew."""
    if old["vpcId"]:
        refusals.detach(old["vpcId"])
        cloud.ec2.detach_internet_gateway(InternetGatewayId=id_, VpcId=old["vpcId"])
    cloud.ec2.attach_internet_gateway(InternetGatewayId=id_, VpcId=new["vpcId"])


def _rule(cloud: Cloud, _: Refusals, id_: str, __: Json, new: Json) -> None:
    rule = {
        "IpProtocol": new["ipProtocol"],
        "FromPort": new.get("fromPort", -1),
        "ToPort": new.get("toPort", -1),
        "Description": new.get("description", ""),
    }
    if "cidrIpv4" in new:
        rule["CidrIpv4"] = new["cidrIpv4"]
    else:
        rule["ReferencedGroupId"] = new["referencedSecurityGroupId"]
    cloud.ec2.modify_security_group_rules(
        GroupId=new["securityGroupId"],
        SecurityGroupRules=[{"SecurityGroupRuleId": id_, "SecurityGroupRule": rule}],
    )


def _public(cloud: Cloud, _: Refusals, id_: str, __: Json, new: Json) -> None:
    cloud.ec2.modify_subnet_attribute(SubnetId=id_, MapPublicIpOnLaunch={"Value": new["mapPublicIpOnLaunch"]})


def _dns_support(cloud: Cloud, _: Refusals, id_: str, __: Json, new: Json) -> None:
    cloud.ec2.modify_vpc_attribute(VpcId=id_, EnableDnsSupport={"Value": new["enableDnsSupport"]})


def _dns_names(cloud: Cloud, _: Refusals, id_: str, __: Json, new: Json) -> None:
    cloud.ec2.modify_vpc_attribute(VpcId=id_, EnableDnsHostnames={"Value": new["enableDnsHostnames"]})


def _routes(cloud: Cloud, _: Refusals, id_: str, old: Json, new: Json) -> None:
    """resourceRouteTableUpdate: routes that are gone first, then those that are new or lead elsewhere."""
    was = {route["cidrBlock"]: route for route in old["routes"]}
    will = {route["cidrBlock"]: route for route in new["routes"]}
    for cidr in was.keys() - will.keys():
        cloud.ec2.delete_route(RouteTableId=id_, DestinationCidrBlock=cidr)
    for cidr, route in will.items():
        if was.get(cidr) == route:
            continue
        to = {key[0].upper() + key[1:]: route[key] for key in ("gatewayId", "natGatewayId") if key in route}
        call = cloud.ec2.replace_route if cidr in was else cloud.ec2.create_route
        call(RouteTableId=id_, DestinationCidrBlock=cidr, **to)


def _table(cloud: Cloud, _: Refusals, id_: str, __: Json, new: Json) -> None:
    """EC2 gives the association another id, which the engine does not learn (pulumi-aws#3911)."""
    cloud.ec2.replace_route_table_association(AssociationId=id_, RouteTableId=new["routeTableId"])


# --- roles and parameters ---


def _role_policy(cloud: Cloud, _: Refusals, id_: str, __: Json, new: Json) -> None:
    role, _, policy = id_.partition(":")
    cloud.iam.put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=new["policy"])


def _trust(cloud: Cloud, _: Refusals, id_: str, __: Json, new: Json) -> None:
    cloud.iam.update_assume_role_policy(RoleName=id_, PolicyDocument=new["assumeRolePolicy"])


def _role_of_profile(cloud: Cloud, _: Refusals, id_: str, old: Json, new: Json) -> None:
    if old["role"]:
        cloud.iam.remove_role_from_instance_profile(InstanceProfileName=id_, RoleName=old["role"])
    cloud.iam.add_role_to_instance_profile(InstanceProfileName=id_, RoleName=new["role"])


def _parameter(cloud: Cloud, _: Refusals, id_: str, __: Json, new: Json) -> None:
    cloud.ssm.put_parameter(
        Name=id_, Type=new["type"], Value=new["value"], Description=new["description"], Overwrite=True
    )


# --- balancer ---


def _balancers_groups(cloud: Cloud, _: Refusals, id_: str, __: Json, new: Json) -> None:
    cloud.elb.set_security_groups(LoadBalancerArn=id_, SecurityGroups=new["securityGroups"])


def _actions(cloud: Cloud, _: Refusals, id_: str, __: Json, new: Json) -> None:
    actions = [{"Type": a["type"], "TargetGroupArn": a["targetGroupArn"]} for a in new["defaultActions"]]
    cloud.elb.modify_listener(ListenerArn=id_, DefaultActions=actions)


_RULE = ("cidrIpv4", "description", "fromPort", "ipProtocol", "referencedSecurityGroupId", "toPort")
_CHANGES: dict[tuple[str, str], _Change] = {
    ("", "tags"): _tags,
    ("aws:ec2/instance:Instance", "instanceType"): _type,
    ("aws:ec2/instance:Instance", "sourceDestCheck"): _source_dest_check,
    ("aws:ec2/instance:Instance", "vpcSecurityGroupIds"): _groups,
    ("aws:ec2/instance:Instance", "rootBlockDevice"): _disk,
    ("aws:ec2/instance:Instance", "iamInstanceProfile"): _profile,
    ("aws:ec2/instance:Instance", "metadataOptions"): _metadata,
    ("aws:ec2/internetGateway:InternetGateway", "vpcId"): _move_gateway,
    ("aws:ec2/subnet:Subnet", "mapPublicIpOnLaunch"): _public,
    ("aws:ec2/vpc:Vpc", "enableDnsSupport"): _dns_support,
    ("aws:ec2/vpc:Vpc", "enableDnsHostnames"): _dns_names,
    ("aws:ec2/routeTable:RouteTable", "routes"): _routes,
    ("aws:ec2/routeTableAssociation:RouteTableAssociation", "routeTableId"): _table,
    ("aws:iam/role:Role", "assumeRolePolicy"): _trust,
    ("aws:iam/rolePolicy:RolePolicy", "policy"): _role_policy,
    ("aws:iam/instanceProfile:InstanceProfile", "role"): _role_of_profile,
    ("aws:lb/loadBalancer:LoadBalancer", "securityGroups"): _balancers_groups,
    ("aws:lb/listener:Listener", "defaultActions"): _actions,
    **{("aws:ssm/parameter:Parameter", key): _parameter for key in ("value", "type", "description", "overwrite")},
    **{("aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule", key): _rule for key in _RULE},
    **{("aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule", key): _rule for key in _RULE},
}
