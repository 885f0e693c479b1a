"""What the aws provider reads: the inputs of each resource as they are in the account now, for a `refresh`.

As the provider's bridge does (pulumi-terraform-bridge, pkg/tfbridge/schema.go, extractInputsFromOutputs), only inputs
that the state has already are given a new value. What AWS gives in another form or order is compared by its meaning,
and a value that AWS does not give, such as the overwrite of a parameter, stays as it is.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable
from typing import Any

from botocore.exceptions import ClientError

from tests.support.moto_ec2 import Cloud

Json = dict[str, Any]
GONE = ("NotFound", "NoSuchEntity", "Gateway.NotAttached", "NotFoundException")
ENDED = ("terminated", "shutting-down", "deleted", "deleting")


def is_gone(error: Exception) -> bool:
    return isinstance(error, ClientError) and str(error.response["Error"]["Code"]).endswith(GONE)


def read(cloud: Cloud, kind: str, id_: str, inputs: Json) -> tuple[Json, Json] | None:
    """The inputs and the other outputs as they are now; None if there is no such resource."""
    try:
        found = _READERS[kind](cloud, id_, inputs)
    except ClientError as error:
        if is_gone(error):
            return None
        raise
    if found is None:
        return None
    outputs = found.pop("outputs", {})
    now = {key: _as_before(value, found[key]) if key in found else value for key, value in inputs.items()}
    return now, outputs


def _as_before(before: Any, now: Any) -> Any:
    """The value that is there now; the one before if both mean the same."""
    if isinstance(before, dict) and isinstance(now, dict):
        return {key: _as_before(value, now.get(key)) for key, value in before.items()}
    if isinstance(before, list) and isinstance(now, list):
        key = lambda item: json.dumps(item, sort_keys=True)  # noqa: E731
        return before if sorted(before, key=key) == sorted(now, key=key) else now
    if isinstance(before, str) and isinstance(now, dict):
        return before if json.loads(before) == now else json.dumps(now)
    return now


def _tags(listed: Iterable[Json]) -> Json:
    return {tag["Key"]: tag["Value"] for tag in listed}


def _only(found: list[Any]) -> Any:
    return found[0] if found else None


# --- network ---


def _vpc(cloud: Cloud, id_: str, _: Json) -> Json:
    vpc = cloud.ec2.describe_vpcs(VpcIds=[id_])["Vpcs"][0]
    asked = {"enableDnsSupport": "EnableDnsSupport", "enableDnsHostnames": "EnableDnsHostnames"}
    return {
        "cidrBlock": vpc["CidrBlock"],
        "tags": _tags(vpc["Tags"]),
        **{
            key: cloud.ec2.describe_vpc_attribute(VpcId=id_, Attribute=name[0].lower() + name[1:])[name]["Value"]
            for key, name in asked.items()
        },
    }


def _group(cloud: Cloud, id_: str, _: Json) -> Json:
    group = cloud.ec2.describe_security_groups(GroupIds=[id_])["SecurityGroups"][0]
    return {"description": group["Description"], "vpcId": group["VpcId"], "tags": _tags(group["Tags"])}


def _rule(cloud: Cloud, id_: str, _: Json) -> Json | None:
    # moto answers an unknown id with an empty list.
    rule = _only(cloud.ec2.describe_security_group_rules(SecurityGroupRuleIds=[id_])["SecurityGroupRules"])
    if rule is None:
        return None
    return {
        "securityGroupId": rule["GroupId"],
        "ipProtocol": rule["IpProtocol"],
        "fromPort": rule.get("FromPort"),
        "toPort": rule.get("ToPort"),
        "cidrIpv4": rule.get("CidrIpv4"),
        "referencedSecurityGroupId": rule.get("ReferencedGroupInfo", {}).get("GroupId"),
        # moto keeps the description of a rule with a CIDR only.
        **({"description": rule.get("Description", "")} if "CidrIpv4" in rule else {}),
    }


def _gateway(cloud: Cloud, id_: str, _: Json) -> Json:
    gateway = cloud.ec2.describe_internet_gateways(InternetGatewayIds=[id_])["InternetGateways"][0]
    attached = _only(gateway["Attachments"])
    return {"vpcId": attached["VpcId"] if attached else "", "tags": _tags(gateway["Tags"])}


def _subnet(cloud: Cloud, id_: str, _: Json) -> Json:
    subnet = cloud.ec2.describe_subnets(SubnetIds=[id_])["Subnets"][0]
    return {
        "vpcId": subnet["VpcId"],
        "cidrBlock": subnet["CidrBlock"],
        "availabilityZone": subnet["AvailabilityZone"],
        "mapPublicIpOnLaunch": subnet["MapPublicIpOnLaunch"],
        "tags": _tags(subnet["Tags"]),
    }


def _route_table(cloud: Cloud, id_: str, _: Json) -> Json:
    table = cloud.ec2.describe_route_tables(RouteTableIds=[id_])["RouteTables"][0]
    routes = []
    for route in table["Routes"]:
        if route.get("GatewayId") == "local":
            continue
        to = {"gatewayId": route.get("GatewayId"), "natGatewayId": route.get("NatGatewayId")}
        routes.append(
            {"cidrBlock": route["DestinationCidrBlock"], **{key: value for key, value in to.items() if value}}
        )
    return {"vpcId": table["VpcId"], "routes": routes, "tags": _tags(table["Tags"])}


def _route_table_association(cloud: Cloud, id_: str, _: Json) -> Json | None:
    filters = [{"Name": "association.route-table-association-id", "Values": [id_]}]
    for table in cloud.ec2.describe_route_tables(Filters=filters)["RouteTables"]:
        for association in table["Associations"]:
            if association["RouteTableAssociationId"] == id_:
                return {"routeTableId": table["RouteTableId"], "subnetId": association["SubnetId"]}
    return None


def _nat_gateway(cloud: Cloud, id_: str, _: Json) -> Json | None:
    gateway = _only(cloud.ec2.describe_nat_gateways(NatGatewayIds=[id_])["NatGateways"])
    if gateway is None or gateway["State"] in ENDED:
        return None
    address = gateway["NatGatewayAddresses"][0]
    return {
        "subnetId": gateway["SubnetId"],
        "allocationId": address["AllocationId"],
        # moto gives it a private address of its own choice.
        "tags": _tags(gateway["Tags"]),
    }


def _endpoint(cloud: Cloud, id_: str, _: Json) -> Json | None:
    found = cloud.ec2.describe_instance_connect_endpoints(InstanceConnectEndpointIds=[id_])
    endpoint = _only(found["InstanceConnectEndpoints"])
    if endpoint is None:
        return None
    return {
        "subnetId": endpoint["SubnetId"],
        "securityGroupIds": endpoint["SecurityGroupIds"],
        "preserveClientIp": endpoint["PreserveClientIp"],
    }


# --- machines ---


def _key_pair(cloud: Cloud, id_: str, _: Json) -> Json:
    pair = cloud.ec2.describe_key_pairs(KeyNames=[id_])["KeyPairs"][0]
    return {"tags": _tags(pair["Tags"])}


def _eip(cloud: Cloud, id_: str, _: Json) -> Json:
    address = cloud.ec2.describe_addresses(AllocationIds=[id_])["Addresses"][0]
    return {"domain": address["Domain"], "tags": _tags(address["Tags"])}


def _eip_association(cloud: Cloud, id_: str, _: Json) -> Json | None:
    filters = [{"Name": "association-id", "Values": [id_]}]
    address = _only(cloud.ec2.describe_addresses(Filters=filters)["Addresses"])
    if address is None or not address.get("AssociationId"):
        return None
    return {"allocationId": address["AllocationId"], "instanceId": address["InstanceId"]}


def _instance(cloud: Cloud, id_: str, _: Json) -> Json | None:
    instance = cloud.ec2.describe_instances(InstanceIds=[id_])["Reservations"][0]["Instances"][0]
    state = instance["State"]["Name"]
    if state in ENDED:
        return None

    def attribute(name: str) -> Any:
        found = cloud.ec2.describe_instance_attribute(InstanceId=id_, Attribute=name)
        return found[name[0].upper() + name[1:]].get("Value")

    disk = instance["BlockDeviceMappings"][0]["Ebs"]
    volume = cloud.ec2.describe_volumes(VolumeIds=[disk["VolumeId"]])["Volumes"][0]
    metadata = instance["MetadataOptions"]
    found: Json = {
        "ami": instance["ImageId"],
        "associatePublicIpAddress": bool(instance.get("PublicIpAddress")),
        "disableApiTermination": attribute("disableApiTermination"),
        "iamInstanceProfile": instance["IamInstanceProfile"]["Arn"].rpartition("/")[2],
        "instanceType": instance["InstanceType"],
        "keyName": instance["KeyName"],
        "metadataOptions": {
            "httpEndpoint": metadata["HttpEndpoint"],
            "httpTokens": metadata["HttpTokens"],
            "httpPutResponseHopLimit": int(metadata["HttpPutResponseHopLimit"]),
        },
        "privateIp": instance["PrivateIpAddress"],
        "rootBlockDevice": {
            "deleteOnTermination": disk["DeleteOnTermination"],
            "encrypted": volume["Encrypted"],
            "tags": _tags(volume["Tags"]),
            "volumeSize": volume["Size"],
            "volumeType": volume["VolumeType"],
        },
        "sourceDestCheck": instance["SourceDestCheck"],
        "subnetId": instance["SubnetId"],
        "tags": _tags(instance["Tags"]),
        "userData": base64.b64decode(attribute("userData")).decode(),
        "vpcSecurityGroupIds": [group["GroupId"] for group in instance["NetworkInterfaces"][0]["Groups"]],
        "outputs": {"publicIp": instance.get("PublicIpAddress", ""), "instanceState": state},
    }
    if instance.get("InstanceLifecycle") != "spot":
        found["instanceMarketOptions"] = None
    return found


def _parameter(cloud: Cloud, id_: str, _: Json) -> Json | None:
    parameter = cloud.ssm.get_parameter(Name=id_, WithDecryption=True)["Parameter"]
    filters = [{"Key": "Name", "Option": "Equals", "Values": [id_]}]
    more = _only(cloud.ssm.describe_parameters(ParameterFilters=filters)["Parameters"])
    if more is None:
        return None
    tags = cloud.ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=id_)["TagList"]
    return {
        "name": parameter["Name"],
        "type": parameter["Type"],
        "value": parameter["Value"],
        "description": more.get("Description"),
        "tags": _tags(tags),
        "outputs": {"arn": parameter["ARN"]},
    }


def _role(cloud: Cloud, id_: str, _: Json) -> Json:
    role = cloud.iam.get_role(RoleName=id_)["Role"]
    return {"assumeRolePolicy": role["AssumeRolePolicyDocument"], "tags": _tags(role["Tags"])}


def _role_policy(cloud: Cloud, id_: str, _: Json) -> Json:
    role, _, name = id_.partition(":")
    return {"role": role, "policy": cloud.iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]}


def _profile(cloud: Cloud, id_: str, _: Json) -> Json:
    profile = cloud.iam.get_instance_profile(InstanceProfileName=id_)["InstanceProfile"]
    role = _only(profile["Roles"])
    return {"role": role["RoleName"] if role else None, "tags": _tags(profile["Tags"])}


# --- balancer ---


def _balancer(cloud: Cloud, id_: str, _: Json) -> Json:
    balancer = cloud.elb.describe_load_balancers(LoadBalancerArns=[id_])["LoadBalancers"][0]
    return {
        "internal": balancer["Scheme"] == "internal",
        "loadBalancerType": balancer["Type"],
        "securityGroups": balancer["SecurityGroups"],
        "tags": _elb_tags(cloud, id_),
    }


def _target_group(cloud: Cloud, id_: str, _: Json) -> Json:
    group = cloud.elb.describe_target_groups(TargetGroupArns=[id_])["TargetGroups"][0]
    attributes = cloud.elb.describe_target_group_attributes(TargetGroupArn=id_)["Attributes"]
    values = {attribute["Key"]: attribute["Value"] for attribute in attributes}
    return {
        "vpcId": group["VpcId"],
        "targetType": group["TargetType"],
        "protocol": group["Protocol"],
        "port": group["Port"],
        "healthCheck": {
            "protocol": group["HealthCheckProtocol"],
            "path": group["HealthCheckPath"],
            "interval": group["HealthCheckIntervalSeconds"],
            "timeout": group["HealthCheckTimeoutSeconds"],
            "healthyThreshold": group["HealthyThresholdCount"],
            "unhealthyThreshold": group["UnhealthyThresholdCount"],
            "matcher": group["Matcher"]["HttpCode"],
        },
        "preserveClientIp": values["preserve_client_ip.enabled"],
        "deregistrationDelay": int(values["deregistration_delay.timeout_seconds"]),
        "tags": _elb_tags(cloud, id_),
    }


def _listener(cloud: Cloud, id_: str, _: Json) -> Json:
    listener = cloud.elb.describe_listeners(ListenerArns=[id_])["Listeners"][0]
    return {
        "loadBalancerArn": listener["LoadBalancerArn"],
        "protocol": listener["Protocol"],
        "port": listener["Port"],
        "defaultActions": [
            {"type": action["Type"], "targetGroupArn": action["TargetGroupArn"]}
            for action in listener["DefaultActions"]
        ],
        "tags": _elb_tags(cloud, id_),
    }


def _target(cloud: Cloud, _: str, inputs: Json) -> Json | None:
    group, target = inputs["targetGroupArn"], inputs["targetId"]
    for found in cloud.elb.describe_target_health(TargetGroupArn=group)["TargetHealthDescriptions"]:
        if found["Target"]["Id"] == target:
            return {"port": found["Target"]["Port"]}
    return None


def _elb_tags(cloud: Cloud, arn: str) -> Json:
    return _tags(cloud.elb.describe_tags(ResourceArns=[arn])["TagDescriptions"][0]["Tags"])


_READERS: dict[str, Callable[[Cloud, str, Json], Json | None]] = {
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup": _group,
    "aws:ec2/eip:Eip": _eip,
    "aws:ec2/eipAssociation:EipAssociation": _eip_association,
    "aws:ec2/instance:Instance": _instance,
    "aws:ec2/internetGateway:InternetGateway": _gateway,
    "aws:ec2/keyPair:KeyPair": _key_pair,
    "aws:ec2/natGateway:NatGateway": _nat_gateway,
    "aws:ec2/routeTable:RouteTable": _route_table,
    "aws:ec2/routeTableAssociation:RouteTableAssociation": _route_table_association,
    "aws:ec2/securityGroup:SecurityGroup": _group,
    "aws:ec2/subnet:Subnet": _subnet,
    "aws:ec2/vpc:Vpc": _vpc,
    "aws:ec2transitgateway/instanceConnectEndpoint:InstanceConnectEndpoint": _endpoint,
    "aws:iam/instanceProfile:InstanceProfile": _profile,
    "aws:iam/role:Role": _role,
    "aws:iam/rolePolicy:RolePolicy": _role_policy,
    "aws:lb/listener:Listener": _listener,
    "aws:lb/loadBalancer:LoadBalancer": _balancer,
    "aws:lb/targetGroup:TargetGroup": _target_group,
    "aws:lb/targetGroupAttachment:TargetGroupAttachment": _target,
    "aws:ssm/parameter:Parameter": _parameter,
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": _rule,
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": _rule,
}
