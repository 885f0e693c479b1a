"""The IAM policies allow all that a lab's life asks of AWS, and nothing in them is superfluous."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from cli.doctor import aws as doctor
from cli.doctor.model import Answer
from cli.project import ROOT, stack_files
from cli.reap import sweep as sweeping
from cli.reap.account import Account
from components.aws_client import AwsSettings
from components.spec.load import load_stack_file
from components.spec.models import Lab
from tests.support.aws_labs import aws_lab, deploy
from tests.support.iam import allows, enforced
from tests.support.moto_ec2 import REGION, Cloud, cloud
from tests.support.provider_calls import CALLS, DOCTOR, LIFE, LOOKUPS, calls

FOLDER = ROOT / "policy" / "iam"
NAMES = ("up", "preview", "nightly")
# AWS, "IAM and AWS STS quotas": characters of a managed policy without whitespace.
LARGEST_POLICY = 6144
REFUSED = r"UnauthorizedOperation|AccessDenied|not authorized|ServiceLinkedRoleCreationNotPermitted"
SERVICES = ("ec2-instance-connect", "elasticloadbalancing", "nat-gateway", "spot")

HA = [
    {"name": f"master{i}", "role": "control-plane", "subnet": "public1", "address": f"10.0.1.{100 + i}"}
    for i in (1, 2, 3)
] + [{"name": "worker1", "role": "worker", "subnet": "private1", "address": "10.0.2.200"}]
EVERYTHING = {
    "machines": {
        "provider": "aws",
        "operatorCidrs": ["198.18.0.1/32"],
        "spot": True,
        "workerAccess": "InstanceConnect",
    },
    "network": {"subnets": {"public1": "10.0.1.0/24", "private1": "10.0.2.0/24"}},
    "nodes": HA,
}


def policy(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def without(whole: Mapping[str, Any], sid: str) -> dict[str, Any]:
    return {**whole, "Statement": [statement for statement in whole["Statement"] if statement["Sid"] != sid]}


@cache
def aws_stacks() -> dict[str, Lab]:
    labs = {name: load_stack_file(path).lab for name, path in stack_files().items()}
    return {name: lab for name, lab in labs.items() if lab.machines.provider == "aws"} | {
        "everything": Lab.model_validate(EVERYTHING)
    }


# --- as text ---


@pytest.mark.parametrize("name", NAMES)
def test_a_policy_fits_into_iam_and_names_no_action_twice(name: str) -> None:
    found = policy(name)
    assert len(json.dumps(found, separators=(",", ":"))) <= LARGEST_POLICY
    sids = [statement["Sid"] for statement in found["Statement"]]
    assert len(set(sids)) == len(sids)
    for statement in found["Statement"]:
        assert "*" not in statement["Action"], "no statement allows everything"
    if name == "preview":
        verbs = {action.partition(":")[2] for s in found["Statement"] for action in s["Action"]}
        assert all(verb.startswith(("Describe", "Get", "List", "Simulate")) for verb in verbs)
        assert not allows(found, "ssm:GetParameter", f"arn:aws:ssm:{REGION}:1:parameter/cni-lab/s/n/ssh-host-key")


@pytest.mark.parametrize("stack", aws_stacks())
def test_every_call_of_the_provider_for_a_stack_is_allowed(stack: str) -> None:
    """For each resource of the stack's graph, whatever the provider does with it in its life."""
    lab = aws_stacks()[stack]
    graph, _ = deploy(lab, balancer=len(lab.control_planes) > 1)
    types = {resource.type for resource in graph.resources if resource.type.startswith("aws:")}
    assert types <= CALLS.keys()
    up, preview = policy("up"), policy("preview")
    for text in (*(CALLS[type] for type in types), LIFE):
        for action, resource in calls(text):
            assert allows(up, action, resource), f"{action} on {resource}"
    for text in (LOOKUPS, DOCTOR):
        for action, resource in calls(text, lookup=True):
            assert allows(up, action, resource) and allows(preview, action, resource), f"{action} on {resource}"


def every_call() -> set[tuple[str, str]]:
    found = {call for text in (*CALLS.values(), LIFE) for call in calls(text)}
    return found | {call for text in (LOOKUPS, DOCTOR) for call in calls(text, lookup=True)}


@pytest.mark.parametrize("sid", [statement["Sid"] for statement in policy("up")["Statement"]])
def test_without_any_statement_a_call_is_refused(sid: str) -> None:
    less = without(policy("up"), sid)
    assert [call for call in every_call() if not allows(less, *call)]


def test_no_action_of_the_policy_is_superfluous() -> None:
    used = {action for action, _ in every_call()}
    for statement in policy("up")["Statement"]:
        for action in statement["Action"]:
            prefix = action.removesuffix("*")
            assert any(name == action or (prefix != action and name.startswith(prefix)) for name in used), action


def test_nightly_is_up_and_reap_and_the_state() -> None:
    up, nightly = policy("up")["Statement"], policy("nightly")["Statement"]
    assert nightly[: len(up)] == up
    assert {statement["Sid"] for statement in nightly[len(up) :]} == {
        "FindLostLabs", "FindLostRoles", "DeleteLostLabs", "State", "StateList",
    }  # fmt: skip


def test_only_what_has_a_labs_tag_may_be_ended() -> None:
    up = policy("up")
    for action in ("ec2:TerminateInstances", "ec2:StopInstances", "ec2:DeleteVpc", "ec2:ReleaseAddress"):
        assert allows(up, action, "*", {"cni-lab:stack": "mine"})
        assert not allows(up, action, "*", {"Name": "production"})
    assert not allows(up, "iam:DeleteRole", "arn:aws:iam::123456789012:role/production")
    assert not allows(up, "iam:PassRole", "arn:aws:iam::123456789012:role/admin")


# --- executed, with moto's IAM enforcement ---


def build(aws: Cloud, lab: Lab) -> None:
    deploy(lab, aws, balancer=len(lab.control_planes) > 1)


def look(aws: Cloud) -> None:
    """What the provider reads after it made a thing, and what a refresh reads."""
    aws.ec2.describe_vpcs()
    aws.ec2.describe_instances()
    aws.ec2.describe_security_group_rules()
    aws.elb.describe_load_balancers()
    aws.ssm.describe_parameters()
    for urn, (name, _) in aws.made.items():
        if "aws:iam/role:" in urn:
            aws.iam.get_role(RoleName=name)
            aws.iam.list_role_policies(RoleName=name)
            aws.iam.list_instance_profiles_for_role(RoleName=name)
        elif "aws:iam/instanceProfile:" in urn:
            aws.iam.get_instance_profile(InstanceProfileName=name)
        elif "aws:ssm/parameter:" in urn:
            aws.ssm.get_parameter(Name=name, WithDecryption=True)
            aws.ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId=name)


def delete(aws: Cloud) -> None:
    """What a destroy deletes, in the reverse order of creation."""
    for urn, (name, _) in reversed(aws.made.items()):
        kind = urn.split("::")[2].split("$")[-1]
        if kind.startswith("aws:"):
            aws.delete(kind, name, aws.inputs[urn])


def live(lab: Lab, allowed: Mapping[str, Any]) -> None:
    """A lab's whole life with a policy. Raises what AWS refuses."""
    with cloud() as aws, enforced(allowed) as credentials:
        aws.ec2, aws.iam, aws.ssm, aws.elb = (
            boto3.client(name, REGION, **credentials) for name in ("ec2", "iam", "ssm", "elbv2")
        )
        build(aws, lab)
        look(aws)
        delete(aws)
        left = [i for r in aws.ec2.describe_instances()["Reservations"] for i in r["Instances"]]
        assert {instance["State"]["Name"] for instance in left} == {"terminated"}


@pytest.mark.parametrize("stack", aws_stacks())
def test_a_stacks_life_passes_with_the_policy(stack: str) -> None:
    live(aws_stacks()[stack], policy("up"))


# What only ./lab doctor asks; see below.
ASKED = {
    "AskWhatIsAllowed": ("permissions", "not authorized to perform: iam:SimulatePrincipalPolicy"),
    "LookAtLinkedRoles": ("linked-roles", "you may not look for AWSServiceRoleForEC2Spot"),
}


@pytest.mark.parametrize("sid", [s["Sid"] for s in policy("up")["Statement"] if s["Sid"] not in ASKED])
def test_a_lab_fails_without_any_statement(sid: str) -> None:
    with pytest.raises(Exception, match=REFUSED) as refused:
        live(Lab.model_validate(EVERYTHING), without(policy("up"), sid))
    assert not isinstance(refused.value, AssertionError)


def doctors_answers(allowed: Mapping[str, Any], *names: str) -> dict[str, Answer]:
    """What ./lab doctor finds about an account in which everything was used once, by the names of its checks."""
    with cloud() as aws:
        for service in SERVICES:
            aws.iam.create_service_linked_role(AWSServiceName=f"{service}.amazonaws.com")
        with enforced(allowed) as credentials, pytest.MonkeyPatch.context() as environment:
            environment.setenv("AWS_ACCESS_KEY_ID", credentials["aws_access_key_id"])
            environment.setenv("AWS_SECRET_ACCESS_KEY", credentials["aws_secret_access_key"])
            checks = doctor.checks(Lab.model_validate(EVERYTHING), "test", AwsSettings(REGION))
            found = {check.name.removeprefix("aws."): check for check in checks}
            return {name: found[name].ask() for name in names}


def test_doctor_may_ask_with_the_policy() -> None:
    found = doctors_answers(policy("up"), *(name for name, _ in ASKED.values()))
    assert {answer.verdict for answer in found.values()} == {"ok"}, found


@pytest.mark.parametrize("sid", ASKED)
def test_doctor_may_not_ask_without_its_statements(sid: str) -> None:
    name, words = ASKED[sid]
    answer = doctors_answers(without(policy("up"), sid), name)[name]
    assert answer.verdict == "unknown" and words in answer.seen


@pytest.mark.parametrize("sid", [s["Sid"] for s in policy("up")["Statement"] if s["Sid"] != "AskWhatIsAllowed"])
def test_doctor_names_what_a_caller_may_not_do(sid: str) -> None:
    """By IAM's own simulation of every statement."""
    missing = next(s for s in policy("up")["Statement"] if s["Sid"] == sid)
    answer = doctors_answers(without(policy("up"), sid), "permissions")["permissions"]
    assert answer.verdict == "warn" and missing["Action"][0] in answer.seen


def test_another_machine_is_not_terminated() -> None:
    with cloud() as aws:
        other = aws.ec2.run_instances(ImageId=aws.image, MinCount=1, MaxCount=1)["Instances"][0]["InstanceId"]
        with enforced(policy("up")) as credentials:
            ec2 = boto3.client("ec2", REGION, **credentials)
            with pytest.raises(ClientError, match=REFUSED):
                ec2.terminate_instances(InstanceIds=[other])


def lost(aws: Cloud) -> None:
    """A lab whose time is over, and that no state knows."""
    build(aws, aws_lab())
    tags = [{"Key": "cni-lab:ttl-hours", "Value": "1"}]
    for thing in Account(lambda name: boto3.client(name, REGION)).things():
        if thing.mark:
            thing.mark(tags)


REAP = [s["Sid"] for s in policy("nightly")["Statement"] if s["Sid"] in ("FindLostLabs", "FindLostRoles")]


@pytest.mark.parametrize("missing", [None, *REAP])
def test_a_lost_lab_is_reaped_with_the_nightly_policy(missing: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "TIMEOUT_SECONDS", 5.0)
    monkeypatch.setattr(sweeping, "PAUSE_SECONDS", 0.0)
    allowed = policy("nightly") if missing is None else without(policy("nightly"), missing)
    with cloud() as aws:
        lost(aws)
        with enforced(allowed) as credentials, pytest.MonkeyPatch.context() as environment:
            environment.setenv("AWS_ACCESS_KEY_ID", credentials["aws_access_key_id"])
            environment.setenv("AWS_SECRET_ACCESS_KEY", credentials["aws_secret_access_key"])
            later = datetime.now(UTC) + timedelta(hours=3)
            if missing is not None:
                with pytest.raises(sweeping.SweepError, match=REFUSED):
                    sweeping.sweep(AwsSettings(REGION), later, frozenset(), dry_run=False)
                return
            (found,) = sweeping.sweep(AwsSettings(REGION), later, frozenset(), dry_run=False)
    assert found.outcome == "destroyed", found.why
