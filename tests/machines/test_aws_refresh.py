"""What a `refresh` finds on the real engine: the stand-in reads what the account has, not what the state says."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.review.paths import different
from components.spec.models import Lab
from tests.support import aws_reads
from tests.support.aws_engine import HA, INSTANCE, NEEDS_CLI, Engine, lab, machines_engine
from tests.support.aws_labs import deploy
from tests.support.aws_provider import machines, of
from tests.support.engine_provider import Json
from tests.support.moto_ec2 import Cloud, cloud

RULE = "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"
EVERYTHING = Lab.model_validate(lab(HA, machines={"workerAccess": "InstanceConnect", "spot": True}))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with machines_engine(tmp_path) as found:
        yield found


def test_every_resource_is_read_as_it_was_made() -> None:
    """So that a refresh of an undisturbed lab finds nothing."""
    with cloud() as aws:
        deploy(EVERYTHING, aws, balancer=True)
        for urn, (id_, _) in aws.made.items():
            kind = urn.split("::")[2].split("$")[-1]
            if kind.startswith("aws:"):
                inputs = {key: value for key, value in aws.inputs[urn].items() if value is not None}
                found = aws_reads.read(aws, kind, id_, inputs)
                assert found is not None, urn
                assert different(inputs, found[0]) == {}, urn


def _edit_rule(aws: Cloud, id_: str, inputs: Json) -> None:
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIpv4": "0.0.0.0/0"}
    aws.ec2.modify_security_group_rules(
        GroupId=inputs["securityGroupId"],
        SecurityGroupRules=[{"SecurityGroupRuleId": id_, "SecurityGroupRule": rule}],
    )


# By type, how somebody changes such a thing by hand, and the inputs that a refresh must then find changed.
EDITS: dict[str, tuple[Callable[[Cloud, str, Json], Any], set[str]]] = {
    "aws:ec2/instance:Instance": (
        lambda aws, id_, _: aws.ec2.modify_instance_attribute(InstanceId=id_, SourceDestCheck={"Value": True}),
        {"sourceDestCheck"},
    ),
    "aws:ec2/subnet:Subnet": (
        lambda aws, id_, _: aws.ec2.modify_subnet_attribute(SubnetId=id_, MapPublicIpOnLaunch={"Value": True}),
        {"mapPublicIpOnLaunch"},
    ),
    "aws:ec2/vpc:Vpc": (
        lambda aws, id_, _: aws.ec2.modify_vpc_attribute(VpcId=id_, EnableDnsHostnames={"Value": False}),
        {"enableDnsHostnames"},
    ),
    "aws:ec2/internetGateway:InternetGateway": (
        lambda aws, id_, inputs: aws.ec2.detach_internet_gateway(InternetGatewayId=id_, VpcId=inputs["vpcId"]),
        {"vpcId"},
    ),
    "aws:ec2/routeTable:RouteTable": (
        lambda aws, id_, _: aws.ec2.delete_route(RouteTableId=id_, DestinationCidrBlock="0.0.0.0/0"),
        {"routes", "routes[0]"},
    ),
    "aws:ec2/securityGroup:SecurityGroup": (
        lambda aws, id_, _: aws.ec2.delete_tags(Resources=[id_], Tags=[{"Key": "cni-lab:stack"}]),
        {"tags"},
    ),
    "aws:iam/instanceProfile:InstanceProfile": (
        lambda aws, id_, inputs: aws.iam.remove_role_from_instance_profile(
            InstanceProfileName=id_, RoleName=inputs["role"]
        ),
        {"role"},
    ),
    "aws:iam/rolePolicy:RolePolicy": (
        lambda aws, id_, inputs: aws.iam.put_role_policy(
            RoleName=inputs["role"],
            PolicyName=id_.partition(":")[2],
            PolicyDocument=json.dumps(
                {"Version": "2012-10-17", "Statement": [{"Effect": "Deny", "Action": "*", "Resource": "*"}]}
            ),
        ),
        {"policy"},
    ),
    "aws:ssm/parameter:Parameter": (
        lambda aws, id_, _: aws.ssm.put_parameter(Name=id_, Value="other", Type="SecureString", Overwrite=True),
        {"value"},
    ),
    "aws:lb/targetGroup:TargetGroup": (
        lambda aws, id_, _: aws.elb.modify_target_group(TargetGroupArn=id_, HealthCheckPath="/other"),
        {"healthCheck"},
    ),
}


def _first(aws: Cloud, kind: str) -> tuple[str, Json]:
    urn = next(urn for urn in aws.made if urn.split("::")[2].split("$")[-1] == kind)
    return aws.made[urn][0], {key: value for key, value in aws.inputs[urn].items() if value is not None}


def test_an_edit_by_hand_is_read() -> None:
    with cloud() as aws:
        deploy(EVERYTHING, aws, balancer=True)
        for kind, (edit, expected) in EDITS.items():
            id_, inputs = _first(aws, kind)
            edit(aws, id_, inputs)
            found = aws_reads.read(aws, kind, id_, inputs)
            assert found is not None, kind
            assert {path.split(".")[0] for path in different(inputs, found[0])} == expected, kind


GONE = (
    "aws:ec2/eipAssociation:EipAssociation",
    "aws:ec2/natGateway:NatGateway",
    "aws:ec2transitgateway/instanceConnectEndpoint:InstanceConnectEndpoint",
    "aws:lb/targetGroupAttachment:TargetGroupAttachment",
    "aws:lb/listener:Listener",
    "aws:lb/loadBalancer:LoadBalancer",
    "aws:lb/targetGroup:TargetGroup",
    "aws:ec2/instance:Instance",
    "aws:ec2/keyPair:KeyPair",
    "aws:ec2/routeTableAssociation:RouteTableAssociation",
    "aws:ssm/parameter:Parameter",
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule",
    RULE,
)


def test_what_was_deleted_by_hand_is_not_read() -> None:
    with cloud() as aws:
        deploy(EVERYTHING, aws, balancer=True)
        # In this order: a balancer takes its listeners with it, and a listener holds its target group.
        for kind in GONE:
            id_, inputs = _first(aws, kind)
            aws.delete(kind, id_, inputs)
            assert aws_reads.read(aws, kind, id_, inputs) is None, kind


@NEEDS_CLI
@pytest.mark.timeout(1800)
def test_a_refresh_finds_what_happened_behind_the_states_back(engine: Engine) -> None:
    """One lab, several accidents; each `up --refresh` mends them, and nothing else."""
    engine.up(lab())
    before = engine.ids()
    assert engine.up(lab(), "--refresh") == [], "an undisturbed lab"

    ec2 = engine.aws.cloud.ec2
    (ssh,) = ec2.describe_security_group_rules(Filters=[{"Name": "tag:Name", "Values": ["lab-network-ssh*"]}])[
        "SecurityGroupRules"
    ][:1]
    _edit_rule(engine.aws.cloud, ssh["SecurityGroupRuleId"], {"securityGroupId": ssh["GroupId"]})
    ec2.modify_instance_attribute(InstanceId=before["10.0.2.10"], SourceDestCheck={"Value": True})
    assert engine.up(lab()) == [], "without a refresh nobody looks"
    changed = engine.up(lab(), "--refresh")
    assert {event.operation for event in changed} == {"update"} and len(changed) == 2, "nothing is replaced"
    assert engine.ids() == before
    worker = machines(engine.aws)["10.0.2.10"]
    assert worker["SourceDestCheck"] is False
    (rule,) = ec2.describe_security_group_rules(SecurityGroupRuleIds=[ssh["SecurityGroupRuleId"]])["SecurityGroupRules"]
    assert rule["CidrIpv4"] == "198.18.0.1/32"

    # A spot worker that was taken, and a rule that somebody revoked.
    engine.aws.cloud.delete(INSTANCE, before["10.0.2.10"], {"subnetId": worker["SubnetId"], "privateIp": "10.0.2.10"})
    ec2.revoke_security_group_ingress(GroupId=ssh["GroupId"], SecurityGroupRuleIds=[ssh["SecurityGroupRuleId"]])
    made = engine.up(lab(), "--refresh")
    assert of(made, INSTANCE) == [("create", "lab-machines-w1")]
    assert {event.operation for event in made} == {"create"} and len(made) == 2
    assert engine.ids()["10.0.1.10"] == before["10.0.1.10"], "the control plane is the same"
    engine.destroy()
    assert engine.left() == []
