"""Machines: who may reach them, how they are reached, and whether a control plane fits on them."""

from __future__ import annotations

import base64
import binascii
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Network

from components.aws_client import AwsSettings, BadSetting
from components.spec.addresses import has_balancer
from components.spec.findings import Finding, nearest, shown
from components.spec.models import AwsMachines, ExistingMachines, Lab, LocalMachines
from components.spec.rules.core import listed, repeated, rule

WIDEST_OPERATOR = 8
"""The shortest prefix that machines.operatorCidrs may have."""
AWS_KEEPS = 5
"""The number of addresses that AWS reserves in every subnet."""
DOCUMENTATION = [IPv4Network(cidr) for cidr in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")]
KEY_TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521")
# Length in bytes of an ed25519 public key in its wire format (RFC 8709): the type and 32 bytes, each after its length.
ED25519_LENGTH = 4 + 11 + 4 + 32
REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")


def region(lab: Lab, config: Mapping[str, str]) -> Iterator[Finding]:
    """`aws:region`, which EC2 machines need."""
    if lab.machines.provider != "aws":
        return
    given = config.get("aws:region")
    if not given:
        fix = "add aws:region beside cni-lab:lab, e.g. aws:region: us-west-2"
        yield Finding("aws:region", "missing", "EC2 machines need a region", fix)
    elif not REGION.fullmatch(given):
        yield Finding("aws:region", shown(given), "does not have the form of a region", "write e.g. us-west-2")


def zones_in_region(lab: Lab, config: Mapping[str, str]) -> Iterator[Finding]:
    """The zones of network.zones are in `aws:region`."""
    region_name = config.get("aws:region", "")
    if lab.machines.provider != "aws" or not REGION.fullmatch(region_name):
        return
    for name, zone in lab.network.zones.items():
        if zone[:-1] != region_name:
            problem = f"is not a zone of aws:region {region_name}"
            yield Finding(f"network.zones.{name}", zone, problem, f"write e.g. {region_name}a, or change aws:region")


@rule("machines.provider", "network.zones", "network.subnets")
def zones(lab: Lab) -> Iterator[Finding]:
    for name, zone in lab.network.zones.items():
        key = f"network.zones.{name}"
        if not lab.machines.in_vpc:
            problem = f"is for EC2, and machines.provider is {lab.machines.provider}"
            yield Finding(key, zone, problem, "remove network.zones")
        elif name not in lab.network.subnets:
            meant = nearest(name, lab.network.subnets)
            fix = f"did you mean {meant}?" if meant else f"write {listed(list(lab.network.subnets))}"
            yield Finding(key, zone, f"{name} is not one of network.subnets", fix)


@rule(
    "machines.provider",
    "network.zones",
    "network.subnets",
    "nodes[].subnet",
    "nodes[].role",
    "kubernetes.controlPlaneEndpoint",
)
def balancer_in_one_zone(lab: Lab) -> Iterator[Finding]:
    """The lab's load balancer has an address in one subnet. AWS, "Availability Zones" of Network Load Balancers: a
    target in a zone that is not enabled for the balancer receives nothing."""
    if not has_balancer(lab):
        return
    subnets = sorted({node.subnet for node in lab.control_planes})
    if len({lab.network.zones.get(name) for name in subnets}) > 1:
        given = ", ".join(f"{name} in {lab.network.zones.get(name, 'the default zone')}" for name in subnets)
        problem = "puts control planes into several zones, and their load balancer is in one"
        fix = "give their subnets one zone, or set kubernetes.controlPlaneEndpoint to a balancer of your own"
        yield Finding("network.zones", given, problem, fix)


# These would lead the aws provider into an account that no other command asks.
_ACCOUNT_BY_ENVIRONMENT = {
    "aws:assumeRole": "write aws:assumeRoles, a list, as the aws provider 7 reads it: - roleArn: arn:aws:iam::…",
    "aws:assumeRoleWithWebIdentity": "set AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE in the environment",
    "aws:accessKey": "use aws:profile, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment",
}


def account(lab: Lab, config: Mapping[str, str]) -> Iterator[Finding]:
    """The keys under `aws:` that say which account it is: verify, stop, reap and doctor must ask the same one."""
    if lab.machines.provider != "aws":
        return
    for key, fix in _ACCOUNT_BY_ENVIRONMENT.items():
        if key in config:
            yield Finding(key, "…", "is read by the aws provider alone, so the other commands would ask elsewhere", fix)
    try:
        AwsSettings.of(config)
    except BadSetting as error:
        yield Finding(error.key, shown(error.value), error.problem, error.fix)


@rule("machines.provider", "machines.operatorCidrs")
def operators(lab: Lab) -> Iterator[Finding]:
    if not isinstance(lab.machines, AwsMachines):
        return
    for index, cidr in enumerate(lab.machines.operator_cidrs):
        if cidr.prefixlen < WIDEST_OPERATOR:
            problem = "opens SSH and the Kubernetes API to the world" if not cidr.prefixlen else "is far too wide"
            fix = f"write your own address with /32, or a range of at least /{WIDEST_OPERATOR}"
            yield Finding(f"machines.operatorCidrs[{index}]", str(cidr), problem, fix)
    for index, first in repeated(lab.machines.operator_cidrs):
        key, given = f"machines.operatorCidrs[{index}]", str(lab.machines.operator_cidrs[index])
        yield Finding(key, given, f"is the same as operatorCidrs[{first}]", "remove one of the two")


def placeholders(lab: Lab) -> Iterator[Finding]:
    """The ranges for documentation in machines.operatorCidrs, which a shipped stack file has in place of an address.

    The file is valid with them, and its plan is right. But nobody has such an address, so `up` would build and bill
    machines that it then cannot reach.
    """
    given = lab.machines.operator_cidrs if isinstance(lab.machines, AwsMachines) else ()
    for index, cidr in enumerate(given):
        if any(cidr.subnet_of(range_) for range_ in DOCUMENTATION):
            problem = "is an address for documentation (RFC 5737), which no computer has"
            fix = "write your own address with /32: curl https://checkip.amazonaws.com"
            yield Finding(f"machines.operatorCidrs[{index}]", str(cidr), problem, fix)


@rule("machines.provider", "machines.instanceType")
def instance_type(lab: Lab) -> Iterator[Finding]:
    """kubeadm's preflight checks need 2 CPUs and 1700 MB. The machines run Linux."""
    if not isinstance(lab.machines, AwsMachines):
        return
    given = lab.machines.instance_type
    family, _, size = given.partition(".")
    if size in ("nano", "micro") or given in ("t2.small", "t1.micro", "m1.small", "m1.medium", "m3.medium"):
        problem = "has less than the 2 CPUs and 1700 MB that a control plane needs"
        yield Finding("machines.instanceType", given, problem, "write t3.small or larger")
    elif family.startswith("mac"):
        yield Finding("machines.instanceType", given, "is a Mac, which runs no Ubuntu", "write e.g. t3.large")


@rule("machines.provider", "machines.workerAccess", "nodes[].role", "nodes[].subnet", "network.subnets")
def worker_access(lab: Lab) -> Iterator[Finding]:
    """A subnet has one default route: to the internet gateway, for public addresses, or to the NAT gateway."""
    if not lab.private_workers:
        return
    if not lab.workers:
        problem = "is for workers, and the lab has none"
        yield Finding("machines.workerAccess", "InstanceConnect", problem, "remove it, or add a worker")
    public = {node.subnet for node in lab.control_planes}
    for index, node in enumerate(lab.nodes):
        if node.role == "worker" and node.subnet in public:
            problem = "is a control plane's subnet, from which only public addresses reach the internet"
            fix = "give the workers a subnet of their own, or write machines.workerAccess: Public"
            yield Finding(f"nodes[{index}].subnet", node.subnet, problem, fix)


@rule(
    "machines.provider",
    "machines.workerAccess",
    "kubernetes.controlPlaneEndpoint",
    "nodes[].role",
    "nodes[].subnet",
    "network.subnets",
)
def addresses_left(lab: Lab) -> Iterator[Finding]:
    """What the lab needs besides its nodes has an address in a subnet too."""
    tenants: dict[str, list[str]] = defaultdict(list)
    for node in lab.control_planes[:1]:
        if lab.private_workers:
            tenants[node.subnet].append("the NAT gateway of machines.workerAccess: InstanceConnect")
        if has_balancer(lab):
            tenants[node.subnet].append("the load balancer of several control planes")
    for node in lab.workers[:1] if lab.private_workers else ():
        tenants[node.subnet].append("the endpoint of machines.workerAccess: InstanceConnect")
    for name, wanting in tenants.items():
        cidr = lab.network.subnets.get(name)
        nodes = sum(node.subnet == name for node in lab.nodes)
        if cidr and nodes + len(wanting) + AWS_KEEPS > cidr.num_addresses:
            problem = f"has no address left for {' and '.join(wanting)}"
            yield Finding(f"network.subnets.{name}", str(cidr), problem, "choose a larger range, or remove a node")


@rule("machines.provider", "nodes[].ssh", each="nodes[]")
def existing_hosts(lab: Lab) -> Iterator[Finding]:
    existing = isinstance(lab.machines, ExistingMachines)
    for index, node in enumerate(lab.nodes):
        key = f"nodes[{index}].ssh"
        if existing and node.ssh is None:
            fix = "add ssh: {hostKey: …}; on the host, cat /etc/ssh/ssh_host_ed25519_key.pub"
            yield Finding(key, "missing", "the key of an existing host must be known before the first connection", fix)
        elif not existing and node.ssh is not None:
            problem = f"is for existing hosts, and machines.provider is {lab.machines.provider}"
            yield Finding(key, shown(node.ssh.host_key), problem, "remove it")


@rule("machines.provider", "nodes[].ssh.hostKey", each="nodes[]")
def host_keys(lab: Lab) -> Iterator[Finding]:
    if not isinstance(lab.machines, ExistingMachines):
        return
    for index, node in enumerate(lab.nodes):
        if node.ssh is not None and (problem := host_key_problem(node.ssh.host_key)):
            fix = _host_key_fix(node.ssh.host_key, "/etc/ssh/ssh_host_ed25519_key.pub")
            yield Finding(f"nodes[{index}].ssh.hostKey", shown(node.ssh.host_key), problem, fix)


@rule("machines.provider", "machines.jumpHost.hostKey")
def jump_host_key(lab: Lab) -> Iterator[Finding]:
    jump = lab.machines.jump_host if isinstance(lab.machines, ExistingMachines) else None
    if jump is not None and jump.host_key is not None and (problem := host_key_problem(jump.host_key)):
        fix = _host_key_fix(jump.host_key, "the jump host's /etc/ssh/ssh_host_ed25519_key.pub")
        yield Finding("machines.jumpHost.hostKey", shown(jump.host_key), problem, fix)


def _host_key_fix(line: str, file: str) -> str:
    if name := _known_hosts_name(line):
        return f"leave {shown(name)} out: the line starts with {line.split()[1]}"
    return f"copy the one line of {file}"


def _known_hosts_name(line: str) -> str | None:
    """The host name before the key, as ssh-keyscan and known_hosts have it; None if there is none."""
    words = line.split()
    return words[0] if len(words) > 2 and words[0] not in KEY_TYPES and words[1] in KEY_TYPES else None


def host_key_problem(line: str) -> str | None:
    """What is wrong with an SSH public key in one line (`type base64 [comment]`); None if nothing is."""
    words = line.split()
    if "\n" in line.strip():
        return "is more than one line"
    if "PRIVATE KEY" in line:
        return "is a private key"
    if _known_hosts_name(line):
        return "has a host name before the key, as ssh-keyscan prints it"
    if len(words) < 2 or words[0] not in KEY_TYPES:
        # No RSA keys: the SSH client uses them only with SHA-1 (ssh-rsa), which OpenSSH refuses since 8.8.
        return "is not a public key of type ssh-ed25519 or ecdsa-sha2-nistp256"
    try:
        wire = base64.b64decode(words[1], validate=True)
    except binascii.Error:
        return "is not base64 after the type; part of it is missing"
    named = wire[4 : 4 + int.from_bytes(wire[:4], "big")]
    if named != words[0].encode():
        return f"says {words[0]}, but the key after it has another type or is cut off"
    if words[0] == "ssh-ed25519" and len(wire) != ED25519_LENGTH:
        return "is not as long as an ed25519 key; part of it is missing"
    return None


@rule("machines.provider", "machines.privateKeyFile", "machines.jumpHost.privateKeyFile")
def private_key(lab: Lab) -> Iterator[Finding]:
    given = lab.machines.private_key_file if isinstance(lab.machines, ExistingMachines) else None
    if given is not None:
        yield from _private_key_file("machines.privateKeyFile", given)
    jump = lab.machines.jump_host if isinstance(lab.machines, ExistingMachines) else None
    if jump is not None and jump.private_key_file is not None:
        yield from _private_key_file("machines.jumpHost.privateKeyFile", jump.private_key_file)


@rule("machines.provider", "machines.jumpHost", "kubernetes.controlPlaneEndpoint", "nodes[].address", "nodes[].role")
def api_behind_jump_host(lab: Lab) -> Iterator[Finding]:
    """SSH goes through the jump host; kubectl and the Kubernetes provider of `up` connect to the API themselves.

    Neither opens an SSH connection, but both go through a proxy that the kubeconfig names.
    """
    jump = lab.machines.jump_host if isinstance(lab.machines, ExistingMachines) else None
    if jump is None or not lab.control_planes or lab.machines.api_proxy is not None:
        return
    if lab.kubernetes.control_plane_endpoint is None:
        address = f"{lab.control_planes[0].address}:6443"
        problem = f"leads to SSH alone: this computer connects to the API at {address} itself"
        fix = (
            "set machines.jumpHost.socksPort, e.g. 1080, and keep "
            f"`ssh -N -D 1080 {jump.user}@{jump.address}` running; or set "
            "kubernetes.controlPlaneEndpoint to the API as this computer reaches it, host:port, or to "
            f"{address} if a route or a VPN leads there"
        )
        yield Finding("machines.jumpHost", jump.address, problem, fix)


@rule("nodes[].ssh.privateKeyFile", each="nodes[]")
def node_private_keys(lab: Lab) -> Iterator[Finding]:
    for index, node in enumerate(lab.nodes):
        if node.ssh is not None and node.ssh.private_key_file is not None:
            yield from _private_key_file(f"nodes[{index}].ssh.privateKeyFile", node.ssh.private_key_file)


def _private_key_file(key: str, path: str) -> Iterator[Finding]:
    if path.endswith(".pub"):
        yield Finding(key, shown(path), "is the public key", f"write {path.removesuffix('.pub')}")
    elif "PRIVATE KEY" in path:
        problem = "must be the path of a file, not the key itself"
        yield Finding(key, "a private key", problem, "write e.g. ~/.ssh/id_ed25519")


@rule("machines.provider", "machines.extraMounts[].containerPath", each="machines.extraMounts[]")
def mounts(lab: Lab) -> Iterator[Finding]:
    if not isinstance(lab.machines, LocalMachines):
        return
    places = [mount.container_path for mount in lab.machines.extra_mounts]
    for index, first in repeated(places):
        key = f"machines.extraMounts[{index}].containerPath"
        yield Finding(key, shown(places[index]), f"is the same as that of extraMounts[{first}]", "mount it elsewhere")


@rule("mirrors.images")
def image_mirrors(lab: Lab) -> Iterator[Finding]:
    pairs = [(mirror.registry, mirror.mirror) for mirror in lab.mirrors.images]
    for index, first in repeated(pairs):
        problem = f"is the same as mirrors.images[{first}]"
        yield Finding(f"mirrors.images[{index}]", shown(pairs[index][0]), problem, "remove one of the two")


RULES = (
    zones,
    balancer_in_one_zone,
    operators,
    instance_type,
    worker_access,
    addresses_left,
    existing_hosts,
    host_keys,
    jump_host_key,
    private_key,
    api_behind_jump_host,
    node_private_keys,
    mounts,
    image_mirrors,
)
