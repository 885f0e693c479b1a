"""The rules as a policy pack of the pulumi engine: `pulumi preview --policy-pack policy`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pulumi
from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyConfigSchema,
    PolicyPack,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)
from pulumi_policy.proxy import UnknownValueError

# The engine runs this file by its path, so the project's own folder is not on Python's path.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from policy.check import load_config
from policy.model import PlannedResource, PolicyRule
from policy.rules import RULES
from policy.values import UNKNOWN

CONFIG = load_config()


def plain(value: Any) -> Any:
    """The engine's inputs as plain values. The engine raises for an unknown value; here it becomes UNKNOWN."""
    if isinstance(value, Mapping):
        return {key: plain(_item(value, key)) for key in value}
    if isinstance(value, str) or not hasattr(value, "__getitem__"):
        return value
    return [plain(_item(value, index)) for index in range(len(value))]


def _item(holder: Any, key: Any) -> Any:
    try:
        return holder[key]
    except UnknownValueError:
        return UNKNOWN


def settings(rule: PolicyRule, given: Mapping[str, Any]) -> dict[str, Any]:
    """The rule's settings in config.json, overridden by `given`, those of --policy-pack-config.

    `ttlHours` is the lab's time to live, if the stack has a lab of this project.
    """
    lab = pulumi.Config("cni-lab").get_object("lab") or {}
    ours = {key: value for key, value in CONFIG.get(rule.name, {}).items() if key != "enforcementLevel"}
    return {"ttlHours": lab.get("ttlHours"), **ours, **plain(given)}


def policy(rule: PolicyRule) -> Policy:
    """A rule as the engine wants it."""

    def judge_resource(args: ResourceValidationArgs, report: ReportViolation) -> None:
        one = PlannedResource(args.resource_type, args.name, plain(args.props), args.urn)
        for _, message in rule.run([one], settings(rule, args.get_config())):
            report(f"{message}. Fix: {rule.fix}", None)

    def judge_stack(args: StackValidationArgs, report: ReportViolation) -> None:
        everything = [PlannedResource(r.resource_type, r.name, plain(r.props), r.urn) for r in args.resources]
        for resource, message in rule.run(everything, settings(rule, args.get_config())):
            report(f"{message}. Fix: {rule.fix}", resource.urn)

    make: Callable[..., Policy] = StackValidationPolicy if rule.check_stack else ResourceValidationPolicy
    properties = {
        key: {"type": "array", "items": {"type": "string"}, "default": value}
        for key, value in {**rule.defaults, **CONFIG.get(rule.name, {})}.items()
        if key != "enforcementLevel"
    }
    return make(
        name=rule.name,
        description=rule.description,
        validate=judge_stack if rule.check_stack else judge_resource,
        enforcement_level=EnforcementLevel(CONFIG.get(rule.name, {}).get("enforcementLevel", "mandatory")),
        config_schema=PolicyConfigSchema(properties) if properties else None,
    )


if __name__ == "__main__":
    PolicyPack("cni-lab", [policy(rule) for rule in RULES])
