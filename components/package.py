"""The lab as a component package, for Pulumi programs in any language: `pulumi package add <this repository>`.

PulumiPlugin.yaml makes the repository a plugin, and `__main__.py` serves this where it is started as one. The SDK reads
the schema off the classes below at run time, so their annotations must be types and not text (no `annotations` import),
and no unions.
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
    """A lab, in the words of a stack file (stacks/schema.json says what each object holds).

    All of it must be known before `up`: it decides which resources there are.
    """

    machines: dict[str, Any]
    """Where the nodes run: EC2, this computer, or hosts that exist."""
    network: NotRequired[dict[str, Any]]
    """What the machines stand in."""
    nodes: NotRequired[list[dict[str, Any]]]
    """Without a word: one control plane and two workers."""
    kubernetes: NotRequired[dict[str, Any]]
    """The cluster that kubeadm makes."""
    calico: NotRequired[dict[str, Any]]
    """The pods' first network."""
    multus: NotRequired[dict[str, Any]]
    """Several networks for a pod. Without it, Calico alone."""
    networks: NotRequired[list[dict[str, Any]]]
    """Networks that pods can be attached to beside their first."""
    workloads: NotRequired[list[dict[str, Any]]]
    """Deployments for demonstrations."""
    mirrors: NotRequired[dict[str, Any]]
    """Other addresses for everything that comes from outside."""
    owner: NotRequired[str]
    """Whose lab this is; a tag on everything in a cloud."""
    ttl_hours: NotRequired[int]
    """Hours to live, a tag on everything in a cloud."""
    stack: NotRequired[str]
    """Names the lab in the cloud; without a word the stack's name. Each lab of a program needs its own."""


class Lab(pulumi.ComponentResource):
    """A Kubernetes networking lab: machines, kubeadm cluster, Calico, Multus, workloads."""

    kubeconfig: pulumi.Output[str]
    """Secret: full access to the cluster."""
    nodes: pulumi.Output[dict[str, str]]
    """Each node's machine id."""
    blocks: pulumi.Output[dict[str, list[str]]]
    """The pod CIDRs that each node holds once the lab stands."""

    def __init__(self, name: str, args: LabArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(names.LAB, name, {}, opts)
        keys = {key: plain(value, to_camel(key)) for key, value in args.items() if key != "stack"}
        spec = parse_lab({to_camel(key): value for key, value in keys.items()})
        stack = plain(args.get("stack"), "stack") or pulumi.get_stack()
        made = lab.Lab(name, lab.LabArgs(spec, stack), pulumi.ResourceOptions(parent=self))
        self.kubeconfig = made.kubeconfig
        self.nodes = pulumi.Output.all(**made.nodes)
        self.blocks = made.blocks
        self.register_outputs({"kubeconfig": self.kubeconfig, "nodes": self.nodes, "blocks": self.blocks})


def plain(value: Any, key: str) -> Any:
    """An input as the stack file would have it. Raises InputPropertyError where it is not known yet or a secret.

    Numbers come as floats over the wire.
    """
    if isinstance(value, pulumi.Output | Unknown):
        raise pulumi.InputPropertyError(
            key, "is a secret or follows from another resource, but a lab must be plain and known before `up`"
        )
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, Mapping):
        return {name: plain(item, f"{key}.{name}") for name, item in value.items()}
    return [plain(item, f"{key}[{at}]") for at, item in enumerate(value)] if isinstance(value, list) else value


class Provider(ComponentProvider):
    """Answers a lab that does not fit together with its findings, not with a traceback."""

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
                raise pulumi.InputPropertiesError("", [in_the_engines_words(f) for f in error.inner.findings]) from None
            if isinstance(error.inner, pulumi.InputPropertyError):
                raise error.inner from None
            raise


def in_the_engines_words(finding: Finding) -> InputPropertyErrorDetails:
    return {"property_path": finding.key, "reason": str(finding).removeprefix(f"{finding.key}: ")}


def provider() -> Provider:
    return Provider([Lab], names.PACKAGE, version=VERSION)


def serve() -> NoReturn:
    """Serve the package until the engine has had enough."""
    serve_provider(provider(), sys.argv[1:])
    sys.exit()
