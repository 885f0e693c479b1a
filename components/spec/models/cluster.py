"""The keys `network`, `nodes` and `kubernetes`: the machines' network, the nodes, and the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints, WithJsonSchema

from components.spec import versions
from components.spec.models.base import (
    DEFAULT_POD_CIDR,
    AsNumber,
    Cidr,
    DnsLabel,
    HostName,
    Labels,
    Line,
    Model,
    Mtu,
    Port,
    UserName,
)

MOST_CONTROL_PLANES: Final = 10
"""The addresses that control planes have for themselves where workers share their subnet, in `counted_nodes`."""


class Ssh(Model):
    """How SSH reaches one existing host."""

    host_key: str
    """Public key of the host: one line, ssh-ed25519 AAAA… (on the host: cat /etc/ssh/ssh_host_ed25519_key.pub)."""
    address: HostName | None = None
    """Host name or address that SSH connects to. Default: the node's address."""
    user: UserName | None = None
    """User that SSH connects as. Default: machines.user."""
    port: Port | None = None
    """SSH port of the host. Default: machines.port."""
    private_key_file: Line | None = None
    """Path of the SSH private key for the host. Default: machines.privateKeyFile."""


class Taint(Model):
    key: str
    """Key of the taint, [prefix/]name."""
    value: str = ""
    """Value of the taint. It may be empty."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
    """What happens to pods that do not tolerate the taint."""


class Node(Model):
    name: DnsLabel
    """Host name and name of the Kubernetes Node. Calico chooses a node's first block by its name."""
    role: Literal["control-plane", "worker"] = "worker"
    """Role of the node in the cluster."""
    subnet: DnsLabel
    """Name of the node's subnet, one of network.subnets."""
    address: IPv4Address
    """IPv4 address of the node, inside its subnet."""
    labels: Labels = Field(default_factory=dict)
    """Labels of the Kubernetes Node. A change reaches a live Node too."""
    taints: tuple[Taint, ...] | None = None
    """Taints of the Kubernetes Node, e.g. [{key: gpu, effect: NoSchedule}]. Default: none on a worker, kubeadm's on a
    control plane. [] leaves a control plane without a taint, so that it takes every pod."""
    as_number: AsNumber | None = None
    """AS number of the node in BGP. Default: calico.asNumber."""
    ssh: Ssh | None = None
    """How SSH reaches the host. Only for existing machines, which need it."""


# A zone of the region itself. Local and Wavelength Zones have longer names, e.g. us-west-2-lax-1a.
AvailabilityZone = Annotated[str, StringConstraints(pattern=r"^[a-z]{2}(-[a-z]+)+-[0-9][a-z]$")]


class Network(Model):
    vpc_cidr: Cidr = IPv4Network("10.0.0.0/16")
    """Range of the VPC. Only EC2 machines have one."""
    subnets: dict[DnsLabel, Cidr] = Field(
        default_factory=lambda: {"control": IPv4Network("10.0.1.0/24"), "workers": IPv4Network("10.0.2.0/24")},
        min_length=1,
    )
    """Range of each subnet, by the subnet's name. On EC2 each is inside vpcCidr."""
    zones: dict[DnsLabel, AvailabilityZone] = Field(default_factory=dict)
    """Availability zone of a subnet, by the subnet's name, e.g. {workers: us-west-2b}. Only for EC2. Default: the first
    zone that offers the instance type, for all subnets. Traffic between zones costs by the gigabyte."""
    mtu: Mtu | None = None
    """MTU between nodes, in bytes. Default: 9001 on EC2 and in local machines, 1500 on existing hosts."""


class Argument(Model):
    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]*$")]
    """Name of the argument without the two hyphens, e.g. service-node-port-range."""
    value: str
    """Value of the argument."""


class ApiServer(Model):
    # The alias is given because the generator would make certSans.
    cert_sans: tuple[HostName, ...] = Field(default=(), alias="certSANs")
    """Further names and addresses in the API server's certificate, e.g. [k8s.example.com]."""
    extra_args: tuple[Argument, ...] = ()
    """Further arguments of kube-apiserver, e.g. [{name: service-node-port-range, value: 30000-32000}]."""


class Patch(Model):
    target: Literal[
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "etcd",
        "kubeletconfiguration",
        "corednsdeployment",
        "kubeproxydaemonset",
    ]
    """What is patched: a static pod of the control planes, every kubelet's configuration, CoreDNS, or kube-proxy, which
    needs Kubernetes 1.37."""
    type: Literal["strategic", "merge", "json"] = "strategic"
    """How it is patched: strategic and merge take a part of the object, json a list of operations (RFC 6902)."""
    patch: Annotated[Any, WithJsonSchema({"type": ["object", "array"]})]
    """The patch, e.g. {imageGCHighThresholdPercent: 70} for kubeletconfiguration."""


class Kubernetes(Model):
    version: versions.Version = versions.DEFAULT_KUBERNETES
    """Version of Kubernetes. CRI-O has the same minor version."""
    pod_cidr: Cidr = DEFAULT_POD_CIDR
    """Range of the pod network, kubeadm's podSubnet. Every pool is inside it."""
    service_cidr: Cidr = IPv4Network("10.96.0.0/12")
    """Range of the Services' addresses, kubeadm's serviceSubnet."""
    dns_domain: str = "cluster.local"
    """DNS domain of the cluster."""
    control_plane_endpoint: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]+:[0-9]{1,5}$")] | None = None
    """host:port of a load balancer in front of all control planes. Default: on EC2, a load balancer that the lab makes
    if it has several control planes; else the first control plane."""
    api_server: ApiServer = ApiServer.model_construct()
    """Further settings of the API server, as in kubeadm's ClusterConfiguration. kubeadm reads them when it makes the
    cluster."""
    patches: tuple[Patch, ...] = ()
    """Patches that kubeadm applies to what it writes, in this order, on every node. It does so when a node is made or
    gets another version."""
    allow_even_control_planes: bool = False
    """Allow an even number of control planes. It tolerates no more losses than one control plane less does."""


def default_nodes() -> tuple[Node, ...]:
    """The machines of the cFOS guide. In a new cluster, nodes of these names get the blocks that the guide shows."""
    rows = [
        ("ip1001100", "control-plane", "control", "10.0.1.100"),
        ("ip-10-0-2-200", "worker", "workers", "10.0.2.200"),
        ("ip-10-0-2-201", "worker", "workers", "10.0.2.201"),
    ]
    return tuple(
        Node.model_validate(dict(zip(("name", "role", "subnet", "address"), row, strict=True))) for row in rows
    )


def counted_nodes(
    control_planes: int, workers: int, subnets: Mapping[str, IPv4Network], first_host: int
) -> tuple[Node, ...]:
    """The nodes control1, control2, … and worker1, worker2, …, for a lab that gives only their numbers.

    Control planes are in the first subnet. Workers are in the other subnets in turn, or in the first if there is no
    other. A node's name and address do not depend on how many others there are, so that a changed number adds or
    removes nodes and leaves the rest alone. `first_host`: the first host number in a subnet that a node may have.
    Raises ValueError with the name of a subnet that has no room.
    """
    names = list(subnets)
    found = []
    for role, count, places in (
        ("control-plane", control_planes, names[:1]),
        ("worker", workers, names[1:] or names[:1]),
    ):
        for index in range(count):
            name = places[index % len(places)]
            cidr = subnets[name]
            # A subnet of 64 addresses or more has room to begin at a round number.
            host = (10 if cidr.num_addresses >= 64 else first_host) + index // len(places)
            if role == "worker" and places == names[:1]:
                host += MOST_CONTROL_PLANES
            if host >= cidr.num_addresses - 1:
                raise ValueError(name)
            kind = "control" if role == "control-plane" else "worker"
            found.append(
                Node.model_validate(
                    {"name": f"{kind}{index + 1}", "role": role, "subnet": name, "address": str(cidr[host])}
                )
            )
    return tuple(found)
