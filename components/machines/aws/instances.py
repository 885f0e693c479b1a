"""EC2 instances: fixed private addresses, one fixed public address, and host keys known before the first connection."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pulumi
import pulumi_aws as aws
from pulumi_command import remote

from components.machines.aws.network import Network
from components.machines.keys import SshKey, ssh_key
from components.machines.machine import Machine
from components.spec import names
from components.spec.images import image_parameter
from components.spec.models import AwsMachines, Lab, Node

FIRST_BOOT = Path(__file__).parent / "first_boot.py"
# From its launch an instance needs a minute or two until sshd runs with our host key, and more where IAM is slow to
# make the new role known. The client pauses up to 5 s between attempts: in all, over six minutes.
DIAL_ATTEMPTS = 90
DIAL_TIMEOUT_SECONDS = 15


@dataclass(frozen=True)
class InstancesArgs:
    """`stack` names the lab in Parameter Store. `tags` go on everything; the resource's own name is added as `Name`."""

    lab: Lab
    network: Network
    stack: str
    tags: Mapping[str, str]


class Instances(pulumi.ComponentResource):
    """`machines` by node name, in the stack file's order. The first control plane has a fixed public address and is the
    jump host to the others."""

    machines: dict[str, Machine]

    def __init__(self, name: str, args: InstancesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        spec = args.lab.machines
        assert isinstance(spec, AwsMachines)
        shown = {"instanceType": spec.instance_type, "nodes": [node.name for node in args.lab.nodes]}
        super().__init__(names.AWS_MACHINES, name, shown, opts)
        child = pulumi.ResourceOptions(parent=self)
        entrance = args.lab.control_planes[0]

        operator = ssh_key(f"{name}-operator", child)
        key_pair = aws.ec2.KeyPair(
            f"{name}-operator",
            public_key=operator.public,
            tags={**args.tags, "Name": f"{name}-operator"},
            opts=child,
        )
        # Apart from its machine, because the API's certificate and the kubeconfig contain this address.
        address = aws.ec2.Eip(f"{name}-api", domain="vpc", tags={**args.tags, "Name": f"{name}-api"}, opts=child)
        image = spec.image or _current_image(spec, self)

        jump: remote.ProxyConnectionArgs | None = None
        machines: dict[str, Machine] = {}
        # The jump host comes first: the others' connections name it.
        for node in sorted(args.lab.nodes, key=lambda n: n is not entrance):
            # The provider sees no difference where the file no longer asks for spot. The machine is replaced with its
            # host key, and not by a trigger of its own: that has another value in the state of labs made earlier.
            key_options = pulumi.ResourceOptions(parent=self, replacement_trigger=spec.spot)
            host_key = ssh_key(f"{name}-{node.name}-host", key_options)
            instance = self._instance(f"{name}-{node.name}", args, spec, node, host_key, key_pair, image)
            is_entrance = node is entrance
            if is_entrance:
                aws.ec2.EipAssociation(
                    f"{name}-api",
                    instance_id=instance.id,
                    allocation_id=address.allocation_id,
                    opts=pulumi.ResourceOptions(parent=self, depends_on=[args.network.routed[node.subnet]]),
                )
                jump = remote.ProxyConnectionArgs(
                    host=address.public_ip,
                    user=spec.user,
                    private_key=operator.private,
                    host_key=host_key.public,
                    dial_error_limit=DIAL_ATTEMPTS,
                    per_dial_timeout=DIAL_TIMEOUT_SECONDS,
                )
            connection = remote.ConnectionArgs(
                host=address.public_ip if is_entrance else str(node.address),
                user=spec.user,
                private_key=operator.private,
                host_key=host_key.public,
                proxy=None if is_entrance else jump,
                dial_error_limit=DIAL_ATTEMPTS,
                per_dial_timeout=DIAL_TIMEOUT_SECONDS,
            )
            machines[node.name] = Machine(
                node=node,
                id=instance.id,
                resource=instance,
                connection=connection,
                api_host=address.public_ip if is_entrance else instance.public_ip,
                root=spec.user == "root",
            )
        self.machines = {node.name: machines[node.name] for node in args.lab.nodes}
        self.register_outputs({"apiAddress": address.public_ip})

    def _instance(
        self,
        name: str,
        args: InstancesArgs,
        spec: AwsMachines,
        node: Node,
        host_key: SshKey,
        key_pair: aws.ec2.KeyPair,
        image: pulumi.Input[str],
    ) -> aws.ec2.Instance:
        """One instance, and the role that lets it, and it alone, fetch its own SSH host key at first boot."""
        tags = {**args.tags, "Name": name}
        child = pulumi.ResourceOptions(parent=self)
        role = aws.iam.Role(
            name,
            name_prefix=_iam_prefix(node),
            assume_role_policy=_policy("sts:AssumeRole", Principal={"Service": "ec2.amazonaws.com"}),
            tags=tags,
            opts=child,
        )
        # The role's own name ends the parameter's, so that two people whose stacks have the same name never share one.
        # The machine knows the name of its role; so the user data need not have it, and are known before `up`.
        folder = f"/cni-lab/{args.stack}/{node.name}/ssh-host-key"
        parameter = aws.ssm.Parameter(
            f"{name}-host-key",
            name=pulumi.Output.concat(folder, "/", role.name),
            type="SecureString",
            value=host_key.private,
            # One that is there already is ours: an `up` was killed after it made it and before the state had it.
            overwrite=True,
            description=f"SSH host key of {node.name}, read by it at first boot",
            tags=tags,
            opts=child,
        )
        # Nothing about decryption: the key aws/ssm decrypts for everyone who may read the parameter.
        policy = aws.iam.RolePolicy(
            name,
            role=role.id,
            policy=parameter.arn.apply(lambda arn: _policy("ssm:GetParameter", Resource=arn)),
            opts=child,
        )
        profile = aws.iam.InstanceProfile(name, name_prefix=_iam_prefix(node), role=role.name, tags=tags, opts=child)
        groups = ["nodes", "control-plane"] if node.role == "control-plane" else ["nodes"]
        private = args.lab.private_workers and node.role == "worker"
        return aws.ec2.Instance(
            name,
            ami=image,
            instance_type=spec.instance_type,
            subnet_id=args.network.subnet_ids[node.subnet],
            private_ip=str(node.address),
            # A machine reaches Parameter Store at first boot, and the package mirrors later, by its own public address
            # or through NAT. The fixed address takes the place of the first control plane's own; an `up` that fails
            # before that leaves a machine whose first boot can still finish.
            associate_public_ip_address=not private,
            # Packets carry pods' addresses, which are not the instance's own.
            source_dest_check=False,
            vpc_security_group_ids=[args.network.security_group_ids[group] for group in groups],
            key_name=key_pair.key_name,
            iam_instance_profile=profile.name,
            # With one hop, a pod on a bridge cannot reach the instance's credentials.
            metadata_options={"http_endpoint": "enabled", "http_tokens": "required", "http_put_response_hop_limit": 1},
            root_block_device={
                "volume_type": "gp3",
                "volume_size": spec.volume_size,
                "encrypted": True,
                "delete_on_termination": True,
                "tags": tags,
            },
            user_data=user_data(node.name, folder),
            # Has no effect, as user_data is ignored below; but to remove it would be a change of every live machine.
            user_data_replace_on_change=True,
            disable_api_termination=False,
            instance_market_options=(
                {"market_type": "spot", "spot_options": {"spot_instance_type": "one-time"}} if spec.spot else None
            ),
            tags=tags,
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[args.network.routed[node.subnet], policy],
                # No reason to replace a live machine: it loses its public address while it is stopped, its first boot
                # is over, whatever the program for it says now, and there is a newer image.
                ignore_changes=["associate_public_ip_address", "user_data", *([] if spec.image else ["ami"])],
                # The old machine holds the address that the new one needs.
                delete_before_replace=True,
                # A machine reads its host key once: another key needs another machine.
                replace_with=[host_key.resource],
                # The public address is ignored above, so a change of what gives or takes it replaces the worker.
                replacement_trigger=spec.worker_access if node.role == "worker" else None,
            ),
        )


def user_data(node: str, folder: str) -> str:
    """The cloud-config of a node: its name, and the program that gets its host key from Parameter Store before sshd
    starts. Contains no secret. `folder`: where its parameter is, in Parameter Store."""
    program = textwrap.indent(FIRST_BOOT.read_text(encoding="utf-8"), " " * 6)
    # An empty `ssh_keys` keeps cloud-init from making host keys of its own.
    return f"""\
#cloud-config
hostname: {json.dumps(node)}
ssh_deletekeys: false
ssh_keys: {{}}
bootcmd:
  - - python3
    - -c
    - |
{program}\
    - {json.dumps(folder)}
"""


def _current_image(machines: AwsMachines, parent: pulumi.Resource) -> pulumi.Output[str]:
    """The id of the newest AMI of machines.system for the machines' architecture."""
    found = aws.ssm.get_parameter_output(name=image_parameter(machines), opts=pulumi.InvokeOutputOptions(parent=parent))
    return found.insecure_value  # `value` is the same text, but hidden as a secret


def _iam_prefix(node: Node) -> str:
    """IAM allows a prefix of 38 characters, and adds 26 of its own."""
    return f"cni-lab-{node.name}"[:37] + "-"


def _policy(action: str, **clauses: object) -> str:
    statement = {"Effect": "Allow", "Action": action, **clauses}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
