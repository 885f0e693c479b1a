"""Whether the caller may do what `up` and `destroy` do: IAM's own simulation of the policy in policy/iam/up.json."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from cli.doctor.model import Answer
from cli.project import ROOT

POLICY = ROOT / "policy" / "iam" / "up.json"
FIX = "get the policy policy/iam/up.json (docs/security.md)"
_AT_ONCE = 50
"""Actions in one simulation: the request has a limit of length."""
_LISTED = 5


def statements() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(POLICY.read_text(encoding="utf-8"))["Statement"]
    return found


def answer(iam: Any, arn: str, account: str, region: str, stack: str) -> Answer:
    """Ask IAM. A denial is a warning: a simulation knows neither every condition nor an organisation's own rules."""
    from botocore.exceptions import ClientError

    if arn.endswith(":root"):
        return Answer("ok", "the account's root user, who may do everything")
    principal = principal_of(arn)
    if principal is None:
        return Answer("unknown", f"IAM cannot simulate what {arn} may do", f"compare, or {FIX}")
    denied: list[str] = []
    try:
        for statement in statements():
            denied += _denied(iam, principal, statement, account, region, stack)
    except ClientError as error:
        reason = " ".join(str(error).split())
        return Answer(
            "unknown", f"IAM does not simulate it: {reason}", "allow iam:SimulatePrincipalPolicy, or just try"
        )
    if not denied:
        return Answer("ok", f"everything in {POLICY.relative_to(ROOT)}")
    more = f" and {len(denied) - _LISTED} more" if len(denied) > _LISTED else ""
    return Answer("warn", f"denied: {', '.join(denied[:_LISTED])}{more}", FIX)


def principal_of(arn: str) -> str | None:
    """The ARN that can be simulated: the role of a session; None for what has no policies of its own."""
    if session := re.fullmatch(r"arn:([\w-]+):sts::(\d+):assumed-role/([^/]+)/.+", arn):
        # The role's path is not in the session's ARN; SSO's roles have one.
        partition, account, role = session.groups()
        path = "aws-reserved/sso.amazonaws.com/" if role.startswith("AWSReservedSSO_") else ""
        return f"arn:{partition}:iam::{account}:role/{path}{role}"
    return arn if re.fullmatch(r"arn:[\w-]+:iam::\d+:(user|role)/.+", arn) else None


def _denied(
    iam: Any, principal: str, statement: dict[str, Any], account: str, region: str, stack: str
) -> Iterator[str]:
    actions = _listed(statement["Action"])
    resources = [_example(resource, account, region, stack) for resource in _listed(statement["Resource"])]
    context = [
        {"ContextKeyName": key, "ContextKeyValues": _listed(values), "ContextKeyType": "string"}
        for clause in statement.get("Condition", {}).values()
        for key, values in clause.items()
    ]
    for start in range(0, len(actions), _AT_ONCE):
        pages = iam.get_paginator("simulate_principal_policy").paginate(
            PolicySourceArn=principal,
            ActionNames=actions[start : start + _AT_ONCE],
            ResourceArns=resources,
            ContextEntries=context,
        )
        for page in pages:
            for result in page["EvaluationResults"]:
                if result["EvalDecision"] != "allowed":
                    yield result["EvalActionName"]


def _example(resource: str, account: str, region: str, stack: str) -> str:
    """A resource that a pattern of the policy names, for this account, region and stack."""
    if resource == "*":
        return resource
    arn, partition, service, zone, owner, name = resource.split(":", 5)
    places = [zone.replace("*", region), owner.replace("*", account)]
    return ":".join([arn, partition, service, *places, name.replace("*", stack)])


def _listed(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
