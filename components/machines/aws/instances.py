"""EC2 machines: fixed private addresses, one fixed public one, and host keys known before the first contact."""

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
from components.spec.models import AwsMachines, Lab, Node

FIRST_BOOT = Path(__file__).parent / "first_boot.py"
UBUNTU = "/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id"
# An instance takes a minute or two from its launch to a sshd with our host key.
DIAL_ERROR_LIMIT = 60
DIAL_TIMEOUT = 15  # seconds


@dataclass(frozen=True)
class InstancesArgs:
    """`stack` names the lab in Parameter Store and in tags; `tags` go on everything, `Name` is added."""

    lab: Lab
    network: Network
    stack: str
    tags: Mapping[str, str]


class Instances(pulumi.ComponentResource):
    """`machines` by node name, in the stack file's order. The first control plane has a fixed public address, and is
    the way in to the others."""

    machines: dict[str, Machine]

    def __init__(self, name: str, args: InstancesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        spec = args.lab.machines
        assert isinstance(spec, AwsMachines)
        face = {"instanceType": spec.instance_type, "nodes": [node.name for node in args.lab.nodes]}
        super().__init__(names.AWS_MACHINES, name, face, opts)
        child = pulumi.ResourceOptions(parent=self)
        entrance = args.lab.control_planes[0]

        operator = ssh_key(f"{name}-operator", child)
        key_pair = aws.ec2.KeyPair(
            f"{name}-operator",
            public_key=operator.public,
            tags={**args.tags, "Name": f"{name}-operator"},
            opts=child,
        )
        # Allocated apart from its machine: the address is in the API's certificate and in the kubeconfig.
        address = aws.ec2.Eip(f"{name}-api", domain="vpc", tags={**args.tags, "Name": f"{name}-api"}, opts=child)
        image = spec.image or _current_ubuntu(self)

        proxy: remote.ProxyConnectionArgs | None = None
        self.machines = {}
        for node in sorted(args.lab.nodes, key=lambda n: n is not entrance):
            host_key = ssh_key(f"{name}-{node.name}-host", child)
            instance = self._instance(f"{name}-{node.name}", args, spec, node, host_key, key_pair, image)
            way_in = node is entrance
            if way_in:
                aws.ec2.EipAssociation(
                    f"{name}-api",
                    instance_id=instance.id,
                    allocation_id=address.allocation_id,
                    opts=pulumi.ResourceOptions(parent=self, depends_on=[args.network.routed[node.subnet]]),
                )
                proxy = remote.ProxyConnectionArgs(
                    host=address.public_ip,
                    user=spec.user,
                    private_key=operator.private,
                    host_key=host_key.public,
                    dial_error_limit=DIAL_ERROR_LIMIT,
                    per_dial_timeout=DIAL_TIMEOUT,
                )
            connection = remote.ConnectionArgs(
                host=address.public_ip if way_in else str(node.address),
                user=spec.user,
                private_key=operator.private,
                host_key=host_key.public,
                proxy=None if way_in else proxy,
                dial_error_limit=DIAL_ERROR_LIMIT,
                per_dial_timeout=DIAL_TIMEOUT,
            )
            self.machines[node.name] = Machine(
                node=node,
                id=instance.id,
                resource=instance,
                connection=connection,
                api_host=address.public_ip if way_in else instance.public_ip,
                root=spec.user == "root",
            )
        self.machines = {node.name: self.machines[node.name] for node in args.lab.nodes}
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
        """One machine, and what lets it, and nobody else, fetch its own SSH host key at first boot."""
        tags = {**args.tags, "Name": name}
        child = pulumi.ResourceOptions(parent=self)
        parameter_name = f"/cni-lab/{args.stack}/{node.name}/ssh-host-key"
        parameter = aws.ssm.Parameter(
            f"{name}-host-key",
            name=parameter_name,
            type="SecureString",
            value=host_key.private,
            description=f"SSH host key of {node.name}, read by it at first boot",
            tags=tags,
            opts=child,
        )
        role = aws.iam.Role(
            name,
            name_prefix=_iam_prefix(node),
            assume_role_policy=_policy("sts:AssumeRole", Principal={"Service": "ec2.amazonaws.com"}),
            tags=tags,
            opts=child,
        )
        # Decrypting needs no word more: the key aws/ssm serves whoever may read the parameter.
        policy = aws.iam.RolePolicy(
            name,
            role=role.id,
            policy=parameter.arn.apply(lambda arn: _policy("ssm:GetParameter", Resource=arn)),
            opts=child,
        )
        profile = aws.iam.InstanceProfile(name, name_prefix=_iam_prefix(node), role=role.name, tags=tags, opts=child)
        groups = ["nodes", "control-plane"] if node.role == "control-plane" else ["nodes"]
        first = node is args.lab.control_planes[0]
        private = args.lab.private_workers and node.role == "worker"
        return aws.ec2.Instance(
            name,
            ami=image,
            instance_type=spec.instance_type,
            subnet_id=args.network.subnet_ids[node.subnet],
            private_ip=str(node.address),
            # Packages come by a public address of the machine's own, or by NAT; the first control plane gets its
            # fixed one.
            associate_public_ip_address=None if first else not private,
            # Pods' addresses are not the machine's own.
            source_dest_check=False,
            vpc_security_group_ids=[args.network.security_group_ids[group] for group in groups],
            key_name=key_pair.key_name,
            iam_instance_profile=profile.name,
            # One hop: a pod on a bridge cannot reach the machine's credentials.
            metadata_options={"http_endpoint": "enabled", "http_tokens": "required", "http_put_response_hop_limit": 1},
            root_block_device={
                "volume_type": "gp3",
                "volume_size": spec.volume_size,
                "encrypted": True,
                "delete_on_termination": True,
                "tags": tags,
            },
            user_data=user_data(node.name, parameter_name),
            user_data_replace_on_change=True,
            disable_api_termination=False,
            instance_market_options=(
                {"market_type": "spot", "spot_options": {"spot_instance_type": "one-time"}} if spec.spot else None
            ),
            tags=tags,
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[args.network.routed[node.subnet], policy],
                # A stopped machine has no public address, and a newer image is no reason to replace a machine.
                ignore_changes=["associate_public_ip_address", *([] if spec.image else ["ami"])],
                # The old machine holds the address that the new one needs.
                delete_before_replace=True,
                # A machine reads its host key once: another key needs another machine.
                replace_with=[host_key.resource],
                # The public address is ignored above, so a worker is replaced by what gives or takes it.
                replacement_trigger=spec.worker_access if node.role == "worker" else None,
            ),
        )


def user_data(node: str, parameter: str) -> str:
    """cloud-config of a node: its name, and its host key from Parameter Store before sshd starts. Holds no secret."""
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
    - {json.dumps(parameter)}
"""


def _current_ubuntu(parent: pulumi.Resource) -> pulumi.Output[str]:
    found = aws.ssm.get_parameter_output(name=UBUNTU, opts=pulumi.InvokeOutputOptions(parent=parent))
    return found.insecure_value  # `value` is the same, but would hide the image's id as a secret


def _iam_prefix(node: Node) -> str:
    """IAM allows a prefix of 38 characters, and adds its own 26."""
    return f"cni-lab-{node.name}"[:37] + "-"


def _policy(action: str, **clauses: object) -> str:
    statement = {"Effect": "Allow", "Action": action, **clauses}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
