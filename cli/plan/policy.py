"""The policy pack asked of a plan in this process: the same rules as `pulumi preview --policy-pack policy`."""

from __future__ import annotations

from engine.model import Deployment
from policy.check import check
from policy.model import PlannedResource, Violation


def violations(deployment: Deployment) -> list[Violation]:
    """Every violation of a rule in a plan. Raises ConfigError for a policy/config.json that cannot be used."""
    return check([PlannedResource(made.type, made.name, made.inputs, made.urn) for made in deployment.resources])


def note(violation: Violation) -> str:
    """A violation as a line of the plan's notes: an error if the rule is mandatory, else a warning."""
    return f"{'error' if violation.mandatory else 'warning'}: policy {violation.rule.name}: {violation}"
