"""Machines on this computer: containers with systemd and sshd, at the lab's own addresses, without a cloud account.

This computer is the lab's router. Everything made here carries two labels, the stack and the fingerprint of the lab's
SSH key. So the next `up` or `destroy` clears whatever a killed run left, and never touches what others made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import collapse_addresses
from pathlib import Path

import pulumi
from pulumi_command import local, remote

from components.machines.keys import ssh_key
from components.machines.machine import Machine
from components.spec import addresses, models, names
from components.spec.modes import links_for_shell

# debian:bookworm-20260918-slim (docker-library/repo-info, repos/debian/remote), by its digest alone, because podman
# before 5 refuses a name with both a tag and a digest.
BASE_IMAGE = "library/debian@sha256:3783cc01769c7b2b1b83a5c5ad96c815348e28ed7da68e2e3687004faa906251"
# What prepare.sh needs on a Debian machine, and the tools with which people look at a lab.
PACKAGES = (
    "systemd systemd-sysv libpam-systemd dbus openssh-server sudo iproute2 iptables nftables ipset kmod procps "
    "ca-certificates curl gpg jq ethtool conntrack socat tcpdump iputils-ping iputils-arping ebtables hostname "
    "netbase less"
)
DIAL_ATTEMPTS = 30
Environment = dict[str, pulumi.Input[str]]


@dataclass(frozen=True)
class ContainersArgs:
    """`lab`: a lab whose provider is local. `stack`: the stack's name, part of every name on this computer."""

    lab: models.Lab
    stack: str


def built_image() -> str:
    """Name of the image that is built where the stack file names none. It contains a checksum of everything that the
    image is made of, so a change of either file, even of a comment, replaces the machines of every local lab."""
    folder = Path(__file__).parent
    files = b"".join((folder / name).read_bytes() for name in ("local-image-setup.sh", "Containerfile"))
    recipe = hashlib.sha256(files + f"{BASE_IMAGE} {PACKAGES}".encode()).hexdigest()
    return f"localhost/cni-lab-machine:{recipe[:12]}"


def is_insecure(lab: models.Lab, image: str) -> bool:
    """Whether an image comes from a host that the stack file calls insecure: plain HTTP, or an unknown certificate."""
    host = image.split("/")[0]
    return any(mirror.insecure and mirror.mirror.split("/")[0] == host for mirror in lab.mirrors.images)


def network_environment(lab: models.Lab, stack: str, subnet: str) -> dict[str, str]:
    """The variables of network.sh that follow from the stack file."""
    cidr = lab.network.subnets[subnet]
    ranges = [lab.kubernetes.service_cidr, lab.kubernetes.pod_cidr, *(pool.cidr for pool in lab.calico.pools)]
    return {
        "NETWORK": f"cni-lab-{stack}-{subnet}",
        "SUBNET": str(cidr),
        "GATEWAY": str(cidr[1]),
        "MTU": str(lab.link_mtu),
        "LAB_SUBNETS": " ".join(map(str, lab.network.subnets.values())),
        "CLUSTER_RANGES": " ".join(map(str, collapse_addresses(ranges))),
    }


class Containers(pulumi.ComponentResource):
    """`machines` by node name, in the stack file's order."""

    machines: dict[str, Machine]

    def __init__(self, name: str, args: ContainersArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(names.LOCAL_MACHINES, name, {}, opts)
        lab, settings = args.lab, args.lab.machines
        assert isinstance(settings, models.LocalMachines)
        self._name, self._lab, self._settings, self._stack = name, lab, settings, args.stack
        self._own = pulumi.ResourceOptions(parent=self)
        self._login = ssh_key(f"{name}-login", self._own)
        owner = self._login.resource.public_key_fingerprint_sha256

        # Its delete removes whatever is left. It is created first, and therefore deleted last.
        engine = self._command(
            "engine",
            "engine.sh",
            {"STACK": args.stack, "OWNER": owner, "ENGINE": settings.engine},
            delete="delete",
            previous_output=True,
        )
        self._common: Environment = {"STACK": args.stack, "OWNER": owner, "ENGINE": engine.stdout}
        needs = " ".join(addresses.kernel_modules(lab))
        kernel = self._command(
            "kernel",
            "kernel.sh",
            {"KERNEL": needs, "TUNNEL_LINKS": links_for_shell(lab.tunnels), "MACHINES": str(len(lab.nodes))},
            after=engine,
        )
        image = self._image(kernel)
        networks = {subnet: self._network(subnet, kernel) for subnet in lab.network.subnets}
        self.machines = {node.name: self._machine(node, image, networks[node.subnet]) for node in lab.nodes}
        self.register_outputs({"machines": {node: machine.id for node, machine in self.machines.items()}})

    def _image(self, after: pulumi.Resource) -> local.Command:
        environment: Environment = {**self._common, "LOGIN": self._settings.user}
        pulled = self._settings.image
        if pulled is not None:
            environment["IMAGE"] = pulled
        else:
            mirrors = {m.registry: m.mirror for m in reversed(self._lab.mirrors.images)}
            pulled = f"{mirrors.get('docker.io', 'docker.io')}/{BASE_IMAGE}"
            environment["IMAGE"] = built_image()
            environment["BASE_IMAGE"] = pulled
            environment["PACKAGES"] = PACKAGES
        if is_insecure(self._lab, pulled):
            environment["INSECURE"] = "yes"
        return self._command("image", "image.sh", environment, after=after)

    def _network(self, subnet: str, after: pulumi.Resource) -> local.Command:
        environment: Environment = {**self._common, **network_environment(self._lab, self._stack, subnet)}
        return self._command(
            f"subnet-{subnet}",
            "network.sh",
            environment,
            # The other variables become rules on this computer, which can change in place.
            triggers=["ENGINE", "OWNER", "NETWORK", "SUBNET", "MTU"],
            update="update",
            delete="delete",
            after=after,
        )

    def _machine(self, node: models.Node, image: local.Command, network: local.Command) -> Machine:
        lab, settings = self._lab, self._settings
        host_key = ssh_key(f"{self._name}-host-key-{node.name}", self._own)
        mounts = [f"{m.host_path}:{m.container_path}:{'ro' if m.read_only else 'rw'}" for m in settings.extra_mounts]
        environment: Environment = {
            **self._common,
            "NODE": node.name,
            "NETWORK": f"cni-lab-{self._stack}-{node.subnet}",
            # The script does not use these two: they replace the machine together with its network.
            "SUBNET": str(lab.network.subnets[node.subnet]),
            "MTU": str(lab.link_mtu),
            "ADDRESS": str(node.address),
            "IMAGE": image.stdout,
            "LOGIN": settings.user,
            "AUTHORIZED_KEY": self._login.public,
            "HOST_KEY": host_key.public,
            "CPUS": "" if settings.cpus is None else f"{settings.cpus:g}",
            # The container engines write 4Gi as 4g.
            "MEMORY": "" if settings.memory is None else settings.memory[:-1].lower(),
            "MOUNTS": "\n".join(mounts),
            "RUN_ARGS": "\n".join(settings.run_args),
        }
        made = self._command(
            f"node-{node.name}",
            "machine.sh",
            environment,
            triggers=list(environment),
            stdin=host_key.private,
            update="update",
            delete="delete",
            after=network,
        )
        connection = remote.ConnectionArgs(
            host=str(node.address),
            user=settings.user,
            private_key=self._login.private,
            host_key=host_key.public,
            dial_error_limit=DIAL_ATTEMPTS,
        )
        return Machine(
            node=node,
            id=made.stdout,
            resource=made,
            connection=connection,
            api_host=pulumi.Output.from_input(str(node.address)),
            root=settings.user == "root",
        )

    def _command(
        self,
        name: str,
        script: str,
        environment: Environment,
        *,
        triggers: Sequence[str] = (),
        stdin: pulumi.Input[str] | None = None,
        update: str | None = None,
        delete: str | None = None,
        after: pulumi.Resource | None = None,
        previous_output: bool = False,
    ) -> local.Command:
        """A command that runs a script of this folder with the argument `create`. `update` and `delete` are the
        arguments for these operations, where the script has them.

        `triggers`: the variables whose change replaces the resource. The script's text is not an input, because a
        corrected script must not show every machine as changed.
        """
        run = f"bash {names.LOCAL_SCRIPTS}{script}"
        return local.Command(
            f"{self._name}-{name}",
            create=f"{run} create",
            update=f"{run} {update}" if update else None,
            delete=f"{run} {delete}" if delete else None,
            environment=environment,
            stdin=stdin,
            triggers=[environment[key] for key in triggers],
            add_previous_output_in_env=previous_output,
            opts=pulumi.ResourceOptions(parent=self, depends_on=[after] if after else None, delete_before_replace=True),
        )
