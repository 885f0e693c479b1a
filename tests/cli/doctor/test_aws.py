"""The checks of an AWS account, on moto; what moto lacks is answered by a stub."""

from __future__ import annotations

import io
import urllib.request
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from cli.doctor import aws as module
from cli.doctor import permissions
from cli.doctor.aws import Account, checks
from cli.doctor.model import Answer, Once, examine
from components.aws_client import AwsSettings, clients
from components.spec.models import Lab
from tests.policy.test_iam import EVERYTHING
from tests.support.aws_labs import aws_lab
from tests.support.moto_ec2 import REGION, Cloud, cloud

OWN = "198.18.0.1"


def error(code: str, message: str = "") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message or code}}, "Any")


class Calls:
    """An account's clients, where some calls are answered by a test: SERVICE.METHOD → answer, error or function."""

    def __init__(self, settings: AwsSettings) -> None:
        self._make = clients(settings)
        self.answers: dict[str, Any] = {
            "ssm.get_parameter": {"Parameter": {"Value": "ami-0"}},
            "ec2.describe_images": {"Images": [{"Name": "ubuntu"}]},
            "ec2.run_instances": error("DryRunOperation"),
            "ec2.describe_regions": {"Regions": [{"OptInStatus": "opt-in-not-required"}]},
            "service-quotas.get_service_quota": lambda QuotaCode, **_: {"Quota": {"Value": self.quotas[QuotaCode]}},
        }
        self.quotas = {module.VCPU[False]: 32, module.VCPU[True]: 32, module.VPCS: 5, module.ADDRESSES: 5}
        self.quotas[module.BALANCERS] = 50

    def __call__(self, service: str) -> Any:
        return _Client(self, service, self._make(service))


class _Client:
    def __init__(self, calls: Calls, service: str, real: Any) -> None:
        self._calls, self._service, self._real = calls, service, real

    def __getattr__(self, name: str) -> Any:
        answers = self._calls.answers
        key = f"{self._service}.{name}"
        if key not in answers:
            return getattr(self._real, name)

        def call(**arguments: Any) -> Any:
            found = answers[key]
            if isinstance(found, Exception):
                raise found
            return found(**arguments) if callable(found) else found

        return call


@pytest.fixture
def aws() -> Iterator[tuple[Cloud, Calls]]:
    with cloud() as made, pytest.MonkeyPatch.context() as patch:
        calls = Calls(AwsSettings(REGION))
        patch.setattr(module, "clients", lambda settings: calls)
        patch.setattr(module, "public_address", lambda: IPv4Address(OWN))
        patch.setattr(permissions, "answer", lambda *_: Answer("ok", "everything"))
        yield made, calls


def spec(**machines: Any) -> Lab:
    return aws_lab({"operatorCidrs": [f"{OWN}/32"], **machines})


def answers(lab: Lab, stack: str = "mine") -> dict[str, Answer]:
    rows = examine(checks(lab, stack, AwsSettings(REGION)), timeout_seconds=60)
    return {row.check.name.removeprefix("aws."): row.answer for row in rows}


def test_an_account_with_room_is_fine(aws: tuple[Cloud, Calls]) -> None:
    found = answers(spec())
    assert {name: answer for name, answer in found.items() if answer.verdict != "ok"} == {}
    assert len(found) == 11
    assert found["vcpu"].seen == "0 of 32 vCPU in use, and the lab needs 6 more"
    assert "arn:aws:sts::123456789012" in found["credentials"].seen


def test_no_credentials_is_one_row(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setattr(module, "public_address", lambda: IPv4Address(OWN))
    found = answers(spec())
    assert {name: answer.verdict for name, answer in found.items()} == {"credentials": "stop", "operators": "ok"}
    rows = examine(checks(spec(), "mine", AwsSettings(REGION, profile="nobody")))
    assert "nobody" in rows[0].answer.seen and rows[0].answer.verdict == "stop"


@pytest.mark.parametrize(
    ("raised", "verdict"),
    [
        (error("ExpiredToken", "The security token included in the request is expired"), "stop"),
        (error("InvalidClientTokenId"), "stop"),
        (EndpointConnectionError(endpoint_url="https://sts"), "unknown"),
    ],
)
def test_credentials_that_do_not_work(aws: tuple[Cloud, Calls], raised: Exception, verdict: str) -> None:
    aws[1].answers["sts.get_caller_identity"] = raised
    found = answers(spec())
    assert set(found) == {"credentials", "operators"} and found["credentials"].verdict == verdict


CASES: list[tuple[str, str, Any, str, str]] = [
    ("region", "ec2.describe_regions", {"Regions": []}, "stop", "no region us-west-2"),
    ("region", "ec2.describe_regions", {"Regions": [{"OptInStatus": "not-opted-in"}]}, "stop", "is not enabled"),
    ("zone", "ec2.describe_instance_type_offerings", {"InstanceTypeOfferings": []}, "stop", "no zone offers t3.large"),
    ("image", "ec2.describe_images", {"Images": []}, "stop", "cannot see ami-0"),
    ("image", "ssm.get_parameter", error("AccessDeniedException"), "unknown", "AccessDenied"),
    ("launch", "ec2.run_instances", error("UnauthorizedOperation"), "stop", "may not launch"),
    (
        "launch", "ec2.run_instances",
        error("InvalidParameterCombination", "The specified instance type is not eligible for Free Tier."),
        "stop", "Free plan does not allow t3.large",
    ),
    ("launch", "ec2.run_instances", error("PendingVerification", "in progress"), "unknown", "in progress"),
    ("launch", "ec2.run_instances", error("VPCIdNotSpecified"), "ok", "without a default VPC"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "call", "answer", "verdict", "seen"), CASES)
def test_what_the_account_refuses(
    aws: tuple[Cloud, Calls], check: str, call: str, answer: Any, verdict: str, seen: str
) -> None:
    aws[1].answers[call] = answer
    found = answers(spec())[check]
    assert found.verdict == verdict and seen in found.seen
    assert (found.fix == "") == (verdict == "ok")


def test_quotas_that_are_too_small_name_the_increase(aws: tuple[Cloud, Calls]) -> None:
    made, calls = aws
    calls.quotas |= {module.VCPU[False]: 5, module.VPCS: 1, module.ADDRESSES: 1}
    made.ec2.allocate_address(Domain="vpc")
    found = answers(spec())
    assert {name for name, answer in found.items() if answer.verdict == "stop"} == {"vcpu", "vpcs", "addresses"}
    assert found["vcpu"].seen == "0 of 5 vCPU in use, and the lab needs 6 more"
    assert "request-service-quota-increase --service-code ec2 --quota-code L-1216C47A --desired-value 6" in (
        found["vcpu"].fix
    )


def test_what_runs_counts_and_the_labs_own_machines_are_not_needed_again(aws: tuple[Cloud, Calls]) -> None:
    made, calls = aws
    calls.quotas[module.VCPU[False]] = 10
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "cni-lab:stack", "Value": "mine"}]}]
    made.ec2.run_instances(ImageId=made.image, InstanceType="t3.large", MinCount=2, MaxCount=2, TagSpecifications=tags)
    made.ec2.run_instances(ImageId=made.image, InstanceType="t3.large", MinCount=1, MaxCount=1)
    used, need = _numbers(answers(spec())["vcpu"].seen)
    assert used > 0 and need == 2, "two of the three machines are there"
    assert _numbers(answers(spec(), "another")["vcpu"].seen) == (used, 6)


def _numbers(seen: str) -> tuple[int, int]:
    words = seen.split()
    return int(words[0]), int(words[-2])


def test_a_lab_that_has_its_network_needs_no_other(aws: tuple[Cloud, Calls]) -> None:
    made, calls = aws
    calls.quotas |= {module.VPCS: 1, module.ADDRESSES: 1}
    tag = [{"Key": "cni-lab:stack", "Value": "mine"}]
    made.ec2.create_vpc(CidrBlock="10.0.0.0/16", TagSpecifications=[{"ResourceType": "vpc", "Tags": tag}])
    made.ec2.allocate_address(Domain="vpc", TagSpecifications=[{"ResourceType": "elastic-ip", "Tags": tag}])
    found = answers(spec())
    assert found["vpcs"].verdict == found["addresses"].verdict == "ok"
    assert answers(spec(), "another")["vpcs"].verdict == "stop"


def test_a_class_needs_room_for_the_lab_of_every_student(aws: tuple[Cloud, Calls]) -> None:
    """examples/classroom: with fresh quotas the machines of the third student would be refused half-way."""
    _, calls = aws
    checked = checks(spec(), "mine", AwsSettings(REGION), labs=6)
    found = {row.check.name.removeprefix("aws."): row.answer for row in examine(checked, timeout_seconds=60)}
    assert {name for name, answer in found.items() if answer.verdict == "stop"} == {"vcpu", "vpcs", "addresses"}
    assert found["vcpu"].seen == "0 of 32 vCPU in use, and 6 labs need 36 more"
    assert "--desired-value 36; or make fewer labs here" in found["vcpu"].fix
    assert found["vpcs"].seen.endswith("of 5 VPCs in use, and 6 labs need 6 more")
    assert found["addresses"].seen == "0 of 5 Elastic addresses in use, and 6 labs need 6 more"
    three = [
        {"name": f"c{i}", "role": "control-plane", "subnet": "workers", "address": f"10.0.2.1{i}"} for i in (1, 2, 3)
    ]
    highly_available = aws_lab({"operatorCidrs": [f"{OWN}/32"]}, nodes=three)
    calls.quotas[module.BALANCERS] = 1
    checked = checks(highly_available, "mine", AwsSettings(REGION), labs=2)
    (balancers,) = (row.answer for row in examine(checked, timeout_seconds=60) if row.check.name == "aws.balancers")
    assert balancers.seen == "0 of 1 network load balancers in use, and 2 labs need 2 more"


def test_a_larger_type_of_machines_that_run_needs_more(aws: tuple[Cloud, Calls]) -> None:
    made, calls = aws
    calls.quotas[module.VCPU[False]] = 8
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "cni-lab:stack", "Value": "mine"}]}]
    made.ec2.run_instances(ImageId=made.image, InstanceType="t3.large", MinCount=3, MaxCount=3, TagSpecifications=tags)
    assert answers(spec())["vcpu"] == Answer("ok", "the lab has them already")
    larger = answers(spec(instanceType="t3.xlarge"))["vcpu"]
    assert larger.verdict == "stop" and _numbers(larger.seen)[1] == 6, "twelve, of which it has six"


def test_a_quota_that_cannot_be_read_is_unknown(aws: tuple[Cloud, Calls]) -> None:
    aws[1].answers["service-quotas.get_service_quota"] = error("AccessDeniedException")
    aws[1].answers["service-quotas.get_aws_default_service_quota"] = error("AccessDeniedException")
    assert answers(spec())["vcpu"].verdict == "unknown"


def test_service_linked_roles_that_are_missing(aws: tuple[Cloud, Calls]) -> None:
    lab = Lab.model_validate(EVERYTHING)
    found = answers(lab)["linked-roles"]
    assert found.verdict == "warn"
    for service in ("spot", "elasticloadbalancing", "nat-gateway", "ec2-instance-connect"):
        assert f"create-service-linked-role --aws-service-name {service}.amazonaws.com" in found.fix
    aws[1].answers["iam.get_role"] = {}
    assert answers(lab)["linked-roles"].verdict == "ok"
    aws[1].answers["iam.get_role"] = error("AccessDenied")
    assert answers(lab)["linked-roles"].verdict == "unknown"


def test_the_way_in(aws: tuple[Cloud, Calls], monkeypatch: pytest.MonkeyPatch) -> None:
    assert answers(spec(operatorCidrs=["198.18.9.0/24"]))["operators"] == Answer(
        "warn", f"your public address {OWN} is not in 198.18.9.0/24", f"add {OWN}/32 to machines.operatorCidrs"
    )
    assert answers(spec(operatorCidrs=["203.0.113.7/32"]))["operators"].verdict == "stop"

    def fail() -> IPv4Address:
        raise OSError("no route")

    monkeypatch.setattr(module, "public_address", fail)
    assert answers(spec())["operators"].verdict == "unknown"


@pytest.mark.parametrize(("text", "good"), [("198.18.0.1\n", True), ("<html>", False), ("2001:db8::1", False)])
def test_the_answer_of_checkip(monkeypatch: pytest.MonkeyPatch, text: str, good: bool) -> None:
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: io.BytesIO(text.encode()))
    if good:
        assert module.public_address() == IPv4Address(OWN)
    else:
        with pytest.raises(ValueError, match="address"):
            module.public_address()


# --- permissions ---


@pytest.mark.parametrize(
    ("arn", "principal"),
    [
        ("arn:aws:iam::1:user/ann", "arn:aws:iam::1:user/ann"),
        ("arn:aws:sts::1:assumed-role/labs/me", "arn:aws:iam::1:role/labs"),
        (
            "arn:aws:sts::1:assumed-role/AWSReservedSSO_Admin_0/ann@x.org",
            "arn:aws:iam::1:role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_Admin_0",
        ),
        ("arn:aws:sts::1:federated-user/x", None),
    ],
)
def test_the_principal_that_is_simulated(arn: str, principal: str | None) -> None:
    assert permissions.principal_of(arn) == principal


class Simulator:
    """IAM's simulation: denies the actions of `denied`, and remembers what it was asked."""

    def __init__(self, *denied: str, raises: Exception | None = None) -> None:
        self.denied, self.raises, self.asked = denied, raises, []  # type: ignore[var-annotated]

    def get_paginator(self, name: str) -> Simulator:
        assert name == "simulate_principal_policy"
        return self

    def paginate(self, **arguments: Any) -> list[Any]:
        if self.raises:
            raise self.raises
        self.asked.append(arguments)
        return [
            {
                "EvaluationResults": [
                    {"EvalActionName": a, "EvalDecision": "implicitDeny" if a in self.denied else "allowed"}
                    for a in arguments["ActionNames"]
                ]
            }
        ]


def test_denied_actions_are_a_warning_with_their_names() -> None:
    ask: Callable[[Any], Answer] = lambda iam: permissions.answer(  # noqa: E731
        iam, "arn:aws:iam::7:user/ann", "7", REGION, "mine"
    )
    fine = Simulator()
    assert ask(fine).verdict == "ok"
    resources = {resource for asked in fine.asked for resource in asked["ResourceArns"]}
    assert f"arn:aws:ssm:{REGION}:7:parameter/cni-lab/mine" in resources
    assert "arn:aws:iam::7:role/cni-lab-mine" in resources and not any("*" in r for r in resources - {"*"})
    found = ask(Simulator("ec2:RunInstances", "iam:PassRole"))
    assert found.verdict == "warn" and found.seen == "denied: ec2:RunInstances, iam:PassRole"
    assert "policy/iam/up.json" in found.fix
    assert ask(Simulator(raises=error("AccessDenied"))).verdict == "unknown"
    assert permissions.answer(fine, "arn:aws:iam::7:root", "7", REGION, "mine").verdict == "ok"


def test_an_account_is_asked_for_its_identity_once(aws: tuple[Cloud, Calls]) -> None:
    asked = []

    def identity() -> Any:
        asked.append(1)
        return {"Account": "1", "Arn": "arn:aws:iam::1:user/ann"}

    aws[1].answers["sts.get_caller_identity"] = identity
    answers(spec())
    assert len(asked) == 1
    assert isinstance(Once(lambda: Account(lambda name: None, "1", "a"))(), Account)
