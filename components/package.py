"""The lab as a component package for Pulumi programs in any language: `pulumi package add <this repository>`.

PulumiPlugin.yaml makes the repository a plugin. `__main__.py` serves this package when the engine starts it as a
plugin. The SDK derives the schema from the classes below at run time, so their annotations must be types and not text
(hence no `annotations` import), and must not be unions.
"""

import sys
from collections.abc import Mapping
from typing import Any, NoReturn, NotRequired, TypedDict

import pulumi
from pulumi.errors import InputPropertyErrorDetails
from pulumi.output import Unknown
from pulumi.provider import ConstructResult
from pulumi.provider import main as serve_provider
from pulumi.provider.experimental.component import ComponentProvider
from pulumi.provider.server import ComponentInitError
from pydantic.alias_generators import to_camel

from components import lab
from components.spec import names
from components.spec.findings import Finding, SpecError
from components.spec.load import parse_lab

VERSION = "0.1.0"


class LabArgs(TypedDict):
    """A lab, with the keys of a stack file; stacks/schema.json describes each object.

    All of it must be known before `up`, because it decides which resources there are.
    """

    machines: dict[str, Any]
    """What the nodes run on: EC2 instances, containers on this computer, or existing hosts."""
    network: NotRequired[dict[str, Any]]
    """Network of the machines."""
    nodes: NotRequired[list[dict[str, Any]]]
    """Machines of the lab. Default: one control plane and two workers."""
    control_planes: NotRequired[int]
    """Number of control planes, instead of nodes."""
    workers: NotRequired[int]
    """Number of workers, instead of nodes."""
    kubernetes: NotRequired[dict[str, Any]]
    """The Kubernetes cluster, which kubeadm makes."""
    calico: NotRequired[dict[str, Any]]
    """Calico, the pods' first network."""
    multus: NotRequired[dict[str, Any]]
    """Multus, for pods with several networks. Default: Calico alone."""
    networks: NotRequired[list[dict[str, Any]]]
    """Networks for further interfaces of pods."""
    workloads: NotRequired[list[dict[str, Any]]]
    """Deployments to try the networks with."""
    mirrors: NotRequired[dict[str, Any]]
    """Other sources for everything that is downloaded."""
    owner: NotRequired[str]
    """Owner of the lab, a tag on every resource in a cloud."""
    ttl_hours: NotRequired[int]
    """Hours to live, a tag on every resource in a cloud."""
    stack: NotRequired[str]
    """Name of the lab in the cloud, which each lab of a program needs for itself. Default: the name of the stack."""


class Lab(pulumi.ComponentResource):
    """A Kubernetes networking lab: machines, kubeadm cluster, Calico, Multus, workloads."""

    kubeconfig: pulumi.Output[str]
    """Secret: full access to the cluster."""
    nodes: pulumi.Output[dict[str, str]]
    """Each node's machine id."""
    blocks: pulumi.Output[dict[str, list[str]]]
    """The pod CIDRs that each node has claimed, known after `up`."""

    def __init__(self, name: str, args: LabArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(names.LAB, name, {}, opts)
        keys = {key: plain(value, to_camel(key)) for key, value in args.items() if key != "stack"}
        spec = parse_lab({to_camel(key): value for key, value in keys.items()})
        if spec.calico.passwords:
            raise pulumi.InputPropertyError(
                "calico.peers", "have passwords, which only a stack file or the Python class cnilab.Lab can give"
            )
        stack = plain(args.get("stack"), "stack") or pulumi.get_stack()
        made = lab.Lab(name, lab.LabArgs(spec, stack), pulumi.ResourceOptions(parent=self))
        self.kubeconfig = made.kubeconfig
        self.nodes = pulumi.Output.all(**made.nodes)
        self.blocks = made.blocks
        self.register_outputs({"kubeconfig": self.kubeconfig, "nodes": self.nodes, "blocks": self.blocks})


def plain(value: Any, key: str) -> Any:
    """An input as a stack file would have it. Raises InputPropertyError if it is a secret or not known yet.

    The engine sends all numbers as floats, so whole ones become integers again.
    """
    if isinstance(value, pulumi.Output | Unknown):
        raise pulumi.InputPropertyError(
            key, "is a secret or comes from another resource, but a lab must be plain and known before `up`"
        )
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {name: plain(item, f"{key}.{name}") for name, item in value.items()}
    return [plain(item, f"{key}[{at}]") for at, item in enumerate(value)] if isinstance(value, list) else value


class Provider(ComponentProvider):
    """Reports the findings of an invalid lab instead of a traceback."""

    def construct(
        self,
        name: str,
        resource_type: str,
        inputs: Mapping[str, pulumi.Input[Any]],
        options: pulumi.ResourceOptions | None = None,
    ) -> ConstructResult:
        try:
            return super().construct(name, resource_type, inputs, options)
        except ComponentInitError as error:
            if isinstance(error.inner, SpecError):
                raise pulumi.InputPropertiesError("", [property_error(f) for f in error.inner.findings]) from None
            if isinstance(error.inner, pulumi.InputPropertyError):
                raise error.inner from None
            raise


def property_error(finding: Finding) -> InputPropertyErrorDetails:
    """A finding as the engine reports it: at the input that it is about."""
    return {"property_path": finding.key, "reason": str(finding).removeprefix(f"{finding.key}: ")}


def provider() -> Provider:
    return Provider([Lab], names.PACKAGE, version=VERSION)


def serve() -> NoReturn:
    """Serve the package until the engine ends it."""
    serve_provider(provider(), sys.argv[1:])
    sys.exit()
