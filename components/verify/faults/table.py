"""Every fault that `./lab break` can make. docs/faults.md has the same table for people."""

from __future__ import annotations

from collections.abc import Mapping

from components.spec import addresses, models
from components.spec.modes import IPIP, VXLAN, Tunnel
from components.verify.expect.pod import route_for
from components.verify.faults import targets
from components.verify.faults.model import Cuts, Fault, Refused, Target
from components.verify.model import ObservedLab, Pod

_STAYS = "it stays"
_STAYS_WITH_THE_NODE = "it stays until the node restarts"
_STAYS_WITH_THE_POD = "it stays until the pod is replaced"
_STAYS_WITH_THE_FIREWALL = "it stays until the firewall's pod is replaced"
_FILTER_STAYS = f"{_STAYS_WITH_THE_NODE}, because Felix manages its own chains only"
_FELIX_COMPARES_ENTRIES = (
    "Felix repairs it when it next compares its entries with the kernel's, within 90 s (routeRefreshInterval)"
)


# --- what is lost ----------------------------------------------------------------------------------------------------


def _cuts_plain(lab: ObservedLab, target: Target, source: Pod, destination: Pod) -> bool:
    """EC2 drops what a node sends or receives without a tunnel."""
    here = target.node in (source.node, destination.node) and source.node != destination.node
    return here and lab.tunnel_between(source.node, destination.node, destination.address) is None


def _cuts_arriving(tunnel: Tunnel) -> Cuts:
    def cuts(lab: ObservedLab, target: Target, source: Pod, destination: Pod) -> bool:
        """The node drops what arrives in the tunnel."""
        here = target.node == destination.node
        return here and lab.tunnel_between(source.node, destination.node, destination.address) == tunnel

    return cuts


def _cuts_towards_peer(lab: ObservedLab, target: Target, source: Pod, destination: Pod) -> bool:
    """VXLAN on the node does not know where the peer is."""
    here = (target.node, target.peer) == (source.node, destination.node)
    return here and lab.tunnel_between(source.node, destination.node, destination.address) == VXLAN


def _cuts_eth0(lab: ObservedLab, target: Target, source: Pod, destination: Pod) -> bool:
    """The pod cannot send by eth0."""
    return source == target.pod and _field(lab, source, destination, "dev") == "eth0"


def _cuts_default_route(lab: ObservedLab, target: Target, source: Pod, destination: Pod) -> bool:
    """The pod cannot send by its default route."""
    return source == target.pod and route_for(lab, source, destination.address).key == "default"


def _field(lab: ObservedLab, source: Pod, destination: Pod, name: str) -> str:
    return str((route_for(lab, source, destination.address).expected or {}).get(name, ""))


def _cuts_node(lab: ObservedLab, target: Target, source: Pod, destination: Pod) -> bool:
    """The node forwards nothing to or from its pods."""
    return target.node in (source.node, destination.node)


def _cuts_turned(lab: ObservedLab, target: Target, source: Pod, destination: Pod) -> bool:
    """The node drops what arrives otherwise than the answer leaves."""
    out = lab.tunnel_between(source.node, destination.node, destination.address)
    back = lab.tunnel_between(destination.node, source.node, source.address)
    return target.node == destination.node and out != back


def _of_pod(lab: ObservedLab, target: Target, source: Pod, destination: Pod) -> bool:
    """The pod sends by eth0."""
    return source == target.pod and _field(lab, source, destination, "dev") == "eth0"


def _of_node(lab: ObservedLab, target: Target, source: Pod, destination: Pod) -> bool:
    """The node sends to another."""
    return source.node == target.node


def _cuts_routes_from(lab: ObservedLab, target: Target, source: Pod, destination: Pod) -> bool:
    """BIRD on the source's node learns no route to the destination's block: one of the two has lost its only peer."""
    pool = lab.pool_of(destination.address)
    alone = targets.only_peer_of(lab.spec, target.object)
    learnt = pool is not None and pool.mode.routes_by == "BIRD" and source.node != destination.node
    return learnt and bool(alone & {source.node, destination.node})


# --- the table -------------------------------------------------------------------------------------------------------

FAULTS: Mapping[str, Fault] = {
    fault.id: fault
    for fault in (
        Fault(
            id="source-dest-check",
            title="EC2's source/destination check is on: a node may send and receive with its own address only",
            without_mend="`up --refresh` switches it off again",
            kind="",
            hop="arrival",
            refusal=targets.only_on_ec2,
            targets=targets.source_dest,
            cuts=_cuts_plain,
            not_in_sandbox="its nodes are no EC2 instances",
        ),
        Fault(
            id="vxlan-dropped",
            title=f"a packet filter drops {VXLAN.packet_title}: what arrives at the node by VXLAN",
            without_mend=_FILTER_STAYS,
            kind="filter",
            hop="arrival",
            refusal=targets.only_with(VXLAN),
            targets=targets.dropped(VXLAN),
            cuts=_cuts_arriving(VXLAN),
        ),
        Fault(
            id="ipip-dropped",
            title=f"a packet filter drops {IPIP.packet_title}: what arrives at the node by IPIP",
            without_mend=_FILTER_STAYS,
            kind="filter",
            hop="arrival",
            refusal=targets.only_with(IPIP),
            targets=targets.dropped(IPIP),
            cuts=_cuts_arriving(IPIP),
        ),
        Fault(
            id="fdb-gone",
            title=f"an entry of {VXLAN.device}'s forwarding table is gone: the node has no outer address for a peer",
            without_mend=_FELIX_COMPARES_ENTRIES,
            kind="fdb",
            hop="tunnel",
            refusal=targets.only_with(VXLAN),
            targets=targets.forwarding_entry,
            cuts=_cuts_towards_peer,
        ),
        Fault(
            id="proxy-arp-off",
            title=f"the host side of a pod answers no ARP for {addresses.GATEWAY}: the pod finds no gateway",
            without_mend="Felix repairs it when the pod or its interface changes, or calico-node restarts",
            kind="sysctl",
            hop="gateway arp",
            refusal=targets.only_with_pods,
            targets=targets.proxy_arp,
            cuts=_cuts_eth0,
        ),
        Fault(
            id="multus-emptied",
            title="00-multus.conf is empty: CRI-O takes the next file, and new pods get Calico's network only",
            without_mend=_STAYS,
            kind="emptied",
            hop=None,
            refusal=targets.only_with_multus,
            targets=targets.multus_file,
        ),
        Fault(
            id="delegate-renamed",
            title="a delegate's file is called .conf.bak, which Multus does not read: new pods for it do not start",
            without_mend=_STAYS,
            kind="renamed",
            hop=None,
            refusal=targets.only_with_delegates,
            targets=targets.delegate,
        ),
        Fault(
            id="wrong-default-route",
            title="a pod's default route leads to the pod's own address on its attached network: packets go nowhere",
            without_mend=_STAYS_WITH_THE_POD,
            kind="route",
            hop="pod route",
            refusal=targets.only_with_default_route,
            targets=targets.default_route,
            cuts=_cuts_default_route,
        ),
        Fault(
            id="firewall-gone",
            title="the firewall's interface on the node's bridge is down, as if its pod were gone: no gateway answers",
            without_mend=_STAYS_WITH_THE_FIREWALL,
            kind="unplugged",
            hop="firewall",
            refusal=targets.only_with_firewall,
            targets=targets.firewall(unplugged=True),
        ),
        Fault(
            id="firewall-drops",
            title="the firewall drops every packet that it would forward; it still answers a ping",
            without_mend=_STAYS_WITH_THE_FIREWALL,
            kind="forward",
            hop="firewall",
            refusal=targets.only_with_firewall,
            targets=targets.firewall(unplugged=False),
        ),
        Fault(
            id="mtu-too-large",
            title="a pod's eth0 has the MTU of the link: its large packets vanish at its host side, small ones pass",
            without_mend=_STAYS_WITH_THE_POD,
            kind="mtu",
            hop="host veth",
            refusal=targets.only_with_smaller_mtu,
            targets=targets.mtu,
            shown=_of_pod,
        ),
        Fault(
            id="stale-neighbour",
            title=f"a node has an old MAC address for a peer's {VXLAN.device}: no entry says where that one is",
            without_mend=_FELIX_COMPARES_ENTRIES,
            kind="neighbour",
            hop="tunnel",
            refusal=targets.only_with(VXLAN),
            targets=targets.neighbour,
            cuts=_cuts_towards_peer,
        ),
        Fault(
            id="nat-off",
            title="a node no longer masquerades what pods of a pool send outside: no answer finds its way back",
            without_mend="Felix repairs it when it next compares its rules with the kernel's (iptablesRefreshInterval)",
            kind="nat",
            hop="masquerade",
            refusal=targets.only_with_nat,
            targets=targets.nat,
        ),
        Fault(
            id="ip-forward-off",
            title="a node forwards no packets (net.ipv4.ip_forward is 0): its pods reach nothing and nobody",
            without_mend="a restart of the node or of calico-node repairs it",
            kind="forwarding",
            hop="gateway arp",
            refusal=targets.only_with_pods,
            targets=targets.forwarding,
            cuts=_cuts_node,
        ),
        Fault(
            id="rp-filter-strict",
            title="a node drops what comes in by another device than the answer leaves by (strict rp_filter)",
            without_mend=_STAYS_WITH_THE_NODE,
            kind="rp_filter",
            hop="arrival",
            refusal=targets.only_with_two_ways,
            targets=targets.reverse_path,
            cuts=_cuts_turned,
        ),
        Fault(
            id="range-moved",
            title="a delegate's range reaches over calico-ipam's addresses: a new pod may get one that is taken",
            without_mend=_STAYS,
            kind="edited",
            hop=None,
            refusal=targets.only_with_delegates,
            targets=targets.moved_range,
        ),
        Fault(
            id="link-slow",
            title="what a node sends to others is delayed by 200 ms, and some of it is lost (netem)",
            without_mend=_STAYS_WITH_THE_NODE,
            kind="netem",
            hop="underlay",
            refusal=targets.only_with_several_nodes,
            targets=targets.slow_link,
            shown=_of_node,
        ),
        Fault(
            id="service-without-endpoints",
            title="a Service's selector matches no pod: kube-proxy rejects what is sent to it",
            without_mend="`up --refresh` writes the Service again",
            kind="",
            hop="service",
            refusal=targets.only_with_services,
            targets=targets.service,
        ),
        Fault(
            id="wrong-peer-as",
            title="a BGPPeer has another AS number than the peer: BIRD refuses it, and no session comes up",
            without_mend="`up --refresh` writes the BGPPeer again",
            kind="",
            hop="host route",
            refusal=targets.only_with_peers,
            targets=targets.peer,
            cuts=_cuts_routes_from,
            not_in_sandbox="no BIRD runs in a sandbox: its BGP sessions are listed, not made",
        ),
    )
}


def find(name: str, lab: models.Lab, *, sandbox: bool = False) -> Fault:
    """A fault that this lab can have. Raises Refused."""
    fault = FAULTS.get(name)
    if fault is None:
        raise Refused(f"there is no fault {name!r}; there are: {', '.join(FAULTS)}")
    if sandbox and fault.not_in_sandbox:
        raise Refused(f"{name} cannot be made in a sandbox: {fault.not_in_sandbox}. It needs the deployed lab")
    reason = fault.refusal(lab)
    if reason is not None:
        raise Refused(f"{name} cannot be made in this lab: {reason}")
    return fault
