"""The stack file, key by key. Keys are Kubernetes' and Calico's own words in camelCase.

These models check each value by itself; `rules.py` checks the values against one another. Every model is frozen and
refuses keys it does not know. `python -m components.spec.schema` writes the JSON schema that editors complete from.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError

from components.spec import pins
from components.spec.modes import MODES, TUNNELS, WIREGUARD, Encapsulation, Mode, Tunnel

DnsLabel = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
Version = Annotated[str, StringConstraints(pattern=r"^\d{1,3}\.\d{1,3}\.\d{1,3}$")]
InterfaceName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,15}$")]
UserName = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_-]{0,31}$")]
HostName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$")]
Line = Annotated[str, StringConstraints(pattern=r"^[^\n]*[^\s][^\n]*$")]
AbsolutePath = Annotated[str, StringConstraints(pattern=r"^/[^:\n]*$")]
Cidr = IPv4Network
Port = Annotated[int, Field(ge=1, le=65535)]
Mtu = Annotated[int, Field(ge=1280, le=9216)]
Labels = dict[str, str]

Switch = Literal["Enabled", "Disabled"]


class Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, use_attribute_docstrings=True, hide_input_in_errors=True
    )


# --- machines -------------------------------------------------------------------------------------------------------


class Mount(Model):
    host_path: AbsolutePath
    """Path on this computer."""
    container_path: AbsolutePath
    """Path inside the machine."""
    read_only: bool = False
    """Let the machine read, not write."""


class MachineProvider(Model):
    """What the program must know of a kind of machines beside its keys. Each provider says what is different for it, so
    that nothing else has to ask for a provider by name."""

    default_link_mtu: ClassVar[int] = 1500
    """MTU between the nodes in bytes, where the stack file has no network.mtu."""
    largest_link_mtu: ClassVar[int] = 9216
    """The most that network.mtu may be, in bytes."""
    hosts_stay: ClassVar[bool] = False
    """Whether the hosts outlive the lab. If so, destroy undoes on each host what was done there."""
    in_containers: ClassVar[bool] = False
    """Whether the machines share this computer's swap, disk and connection tracking, which are then left alone."""
    in_vpc: ClassVar[bool] = False
    """Whether the subnets are parts of network.vpcCidr."""
    first_node_host: ClassVar[int] = 1
    """The first host number of a subnet that a node may have. Those before it belong to `subnet_owner`."""
    subnet_owner: ClassVar[str] = "the gateway"
    subnet_router: ClassVar[str] = "the router between them"
    """What routes between the subnets."""
    router_may_peer: ClassVar[bool] = False
    """Whether that router may be one of calico.peers, and so learn the pods' addresses."""
    typical_seconds: ClassVar[Mapping[str, Mapping[str, float]]] = {}
    """How long a phase of `up` or `destroy` takes, where it differs from the common value in cli/lifecycle/progress.py.
    The phases are the names there."""

    provider: str

    @property
    def private_workers(self) -> bool:
        """Whether the workers have no public addresses."""
        return False

    def power_refusal(self, verb: Literal["stop", "start"]) -> str | None:
        """Why `./lab stop` or `./lab start` cannot switch the machines, and what to do instead; None where it can.
        STACK stands for the stack's name."""
        return (
            f"machines.provider: {self.provider} — these machines cannot be switched off; ./lab destroy STACK instead"
        )


class AwsMachines(MachineProvider):
    """EC2 instances in a VPC of the lab's own."""

    # AWS, "Network maximum transmission unit (MTU) for your EC2 instance".
    default_link_mtu = 9001
    largest_link_mtu = 9001
    in_vpc = True
    # AWS, "Subnet CIDR blocks": the first four addresses of a subnet are taken, and the last.
    first_node_host = 4
    subnet_owner = "AWS"
    subnet_router = "the VPC's router"
    typical_seconds: ClassVar = {"up": {"machines": 90}, "destroy": {"machines": 170}}

    provider: Literal["aws"]
    operator_cidrs: tuple[Cidr, ...] = Field(min_length=1)
    """Where SSH and the Kubernetes API are reached from: your own address, e.g. [203.0.113.7/32]. Never the world."""
    instance_type: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+\.[a-z0-9-]+$")] = "t3.large"
    """At least 2 vCPU and 2 GiB for a control plane."""
    image: Annotated[str, StringConstraints(pattern=r"^ami-[0-9a-f]{8,17}$")] | None = None
    """An AMI. Without one, today's Ubuntu 24.04 is looked up when a machine is made and stays for its life."""
    user: UserName = "ubuntu"
    """User that the AMI lets in by SSH."""
    volume_size: Annotated[int, Field(ge=10, le=1024)] = 30
    """Root volume in GiB (gp3, encrypted)."""
    spot: bool = False
    """Spot instances: about a third of the price, may be taken away."""
    worker_access: Literal["Public", "InstanceConnect"] = "Public"
    """Workers with public addresses; or with none, reached through an EC2 Instance Connect Endpoint and going out
    through a NAT gateway, which costs by the hour and by the gigabyte."""

    @property
    def private_workers(self) -> bool:
        return self.worker_access == "InstanceConnect"

    def power_refusal(self, verb: Literal["stop", "start"]) -> str | None:
        if self.spot and verb == "stop":
            return (
                "machines.spot: true — a one-time spot instance cannot be stopped, only terminated. "
                "./lab destroy STACK now and ./lab up STACK tomorrow, or set machines.spot: false"
            )
        return None


class LocalMachines(MachineProvider):
    """Containers on this computer that run systemd and sshd: the lab without a cloud account."""

    # As on EC2, so that a lab shows the same numbers here.
    default_link_mtu = 9001
    in_containers = True
    first_node_host = 2
    typical_seconds: ClassVar = {"up": {"machines": 60, "prepare": 90, "calico": 90}, "destroy": {"machines": 15}}

    provider: Literal["local"]
    engine: Literal["auto", "podman", "docker"] = "auto"
    """The program that runs containers; auto takes podman where it is, else docker."""
    image: Line | None = None
    """A machine image that has systemd and sshd. Without one it is built from Debian 12."""
    extra_mounts: tuple[Mount, ...] = ()
    """Directories of this computer that every machine sees."""
    run_args: tuple[Line, ...] = ()
    """Further arguments of the engine's `run`, e.g. ["--runtime", "runc"]."""
    cpus: Annotated[float, Field(gt=0)] | None = None
    """CPUs of each machine, e.g. 2 or 1.5; without a word all."""
    memory: Annotated[str, StringConstraints(pattern=r"^\d+(Mi|Gi)$")] | None = None
    """Memory of each machine, e.g. 4Gi."""
    user: UserName = "ubuntu"
    """User that SSH connects as."""

    def power_refusal(self, verb: Literal["stop", "start"]) -> str | None:
        return (
            "machines.provider: local — containers on this computer cost nothing while they idle; "
            "./lab destroy STACK frees their memory, ./lab up STACK makes them again"
        )


class JumpHost(Model):
    address: HostName
    """Host name or address of the jump host."""
    user: UserName
    """User on the jump host."""
    port: Port = 22
    """SSH port of the jump host."""
    host_key: str | None = None
    """The jump host's public key: one line as in known_hosts without the host name."""


class ExistingMachines(MachineProvider):
    """Hosts that exist already and answer on SSH."""

    hosts_stay = True
    router_may_peer = True
    typical_seconds: ClassVar = {"up": {"machines": 5}, "destroy": {"prepare": 30, "cluster": 30}}

    provider: Literal["existing"]
    user: UserName
    """User that SSH connects as; root, or one with sudo that asks for no password."""
    port: Port = 22
    """SSH port of the hosts."""
    private_key_file: Line | None = None
    """Path of the SSH private key on this computer; without one the SSH agent is asked."""
    jump_host: JumpHost | None = None
    """The host that SSH goes through to reach them."""

    def power_refusal(self, verb: Literal["stop", "start"]) -> str | None:
        return (
            "machines.provider: existing — this program neither made these hosts nor switches them; shut them down "
            "yourself, and the cluster comes back when they do"
        )


Machines = Annotated[AwsMachines | LocalMachines | ExistingMachines, Field(discriminator="provider")]


class Ssh(Model):
    """How one existing host is reached, where it differs from `machines`."""

    host_key: str
    """The host's public key: one line, `ssh-ed25519 AAAA…` (from the host: cat /etc/ssh/ssh_host_ed25519_key.pub)."""
    address: HostName | None = None
    """Where SSH connects to, when that is not the node's own address."""
    user: UserName | None = None
    """User, instead of machines.user."""
    port: Port | None = None
    """Port, instead of machines.port."""
    private_key_file: Line | None = None
    """Private key, instead of machines.privateKeyFile."""


class Taint(Model):
    key: str
    """[prefix/]name"""
    value: str = ""
    """May be empty."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]
    """What it does to pods that do not tolerate it."""


class Node(Model):
    name: DnsLabel
    """Host name and name of the Kubernetes Node. Calico chooses a node's first block by it."""
    role: Literal["control-plane", "worker"] = "worker"
    """What kubeadm makes of it."""
    subnet: DnsLabel
    """One of network.subnets."""
    address: IPv4Address
    """The node's IPv4 address, in its subnet."""
    labels: Labels = Field(default_factory=dict)
    """Labels of the Node."""
    taints: tuple[Taint, ...] | None = None
    """Taints of the Node, e.g. [{key: gpu, effect: NoSchedule}]. Left out, a control plane gets kubeadm's; [] leaves it
    without a taint, so that it takes every pod."""
    ssh: Ssh | None = None
    """For existing machines: how this host is reached."""


class Network(Model):
    vpc_cidr: Cidr = IPv4Network("10.0.0.0/16")
    """Range of the VPC, on EC2."""
    subnets: dict[DnsLabel, Cidr] = Field(
        default_factory=lambda: {"control": IPv4Network("10.0.1.0/24"), "workers": IPv4Network("10.0.2.0/24")}
    )
    """Subnets by name; on EC2 inside vpcCidr."""
    mtu: Mtu | None = None
    """MTU between nodes, in bytes. Without one: 9001 on EC2 and in local machines, 1500 on existing hosts."""


class Kubernetes(Model):
    version: Version = pins.DEFAULT_KUBERNETES
    """Version of Kubernetes and, by its minor, of CRI-O."""
    pod_cidr: Cidr = IPv4Network("10.244.0.0/16")
    """kubeadm's podSubnet; every pool lies in it."""
    service_cidr: Cidr = IPv4Network("10.96.0.0/12")
    """kubeadm's serviceSubnet: addresses of Services."""
    dns_domain: str = "cluster.local"
    """The cluster's DNS domain."""
    control_plane_endpoint: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]+:\d{1,5}$")] | None = None
    """host:port that leads to every control plane (a load balancer). Without one: the first control plane."""
    allow_even_control_planes: bool = False
    """Two or four control planes tolerate no more losses than one or three; say so to have them all the same."""


# --- calico ---------------------------------------------------------------------------------------------------------


class Pool(Model):
    name: DnsLabel
    """Name of the IPPool."""
    cidr: Cidr
    """Its addresses, inside kubernetes.podCidr."""
    block_size: Annotated[int, Field(ge=20, le=32)] = 26
    """Prefix length of the blocks that nodes claim: 24 is 256 addresses, 26 is 64."""
    encapsulation: Encapsulation = "VXLAN"
    """How packets travel between nodes. CrossSubnet: encapsulated only between subnets."""
    nat_outgoing: bool = True
    """Translate what leaves the pools to the node's address."""
    node_selector: str = "all()"
    """Nodes that take addresses from it, in Calico's selector language, e.g. all()."""
    # Spelt by hand: the generator would say disableBgpExport.
    disable_bgp_export: bool = Field(default=False, alias="disableBGPExport")
    """Keep the pool's routes from BGP peers."""

    @property
    def mode(self) -> Mode:
        """What its encapsulation means."""
        return MODES[self.encapsulation]


class BgpPeer(Model):
    name: DnsLabel
    """Name of the BGPPeer."""
    peer_ip: IPv4Address = Field(alias="peerIP")
    """The peer's IPv4 address."""
    as_number: Annotated[int, Field(ge=1, le=4294967295)]
    """The peer's AS number."""
    node_selector: str = "all()"
    """Nodes that peer with it."""


class Calico(Model):
    version: Version = pins.DEFAULT_CALICO
    """Version of Calico."""
    install: Literal["operator", "manifest"] = "operator"
    """By the Tigera operator, or by the calico.yaml manifest."""
    bgp: Switch = "Disabled"
    """Routes by BIRD. IPIP and None need it; VXLAN's are Felix's own."""
    container_ip_forwarding: Switch = Field(default="Disabled", alias="containerIPForwarding")
    """Let pods forward packets (net.ipv4.ip_forward in the pod)."""
    linux_dataplane: Literal["Iptables", "Nftables"] = "Iptables"
    """What Felix programs."""
    wireguard: bool = False
    """Encrypt pod traffic between nodes (Felix wireguardEnabled, UDP 51820)."""
    ipam: Literal["Calico", "HostLocal"] = "Calico"
    """Calico: blocks from the pools. HostLocal: the node's podCIDR."""
    strict_affinity: bool = False
    """Forbid nodes to borrow addresses from one another's blocks."""
    node_address_autodetection: Literal["FirstFound", "NodeInternalIP"] = "NodeInternalIP"
    """Which of its addresses a node uses."""
    interface: str | None = None
    """Regular expression of the interface whose address Calico takes, e.g. eth1; overrides autodetection."""
    mtu: Mtu | None = None
    """Pod MTU in bytes; without one it follows from the network's and the encapsulations."""
    as_number: Annotated[int, Field(ge=1, le=4294967295)] = 64512
    """The nodes' AS number."""
    route_reflectors: tuple[DnsLabel, ...] = ()
    """Nodes that reflect BGP routes; the node-to-node mesh is switched off when there are any."""
    peers: tuple[BgpPeer, ...] = ()
    """BGP peers outside the cluster."""
    pools: tuple[Pool, ...] = Field(
        default=(Pool.model_validate({"name": "default-ipv4-ippool", "cidr": "10.244.0.0/16", "blockSize": 24}),),
        min_length=1,
    )
    """Where pods' addresses come from. By the operator, edits of an IPPool are undone: change it here."""


# --- multus, networks, workloads --------------------------------------------------------------------------------------


class Delegate(Model):
    """A CNI network that Multus delegates pods' eth0 to: Calico's plugin over host-local in the node's own block."""

    name: DnsLabel
    """Name of the CNI network, its file and its NetworkAttachmentDefinition in kube-system."""
    range_start: Annotated[int, Field(ge=1)]
    """First address, counted from the start of the node's block: 150 in 10.244.6.0/24 is 10.244.6.150."""
    range_end: Annotated[int, Field(ge=1)]
    """Last address, counted the same way."""
    pool: DnsLabel | None = None
    """The pool whose blocks the ranges lie in; without one, the first."""
    routes: tuple[Cidr, ...] = ()
    """The pod's only routes; without any, it gets a default route."""
    allow_ip_forwarding: bool | None = Field(default=None, alias="allowIPForwarding")
    """Without a word, as calico.containerIPForwarding."""


class Multus(Model):
    version: Version = pins.DEFAULT_MULTUS
    """Version of Multus."""
    cluster_network: DnsLabel
    """The delegate that pods get when they ask for nothing."""
    delegates: tuple[Delegate, ...] = Field(min_length=1)
    """The networks that can give a pod its eth0."""
    log_level: Literal["debug", "verbose", "error", "panic"] = "verbose"
    """How much Multus writes into its log."""


class Route(Model):
    dst: Cidr
    """Destination, e.g. 10.96.0.0/12."""
    gateway: IPv4Address | None = None
    """Next hop inside the network's subnet; without one the network's gateway."""


class HostLocal(Model):
    type: Literal["host-local"] = "host-local"
    """Addresses from a file on each node: unique on the node, not in the cluster."""
    range_start: IPv4Address | None = None
    """First address for pods; without one the subnet's first."""
    range_end: IPv4Address | None = None
    """Last address for pods; without one the subnet's last."""
    gateway: IPv4Address | None = None
    """Without one the subnet's first address."""


class StaticAddresses(Model):
    type: Literal["static"]
    """The same fixed addresses for every pod: one pod at a time."""
    addresses: tuple[IPv4Interface, ...] = Field(min_length=1)
    """Addresses with their prefix length, e.g. 10.1.128.7/24."""
    gateway: IPv4Address | None = None
    """Next hop of routes that name none."""


class Whereabouts(Model):
    type: Literal["whereabouts"]
    """Addresses unique in the cluster; the whereabouts plugin must be on the nodes."""
    range_start: IPv4Address | None = None
    """First address for pods; without one the subnet's first."""
    range_end: IPv4Address | None = None
    """Last address for pods; without one the subnet's last."""
    gateway: IPv4Address | None = None
    """Next hop of routes that name none."""


Ipam = Annotated[HostLocal | StaticAddresses | Whereabouts, Field(discriminator="type")]


class NetworkBase(Model):
    name: DnsLabel
    """Name of the NetworkAttachmentDefinition."""
    namespace: DnsLabel = "default"
    """Its namespace."""


class AddressedNetwork(NetworkBase):
    subnet: Cidr
    """Range of the network."""
    ipam: Ipam = HostLocal()
    """Who hands out addresses; without a word host-local."""
    routes: tuple[Route, ...] = ()
    """Routes that pods get through the network."""
    mtu: Mtu | None = None
    """MTU of the interface in bytes."""


class BridgeNetwork(AddressedNetwork):
    type: Literal["bridge"]
    """A Linux bridge on every node."""
    bridge: InterfaceName
    """Name of the Linux bridge on every node."""
    is_gateway: bool = True
    """Put the subnet's first address on the bridge."""
    ip_masq: bool = False
    """Translate what leaves the node to the node's address."""
    hairpin_mode: bool = False
    """Let a pod reach itself through the bridge."""


class MacvlanNetwork(AddressedNetwork):
    type: Literal["macvlan"]
    """Interfaces with MAC addresses of their own on one of the node's."""
    master: InterfaceName
    """The node's interface."""
    mode: Literal["bridge", "private", "vepa", "passthru"] = "bridge"
    """How the pods on one master reach each other."""


class IpvlanNetwork(AddressedNetwork):
    type: Literal["ipvlan"]
    """Interfaces that share the MAC address of one of the node's."""
    master: InterfaceName
    """The node's interface."""
    mode: Literal["l2", "l3", "l3s"] = "l2"
    """Switch (l2) or route (l3, l3s) on the master."""


class HostDeviceNetwork(AddressedNetwork):
    type: Literal["host-device"]
    """One of the node's interfaces, moved into the pod."""
    device: InterfaceName
    """The node's interface."""


_Config = Annotated[dict[str, Any], Field(min_length=1)]


def _from_json(value: object) -> object:
    """JSON text, as definitions in the manuals have it, as what it says."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        where = {"what": error.msg, "line": error.lineno, "column": error.colno}
        raise PydanticCustomError("json_text", "is not JSON: {what} (line {line}, column {column})", where) from None
    except (ValueError, RecursionError) as error:
        raise PydanticCustomError("json_text", "is not JSON: {what}", {"what": str(error)}) from None


class CustomNetwork(NetworkBase):
    """A CNI configuration as you write it."""

    type: Literal["custom"]
    """A CNI configuration as you write it."""
    config: Annotated[_Config, BeforeValidator(_from_json, json_schema_input_type=_Config | str)]
    """With cniVersion, and type or plugins; a mapping, or the same as JSON text."""


AttachedNetwork = Annotated[
    BridgeNetwork | MacvlanNetwork | IpvlanNetwork | HostDeviceNetwork | CustomNetwork, Field(discriminator="type")
]


class Attachment(Model):
    name: DnsLabel
    """One of networks."""
    default_route: IPv4Address | None = None
    """Gateway of the pod's default route through this network; the default routes of the others go away."""


class Workload(Model):
    """A Deployment for demonstrations."""

    name: DnsLabel
    """Name of the Deployment."""
    image: Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]+(:\d+)?/[^\s:@]+(:[\w.-]+)?(@sha256:[0-9a-f]{64})?$")]
    """Full image name with its registry, e.g. docker.io/library/busybox:1.37."""
    namespace: DnsLabel = "default"
    """Its namespace, made where it is not there."""
    replicas: Annotated[int, Field(ge=0, le=500)] = 1
    """How many pods."""
    command: tuple[str, ...] = ()
    """Command instead of the image's own."""
    on_control_plane: bool = False
    """Tolerate the control planes' taint."""
    node_selector: Labels = Field(default_factory=dict)
    """Labels of the nodes that take the pods."""
    default_network: DnsLabel | None = None
    """The delegate that gives eth0, instead of multus.clusterNetwork."""
    networks: tuple[Attachment, ...] = ()
    """Further interfaces: net1, net2, …"""


# --- outside addresses ------------------------------------------------------------------------------------------------


Registry = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]+(:\d+)?(/[A-Za-z0-9._/-]+)?$")]


class ImageMirror(Model):
    registry: Registry
    """e.g. registry.k8s.io"""
    mirror: Registry
    """host[:port][/path] asked first."""
    insecure: bool = False
    """Plain HTTP or an unknown certificate is accepted."""


Url = Annotated[str, StringConstraints(pattern=r"^(https?|file)://[^\s]+[^/\s]$")]


Fingerprint = Annotated[str, StringConstraints(pattern=r"^[0-9A-F]{40}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class CalicoctlSums(Model):
    """From the release's SHA256SUMS."""

    amd64: Sha256 | None = None
    """SHA-256 of calicoctl-linux-amd64."""
    arm64: Sha256 | None = None
    """SHA-256 of calicoctl-linux-arm64."""


class Mirrors(Model):
    """Every address outside the lab, without the final slash."""

    kubernetes_packages: Url = "https://pkgs.k8s.io/core:/stable:"
    """Packages of Kubernetes: BASE/v1.36/deb/ is a repository."""
    kubernetes_key: Fingerprint = pins.KUBERNETES_KEY
    """Fingerprint of the key that signs the Kubernetes packages; packages signed by another are refused."""
    crio_packages: Url = "https://download.opensuse.org/repositories/isv:/cri-o:/stable:"
    """Packages of CRI-O: BASE/v1.36/deb/ is a repository."""
    crio_key: Fingerprint = pins.CRIO_KEY
    """Fingerprint of the key that signs the CRI-O packages."""
    calico_manifests: Url = "https://raw.githubusercontent.com/projectcalico/calico"
    """BASE/v3.32.1/manifests/ holds the manifests; their checksums are pinned."""
    calicoctl: Url = "https://github.com/projectcalico/calico/releases/download"
    """BASE/v3.32.1/ holds calicoctl."""
    calicoctl_sha256: CalicoctlSums = CalicoctlSums()
    """Checksums of calicoctl, where none is pinned for the version. Without any it is not installed."""
    images: tuple[ImageMirror, ...] = ()
    """Mirrors of container registries."""


def _default_nodes() -> tuple[Node, ...]:
    """Seed 000's machines; a fresh cluster gives these names the very blocks the seed shows."""
    rows = [
        ("ip1001100", "control-plane", "control", "10.0.1.100"),
        ("ip-10-0-2-200", "worker", "workers", "10.0.2.200"),
        ("ip-10-0-2-201", "worker", "workers", "10.0.2.201"),
    ]
    return tuple(
        Node.model_validate(dict(zip(("name", "role", "subnet", "address"), row, strict=True))) for row in rows
    )


class Lab(Model):
    """One Kubernetes networking lab."""

    machines: Machines
    """Where the nodes run: EC2, this computer, or hosts that exist."""
    network: Network = Network()
    """What the machines stand in."""
    nodes: tuple[Node, ...] = Field(default_factory=_default_nodes, min_length=1)
    """Without a word: one control plane and two workers."""
    kubernetes: Kubernetes = Kubernetes()
    """The cluster that kubeadm makes."""
    calico: Calico = Calico()
    """The pods' first network."""
    multus: Multus | None = None
    """Several networks for a pod. Without it, Calico alone."""
    networks: tuple[AttachedNetwork, ...] = ()
    """Networks that pods can be attached to beside their first (NetworkAttachmentDefinitions)."""
    workloads: tuple[Workload, ...] = ()
    """Deployments for demonstrations."""
    mirrors: Mirrors = Mirrors()
    """Other addresses for everything that comes from outside."""
    owner: Annotated[str, StringConstraints(pattern=r"^[\w .:/=+@-]{1,128}$")] = "cni-lab"
    """Whose lab this is; a tag on everything in a cloud."""
    verify: bool = False
    """Check the whole lab at the end of `up`; the report is the output `verification` (see `./lab verify`)."""
    ttl_hours: Annotated[int, Field(ge=1, le=720)] | None = None
    """Hours to live. A stack that has one is ephemeral: the nightly job may destroy it when they are over."""

    @property
    def control_planes(self) -> tuple[Node, ...]:
        return tuple(n for n in self.nodes if n.role == "control-plane")

    @property
    def workers(self) -> tuple[Node, ...]:
        return tuple(n for n in self.nodes if n.role == "worker")

    @property
    def private_workers(self) -> bool:
        """Whether the workers are machines without public addresses in a VPC."""
        return self.machines.private_workers

    @property
    def link_mtu(self) -> int:
        """MTU between nodes, in bytes."""
        return self.network.mtu or self.machines.default_link_mtu

    @property
    def encapsulations(self) -> frozenset[str]:
        return frozenset(pool.encapsulation for pool in self.calico.pools)

    @property
    def tunnels(self) -> tuple[Tunnel, ...]:
        """Every kind of tunnel that the nodes have."""
        found = {pool.mode.tunnel for pool in self.calico.pools}
        if self.calico.wireguard:
            found.add(WIREGUARD)
        return tuple(tunnel for tunnel in TUNNELS if tunnel in found)

    @property
    def sends_plain(self) -> bool:
        """Whether the pools send packets between some nodes as they are. Inside WireGuard, where the lab has it."""
        return any(pool.mode.sends_plain for pool in self.calico.pools)

    def pool_of(self, delegate: Delegate) -> Pool:
        """The pool whose blocks hold the delegate's ranges. Raises KeyError where the name is no pool's."""
        if delegate.pool is None:
            return self.calico.pools[0]
        return {pool.name: pool for pool in self.calico.pools}[delegate.pool]
