"""The key `machines`: what the nodes run on, and what differs between the providers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from components.spec.models.base import AbsolutePath, Cidr, HostName, Line, Model, Port, UserName


class Mount(Model):
    host_path: AbsolutePath
    """Path of the directory on this computer."""
    container_path: AbsolutePath
    """Path of the directory in the machine."""
    read_only: bool = False
    """Let the machine read the directory and not write to it."""


class MachineProvider(Model):
    """The facts about a kind of machines that are not keys of the stack file.

    Each provider sets what is different for it, so that no other code has to ask for a provider by name.
    """

    default_link_mtu: ClassVar[int] = 1500
    """MTU between the nodes in bytes, if the stack file has no network.mtu."""
    largest_link_mtu: ClassVar[int] = 9216
    """The most that network.mtu may be, in bytes."""
    hosts_stay: ClassVar[bool] = False
    """Whether the hosts remain after the lab. If so, destroy undoes every change on them."""
    in_containers: ClassVar[bool] = False
    """Whether the machines share this computer's swap, disk and connection tracking, which then must not be changed."""
    in_vpc: ClassVar[bool] = False
    """Whether the subnets are inside network.vpcCidr."""
    first_node_host: ClassVar[int] = 1
    """The first host number in a subnet that a node may have. The numbers before it belong to `subnet_owner`."""
    subnet_owner: ClassVar[str] = "the gateway"
    subnet_router: ClassVar[str] = "the router between them"
    """The router between the subnets."""
    router_may_peer: ClassVar[bool] = False
    """Whether that router may be one of calico.peers, from which it learns routes to the pods."""
    typical_seconds: ClassVar[Mapping[str, Mapping[str, float]]] = {}
    """The usual time in seconds of each phase of `up` and `destroy` that differs from the common value in
    cli/lifecycle/progress.py, which also has the names of the phases."""

    provider: str

    @property
    def private_workers(self) -> bool:
        """Whether the workers have no public addresses."""
        return False

    @property
    def api_proxy(self) -> str | None:
        """URL of the proxy through which this computer reaches the API. None: without one."""
        return None

    def power_refusal(self, verb: Literal["stop", "start"]) -> str | None:
        """Why `./lab stop` or `./lab start` cannot switch the machines, and what to do instead. None if it can.

        The text has STACK in place of the stack's name.
        """
        return (
            f"machines.provider: {self.provider} — these machines cannot be switched off; ./lab destroy STACK instead"
        )


def architecture_of(instance_type: str) -> Literal["amd64", "arm64"]:
    """The architecture of an EC2 instance type, as Debian calls it.

    AWS, "Amazon EC2 instance type naming conventions": a g after the generation means a Graviton processor. a1, the
    first such family, has none.
    """
    family = instance_type.partition(".")[0]
    return "arm64" if family == "a1" or re.match(r"[a-z]+\d+g", family) else "amd64"


class AwsMachines(MachineProvider):
    """EC2 instances in a VPC of the lab's own."""

    # AWS, "Network maximum transmission unit (MTU) for your EC2 instance".
    default_link_mtu = 9001
    largest_link_mtu = 9001
    in_vpc = True
    # AWS, "Subnet CIDR blocks": AWS reserves the first four addresses of a subnet and the last one.
    first_node_host = 4
    subnet_owner = "AWS"
    subnet_router = "the VPC's router"
    typical_seconds: ClassVar = {"up": {"machines": 90}, "destroy": {"machines": 170}}

    provider: Literal["aws"]
    """EC2 instances."""
    operator_cidrs: tuple[Cidr, ...] = Field(min_length=1)
    """Addresses that may reach SSH and the Kubernetes API: your own, e.g. [203.0.113.7/32]. The whole internet is
    refused."""
    instance_type: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]+\.[a-z0-9-]+$")] = "t3.large"
    """EC2 instance type. A control plane needs at least 2 vCPU and 2 GiB. With a Graviton type such as t4g.large, the
    machines have Arm processors, and the workloads' images must be made for arm64."""
    system: Literal["ubuntu-22.04", "ubuntu-24.04", "ubuntu-26.04"] = "ubuntu-24.04"
    """Distribution of the machines: its newest AMI when a machine is made. The machine keeps that AMI for its life, so
    another word changes only machines that are made later."""
    image: Annotated[str, StringConstraints(pattern=r"^ami-[0-9a-f]{8,17}$")] | None = None
    """AMI id. Overrides machines.system."""
    user: UserName = "ubuntu"
    """User that SSH connects as, one that the AMI has: ubuntu in Ubuntu's images, admin in Debian's."""
    volume_size: Annotated[int, Field(ge=10, le=1024)] = 30
    """Size of the root volume in GiB (gp3, encrypted). A larger one changes live machines in place: their file systems
    grow at the next boot. EC2 refuses a smaller one; it needs new machines."""
    spot: bool = False
    """Use spot instances. They cost about a third, and AWS may end them at any time."""
    worker_access: Literal["Public", "InstanceConnect"] = "Public"
    """Public: workers have public addresses. InstanceConnect: they have none; an EC2 Instance Connect Endpoint leads to
    them, and a NAT gateway, which costs by the hour and by the gigabyte, leads out. The endpoint gives people a shell
    (aws ec2-instance-connect ssh) only if the AMI has the package ec2-instance-connect: Ubuntu's have it, Debian's do
    not."""

    @property
    def architecture(self) -> Literal["amd64", "arm64"]:
        """The architecture of the machines, as Debian calls it."""
        return architecture_of(self.instance_type)

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
    """Containers on this computer that run systemd and sshd. They need no cloud account."""

    # As on EC2, so that a lab has the same numbers here.
    default_link_mtu = 9001
    in_containers = True
    first_node_host = 2
    typical_seconds: ClassVar = {"up": {"machines": 60, "prepare": 90, "calico": 90}, "destroy": {"machines": 15}}

    provider: Literal["local"]
    """Containers on this computer."""
    engine: Literal["auto", "podman", "docker"] = "auto"
    """The program that runs the containers. auto: podman if it is installed, else docker."""
    image: Line | None = None
    """Container image of a machine, with systemd and sshd. Default: an image that is built from Debian 12."""
    extra_mounts: tuple[Mount, ...] = ()
    """Directories of this computer that are mounted into every machine."""
    run_args: tuple[Line, ...] = ()
    """Further arguments for the engine's `run` command, e.g. ["--runtime", "runc"]."""
    cpus: Annotated[float, Field(gt=0)] | None = None
    """CPUs of each machine, e.g. 2 or 1.5. Default: all of this computer's."""
    memory: Annotated[str, StringConstraints(pattern=r"^[0-9]+(Mi|Gi)$")] | None = None
    """Memory of each machine, e.g. 4Gi. Default: no limit."""
    user: UserName = "ubuntu"
    """User that SSH connects as."""

    def power_refusal(self, verb: Literal["stop", "start"]) -> str | None:
        return None


class JumpHost(Model):
    address: HostName
    """Host name or address of the jump host."""
    user: UserName
    """User on the jump host."""
    port: Port = 22
    """SSH port of the jump host."""
    private_key_file: Line | None = None
    """Path of the SSH private key for the jump host. Default: machines.privateKeyFile."""
    host_key: str | None = None
    """Public key of the jump host: one line as in known_hosts, without the host name."""
    socks_port: Port | None = None
    """Port on this computer of a SOCKS proxy that ends on the jump host: `ssh -N -D PORT USER@ADDRESS`, which must run
    while `up`, `verify` or kubectl does. The kubeconfig leads to the API through it. Default: the API is reached
    without the jump host."""


class ExistingMachines(MachineProvider):
    """Hosts that exist already and answer to SSH."""

    hosts_stay = True
    router_may_peer = True
    typical_seconds: ClassVar = {"up": {"machines": 5}, "destroy": {"prepare": 30, "cluster": 30}}

    provider: Literal["existing"]
    """Hosts of your own."""
    user: UserName
    """User that SSH connects as: root, or a user whose sudo asks for no password."""
    port: Port = 22
    """SSH port of the hosts."""
    private_key_file: Line | None = None
    """Path of the SSH private key on this computer. Default: the keys of the SSH agent."""
    jump_host: JumpHost | None = None
    """The host through which SSH reaches the others. Default: none."""

    @property
    def api_proxy(self) -> str | None:
        port = self.jump_host.socks_port if self.jump_host is not None else None
        return f"socks5://127.0.0.1:{port}" if port is not None else None

    def power_refusal(self, verb: Literal["stop", "start"]) -> str | None:
        return (
            "machines.provider: existing — this program neither made these hosts nor switches them; shut them down "
            "yourself, and the cluster comes back when they do"
        )


Machines = Annotated[AwsMachines | LocalMachines | ExistingMachines, Field(discriminator="provider")]
