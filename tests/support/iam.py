"""moto's IAM enforcement, with what it leaves out: the resource of a call, and the condition on a resource's tags."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import boto3
from moto import settings
from moto.core.authorization import ActionAuthenticatorMixin
from moto.core.exceptions import AccessDeniedError, _RESTError
from moto.iam.access_control import IAMRequestBase

from tests.support.moto_ec2 import ACCOUNT, REGION

Policy = Mapping[str, Any]


def allows(
    policy: Policy,
    action: str,
    resource: str = "*",
    tags: Mapping[str, str] | None = None,
    context: Mapping[str, Sequence[str]] | None = None,
) -> bool:
    """Whether a policy of Allow statements allows a call.

    `tags` None: the resource's tags do not matter. `context`: the values of the request's own keys, such as
    iam:PassedToService; a condition on a key that it does not have counts as met.
    """
    for statement in policy["Statement"]:
        assert statement["Effect"] == "Allow"
        if not any(fnmatchcase(action, each) for each in _listed(statement["Action"])):
            continue
        if not any(fnmatchcase(resource, each) for each in _listed(statement["Resource"])):
            continue
        equals = statement.get("Condition", {}).get("StringEquals", {})
        if not all(set(values) <= set(_listed(equals.get(key, values))) for key, values in (context or {}).items()):
            continue
        wanted = statement.get("Condition", {}).get("StringLike", {})
        if tags is None or all(fnmatchcase(tags.get(key.split("/", 1)[1], ""), f"?{v}") for key, v in wanted.items()):
            return True
    return False


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


@contextmanager
def enforced(policy: Policy) -> Iterator[dict[str, str]]:
    """Only what `policy` allows is done, for calls with these credentials (arguments of boto3.client)."""
    iam = boto3.client("iam", REGION)
    iam.create_user(UserName="builder")
    iam.put_user_policy(UserName="builder", PolicyName="builder", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName="builder")["AccessKey"]
    ec2 = boto3.client("ec2", REGION)
    count, ActionAuthenticatorMixin.request_count = ActionAuthenticatorMixin.request_count, 0

    def check(self: IAMRequestBase, resource: str) -> None:
        if self._action == "sts:GetCallerIdentity":
            return
        data = _data(self)
        # Without credentials of the user it is the test itself that asks.
        if f"Credential={key['AccessKeyId']}/" not in str(self._headers["Authorization"]):
            return
        tags = None
        if self._action.startswith("ec2:") and _is_conditional(policy, self._action):
            tags = _tags(ec2, data)
        if not allows(policy, self._action, _resource(self._action, data), tags):
            self._raise_access_denied()
        for needed, resource, context, error in _dependent(iam, self._action, data):
            if not allows(policy, needed, resource, context=context):
                raise error or AccessDeniedError(user_arn=self._access_key.arn, action=needed)

    with (
        patch.object(settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0),
        patch.object(IAMRequestBase, "check_signature", lambda self: None),
        patch.object(IAMRequestBase, "check_action_permitted", check),
        patch(
            "moto.iam.access_control.create_access_key",
            lambda **_: SimpleNamespace(arn=f"arn:aws:iam::{ACCOUNT}:user/builder"),
        ),
    ):
        yield {"aws_access_key_id": key["AccessKeyId"], "aws_secret_access_key": key["SecretAccessKey"]}
    ActionAuthenticatorMixin.request_count = count


# By action, the service-linked role that the service makes for the caller at the first need, and the role's service.
# AWS, "Create a service-linked role", and the pages of these services on their roles.
LINKED_ROLES = {
    "ec2:RunInstances": ("AWSServiceRoleForEC2Spot", "spot.amazonaws.com"),
    "ec2:CreateNatGateway": ("AWSServiceRoleForNATGateway", "nat-gateway.amazonaws.com"),
    "ec2:CreateInstanceConnectEndpoint": ("AWSServiceRoleForEc2InstanceConnect", "ec2-instance-connect.amazonaws.com"),
    "elasticloadbalancing:CreateLoadBalancer": (
        "AWSServiceRoleForElasticLoadBalancing",
        "elasticloadbalancing.amazonaws.com",
    ),
}
_Needed = tuple[str, str, Mapping[str, Sequence[str]], Exception | None]


def _dependent(iam: Any, action: str, data: Mapping[str, str]) -> Iterator[_Needed]:
    """What else a call needs: the action, its resource and context, and the error without it.

    Source: the "Dependent actions" of the Service Authorization Reference.
    """
    profile = data.get("IamInstanceProfile.Name")
    if action == "ec2:RunInstances" and profile:
        found = iam.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]
        for role in found["Roles"]:
            yield "iam:PassRole", role["Arn"], {"iam:PassedToService": ["ec2.amazonaws.com"]}, None
    if action == "iam:AddRoleToInstanceProfile":
        role = f"arn:aws:iam::{ACCOUNT}:role/{data['RoleName']}"
        yield "iam:PassRole", role, {"iam:PassedToService": ["ec2.amazonaws.com"]}, None
    spot = data.get("InstanceMarketOptions.MarketType") == "spot"
    if action not in LINKED_ROLES or (action == "ec2:RunInstances" and not spot):
        return
    name, service = LINKED_ROLES[action]
    with suppress(iam.exceptions.NoSuchEntityException):
        iam.get_role(RoleName=name)
        return
    resource = f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/{service}/{name}"
    error = _RESTError(
        "AuthFailure.ServiceLinkedRoleCreationNotPermitted",
        "The provided credentials do not have permission to create the service-linked role for EC2 Spot Instances.",
    )
    yield "iam:CreateServiceLinkedRole", resource, {"iam:AWSServiceName": [service]}, error if spot else None
    iam.create_service_linked_role(AWSServiceName=service)


def _data(request: IAMRequestBase) -> dict[str, str]:
    """The request's parameters, of a form or of JSON."""
    body = request._body.decode() if isinstance(request._body, bytes) else str(request._body or "")
    if body.startswith("{"):
        return {key: value if isinstance(value, str) else json.dumps(value) for key, value in json.loads(body).items()}
    return {key: value[0] if isinstance(value, list) else str(value) for key, value in request._data.items()}


def _is_conditional(policy: Policy, action: str) -> bool:
    return any(
        "StringLike" in statement.get("Condition", {}) and action in _listed(statement["Action"])
        for statement in policy["Statement"]
    )


def _resource(action: str, data: Mapping[str, str]) -> str:
    """The ARN that AWS's Service Authorization Reference has for a call; * where the service has none."""
    service, _, name = action.partition(":")
    match service:
        case "iam" if "InstanceProfileName" in data:
            return f"arn:aws:iam::{ACCOUNT}:instance-profile/{data['InstanceProfileName']}"
        case "iam" if data.get("RoleName", "").startswith("AWSServiceRoleFor"):
            return f"arn:aws:iam::{ACCOUNT}:role/aws-service-role/x.amazonaws.com/{data['RoleName']}"
        case "iam" if "RoleName" in data:
            return f"arn:aws:iam::{ACCOUNT}:role/{data['RoleName']}"
        case "ssm" if name != "DescribeParameters":
            parameter = data.get("Name") or data["ResourceId"]
            owner = "" if parameter.startswith("/aws/") else ACCOUNT
            return f"arn:aws:ssm:{REGION}:{owner}:parameter{parameter}"
        case "elasticloadbalancing" if not name.startswith("Describe"):
            here = f"arn:aws:elasticloadbalancing:{REGION}:{ACCOUNT}"
            if name == "CreateLoadBalancer":
                return f"{here}:loadbalancer/net/{data['Name']}/x"
            if name == "CreateTargetGroup":
                return f"{here}:targetgroup/{data['Name']}/x"
            keys = ("ListenerArn", "LoadBalancerArn", "TargetGroupArn", "ResourceArns.member.1")
            named = next(data[key] for key in keys if key in data)
            # moto names network load balancers as if they were application load balancers.
            return re.sub(r"(loadbalancer|listener)/app/", r"\1/net/", named)
    return "*"


def _tags(ec2: Any, data: Mapping[str, str]) -> dict[str, str]:
    """The tags of the first thing that a call of EC2 names."""
    named = next((v for k, v in data.items() if re.fullmatch(r"[A-Za-z]+Id(\.1)?", k) and re.match(r"[a-z]+-", v)), "")
    found = ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [named]}])["Tags"]
    return {tag["Key"]: tag["Value"] for tag in found}
