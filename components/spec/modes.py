"""How packets travel between nodes: the tunnels, and the values of `calico.pools[].encapsulation`.

Everything that depends on the encapsulation reads these tables. A new encapsulation is a row in MODES and a word in
`Encapsulation`; a new tunnel is a `Tunnel`. Sources: Calico's documentation ("Determine the best MTU", "Overlay
networking", "System requirements") and Felix's defaults.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Encapsulation = Literal["IPIP", "IPIPCrossSubnet", "VXLAN", "VXLANCrossSubnet", "None"]


@dataclass(frozen=True)
class Tunnel:
    """A kind of tunnel between nodes.

    `device`: the name of its interface on every node. `kind`: the kind of link, as `ip -d link` prints it. `module`:
    the kernel module. `overhead`: the length of the outer headers in bytes. `protocol`: the outer protocol, by name or
    IANA number. `ports`: its first and last destination port, None if the protocol has no ports. `annotation`: the
    annotation of a Node that has the tunnel's address, without the prefix projectcalico.org/. `link_options`: what
    `ip link add` needs besides the kind; scripts make such a link to find out whether the kernel can.
    """

    name: Literal["VXLAN", "IPIP", "WireGuard"]
    device: str
    kind: str
    module: str
    overhead: int
    protocol: str
    ports: tuple[int, int] | None
    annotation: str
    link_options: str = ""

    @property
    def packet(self) -> str:
        """Its packets in short: "udp 4789", or "4" for a protocol without ports."""
        return f"{self.protocol} {self.ports[0]}" if self.ports else self.protocol

    @property
    def packet_title(self) -> str:
        """The same for people: "UDP 4789", or "IP protocol 4"."""
        return f"{self.protocol.upper()} {self.ports[0]}" if self.ports else f"IP protocol {self.protocol}"


VXLAN_VNI = 4096
"""The VXLAN network identifier (VNI) that Felix uses."""
VXLAN = Tunnel(
    "VXLAN",
    "vxlan.calico",
    "vxlan",
    "vxlan",
    50,
    "udp",
    (4789, 4789),
    "IPv4VXLANTunnelAddr",
    f"id {VXLAN_VNI} dstport 4789 local 127.0.0.1",
)
IPIP = Tunnel("IPIP", "tunl0", "ipip", "ipip", 20, "4", None, "IPv4IPIPTunnelAddr", "local 127.0.0.1 remote 127.0.0.2")
# 51821 is the port for IPv6.
WIREGUARD = Tunnel(
    "WireGuard", "wireguard.cali", "wireguard", "wireguard", 60, "udp", (51820, 51821), "IPv4WireguardInterfaceAddr"
)
TUNNELS = (VXLAN, IPIP, WIREGUARD)


def links_for_shell(tunnels: Iterable[Tunnel]) -> str:
    """Lines "MODULE KIND OPTION…", the variable TUNNEL_LINKS of components/node/modules.sh."""
    return "".join(f"{tunnel.module} {tunnel.kind} {tunnel.link_options}".rstrip() + "\n" for tunnel in tunnels)


@dataclass(frozen=True)
class Mode:
    """What a value of `encapsulation` means.

    `tunnel`: the tunnel for packets between nodes, None if there is none. `across_subnets_only`: whether nodes in the
    same subnet do not use the tunnel. `routes_by`: the program that writes the routes to other nodes' blocks.
    `ipip_mode`, `vxlan_mode`: the same in the terms of an IPPool.
    """

    tunnel: Tunnel | None
    across_subnets_only: bool
    routes_by: Literal["Felix", "BIRD"]
    ipip_mode: Literal["Always", "CrossSubnet", "Never"]
    vxlan_mode: Literal["Always", "CrossSubnet", "Never"]

    def tunnel_between(self, *, same_subnet: bool) -> Tunnel | None:
        """The tunnel for packets between two nodes. None if there is none."""
        return None if same_subnet and self.across_subnets_only else self.tunnel

    @property
    def sends_plain(self) -> bool:
        """Whether some packets travel between nodes without the tunnel, with pod addresses in their outer header."""
        return self.tunnel is None or self.across_subnets_only


MODES: Mapping[Encapsulation, Mode] = {
    "IPIP": Mode(IPIP, False, "BIRD", "Always", "Never"),
    "IPIPCrossSubnet": Mode(IPIP, True, "BIRD", "CrossSubnet", "Never"),
    "VXLAN": Mode(VXLAN, False, "Felix", "Never", "Always"),
    "VXLANCrossSubnet": Mode(VXLAN, True, "Felix", "Never", "CrossSubnet"),
    "None": Mode(None, False, "BIRD", "Never", "Never"),
}


def tunnel_of(device: str) -> Tunnel | None:
    """The tunnel that an interface belongs to."""
    return next((tunnel for tunnel in TUNNELS if tunnel.device == device), None)
