"""A lab as the sandbox builds it: plain values, and the names and addresses that follow from names.

What is here was taken down from clusters with Calico 3.32.1, Multus 4.3.0 and CRI-O 1.36.3. Nothing in this room is
read from the expectations: a sandbox that took them over could not contradict them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface

from components.spec import names
from components.spec.addresses import network_of
from components.spec.links import gateway
from components.spec.models import AddressedNetwork, AttachedNetwork, BridgeNetwork, Delegate, HostLocal, Lab

VXLAN_DEVICE, IPIP_DEVICE, WIREGUARD_DEVICE = "vxlan.calico", "tunl0", "wireguard.cali"
VXLAN_OVERHEAD, IPIP_OVERHEAD, WIREGUARD_OVERHEAD = 50, 20, 60
"""Bytes of outer headers."""
VXLAN_ID, VXLAN_PORT, WIREGUARD_PORT = 4096, 4789, 51820
OUTSIDE = names.SANDBOX_OUTSIDE
"""An address of the router: "the internet"."""


def digest(*words: str) -> str:
    """64 hexadecimal digits that follow from the words."""
    return hashlib.sha256("/".join(words).encode()).hexdigest()


def uid(*words: str) -> str:
    """An identifier in the form of a UUID."""
    text = digest(*words)
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-8{text[17:20]}-{text[20:32]}"


def mac_of(*words: str) -> str:
    """A locally administered MAC address."""
    text = digest(*words)
    return ":".join(["02", *(text[i : i + 2] for i in range(0, 10, 2))])


def tunnel_mac(node: str) -> str:
    """The MAC address that Felix gives vxlan.calico: 66 and the first five bytes of SHA-1 of the node's name."""
    text = hashlib.sha1(node.encode()).hexdigest()
    return ":".join(["66", *(text[i : i + 2] for i in range(0, 10, 2))])


def host_interface(namespace: str, name: str) -> str:
    """The host side of a pod's eth0, as Calico's CNI plugin names it."""
    return "cali" + hashlib.sha1(f"{namespace}.{name}".encode()).hexdigest()[:11]


@dataclass(frozen=True)
class Extra:
    """A further interface of a pod: net1, net2, … `addresses` is empty where the network gives none (type custom).

    `host_interface`: the host side of its veth on a bridge; empty for other types.
    """

    interface: str
    network: AttachedNetwork
    addresses: tuple[IPv4Interface, ...]
    mac: str
    host_interface: str
    default_route: IPv4Address | None
    definition: str
    """Name of the NetworkAttachmentDefinition."""
    fixed: bool = False
    """Whether the stack file gives the pod its address (`ips`), so that no IPAM plugin records it."""


@dataclass
class Pod:
    """One pod. `netns` is a name in the node's /run/netns.

    A pod on the host's network has the node's address, and its `netns` names the node's own network namespace.
    """

    namespace: str
    name: str
    node: str
    address: IPv4Address
    netns: str
    owner: str = "ReplicaSet"
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    host_network: bool = False
    phase: str = "Running"
    reason: str = ""
    """Why a Pending pod does not start."""
    delegate: Delegate | None = None
    """The delegate that gave its address; None: calico-ipam did."""
    network: str = ""
    """The network of its eth0, as Multus reports it: NAMESPACE/NAME. Empty if Multus did not make it."""
    extras: tuple[Extra, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def interface(self) -> str:
        """The host side of its eth0."""
        return host_interface(self.namespace, self.name)

    @property
    def mac(self) -> str:
        return mac_of("pod", self.namespace, self.name)

    @property
    def container(self) -> str:
        """Its sandbox's container id."""
        return digest("sandbox", self.namespace, self.name)


@dataclass(frozen=True)
class Plan:
    """`blocks`: node name → CIDRs. `router_knows_pods`: whether the router between the subnets has routes to the
    blocks of pools without encapsulation, which a VPC's router has not. `started`: when its pods did, as the API
    writes a time."""

    lab: Lab
    stack: str
    blocks: Mapping[str, Sequence[str]]
    pods: Sequence[Pod]
    router_knows_pods: bool
    started: str

    def on(self, node: str) -> list[Pod]:
        """Pods of a node that have been set up: not the Pending ones."""
        return [pod for pod in self.pods if pod.node == node and pod.phase == "Running"]

    @property
    def nic(self) -> str:
        """The interface that holds a node's address: calico.interface where that is a name and no pattern."""
        named = self.lab.calico.interface or ""
        return named if re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,14}", named) else "eth0"

    @property
    def segments(self) -> list[str]:
        """Further interfaces of every node, each on an Ethernet segment that the nodes share: the masters and devices
        that networks name, beside the node's own."""
        named = [getattr(network, "master", None) or getattr(network, "device", None) for network in self.lab.networks]
        return list(dict.fromkeys(name for name in named if name and name != self.nic))

    def tunnel_address(self, node: str, kind: str) -> IPv4Address | None:
        """The address of a node's VXLAN or IPIP device (`kind`): the first of its first block in a pool of that kind.
        WireGuard's device has an address of its own, the next one of the first pool."""
        if kind == "WireGuard":
            if not self.lab.calico.wireguard or not self.blocks[node]:
                return None
            block = network_of(self.blocks[node][0])
            return block[1 if block[0] in {self.tunnel_address(node, other) for other in ("VXLAN", "IPIP")} else 0]
        for pool in self.lab.calico.pools:
            for block in map(network_of, self.blocks[node]):
                # Not every pool selects the node: it may hold a block of a later one alone.
                if pool.encapsulation.startswith(kind) and block.subnet_of(pool.cidr):
                    return block[0]
        return None

    def tunnel_addresses(self, node: str) -> set[IPv4Address]:
        """All of a node's tunnel addresses."""
        found = (self.tunnel_address(node, kind) for kind in ("VXLAN", "IPIP", "WireGuard"))
        return {address for address in found if address}


def gateway_of(network: AttachedNetwork | AddressedNetwork) -> IPv4Address | None:
    """The next hop of a network's routes that name none; None where there is none."""
    if not isinstance(network, AddressedNetwork):
        return None
    known = network.ipam.gateway or isinstance(network, BridgeNetwork) or isinstance(network.ipam, HostLocal)
    return gateway(network) if known else None
