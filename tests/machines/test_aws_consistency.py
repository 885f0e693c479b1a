"""What EC2 and IAM do not find yet, although it was made: an `up` bears it, or the next one does.

Where the provider tries again, the `up` passes; where it does not, the `up` fails, and the next one ends as an
undisturbed one does. Which is which stands in USES of tests/support/ec2_refusals.py, with the provider's file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.aws_engine import INSTANCE, NEEDS_CLI, Engine, lab, machines_engine
from tests.support.aws_provider import machines
from tests.support.ec2_refusals import USES

PROFILE = "aws:iam/instanceProfile:InstanceProfile"
PARAMETER = "aws:ssm/parameter:Parameter"
ROLE = "aws:iam/role:Role"
GROUP = "aws:ec2/securityGroup:SecurityGroup"
SUBNET = "aws:ec2/subnet:Subnet"
VPC = "aws:ec2/vpc:Vpc"
TABLE = "aws:ec2/routeTable:RouteTable"
ASSOCIATION = "aws:ec2/routeTableAssociation:RouteTableAssociation"
KEY = "aws:ec2/keyPair:KeyPair"

pytestmark = [NEEDS_CLI, pytest.mark.timeout(1800)]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with machines_engine(tmp_path) as found:
        yield found


def test_what_the_provider_tries_again_costs_nothing(engine: Engine) -> None:
    """A profile is unknown to RunInstances at first, a route table to its association."""
    engine.aws.propagation.slow = {PROFILE: 2, TABLE: 2}
    engine.up(lab())
    found = engine.aws.propagation
    assert {use.kind for use in found.retried} == {INSTANCE, PROFILE, ASSOCIATION} and found.failed == set()
    assert engine.up(lab()) == []


SLOW = (VPC, SUBNET, GROUP, KEY, ROLE, PARAMETER, INSTANCE)


def test_what_the_provider_does_not_try_again_is_made_by_the_next_up(engine: Engine) -> None:
    """Everything is slow at once: each `up` gets further, and the last one finds nothing left to do."""
    engine.aws.propagation.slow = dict.fromkeys(SLOW, 1)
    refused = []
    for _ in range(12):
        done = engine.try_up(lab(), "--refresh")
        if done.returncode == 0:
            break
        refused.append(done.stdout + done.stderr)
    assert done.returncode == 0, refused[-1]
    assert engine.aws.propagation.failed == {use for use in USES if not use.retried}
    engine.aws.propagation.slow = {}
    assert engine.up(lab(), "--refresh") == []
    found = machines(engine.aws)
    assert set(found) == {"10.0.1.10", "10.0.2.10"}
    # A machine whose id was not found yet kept the check that RunInstances gave it, and a gateway was not attached:
    # the state says otherwise, and the refresh sees it.
    assert {instance["SourceDestCheck"] for instance in found.values()} == {False}
    engine.destroy()
    assert engine.left() == []
