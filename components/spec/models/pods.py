"""The keys `multus`, `networks` and `workloads`: several networks for a pod, and pods that use them."""

from __future__ import annotations

import json
from ipaddress import IPv4Address
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from components.spec import versions
from components.spec.models.base import Cidr, DnsLabel, Interface, InterfaceName, Labels, Model, Mtu, Port

CALICO_NETWORK: Final = "k8s-pod-network"
"""The name of Calico's own CNI network, which is in 10-calico.conflist on every node."""


class Delegate(Model):
    """A CNI network for pods' eth0: Calico's plugin, which gets addresses in the node's own block from host-local."""

    name: DnsLabel
    """Name of the CNI network, of its file, and of its NetworkAttachmentDefinition in kube-system."""
    range_start: Annotated[int, Field(ge=1)]
    """First address for pods, counted from the start of the node's block: 150 in 10.244.6.0/24 is 10.244.6.150."""
    range_end: Annotated[int, Field(ge=1)]
    """Last address for pods, counted in the same way."""
    pool: DnsLabel | None = None
    """Name of the pool in whose blocks the range is. Default: the first pool."""
    routes: tuple[Cidr, ...] = ()
    """The only routes of the pods. Default: a default route."""
    allow_ip_forwarding: bool | None = Field(default=None, alias="allowIPForwarding")
    """Let pods forward packets. Default: as calico.containerIPForwarding."""


class Multus(Model):
    version: versions.Version = versions.DEFAULT_MULTUS
    """Version of Multus."""
    cluster_network: DnsLabel
    """Name of the network of eth0 for pods that ask for none: one of delegates, or k8s-pod-network, which is Calico's
    own."""
    delegates: tuple[Delegate, ...] = ()
    """Networks that can give a pod its eth0, beside Calico's own. Default: none."""
    log_level: Literal["debug", "verbose", "error", "panic"] = "verbose"
    """Log level of Multus."""


class Route(Model):
    dst: Cidr
    """Destination, e.g. 10.96.0.0/12."""
    gateway: IPv4Address | None = None
    """Next hop, inside the network's subnet. Default: the network's gateway."""


class HostLocal(Model):
    type: Literal["host-local"] = "host-local"
    """Each node hands out the addresses by itself. They are unique on the node, not in the cluster."""
    range_start: IPv4Address | None = None
    """First address for pods. Default: the first of the subnet."""
    range_end: IPv4Address | None = None
    """Last address for pods. Default: the last of the subnet."""
    gateway: IPv4Address | None = None
    """Gateway of the network, which no pod gets. Default: the first address of the subnet."""


class StaticAddresses(Model):
    type: Literal["static"]
    """Every pod gets the same fixed addresses, so only one pod can run at a time."""
    addresses: tuple[Interface, ...] = Field(min_length=1)
    """The addresses with their prefix length, e.g. 10.1.128.7/24."""
    gateway: IPv4Address | None = None
    """Next hop of the routes that name none."""


class Whereabouts(Model):
    type: Literal["whereabouts"]
    """The addresses are unique in the cluster. The lab installs the plugin whereabouts on every node."""
    exclude: tuple[Cidr, ...] = ()
    """Ranges inside the subnet that no pod gets, e.g. [192.168.2.228/30]."""
    range_start: IPv4Address | None = None
    """First address for pods. Default: the first of the subnet."""
    range_end: IPv4Address | None = None
    """Last address for pods. Default: the last of the subnet."""
    gateway: IPv4Address | None = None
    """Next hop of the routes that name none."""


Ipam = Annotated[HostLocal | StaticAddresses | Whereabouts, Field(discriminator="type")]


class NetworkBase(Model):
    name: DnsLabel
    """Name of the NetworkAttachmentDefinition."""
    namespace: DnsLabel = "default"
    """Namespace of the NetworkAttachmentDefinition."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Annotations of the NetworkAttachmentDefinition, e.g. {k8s.v1.cni.cncf.io/resourceName: intel.com/sriov} for
    devices that a device plugin hands out."""


class AddressedNetwork(NetworkBase):
    subnet: Cidr
    """Range of the network's addresses."""
    ipam: Ipam = HostLocal.model_construct()
    """How pods get their addresses. Default: host-local."""
    routes: tuple[Route, ...] = ()
    """Routes that pods get through the network."""
    mtu: Mtu | None = None
    """MTU of the interface in bytes. Default: network.mtu for a bridge, else the MTU of the node's interface."""


class BridgeNetwork(AddressedNetwork):
    type: Literal["bridge"]
    """A Linux bridge on every node."""
    bridge: InterfaceName
    """Name of the Linux bridge on every node."""
    is_gateway: bool = True
    """Give the bridge the first address of the subnet."""
    ip_masq: bool = False
    """Translate the source of packets that leave the node to the node's address."""
    hairpin_mode: bool = False
    """Let a pod reach itself through the bridge."""


class MacvlanNetwork(AddressedNetwork):
    type: Literal["macvlan"]
    """Interfaces with MAC addresses of their own, on top of an interface of the node."""
    master: InterfaceName
    """The node's interface."""
    mode: Literal["bridge", "private", "vepa", "passthru"] = "bridge"
    """How pods on the same master reach each other."""


class IpvlanNetwork(AddressedNetwork):
    type: Literal["ipvlan"]
    """Interfaces on top of an interface of the node, with its MAC address."""
    master: InterfaceName
    """The node's interface."""
    mode: Literal["l2", "l3", "l3s"] = "l2"
    """Switch packets (l2) or route them (l3, l3s) on the master."""


class HostDeviceNetwork(AddressedNetwork):
    type: Literal["host-device"]
    """An interface of the node that moves into the pod."""
    device: InterfaceName
    """The node's interface."""


_Config = Annotated[dict[str, Any], Field(min_length=1)]


def _from_json(value: object) -> object:
    """The value of a JSON text, in which manuals show their definitions. Any other value as it is."""
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
    """A CNI configuration that you write yourself."""

    type: Literal["custom"]
    """A CNI configuration that you write yourself."""
    config: Annotated[_Config, BeforeValidator(_from_json, json_schema_input_type=_Config | str)]
    """The configuration, with cniVersion and either type or plugins: a mapping, or the same as JSON text."""


AttachedNetwork = Annotated[
    BridgeNetwork | MacvlanNetwork | IpvlanNetwork | HostDeviceNetwork | CustomNetwork, Field(discriminator="type")
]


class Attachment(Model):
    name: DnsLabel
    """Name of the network, one of networks."""
    ips: tuple[Interface, ...] = ()
    """Fixed addresses of each pod on the network, e.g. [10.1.128.2/24], instead of one that its ipam hands out. On a
    bridge every node may have a pod with the address, on other links one pod in all."""
    mac: Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$")] | None = None
    """Fixed MAC address of the pod's interface, e.g. 02:00:00:00:00:02. Default: one that the plugin chooses."""
    interface: InterfaceName | None = None
    """Name of the interface in the pod. Default: net1 for the first network, net2 for the second, and so on."""
    default_route: IPv4Address | None = None
    """Gateway of a default route through this network. It replaces the default routes of the pod's other networks."""


Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?([munkMGTPE]|[KMGTPE]i)?$")]
"""An amount as Kubernetes writes it, e.g. 500m, 64Mi or 1."""


class Resources(Model):
    """What the container needs of its node, by the name of the resource."""

    requests: dict[str, Quantity] = Field(default_factory=dict)
    """What the scheduler sets aside, e.g. {cpu: 100m}."""
    limits: dict[str, Quantity] = Field(default_factory=dict)
    """What the container can have at most, e.g. {memory: 64Mi}, and devices, e.g. {intel.com/sriov: "1"}."""


class Service(Model):
    """A Service of type ClusterIP in front of the workload's pods, with the workload's name."""

    port: Port
    """Port of the Service, e.g. 80."""
    target_port: Port | None = None
    """Port on which the pods listen. Default: port."""
    protocol: Literal["TCP", "UDP"] = "TCP"
    """Protocol of the port."""


# As github.com/distribution/reference has it: a registry, a path in lower case, a tag, a digest.
ImageName = Annotated[
    str,
    StringConstraints(
        pattern=r"^[a-z0-9.-]+(:[0-9]+)?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+"
        r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(@sha256:[0-9a-f]{64})?$"
    ),
]


class Workload(Model):
    """Pods to try the networks with."""

    kind: Literal["Deployment", "DaemonSet", "Pod"] = "Deployment"
    """Deployment: as many pods as replicas says. DaemonSet: one on every node that accepts it. Pod: a single pod, which
    nothing replaces."""
    name: DnsLabel
    """Name of the workload."""
    image: ImageName
    """Full name of the container image with its registry, e.g. docker.io/library/busybox:1.37."""
    namespace: DnsLabel = "default"
    """Namespace of the workload. It is made if it does not exist."""
    replicas: Annotated[int, Field(ge=0, le=500)] = 1
    """Number of pods of a Deployment."""
    annotations: dict[str, str] = Field(default_factory=dict)
    """Further annotations of the pods, e.g. {cni.projectcalico.org/ipv4pools: '["pool2"]'}."""
    capabilities: tuple[Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_]{1,40}$")], ...] = ()
    """Capabilities of the container beside NET_RAW, which every container gets, e.g. [NET_ADMIN]."""
    resources: Resources = Resources.model_construct()
    """What the container needs of its node."""
    command: tuple[str, ...] = ()
    """Command of the container. Default: the image's."""
    on_control_plane: bool = False
    """Let the pods tolerate the taint of control planes."""
    node_selector: Labels = Field(default_factory=dict)
    """Labels that a node must have to take the pods."""
    default_network: DnsLabel | None = None
    """Name of the network of the pods' eth0: a delegate, or k8s-pod-network. Default: multus.clusterNetwork."""
    networks: tuple[Attachment, ...] = ()
    """Networks of the pods' further interfaces, net1, net2, …"""
    service: Service | None = None
    """A Service in front of the pods. Default: none."""

    @property
    def interfaces(self) -> dict[str, Attachment]:
        """The attachments by the name of their interface. Multus counts also those that have a name of their own."""
        return {a.interface or f"net{number}": a for number, a in enumerate(self.networks, 1)}
