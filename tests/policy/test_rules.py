"""Each rule reports what breaks it and lets the rest pass: samples, every lab, and what moto has after `up`."""

from __future__ import annotations

import base64
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from cli.plan.policy import violations
from components.spec.names import AWS_MACHINES, LAB
from engine import model as engine
from policy.check import ConfigError, check, load_config
from policy.model import PlannedResource
from policy.rules import EXPIRY_TAG, INSTANCE, OWNER_TAGS, RULES, UNTAGGABLE
from policy.values import SECRET, UNKNOWN
from tests.policy.samples import MACHINE, SAMPLES, TAGS, Sample, resource
from tests.support.aws_labs import aws_lab, deploy
from tests.support.graphs import STACKS, run_lab, run_stack
from tests.support.moto_ec2 import Cloud, cloud

AWS = {"provider": "aws", "operatorCidrs": ["203.0.113.7/32"]}
CONTROL_PLANES = [
    {"name": f"cp{i}", "role": "control-plane", "subnet": "control", "address": f"10.0.1.10{i}"} for i in range(3)
]
WORKER = {"name": "worker1", "role": "worker", "subnet": "workers", "address": "10.0.2.20"}


def found(resources: list[PlannedResource], **settings: Any) -> list[tuple[str, str]]:
    return [(violation.rule.name, violation.message) for violation in check(resources, settings or None)]


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: f"{s.rule}-{s.says}")
def test_a_broken_sample_breaks_its_rule_alone(sample: Sample) -> None:
    broken = found(sample.resources(sample.broken))
    assert {rule for rule, _ in broken} == {sample.rule}
    assert any(sample.says in message for _, message in broken), broken
    assert found(sample.resources(sample.good)) == []


def test_every_rule_has_a_sample() -> None:
    assert {sample.rule for sample in SAMPLES} == {rule.name for rule in RULES}


def test_unknown_and_secret_values_are_marked_as_in_a_plan() -> None:
    assert (UNKNOWN, SECRET) == (engine.UNKNOWN, engine.SECRET)


@pytest.mark.parametrize(
    "sample",
    [sample for sample in SAMPLES if "prefixListId" not in sample.broken],  # whatever the name of the list will be
    ids=lambda s: f"{s.rule}-{s.says}",
)
def test_an_unknown_value_is_not_judged(sample: Sample) -> None:
    """Each value in which the broken and the good resource differ, made unknown."""
    different = {key for key, value in sample.broken.items() if value != sample.good.get(key)}
    unknown = sample.broken | dict.fromkeys(different, UNKNOWN)
    if not different:  # broken because a key is missing
        unknown |= {key: UNKNOWN for key in sample.good if key not in sample.broken}
    assert found(sample.resources(unknown)) == []


@pytest.mark.parametrize("stack", STACKS)
def test_every_shipped_lab_keeps_to_the_rules(stack: str) -> None:
    assert [str(violation) for violation in violations(run_stack(stack).deployment)] == []


def test_a_lab_keeps_to_the_rules_when_everything_is_known() -> None:
    assert [str(violation) for violation in violations(run_stack("nightly", dry_run=False).deployment)] == []


@pytest.mark.parametrize(
    "lab",
    [
        {"machines": AWS, "nodes": [*CONTROL_PLANES, WORKER], "ttlHours": 2},
        {"machines": AWS | {"workerAccess": "InstanceConnect"}},
        {"machines": AWS, "calico": {"bgp": "Enabled", "pools": [{"name": "p", "cidr": "10.244.0.0/16"}]}},
    ],
    ids=["three control planes", "private workers", "bgp"],
)
def test_other_labs_keep_to_the_rules_too(lab: dict[str, Any]) -> None:
    assert [str(violation) for violation in violations(run_lab(lab).deployment)] == []


# Inputs that a careless edit of the program could leave in the plan of a real lab.
EDITS: dict[str, tuple[str, dict[str, Any]]] = {
    "no-open-ingress": (":SecurityGroupIngressRule", {"cidrIpv4": "0.0.0.0/0"}),
    "imds-v2": (INSTANCE, {"metadataOptions": {"httpTokens": "optional", "httpPutResponseHopLimit": 1}}),
    "encrypted-volumes": (INSTANCE, {"rootBlockDevice": {"encrypted": False, "tags": TAGS}}),
    "source-dest-check-for-pods": (INSTANCE, {"sourceDestCheck": True}),
    "owner-tags": (":Parameter", {"tags": {"Name": "x"}}),
    "no-secret-in-user-data": (INSTANCE, {"userData": SECRET}),
    "instance-kinds": (INSTANCE, {"instanceType": "u-24tb1.metal"}),
    "public-addresses": (":Subnet", {"mapPublicIpOnLaunch": True}),
}


@pytest.mark.parametrize("rule", EDITS)
def test_a_careless_edit_of_a_real_plan_is_reported(rule: str) -> None:
    kind, edit = EDITS[rule]
    made = [PlannedResource(r.type, r.name, r.inputs, r.urn) for r in run_stack("cross-node").deployment.resources]
    victim = next(r for r in made if r.type.endswith(kind))
    edited = [PlannedResource(r.type, r.name, {**r.props, **edit}, r.urn) if r is victim else r for r in made]
    assert [(f.rule.name, f.resource.name) for f in check(edited)] == [(rule, victim.name)]


def test_a_machine_beside_the_lab_is_reported() -> None:
    made = [PlannedResource(r.type, r.name, r.inputs, r.urn) for r in run_stack("nightly").deployment.resources]
    beside = MACHINE | {"sourceDestCheck": False, "associatePublicIpAddress": True}
    rules = [f.rule.name for f in check([*made, resource(INSTANCE, "beside", beside)]) if f.resource.name == "beside"]
    assert set(rules) == {"source-dest-check", "public-addresses", "expiry-tag"}


def test_a_range_wider_than_a_private_one_is_not_private() -> None:
    assert found(
        [
            resource(
                "aws:ec2/securityGroupRule:SecurityGroupRule", "r", {"type": "ingress", "cidrBlocks": ["10.0.0.0/4"]}
            )
        ]
    )


# --- what takes tags -------------------------------------------------------------------------------------------------


def takes_tags(token: str) -> bool:
    """Whether a type takes tags, by the aws provider's SDK."""
    _, module, name = token.split(":")
    kind = getattr(importlib.import_module(f"pulumi_aws.{module.split('/')[0]}"), name)
    assert kind.pulumi_type == token
    return "tags" in kind._internal_init.__annotations__


@pytest.mark.parametrize("token", sorted(UNTAGGABLE))
def test_an_untaggable_type_takes_no_tags(token: str) -> None:
    assert not takes_tags(token)


def test_every_type_in_a_lab_takes_tags_or_is_listed() -> None:
    large = run_lab({"machines": AWS | {"workerAccess": "InstanceConnect"}, "nodes": [*CONTROL_PLANES, WORKER]})
    types = {r.type for graph in (large, run_stack("nightly")) for r in graph.deployment.resources}
    ours = {token for token in types if token.startswith("aws:")}
    assert len(ours) > 15
    assert {token for token in ours if not takes_tags(token)} == ours & UNTAGGABLE


# --- settings --------------------------------------------------------------------------------------------------------


def test_settings_narrow_loosen_and_switch_off() -> None:
    one = [resource(INSTANCE, "one", MACHINE)]
    assert found(one, **{"instance-kinds": {"allowed": ["m5.*"]}})[0][0] == "instance-kinds"
    wrong = {"instance-kinds": {"allowed": [], "enforcementLevel": "advisory"}}
    assert [violation.mandatory for violation in check(one, wrong)] == [False]
    assert check(one, {"instance-kinds": {"allowed": [], "enforcementLevel": "disabled"}}) == []
    assert found(one, **{"owner-tags": {"required": ["team"]}})[0] == (
        "owner-tags",
        "tags without team: its owner is not known",
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "Expecting property name"),
        ("[]", "must be a mapping of rules"),
        ('{"no-such": {}}', "'no-such' is not a rule; the rules are no-open-ingress"),
        ('{"instance-kinds": {"alowed": []}}', "instance-kinds: its settings are allowed, enforcementLevel"),
        ('{"instance-kinds": {"allowed": "t3.*"}}', "allowed must be a list of strings"),
        ('{"imds-v2": {"enforcementLevel": "off"}}', "enforcementLevel must be mandatory, advisory or disabled"),
        ('{"imds-v2": {"enforcementLevel": []}}', "enforcementLevel must be mandatory, advisory or disabled"),
    ],
)
def test_a_bad_configuration_is_explained(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(file)
    assert says in str(error.value) and str(file) in str(error.value)


# --- what the cloud holds --------------------------------------------------------------------------------------------


def held(aws: Cloud) -> list[PlannedResource]:
    """What EC2 has, as resources of the aws provider."""
    made = []
    for reservation in aws.ec2.describe_instances()["Reservations"]:
        for one in reservation["Instances"]:
            name = one["InstanceId"]
            data = aws.ec2.describe_instance_attribute(InstanceId=name, Attribute="userData")["UserData"]["Value"]
            volume = one["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
            disk = aws.ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]
            props = {
                "instanceType": one["InstanceType"],
                "sourceDestCheck": one["SourceDestCheck"],
                "metadataOptions": {
                    "httpTokens": one["MetadataOptions"]["HttpTokens"],
                    "httpPutResponseHopLimit": one["MetadataOptions"]["HttpPutResponseHopLimit"],
                },
                "rootBlockDevice": {"encrypted": disk["Encrypted"], "tags": named(disk)},
                "userData": base64.b64decode(data).decode(),
                "associatePublicIpAddress": "PublicIpAddress" in one,
                "tags": named(one),
            }
            made.append(resource(INSTANCE, name, props, (LAB, AWS_MACHINES)))
    for rule in aws.ec2.describe_security_group_rules()["SecurityGroupRules"]:
        props = {"type": "egress" if rule["IsEgress"] else "ingress", "protocol": rule["IpProtocol"]}
        props |= {"cidrBlocks": [rule["CidrIpv4"]]} if "CidrIpv4" in rule else {}
        made.append(resource("aws:ec2/securityGroupRule:SecurityGroupRule", rule["SecurityGroupRuleId"], props))
    for subnet in aws.ec2.describe_subnets(Filters=[{"Name": "tag-key", "Values": ["cni-lab:stack"]}])["Subnets"]:
        props = {"mapPublicIpOnLaunch": subnet["MapPublicIpOnLaunch"], "tags": named(subnet)}
        made.append(resource("aws:ec2/subnet:Subnet", subnet["SubnetId"], props))
    return made


def named(thing: dict[str, Any]) -> dict[str, str]:
    # The program of this test sets the stack's tag and no owner.
    return {tag["Key"]: tag["Value"] for tag in thing.get("Tags", [])} | {"cni-lab:owner": "test"}


def test_what_moto_has_after_up_keeps_to_the_rules() -> None:
    with cloud() as aws:
        made, _ = deploy(aws_lab(), aws)
        live = held(aws)
        assert len([r for r in live if r.type == INSTANCE]) == 3 and len(live) > 12
        assert [str(violation) for violation in check(live)] == []
        assert {v.rule.name for v in violations(made)} <= {"owner-tags"}, "the test's program sets no owner"
        # The same rules report what somebody changed by hand.
        group = aws.ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]
        world = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
        aws.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[world])
        assert [violation.rule.name for violation in check(held(aws))] == ["no-open-ingress"]


def test_the_rules_ask_for_the_tags_that_the_program_sets() -> None:
    lab = run_lab({"machines": AWS, "owner": "me", "ttlHours": 3}, "mine").deployment
    vpc = next(r for r in lab.resources if r.type == "aws:ec2/vpc:Vpc")
    assert vpc.inputs["tags"].items() >= {OWNER_TAGS[0]: "mine", OWNER_TAGS[1]: "me", EXPIRY_TAG: "3"}.items()


def test_the_configuration_that_ships_is_valid() -> None:
    assert json.dumps(load_config())
