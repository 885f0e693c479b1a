"""What a lab on EC2 needs of the account: nothing is made, and every call only reads, or is a dry run.

Quota codes: the Service Quotas console; "Running On-Demand Standard (A, C, D, H, I, M, R, T, Z) instances" and "All
Standard Spot Instance Requests" count vCPU, the others count things.
"""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, ip_address
from typing import Any

from cli.doctor import permissions
from cli.doctor.model import Answer, Check, NotAsked, Once, worst
from components.aws_client import AwsSettings, clients
from components.spec.addresses import has_balancer
from components.spec.images import image_parameter
from components.spec.models import AwsMachines, Lab
from components.spec.rules.machines import placeholders

ADDRESS_URL = "https://checkip.amazonaws.com"
_ADDRESS_TIMEOUT_SECONDS = 5

VCPU = {False: "L-1216C47A", True: "L-34B43A08"}
"""By whether the machines are spot instances."""
ADDRESSES = "L-0263D0A3"
VPCS = "L-F678F1CE"
BALANCERS = "L-69A177A2"
STANDARD = re.compile(r"[acdhimrtz]\d")
"""The families that the two quotas of VCPU count."""
STACK_TAG = "cni-lab:stack"

_RUNNING = ["pending", "running", "stopping", "stopped"]
_NO_ACCESS = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}


@dataclass(frozen=True)
class Account:
    """The account that the stack file and the environment name. `arn`: who asks."""

    client: Callable[[str], Any]
    number: str
    arn: str


def checks(lab: Lab, stack: str, settings: AwsSettings, labs: int = 1) -> list[Check]:
    """Empty for a lab that is not on EC2. `labs`: how many such labs the quotas must have room for."""
    spec = lab.machines
    if not isinstance(spec, AwsMachines):
        return []
    account = Once(partial(_account, settings))
    existing = Once(lambda: _existing(_after(account), stack))
    questions: list[tuple[str, str, bool, Callable[[], Answer]]] = [
        (
            "credentials",
            "Whose credentials are used?",
            True,
            partial(_credentials, account, settings),
        ),
        ("region", "Is the region enabled for this account?", True, partial(_region, account, settings)),
        ("zone", "Does a zone of the region offer the machines?", True, partial(_zone, account, lab, spec)),
        ("image", "Is there an image for the machines?", True, partial(_image, account, spec)),
        ("launch", "May this account launch such a machine?", False, partial(_launch, account, spec, stack)),
        ("vcpu", "Is the vCPU quota large enough?", False, partial(_vcpu, account, existing, lab, spec, labs)),
        ("addresses", "Are there enough public addresses?", False, partial(_addresses, account, lab, stack, labs)),
        ("vpcs", "May one more VPC be made?", False, partial(_vpcs, account, stack, labs)),
        ("linked-roles", "Do the service-linked roles exist?", False, partial(_linked_roles, account, lab, spec)),
        (
            "permissions",
            "May you do everything that up and destroy do?",
            False,
            partial(_permissions, account, settings.region or "", stack),
        ),
        ("operators", "Is your address in machines.operatorCidrs?", False, partial(_operators, lab, spec)),
    ]
    if has_balancer(lab):
        ask = partial(_balancers, account, labs)
        questions.append(("balancers", "May one more load balancer be made?", False, ask))
    return [Check(f"aws.{name}", question, ask, for_preview) for name, question, for_preview, ask in questions]


# --- who and where ---------------------------------------------------------------------------------------------------


def _account(settings: AwsSettings) -> Account:
    client = clients(settings)
    identity = client("sts").get_caller_identity()
    return Account(client, identity["Account"], identity["Arn"])


def _after(account: Once[Account]) -> Account:
    """The account. Raises NotAsked where the check of the credentials reports why there is none."""
    try:
        return account()
    except Exception:
        raise NotAsked from None


def _credentials(account: Once[Account], settings: AwsSettings) -> Answer:
    from botocore.exceptions import ClientError, NoCredentialsError, PartialCredentialsError, ProfileNotFound

    source = settings.account_words or "the environment"
    login = "aws configure, aws sso login, or AWS_PROFILE; or aws:profile in the stack file"
    try:
        found = account()
    except (NoCredentialsError, PartialCredentialsError):
        return Answer("stop", f"no AWS credentials from {source}", login)
    except ProfileNotFound as error:
        return Answer("stop", _line(error), "correct aws:profile or AWS_PROFILE, or: aws configure --profile NAME")
    except ClientError as error:
        return Answer("stop", f"{source}: {_line(error)}", f"renew the credentials: {login}")
    except Exception as error:
        # SSO and credential processes have errors of their own, some of which only say that there is no network.
        fix = f"repeat with a network; if it stays so, renew the credentials: {login}"
        return Answer("unknown", f"{source}: {_line(error)}", fix)
    return Answer("ok", f"{found.arn} from {source}")


def _region(account: Once[Account], settings: AwsSettings) -> Answer:
    found = (
        _after(account)
        .client("ec2")
        .describe_regions(AllRegions=True, Filters=[{"Name": "region-name", "Values": [settings.region or ""]}])[
            "Regions"
        ]
    )
    if not found:
        return Answer("stop", f"AWS has no region {settings.region}", "correct aws:region")
    if found[0].get("OptInStatus") == "not-opted-in":
        command = f"aws account enable-region --region-name {settings.region}"
        return Answer("stop", f"{settings.region} is not enabled in this account", command)
    return Answer("ok", str(settings.region))


def _zone(account: Once[Account], lab: Lab, spec: AwsMachines) -> Answer:
    """As components/machines/aws/network.py chooses: a zone of the region itself, and those of network.zones."""
    ec2 = _after(account).client("ec2")
    offers = ec2.describe_instance_type_offerings(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": [spec.instance_type]}]
    )["InstanceTypeOfferings"]
    zones = {zone["ZoneName"]: zone for zone in ec2.describe_availability_zones()["AvailabilityZones"]}
    own = {name for name, zone in zones.items() if zone.get("ZoneType", "availability-zone") == "availability-zone"}
    offering = sorted(own & {offer["Location"] for offer in offers})
    if not offering:
        return Answer(
            "stop", f"no zone offers {spec.instance_type}", "write another machines.instanceType or aws:region"
        )
    answers = [
        Answer("stop", f"{zone} does not offer {spec.instance_type}", f"write one of {', '.join(offering)}")
        for zone in lab.network.zones.values()
        if zone not in offering
    ]
    return worst(answers, ", ".join(offering))


def _image(account: Once[Account], spec: AwsMachines) -> Answer:
    client = _after(account).client
    image = spec.image or _current_image(client, spec)
    found = client("ec2").describe_images(ImageIds=[image])["Images"]
    if not found:
        return Answer("stop", f"this account cannot see {image}", "write an AMI of this region, or machines.system")
    return Answer("ok", f"{image} {found[0].get('Name', '')}".strip())


def _current_image(client: Callable[[str], Any], spec: AwsMachines) -> str:
    return str(client("ssm").get_parameter(Name=image_parameter(spec))["Parameter"]["Value"])


# --- what may be launched --------------------------------------------------------------------------------------------


def _launch(account: Once[Account], spec: AwsMachines, stack: str) -> Answer:
    """RunInstances as a dry run: EC2 checks the permission, the image, the type, and what the account's plan allows."""
    from botocore.exceptions import ClientError

    client = _after(account).client
    tags = [{"Key": STACK_TAG, "Value": stack}]
    spot: dict[str, Any] = {"InstanceMarketOptions": {"MarketType": "spot"}} if spec.spot else {}
    try:
        client("ec2").run_instances(
            DryRun=True,
            ImageId=spec.image or _current_image(client, spec),
            InstanceType=spec.instance_type,
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
            **spot,
        )
    except ClientError as error:
        return _launch_answer(error, spec)
    return Answer("unknown", "EC2 did not answer the dry run as documented", "repeat with ./lab up STACK --skip-doctor")


def _launch_answer(error: Any, spec: AwsMachines) -> Answer:
    code, message = error.response["Error"]["Code"], _line(error)
    if code == "DryRunOperation":
        return Answer("ok", f"{spec.instance_type}{' as spot' if spec.spot else ''}")
    if "free tier" in message.lower() or "free plan" in message.lower():
        fix = "write machines.instanceType: m7i-flex.large or c7i-flex.large, or upgrade the account's plan"
        return Answer("stop", f"the account's Free plan does not allow {spec.instance_type}", fix)
    if code == "UnauthorizedOperation":
        return Answer("stop", "you may not launch instances here", permissions.FIX)
    if code in ("VPCIdNotSpecified", "MissingInput", "DefaultVpcDoesNotExist"):
        # Without a default VPC the dry run has no subnet. The permission was checked before.
        return Answer("ok", f"{spec.instance_type}, as far as it can be asked without a default VPC")
    if code in ("Unsupported", "InvalidParameterCombination", "InvalidParameterValue", "OptInRequired", "Blocked"):
        return Answer("stop", message, "write another machines.instanceType, or do what AWS asks for")
    return Answer("unknown", message, "read AWS's message; up may meet it too")


# --- quotas ----------------------------------------------------------------------------------------------------------


def _existing(account: Account, stack: str) -> list[Mapping[str, Any]]:
    """The instances of the region that count, those of this lab among them."""
    pages = (
        account.client("ec2")
        .get_paginator("describe_instances")
        .paginate(Filters=[{"Name": "instance-state-name", "Values": _RUNNING}])
    )
    found = [i for page in pages for reservation in page["Reservations"] for i in reservation["Instances"]]
    return [{**instance, "ours": _tag(instance, STACK_TAG) == stack} for instance in found]


def _tag(thing: Mapping[str, Any], key: str) -> str | None:
    return next((tag["Value"] for tag in thing.get("Tags", ()) if tag["Key"] == key), None)


def _quota(account: Account, service: str, code: str) -> float | None:
    """The quota's value in this region: the account's own, else AWS's default. None where neither can be read."""
    from botocore.exceptions import ClientError

    quotas = account.client("service-quotas")
    for read in (quotas.get_service_quota, quotas.get_aws_default_service_quota):
        with suppress(ClientError):
            return float(read(ServiceCode=service, QuotaCode=code)["Quota"]["Value"])
    return None


def _who(labs: int) -> str:
    return "the lab needs" if labs == 1 else f"{labs} labs need"


def _within(account: Account, service: str, code: str, used: int, need: int, what: str, labs: int) -> Answer:
    if need <= 0:
        return Answer("ok", "the lab has them already")
    limit = _quota(account, service, code)
    if limit is None:
        fix = f"allow servicequotas:GetServiceQuota, or look up the quota {code} of {service} yourself"
        return Answer("unknown", f"{_who(labs)} {need} more {what}; the quota {code} cannot be read", fix)
    seen = f"{used} of {limit:g} {what} in use, and {_who(labs)} {need} more"
    if used + need > limit:
        increase = (
            f"aws service-quotas request-service-quota-increase --service-code {service} --quota-code {code} "
            f"--desired-value {used + need}"
        )
        return Answer("stop", seen, f"{increase}; or make {'the lab smaller' if labs == 1 else 'fewer labs here'}")
    return Answer("ok", seen)


def _vcpu(
    account: Once[Account], existing: Once[list[Mapping[str, Any]]], lab: Lab, spec: AwsMachines, labs: int
) -> Answer:
    """Also for a larger type of machines that run already."""
    here = _after(account)
    if not STANDARD.match(spec.instance_type):
        fix = "look its quota up in the Service Quotas console"
        return Answer("unknown", f"{spec.instance_type} has a quota of its own, which is not known here", fix)
    counted = [
        instance
        for instance in existing()
        if STANDARD.match(instance["InstanceType"])
        and instance["State"]["Name"] in ("pending", "running")
        and (instance.get("InstanceLifecycle") == "spot") == spec.spot
    ]
    used = sum(_vcpu_of_instance(instance) for instance in counted)
    own = [instance["InstanceType"] for instance in counted if instance["ours"]]
    asked = sorted({spec.instance_type, *own})
    types = here.client("ec2").describe_instance_types(InstanceTypes=asked)["InstanceTypes"]
    vcpu = {found["InstanceType"]: int(found["VCpuInfo"]["DefaultVCpus"]) for found in types}
    need = labs * len(lab.nodes) * vcpu[spec.instance_type] - sum(vcpu[kind] for kind in own)
    kind = "vCPU for spot" if spec.spot else "vCPU"
    return _within(here, "ec2", VCPU[spec.spot], used, need, kind, labs)


def _vcpu_of_instance(instance: Mapping[str, Any]) -> int:
    options = instance.get("CpuOptions") or {}
    return int(options.get("CoreCount", 1)) * int(options.get("ThreadsPerCore", 1))


def _addresses(account: Once[Account], lab: Lab, stack: str, labs: int) -> Answer:
    """Elastic addresses: the API's, and the NAT gateway's. A machine's own public address has no quota."""
    here = _after(account)
    found = here.client("ec2").describe_addresses()["Addresses"]
    ours = sum(_tag(address, STACK_TAG) == stack for address in found)
    wanted = labs * (2 if lab.private_workers else 1)
    return _within(here, "ec2", ADDRESSES, len(found), wanted - ours, "Elastic addresses", labs)


def _vpcs(account: Once[Account], stack: str, labs: int) -> Answer:
    here = _after(account)
    found = here.client("ec2").describe_vpcs()["Vpcs"]
    ours = any(_tag(vpc, STACK_TAG) == stack for vpc in found)
    return _within(here, "vpc", VPCS, len(found), labs - ours, "VPCs", labs)


def _balancers(account: Once[Account], labs: int) -> Answer:
    here = _after(account)
    found = here.client("elbv2").describe_load_balancers()["LoadBalancers"]
    networks = sum(balancer["Type"] == "network" for balancer in found)
    return _within(here, "elasticloadbalancing", BALANCERS, networks, labs, "network load balancers", labs)


# --- IAM -------------------------------------------------------------------------------------------------------------


def linked_roles(lab: Lab, spec: AwsMachines) -> Iterator[tuple[str, str]]:
    """The service-linked roles that AWS's services use for this lab: the role's name, and its service."""
    if spec.spot:
        yield "AWSServiceRoleForEC2Spot", "spot.amazonaws.com"
    if has_balancer(lab):
        yield "AWSServiceRoleForElasticLoadBalancing", "elasticloadbalancing.amazonaws.com"
    if lab.private_workers:
        yield "AWSServiceRoleForNATGateway", "nat-gateway.amazonaws.com"
        yield "AWSServiceRoleForEc2InstanceConnect", "ec2-instance-connect.amazonaws.com"


def _linked_roles(account: Once[Account], lab: Lab, spec: AwsMachines) -> Answer:
    """A missing one is made by the service itself, if the caller may do that: in a new account nobody has yet."""
    from botocore.exceptions import ClientError

    iam = _after(account).client("iam")
    wanted = list(linked_roles(lab, spec))
    missing = []
    for role, service in wanted:
        try:
            iam.get_role(RoleName=role)
        except ClientError as error:
            code = error.response["Error"]["Code"]
            if code in _NO_ACCESS:
                fix = f"aws iam create-service-linked-role --aws-service-name {service}"
                return Answer("unknown", f"you may not look for {role}", f"if up misses it: {fix}")
            if code != "NoSuchEntity":
                raise
            missing.append((role, service))
    answers = [
        Answer("warn", f"{role} is not there yet", f"aws iam create-service-linked-role --aws-service-name {service}")
        for role, service in missing
    ]
    return worst(answers, ", ".join(role for role, _ in wanted) or "the lab needs none")


def _permissions(account: Once[Account], region: str, stack: str) -> Answer:
    here = _after(account)
    return permissions.answer(here.client("iam"), here.arn, here.number, region, stack)


# --- the way in ------------------------------------------------------------------------------------------------------


def _operators(lab: Lab, spec: AwsMachines) -> Answer:
    examples = [Answer("stop", f"{finding.value} {finding.problem}", finding.fix) for finding in placeholders(lab)]
    if examples:
        return worst(examples, "")
    try:
        own = public_address()
    except (OSError, ValueError) as error:
        fix = "compare machines.operatorCidrs with your own public address"
        return Answer("unknown", f"{ADDRESS_URL} does not say your public address: {_line(error)}", fix)
    if not any(own in cidr for cidr in spec.operator_cidrs):
        listed = ", ".join(map(str, spec.operator_cidrs))
        return Answer(
            "warn", f"your public address {own} is not in {listed}", f"add {own}/32 to machines.operatorCidrs"
        )
    return Answer("ok", str(own))


def public_address() -> IPv4Address:
    """This computer's address as AWS sees it. Raises OSError, or ValueError for an answer that is no address."""
    with urllib.request.urlopen(ADDRESS_URL, timeout=_ADDRESS_TIMEOUT_SECONDS) as answer:
        found = ip_address(answer.read(64).decode("ascii", "replace").strip())
    if not isinstance(found, IPv4Address):
        raise ValueError(f"{found} is not an IPv4 address")
    return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
