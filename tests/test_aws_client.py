"""Which account the commands ask: the one that the stack file or the environment names, as `up` does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError, NoCredentialsError, ProfileNotFound

from cli.lifecycle import power
from cli.live import stack as live
from cli.project import ROOT
from cli.reap import command as reap
from components.aws_client import AwsSettings, BadSetting, Role, clients
from components.spec.load import load_stack_file
from engine.model import Registration
from engine.run import run_program
from engine.simulation import simulate_create, simulate_invoke
from tests.support.moto_ec2 import REGION, mocked_aws

NODES = ("ip1001100", "ip-10-0-2-200", "ip-10-0-2-201")
ROLE = "arn:aws:iam::210987654321:role/labs"


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """moto, and files of profiles in place of the user's own. What a test patches is undone before moto ends."""
    with mocked_aws(), pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.delenv("AWS_PROFILE", raising=False)
        config, credentials = tmp_path / "config", tmp_path / "credentials"
        config.write_text("[profile labs]\nregion = eu-west-1\n")
        credentials.write_text("[labs]\naws_access_key_id = PROFILEKEY\naws_secret_access_key = secret\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
        yield monkeypatch


def key_of(settings: AwsSettings) -> str:
    return str(clients(settings)("ec2")._request_signer._credentials.get_frozen_credentials().access_key)


def test_the_profile_of_the_stack_file_counts_before_the_environment(aws: pytest.MonkeyPatch) -> None:
    aws.setenv("AWS_ACCESS_KEY_ID", "ENVIRONMENTKEY")
    assert key_of(AwsSettings(REGION)) == "ENVIRONMENTKEY"
    assert key_of(AwsSettings(REGION, profile="labs")) == "PROFILEKEY"
    aws.delenv("AWS_ACCESS_KEY_ID")
    aws.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    aws.setenv("AWS_PROFILE", "labs")
    assert key_of(AwsSettings(REGION)) == "PROFILEKEY"
    with pytest.raises(ProfileNotFound, match="others"):
        clients(AwsSettings(REGION, profile="others"))


def test_the_region_of_the_stack_file_counts_before_the_profiles(aws: pytest.MonkeyPatch) -> None:
    assert clients(AwsSettings(REGION, profile="labs"))("ec2").meta.region_name == REGION


def test_roles_are_assumed_one_after_the_other(aws: pytest.MonkeyPatch) -> None:
    second = "arn:aws:iam::111122223333:role/deeper"
    settings = AwsSettings(REGION, roles=(Role(ROLE, "me", "external"), Role(second)))
    assert clients(settings)("sts").get_caller_identity()["Arn"] == (
        "arn:aws:sts::111122223333:assumed-role/deeper/cni-lab"
    )
    one = AwsSettings(REGION, roles=(Role(ROLE, "me"),))
    assert clients(one)("sts").get_caller_identity()["Arn"] == "arn:aws:sts::210987654321:assumed-role/labs/me"


def test_no_credentials_at_all(aws: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        aws.delenv(name, raising=False)
    aws.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for roles in ((), (Role(ROLE),)):
        with pytest.raises(NoCredentialsError):
            clients(AwsSettings(REGION, roles=roles))


def test_the_files_of_the_stack_file(aws: pytest.MonkeyPatch, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("[default]\naws_access_key_id = OWNKEY\naws_secret_access_key = secret\n")
    settings = AwsSettings.of(
        {"aws:region": REGION, "aws:profile": "default", "aws:sharedCredentialsFiles": json.dumps([str(own)])}
    )
    assert key_of(settings) == "OWNKEY"


STACK = f"""\
config:
  aws:region: us-west-2
  aws:profile: labs
  aws:assumeRoles:
    - roleArn: {ROLE}
      externalId: "7"
  cni-lab:lab:
    machines: {{provider: aws, operatorCidrs: [198.18.0.1/32]}}
"""


def test_every_command_gets_the_settings_of_the_stack_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stacks").mkdir()
    path = tmp_path / "stacks" / "Pulumi.mine.yaml"
    path.write_text(STACK)
    wanted = AwsSettings(REGION, profile="labs", roles=(Role(ROLE, "cni-lab", "7"),))
    assert AwsSettings.of(load_stack_file(path).config) == wanted

    monkeypatch.setattr("cli.project.ROOT", tmp_path)
    asked: list[AwsSettings] = []
    monkeypatch.setattr(power, "_switch_instances", lambda verb, stack, aws: (asked.append(aws), ([], []))[1])
    assert power.run("stop", "mine") == 0  # stop, start
    assert asked == [wanted]
    assert reap._accounts() == [wanted]  # reap
    monkeypatch.setattr(live, "outputs", lambda _stack: {"access": {"n": _ACCESS}, "nodes": {}})
    assert live.live("mine").aws == wanted  # verify, walk, break, mend


_ACCESS = {"host": "10.0.0.1", "port": 22, "user": "ubuntu", "privateKey": "k", "hostKey": "ssh-ed25519 A"}


def test_the_checks_of_up_ask_the_same_account() -> None:
    lab = {"machines": {"provider": "aws", "operatorCidrs": ["198.18.0.1/32"]}, "verify": True}
    account = {"aws:profile": "labs", "aws:assumeRoles": json.dumps([{"roleArn": ROLE}])}
    config = {"aws:region": REGION, **account, "cni-lab:lab": json.dumps(lab)}
    given: dict[str, Any] = {}

    def create(resource: Registration) -> Any:
        if resource.name == "lab-verification":
            given.update(json.loads(resource.inputs["stdin"]))
            return "id", {"stdout": "{}"}
        if resource.name.endswith("-calico-blocks"):
            return "id", {"stdout": json.dumps({node: [f"10.244.{i}.0/24"] for i, node in enumerate(NODES)})}
        return simulate_create(resource)

    def invoke(token: str, args: Any) -> Any:
        return {"locations": ["us-west-2a"]} if "Offerings" in token else simulate_invoke(token, args)

    run_program(ROOT / "__main__.py", stack="test", config=config, dry_run=False, create=create, invoke=invoke)
    assert given["account"] == account and given["region"] == REGION
    given.clear()
    del config["aws:profile"], config["aws:assumeRoles"]
    run_program(ROOT / "__main__.py", stack="test", config=config, dry_run=False, create=create, invoke=invoke)
    assert given["region"] == REGION and "account" not in given, "one more key would change every live lab"


@pytest.mark.parametrize(
    ("key", "text"),
    [("assumeRoles", "{}"), ("assumeRoles", "nonsense"), ("assumeRoles", "[{}]"), ("sharedConfigFiles", '["a", "b"]')],
)
def test_a_setting_that_cannot_be_used_names_its_key(key: str, text: str) -> None:
    with pytest.raises(BadSetting, match=rf"^aws:{key}: .* Fix: "):
        AwsSettings.of({f"aws:{key}": text})


def test_a_client_is_in_the_account_that_moto_has_for_the_role(aws: pytest.MonkeyPatch) -> None:
    """What a command makes with the role is not in the caller's own account."""
    clients(AwsSettings(REGION, roles=(Role(ROLE),)))("ec2").create_vpc(CidrBlock="10.9.0.0/16")
    own = boto3.client("ec2", REGION).describe_vpcs()["Vpcs"]
    assert "10.9.0.0/16" not in {vpc["CidrBlock"] for vpc in own}


def test_a_role_that_may_not_be_assumed_is_reported_where_it_is_used(aws: pytest.MonkeyPatch) -> None:
    from moto.sts.responses import TokenResponse

    def refuse(self: object) -> str:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "AssumeRole")

    aws.setattr(TokenResponse, "assume_role", refuse)
    with pytest.raises(ClientError, match="AccessDenied"):
        clients(AwsSettings(REGION, roles=(Role(ROLE),)))("ec2").describe_vpcs()
