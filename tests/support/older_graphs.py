"""The graph of machines as it was before a mistake was mended, to see that EC2's stand-in refuses it.

Each is today's graph with other inputs or options for some resources, as the program is running: the table says what
was mended by what.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pulumi

Changed = tuple[dict[str, Any], pulumi.ResourceOptions]


def make_older(name: str | None) -> None:
    """Make every resource from now on as this graph had it; nothing for an empty name."""
    if not name:
        return
    change = OLDER[name]

    def transform(args: pulumi.ResourceTransformationArgs) -> pulumi.ResourceTransformationResult | None:
        changed = change(args.type_, dict(args.props), args.opts)
        return pulumi.ResourceTransformationResult(*changed) if changed else None

    pulumi.runtime.register_stack_transformation(transform)


def _fixed_parameter_name(kind: str, props: dict[str, Any], opts: pulumi.ResourceOptions) -> Changed | None:
    """The parameter's name had no role in it, and one that was there already was an error."""
    if kind != "aws:ssm/parameter:Parameter":
        return None
    node = str(props["description"]).split()[4]
    return props | {"name": f"/cni-lab/test/{node}/ssh-host-key", "overwrite": False}, opts


def _any_address_for_the_balancer(kind: str, props: dict[str, Any], opts: pulumi.ResourceOptions) -> Changed | None:
    if kind != "aws:lb/loadBalancer:LoadBalancer":
        return None
    return props | {"subnet_mappings": [{"subnet_id": props["subnet_mappings"][0]["subnet_id"]}]}, opts


def _endpoint_beside_the_machines(kind: str, props: dict[str, Any], opts: pulumi.ResourceOptions) -> Changed | None:
    if kind != "aws:ec2transitgateway/instanceConnectEndpoint:InstanceConnectEndpoint":
        return None
    opts.depends_on = None
    return props, opts


def _network_made_before_the_old_one_goes(
    kind: str, props: dict[str, Any], opts: pulumi.ResourceOptions
) -> Changed | None:
    """As the engine does it by itself: the new VPC and subnet first; and the gateway moves."""
    if kind not in ("aws:ec2/vpc:Vpc", "aws:ec2/subnet:Subnet", "aws:ec2/internetGateway:InternetGateway"):
        return None
    opts.delete_before_replace = None
    opts.replace_on_changes = None
    return props, opts


def _spot_without_a_trigger(kind: str, props: dict[str, Any], opts: pulumi.ResourceOptions) -> Changed | None:
    if kind != "tls:index/privateKey:PrivateKey" or opts.replacement_trigger is None:
        return None
    opts.replacement_trigger = None
    return props, opts


def _association_changed_in_place(kind: str, props: dict[str, Any], opts: pulumi.ResourceOptions) -> Changed | None:
    if kind != "aws:ec2/routeTableAssociation:RouteTableAssociation":
        return None
    opts.delete_before_replace = None
    opts.replace_on_changes = None
    return props, opts


OLDER: dict[str, Callable[[str, dict[str, Any], pulumi.ResourceOptions], Changed | None]] = {
    "fixed-parameter-name": _fixed_parameter_name,
    "any-address-for-the-balancer": _any_address_for_the_balancer,
    "endpoint-beside-the-machines": _endpoint_beside_the_machines,
    "association-changed-in-place": _association_changed_in_place,
    "network-made-first": _network_made_before_the_old_one_goes,
    "spot-without-a-trigger": _spot_without_a_trigger,
}
