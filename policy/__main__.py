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

# The engine runs this file by its path, which leaves the project's own folder out.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from policy.rules import RULES, UNKNOWN, Resource, Rule, load_config

CONFIG = load_config()


def plain(value: Any) -> Any:
    """The engine's inputs as plain values: what raises because it is unknown becomes UNKNOWN."""
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


def settings(rule: Rule, given: Mapping[str, Any]) -> dict[str, Any]:
    """config.json's, then those of --policy-pack-config; and the lab's time to live where the stack is one of ours."""
    lab = pulumi.Config("cni-lab").get_object("lab") or {}
    ours = {key: value for key, value in CONFIG.get(rule.name, {}).items() if key != "enforcementLevel"}
    return {"ttlHours": lab.get("ttlHours"), **ours, **plain(given)}


def policy(rule: Rule) -> Policy:
    """One rule as the engine's policy."""

    def resource(args: ResourceValidationArgs, report: ReportViolation) -> None:
        one = Resource(args.resource_type, args.name, plain(args.props), args.urn)
        for _, message in rule.run([one], settings(rule, args.get_config())):
            report(f"{message}. Fix: {rule.fix}", None)

    def stack(args: StackValidationArgs, report: ReportViolation) -> None:
        everything = [Resource(r.resource_type, r.name, plain(r.props), r.urn) for r in args.resources]
        for broken, message in rule.run(everything, settings(rule, args.get_config())):
            report(f"{message}. Fix: {rule.fix}", broken.urn)

    make: Callable[..., Policy] = StackValidationPolicy if rule.whole_stack else ResourceValidationPolicy
    properties = {
        key: {"type": "array", "items": {"type": "string"}, "default": value}
        for key, value in {**rule.defaults, **CONFIG.get(rule.name, {})}.items()
        if key != "enforcementLevel"
    }
    return make(
        name=rule.name,
        description=rule.description,
        validate=stack if rule.whole_stack else resource,
        enforcement_level=EnforcementLevel(CONFIG.get(rule.name, {}).get("enforcementLevel", "mandatory")),
        config_schema=PolicyConfigSchema(properties) if properties else None,
    )


if __name__ == "__main__":
    PolicyPack("cni-lab", [policy(rule) for rule in RULES])
