"""The address plan: addresses, ranges and ports that follow from the stack file and from the blocks of the nodes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from ipaddress import IPv4Address, IPv4Network, collapse_addresses, summarize_address_range
from typing import Literal

from components.spec.models import AddressedNetwork, AwsMachines, BridgeNetwork, Delegate, Lab, Pool
from components.spec.modes import Tunnel

# Cached, because a large lab asks for the same blocks for every pair of nodes.
network_of = cache(IPv4Network)
"""A CIDR as a value. Raises ValueError."""

GATEWAY = IPv4Address("169.254.1.1")
"""The next hop of every Calico pod. No interface has it: the host's end of the pod's veth answers by proxy ARP."""

API_PORT = 6443
"""The port of the Kubernetes API, kubeadm's default."""
SSH_PORT = 22


def api_endpoint(lab: Lab) -> str:
    """The host:port at which the nodes reach the Kubernetes API, unless the machines bring a load balancer for it."""
    return lab.kubernetes.control_plane_endpoint or f"{lab.control_planes[0].address}:{API_PORT}"


def api_service_address(service_cidr: IPv4Network) -> IPv4Address:
    """The address of the Service `kubernetes`: the first host of the range."""
    return service_cidr[1]


def kernel_modules(lab: Lab) -> list[str]:
    """The kernel modules that the lab's tunnels and networks need, loadable or built in."""
    links = {network.type for network in lab.networks} & {"bridge", "macvlan", "ipvlan"}
    dataplane = {"nf_tables"} if lab.calico.linux_dataplane == "Nftables" else set()
    return ["overlay", "br_netfilter", *sorted({tunnel.module for tunnel in lab.tunnels} | links | dataplane)]


def nat_address(lab: Lab) -> IPv4Address:
    """The NAT gateway's address: the last one in the first control plane's subnet that no node has.

    The address is chosen here because EC2 would choose any, also one of a node that is made later.
    """
    cidr = lab.network.subnets[lab.control_planes[0].subnet]
    taken = {node.address for node in lab.nodes}
    return _last_free(cidr, taken)


def has_balancer(lab: Lab) -> bool:
    """Whether the API of several control planes on EC2 gets a load balancer."""
    in_vpc = isinstance(lab.machines, AwsMachines)
    return in_vpc and len(lab.control_planes) > 1 and lab.kubernetes.control_plane_endpoint is None


def balancer_address(lab: Lab) -> IPv4Address:
    """The load balancer's address: as the NAT gateway's, in the same subnet, and not the same."""
    cidr = lab.network.subnets[lab.control_planes[0].subnet]
    taken = {node.address for node in lab.nodes} | ({nat_address(lab)} if lab.private_workers else set())
    return _last_free(cidr, taken)


def _last_free(cidr: IPv4Network, taken: set[IPv4Address]) -> IPv4Address:
    return next(address for n in range(2, cidr.num_addresses) if (address := cidr[-n]) not in taken)


def pod_mtu(lab: Lab) -> int:
    """MTU of a pod's eth0 in bytes: calico.mtu, else the link's MTU less the largest overhead of the lab's tunnels."""
    return lab.calico.mtu or lab.link_mtu - max((tunnel.overhead for tunnel in lab.tunnels), default=0)


def given_mtu(lab: Lab) -> int | None:
    """The MTU in bytes that Calico gets for pods and tunnels. None if Calico has to find it by itself.

    Calico finds the MTU of the node's interface. The network behind it may carry less (a VPN, a VLAN, a peering), so
    Calico gets the MTU if the stack file has calico.mtu or network.mtu.
    """
    return None if lab.calico.mtu is None and lab.network.mtu is None else pod_mtu(lab)


def tunnel_mtu(lab: Lab, tunnel: Tunnel) -> int:
    """MTU of a tunnel's device in bytes. An MTU that Calico gets is for all of its tunnels."""
    return given_mtu(lab) or lab.link_mtu - tunnel.overhead


def attached_mtu(lab: Lab, network: AddressedNetwork) -> int | None:
    """MTU of an attached network's interfaces in bytes. None if the plugin chooses it.

    The bridge plugin would choose 1500. Packets from a bridge leave the node without a tunnel, so the MTU of the link
    is right for it, and not the MTU of the pods. The other plugins use the MTU of the node's interface.
    """
    return network.mtu or (lab.network.mtu if isinstance(network, BridgeNetwork) else None)


def delegate_range(block: IPv4Network, delegate: Delegate) -> tuple[IPv4Address, IPv4Address]:
    """First and last address of the delegate in a node's block. Raises IndexError if the block is too small."""
    return block[delegate.range_start], block[delegate.range_end]


def reserved_cidrs(blocks: Iterable[IPv4Network], delegates: Sequence[Delegate]) -> list[IPv4Network]:
    """The fewest CIDRs that cover exactly the delegates' ranges in these blocks, in order of address."""
    found: list[IPv4Network] = []
    for block in blocks:
        for delegate in delegates:
            found += summarize_address_range(*delegate_range(block, delegate))
    return list(collapse_addresses(found))


def reservation(lab: Lab, blocks: Mapping[str, Sequence[str]]) -> list[IPv4Network]:
    """Every CIDR that calico-ipam must not hand out, because it belongs to a delegate. `blocks`: node name → CIDRs."""
    found: list[IPv4Network] = []
    for node_blocks in blocks.values():
        for pool in lab.calico.pools:
            delegates = [d for d in lab.multus.delegates if lab.pool_of(d) == pool] if lab.multus else []
            block = block_in_pool(node_blocks, pool)
            if delegates and block is not None:
                found += reserved_cidrs([block], delegates)
    return sorted(found)


def block_in_pool(blocks: Sequence[str], pool: Pool) -> IPv4Network | None:
    """The first of a node's blocks (oldest first) that is inside the pool. None if there is none.

    The choice does not change while the node holds that block: pods keep addresses from the delegates' ranges in it.
    """
    return next((block for block in map(network_of, blocks) if block.subnet_of(pool.cidr)), None)


@dataclass(frozen=True)
class IngressRule:
    """Traffic that nodes must accept.

    `protocol`: tcp, udp, icmp, an IANA protocol number, or -1 for all. `from_port` and `to_port` are inclusive, and -1
    where the protocol has no ports. `source`: the lab's nodes, its pods (packets whose outer source is a pod address),
    or the operators. `to`: the nodes that accept it.
    """

    name: str
    protocol: str
    from_port: int
    to_port: int
    source: Literal["nodes", "pods", "operators"]
    to: Literal["nodes", "control-plane"] = "nodes"


def ingress_rules(lab: Lab) -> list[IngressRule]:
    """All traffic that the lab's nodes must accept.

    Sources: Calico, "System requirements"; kubernetes.io, "Ports and Protocols".
    """
    found = [
        # Operators reach workers without public addresses through an endpoint, which has a rule of its own.
        IngressRule(
            "ssh", "tcp", SSH_PORT, SSH_PORT, "operators", to="control-plane" if lab.private_workers else "nodes"
        ),
        IngressRule("api", "tcp", API_PORT, API_PORT, "operators", to="control-plane"),
        # The first control plane is also the jump host for SSH to the workers.
        IngressRule("node-ssh", "tcp", SSH_PORT, SSH_PORT, "nodes"),
        IngressRule("node-api", "tcp", API_PORT, API_PORT, "nodes", to="control-plane"),
        IngressRule("kubelet", "tcp", 10250, 10250, "nodes"),
        IngressRule("node-icmp", "icmp", -1, -1, "nodes"),
    ]
    if len(lab.control_planes) > 1:
        found.append(IngressRule("etcd", "tcp", 2379, 2380, "nodes", to="control-plane"))
    if lab.calico.install == "operator":
        found.append(IngressRule("typha", "tcp", 5473, 5473, "nodes"))
    if lab.calico.bgp == "Enabled":
        found.append(IngressRule("bgp", "tcp", 179, 179, "nodes"))
    for tunnel in lab.tunnels:
        first, last = tunnel.ports or (-1, -1)
        found.append(IngressRule(tunnel.name.lower(), tunnel.protocol, first, last, "nodes"))
    if lab.sends_plain:
        found.append(IngressRule("pods", "-1", -1, -1, "pods"))
    return found
