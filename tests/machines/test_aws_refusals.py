"""What EC2 refuses: today's graph passes, and the graph or the setting that was wrong once is refused.

Where the order of steps decides, the real engine runs the graph. The others need no CLI: each resource is made in the
order in which the program registers it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pulumi
import pytest

from components.machines.aws import make_machines
from components.machines.machine import MachinesArgs
from components.spec.changes import refused_changes
from components.spec.load import parse_lab
from engine.model import ProgramError, Registration
from engine.run import run_program
from tests.policy.test_iam import policy, without
from tests.support.aws_engine import HA, INSTANCE, NEEDS_CLI, NODES, W2, Engine, lab, machines_engine
from tests.support.aws_provider import StandIn, of
from tests.support.iam import enforced
from tests.support.moto_ec2 import REGION, Cloud, cloud
from tests.support.older_graphs import make_older


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with machines_engine(tmp_path) as found:
        yield found


@contextmanager
def account() -> Iterator[StandIn]:
    """A new account. Only one is there at a time."""
    with cloud() as found:
        yield StandIn(found)


def build(aws: StandIn, wanted: dict[str, Any], older: str = "") -> None:
    """Make the lab's machines and network. Raises ProgramError with EC2's words where it refuses a step."""

    def program() -> None:
        make_older(older)
        make_machines(
            "lab", MachinesArgs(parse_lab(wanted), "test", {"cni-lab:stack": "test"}), pulumi.ResourceOptions()
        )

    def create(resource: Registration) -> tuple[str, dict[str, Any]]:
        if not resource.type.startswith("aws:"):
            return aws.cloud.create(resource)
        inputs = {key: value for key, value in resource.inputs.items() if value is not None}
        return aws.create(resource.type, resource.urn, inputs)

    run_program(program, config={"aws:region": REGION}, dry_run=False, create=create, invoke=aws.invoke)


def as_caller(account: Cloud, credentials: dict[str, str]) -> None:
    """From now on all calls are made with these credentials."""
    account.ec2, account.iam, account.ssm, account.elb = (
        boto3.client(name, REGION, **credentials) for name in ("ec2", "iam", "ssm", "elbv2")
    )


# --- the account ---


def test_a_free_plan_launches_its_own_types_only() -> None:
    with account() as aws:
        aws.refusals.free_plan = True
        build(aws, lab(machines={"instanceType": "m7i-flex.large"}))
        with pytest.raises(ProgramError, match=r"InvalidParameterCombination.*not eligible for Free Tier"):
            build(aws, lab())


@pytest.mark.parametrize("quota", [6, 5])
def test_the_quota_counts_the_vcpu_of_each_type(quota: int) -> None:
    """Three t3.large want 6."""
    three = lab([*NODES, W2])
    with account() as aws:
        aws.refusals.vcpu_quota = quota
        if quota == 6:
            build(aws, three)
        else:
            with pytest.raises(ProgramError, match=r"VcpuLimitExceeded.*current vCPU limit of 5"):
                build(aws, three)


LINKED = {
    "spot": (lab(machines={"spot": True}), r"AuthFailure\.ServiceLinkedRoleCreationNotPermitted"),
    "balancer": (lab(HA), "iam:CreateServiceLinkedRole"),
    "nat": (lab(machines={"workerAccess": "InstanceConnect"}), "iam:CreateServiceLinkedRole"),
}


@pytest.mark.parametrize("need", LINKED)
def test_a_new_account_gets_its_service_linked_roles_only_from_who_may_make_them(need: str) -> None:
    """With the shipped policy a lab of this kind comes up in a new account (tests/policy/test_iam.py)."""
    wanted, refused = LINKED[need]
    with account() as aws, enforced(without(policy("up"), "MakeLinkedRoles")) as credentials:
        as_caller(aws.cloud, credentials)
        with pytest.raises(ProgramError, match=refused):
            build(aws, wanted)


def test_a_role_that_is_there_needs_no_permission_to_make_it() -> None:
    wanted, _ = LINKED["spot"]
    with account() as aws:
        aws.cloud.iam.create_service_linked_role(AWSServiceName="spot.amazonaws.com")
        with enforced(without(policy("up"), "MakeLinkedRoles")) as credentials:
            as_caller(aws.cloud, credentials)
            build(aws, wanted)


def test_two_people_with_one_stack_name_do_not_share_a_parameter() -> None:
    """Also not with what an `up` left that was killed before the state had the parameter."""
    with account() as aws:
        build(aws, lab())
        build(aws, lab())
    with account() as aws:
        build(aws, lab(), "fixed-parameter-name")
        with pytest.raises(ProgramError, match="ParameterAlreadyExists"):
            build(aws, lab(), "fixed-parameter-name")


# --- the order of steps ---


@NEEDS_CLI
@pytest.mark.timeout(1800)
def test_no_step_takes_the_address_of_a_machine(engine: Engine) -> None:
    """EC2 chooses the addresses of a balancer and of an endpoint, unless the graph does: here as badly as it can."""
    everything = lab(HA, machines={"workerAccess": "InstanceConnect"})
    engine.aws.refusals.coveted = tuple(node["address"] for node in HA)
    for older in ("any-address-for-the-balancer", "endpoint-beside-the-machines"):
        engine.older = older
        assert "InvalidIPAddress.InUse" in engine.refused(everything), older
        engine.destroy()
    engine.older = ""
    engine.up(everything)
    assert set(engine.machines()) == {node["address"] for node in HA}
    engine.destroy()
    assert engine.left() == []


@NEEDS_CLI
@pytest.mark.timeout(1800)
def test_a_network_that_comes_before_the_old_one_goes_is_refused(engine: Engine) -> None:
    """Today's graph makes both changes: tests/machines/test_aws_changes.py."""
    narrow = lab(network={"subnets": {"one": "10.0.1.0/24", "two": "10.0.2.0/25"}})
    other = lab(network={"vpcCidr": "10.0.0.0/17"})
    engine.older = "network-made-first"
    engine.up(lab())
    assert "InvalidSubnet.Conflict" in engine.refused(narrow)
    assert "mapped public address(es)" in engine.refused(other)
    engine.destroy()
    assert engine.left() == []


@NEEDS_CLI
@pytest.mark.timeout(1800)
def test_a_one_time_spot_machine_is_neither_stopped_nor_turned(engine: Engine) -> None:
    """`up` refuses both changes on a live lab; the graph and EC2 are as they say."""
    spot, larger = lab(machines={"spot": True}), lab(machines={"spot": True, "instanceType": "t3.xlarge"})
    engine.up(spot)
    said = engine.refused(larger)
    assert "UnsupportedOperation" in said and "one-time Spot Instance" in said
    assert set(engine.machines().values()) == {"t3.large"}
    found = refused_changes(parse_lab(spot), parse_lab(larger))
    assert [finding.key for finding in found] == ["machines.instanceType"]

    # The graph of today replaces the machines: tests/machines/test_aws_changes.py.
    engine.older = "spot-without-a-trigger"
    assert of(engine.up(lab()), INSTANCE) == [], "the provider sees no change: the machines stay spot"
    assert [finding.key for finding in refused_changes(parse_lab(spot), parse_lab(lab()))] == ["machines.spot"]
    engine.destroy()
    assert engine.left() == []


@NEEDS_CLI
@pytest.mark.timeout(1800)
def test_a_subnet_has_one_route_table_also_after_a_refresh(engine: Engine) -> None:
    """Today's graph: tests/machines/test_aws_changes.py, workerAccess."""
    private = lab(machines={"workerAccess": "InstanceConnect"})
    engine.older = "association-changed-in-place"
    engine.up(lab())
    engine.up(private)
    assert "Resource.AlreadyAssociated" in engine.refused(private, "--refresh")
