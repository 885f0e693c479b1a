"""The sweep, on moto: a whole lab is created and its state lost, so that only its tags decide."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from moto import mock_aws

from cli.reap import sweep as module
from cli.reap.account import Account, Present
from cli.reap.sweep import Sweep, SweepError, sweep
from components.aws_client import AwsSettings
from components.machines.aws import Balancer, BalancerArgs, Instances, InstancesArgs, Network, NetworkArgs
from engine.run import run_program
from tests.support.aws_labs import aws_lab
from tests.support.moto_ec2 import REGION, Cloud, cloud

NOW = datetime.now(UTC)
LATER = NOW + timedelta(hours=5)
TAGS = {"cni-lab:stack": "nightly", "cni-lab:owner": "me", "cni-lab:ttl-hours": "4"}


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 3.0)
    with cloud() as made:
        yield made


def make(aws: Cloud, tags: dict[str, str] = TAGS) -> None:
    """A lab with a load balancer. All of its resources have the tags."""
    lab = aws_lab()

    def program() -> None:
        network = Network("network", NetworkArgs(lab, tags))
        machines = Instances("machines", InstancesArgs(lab, network, tags["cni-lab:stack"], tags)).machines
        Balancer("api", BalancerArgs(network, list(machines.values()), "10.0.1.254", tags))

    run_program(
        program, stack="test", config={"aws:region": REGION}, dry_run=False, create=aws.create, invoke=aws.invoke
    )


def make_small(aws: Cloud, tags: dict[str, str] = TAGS) -> str:
    """A VPC with a subnet, an instance in it, and a role; returns the id of the VPC."""
    listed: Any = [{"Key": key, "Value": value} for key, value in tags.items()]
    vpc = str(aws.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"])
    subnet = aws.ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.1.0/24")["Subnet"]["SubnetId"]
    made = aws.ec2.run_instances(ImageId=aws.image, SubnetId=subnet, MinCount=1, MaxCount=1)["Instances"][0]
    aws.ec2.create_tags(Resources=[vpc, subnet, made["InstanceId"]], Tags=listed)
    aws.iam.create_role(RoleName="cni-lab-one-0", AssumeRolePolicyDocument="{}", Tags=listed)
    return vpc


def left(aws: Cloud) -> dict[str, int]:
    """The number of things by kind, without those that every account has."""
    states = [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
    ec2: Any = aws.ec2
    found = {
        "instances": sum(len(r["Instances"]) for r in ec2.describe_instances(Filters=states)["Reservations"]),
        "vpcs": sum(not vpc["IsDefault"] for vpc in ec2.describe_vpcs()["Vpcs"]),
        "addresses": len(ec2.describe_addresses()["Addresses"]),
        "volumes": len(ec2.describe_volumes()["Volumes"]),
        "keys": len(ec2.describe_key_pairs()["KeyPairs"]),
        "balancers": len(aws.elb.describe_load_balancers()["LoadBalancers"]),
        "targets": len(aws.elb.describe_target_groups()["TargetGroups"]),
        "parameters": sum(not it["Name"].startswith("/aws/") for it in aws.ssm.describe_parameters()["Parameters"]),
        "profiles": len(aws.iam.list_instance_profiles()["InstanceProfiles"]),
        "roles": len(aws.iam.list_roles()["Roles"]),
        "gateways": len(ec2.describe_internet_gateways()["InternetGateways"]),
    }
    return {kind: number for kind, number in found.items() if number}


def run(now: datetime, *known: str, dry_run: bool = False) -> list[Sweep]:
    return sweep(AwsSettings(REGION), now, frozenset(known), dry_run=dry_run)


def test_a_lost_lab_whose_time_is_over_is_deleted_completely(aws: Cloud) -> None:
    before = left(aws)
    make(aws)
    made = left(aws)
    assert made["instances"] == 3 and made["balancers"] == 1 and made["vpcs"] == 1 and made["roles"] == 3
    (found,) = run(LATER)
    assert (found.stack, found.outcome) == ("nightly", "destroyed"), found
    assert "3 instance" in found.why and "1 VPC" in found.why
    assert left(aws) == before
    assert run(LATER) == [], "a second sweep finds nothing"


def test_a_dry_run_of_the_sweep_changes_nothing(aws: Cloud) -> None:
    make_small(aws)
    made = left(aws)
    assert [each.outcome for each in run(LATER, dry_run=True)] == ["would be destroyed"]
    assert left(aws) == made


@pytest.mark.parametrize(
    "tags",
    [
        pytest.param({key: value for key, value in TAGS.items() if "ttl" not in key}, id="not ephemeral"),
        pytest.param(TAGS | {"cni-lab:ttl-hours": "soon"}, id="no number"),
        pytest.param(TAGS | {"cni-lab:ttl-hours": "0"}, id="no time"),
        pytest.param(TAGS | {"cni-lab:ttl-hours": "-4"}, id="negative"),
    ],
)
def test_things_without_both_tags_stay(aws: Cloud, tags: dict[str, str]) -> None:
    make_small(aws, tags)
    made = left(aws)
    assert run(NOW + timedelta(days=900)) == []
    assert left(aws) == made


def test_a_stack_in_the_state_stays(aws: Cloud) -> None:
    make_small(aws)
    made = left(aws)
    assert run(LATER, "nightly") == []
    assert left(aws) == made


def test_the_newest_thing_decides_for_its_stack(aws: Cloud) -> None:
    make_small(aws)
    (found,) = run(NOW + timedelta(hours=3))
    assert found.outcome == "kept" and "until" in found.why
    assert left(aws)["instances"] == 1


def test_things_without_a_creation_time_are_deleted_by_a_later_sweep(aws: Cloud) -> None:
    vpc = aws.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
    address = aws.ec2.allocate_address(Domain="vpc")["AllocationId"]
    aws.ec2.create_tags(Resources=[vpc, address], Tags=[{"Key": key, "Value": value} for key, value in TAGS.items()])
    assert [each.outcome for each in run(LATER, dry_run=True)] == ["kept"]
    assert [each.outcome for each in run(LATER)] == ["kept"]
    (found,) = run(LATER + timedelta(hours=3))
    assert found.outcome == "kept" and "until" in found.why, "its time runs from the first sweep that saw it"
    assert [each.outcome for each in run(LATER + timedelta(hours=4, minutes=1))] == ["destroyed"]
    assert "vpcs" not in left(aws) and "addresses" not in left(aws)


def test_a_thing_that_cannot_be_deleted_is_named_and_the_rest_is_deleted(aws: Cloud) -> None:
    vpc = make_small(aws)
    # A subnet without our tags keeps the VPC.
    other = aws.ec2.create_subnet(VpcId=vpc, CidrBlock="10.0.99.0/24")["Subnet"]["SubnetId"]
    (found,) = run(LATER)
    assert found.outcome == "left behind" and vpc in found.why and "DependencyViolation" in found.why, found
    assert other in [subnet["SubnetId"] for subnet in aws.ec2.describe_subnets()["Subnets"]]
    assert "instances" not in left(aws) and "roles" not in left(aws)


def test_a_refused_deletion_is_not_retried(aws: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 600.0)
    monkeypatch.setattr(module, "PAUSE_SECONDS", 600.0)
    make_small(aws)
    answer = {"Error": {"Code": "AccessDenied", "Message": "not allowed"}}

    real = BaseClient._make_api_call

    def refuse(self: BaseClient, operation: str, arguments: dict[str, Any]) -> Any:
        if operation == "DeleteRole":
            raise ClientError(answer, "DeleteRole")  # type: ignore[arg-type]
        return real(self, operation, arguments)

    monkeypatch.setattr(BaseClient, "_make_api_call", refuse)
    (found,) = run(LATER)
    assert found.outcome == "left behind" and found.why.startswith("1 of 4 ") and "not allowed" in found.why


def test_a_restart_does_not_change_the_age_of_an_instance(aws: Cloud) -> None:
    """LaunchTime changes with each start; the attachment of the first interface does not."""
    account = Account(lambda service: boto3.client(service, REGION))
    early = NOW - timedelta(hours=9)
    instance = {"LaunchTime": NOW, "NetworkInterfaces": [{"Attachment": {"AttachTime": early}}]}

    class Answers:
        def describe_instances(self, **_: object) -> dict[str, Any]:
            return {"Reservations": [{"Instances": [instance]}]}

    account.ec2 = Answers()
    assert account.instance("i-1") == Present(early)


def test_the_gateway_of_private_workers_is_deleted_too(aws: Cloud) -> None:
    listed: Any = [{"Key": key, "Value": value} for key, value in TAGS.items()]
    make_small(aws)
    subnet = next(s["SubnetId"] for s in aws.ec2.describe_subnets()["Subnets"] if s["CidrBlock"] == "10.0.1.0/24")
    address = aws.ec2.allocate_address(Domain="vpc")["AllocationId"]
    gateway = aws.ec2.create_nat_gateway(SubnetId=subnet, AllocationId=address)["NatGateway"]["NatGatewayId"]
    aws.ec2.create_tags(Resources=[address, gateway], Tags=listed)
    (found,) = run(LATER)
    assert found.outcome == "destroyed" and "1 NAT gateway" in found.why and "1 address" in found.why
    assert left(aws) == {}


def test_calls_for_a_connect_endpoint_match_the_api() -> None:
    """moto has no connect endpoints, so botocore's model checks the calls."""
    client = boto3.client("ec2", REGION, aws_access_key_id="a", aws_secret_access_key="b")
    account = Account(lambda service: client if service == "ec2" else None)
    name = "eice-0123456789abcdef0"
    asked = {"InstanceConnectEndpointIds": [name]}
    with Stubber(client) as stub:
        for state in ("create-complete", "delete-in-progress"):
            answer = {"InstanceConnectEndpoints": [{"State": state, "CreatedAt": NOW}]}
            stub.add_response("describe_instance_connect_endpoints", answer, asked)
        stub.add_response("delete_instance_connect_endpoint", {}, {"InstanceConnectEndpointId": name})
        assert account.connect_endpoint(name) == Present(NOW)
        assert account.connect_endpoint(name) is None
        account.delete_connect_endpoint(name)
        stub.assert_no_pending_responses()


def test_tags_of_a_deleted_thing_do_not_stop_the_sweep() -> None:
    """Tags are listed for a while after their thing was deleted; then describing it by its id fails."""
    client = boto3.client("ec2", REGION, aws_access_key_id="a", aws_secret_access_key="b")
    account = Account(lambda service: client if service == "ec2" else None)
    endpoint, address = "eice-0123456789abcdef0", "eipalloc-0123456789abcdef0"
    tags = [
        {"ResourceId": name, "ResourceType": "x", "Key": key, "Value": value}
        for name in (endpoint, address)
        for key, value in TAGS.items()
    ]
    with Stubber(client) as stub:
        stub.add_response("describe_tags", {"Tags": tags})
        stub.add_client_error("describe_instance_connect_endpoints", "InvalidInstanceConnectEndpointId.NotFound")
        stub.add_response("describe_addresses", {"Addresses": [{"AllocationId": address}]})
        assert [thing.id for thing in account.in_ec2()] == [address]
        stub.add_response("describe_tags", {"Tags": tags})
        stub.add_client_error("describe_instance_connect_endpoints", "UnauthorizedOperation")
        with pytest.raises(ClientError, match="UnauthorizedOperation"):
            list(account.in_ec2())


def test_without_credentials_the_region_is_not_swept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boto3.Session, "get_credentials", lambda self: None)
    with pytest.raises(SweepError, match="no AWS credentials") as caught:
        run(LATER)
    assert caught.value.no_credentials


def test_an_error_of_the_account_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with mock_aws():

        def fail(self: object, *_: object, **__: object) -> None:
            raise ClientError({"Error": {"Code": "AuthFailure", "Message": "no such\nkey"}}, "DescribeTags")

        monkeypatch.setattr(Account, "in_ec2", fail)
        with pytest.raises(SweepError) as caught:
            run(LATER)
    assert str(caught.value).startswith("cannot be looked at: ") and "\n" not in str(caught.value)
    assert not caught.value.no_credentials


@pytest.mark.parametrize("region", ["", "us west", "-"])
def test_an_invalid_region_is_one_line(region: str) -> None:
    with mock_aws(), pytest.raises(SweepError, match="cannot be looked at"):
        sweep(AwsSettings(region), LATER, frozenset(), dry_run=True)


def test_an_unknown_profile_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(SweepError, match=r"cannot be looked at: .*nobody"):
        run(LATER)
