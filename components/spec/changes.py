"""What a live lab cannot take: changes of a stack file that its cluster would refuse, ignore, or break on.

`./lab plan --against` shows them, and `./lab up` and `./lab preview` refuse them before anything is touched. Each rule
is a pure function from the old and the new lab to findings. To destroy the lab and bring it up anew is always possible.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address

from components.spec import versions
from components.spec.addresses import api_endpoint, has_balancer
from components.spec.findings import Finding, shown
from components.spec.models import AwsMachines, Lab

_AFRESH = "set it back, or destroy the lab and bring it up again"
_Rule = Callable[[Lab, Lab], Iterator[Finding]]


def refused_changes(old: Lab, new: Lab) -> list[Finding]:
    """Every change from `old`, which is live, to `new` that a live lab cannot take. `value` is `old → new`."""
    if old.machines.provider != new.machines.provider:
        problem = "the machines of another provider make another lab"
        return [_finding("machines.provider", old.machines.provider, new.machines.provider, problem, _DESTROY)]
    first, now = old.control_planes[0], new.control_planes[0]
    if (first.name, first.address) != (now.name, now.address) and first.name not in {n.name for n in new.nodes}:
        # With another first control plane a new cluster is made (docs/design.md), so nothing of the old one is kept.
        # The hosts of the others keep their names, however.
        return list(_renamed(old, new))
    return [finding for rule in _RULES for finding in rule(old, new)]


@dataclass(frozen=True)
class Made:
    """What a stack has on EC2 after an `up` that did not reach its end, as its state says it.

    `machines`: node by address. `balanced`: whether its cluster has a load balancer; None where there is no cluster.
    """

    machines: Mapping[IPv4Address, str]
    balanced: bool | None = None


def refused_by_state(made: Made, new: Lab) -> list[Finding]:
    """Every change to `new` that what was made on EC2 cannot take. No stack file need be known that made it."""
    found = list(renamed(made.machines, new))
    first = new.control_planes[0]
    if made.balanced not in (None, has_balancer(new)) and made.machines.get(first.address) == first.name:
        words = {True: _BALANCER, False: "one control plane"}
        found += _moved_endpoint("nodes", words[not has_balancer(new)], words[has_balancer(new)])
    return found


_DESTROY = "destroy the lab with the old file, and bring it up with the new one"


def _finding(key: str, old: object, new: object, problem: str, fix: str = _AFRESH) -> Finding:
    return Finding(key, f"{shown(old)} → {shown(new)}", problem, fix)


def _kubernetes_version(old: Lab, new: Lab) -> Iterator[Finding]:
    """kubeadm's version skew policy: an upgrade goes forward, and to the next minor at most."""
    key, before, after = "kubernetes.version", old.kubernetes.version, new.kubernetes.version
    was, will = versions.numbers(before), versions.numbers(after)
    if will < was:
        yield _finding(key, before, after, "a cluster does not go back", f"write {before} or a later version")
    elif will[:2] > (was[0], was[1] + 1):
        fix = f"write a version of {was[0]}.{was[1] + 1} first, bring that up, then {after}"
        yield _finding(key, before, after, "kubeadm does not skip a minor version", fix)


# The keys that are written once, by key, with how they are read and who wrote them.
_WRITTEN_ONCE: tuple[tuple[str, Callable[[Lab], object], str], ...] = (
    (
        "kubernetes.podCidr",
        lambda lab: lab.kubernetes.pod_cidr,
        "kubeadm gave the cluster this range",
    ),
    (
        "kubernetes.serviceCidr",
        lambda lab: lab.kubernetes.service_cidr,
        "Services have addresses of the old range",
    ),
    ("kubernetes.dnsDomain", lambda lab: lab.kubernetes.dns_domain, "kubelet and CoreDNS got this domain from kubeadm"),
    (
        "kubernetes.apiServer",
        lambda lab: lab.kubernetes.api_server.model_dump(),
        "kubeadm reads it once, when it makes a control plane",
    ),
    (
        "kubernetes.patches",
        lambda lab: [patch.model_dump() for patch in lab.kubernetes.patches],
        "kubeadm applies them once, when it makes a node",
    ),
    ("calico.install", lambda lab: lab.calico.install, "Calico stays as it was installed"),
    ("calico.ipam", lambda lab: lab.calico.ipam, "pods keep the addresses that the other IPAM gave them"),
    (
        "calico.linuxDataplane",
        lambda lab: lab.calico.linux_dataplane,
        "kubeadm writes kube-proxy's mode once, when the cluster is made, and it must agree with Calico's",
    ),
)


def _written_once(old: Lab, new: Lab) -> Iterator[Finding]:
    for key, read, problem in _WRITTEN_ONCE:
        if read(old) != read(new):
            yield _finding(key, read(old), read(new), problem)


def _pools(old: Lab, new: Lab) -> Iterator[Finding]:
    """Calico sets cidr and blockSize when an IPPool is made, and refuses pools that overlap (its page "IPPool")."""
    live = {pool.name: pool for pool in old.calico.pools}
    fix = "add a pool of another name with a free range, move the pods, and remove the old pool"
    for index, pool in enumerate(new.calico.pools):
        key = f"calico.pools[{index}]"
        before = live.get(pool.name)
        if before is None:
            for other in old.calico.pools:
                if pool.cidr.overlaps(other.cidr):
                    problem = f"overlaps {other.cidr} of the live pool {other.name}, which a new pool may not"
                    yield Finding(f"{key}.cidr", str(pool.cidr), problem, fix)
            continue
        if before.cidr != pool.cidr and old.kubernetes.pod_cidr == new.kubernetes.pod_cidr:
            yield _finding(f"{key}.cidr", before.cidr, pool.cidr, "the range of a live pool cannot change", fix)
        if before.block_size != pool.block_size:
            problem = "the block size of a live pool cannot change: nodes hold blocks of the old size"
            yield _finding(f"{key}.blockSize", before.block_size, pool.block_size, problem, fix)


def _renamed(old: Lab, new: Lab) -> Iterator[Finding]:
    return renamed({node.address: node.name for node in old.nodes}, new)


def renamed(machines: Mapping[IPv4Address, str], new: Lab) -> Iterator[Finding]:
    """A finding for each node of `new` at whose address another node's machine is. `machines`: node by address.

    Pulumi makes the machine of the new name before it deletes the one of the old name, which still has the address
    (pulumi/pulumi#8679); EC2 refuses that with InvalidIPAddress.InUse at every `up`.
    """
    for index, node in enumerate(new.nodes):
        before = machines.get(node.address, node.name)
        if before == node.name:
            continue
        problem = f"the machine at {node.address} is the node {before}, and a node's name cannot change"
        if node == new.control_planes[0]:
            # The last control plane cannot be removed first.
            fix = f"name it {before} again, or give {node.name} a free address: then a new cluster is made"
        elif node.name in machines.values():
            both = " and ".join(sorted((before, node.name)))
            fix = f"remove {both} from the file, bring that up, then add them with their new addresses"
        else:
            fix = f"remove {before} from the file, bring that up, then add {node.name}"
        yield _finding(f"nodes[{index}].name", before, node.name, problem, fix)


def _architecture(old: Lab, new: Lab) -> Iterator[Finding]:
    """A machine keeps its AMI for life, so the aws provider replaces it for a type that the AMI does not suit."""
    before, after = old.machines, new.machines
    if not (isinstance(before, AwsMachines) and isinstance(after, AwsMachines)):
        return
    if before.architecture != after.architecture and before.image == after.image:
        problem = f"an image for {before.architecture} does not run on it, so every machine would be replaced"
        yield _finding("machines.instanceType", before.instance_type, after.instance_type, problem)


def _ec2_machines(old: Lab, new: Lab) -> Iterator[Finding]:
    """Changes that EC2 refuses on a live machine, or for which it wants another machine: then the control planes, and
    with them the cluster, would be made anew."""
    before, after = old.machines, new.machines
    if not (isinstance(before, AwsMachines) and isinstance(after, AwsMachines)):
        return
    if before.spot != after.spot:
        problem = "EC2 cannot turn one into the other, so every machine, also of the control plane, would be replaced"
        yield _finding("machines.spot", before.spot, after.spot, problem)
    elif before.spot and before.instance_type != after.instance_type and before.architecture == after.architecture:
        problem = "the type changes while a machine is stopped, and a one-time spot instance cannot be stopped"
        yield _finding("machines.instanceType", before.instance_type, after.instance_type, problem)
    if after.image is not None and before.image != after.image:
        problem = "another image is another machine, so every machine, also of the control plane, would be replaced"
        yield _finding("machines.image", before.image or "none", after.image, problem)
    if after.volume_size < before.volume_size:
        problem = "EC2 makes no volume smaller"
        fix = f"write {before.volume_size} or more, or destroy the lab and bring it up again"
        yield _finding("machines.volumeSize", before.volume_size, after.volume_size, problem, fix)


def _balancers_network(old: Lab, new: Lab) -> Iterator[Finding]:
    """The balancer's interface keeps the old subnet from being deleted, and the balancer itself cannot move: its name
    is in the API's certificate."""
    if not (has_balancer(old) and has_balancer(new)):
        return
    if old.network.vpc_cidr != new.network.vpc_cidr:
        yield _finding("network.vpcCidr", old.network.vpc_cidr, new.network.vpc_cidr, _UNDER_BALANCER)
    subnet = old.control_planes[0].subnet
    before, after = old.network.subnets[subnet], new.network.subnets.get(subnet)
    if before != after and old.network.vpc_cidr == new.network.vpc_cidr:
        yield _finding(f"network.subnets.{subnet}", before, after or "none", _UNDER_BALANCER)


_UNDER_BALANCER = "the load balancer of the control planes is in it, and its address cannot move"


def _roles(old: Lab, new: Lab) -> Iterator[Finding]:
    roles = {node.name: node.role for node in old.nodes}
    for index, node in enumerate(new.nodes):
        before = roles.get(node.name, node.role)
        if before != node.role:
            fix = f"remove {node.name} from the file, bring that up, then add it with the new role"
            yield _finding(f"nodes[{index}].role", before, node.role, "a node joins in one role for its life", fix)


def _first_control_plane(old: Lab, new: Lab) -> Iterator[Finding]:
    """The cluster is made on the first control plane. If another one comes first, a second cluster would be made, or
    every object of the cluster replaced, while the old first one goes on with its own."""
    first, now = old.control_planes[0], new.control_planes[0]
    stays = any((node.name, node.address) == (first.name, first.address) for node in new.nodes)
    if stays and first.name != now.name:
        problem = "the cluster was made on the first control plane, and another one cannot take its place beside it"
        fix = f"keep {first.name} first among the control planes"
        yield _finding(f"nodes[{new.nodes.index(now)}]", first.name, now.name, problem, fix)


def _endpoint(old: Lab, new: Lab) -> Iterator[Finding]:
    """The API's address is in every kubeconfig and in the certificate that kubeadm made."""
    before, after = _reached_at(old), _reached_at(new)
    first, now = old.control_planes[0], new.control_planes[0]
    # On another machine a new cluster is made, with a new certificate. A label is no other machine.
    if before != after and (first.name, first.address) == (now.name, now.address):
        key = "nodes" if old.kubernetes.control_plane_endpoint == new.kubernetes.control_plane_endpoint else _ENDPOINT
        yield from _moved_endpoint(key, before, after)


_ENDPOINT = "kubernetes.controlPlaneEndpoint"
_BALANCER = "the lab's load balancer"


def _moved_endpoint(key: str, before: str, after: str) -> Iterator[Finding]:
    problem = (
        "the address of the Kubernetes API cannot move: kubeadm wrote it into every node's configuration and into the "
        "API's certificate"
    )
    fix = f"keep the number of control planes and {_ENDPOINT}, or destroy the lab and bring it up again"
    yield _finding(key, before, after, problem, fix)


def _reached_at(lab: Lab) -> str:
    """Where nodes reach the API: EC2 machines bring a load balancer for several control planes."""
    if lab.kubernetes.control_plane_endpoint is None and lab.machines.provider == "aws" and len(lab.control_planes) > 1:
        return _BALANCER
    return api_endpoint(lab)


_RULES: tuple[_Rule, ...] = (
    _kubernetes_version,
    _written_once,
    _pools,
    _renamed,
    _architecture,
    _ec2_machines,
    _balancers_network,
    _roles,
    _first_control_plane,
    _endpoint,
)
