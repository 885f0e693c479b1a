"""What every stack must keep to. Pure functions of resources' types, names and inputs, without pulumi and the cloud.

`./lab plan` asks them in its own process, `__main__.py` serves them to the pulumi engine as a policy pack. What is
not known yet is not judged: the engine asks again during `up`, when it is known and before the resource is made.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Literal

from components.spec.names import AWS_MACHINES, LAB, NETWORK

CONFIG = Path(__file__).parent / "config.json"

# How a plan writes what is unknown or secret.
UNKNOWN = "<known after up>"
SECRET = "<secret>"

NODES = AWS_MACHINES
"""The component whose instances are the lab's Kubernetes nodes."""
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
"""Types of the aws provider that take no tags; everything else there must have them."""

# Ranges of nobody's on the internet (RFC 1918, 6598, 4193, 4291). `is_private` takes 0.0.0.0/0 for one of them.
INTERNAL = [
    ip_network(cidr)
    for cidr in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7", "fe80::/10")
]
# Wider than these is the world, or too large a part of it: two halves of it are no better than the whole.
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

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Resource:
    """`props`: the inputs in pulumi's camelCase; unknown leaves as UNKNOWN, secret ones, where one can tell, SECRET."""

    type: str
    name: str
    props: Mapping[str, Any]
    urn: str = ""

    @property
    def is_node(self) -> bool:
        return NODES in self.within

    @cached_property
    def within(self) -> tuple[str, ...]:
        """The types of the components around it, outermost first."""
        parts = self.urn.split("::")
        return tuple(parts[2].split("$")[:-1]) if len(parts) > 2 else ()

    def mapping(self, key: str) -> Mapping[str, Any]:
        """An object among the inputs; empty where there is none."""
        return _mapping(self.props.get(key))

    def listed(self, key: str) -> list[Mapping[str, Any]]:
        """The objects in a list among the inputs, those that are known; empty where there is none."""
        return [item for item in _sequence(self.props.get(key)) if isinstance(item, Mapping)]


@dataclass(frozen=True)
class Finding:
    """One breach of one rule; str() says who, what and how to fix it."""

    rule: Rule
    resource: Resource
    message: str
    mandatory: bool = True

    def __str__(self) -> str:
        return f"{self.resource.name}: {self.message}. Fix: {self.rule.fix}"


@dataclass(frozen=True)
class Rule:
    """`check` judges one resource, or with `whole_stack` all of them at once, and yields what is wrong.

    `defaults` are its settings: `config.json` and the engine's --policy-pack-config override them.
    """

    name: str
    description: str
    fix: str
    check: Callable[[Resource, Settings], Iterator[str]] | None = None
    whole_stack: Callable[[Sequence[Resource], Settings], Iterator[tuple[Resource, str]]] | None = None
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def run(self, resources: Sequence[Resource], settings: Settings) -> Iterator[tuple[Resource, str]]:
        """Every breach among a stack's resources."""
        settings = {**self.defaults, **settings}
        if self.whole_stack:
            yield from self.whole_stack(resources, settings)
        for resource in resources if self.check else ():
            assert self.check
            yield from ((resource, message) for message in self.check(resource, settings))


# --- the rules -------------------------------------------------------------------------------------------------------


def no_open_ingress(resource: Resource, _: Settings) -> Iterator[str]:
    match resource.type:
        case "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule":
            rules: list[Mapping[str, Any]] = [resource.props]
        case "aws:ec2/securityGroupRule:SecurityGroupRule" if resource.props.get("type") == "ingress":
            rules = [resource.props]
        case "aws:ec2/securityGroup:SecurityGroup" | "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup":
            rules = resource.listed("ingress")
        case _:
            return
    for rule in rules:
        for key in ("cidrIpv4", "cidrIpv6", "cidrBlocks", "ipv6CidrBlocks"):
            for cidr in _sequence(rule.get(key)):
                if _known(cidr) and (problem := _too_open(str(cidr))):
                    yield f"lets {cidr} in ({_traffic(rule)}): {problem}"
        if rule.get("prefixListId") or rule.get("prefixListIds"):
            yield f"lets a prefix list in ({_traffic(rule)}): whom it holds is not to be seen here"


def imds_v2(resource: Resource, _: Settings) -> Iterator[str]:
    if resource.type not in MACHINES:
        return
    options = resource.mapping("metadataOptions")
    if options.get("httpEndpoint") == "disabled" or resource.props.get("metadataOptions") == UNKNOWN:
        return
    if _known(tokens := options.get("httpTokens")) and tokens != "required":
        yield f"metadataOptions.httpTokens is {_shown(tokens)}, not required: the metadata answers without a token"
    if _known(hops := options.get("httpPutResponseHopLimit")) and hops != 1:
        yield f"metadataOptions.httpPutResponseHopLimit is {_shown(hops)}, not 1: pods reach the machine's credentials"


def encrypted_volumes(resource: Resource, _: Settings) -> Iterator[str]:
    disks: dict[str, Mapping[str, Any]] = {}
    if resource.type in {INSTANCE, SPOT, LAUNCH_CONFIGURATION}:
        if resource.props.get("rootBlockDevice") != UNKNOWN:
            disks["rootBlockDevice"] = resource.mapping("rootBlockDevice")
        for disk in resource.listed("ebsBlockDevices"):
            disks[f"ebsBlockDevices {disk.get('deviceName', '')}".strip()] = disk
    elif resource.type == LAUNCH_TEMPLATE:
        for disk in resource.listed("blockDeviceMappings"):
            if _known(ebs := disk.get("ebs")):
                disks[f"blockDeviceMappings {disk.get('deviceName', '')}".strip()] = _mapping(ebs)
    elif resource.type == "aws:ebs/volume:Volume":
        disks["the volume"] = resource.props
    for name, disk in disks.items():
        if _known(value := disk.get("encrypted")) and str(value).lower() != "true":
            yield f"{name} is not encrypted"


def source_dest_check(resource: Resource, _: Settings) -> Iterator[str]:
    """Only nodes forward packets that are not their own. All of them may: a lab changes its mode in one word."""
    forwards = resource.type in {INSTANCE, INTERFACE, SPOT} and resource.props.get("sourceDestCheck") is False
    if forwards and not resource.is_node:
        yield f"sourceDestCheck is off, and this is no machine of {NODES}"


def source_dest_check_for_pods(resources: Sequence[Resource], _: Settings) -> Iterator[tuple[Resource, str]]:
    """EC2 drops what carries pods' addresses, unless each node's check is off."""
    plain = sorted({pool for resource in resources for pool in _plain_pools(resource)})
    nodes = [resource for resource in resources if resource.type == INSTANCE and resource.is_node]
    for node in nodes if plain else ():
        if _known(value := node.props.get("sourceDestCheck")) and value is not False:
            yield node, f"sourceDestCheck is on, and {', '.join(plain)} sends pods' packets without encapsulation"


def owner_tags(resource: Resource, settings: Settings) -> Iterator[str]:
    for what, tags in _tags(resource):
        missing = [tag for tag in settings["required"] if not tags.get(tag)]
        if missing:
            yield f"{what} without {' and '.join(missing)}: nobody can tell whose it is"


def expiry_tag(resources: Sequence[Resource], settings: Settings) -> Iterator[tuple[Resource, str]]:
    """The stack is ephemeral where its lab says so, or where any of its resources does; then all must."""
    tagged = [(resource, what, tags) for resource in resources for what, tags in _tags(resource)]
    hours = [
        settings.get("ttlHours"),
        *(resource.props.get("ttlHours") for resource in resources if resource.type == LAB),
    ]
    said = next((found for found in [*hours, *(tags.get(EXPIRY_TAG) for *_, tags in tagged)] if found), None)
    for resource, what, tags in tagged if said else ():
        if _known(given := tags.get(EXPIRY_TAG)) and _shown(given) != _shown(said):
            yield resource, f"{what}: {EXPIRY_TAG} is {_shown(given)}, and the stack lives {_shown(said)} hours"


def no_secret_in_user_data(resource: Resource, _: Settings) -> Iterator[str]:
    if resource.type not in MACHINES:
        return
    for key in ("userData", "userDataBase64"):
        value = resource.props.get(key)
        if value == SECRET:
            yield f"{key} is made from a secret: whoever may describe the machine reads it"
        elif isinstance(value, str) and value != UNKNOWN:
            text = value if key == "userData" and resource.type != LAUNCH_TEMPLATE else _decoded(value)
            for what, pattern in SECRETS.items():
                if re.search(pattern, text):
                    yield f"{key} holds {what}"


def instance_kinds(resource: Resource, settings: Settings) -> Iterator[str]:
    given = resource.props.get("instanceType") if resource.type in MACHINES else None
    if isinstance(given, str) and given != UNKNOWN and not _matches(given, settings["allowed"]):
        yield f"instanceType {given} is not allowed; allowed: {', '.join(settings['allowed'])}"


def public_addresses(resource: Resource, settings: Settings) -> Iterator[str]:
    props, stated = resource.props, any(component in resource.within for component in settings["allowedIn"])
    where = f"outside {', '.join(settings['allowedIn']) or 'any component that may have one'}"
    match resource.type:
        case "aws:ec2/subnet:Subnet" if props.get("mapPublicIpOnLaunch") is True:
            yield "gives every machine in it a public address: state it on the machines that need one"
        case "aws:lb/loadBalancer:LoadBalancer" | "aws:alb/loadBalancer:LoadBalancer":
            if _known(internal := props.get("internal")) and internal is not True:
                yield "is not internal: it gets public addresses"
        case "aws:ec2/eip:Eip" | "aws:ec2/natGateway:NatGateway" if not stated:
            if props.get("connectivityType") not in ("private", UNKNOWN):
                yield f"is a public address {where}"
        case type_ if type_ in MACHINES and not stated:
            asked = [props, *resource.listed("networkInterfaces")]
            if any(str(of.get("associatePublicIpAddress")).lower() == "true" for of in asked):
                yield f"asks for a public address {where}"


RULES = (
    Rule(
        "no-open-ingress",
        "No security group lets the world in.",
        "Name the addresses that need it: operatorCidrs in the stack file, or the group of the machines.",
        no_open_ingress,
    ),
    Rule(
        "imds-v2",
        "A machine's metadata needs a token (IMDSv2) and answers one hop away only.",
        'Set metadata_options={"http_tokens": "required", "http_put_response_hop_limit": 1}.',
        imds_v2,
    ),
    Rule("encrypted-volumes", "Every volume is encrypted.", "Set encrypted=True.", encrypted_volumes),
    Rule(
        "source-dest-check",
        "The source/destination check is on wherever no pods' packets are forwarded.",
        "Leave sourceDestCheck on, or make the machine a node of the lab.",
        source_dest_check,
    ),
    Rule(
        "source-dest-check-for-pods",
        "The source/destination check is off on every node where pods' packets travel without encapsulation.",
        "Set source_dest_check=False on the nodes, or encapsulate always.",
        whole_stack=source_dest_check_for_pods,
    ),
    Rule(
        "owner-tags",
        "Everything that takes tags says whose it is.",
        "Pass the lab's tags on to the resource.",
        owner_tags,
        defaults={"required": list(OWNER_TAGS)},
    ),
    Rule(
        "expiry-tag",
        "Everything of an ephemeral stack says how long it lives.",
        "Pass the lab's tags on to the resource.",
        whole_stack=expiry_tag,
    ),
    Rule(
        "no-secret-in-user-data",
        "No machine's user data holds a secret.",
        "Let the machine fetch it at first boot, as components/machines/aws/first_boot.py does.",
        no_secret_in_user_data,
    ),
    Rule(
        "instance-kinds",
        "Only instance types that a lab may cost.",
        "Choose another machines.instanceType, or allow it in policy/config.json.",
        instance_kinds,
        defaults={"allowed": ["t3.*", "t3a.*"]},
    ),
    Rule(
        "public-addresses",
        "Only what is stated has a public address.",
        "Leave it private, or state the component in policy/config.json.",
        public_addresses,
        defaults={"allowedIn": [NODES, NETWORK]},
    ),
)


class ConfigError(ValueError):
    """config.json cannot be used; the message says why and what to do."""


def load_config(path: Path = CONFIG) -> dict[str, dict[str, Any]]:
    """Settings by rule, in the form of the engine's --policy-pack-config. Raises ConfigError."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    known = {rule.name: {*rule.defaults, "enforcementLevel"} for rule in RULES}
    for name, settings in config.items() if isinstance(config, dict) else [("", None)]:
        if name not in known:
            raise ConfigError(f"{path}: {name!r} is no rule; there are: {', '.join(known)}")
        if not isinstance(settings, dict) or not known[name] >= settings.keys():
            raise ConfigError(f"{path}: {name}: its settings are {', '.join(sorted(known[name]))}")
        if settings.get("enforcementLevel", "mandatory") not in ("mandatory", "advisory", "disabled"):
            raise ConfigError(f"{path}: {name}: enforcementLevel is mandatory, advisory or disabled")
        for key in settings.keys() - {"enforcementLevel"}:
            if not isinstance(settings[key], list) or not all(isinstance(item, str) for item in settings[key]):
                raise ConfigError(f"{path}: {name}: {key} is a list of texts")
    return dict(config)


def check(resources: Sequence[Resource], config: Mapping[str, Settings] | None = None) -> list[Finding]:
    """Every breach of every rule in a stack. `config`: settings by rule, without a word config.json's."""
    config = load_config() if config is None else config
    findings = []
    for rule in RULES:
        settings = config.get(rule.name, {})
        level: Literal["mandatory", "advisory", "disabled"] = settings.get("enforcementLevel", "mandatory")
        if level != "disabled":
            broken = rule.run(resources, settings)
            findings += [Finding(rule, resource, text, level == "mandatory") for resource, text in broken]
    return findings


# --- values ----------------------------------------------------------------------------------------------------------


def _known(value: Any) -> bool:
    return bool(value != UNKNOWN)


def _shown(value: Any) -> str:
    return "missing" if value is None else str(int(value) if isinstance(value, float) else value)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _sequence(value: Any) -> Sequence[Any]:
    """The value as a list: itself, the one value that it is, or none where there is none or it is not known."""
    if value is None or value == UNKNOWN:
        return ()
    return (value,) if isinstance(value, str | Mapping) else tuple(value)


def _too_open(cidr: str) -> str | None:
    try:
        network = ip_network(cidr, strict=False)
    except ValueError:
        return "that is no range of addresses"
    if any(network.version == own.version and network.subnet_of(own) for own in INTERNAL):  # type: ignore[arg-type]
        return None
    if network.prefixlen >= WIDEST[network.version]:
        return None
    return "that is the world" if not network.prefixlen else f"that is wider than /{WIDEST[network.version]}"


def _traffic(rule: Mapping[str, Any]) -> str:
    protocol = str(rule.get("ipProtocol", rule.get("protocol", "-1")))
    ports = [_shown(rule[key]) for key in ("fromPort", "toPort") if rule.get(key) is not None]
    name = "all protocols" if protocol == "-1" else protocol
    return " ".join([name, "-".join(dict.fromkeys(ports))]).strip()


def _plain_pools(resource: Resource) -> Iterator[str]:
    """The pools of a Kubernetes object whose packets travel, always or inside a subnet, as the pods sent them."""
    kind = resource.type.rpartition(":")[2]
    spec = resource.mapping("spec")
    if kind == "Installation":
        for pool in _sequence(_mapping(spec.get("calicoNetwork")).get("ipPools")):
            how = str(_mapping(pool).get("encapsulation"))
            if how == "None" or how.endswith("CrossSubnet"):
                yield str(_mapping(pool).get("name") or _mapping(pool).get("cidr"))
    elif kind == "IPPool":
        modes = [spec.get("ipipMode") or "Never", spec.get("vxlanMode") or "Never"]
        if "Always" not in modes and UNKNOWN not in modes:
            yield str(resource.mapping("metadata").get("name", resource.name))


def _tags(resource: Resource) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """What of the resource is tagged, and with what; nothing where it takes no tags."""
    if not resource.type.startswith("aws:") or resource.type in UNTAGGABLE:
        return
    tags = resource.props.get("tags")
    if not _known(tags):
        return
    yield "tags", _mapping(tags)
    if resource.type in {INSTANCE, SPOT} and resource.props.get("volumeTags") is None:
        root = resource.props.get("rootBlockDevice")
        if _known(root) and _known(_mapping(root).get("tags")):
            yield "rootBlockDevice.tags", _mapping(_mapping(root).get("tags"))
        for disk in resource.listed("ebsBlockDevices"):
            if _known(disk.get("tags")):
                yield "ebsBlockDevices tags", _mapping(disk.get("tags"))


def _decoded(text: str) -> str:
    """User data in base64, and perhaps gzip, as text; what is neither as it is."""
    try:
        data = base64.b64decode(text, validate=True)
        return (gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data).decode("utf-8", "replace")
    except (binascii.Error, ValueError, OSError, EOFError, zlib.error):
        return text


def _matches(text: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)
