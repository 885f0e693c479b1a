"""AWS by moto: creates and deletes each resource of a graph with the calls that its provider makes.

A resource's inputs are taken one by one, and one that no call takes is an error: what the program asks for is what
the cloud is told. What moto cannot hold (spot, balancers' attributes) is taken and said so where it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from functools import cache
from itertools import count
from typing import Any
from unittest.mock import patch

import boto3
from botocore.client import ClientCreator
from botocore.hooks import EventAliaser
from botocore.loaders import JSONFileLoader, Loader
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from moto import mock_aws
from moto.core.utils import method_names_from_class
from moto.ec2.models import ec2_backends

from engine.model import Registration
from engine.simulation import simulate_create, simulate_invoke
from tests.support.moto_gaps import CANONICAL, filled, publish_image

ACCOUNT = "123456789012"
REGION = "us-west-2"
Json = dict[str, Any]
Made = tuple[str, Json]


@contextmanager
def cloud() -> Iterator[Cloud]:
    """A cloud that is empty at first and removed afterwards."""
    with mocked_aws():
        yield Cloud()


@contextmanager
def mocked_aws() -> Iterator[None]:
    """Replaces AWS's APIs by moto's, without what takes moto seconds."""
    # moto would load its own images, but ours is enough. For each request it looks for the methods of a service again.
    # Each session of botocore looks for the services that there are, parses their models, and gives events their new
    # names again, and makes a class of each client again, with a method for every action.
    with (
        patch.dict(os.environ, MOTO_EC2_LOAD_DEFAULT_AMIS="false"),
        patch.object(JSONFileLoader, "load_file", lambda _loader, path: _model(path)),
        patch.object(Loader, "list_available_services", _services),
        patch.object(EventAliaser, "_alias_event_name", _event_name),
        patch.object(ClientCreator, "_create_client_class", _client_class),
        patch("moto.core.responses.method_names_from_class", _method_names),
        mock_aws(),
        filled(),
    ):
        yield


@cache
def _model(path: str) -> Any:
    return _load_model(JSONFileLoader(), path)


_load_model = JSONFileLoader.load_file


def _services(loader: Loader, type_name: str) -> list[str]:
    if type_name not in _known_services:
        _known_services[type_name] = _list_available_services(loader, type_name)
    return _known_services[type_name]


_list_available_services = Loader.list_available_services
_known_services: dict[str, list[str]] = {}


def _event_name(aliaser: EventAliaser, event_name: str) -> str:
    if event_name not in _event_names:
        _event_names[event_name] = _alias_event_name(aliaser, event_name)
    return _event_names[event_name]


_alias_event_name = EventAliaser._alias_event_name
_event_names: dict[str, str] = {}


def _client_class(creator: ClientCreator, service: str, model: Any) -> type:
    if service not in _client_classes:
        _client_classes[service] = _create_client_class(creator, service, model)
    return _client_classes[service]


_create_client_class = ClientCreator._create_client_class
_client_classes: dict[str, type] = {}
_method_names = cache(method_names_from_class)


@cache
def _client(service: str) -> Any:
    """A client for every cloud of this process: moto has its answers, and it takes long to make."""
    return boto3.client(service, REGION)


class Cloud:
    """`create` and `invoke` are for run_program, `delete` is for a destroy; the clients are for asking what there is.

    `inputs` holds what each resource was made from, secrets in plain text; `made` its id and outputs; by URN.
    """

    def __init__(self) -> None:
        self.ec2, self.iam, self.ssm, self.elb = map(_client, ("ec2", "iam", "ssm", "elbv2"))
        self.image = self.ec2.register_image(Name="ubuntu-24.04", Architecture="x86_64")["ImageId"]
        self.made: dict[str, Made] = {}
        self._serial = count()
        self.inputs: dict[str, Json] = {}
        self._handlers: dict[str, Callable[[Json], Made]] = {
            "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup": self._default_group,
            "aws:ec2/eip:Eip": self._eip,
            "aws:ec2/eipAssociation:EipAssociation": self._eip_association,
            "aws:ec2/instance:Instance": self._instance,
            "aws:ec2/internetGateway:InternetGateway": self._gateway,
            "aws:ec2/keyPair:KeyPair": self._key_pair,
            "aws:ec2/natGateway:NatGateway": self._nat_gateway,
            "aws:ec2/routeTable:RouteTable": self._route_table,
            "aws:ec2/routeTableAssociation:RouteTableAssociation": self._route_table_association,
            "aws:ec2/securityGroup:SecurityGroup": self._group,
            "aws:ec2/subnet:Subnet": self._subnet,
            "aws:ec2/vpc:Vpc": self._vpc,
            "aws:ec2transitgateway/instanceConnectEndpoint:InstanceConnectEndpoint": self._endpoint,
            "aws:iam/instanceProfile:InstanceProfile": self._profile,
            "aws:iam/role:Role": self._role,
            "aws:iam/rolePolicy:RolePolicy": self._role_policy,
            "aws:lb/listener:Listener": self._listener,
            "aws:lb/loadBalancer:LoadBalancer": self._balancer,
            "aws:lb/targetGroup:TargetGroup": self._target_group,
            "aws:lb/targetGroupAttachment:TargetGroupAttachment": self._target,
            "aws:ssm/parameter:Parameter": self._parameter,
            "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": self._egress,
            "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": self._ingress,
            "tls:index/privateKey:PrivateKey": self._ssh_key,
        }
        self._deletions: dict[str, Callable[[str, Json], object]] = {
            # It stays with its VPC.
            "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup": lambda id_, _: None,
            "aws:ec2/eip:Eip": lambda id_, _: self.ec2.release_address(AllocationId=id_),
            "aws:ec2/eipAssociation:EipAssociation": lambda id_, _: self.ec2.disassociate_address(AssociationId=id_),
            "aws:ec2/instance:Instance": self._delete_instance,
            "aws:ec2/internetGateway:InternetGateway": self._delete_gateway,
            "aws:ec2/keyPair:KeyPair": lambda id_, _: self.ec2.delete_key_pair(KeyName=id_),
            "aws:ec2/natGateway:NatGateway": lambda id_, _: self.ec2.delete_nat_gateway(NatGatewayId=id_),
            "aws:ec2/routeTable:RouteTable": lambda id_, _: self.ec2.delete_route_table(RouteTableId=id_),
            "aws:ec2/routeTableAssociation:RouteTableAssociation": lambda id_, _: self.ec2.disassociate_route_table(
                AssociationId=id_
            ),
            "aws:ec2/securityGroup:SecurityGroup": lambda id_, _: self.ec2.delete_security_group(GroupId=id_),
            "aws:ec2/subnet:Subnet": lambda id_, _: self.ec2.delete_subnet(SubnetId=id_),
            "aws:ec2/vpc:Vpc": lambda id_, _: self.ec2.delete_vpc(VpcId=id_),
            "aws:ec2transitgateway/instanceConnectEndpoint:InstanceConnectEndpoint": lambda id_, _: (
                self.ec2.delete_instance_connect_endpoint(InstanceConnectEndpointId=id_)
            ),
            "aws:iam/instanceProfile:InstanceProfile": self._delete_profile,
            "aws:iam/role:Role": lambda id_, _: self.iam.delete_role(RoleName=id_),
            "aws:iam/rolePolicy:RolePolicy": lambda id_, _: self.iam.delete_role_policy(
                RoleName=id_.partition(":")[0], PolicyName=id_.partition(":")[2]
            ),
            "aws:lb/listener:Listener": lambda id_, _: self.elb.delete_listener(ListenerArn=id_),
            "aws:lb/loadBalancer:LoadBalancer": lambda id_, _: self.elb.delete_load_balancer(LoadBalancerArn=id_),
            "aws:lb/targetGroup:TargetGroup": lambda id_, _: self.elb.delete_target_group(TargetGroupArn=id_),
            "aws:lb/targetGroupAttachment:TargetGroupAttachment": lambda _, inputs: self.elb.deregister_targets(
                TargetGroupArn=inputs["targetGroupArn"], Targets=[{"Id": inputs["targetId"]}]
            ),
            "aws:ssm/parameter:Parameter": lambda id_, _: self.ssm.delete_parameter(Name=id_),
            "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": lambda id_, inputs: (
                self.ec2.revoke_security_group_egress(GroupId=inputs["securityGroupId"], SecurityGroupRuleIds=[id_])
            ),
            "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": lambda id_, inputs: (
                self.ec2.revoke_security_group_ingress(GroupId=inputs["securityGroupId"], SecurityGroupRuleIds=[id_])
            ),
        }

    def create(self, resource: Registration) -> Made:
        if resource.type.startswith(("aws:", "tls:index/privateKey")):
            made = self.make(resource.type, resource.inputs)
        else:
            made = simulate_create(resource)
        self.inputs[resource.urn] = resource.inputs
        self.made[resource.urn] = made
        return made

    def make(self, kind: str, inputs: Json) -> Made:
        """Make a resource of a type. Returns its id and outputs."""
        rest = {key: value for key, value in deepcopy(dict(inputs)).items() if value is not None}
        made = self._handlers[kind](rest)
        assert not rest, f"{kind}: no call takes {sorted(rest)}"
        return made

    def delete(self, kind: str, id_: str, inputs: Json) -> None:
        """Delete a resource that was made from these inputs."""
        self._deletions[kind](id_, inputs)

    def invoke(self, token: str, args: Json) -> Json:
        if token == "aws:ec2/getInstanceTypeOfferings:getInstanceTypeOfferings":
            filters = [{"Name": f["name"], "Values": f["values"]} for f in args["filters"]]
            found = self.ec2.describe_instance_type_offerings(LocationType=args["locationType"], Filters=filters)
            return {"locations": [offer["Location"] for offer in found["InstanceTypeOfferings"]]}
        if token == "aws:ssm/getParameter:getParameter":
            if args["name"].startswith(CANONICAL):
                publish_image(ACCOUNT, REGION, args["name"], self.image)
            value = self.ssm.get_parameter(Name=args["name"])["Parameter"]["Value"]
            return {"name": args["name"], "value": value, "insecureValue": value}
        return simulate_invoke(token, args)

    # --- network ---

    def _vpc(self, rest: Json) -> Made:
        vpc = self.ec2.create_vpc(CidrBlock=rest.pop("cidrBlock"), TagSpecifications=_tags("vpc", rest))["Vpc"]["VpcId"]
        self.ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsSupport={"Value": rest.pop("enableDnsSupport")})
        self.ec2.modify_vpc_attribute(VpcId=vpc, EnableDnsHostnames={"Value": rest.pop("enableDnsHostnames")})
        return vpc, {}

    def _default_group(self, rest: Json) -> Made:
        filters = [{"Name": "vpc-id", "Values": [rest.pop("vpcId")]}, {"Name": "group-name", "Values": ["default"]}]
        group = self.ec2.describe_security_groups(Filters=filters)["SecurityGroups"][0]
        # The provider adopts the group and removes every rule that the program does not have.
        assert "ingress" not in rest and "egress" not in rest
        if group["IpPermissions"]:
            self.ec2.revoke_security_group_ingress(GroupId=group["GroupId"], IpPermissions=group["IpPermissions"])
        if group["IpPermissionsEgress"]:
            self.ec2.revoke_security_group_egress(GroupId=group["GroupId"], IpPermissions=group["IpPermissionsEgress"])
        self.ec2.create_tags(Resources=[group["GroupId"]], Tags=_tag_list(rest))
        return group["GroupId"], {}

    def _gateway(self, rest: Json) -> Made:
        spec = _tags("internet-gateway", rest)
        gateway = self.ec2.create_internet_gateway(TagSpecifications=spec)["InternetGateway"]["InternetGatewayId"]
        self.ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=rest.pop("vpcId"))
        return gateway, {}

    def _delete_gateway(self, id_: str, inputs: Json) -> None:
        if inputs["vpcId"]:
            self.ec2.detach_internet_gateway(InternetGatewayId=id_, VpcId=inputs["vpcId"])
        self.ec2.delete_internet_gateway(InternetGatewayId=id_)

    def _nat_gateway(self, rest: Json) -> Made:
        made = self.ec2.create_nat_gateway(
            SubnetId=rest.pop("subnetId"),
            AllocationId=rest.pop("allocationId"),
            PrivateIpAddress=rest.pop("privateIp"),
            TagSpecifications=_tags("natgateway", rest),
        )
        return made["NatGateway"]["NatGatewayId"], {}

    def _endpoint(self, rest: Json) -> Made:
        made = self.ec2.create_instance_connect_endpoint(
            SubnetId=rest.pop("subnetId"),
            SecurityGroupIds=rest.pop("securityGroupIds"),
            PreserveClientIp=rest.pop("preserveClientIp"),
            TagSpecifications=_tags("instance-connect-endpoint", rest),
        )
        return made["InstanceConnectEndpoint"]["InstanceConnectEndpointId"], {}

    def _route_table(self, rest: Json) -> Made:
        spec = _tags("route-table", rest)
        table = self.ec2.create_route_table(VpcId=rest.pop("vpcId"), TagSpecifications=spec)["RouteTable"]
        for route in rest.pop("routes"):
            self.ec2.create_route(
                RouteTableId=table["RouteTableId"],
                DestinationCidrBlock=route.pop("cidrBlock"),
                **{key[0].upper() + key[1:]: route.pop(key) for key in ("gatewayId", "natGatewayId") if key in route},
            )
            assert not route
        return table["RouteTableId"], {}

    def _route_table_association(self, rest: Json) -> Made:
        made = self.ec2.associate_route_table(RouteTableId=rest.pop("routeTableId"), SubnetId=rest.pop("subnetId"))
        return made["AssociationId"], {}

    def _subnet(self, rest: Json) -> Made:
        subnet = self.ec2.create_subnet(
            VpcId=rest.pop("vpcId"),
            CidrBlock=rest.pop("cidrBlock"),
            AvailabilityZone=rest.pop("availabilityZone"),
            TagSpecifications=_tags("subnet", rest),
        )["Subnet"]["SubnetId"]
        public = rest.pop("mapPublicIpOnLaunch")
        self.ec2.modify_subnet_attribute(SubnetId=subnet, MapPublicIpOnLaunch={"Value": public})
        return subnet, {}

    def _group(self, rest: Json) -> Made:
        vpc = rest.pop("vpcId")
        spec = _tags("security-group", rest)
        group = self.ec2.create_security_group(
            GroupName=f"group-{next(self._serial)}",
            Description=rest.pop("description"),
            VpcId=vpc,
            TagSpecifications=spec,
        )["GroupId"]
        # The provider removes the rule that EC2 gives every new group, which allows all outgoing traffic.
        every = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
        self.ec2.revoke_security_group_egress(GroupId=group, IpPermissions=every)
        return group, {"arn": f"arn:aws:ec2:{REGION}::security-group/{group}"}

    def _ingress(self, rest: Json) -> Made:
        return self._rule(rest, self.ec2.authorize_security_group_ingress)

    def _egress(self, rest: Json) -> Made:
        return self._rule(rest, self.ec2.authorize_security_group_egress)

    def _rule(self, rest: Json, authorize: Callable[..., Any]) -> Made:
        description = rest.pop("description", "")
        # For EC2 absent ports mean all ports; moto needs the -1 that EC2 returns for them.
        ports = {"FromPort": rest.pop("fromPort", -1), "ToPort": rest.pop("toPort", -1)}
        permission: Json = {"IpProtocol": rest.pop("ipProtocol"), **ports}
        assert ("cidrIpv4" in rest) != ("referencedSecurityGroupId" in rest), "EC2 takes exactly one source"
        if "cidrIpv4" in rest:
            permission["IpRanges"] = [{"CidrIp": rest.pop("cidrIpv4"), "Description": description}]
        else:
            permission["UserIdGroupPairs"] = [
                {"GroupId": rest.pop("referencedSecurityGroupId"), "Description": description}
            ]
        made = authorize(
            GroupId=rest.pop("securityGroupId"),
            IpPermissions=[permission],
            TagSpecifications=_tags("security-group-rule", rest),
        )
        return made["SecurityGroupRules"][0]["SecurityGroupRuleId"], {}

    # --- machines ---

    def _ssh_key(self, rest: Json) -> Made:
        assert rest.pop("algorithm") == "ED25519"
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption()).decode()
        public = key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH).decode()
        return public[-12:], {"privateKeyOpenssh": private, "publicKeyOpenssh": public + "\n"}

    def _key_pair(self, rest: Json) -> Made:
        spec = _tags("key-pair", rest)
        name = f"{next(tag['Value'] for tag in spec[0]['Tags'] if tag['Key'] == 'Name')}-{next(self._serial)}"
        self.ec2.import_key_pair(KeyName=name, PublicKeyMaterial=rest.pop("publicKey").encode(), TagSpecifications=spec)
        return name, {"keyName": name}

    def _eip(self, rest: Json) -> Made:
        made = self.ec2.allocate_address(Domain=rest.pop("domain"), TagSpecifications=_tags("elastic-ip", rest))
        return made["AllocationId"], {"allocationId": made["AllocationId"], "publicIp": made["PublicIp"]}

    def _eip_association(self, rest: Json) -> Made:
        made = self.ec2.associate_address(InstanceId=rest.pop("instanceId"), AllocationId=rest.pop("allocationId"))
        return made["AssociationId"], {}

    def _instance(self, rest: Json) -> Made:
        metadata = rest.pop("metadataOptions")
        disk = rest.pop("rootBlockDevice")
        market = rest.pop("instanceMarketOptions", None)
        spot = market and {
            "MarketType": market["marketType"],
            "SpotOptions": {"SpotInstanceType": market["spotOptions"]["spotInstanceType"]},
        }
        interface: Json = {
            "DeviceIndex": 0,
            "SubnetId": rest.pop("subnetId"),
            "PrivateIpAddress": rest.pop("privateIp"),
            "Groups": rest.pop("vpcSecurityGroupIds"),
        }
        if "associatePublicIpAddress" in rest:
            interface["AssociatePublicIpAddress"] = rest.pop("associatePublicIpAddress")
        made = self.ec2.run_instances(
            ImageId=rest.pop("ami"),
            InstanceType=rest.pop("instanceType"),
            MinCount=1,
            MaxCount=1,
            KeyName=rest.pop("keyName"),
            UserData=rest.pop("userData"),
            IamInstanceProfile={"Name": rest.pop("iamInstanceProfile")},
            NetworkInterfaces=[interface],
            MetadataOptions={
                "HttpEndpoint": metadata.pop("httpEndpoint"),
                "HttpTokens": metadata.pop("httpTokens"),
                "HttpPutResponseHopLimit": metadata.pop("httpPutResponseHopLimit"),
            },
            BlockDeviceMappings=[
                {
                    "DeviceName": "/dev/sda1",
                    "Ebs": {
                        "VolumeType": disk.pop("volumeType"),
                        "VolumeSize": disk.pop("volumeSize"),
                        "Encrypted": disk.pop("encrypted"),
                        "DeleteOnTermination": disk.pop("deleteOnTermination"),
                    },
                }
            ],
            DisableApiTermination=rest.pop("disableApiTermination"),
            TagSpecifications=[*_tags("instance", rest), *_tags("volume", disk)],
            **({"InstanceMarketOptions": spot} if spot else {}),
        )["Instances"][0]
        assert not metadata and not disk
        assert rest.pop("userDataReplaceOnChange") is True
        instance = made["InstanceId"]
        check = rest.pop("sourceDestCheck")
        self.ec2.modify_instance_attribute(InstanceId=instance, SourceDestCheck={"Value": check})
        return instance, {"publicIp": made.get("PublicIpAddress", "")}

    def _delete_instance(self, id_: str, inputs: Json) -> None:
        self.ec2.terminate_instances(InstanceIds=[id_])
        # moto keeps the addresses of a terminated machine.
        for address in self.ec2.describe_addresses()["Addresses"]:
            if address.get("InstanceId") == id_:
                self.ec2.disassociate_address(AssociationId=address["AssociationId"])
        subnet = ec2_backends[ACCOUNT][REGION].get_subnet(inputs["subnetId"])
        subnet.del_subnet_ip(inputs["privateIp"])

    def _parameter(self, rest: Json) -> Made:
        name = rest.pop("name")
        # As the provider does: Parameter Store takes no tags together with Overwrite.
        self.ssm.put_parameter(
            Name=name,
            Type=rest.pop("type"),
            Value=rest.pop("value"),
            Description=rest.pop("description"),
            Overwrite=rest.pop("overwrite"),
        )
        self.ssm.add_tags_to_resource(ResourceType="Parameter", ResourceId=name, Tags=_tag_list(rest))
        return name, {"arn": self.ssm.get_parameter(Name=name)["Parameter"]["ARN"]}

    def _role(self, rest: Json) -> Made:
        name = self._iam_name(rest)
        made = self.iam.create_role(
            RoleName=name, AssumeRolePolicyDocument=rest.pop("assumeRolePolicy"), Tags=_tag_list(rest)
        )
        return name, {"name": name, "arn": made["Role"]["Arn"]}

    def _role_policy(self, rest: Json) -> Made:
        role = rest.pop("role")
        self.iam.put_role_policy(RoleName=role, PolicyName="host-key", PolicyDocument=rest.pop("policy"))
        return f"{role}:host-key", {}

    def _profile(self, rest: Json) -> Made:
        name = self._iam_name(rest)
        self.iam.create_instance_profile(InstanceProfileName=name, Tags=_tag_list(rest))
        self.iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=rest.pop("role"))
        return name, {"name": name}

    def _delete_profile(self, id_: str, inputs: Json) -> None:
        self.iam.remove_role_from_instance_profile(InstanceProfileName=id_, RoleName=inputs["role"])
        self.iam.delete_instance_profile(InstanceProfileName=id_)

    def _iam_name(self, rest: Json) -> str:
        prefix: str = rest.pop("namePrefix")
        assert len(prefix) <= 38, "the provider refuses a longer one"
        return f"{prefix}{next(self._serial):026d}"

    # --- balancer ---

    def _balancer(self, rest: Json) -> Made:
        mappings = []
        for mapping in rest.pop("subnetMappings"):
            mappings.append({"SubnetId": mapping.pop("subnetId")})
            if "privateIpv4Address" in mapping:
                mappings[-1]["PrivateIPv4Address"] = mapping.pop("privateIpv4Address")
            assert not mapping
        made = self.elb.create_load_balancer(
            Name=f"{rest.pop('namePrefix')}{next(self._serial)}",
            Type=rest.pop("loadBalancerType"),
            Scheme="internal" if rest.pop("internal") else "internet-facing",
            SubnetMappings=mappings,
            SecurityGroups=rest.pop("securityGroups"),
            Tags=_tag_list(rest),
        )["LoadBalancers"][0]
        return made["LoadBalancerArn"], {"arn": made["LoadBalancerArn"], "dnsName": made["DNSName"]}

    def _target_group(self, rest: Json) -> Made:
        check = rest.pop("healthCheck")
        arn = self.elb.create_target_group(
            Name=f"{rest.pop('namePrefix')}{next(self._serial)}",
            VpcId=rest.pop("vpcId"),
            TargetType=rest.pop("targetType"),
            Protocol=rest.pop("protocol"),
            Port=rest.pop("port"),
            HealthCheckProtocol=check.pop("protocol"),
            HealthCheckPath=check.pop("path"),
            HealthCheckIntervalSeconds=check.pop("interval"),
            HealthCheckTimeoutSeconds=check.pop("timeout"),
            HealthyThresholdCount=check.pop("healthyThreshold"),
            UnhealthyThresholdCount=check.pop("unhealthyThreshold"),
            Matcher={"HttpCode": check.pop("matcher")},
            Tags=_tag_list(rest),
        )["TargetGroups"][0]["TargetGroupArn"]
        assert not check
        attributes = {
            "preserve_client_ip.enabled": rest.pop("preserveClientIp"),
            "deregistration_delay.timeout_seconds": str(rest.pop("deregistrationDelay")),
        }
        self.elb.modify_target_group_attributes(
            TargetGroupArn=arn, Attributes=[{"Key": key, "Value": value} for key, value in attributes.items()]
        )
        return arn, {"arn": arn}

    def _listener(self, rest: Json) -> Made:
        actions = [{"Type": a["type"], "TargetGroupArn": a["targetGroupArn"]} for a in rest.pop("defaultActions")]
        made = self.elb.create_listener(
            LoadBalancerArn=rest.pop("loadBalancerArn"),
            Protocol=rest.pop("protocol"),
            Port=rest.pop("port"),
            DefaultActions=actions,
            Tags=_tag_list(rest),
        )["Listeners"][0]
        return made["ListenerArn"], {}

    def _target(self, rest: Json) -> Made:
        group, target, port = rest.pop("targetGroupArn"), rest.pop("targetId"), rest.pop("port")
        self.elb.register_targets(TargetGroupArn=group, Targets=[{"Id": target, "Port": port}])
        return f"{group}-{target}", {}


def _tag_list(rest: Json) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in rest.pop("tags").items()]


def _tags(kind: str, rest: Json) -> list[Json]:
    return [{"ResourceType": kind, "Tags": _tag_list(rest)}]
