"""The rules that every stack keeps to: pure functions of resources' types, names and inputs, without pulumi or a cloud.

`./lab plan` asks them in its own process (check.py), and `__main__.py` serves them to the pulumi engine as a policy
pack. A value that is not known yet is not judged: the engine asks again during `up`, when the value is known and before
the resource is made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from components.spec.names import AWS_MACHINES, LAB, NETWORK
from components.spec.own_yaml import read_yaml
from policy.model import PlannedResource, PolicyRule, Settings
from policy.values import SECRET, UNKNOWN, decoded, is_known, mapping, sequence, shown

PRICES = Path(__file__).resolve().parents[1] / "cli" / "plan" / "prices.yaml"
OWNER_TAGS = ("cni-lab:stack", "cni-lab:owner")
EXPIRY_TAG = "cni-lab:ttl-hours"

INSTANCE = "aws:ec2/instance:Instance"
SPOT = "aws:ec2/spotInstanceRequest:SpotInstanceRequest"
LAUNCH_TEMPLATE = "aws:ec2/launchTemplate:LaunchTemplate"
LAUNCH_CONFIGURATION = "aws:ec2/launchConfiguration:LaunchConfiguration"
INTERFACE = "aws:ec2/networkInterface:NetworkInterface"
MACHINES = frozenset({INSTANCE, SPOT, LAUNCH_TEMPLATE, LAUNCH_CONFIGURATION})

UNTAGGABLE = frozenset(
    {
        LAUNCH_CONFIGURATION,
        "aws:ec2/eipAssociation:EipAssociation",
        "aws:ec2/internetGatewayAttachment:InternetGatewayAttachment",
        "aws:ec2/mainRouteTableAssociation:MainRouteTableAssociation",
        "aws:ec2/networkInterfaceSecurityGroupAttachment:NetworkInterfaceSecurityGroupAttachment",
        "aws:ec2/route:Route",
        "aws:ec2/routeTableAssociation:RouteTableAssociation",
        "aws:ec2/securityGroupRule:SecurityGroupRule",
        "aws:ec2/tag:Tag",
        "aws:ec2/volumeAttachment:VolumeAttachment",
        "aws:ec2/vpcDhcpOptionsAssociation:VpcDhcpOptionsAssociation",
        "aws:iam/rolePolicy:RolePolicy",
        "aws:iam/rolePolicyAttachment:RolePolicyAttachment",
        "aws:lb/targetGroupAttachment:TargetGroupAttachment",
    }
)
"""Types of the aws provider that take no tags. All other types of that provider must have them."""

# Ranges that are not routed on the internet (RFC 1918, 6598, 4193, 4291). `is_private` counts 0.0.0.0/0 among them.
INTERNAL = [
    ip_network(cidr)
    for cidr in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "fe80::/10")
]
# The shortest prefix that is allowed, by IP version. Without it, two halves of the internet would pass.
WIDEST = {4: 8, 6: 32}

SECRETS = {
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY",
    "the key of a kubeconfig": r"client-key-data",
    "an AWS access key": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|aws_secret_access_key\s*[=:]",
    "a kubeadm token": r"(?<![\w.-])[a-z0-9]{6}\.[a-z0-9]{16}(?![\w.-])",
    "kubeadm's certificate key": r"(?i:certificate-?key)\W+[0-9a-f]{64}",
    "a password": r"(?im)^[\s-]*(?:password|passwd|plain_text_passwd|hashed_passwd|chpasswd)\s*:",
    "a GitHub token": r"\bgh[pousr]_[A-Za-z0-9]{36}",
}


def no_open_ingress(resource: PlannedResource, _: Settings) -> Iterator[str]:
    match resource.type:
        case "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule":
            rules: list[Mapping[str, Any]] = [resource.props]
        case "aws:ec2/securityGroupRule:SecurityGroupRule" if resource.props.get("type") == "ingress":
            rules = [resource.props]
        case "aws:ec2/securityGroup:SecurityGroup" | "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup":
            rules = resource.mappings("ingress")
        case _:
            return
    for rule in rules:
        for key in ("cidrIpv4", "cidrIpv6", "cidrBlocks", "ipv6CidrBlocks"):
            for cidr in sequence(rule.get(key)):
                if is_known(cidr) and (problem := _too_open(str(cidr))):
                    yield f"lets {cidr} in ({_traffic(rule)}): {problem}"
        if rule.get("prefixListId") or rule.get("prefixListIds"):
            yield f"lets a prefix list in ({_traffic(rule)}): the addresses in the list cannot be seen here"


def _too_open(cidr: str) -> str | None:
    """What is wrong with a source of traffic. None if nothing is."""
    try:
        network = ip_network(cidr, strict=False)
    except ValueError:
        return "that is not a range of addresses"
    if any(network.version == own.version and network.subnet_of(own) for own in INTERNAL):  # type: ignore[arg-type]
        return None
    if network.prefixlen >= WIDEST[network.version]:
        return None
    return "that is the whole internet" if not network.prefixlen else f"that is wider than /{WIDEST[network.version]}"


def _traffic(rule: Mapping[str, Any]) -> str:
    """The protocol and ports of a security group rule, e.g. `tcp 22` or `all protocols`."""
    protocol = str(rule.get("ipProtocol", rule.get("protocol", "-1")))
    ports = [shown(rule[key]) for key in ("fromPort", "toPort") if rule.get(key) is not None]
    name = "all protocols" if protocol == "-1" else protocol
    return " ".join([name, "-".join(dict.fromkeys(ports))]).strip()


def imds_v2(resource: PlannedResource, _: Settings) -> Iterator[str]:
    if resource.type not in MACHINES:
        return
    options = resource.mapping("metadataOptions")
    if options.get("httpEndpoint") == "disabled" or resource.props.get("metadataOptions") == UNKNOWN:
        return
    if is_known(tokens := options.get("httpTokens")) and tokens != "required":
        yield f"metadataOptions.httpTokens is {shown(tokens)}, not required: the metadata service needs no token"
    if is_known(hops := options.get("httpPutResponseHopLimit")) and hops != 1:
        problem = "pods can read the machine's credentials"
        yield f"metadataOptions.httpPutResponseHopLimit is {shown(hops)}, not 1: {problem}"


def encrypted_volumes(resource: PlannedResource, _: Settings) -> Iterator[str]:
    disks: dict[str, Mapping[str, Any]] = {}
    if resource.type in {INSTANCE, SPOT, LAUNCH_CONFIGURATION}:
        if resource.props.get("rootBlockDevice") != UNKNOWN:
            disks["rootBlockDevice"] = resource.mapping("rootBlockDevice")
        for disk in resource.mappings("ebsBlockDevices"):
            disks[f"ebsBlockDevices {disk.get('deviceName', '')}".strip()] = disk
    elif resource.type == LAUNCH_TEMPLATE:
        for disk in resource.mappings("blockDeviceMappings"):
            if is_known(ebs := disk.get("ebs")):
                disks[f"blockDeviceMappings {disk.get('deviceName', '')}".strip()] = mapping(ebs)
    elif resource.type == "aws:ebs/volume:Volume":
        disks["the volume"] = resource.props
    for name, disk in disks.items():
        if is_known(value := disk.get("encrypted")) and str(value).lower() != "true":
            yield f"{name} is not encrypted"


def source_dest_check(resource: PlannedResource, _: Settings) -> Iterator[str]:
    """Only nodes forward packets of others. Every node may, because a lab changes its encapsulation by one word."""
    forwards = resource.type in {INSTANCE, INTERFACE, SPOT} and resource.props.get("sourceDestCheck") is False
    if forwards and not resource.is_node:
        yield f"sourceDestCheck is off, and this is not a machine of {AWS_MACHINES}"


def source_dest_check_for_pods(
    resources: Sequence[PlannedResource], _: Settings
) -> Iterator[tuple[PlannedResource, str]]:
    """EC2 drops packets with pod addresses at every node whose check is on."""
    plain = sorted({pool for resource in resources for pool in _plain_pools(resource)})
    nodes = [resource for resource in resources if resource.type == INSTANCE and resource.is_node]
    for node in nodes if plain else ():
        if is_known(value := node.props.get("sourceDestCheck")) and value is not False:
            yield node, f"sourceDestCheck is on, and {', '.join(plain)} sends pods' packets without encapsulation"


def _plain_pools(resource: PlannedResource) -> Iterator[str]:
    """The names of the pools in a Kubernetes object that send some packets between nodes without encapsulation."""
    kind = resource.type.rpartition(":")[2]
    spec = resource.mapping("spec")
    if kind == "Installation":
        for pool in map(mapping, sequence(mapping(spec.get("calicoNetwork")).get("ipPools"))):
            encapsulation = str(pool.get("encapsulation"))
            if encapsulation == "None" or encapsulation.endswith("CrossSubnet"):
                yield str(pool.get("name") or pool.get("cidr"))
    elif kind == "IPPool":
        modes = [spec.get("ipipMode") or "Never", spec.get("vxlanMode") or "Never"]
        if "Always" not in modes and UNKNOWN not in modes:
            yield str(resource.mapping("metadata").get("name", resource.name))


def owner_tags(resource: PlannedResource, settings: Settings) -> Iterator[str]:
    for place, tags in _tags(resource):
        missing = [tag for tag in settings["required"] if not tags.get(tag)]
        if missing:
            yield f"{place} without {' and '.join(missing)}: its owner is not known"


def expiry_tag(resources: Sequence[PlannedResource], settings: Settings) -> Iterator[tuple[PlannedResource, str]]:
    """A stack is ephemeral where its lab or any resource says so. Then every resource must say so."""
    tagged = [(resource, place, tags) for resource in resources for place, tags in _tags(resource)]
    hours = [
        settings.get("ttlHours"),
        *(resource.props.get("ttlHours") for resource in resources if resource.type == LAB),
        *(tags.get(EXPIRY_TAG) for *_, tags in tagged),
    ]
    wanted = next(filter(None, hours), None)
    for resource, place, tags in tagged if wanted else ():
        if is_known(given := tags.get(EXPIRY_TAG)) and shown(given) != shown(wanted):
            yield resource, f"{place}: {EXPIRY_TAG} is {shown(given)}, and the stack lives {shown(wanted)} hours"


def _tags(resource: PlannedResource) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The tags of a resource and of its disks, each with the key they are at. Nothing for a type without tags."""
    if not resource.type.startswith("aws:") or resource.type in UNTAGGABLE:
        return
    tags = resource.props.get("tags")
    if not is_known(tags):
        return
    yield "tags", mapping(tags)
    if resource.type in {INSTANCE, SPOT} and resource.props.get("volumeTags") is None:
        root = resource.props.get("rootBlockDevice")
        if is_known(root) and is_known(mapping(root).get("tags")):
            yield "rootBlockDevice.tags", mapping(mapping(root).get("tags"))
        for disk in resource.mappings("ebsBlockDevices"):
            if is_known(disk.get("tags")):
                yield "ebsBlockDevices tags", mapping(disk.get("tags"))


def no_secret_in_user_data(resource: PlannedResource, _: Settings) -> Iterator[str]:
    if resource.type not in MACHINES:
        return
    for key in ("userData", "userDataBase64"):
        value = resource.props.get(key)
        if value == SECRET:
            yield f"{key} is made from a secret: everybody who may describe the machine can read it"
        elif isinstance(value, str) and value != UNKNOWN:
            text = value if key == "userData" and resource.type != LAUNCH_TEMPLATE else decoded(value)
            for secret, pattern in SECRETS.items():
                if re.search(pattern, text):
                    yield f"{key} holds {secret}"


def instance_kinds(resource: PlannedResource, settings: Settings) -> Iterator[str]:
    given = resource.props.get("instanceType") if resource.type in MACHINES else None
    if isinstance(given, str) and is_known(given) and not any(fnmatchcase(given, p) for p in settings["allowed"]):
        yield f"instanceType {given} is not allowed; allowed: {', '.join(settings['allowed'])}"


def _priced_types() -> list[str]:
    """The instance types that `./lab cost` knows: whoever may use one can see what it costs."""
    table = read_yaml(PRICES)
    return sorted({kind for region in table["regions"].values() for kind in region.get("instanceHour", ())})


def public_addresses(resource: PlannedResource, settings: Settings) -> Iterator[str]:
    props, stated = resource.props, any(component in resource.within for component in settings["allowedIn"])
    where = f"outside {', '.join(settings['allowedIn']) or 'any component that may have one'}"
    match resource.type:
        case "aws:ec2/subnet:Subnet" if props.get("mapPublicIpOnLaunch") is True:
            yield "gives every machine in it a public address: ask for one on the machines that need it"
        case "aws:lb/loadBalancer:LoadBalancer" | "aws:alb/loadBalancer:LoadBalancer":
            if is_known(internal := props.get("internal")) and internal is not True:
                yield "is not internal: it gets public addresses"
        case "aws:ec2/eip:Eip" | "aws:ec2/natGateway:NatGateway" if not stated:
            if props.get("connectivityType") not in ("private", UNKNOWN):
                yield f"is a public address {where}"
        case type_ if type_ in MACHINES and not stated:
            asked = [props, *resource.mappings("networkInterfaces")]
            if any(str(of.get("associatePublicIpAddress")).lower() == "true" for of in asked):
                yield f"asks for a public address {where}"


RULES = (
    PolicyRule(
        "no-open-ingress",
        "No security group lets the whole internet in.",
        "Name the addresses that need it: operatorCidrs in the stack file, or the security group of the machines.",
        no_open_ingress,
    ),
    PolicyRule(
        "imds-v2",
        "A machine's metadata service needs a token (IMDSv2), and its answers do not travel further than one hop.",
        'Set metadata_options={"http_tokens": "required", "http_put_response_hop_limit": 1}.',
        imds_v2,
    ),
    PolicyRule("encrypted-volumes", "Every volume is encrypted.", "Set encrypted=True.", encrypted_volumes),
    PolicyRule(
        "source-dest-check",
        "The source/destination check is on for every machine that does not forward pods' packets.",
        "Leave sourceDestCheck on, or make the machine a node of the lab.",
        source_dest_check,
    ),
    PolicyRule(
        "source-dest-check-for-pods",
        "The source/destination check is off on every node where pods' packets travel without encapsulation.",
        "Set source_dest_check=False on the nodes, or use a pool that always encapsulates.",
        check_stack=source_dest_check_for_pods,
    ),
    PolicyRule(
        "owner-tags",
        "Every resource that takes tags names its stack and its owner.",
        "Pass the lab's tags on to the resource.",
        owner_tags,
        defaults={"required": list(OWNER_TAGS)},
    ),
    PolicyRule(
        "expiry-tag",
        "Every resource of an ephemeral stack says how long it lives.",
        "Pass the lab's tags on to the resource.",
        check_stack=expiry_tag,
    ),
    PolicyRule(
        "no-secret-in-user-data",
        "No machine's user data holds a secret.",
        "Let the machine fetch it at first boot, as components/machines/aws/first_boot.py does.",
        no_secret_in_user_data,
    ),
    PolicyRule(
        "instance-kinds",
        "Machines are of an instance type that has a price in cli/plan/prices.yaml, or that config.json allows.",
        "Choose another machines.instanceType, or allow it in policy/config.json.",
        instance_kinds,
        defaults={"allowed": _priced_types()},
    ),
    PolicyRule(
        "public-addresses",
        "Only the components that config.json names have public addresses.",
        "Leave it private, or name the component in policy/config.json.",
        public_addresses,
        defaults={"allowedIn": [AWS_MACHINES, NETWORK]},
    ),
)
