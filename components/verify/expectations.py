"""What must be true of a live lab, as data: each expectation has an id, a sentence, the command a person would type,
the fields expected and where they follow from. Nothing here reads a machine.

They follow from the stack file, from the blocks the nodes hold, and from what the API says of tunnel addresses and
pods. A MAC address of vxlan.calico follows from its node's name, so no node has to be asked about another.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from ipaddress import IPv4Address, IPv4Network
from itertools import pairwise

from components.multus import delegates
from components.spec import addresses, models, modes
from components.spec.placement import selected
from components.verify.facts import NodeFacts, Pod, Scope, tunnel_mac

# Kubernetes forgets events after an hour (kube-apiserver --event-ttl).
_EVENT_LIFE = timedelta(minutes=50)
VNI, VXLAN_PORT, WIREGUARD_PORT = str(modes.VXLAN_VNI), modes.VXLAN.packet[4:], modes.WIREGUARD.packet[4:]
HOST_SIDE_MAC = "ee:ee:ee:ee:ee:ee"
VXLAN, IPIP, WIREGUARD = modes.VXLAN.device, modes.IPIP.device, modes.WIREGUARD.device


@dataclass(frozen=True)
class Within:
    """An IPv4 address from `first` to `last`, both included."""

    first: IPv4Address
    last: IPv4Address

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


@dataclass(frozen=True)
class OneOf:
    values: tuple[str, ...]

    def __str__(self) -> str:
        return " or ".join(self.values)


Value = str | Within | OneOf


@dataclass(frozen=True)
class Expectation:
    """`topic` and `key` say which entry of the scope's facts is meant: the node's, the pod's (with `pod`), or the
    cluster's (without `node`). `expected`: its fields; None: there must be no such entry."""

    topic: str
    key: str
    expected: Mapping[str, Value] | None
    sentence: str
    command: str
    because: str
    cause: str
    mend: str
    node: str | None = None
    pod: str | None = None
    about: str = field(default="", compare=False)

    @property
    def id(self) -> str:
        where = [part for part in (self.node, self.about or self.pod) if part] or ["cluster"]
        return "/".join([*where, self.topic, self.key.replace(" ", ",")]).replace("//", "/")


@dataclass(frozen=True)
class Lab:
    """What expectations follow from: the stack file, the stack's blocks, and what the API and the nodes' NICs say.

    `blocks`: node → CIDRs, as `up` read them. `affinities`: the same, as they are now. `tunnels`: node →
    annotation (IPv4VXLANTunnelAddr, …) → address. `nics`: node → interface that holds its address.
    """

    lab: models.Lab
    blocks: Mapping[str, Sequence[str]]
    affinities: Mapping[str, Sequence[str]]
    tunnels: Mapping[str, Mapping[str, str]]
    pods: Sequence[Pod]
    nics: Mapping[str, str]
    now: datetime

    @cached_property
    def addresses(self) -> dict[str, str]:
        """Node → its address."""
        return {node.name: str(node.address) for node in self.lab.nodes}

    @classmethod
    def of(
        cls,
        lab: models.Lab,
        blocks: Mapping[str, Sequence[str]],
        cluster: Scope,
        pods: Sequence[Pod],
        nodes: Mapping[str, NodeFacts],
        now: datetime | None = None,
    ) -> Lab:
        """From what was read; where the API is silent the stack's own blocks are taken for the live ones."""
        affinities: dict[str, list[str]] = {}
        for cidr, entries in cluster.topics.get("affinity", {}).items():
            for seen in entries:
                if seen.fields["state"] == "confirmed" and _is_ipv4(cidr):
                    affinities.setdefault(seen.fields["node"], []).append(cidr)
        tunnels = {node: entries[0].fields for node, entries in cluster.topics.get("annotation", {}).items()}
        nics = {}
        for node in lab.nodes:
            nic = nodes[node.name].nic(str(node.address)) if node.name in nodes else None
            nics[node.name] = nic or lab.calico.interface or "eth0"
        live = {node: sorted(cidrs, key=IPv4Network) for node, cidrs in affinities.items()}
        return cls(
            lab, blocks, live if "affinity" in cluster.topics else blocks, tunnels, pods, nics, now or datetime.now(UTC)
        )

    def pool_of(self, cidr: str) -> models.Pool | None:
        return next((p for p in self.lab.calico.pools if _network(cidr).subnet_of(p.cidr)), None)

    def tunnel(self, node: str, annotation: str) -> str:
        return self.tunnels.get(node, {}).get(annotation, "")

    def has_vtep(self, node: str) -> bool:
        """Whether Felix makes vxlan.calico on a node: only with an address from a VXLAN pool that selects the node."""
        selecting = any(
            node in {n.name for n in selected(self.lab, pool.node_selector) or ()}
            for pool in self.lab.calico.pools
            if pool.mode.tunnel is modes.VXLAN
        )
        return selecting or bool(self.tunnel(node, "IPv4VXLANTunnelAddr"))

    def running(self, node: str) -> list[Pod]:
        return [pod for pod in self.pods if pod.node == node and pod.running]


# Every node asks for every other node's blocks.
_network = cache(IPv4Network)


def _is_ipv4(cidr: str) -> bool:
    try:
        IPv4Network(cidr)
    except ValueError:
        return False
    return True


def expectations(live: Lab) -> list[Expectation]:
    """All of a lab, in the order in which they are best read: the cluster's, then node by node, pod by pod."""
    found = [*_cluster(live)]
    for node in live.lab.nodes:
        found += [*_node(live, node), *_tunnels(live, node), *_routes(live, node), *_neighbours(live, node)]
        found += [*_bgp(live, node)]
        if live.lab.multus:
            found += _files(live, node)
        for pod in live.running(node.name):
            found += _pod(live, node, pod)
        if isinstance(live.lab.machines, models.AwsMachines):
            found.append(_source_dest(node))
    return [*found, *_probes(live)]


# --- the cluster -----------------------------------------------------------------------------------------------------


def _cluster(live: Lab) -> Iterator[Expectation]:
    lab = live.lab
    for pool in lab.calico.pools:
        ipip, vxlan = pool.mode.ipip_mode, pool.mode.vxlan_mode
        yield Expectation(
            "pool",
            pool.name,
            {"cidr": str(pool.cidr), "blockSize": str(pool.block_size), "ipipMode": ipip, "vxlanMode": vxlan},
            f"IPPool {pool.name} is {pool.cidr} in blocks of /{pool.block_size}, {pool.encapsulation}",
            f"kubectl get ippools.crd.projectcalico.org {pool.name} -o yaml",
            "calico.pools of the stack file",
            "someone changed the pool by hand; by the operator such an edit is undone, by the manifest it stays",
            "`./lab up STACK --repair` writes the pool as the stack file has it",
        )
    held = "blockaffinities.crd.projectcalico.org -o custom-columns=N:.spec.node,C:.spec.cidr"
    if lab.calico.ipam == "HostLocal":
        held = "nodes -o custom-columns=N:.metadata.name,C:.spec.podCIDR"
    for node, cidrs in live.blocks.items():
        for cidr in cidrs:
            yield Expectation(
                "affinity",
                cidr,
                {"node": node, "state": "confirmed"},
                f"block {cidr} is {node}'s",
                f"kubectl get {held}",
                "the blocks that `up` read; the delegates' ranges were computed from them",
                "the block moved: the node was made anew, or Calico released the block",
                "`./lab up STACK --repair` reads the blocks again and writes the node files for the ones there are now",
            )
    for node, pool in _without_block(live):
        yield Expectation(
            "affinity",
            f"{pool.name} of {node}",
            {},
            f"`up` knows {node}'s block of pool {pool.name}, in which the delegates' ranges lie",
            "./lab addresses STACK",
            "each node's delegates are written for its own block (multus.delegates)",
            "the last `up` ended before it had read the blocks: the node's files are not written, and not checked",
            "./lab up STACK",
        )
    if lab.multus and lab.calico.ipam == "Calico":
        for reserved in addresses.reservation(lab, live.blocks):
            yield Expectation(
                "reservation",
                str(reserved),
                {},
                f"calico-ipam leaves {reserved} to the delegates",
                "kubectl get ipreservations.crd.projectcalico.org -o yaml",
                "the delegates' ranges in every node's block (multus.delegates)",
                "the IPReservation was changed or removed: two pods may get one address",
                "`./lab up STACK --repair` writes the reservation again",
            )


def _without_block(live: Lab) -> Iterator[tuple[str, models.Pool]]:
    """Nodes for which `up` has read no block of a pool that delegates give from."""
    lab = live.lab
    delegates_of = lab.multus.delegates if lab.multus else ()
    pools = {pool.name: pool for pool in map(lab.pool_of, delegates_of)}
    for node in lab.nodes:
        for pool in pools.values():
            if addresses.block_in_pool(live.blocks.get(node.name, ()), pool) is None:
                yield node.name, pool


# --- a node ----------------------------------------------------------------------------------------------------------


def _node(live: Lab, node: models.Node) -> Iterator[Expectation]:
    name = node.name
    yield Expectation(
        "node",
        name,
        {"Ready": "True"},
        f"node {name} is Ready",
        f"kubectl get node {name}",
        "kubelet, CRI-O and CNI all answer",
        "kubelet or CRI-O stopped, or CRI-O has no usable CNI configuration",
        f"kubectl describe node {name}; on the node: journalctl -u kubelet -u crio --since -10min",
        about=name,
    )
    prefix = live.lab.network.subnets[node.subnet].prefixlen
    yield Expectation(
        "annotation",
        name,
        {"IPv4Address": f"{node.address}/{prefix}"},
        f"Calico knows {name} by {node.address}/{prefix}",
        f"kubectl get node {name} -o yaml | grep projectcalico.org",
        "the node's address in the stack file, with its subnet's prefix length, which CrossSubnet is decided by",
        "Calico took another of the node's addresses (calico.nodeAddressAutodetection, calico.interface)",
        "name the right interface in calico.interface and `up` again",
        about=name,
    )
    yield Expectation(
        "ip_forward",
        "all",
        {"value": "1"},
        f"{name} forwards packets",
        "sysctl net.ipv4.ip_forward",
        "a node is its pods' router",
        "another sysctl file was loaded after the lab's",
        "sysctl --system; look for net.ipv4.ip_forward in /etc/sysctl.d",
        node=name,
    )
    for tunnel in live.lab.tunnels:
        kind, protocol = tunnel.name, tunnel.protocol
        port = tunnel.ports[0] if tunnel.ports else None
        what = f"UDP {port}" if port else f"protocol {protocol}"
        yield Expectation(
            "filter",
            tunnel.packet,
            None,
            f"no packet filter of {name} drops {what}",
            f"iptables-save | grep -- '--dport {port}' | grep -E 'DROP|REJECT'"
            if port
            else f"iptables-save | grep -E -- '-p ({protocol}|ipencap|ipv4) ' | grep -E 'DROP|REJECT'",
            f"{kind} packets between nodes travel as {what}",
            f"a firewall rule of the host drops {what}: pods of other nodes are out of reach",
            "remove the rule that is shown (`./lab mend STACK` where `./lab break` made it)",
            node=name,
        )


def _tunnels(live: Lab, node: models.Node) -> Iterator[Expectation]:
    lab, name, kinds = live.lab, node.name, {tunnel.name for tunnel in live.lab.tunnels}
    nic = live.nics[name]
    namespace = "calico-system" if lab.calico.install == "operator" else "kube-system"
    if live.has_vtep(name):
        tunnel = live.tunnel(name, "IPv4VXLANTunnelAddr")
        fields: dict[str, Value] = {
            "kind": "vxlan",
            "id": VNI,
            "port": VXLAN_PORT,
            "learning": "off",
            "local": str(node.address),
            "dev": nic,
            "mtu": str(addresses.tunnel_mtu(lab, modes.VXLAN)),
            "address": tunnel_mac(name),
            "up": "yes",
        }
        if tunnel:
            fields["addresses"] = f"{tunnel}/32"
        yield Expectation(
            "link",
            VXLAN,
            fields,
            f"{VXLAN} of {name} carries VNI {VNI} from {node.address}, learns nothing, MTU {fields['mtu']}",
            f"ip -d addr show {VXLAN}",
            "Felix makes it for VXLAN; what it would learn Felix writes; 50 bytes of outer headers leave the MTU",
            "Felix (calico-node) does not run on the node, or another network manager changed the device",
            f"kubectl -n {namespace} get pods -o wide; delete the node's calico-node pod",
            node=name,
        )
    elif "VXLAN" not in kinds:
        yield _absent(name, VXLAN, "no pool of the lab uses VXLAN")
    if "IPIP" in kinds:
        tunnel = live.tunnel(name, "IPv4IPIPTunnelAddr")
        fields = {"kind": "ipip", "up": "yes", "mtu": str(addresses.tunnel_mtu(lab, modes.IPIP))}
        if tunnel:
            fields["addresses"] = f"{tunnel}/32"
        yield Expectation(
            "link",
            IPIP,
            fields,
            f"{IPIP} of {name} wraps packets in IP, MTU {fields['mtu']}",
            f"ip -d addr show {IPIP}",
            "Felix brings it up for IPIP; 20 bytes of outer header leave the MTU",
            "the kernel lacks ipip, or Felix does not run on the node",
            "modprobe ipip; delete the node's calico-node pod",
            node=name,
        )
    if "WireGuard" in kinds:
        tunnel = live.tunnel(name, "IPv4WireguardInterfaceAddr")
        fields = {"kind": "wireguard", "up": "yes", "mtu": str(addresses.tunnel_mtu(lab, modes.WIREGUARD))}
        if tunnel:
            fields["addresses"] = f"{tunnel}/32"
        yield Expectation(
            "link",
            WIREGUARD,
            fields,
            f"{WIREGUARD} of {name} encrypts packets, MTU {fields['mtu']}",
            f"ip -d addr show {WIREGUARD}",
            "calico.wireguard of the stack file",
            "the kernel lacks wireguard, or Felix does not run on the node",
            "modprobe wireguard; delete the node's calico-node pod",
            node=name,
        )


def _absent(node: str, device: str, because: str) -> Expectation:
    return Expectation(
        "link",
        device,
        None,
        f"{node} has no {device}",
        f"ip -d addr show {device}",
        because,
        "the device is left from an earlier mode: Felix did not take it away",
        "delete the node's calico-node pod; Felix clears the device as it starts",
        node=node,
    )


def _routes(live: Lab, node: models.Node) -> Iterator[Expectation]:
    for cidr in live.affinities.get(node.name, ()):
        pool = live.pool_of(cidr)
        if pool is None or _network(cidr).prefixlen == 32:
            continue
        proto: Value = "80" if pool.encapsulation.startswith("VXLAN") else OneOf(("bird", "80"))
        yield Expectation(
            "route",
            cidr,
            {"type": "blackhole", "proto": proto},
            f"{node.name} drops what goes to an address of its own block {cidr} that no pod has",
            f"ip route show type blackhole {cidr}",
            "without it such packets would leave by the default route, and loop",
            "Felix or BIRD does not run on the node",
            "delete the node's calico-node pod",
            node=node.name,
        )
    vtep = live.has_vtep(node.name)
    for peer in live.lab.nodes:
        if peer.name == node.name:
            continue
        for cidr in live.affinities.get(peer.name, ()):
            pool = live.pool_of(cidr)
            if pool is None:
                continue
            if vtep or not pool.encapsulation.startswith("VXLAN"):
                yield _route(live, node, peer, cidr, pool)
            if live.lab.calico.wireguard:
                yield _encrypted(node, peer, cidr)


def _route(live: Lab, node: models.Node, peer: models.Node, cidr: str, pool: models.Pool) -> Expectation:
    """The way from a node to a peer's block, by the pool's mode."""
    same_subnet = node.subnet == peer.subnet
    mode, nic = pool.encapsulation, live.nics[node.name]
    plain = mode == "None" or (mode.endswith("CrossSubnet") and same_subnet)
    fields: dict[str, Value]
    if plain:
        # BIRD learns the peer's address as next hop; across a router the kernel has the router's instead.
        fields = {"dev": nic, "proto": "80" if mode.startswith("VXLAN") else OneOf(("bird", "80"))}
        if same_subnet:
            fields["via"] = live.addresses[peer.name]
        how = f"straight to {live.addresses[peer.name]}" if same_subnet else "by the router, as it is"
    elif mode.startswith("VXLAN"):
        tunnel = live.tunnel(peer.name, "IPv4VXLANTunnelAddr") or str(IPv4Network(cidr)[0])
        fields = {"via": tunnel, "dev": VXLAN, "onlink": "yes"}
        how = f"through {VXLAN} to {tunnel}"
    else:
        fields = {"via": live.addresses[peer.name], "dev": IPIP, "onlink": "yes", "proto": OneOf(("bird", "80"))}
        how = f"through {IPIP} to {live.addresses[peer.name]}"
    return Expectation(
        "route",
        cidr,
        fields,
        f"{node.name} sends {peer.name}'s block {cidr} {how}",
        f"ip route show {cidr}",
        f"pool {pool.name} is {mode}, and the two nodes are in "
        + ("one subnet" if same_subnet else f"the subnets {node.subnet} and {peer.subnet}"),
        "BIRD's session to the peer is down (see the bgp checks)"
        if live.lab.calico.bgp == "Enabled" and not mode.startswith("VXLAN")
        else "Felix does not run on the node, the pool's mode was changed, or someone took the route away",
        "delete the node's calico-node pod: it writes its routes again",
        node=node.name,
    )


def _encrypted(node: models.Node, peer: models.Node, cidr: str) -> Expectation:
    """The way that is looked up first: Felix's rule 99 sends all but WireGuard's own packets to a table of its own."""
    return Expectation(
        "encrypted",
        cidr,
        {"dev": WIREGUARD},
        f"{node.name} encrypts what goes to {peer.name}'s block {cidr}",
        f"ip route show table all type unicast | grep 'dev {WIREGUARD}'",
        "calico.wireguard of the stack file; the route of the same name in the main table is not reached",
        f"{peer.name} or {node.name} has no WireGuard: its kernel lacks it, or calico-node does not run there",
        f"kubectl get nodes -o yaml | grep WireguardPublicKey; then modprobe wireguard on {peer.name} and {node.name}",
        node=node.name,
    )


def _neighbours(live: Lab, node: models.Node) -> Iterator[Expectation]:
    if not live.has_vtep(node.name):
        return
    for peer in live.lab.nodes:
        tunnel, mac = live.tunnel(peer.name, "IPv4VXLANTunnelAddr"), tunnel_mac(peer.name)
        if peer.name == node.name or not tunnel:
            continue
        address = live.addresses[peer.name]
        yield Expectation(
            "neighbour",
            f"{VXLAN} {tunnel}",
            {"lladdr": mac, "state": "PERMANENT"},
            f"{node.name} knows {peer.name}'s tunnel address {tunnel} is at {mac}, without asking",
            f"ip neigh show dev {VXLAN}",
            f"Felix writes it; the MAC follows from the name {peer.name}",
            "the entry was deleted, or Felix does not run on the node",
            "delete the node's calico-node pod: Felix writes its entries again",
            node=node.name,
        )
        yield Expectation(
            "fdb",
            f"{VXLAN} {mac}",
            {"dst": address, "state": "permanent"},
            f"{node.name} sends frames for {mac} to {address}",
            f"bridge fdb show dev {VXLAN}",
            f"Felix writes it: {mac} is {peer.name}, whose address is {address}",
            "the forwarding entry is gone: the outer destination is unknown and packets end at the tunnel",
            "delete the node's calico-node pod: Felix writes its entries again; `./lab mend STACK` after `./lab break`",
            node=node.name,
        )


def _bgp(live: Lab, node: models.Node) -> Iterator[Expectation]:
    calico = live.lab.calico
    if calico.bgp != "Enabled":
        return
    reflectors = set(calico.route_reflectors)
    peers = [
        (peer.name, str(peer.address))
        for peer in live.lab.nodes
        if peer.name != node.name and (not reflectors or node.name in reflectors or peer.name in reflectors)
    ]
    for name, address in peers:
        yield Expectation(
            "bgp",
            address,
            {"state": "Established"},
            f"{node.name}'s BGP session to {name} ({address}) is established",
            "calicoctl node status",
            "the mesh of all nodes" if not reflectors else "calico.routeReflectors of the stack file",
            "TCP 179 does not reach the peer, or calico-node does not run there",
            f"from {node.name}: nc -vz {address} 179; look at the security group or firewall",
            node=node.name,
        )


def _files(live: Lab, node: models.Node) -> Iterator[Expectation]:
    lab, name = live.lab, node.name
    assert lab.multus is not None
    path = "/etc/cni/net.d/00-multus.conf"
    yield Expectation(
        "file",
        "first",
        {"name": "00-multus.conf"},
        f"00-multus.conf is the first usable file in {name}'s /etc/cni/net.d",
        "ls /etc/cni/net.d",
        "CRI-O takes the first file that it can use",
        "00-multus.conf is empty, broken or gone, or another file sorts before it",
        "`./lab up STACK --repair` writes it again (`./lab mend STACK` after `./lab break`)",
        node=name,
    )
    yield _file(name, path, delegates.multus_config(lab.multus), "Multus as the node's default network")
    for delegate in lab.multus.delegates:
        block = addresses.block_in_pool(live.blocks.get(name, ()), lab.pool_of(delegate))
        if block is None:
            continue
        start, end = addresses.delegate_range(block, delegate)
        config = delegates.delegate_config(lab, delegate, subnet=str(block), start=str(start), end=str(end))
        yield _file(
            name,
            f"{delegates.DELEGATE_DIRECTORY}/{delegate.name}.conf",
            config,
            f"delegate {delegate.name}, {start}-{end} of {name}'s block {block}",
        )
        yield Expectation(
            "free",
            delegate.name,
            {"taken": ""},
            f"calico-ipam has given none of {delegate.name}'s addresses {start}-{end} on {name}",
            "./lab addresses STACK",
            "host-local gives them; an address given by both is two pods' at once",
            "the pod was there before the reservation",
            f"delete the pods that are named; then they get an address outside {start}-{end}",
            node=name,
        )
    yield Expectation(
        "crio",
        "default network",
        {"name": delegates.DEFAULT_NETWORK},
        f"CRI-O of {name} uses {delegates.DEFAULT_NETWORK}",
        "journalctl -u crio | grep 'Updated default CNI network name' | tail -1",
        "the name inside 00-multus.conf",
        "CRI-O skipped 00-multus.conf: new pods get Calico's network alone",
        "`./lab up STACK --repair`; look: journalctl -u crio | grep CNI",
        node=name,
    )


def _file(node: str, path: str, config: Mapping[str, object], what: str) -> Expectation:
    return Expectation(
        "file",
        path,
        {key: json.dumps(value, sort_keys=True) for key, value in config.items()},
        f"{path} on {node}: {what}",
        f"cat {path}",
        "the stack file and the node's block",
        "the file was renamed, emptied or edited; a name that does not end in .conf is not read",
        "`./lab up STACK --repair` writes it again (`./lab mend STACK` after `./lab break`)",
        node=node,
    )


# --- a pod -----------------------------------------------------------------------------------------------------------


def _pod(live: Lab, node: models.Node, pod: Pod) -> Iterator[Expectation]:
    lab, host = live.lab, pod.interface
    yield Expectation(
        "route",
        pod.address,
        {"dev": host, "scope": "link"},
        f"{node.name} reaches {pod.id} at {pod.address} through {host}",
        f"ip route show {pod.address}",
        f"{host} is cali + 11 digits of sha1({pod.namespace}.{pod.name})",
        "Felix does not know the pod as its workload endpoint, or the pod's sandbox is gone",
        f"kubectl -n {pod.namespace} delete pod {pod.name}",
        node=node.name,
        about=pod.id,
    )
    yield Expectation(
        "proxy_arp",
        host,
        {"value": "1"},
        f"{node.name} answers {pod.id}'s ARP for {addresses.GATEWAY} on {host}",
        f"cat /proc/sys/net/ipv4/conf/{host}/proxy_arp",
        f"{addresses.GATEWAY} is on no interface; proxy ARP answers with {HOST_SIDE_MAC}",
        "proxy_arp was switched off: the pod finds no gateway once its ARP entry is old",
        f"sysctl -w net/ipv4/conf/{host}/proxy_arp=1, or delete the pod",
        node=node.name,
        about=pod.id,
    )
    yield Expectation(
        "link",
        host,
        {"kind": "veth", "address": HOST_SIDE_MAC, "up": "yes"},
        f"{host}, the host side of {pod.id}, has the MAC {HOST_SIDE_MAC}",
        f"ip link show {host}",
        "Calico gives every host side the same MAC, so a pod that moves keeps its ARP entry",
        "the pod's sandbox is gone, or the interface was changed by hand",
        f"kubectl -n {pod.namespace} delete pod {pod.name}",
        node=node.name,
        about=pod.id,
    )
    workload = next((w for w in lab.workloads if w.name == pod.workload and w.namespace == pod.namespace), None)
    if workload is not None:
        yield from _workload_pod(live, node, pod, workload)


def _workload_pod(live: Lab, node: models.Node, pod: Pod, workload: models.Workload) -> Iterator[Expectation]:
    lab, inside = live.lab, f"kubectl -n {pod.namespace} exec {pod.name} --"
    blocks = live.blocks.get(node.name, ())
    delegate = delegate_of(lab, workload)
    where: Within | None = None
    if delegate is not None:
        block = addresses.block_in_pool(blocks, lab.pool_of(delegate))
        if block is not None:
            where = Within(*addresses.delegate_range(block, delegate))
    elif lab.calico.ipam == "Calico":
        # A node may borrow from another's block, so the pool is what binds it.
        holder = next((p for p in lab.calico.pools if IPv4Address(pod.address) in p.cidr), lab.calico.pools[0])
        where = Within(holder.cidr[0], holder.cidr[-1])
    why = (
        f"delegate {delegate.name} gives {where} on {node.name}"
        if delegate
        else "calico-ipam gives addresses of the pools"
    )
    if where is not None:
        yield _inside(
            pod,
            node,
            "address",
            "eth0",
            {"address": where},
            f"{pod.id} has an address of {where}",
            f"{inside} ip addr show eth0",
            why,
            "the pod was made before Multus' files were there, or its node's block moved",
        )
    yield _inside(
        pod,
        node,
        "link",
        "eth0",
        {"mtu": str(addresses.pod_mtu(lab)), "addresses": f"{pod.address}/32", "up": "yes"},
        f"{pod.id} has {pod.address}/32 on eth0, MTU {addresses.pod_mtu(lab)}",
        f"{inside} ip addr show eth0",
        "the address the API knows, and the link's MTU less the largest encapsulation in use",
        "the pod is older than the last change of the mode: it keeps the MTU it was made with",
    )
    gateway = str(addresses.GATEWAY)
    yield _inside(
        pod,
        node,
        "route",
        gateway,
        {"dev": "eth0", "scope": "link"},
        f"{pod.id} takes {gateway} for a neighbour on eth0",
        f"{inside} ip route",
        "Calico's plugin gives every pod this one next hop",
        "the pod's routes were changed by hand",
    )
    default_by = [a for a in workload.networks if a.default_route is not None]
    if delegate is not None and delegate.routes:
        destinations = [str(route) for route in delegate.routes]
    else:
        destinations = [] if default_by else ["default"]
    for destination in destinations:
        yield _inside(
            pod,
            node,
            "route",
            destination,
            {"via": gateway, "dev": "eth0"},
            f"{pod.id} sends {destination} by {gateway} on eth0",
            f"{inside} ip route show {destination}",
            f"routes of delegate {delegate.name}"
            if delegate and delegate.routes
            else "a pod's only way out is its node",
            "the pod is older than the delegate's routes, or its routes were changed by hand",
        )
    if delegate is not None and delegate.routes and not default_by:
        yield _inside(
            pod,
            node,
            "route",
            "default",
            None,
            f"{pod.id} has no default route",
            f"{inside} ip route",
            f"delegate {delegate.name} names its routes, and default is none of them",
            "the pod was made before the delegate's file was there",
        )
    if lab.multus:
        yield from _attached(live, node, pod, workload, delegate)


def _attached(
    live: Lab, node: models.Node, pod: Pod, workload: models.Workload, delegate: models.Delegate | None
) -> Iterator[Expectation]:
    lab, inside = live.lab, f"kubectl -n {pod.namespace} exec {pod.name} --"
    home = {network.name: network for network in lab.networks}
    status = f"kubectl -n {pod.namespace} get pod {pod.name} -o yaml | grep -A20 network-status"
    wanted: list[tuple[str, str, bool]] = []
    if delegate is not None:
        wanted.append(("eth0", f"kube-system/{delegate.name}", True))
    for number, attachment in enumerate(workload.networks, 1):
        wanted.append((f"net{number}", f"{home[attachment.name].namespace}/{attachment.name}", False))
    for interface, network, default in wanted:
        fields: dict[str, Value] = {"name": network, "default": "true" if default else "false"}
        if default:
            fields["ips"] = pod.address
        yield Expectation(
            "status",
            f"{pod.id} {interface}",
            fields,
            f"Multus gave {pod.id} {interface} from {network}",
            status,
            "what the workload asks for, or multus.clusterNetwork",
            "CRI-O did not use Multus when the pod was made",
            f"kubectl -n {pod.namespace} delete pod {pod.name}: its successor gets it",
            about=f"{node.name}/{pod.id}",
        )
        if _young(live, pod):
            yield Expectation(
                "event",
                f"{pod.id} {interface}",
                {"from": network},
                f"Multus told of {interface} from {network} for {pod.id}",
                f"kubectl -n {pod.namespace} describe pod {pod.name} | grep AddedInterface",
                "Multus makes an event for every interface; they live an hour",
                "Multus may not make events, or did not make the interface",
                f"kubectl -n {pod.namespace} delete pod {pod.name}",
                about=f"{node.name}/{pod.id}",
            )
    for number, attachment in enumerate(workload.networks, 1):
        interface, network_spec = f"net{number}", home[attachment.name]
        addresses_there = [str(ip) for ip in pod.networks.get(interface, {}).get("ips") or []]
        if isinstance(network_spec, models.AddressedNetwork):
            subnet = network_spec.subnet
            fields = {"up": "yes"}
            if addresses_there:
                fields["addresses"] = f"{addresses_there[0]}/{subnet.prefixlen}"
            if mtu := addresses.attached_mtu(lab, network_spec):
                fields["mtu"] = str(mtu)
            yield _inside(
                pod,
                node,
                "link",
                interface,
                fields,
                f"{pod.id} has {interface} in {subnet}",
                f"{inside} ip addr show {interface}",
                f"network {attachment.name}",
                "the pod was made without Multus, or the plugin failed",
            )
            for route in network_spec.routes:
                fields = {"dev": interface}
                if route.gateway:
                    fields["via"] = str(route.gateway)
                yield _inside(
                    pod,
                    node,
                    "route",
                    _destination(route.dst),
                    fields,
                    f"{pod.id} can send {route.dst} by {interface}",
                    f"{inside} ip route show {route.dst}",
                    f"routes of network {attachment.name}",
                    "the pod is older than the network's routes",
                )
        if isinstance(network_spec, models.BridgeNetwork) and network_spec.is_gateway:
            bridge, subnet = network_spec.bridge, network_spec.subnet
            ipam = network_spec.ipam
            gateway = (ipam.gateway if not isinstance(ipam, models.StaticAddresses) else None) or subnet[1]
            yield Expectation(
                "link",
                bridge,
                {"kind": "bridge", "up": "yes", "addresses": f"{gateway}/{subnet.prefixlen}"},
                f"bridge {bridge} of {node.name} is the gateway {gateway}",
                f"ip -d addr show {bridge}",
                f"network {attachment.name} is a bridge with isGateway",
                "the bridge was removed, or lost its address",
                "delete the pods on it: the plugin makes it anew with the next",
                node=node.name,
            )
        if attachment.default_route is not None:
            yield _inside(
                pod,
                node,
                "route",
                "default",
                {"via": str(attachment.default_route), "dev": interface},
                f"{pod.id}'s default route is {attachment.default_route} on {interface}",
                f"{inside} ip route show default",
                f"defaultRoute of workload {workload.name}",
                "the default route was changed: through the pod's own address it would be a black hole",
            )


def _inside(
    pod: Pod,
    node: models.Node,
    topic: str,
    key: str,
    expected: Mapping[str, Value] | None,
    sentence: str,
    command: str,
    because: str,
    cause: str,
) -> Expectation:
    """Something inside a pod; what does not fit there goes away with the pod."""
    mend = f"kubectl -n {pod.namespace} delete pod {pod.name}: its successor gets it right"
    return Expectation(
        topic, key, expected, sentence, command, because, cause, mend, node=node.name, pod=pod.interface, about=pod.id
    )


def delegate_of(lab: models.Lab, workload: models.Workload) -> models.Delegate | None:
    """The delegate that gives a workload's pods their eth0; None where Calico does."""
    if lab.multus is None:
        return None
    name = workload.default_network or lab.multus.cluster_network
    return next((d for d in lab.multus.delegates if d.name == name), None)


def _destination(network: IPv4Network) -> str:
    """As `ip route` prints it: a host without its prefix length, 0.0.0.0/0 as default."""
    if network.prefixlen == 0:
        return "default"
    return str(network.network_address) if network.prefixlen == 32 else str(network)


def _young(live: Lab, pod: Pod) -> bool:
    try:
        return live.now - datetime.fromisoformat(pod.started) < _EVENT_LIFE
    except ValueError:
        return False


# --- EC2 and probes --------------------------------------------------------------------------------------------------


def _source_dest(node: models.Node) -> Expectation:
    return Expectation(
        "source_dest",
        node.name,
        {"check": "off"},
        f"EC2 lets {node.name} send and receive packets that carry pods' addresses",
        f"aws ec2 describe-instances --filters Name=private-ip-address,Values={node.address} "
        "--query 'Reservations[].Instances[].SourceDestCheck'",
        "with the source/destination check on, EC2 drops packets between pods that travel without encapsulation",
        "the check was switched on",
        "`./lab up STACK --repair` switches it off again (`./lab mend STACK` after `./lab break`)",
        about=node.name,
    )


def probes(live: Lab) -> dict[str, list[tuple[str, str]]]:
    """Who pings whom: node → (pod's host-side interface, address). A ring over the nodes that have pods, so that the
    cost grows with the nodes and every node is a source and a destination."""
    return {
        source.node: [(source.interface, target.address)]
        for source, target in _ring(live)
        if source.node != target.node
    }


def _ring(live: Lab) -> list[tuple[Pod, Pod]]:
    chosen = []
    for node in live.lab.nodes:
        # The lab's own pods first: others may stand behind a network policy.
        own = sorted(live.running(node.name), key=lambda pod: (pod.workload is None, pod.namespace, pod.name))
        if own and own[0].workload is not None:
            chosen.append(own[0])
    return [*pairwise(chosen), (chosen[-1], chosen[0])] if len(chosen) > 1 else []


def ttl(live: Lab, source: Pod, target: Pod) -> Value:
    """What is left of 64 when a ping's answer arrives: each node takes one, and so may a router that is no tunnel's
    outside (a VPC's does not)."""
    if source.node == target.node:
        return "63"
    subnet = {node.name: node.subnet for node in live.lab.nodes}
    block = next((c for c in live.affinities.get(target.node, ()) if IPv4Address(target.address) in _network(c)), "")
    pools = [live.pool_of(block) if block else None]
    back = next((c for c in live.affinities.get(source.node, ()) if IPv4Address(source.address) in _network(c)), "")
    pools.append(live.pool_of(back) if back else None)
    routed = subnet.get(source.node) != subnet.get(target.node)
    plain = any(pool is not None and pool.encapsulation == "None" for pool in pools)
    return OneOf(("62", "61")) if routed and plain else "62"


def _probes(live: Lab) -> Iterator[Expectation]:
    for source, target in _ring(live):
        yield Expectation(
            "probe",
            f"{source.interface} {target.address}",
            {"received": "yes", "ttl": ttl(live, source, target)},
            f"{source.id} on {source.node} reaches {target.id} ({target.address}) on {target.node}",
            f"kubectl -n {source.namespace} exec {source.name} -- ping -c 1 {target.address}",
            "each of the two nodes takes one from the TTL of 64",
            f"a packet filter between {source.node} and {target.node}, or one of the checks above",
            f"./lab walk STACK {source.id} {target.id} shows the hop at which it ends",
            node=source.node,
            about=f"{source.id}->{target.node}",
        )
