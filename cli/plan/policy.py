"""The policy pack on a plan: the rules that `pulumi preview --policy-pack policy` asks, asked in this process."""

from __future__ import annotations

from engine.model import Deployment
from policy.rules import Finding, Resource, check


def breaches(deployment: Deployment) -> list[Finding]:
    """Every breach of a rule in a plan. Raises ConfigError for a policy/config.json that cannot be used."""
    return check([Resource(made.type, made.name, made.inputs, made.urn) for made in deployment.resources])


def note(finding: Finding) -> str:
    """A finding as a line of the plan's notes: an error where it must be mended, else a warning."""
    return f"{'error' if finding.mandatory else 'warning'}: policy {finding.rule.name}: {finding}"
