"""Calls and values that a lab needs and moto lacks: Instance Connect Endpoints, IAM's simulation, Canonical's images.

They are added to moto's own services, so that a call has moto's whole way, IAM's enforcement with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any
from unittest.mock import patch

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses import EC2Response
from moto.iam.models import SERVICE_NAME_CONVERSION
from moto.iam.responses import IamResponse
from moto.ssm.models import Parameter, ssm_backends

CANONICAL = "/aws/service/canonical/"
# Of service-linked roles, how AWS writes the service in the role's name.
LINKED = {
    "ec2-instance-connect": "Ec2InstanceConnect",
    "elasticloadbalancing": "ElasticLoadBalancing",
    "nat-gateway": "NATGateway",
    "spot": "EC2Spot",
}
_serial = count()


@contextmanager
def filled() -> Iterator[None]:
    """moto with these calls."""
    calls = {
        EC2Response: (
            create_instance_connect_endpoint,
            describe_instance_connect_endpoints,
            delete_instance_connect_endpoint,
        ),
        IamResponse: (simulate_principal_policy,),
    }
    with ExitStack() as stack:
        for service, added in calls.items():
            for call in added:
                assert getattr(service, call.__name__, call) is call, f"moto has {call.__name__} now"
                stack.enter_context(patch.object(service, call.__name__, call, create=True))
        stack.enter_context(patch.dict(SERVICE_NAME_CONVERSION, LINKED))
        yield


# --- EC2 Instance Connect Endpoints ---


def _endpoints(self: EC2Response) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = self.ec2_backend.__dict__.setdefault("instance_connect_endpoints", {})
    return found


def create_instance_connect_endpoint(self: EC2Response) -> ActionResult:
    subnet = self.ec2_backend.get_subnet(self._get_param("SubnetId"))
    groups = self._get_param("SecurityGroupIds", [])
    for group in groups:
        if self.ec2_backend.get_security_group_from_id(group) is None:
            raise EC2ClientError("InvalidGroup.NotFound", f"The security group '{group}' does not exist")
    if any(endpoint["VpcId"] == subnet.vpc_id for endpoint in _endpoints(self).values()):
        raise EC2ClientError("InstanceConnectEndpointLimitExceeded", "A VPC may have one endpoint")
    id_ = f"eice-{next(_serial):017x}"
    made = {
        "InstanceConnectEndpointId": id_,
        "SubnetId": subnet.id,
        "VpcId": subnet.vpc_id,
        "SecurityGroupIds": groups,
        "PreserveClientIp": self._get_bool_param("PreserveClientIp", True),
        "State": "create-complete",
    }
    _endpoints(self)[id_] = made
    self.ec2_backend.tags[id_].update(self._parse_tag_specification().get("instance-connect-endpoint", {}))
    return ActionResult({"InstanceConnectEndpoint": made})


def describe_instance_connect_endpoints(self: EC2Response) -> ActionResult:
    wanted = self._get_param("InstanceConnectEndpointIds", [])
    found = [endpoint for id_, endpoint in _endpoints(self).items() if not wanted or id_ in wanted]
    return ActionResult({"InstanceConnectEndpoints": found})


def delete_instance_connect_endpoint(self: EC2Response) -> ActionResult:
    id_ = self._get_param("InstanceConnectEndpointId")
    if id_ not in _endpoints(self):
        raise EC2ClientError("InvalidInstanceConnectEndpointId.NotFound", f"{id_} does not exist")
    return ActionResult({"InstanceConnectEndpoint": _endpoints(self).pop(id_)})


# --- IAM's simulation ---


def simulate_principal_policy(self: IamResponse) -> ActionResult:
    """The inline policies of a user against each action and resource, with the conditions of the request."""
    from tests.support.iam import allows

    name = self._get_param("PolicySourceArn").rpartition("/")[2]
    backend = self.backend
    policies = [
        json.loads(backend.get_user_policy(name, policy)["policy_document"])
        for policy in backend.list_user_policies(name)
    ]
    context = {
        entry["ContextKeyName"]: entry["ContextKeyValues"] for entry in self._get_param("ContextEntries", []) or []
    }
    tags = {key.partition("/")[2]: values[0] for key, values in context.items() if key.startswith("aws:ResourceTag/")}
    results = []
    for action in self._get_param("ActionNames"):
        for resource in self._get_param("ResourceArns", ["*"]):
            allowed = any(allows(policy, action, resource, tags or None, context) for policy in policies)
            decision = "allowed" if allowed else "implicitDeny"
            results.append({"EvalActionName": action, "EvalResourceName": resource, "EvalDecision": decision})
    return ActionResult({"EvaluationResults": results, "IsTruncated": False})


# --- Canonical's public parameters ---


def publish_image(account: str, region: str, name: str, image: str) -> None:
    """Put an image's id where AWS publishes the newest. PutParameter takes no name below /aws."""
    versions = ssm_backends[account][region]._parameters[name]
    if not versions or versions[-1].value != image:
        versions.append(
            Parameter(
                account_id=account,
                name=name,
                value=image,
                parameter_type="String",
                description="",
                allowed_pattern=None,
                keyid=None,
                last_modified_date=0,
                version=len(versions) + 1,
                data_type="aws:ec2:image",
            )
        )
