"""The key `calico`: the pods' first network."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from components.spec import versions
from components.spec.models.base import (
    CONFIG_KEY,
    DEFAULT_POD_CIDR,
    AsNumber,
    Cidr,
    DnsLabel,
    HostName,
    Model,
    Mtu,
    Switch,
)
from components.spec.modes import MODES, Encapsulation, Mode


class Pool(Model):
    name: DnsLabel
    """Name of the IPPool."""
    cidr: Cidr
    """Range of the pool, inside kubernetes.podCidr."""
    block_size: Annotated[int, Field(ge=20, le=32)] = 26
    """Prefix length of the blocks that nodes claim: 24 for 256 addresses, 26 for 64."""
    encapsulation: Encapsulation = "VXLAN"
    """How packets travel between nodes. The CrossSubnet kinds encapsulate only between nodes in different subnets."""
    nat_outgoing: bool = True
    """Translate the source of packets that leave the pools to the node's address."""
    node_selector: str = "all()"
    """Nodes whose pods take addresses from the pool, as a selector of Calico, e.g. all()."""
    # The alias is given because the generator would make disableBgpExport.
    disable_bgp_export: bool = Field(default=False, alias="disableBGPExport")
    """Do not announce the pool's routes to BGP peers."""

    @property
    def mode(self) -> Mode:
        """What the pool's encapsulation means."""
        return MODES[self.encapsulation]


def default_pool(pod_cidr: IPv4Network, nodes: int) -> Pool:
    """One pool with all pod addresses, in blocks of 256.

    If the range is too small for the nodes, the blocks are smaller. A rule refuses such a range, and there should be no
    second finding about a pool that is not in the file.
    """
    block_size = min(32, max(24, pod_cidr.prefixlen + (nodes - 1).bit_length()))
    # Without validation: this runs while the module loads, and pydantic would build a validator of pools for it.
    return Pool.model_construct(name="default-ipv4-ippool", cidr=pod_cidr, block_size=block_size)


class Password(Model):
    config: Annotated[str, StringConstraints(pattern=CONFIG_KEY)]
    """Key of the stack's configuration that has the password, encrypted, e.g. torPassword: `./lab secret STACK
    torPassword` asks for it."""


class BgpPeer(Model):
    name: DnsLabel
    """Name of the BGPPeer."""
    peer_ip: IPv4Address = Field(alias="peerIP")
    """IPv4 address of the peer."""
    as_number: AsNumber
    """AS number of the peer."""
    node_selector: str = "all()"
    """Nodes that peer with it, as a selector of Calico, e.g. all()."""
    password: Password | None = None
    """Password of the sessions (RFC 2385), which the peer must have too. It becomes a Kubernetes Secret."""


class Calico(Model):
    version: versions.Version = versions.DEFAULT_CALICO
    """Version of Calico: one whose manifests' checksums are known here, in stacks/pins.yaml or in calico.sha256."""
    sha256: dict[versions.Manifest, versions.Sha256] = Field(default_factory=dict)
    """SHA-256 of the release's manifests, by file name, for a version that is pinned nowhere else. `./lab pin calico
    VERSION` fetches the manifests, shows the checksums and writes them to stacks/pins.yaml."""
    install: Literal["operator", "manifest"] = "operator"
    """Install Calico with the Tigera operator or with the manifest calico.yaml."""
    bgp: Switch = "Disabled"
    """Let BIRD exchange routes by BGP. The encapsulations IPIP and None need it. For VXLAN, Felix writes the routes."""
    container_ip_forwarding: Switch = Field(default="Disabled", alias="containerIPForwarding")
    """Let pods forward packets (net.ipv4.ip_forward in the pod)."""
    linux_dataplane: Literal["Iptables", "Nftables"] = "Iptables"
    """The packet filter that Felix programs."""
    wireguard: bool = False
    """Encrypt pod traffic between nodes with WireGuard (Felix wireguardEnabled, UDP port 51820)."""
    ipam: Literal["Calico", "HostLocal"] = "Calico"
    """Where pods' addresses come from. Calico: from the node's blocks. HostLocal: from the node's podCIDR."""
    strict_affinity: bool = False
    """Do not let nodes borrow addresses from one another's blocks."""
    node_address_autodetection: Literal["FirstFound", "NodeInternalIP"] = "NodeInternalIP"
    """How Calico finds the address of a node: the first one found, or the Node's InternalIP."""
    interface: str | None = None
    """Regular expression of the interface whose address Calico uses, e.g. eth1. Overrides nodeAddressAutodetection."""
    can_reach: HostName | None = None
    """Address or host name; Calico uses the node's address from which packets go there. Overrides
    nodeAddressAutodetection."""
    skip_interface: str | None = None
    """Regular expression of the interfaces whose addresses Calico does not use, e.g. docker.*. Overrides
    nodeAddressAutodetection."""
    cidrs: tuple[Cidr, ...] = ()
    """Ranges; Calico uses the node's first address inside one of them. Overrides nodeAddressAutodetection."""
    mtu: Mtu | None = None
    """MTU of the pods in bytes. Default: network.mtu less the largest overhead of the encapsulations."""
    as_number: AsNumber = 64512
    """AS number of the nodes that have none of their own."""
    node_to_node_mesh: bool | None = None
    """Let every node be a BGP peer of every other. Default: true, and false with routeReflectors. With false and no
    route reflectors, the nodes learn one another's routes from calico.peers alone."""
    route_reflectors: tuple[DnsLabel, ...] = ()
    """Names of the nodes that reflect BGP routes. With any, the node-to-node mesh is switched off."""
    peers: tuple[BgpPeer, ...] = ()
    """BGP peers outside the cluster."""
    pools: tuple[Pool, ...] = Field(default_factory=lambda: (default_pool(DEFAULT_POD_CIDR, nodes=3),), min_length=1)
    """The IPPools. Default: one of all kubernetes.podCidr. The operator undoes edits of an IPPool in the cluster, so
    change the pools here."""

    @property
    def mesh(self) -> bool:
        """Whether every node is a BGP peer of every other."""
        return not self.route_reflectors if self.node_to_node_mesh is None else self.node_to_node_mesh

    @property
    def passwords(self) -> dict[str, str]:
        """The keys of the configuration that have the peers' passwords, by the peer's name."""
        return {peer.name: peer.password.config for peer in self.peers if peer.password is not None}
