"""EC2 machines: the graph is executed against moto, then EC2, IAM and Parameter Store are read."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.machines.aws import instances as instances_module
from components.machines.aws.instances import FIRST_BOOT, user_data
from components.spec.models import AwsMachines
from engine.model import Deployment, ProgramError, Registration
from tests.support.aws_labs import INSTANCE, TAGS, aws_lab, deploy, of_type
from tests.support.moto_ec2 import Cloud, Made, cloud

NAMES = {"10.0.1.100": "ip1001100", "10.0.2.200": "ip-10-0-2-200", "10.0.2.201": "ip-10-0-2-201"}


@pytest.fixture
def standing() -> Iterator[tuple[Cloud, Deployment]]:
    """The default lab after an up, for tests that change nothing."""
    with cloud() as aws:
        yield aws, deploy(aws_lab(), aws)[0]


def instances(aws: Cloud) -> dict[str, Any]:
    """The instances by private address."""
    reservations = aws.ec2.describe_instances()["Reservations"]
    return {i["PrivateIpAddress"]: i for r in reservations for i in r["Instances"]}


def text_of_user_data(aws: Cloud, instance: Any) -> str:
    found = aws.ec2.describe_instance_attribute(InstanceId=instance["InstanceId"], Attribute="userData")
    return base64.b64decode(found["UserData"]["Value"]).decode()


def parameters(aws: Cloud, folder: str) -> list[Any]:
    found: list[Any] = aws.ssm.get_parameters_by_path(Path=folder, WithDecryption=True)["Parameters"]
    return found


def private_keys(aws: Cloud) -> list[str]:
    return [made[1]["privateKeyOpenssh"] for urn, made in aws.made.items() if "tls:index/privateKey" in urn]


def test_three_machines_match_the_stack_file() -> None:
    with cloud() as aws:
        deploy(aws_lab({"volumeSize": 44}), aws)
        found = instances(aws)
        assert set(found) == set(NAMES)
        for address, instance in found.items():
            assert instance["SourceDestCheck"] is False
            options = instance["MetadataOptions"]
            assert (options["HttpTokens"], options["HttpPutResponseHopLimit"]) == ("required", 1)
            assert instance["InstanceType"] == "t3.large"
            assert {"Key": "Name", "Value": f"machines-{NAMES[address]}"} in instance["Tags"]
            assert {"Key": "cni-lab:stack", "Value": "test"} in instance["Tags"]
            volume = instance["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]
            disk = aws.ec2.describe_volumes(VolumeIds=[volume])["Volumes"][0]
            assert (disk["Encrypted"], disk["VolumeType"], disk["Size"]) == (True, "gp3", 44)
            assert {"Key": "cni-lab:stack", "Value": "test"} in disk["Tags"]


def test_security_groups_by_role(standing: tuple[Cloud, Deployment]) -> None:
    aws, _ = standing
    groups = {
        g["GroupId"]: tag["Value"]
        for g in aws.ec2.describe_security_groups()["SecurityGroups"]
        for tag in g.get("Tags", [])
        if tag["Key"] == "Name"
    }
    found = {
        NAMES[address]: {groups[g["GroupId"]] for g in instance["NetworkInterfaces"][0]["Groups"]}
        for address, instance in instances(aws).items()
    }
    assert found["ip1001100"] == {"network-nodes", "network-control-plane"}
    assert found["ip-10-0-2-200"] == found["ip-10-0-2-201"] == {"network-nodes"}


def test_the_fixed_address_leads_to_the_first_control_plane(standing: tuple[Cloud, Deployment]) -> None:
    aws, made = standing
    (address,) = aws.ec2.describe_addresses()["Addresses"]
    assert address["InstanceId"] == instances(aws)["10.0.1.100"]["InstanceId"]
    connections = made.outputs["connections"]
    assert connections["ip1001100"]["host"] == made.outputs["apiHosts"]["ip1001100"] == address["PublicIp"]
    assert "proxy" not in connections["ip1001100"]
    for worker, private in [("ip-10-0-2-200", "10.0.2.200"), ("ip-10-0-2-201", "10.0.2.201")]:
        assert connections[worker]["host"] == private
        assert connections[worker]["proxy"]["host"] == address["PublicIp"]
        assert connections[worker]["proxy"]["host_key"] == connections["ip1001100"]["host_key"]


def test_every_connection_pins_a_host_key_and_waits_for_the_boot(standing: tuple[Cloud, Deployment]) -> None:
    aws, made = standing
    keys = set()
    for name, connection in made.outputs["connections"].items():
        stored = aws.made[next(urn for urn in aws.made if urn.endswith(f"::machines-{name}-host"))][1]
        assert connection["host_key"] == stored["publicKeyOpenssh"].strip()
        assert connection["private_key"] == "<secret>"
        assert (connection["dial_error_limit"], connection["per_dial_timeout"]) == (90, 15)
        keys.add(connection["host_key"])
    assert len(keys) == 3


def test_private_host_keys_are_in_parameter_store_only(standing: tuple[Cloud, Deployment]) -> None:
    aws, made = standing
    keys = private_keys(aws)
    assert len(keys) == 4
    for urn, inputs in aws.inputs.items():
        text = json.dumps(inputs)
        holds = [key for key in keys if json.dumps(key)[1:-1] in text]
        assert len(holds) == ("aws:ssm/parameter" in urn), urn
    for parameter in of_type(made, "aws:ssm/parameter:Parameter"):
        assert parameter.inputs["value"] == "<secret>"
    for instance in instances(aws).values():
        text = text_of_user_data(aws, instance)
        assert "PRIVATE KEY" not in text
        assert len(text.encode()) < 16384, "the limit of EC2"
    for name in NAMES.values():
        folder = f"/cni-lab/test/{name}/ssh-host-key"
        (held,) = parameters(aws, folder)
        assert held["Type"] == "SecureString" and held["Value"] in keys
        assert json.dumps(folder) in text_of_user_data(aws, instances(aws)[{v: k for k, v in NAMES.items()}[name]])


def test_a_machine_may_read_only_its_own_parameter(standing: tuple[Cloud, Deployment]) -> None:
    aws, _ = standing
    seen = set()
    for address, instance in instances(aws).items():
        profile = instance["IamInstanceProfile"]["Arn"].split("/")[-1]
        (role,) = aws.iam.get_instance_profile(InstanceProfileName=profile)["InstanceProfile"]["Roles"]
        assert role["AssumeRolePolicyDocument"]["Statement"] == [
            {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": "ec2.amazonaws.com"}}
        ]
        assert aws.iam.list_attached_role_policies(RoleName=role["RoleName"])["AttachedPolicies"] == []
        (name,) = aws.iam.list_role_policies(RoleName=role["RoleName"])["PolicyNames"]
        policy = aws.iam.get_role_policy(RoleName=role["RoleName"], PolicyName=name)["PolicyDocument"]
        (parameter,) = parameters(aws, f"/cni-lab/test/{NAMES[address]}/ssh-host-key")
        # First boot knows the name of its role, and so of its parameter.
        assert parameter["Name"].rpartition("/")[2] == role["RoleName"]
        arn = parameter["ARN"]
        assert policy["Statement"] == [{"Effect": "Allow", "Action": "ssm:GetParameter", "Resource": arn}]
        seen.add(arn)
    assert len(seen) == 3


def test_two_labs_of_one_name_share_no_parameter() -> None:
    """Two people in one account, each with a state of their own: the second `up` met ParameterAlreadyExists."""
    with cloud() as aws:
        deploy(aws_lab(), aws)
        first = {each["Name"]: each["Value"] for name in NAMES.values() for each in
                 parameters(aws, f"/cni-lab/test/{name}/ssh-host-key")}  # fmt: skip
        aws.made.clear()
        deploy(aws_lab(network={"vpcCidr": "10.0.0.0/16"}), aws)
        for name in NAMES.values():
            found = {each["Name"]: each["Value"] for each in parameters(aws, f"/cni-lab/test/{name}/ssh-host-key")}
            assert len(found) == 2 and len(found.items() & first.items()) == 1


def test_an_up_that_was_killed_after_a_parameter_was_made_can_be_repeated() -> None:
    """The parameter exists, and the state does not have it: the next `up` makes it again."""
    with cloud() as aws:
        put = aws._parameter

        def put_twice(rest: dict[str, Any]) -> Any:
            put(dict(rest))
            return put(rest)

        aws._handlers["aws:ssm/parameter:Parameter"] = put_twice
        deploy(aws_lab(), aws)
        assert len(parameters(aws, "/cni-lab/test/ip1001100/ssh-host-key")) == 1


def test_the_policy_sees_the_user_data_before_anything_is_made() -> None:
    made, _ = deploy(aws_lab())
    for instance in of_type(made, INSTANCE):
        assert instance.inputs["userData"].startswith("#cloud-config"), "not unknown"


def test_a_machine_starts_only_when_it_can_fetch_its_key() -> None:
    made, _ = deploy(aws_lab())
    for instance in of_type(made, INSTANCE):
        node = instance.name.removeprefix("machines-")
        subnet = "control" if node == "ip1001100" else "workers"
        urns = {urn.split("::")[-2].split("$")[-1] + " " + urn.split("::")[-1] for urn in instance.dependencies}
        assert f"aws:iam/rolePolicy:RolePolicy {instance.name}" in urns
        assert f"aws:ec2/routeTableAssociation:RouteTableAssociation network-{subnet}" in urns
        # Machines start in parallel, and none waits for the fixed address.
        assert not any("aws:ec2/instance" in urn or "aws:ec2/eip" in urn for urn in urns)


@pytest.mark.parametrize(
    ("image", "ignored"),
    [
        (None, {"associatePublicIpAddress", "userData", "ami"}),
        ("ami-0123456789abcdef0", {"associatePublicIpAddress", "userData"}),
    ],
)
def test_a_newer_default_image_replaces_no_machine(image: str | None, ignored: set[str]) -> None:
    for instance in of_type(deploy(aws_lab({"image": image}))[0], INSTANCE):
        assert set(instance.ignore_changes) == ignored
        assert instance.inputs["ami"] == (image or "<known after up>")


def test_the_default_image_is_canonicals_current_one() -> None:
    asked: list[str] = []
    with cloud() as aws:
        answer = aws.invoke

        def invoke(token: str, args: dict[str, Any]) -> dict[str, Any]:
            asked.append(args.get("name", ""))
            return answer(token, args)

        aws.invoke = invoke  # type: ignore[method-assign]
        deploy(aws_lab(), aws)
        assert {i["ImageId"] for i in instances(aws).values()} == {aws.image}
    name = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
    assert [a for a in asked if a] == [name]


@pytest.mark.parametrize(
    ("machines", "tail"),
    [
        ({"system": "ubuntu-26.04"}, "26.04/stable/current/amd64/hvm/ebs-gp3/ami-id"),
        ({"system": "ubuntu-22.04"}, "22.04/stable/current/amd64/hvm/ebs-gp2/ami-id"),
        ({"instanceType": "t4g.large"}, "24.04/stable/current/arm64/hvm/ebs-gp3/ami-id"),
    ],
)
def test_the_image_is_chosen_by_a_word(machines: dict[str, Any], tail: str) -> None:
    asked: list[str] = []
    with cloud() as aws:
        answer = aws.invoke

        def invoke(token: str, args: dict[str, Any]) -> dict[str, Any]:
            asked.append(args.get("name", ""))
            return answer(token, args)

        aws.invoke = invoke  # type: ignore[method-assign]
        deploy(aws_lab(machines), aws)
    assert [a for a in asked if a] == [f"/aws/service/canonical/ubuntu/server/{tail}"]


def test_a_new_host_key_replaces_its_machine_after_deleting_the_old_one() -> None:
    made, _ = deploy(aws_lab())
    by_urn = {r.urn: r for r in made.resources}
    for instance in of_type(made, INSTANCE):
        assert instance.delete_before_replace is True
        assert instance.inputs["userDataReplaceOnChange"] is True
        assert instance.inputs["disableApiTermination"] is False
        assert [by_urn[urn].name for urn in instance.replace_with] == [f"{instance.name}-host"]


def test_another_first_boot_program_changes_no_live_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new version of this project must not replace the machines of every lab that stands."""
    before = of_type(deploy(aws_lab())[0], INSTANCE)
    changed = tmp_path / "first_boot.py"
    changed.write_text(FIRST_BOOT.read_text() + "# one line more\n")
    monkeypatch.setattr(instances_module, "FIRST_BOOT", changed)
    after = of_type(deploy(aws_lab())[0], INSTANCE)
    assert len(after) == 3
    for old, new in zip(before, after, strict=True):
        differing = {key for key in old.inputs.keys() | new.inputs if old.inputs.get(key) != new.inputs.get(key)}
        assert differing == {"userData"}
        assert differing <= set(new.ignore_changes)


def test_spot_is_an_option() -> None:
    for spot in (True, False):
        for instance in of_type(deploy(aws_lab({"spot": spot}))[0], INSTANCE):
            options = instance.inputs.get("instanceMarketOptions")
            assert (options or {}).get("marketType") == ("spot" if spot else None)


def test_a_change_of_spot_replaces_every_machine_of_a_lab() -> None:
    """The provider takes an absent `instanceMarketOptions` for no change, so the host keys carry the trigger."""
    for spot in (True, False):
        made, _ = deploy(aws_lab({"spot": spot}))
        by_urn = {r.urn: r for r in made.resources}
        machines = of_type(made, INSTANCE)
        assert len(machines) == 3
        for machine in machines:
            assert [by_urn[urn].replacement_trigger for urn in machine.replace_with] == [spot]
            # In the state of labs made earlier: with another value an update would replace live workers.
            assert machine.replacement_trigger == (None if machine.name == "machines-ip1001100" else "Public")


def test_every_machine_has_a_public_address_from_its_launch() -> None:
    """If `up` fails before the fixed address is associated, the first control plane still reaches Parameter Store."""
    with cloud() as aws:
        create = aws.create

        def until_the_fixed_address(resource: Registration) -> Made:
            if resource.type == "aws:ec2/eipAssociation:EipAssociation":
                raise RuntimeError("AddressLimitExceeded")
            return create(resource)

        aws.create = until_the_fixed_address  # type: ignore[method-assign]
        with pytest.raises(ProgramError, match="AddressLimitExceeded"):
            deploy(aws_lab(), aws)
        found = instances(aws)
        assert "10.0.1.100" in found
        assert all("PublicIpAddress" in instance for instance in found.values())


def test_private_workers_have_no_public_address_and_the_same_jump_host() -> None:
    with cloud() as aws:
        made, _ = deploy(aws_lab({"workerAccess": "InstanceConnect"}), aws)
        workers = {i.name: i for i in of_type(made, INSTANCE) if i.name != "machines-ip1001100"}
        for name, worker in workers.items():
            assert worker.inputs["associatePublicIpAddress"] is False
            # Its first boot already needs a route to the internet.
            routed = [urn for urn in worker.dependencies if urn.endswith("::network-workers")]
            assert any("routeTableAssociation" in urn for urn in routed), name
        found = instances(aws)
        assert not any("PublicIpAddress" in found[address] for address in ("10.0.2.200", "10.0.2.201"))
        connections, public = made.outputs["connections"], made.outputs["apiHosts"]["ip1001100"]
        for worker in ("ip-10-0-2-200", "ip-10-0-2-201"):
            assert connections[worker]["proxy"]["host"] == public
            assert connections[worker]["proxy"]["host_key"] == connections["ip1001100"]["host_key"]


def test_workers_listed_before_the_control_plane_use_it_as_jump_host() -> None:
    nodes = [
        {"name": "w" * 63, "subnet": "workers", "address": "10.0.2.7"},
        {"name": "cp2", "role": "control-plane", "subnet": "control", "address": "10.0.1.8"},
        {"name": "cp1", "role": "control-plane", "subnet": "control", "address": "10.0.1.7"},
        {"name": "cp0", "role": "control-plane", "subnet": "control", "address": "10.0.1.6"},
    ]
    with cloud() as aws:
        made, machines = deploy(aws_lab(nodes=nodes), aws)
        assert list(machines) == ["w" * 63, "cp2", "cp1", "cp0"]
        (address,) = aws.ec2.describe_addresses()["Addresses"]
        proxies = {n: c.get("proxy", {}).get("host") for n, c in made.outputs["connections"].items()}
        assert proxies == {"cp2": None, **dict.fromkeys(["w" * 63, "cp1", "cp0"], address["PublicIp"])}


def test_every_resource_that_can_have_tags_has_them() -> None:
    made, _ = deploy(aws_lab())
    for resource in made.resources:
        if resource.type.startswith("aws:") and not resource.type.endswith(("Association", ":RolePolicy")):
            assert resource.inputs["tags"].items() >= TAGS.items(), resource.urn
            assert "Name" in resource.inputs["tags"], resource.urn


def test_preview_and_up_have_the_same_graph() -> None:
    with cloud() as aws:
        up, _ = deploy(aws_lab(), aws)
    preview, _ = deploy(aws_lab())
    assert {r.urn: r.dependencies for r in up.resources} == {r.urn: r.dependencies for r in preview.resources}


def test_user_data_is_a_cloud_config_that_generates_no_host_keys() -> None:
    config = yaml.safe_load(user_data("123", "/cni-lab/test/123/ssh-host-key"))
    assert config["hostname"] == "123"
    assert config["ssh_deletekeys"] is False and config["ssh_keys"] == {}
    ((interpreter, flag, program, parameter),) = config["bootcmd"]
    assert (interpreter, flag, parameter) == ("python3", "-c", "/cni-lab/test/123/ssh-host-key")
    compile(program, "first_boot", "exec")


@pytest.mark.parametrize(
    ("instance_type", "architecture"),
    [
        *((name, "arm64") for name in ("a1.large", "t4g.small", "c7gn.large", "im4gn.large", "g5g.xlarge")),
        *((name, "amd64") for name in ("t3.large", "g4dn.xlarge", "g6.xlarge", "m7i-flex.large", "x2iedn.xlarge")),
    ],
)
def test_the_architecture_follows_from_the_instance_type(instance_type: str, architecture: str) -> None:
    machines = aws_lab({"instanceType": instance_type}).machines
    assert isinstance(machines, AwsMachines) and machines.architecture == architecture
