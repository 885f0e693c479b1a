"""What stands on each node of a lab, as plain values: blocks, pods, `ip` commands and files.

It follows what Felix, Multus and the CNI plugins leave behind, and was taken down from a cluster with Calico 3.32.1,
Multus 4.3.0 and CRI-O 1.36.3. Nothing here is read from components/verify: a test that took its expectations from
the code under test would prove nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from components.calico.blocks import block_of, range_of
from components.multus import delegates
from components.multus.manifests import STANDBY
from components.node.script import text_of
from components.spec.addresses import pod_mtu
from components.spec.models import Attachment, BridgeNetwork, Delegate, HostLocal, Lab, Node, Pool, Workload
from components.spec.placement import nodes_for
from components.workloads.manifests import network_annotations

SEED_BLOCKS = {"ip1001100": "10.244.6.0/24", "ip-10-0-2-200": "10.244.97.0/24", "ip-10-0-2-201": "10.244.93.0/24"}
"""What Calico gives nodes of these names in an empty pool 10.244.0.0/16 with /24 blocks (seeds 000 and 004)."""
BIRD = "12"
"""Protocol `bird` by its number: /etc/iproute2/rt_protos need not name it. Felix's own is 80."""
OUTSIDE = "198.51.100.1"
"""An address on the router, in no subnet of any lab: "the internet" (RFC 5737)."""


def digest(*words: str) -> str:
    return hashlib.sha256("/".join(words).encode()).hexdigest()


def uid(*words: str) -> str:
    text = digest(*words)
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-8{text[17:20]}-{text[20:32]}"


def mac_of(*words: str) -> str:
    """A MAC address of the locally administered kind."""
    text = digest(*words)
    return ":".join(["02", *(text[i : i + 2] for i in range(0, 10, 2))])


def tunnel_mac(node: str) -> str:
    """What Felix gives vxlan.calico: 66 and the first five bytes of SHA-1 of the node's name."""
    text = hashlib.sha1(node.encode()).hexdigest()
    return ":".join(["66", *(text[i : i + 2] for i in range(0, 10, 2))])


def host_interface(namespace: str, name: str) -> str:
    """The host's end of a pod's veth, by Calico's CNI plugin."""
    return "cali" + hashlib.sha1(f"{namespace}.{name}".encode()).hexdigest()[:11]


@dataclass(frozen=True)
class Extra:
    """A further interface of a pod: net1, net2, …"""

    interface: str
    network: BridgeNetwork
    address: IPv4Address
    mac: str
    host_interface: str
    default_route: IPv4Address | None


@dataclass
class Pod:
    """One pod. `interface` is the host's end of its veth; `netns` a name in the node's /run/netns.

    A pod on the host's network has the node's address, and the node's own network namespace under its `netns`.
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
    delegate: Delegate | None = None
    """Whose address it has; None: calico-ipam's."""
    extras: tuple[Extra, ...] = ()

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def interface(self) -> str:
        return host_interface(self.namespace, self.name)

    @property
    def mac(self) -> str:
        return mac_of("pod", self.namespace, self.name)

    @property
    def container(self) -> str:
        return digest("sandbox", self.namespace, self.name)


@dataclass(frozen=True)
class Plan:
    lab: Lab
    stack: str
    blocks: Mapping[str, Sequence[str]]
    """Node name → CIDRs."""
    pods: Sequence[Pod]
    router_knows_pods: bool

    def on(self, node: str) -> list[Pod]:
        return [pod for pod in self.pods if pod.node == node]

    def tunnel_address(self, node: str, kind: str) -> IPv4Address | None:
        """Of vxlan.calico or tunl0 (`kind` VXLAN, IPIP): the first address of the node's first block in such a pool."""
        for pool in self.lab.calico.pools:
            if pool.encapsulation.startswith(kind):
                return next((IPv4Network(b)[0] for b in self.blocks[node] if IPv4Network(b).subnet_of(pool.cidr)), None)
        return None


def make_plan(
    lab: Lab,
    *,
    stack: str = "replica",
    blocks: Mapping[str, Sequence[str]] | None = None,
    system_pods: bool = True,
    router_knows_pods: bool = True,
) -> Plan:
    """Raises ValueError for a lab that the replica cannot stand for."""
    if lab.calico.wireguard:
        raise ValueError("calico.wireguard: the replica builds no WireGuard device")
    for network in lab.networks:
        if not isinstance(network, BridgeNetwork) or not isinstance(network.ipam, HostLocal):
            raise ValueError(f"networks.{network.name}: the replica knows bridges with host-local addresses only")
    plan = Plan(lab, stack, blocks or _blocks(lab), [], router_knows_pods)
    return replace(plan, pods=_pods(plan, system_pods))


# --- who has which addresses ------------------------------------------------------------------------------------------


def _blocks(lab: Lab) -> dict[str, list[str]]:
    """One block for every node in every pool."""
    found: dict[str, list[str]] = {node.name: [] for node in lab.nodes}
    for pool in lab.calico.pools:
        taken: set[IPv4Network] = set()
        free = pool.cidr.subnets(new_prefix=pool.block_size)
        if pool.cidr == IPv4Network("10.244.0.0/16") and pool.block_size == 24:
            taken = {IPv4Network(SEED_BLOCKS[name]) for name in found if name in SEED_BLOCKS}
        for name in found:
            if name in SEED_BLOCKS and IPv4Network(SEED_BLOCKS[name]) in taken:
                found[name].append(SEED_BLOCKS[name])
                continue
            block = next((b for b in free if b not in taken), None)
            if block is None:
                raise ValueError(f"calico.pools.{pool.name}: {pool.cidr} has too few /{pool.block_size} for the nodes")
            found[name].append(str(block))
    return found


class _Addresses:
    """Hands out addresses as calico-ipam (from a block's start) and host-local (from a range's start) do."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._used: dict[tuple[str, str], int] = defaultdict(int)

    def _next(self, node: str, key: str) -> int:
        self._used[node, key] += 1
        return self._used[node, key] - 1

    def calico(self, node: str, pool: Pool) -> IPv4Address:
        block = next(n for n in map(IPv4Network, self._plan.blocks[node]) if n.subnet_of(pool.cidr))
        tunnels = {self._plan.tunnel_address(node, kind) for kind in ("VXLAN", "IPIP")}
        return block[self._next(node, f"pool {pool.name}") + (block[0] in tunnels)]

    def delegate(self, node: str, delegate: Delegate) -> IPv4Address:
        first, last = range_of(self._plan.lab, self._plan.blocks, node, delegate)
        address = first + self._next(node, f"delegate {delegate.name}")
        if address > last:
            raise ValueError(f"multus.delegates.{delegate.name}: more pods on {node} than addresses")
        return address

    def bridge(self, node: str, network: BridgeNetwork) -> IPv4Address:
        """The subnet's first address is the gateway's and is skipped."""
        start = network.ipam.range_start if isinstance(network.ipam, HostLocal) else None
        first = start or network.subnet[1]
        while first == network.subnet[0] or first == gateway_of(network):
            first += 1
        return first + self._next(node, f"network {network.name}")


def gateway_of(network: BridgeNetwork) -> IPv4Address:
    given = network.ipam.gateway if isinstance(network.ipam, HostLocal) else None
    return given or network.subnet[1]


def _pods(plan: Plan, system_pods: bool) -> list[Pod]:
    lab, addresses = plan.lab, _Addresses(plan)
    found: list[Pod] = []
    if system_pods:
        found += _system_pods(lab, addresses)
    for workload in lab.workloads:
        found += _workload_pods(lab, workload, addresses)
    return found


def _system_pods(lab: Lab, addresses: _Addresses) -> Iterable[Pod]:
    """Pods that Kubernetes, Calico and Multus bring along: on the host's network, and on calico-ipam addresses.

    They were there before Multus was the default network, so they carry no network-status.
    """
    operator = lab.calico.install == "operator"
    calico = "calico-system" if operator else "kube-system"
    sets = [(calico, "calico-node"), ("kube-system", "kube-proxy")]
    if lab.multus:
        sets.append(("kube-system", "kube-multus-ds"))
    for node in lab.nodes:
        for namespace, name in sets:
            yield _host_pod(node, namespace, f"{name}-{digest(name, node.name)[:5]}", "DaemonSet", {"name": name})
    for node in lab.control_planes:
        for name in ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"):
            yield _host_pod(node, "kube-system", f"{name}-{node.name}", "Node", {"component": name})
    pool = lab.calico.pools[0]
    first = (lab.control_planes or lab.nodes)[0].name
    named = [("kube-system", f"coredns-589f44dc88-{digest('coredns', i)[:5]}", first, "ReplicaSet") for i in "ab"]
    if operator:
        for node in lab.nodes:
            name = f"csi-node-driver-{digest('csi', node.name)[:5]}"
            named.append(("calico-system", name, node.name, "DaemonSet"))
    for namespace, name, on, owner in named:
        address = addresses.calico(on, pool)
        labels = {"k8s-app": name.split("-")[0]}
        annotations = calico_annotations(address, namespace, name)
        yield Pod(namespace, name, on, address, uid("netns", namespace, name), owner, labels, annotations)


def _host_pod(node: Node, namespace: str, name: str, owner: str, labels: Mapping[str, str]) -> Pod:
    netns = uid("netns", namespace, name)
    return Pod(namespace, name, node.name, node.address, netns, owner, labels, host_network=True)


def _workload_pods(lab: Lab, workload: Workload, addresses: _Addresses) -> Iterable[Pod]:
    """Replicas go around the nodes that may take them; without Multus each round takes the next pool."""
    nodes = nodes_for(lab, workload)
    if not nodes and workload.replicas:
        raise ValueError(f"workloads.{workload.name}: no node of the lab may take its pods")
    template = digest("template", workload.namespace, workload.name)[:10]
    bridges = {network.name: network for network in lab.networks if isinstance(network, BridgeNetwork)}
    for i in range(workload.replicas):
        node = nodes[i % len(nodes)].name
        name = f"{workload.name}-{template}-{digest(workload.name, str(i))[:5]}"
        delegate = None
        if lab.multus:
            wanted = workload.default_network or lab.multus.cluster_network
            delegate = next(d for d in lab.multus.delegates if d.name == wanted)
            address = addresses.delegate(node, delegate)
        else:
            pools = lab.calico.pools
            address = addresses.calico(node, pools[i // len(nodes) % len(pools)])
        extras = tuple(
            _extra(f"net{n}", bridges[attachment.name], attachment, node, name, addresses)
            for n, attachment in enumerate(workload.networks, 1)
        )
        labels = {"app": workload.name, "cni-lab/workload": workload.name, "pod-template-hash": template}
        pod = Pod(
            workload.namespace,
            name,
            node,
            address,
            uid("netns", workload.namespace, name),
            labels=labels,
            delegate=delegate,
            extras=extras,
        )
        pod.annotations = calico_annotations(address, workload.namespace, name) | network_annotations(lab, workload)
        if delegate:
            pod.annotations = {**pod.annotations, "k8s.v1.cni.cncf.io/network-status": network_status(pod)}
        yield pod


def _extra(
    interface: str, network: BridgeNetwork, attachment: Attachment, node: str, pod: str, addresses: _Addresses
) -> Extra:
    host_end = "veth" + digest("veth", pod, interface)[:8]
    address = addresses.bridge(node, network)
    return Extra(interface, network, address, mac_of("extra", pod, interface), host_end, attachment.default_route)


def calico_annotations(address: IPv4Address, namespace: str, name: str) -> dict[str, str]:
    """What Calico's CNI plugin writes on a pod."""
    return {
        "cni.projectcalico.org/containerID": digest("sandbox", namespace, name),
        "cni.projectcalico.org/podIP": f"{address}/32",
        "cni.projectcalico.org/podIPs": f"{address}/32",
    }


def network_status(pod: Pod) -> str:
    """What Multus writes on a pod, spaces and all."""
    assert pod.delegate is not None
    entries: list[dict[str, Any]] = [
        {
            "name": f"kube-system/{pod.delegate.name}",
            "interface": "eth0",
            "ips": [str(pod.address)],
            "mac": pod.mac,
            "default": True,
            "dns": {},
        }
    ]
    for extra in pod.extras:
        name = f"{extra.network.namespace}/{extra.network.name}"
        entries.append(
            {"name": name, "interface": extra.interface, "ips": [str(extra.address)], "mac": extra.mac, "dns": {}}
        )
    return "[" + ",".join(json.dumps(entry, indent=4) for entry in entries) + "]"


# --- `ip -batch` files ------------------------------------------------------------------------------------------------


def subnets(plan: Plan) -> list[IPv4Network]:
    used = [plan.lab.network.subnets[node.subnet] for node in plan.lab.nodes]
    return list(dict.fromkeys(used))


def router_batch(plan: Plan) -> list[str]:
    """A bridge for each subnet with the gateway's address, a cable to each node, and routing between the subnets."""
    mtu = plan.lab.link_mtu
    lines = ["link set lo up", f"address add {OUTSIDE}/32 dev lo"]
    for i, subnet in enumerate(subnets(plan)):
        lines += [
            f"link add sub{i} mtu {mtu} address {mac_of('router', str(subnet))} type bridge",
            f"address add {subnet[1]}/{subnet.prefixlen} broadcast + dev sub{i}",
            f"link set sub{i} up",
        ]
    order = subnets(plan)
    for i, node in enumerate(plan.lab.nodes):
        if node.address == plan.lab.network.subnets[node.subnet][1]:
            raise ValueError(f"nodes.{node.name}: {node.address} is the router's address in the replica")
        bridge = order.index(plan.lab.network.subnets[node.subnet])
        lines += [
            f"netns add {node.name}",
            f"link add port{i} mtu {mtu} type veth"
            f" peer name eth0 mtu {mtu} address {mac_of('node', node.name)} netns {node.name}",
            f"link set port{i} master sub{bridge} up",
        ]
        if plan.router_knows_pods:
            # Only where packets carry pod addresses: elsewhere it would hide that a tunnel is not used.
            bare = [pool.cidr for pool in plan.lab.calico.pools if pool.encapsulation == "None"]
            for block in plan.blocks[node.name]:
                if any(IPv4Network(block).subnet_of(cidr) for cidr in bare):
                    lines.append(f"route add {block} via {node.address}")
    return lines


def node_batch(plan: Plan, node: Node) -> list[str]:
    """The node's own interfaces, tunnels, routes to the other nodes' blocks, and its pods' host ends."""
    subnet = plan.lab.network.subnets[node.subnet]
    lines = [
        "link set lo up",
        "link set eth0 up",
        f"address add {node.address}/{subnet.prefixlen} broadcast + dev eth0",
        f"route add default via {subnet[1]} dev eth0 proto static metric 100",
    ]
    lines += _tunnels(plan, node)
    for pool in plan.lab.calico.pools:
        lines += _pool_routes(plan, node, pool)
    bridges = {e.network.name: e.network for pod in plan.on(node.name) for e in pod.extras}
    for network in bridges.values():
        lines.append(f"link add {network.bridge} mtu {network.mtu or 1500} type bridge")
        lines.append(f"link set {network.bridge} up")
        if network.is_gateway:
            gateway = gateway_of(network)
            lines.append(f"address add {gateway}/{network.subnet.prefixlen} broadcast + dev {network.bridge}")
    for pod in plan.on(node.name):
        lines += _host_end(plan, pod)
    return lines


def _tunnels(plan: Plan, node: Node) -> list[str]:
    lines: list[str] = []
    if address := plan.tunnel_address(node.name, "VXLAN"):
        mtu = plan.lab.calico.mtu or plan.lab.link_mtu - 50
        lines += [
            f"link add vxlan.calico mtu {mtu} address {tunnel_mac(node.name)} type vxlan id 4096 local {node.address}"
            " dev eth0 dstport 4789 nolearning",
            f"address add {address}/32 dev vxlan.calico",
            "link set vxlan.calico up",
        ]
        for other in plan.lab.nodes:
            there = plan.tunnel_address(other.name, "VXLAN")
            if other.name != node.name and there:
                lines.append(f"neigh add {there} lladdr {tunnel_mac(other.name)} dev vxlan.calico nud permanent")
    if address := plan.tunnel_address(node.name, "IPIP"):
        # The module ipip makes tunl0 in every network namespace by itself.
        lines += [
            f"link set tunl0 mtu {plan.lab.calico.mtu or plan.lab.link_mtu - 20} up",
            f"address add {address}/32 dev tunl0",
        ]
    return lines


def fdb_batch(plan: Plan, node: Node) -> list[str]:
    """`bridge -batch`: where each other node's vxlan.calico is."""
    if plan.tunnel_address(node.name, "VXLAN") is None:
        return []
    return [
        f"fdb add {tunnel_mac(other.name)} dev vxlan.calico dst {other.address} self permanent"
        for other in plan.lab.nodes
        if other.name != node.name and plan.tunnel_address(other.name, "VXLAN")
    ]


def _pool_routes(plan: Plan, node: Node, pool: Pool) -> list[str]:
    felix = pool.encapsulation.startswith("VXLAN")
    lines = []
    for other in plan.lab.nodes:
        for block in plan.blocks[other.name]:
            if not IPv4Network(block).subnet_of(pool.cidr):
                continue
            if other.name == node.name:
                lines.append(f"route add blackhole {block} proto {'80' if felix else BIRD}")
            else:
                lines.append(_route_to(plan, node, other, pool, block))
    return lines


def _route_to(plan: Plan, node: Node, other: Node, pool: Pool, block: str) -> str:
    near = node.subnet == other.subnet
    if pool.encapsulation in ("VXLAN", "VXLANCrossSubnet") and not (near and pool.encapsulation.endswith("Subnet")):
        mtu = plan.lab.calico.mtu or plan.lab.link_mtu - 50
        return f"route add {block} via {plan.tunnel_address(other.name, 'VXLAN')} dev vxlan.calico onlink mtu {mtu}"
    if pool.encapsulation == "VXLANCrossSubnet":
        return f"route add {block} via {other.address} dev eth0 proto 80 onlink"
    if pool.encapsulation.startswith("IPIP") and not (near and pool.encapsulation.endswith("Subnet")):
        return f"route add {block} via {other.address} dev tunl0 proto {BIRD} onlink"
    if near:
        return f"route add {block} via {other.address} dev eth0 proto {BIRD}"
    # BIRD resolves a next hop that is not on the link through the route to it: by the subnet's gateway.
    gateway = plan.lab.network.subnets[node.subnet][1]
    return f"route add {block} via {gateway} dev eth0 proto {BIRD}"


def _host_end(plan: Plan, pod: Pod) -> list[str]:
    if pod.host_network:
        # CRI-O binds the node's own network namespace under a name of the pod's.
        return [f"netns attach {pod.netns} 1"]
    mtu = pod_mtu(plan.lab)
    lines = [
        f"netns add {pod.netns}",
        f"link add {pod.interface} mtu {mtu} address ee:ee:ee:ee:ee:ee type veth"
        f" peer name eth0 mtu {mtu} address {pod.mac} netns {pod.netns}",
        f"link set {pod.interface} up",
        f"route add {pod.address} dev {pod.interface} scope link metric 1024",
    ]
    for extra in pod.extras:
        net = extra.network
        lines += [
            f"link add {extra.host_interface} mtu {net.mtu or 1500} type veth"
            f" peer name {extra.interface} mtu {net.mtu or 1500} address {extra.mac} netns {pod.netns}",
            f"link set {extra.host_interface} master {net.bridge} up",
            f"link set {extra.host_interface} type bridge_slave hairpin {'on' if net.hairpin_mode else 'off'}",
        ]
    return lines


def pod_batch(pod: Pod) -> list[str]:
    """Inside the pod: Calico's /32 and 169.254.1.1, then what the bridge plugin and Multus add."""
    lines = [
        "link set lo up",
        "link set eth0 up",
        f"address add {pod.address}/32 dev eth0",
        "route add 169.254.1.1 dev eth0 scope link",
    ]
    routes = [str(dst) for dst in pod.delegate.routes] if pod.delegate else []
    if not routes and not any(extra.default_route for extra in pod.extras):
        routes = ["default"]
    lines += [f"route add {dst} via 169.254.1.1 dev eth0" for dst in routes]
    for extra in pod.extras:
        net = extra.network
        lines += [
            f"link set {extra.interface} up",
            f"address add {extra.address}/{net.subnet.prefixlen} broadcast + dev {extra.interface}",
        ]
        for route in net.routes:
            via = route.gateway or gateway_of(net)
            # As the plugin adds it: before a route to the same place, not instead of it.
            lines.append(f"route prepend {route.dst} via {via} dev {extra.interface}")
        if extra.default_route:
            lines.append(f"route add default via {extra.default_route} dev {extra.interface}")
    return lines


def nat_rules(plan: Plan, node: Node) -> list[str]:
    """`iptables-restore`: what leaves the pools (natOutgoing) and the bridges (ipMasq) gets the node's address.

    And, as Felix does, VXLAN passes untracked.
    """
    pools = [str(pool.cidr) for pool in plan.lab.calico.pools]
    lines = ["*nat", ":cali-nat-outgoing - [0:0]", "-A POSTROUTING -j cali-nat-outgoing"]
    lines += [f"-A cali-nat-outgoing -d {cidr} -j RETURN" for cidr in pools]
    lines += [
        f"-A cali-nat-outgoing -s {pool.cidr} ! -o cali+ -j MASQUERADE"
        for pool in plan.lab.calico.pools
        if pool.nat_outgoing
    ]
    for pod in plan.on(node.name):
        for extra in pod.extras:
            if extra.network.ip_masq:
                subnet = extra.network.subnet
                lines.append(f"-A POSTROUTING -s {extra.address}/32 ! -d {subnet} -j MASQUERADE")
    lines += ["COMMIT", "*raw"]
    if plan.tunnel_address(node.name, "VXLAN"):
        lines += [f"-A {chain} -p udp --dport 4789 -j NOTRACK" for chain in ("PREROUTING", "OUTPUT")]
    return [*lines, "COMMIT"]


# --- files ------------------------------------------------------------------------------------------------------------


def node_files(plan: Plan, node: Node) -> dict[str, tuple[str, int]]:
    """Path → (text, mode) of what the product, Calico, Multus and host-local leave on a node."""
    lab = plan.lab
    files: dict[str, tuple[str, int]] = {}

    def put(path: str, content: Any, mode: int = 0o644) -> None:
        files[path] = (content if isinstance(content, str) else text_of(path, content), mode)

    put("/etc/cni/net.d/10-calico.conflist", calico_conflist(lab), 0o600)
    put("/etc/cni/net.d/calico-kubeconfig", "# Kubeconfig file for Calico CNI plugin.\n", 0o600)
    put("/var/lib/calico/nodename", node.name)
    put("/var/lib/calico/mtu", str(pod_mtu(lab)))
    put("/var/lib/cni-lab/owner", f"cni-lab/{plan.stack}\n")
    put("/var/lib/cni-lab/joined", "")
    if lab.multus:
        for delegate in lab.multus.delegates:
            first, last = range_of(lab, plan.blocks, node.name, delegate)
            block = block_of(lab, plan.blocks, node.name, delegate)
            config = delegates.delegate_config(lab, delegate, subnet=str(block), start=str(first), end=str(last))
            put(f"{delegates.DELEGATE_DIRECTORY}/{delegate.name}.conf", config)
        put(delegates.KUBECONFIG, "# The client certificate of cni-lab:multus.\n", 0o600)
        bridges = sorted({network.bridge for network in lab.networks if isinstance(network, BridgeNetwork)})
        if bridges:
            put("/var/lib/cni-lab/bridges", "".join(f"{bridge}\n" for bridge in bridges))
        put("/etc/cni/net.d/00-multus.conf", delegates.multus_config(lab.multus))
        put("/etc/cni/net.d/70-multus.conf", delegates.multus_config(lab.multus, STANDBY))
    if lab.calico.bgp == "Enabled":
        put("/var/lib/replica-bird", bird_protocols(lab, node))
    # What CRI-O said while the files came, one after the other (replica_journalctl.py goes on from there).
    names = ["k8s-pod-network", "k8s-pod-network"]
    if lab.multus:
        names = [STANDBY, *names, delegates.DEFAULT_NETWORK]
    said = 'time="2026-11-21T15:20:4{}.000000000Z" level=info msg="Updated default CNI network name to {}"\n'
    put("/var/log/replica-crio.log", "".join(said.format(i, name) for i, name in enumerate(names)))
    last_of: dict[str, str] = {}
    for pod in plan.on(node.name):
        entries = [(pod.delegate.name, str(pod.address), "eth0")] if pod.delegate else []
        entries += [(extra.network.name, str(extra.address), extra.interface) for extra in pod.extras]
        for network, address, interface in entries:
            put(f"/var/lib/cni/networks/{network}/{address}", f"{pod.container}\r\n{interface}")
            last_of[network] = address
    for network, address in last_of.items():
        put(f"/var/lib/cni/networks/{network}/last_reserved_ip.0", address)
        put(f"/var/lib/cni/networks/{network}/lock", "")
    # What CRI-O looks for before it takes a configuration: the plugins' executables. None of them is run here.
    for plugin in {*delegates.plugins(lab), "portmap", "loopback", "calico-ipam"}:
        put(f"/opt/cni/bin/{plugin}", "#!/bin/sh\necho 'not a plugin: a replica of a node' >&2\nexit 1\n", 0o755)
    return files


def bird_protocols(lab: Lab, node: Node) -> str:
    """What `birdcl show protocols` prints in calico-node: the mesh, or the sessions with route reflectors."""
    reflectors = lab.calico.route_reflectors
    kind = "Node" if reflectors else "Mesh"
    lines = [
        "BIRD v0.3.3+birdv1.6.8 ready.",
        "name     proto    table    state  since       info",
        "static1  Static   master   up     15:20:01    ",
        "kernel1  Kernel   master   up     15:20:01    ",
        "device1  Device   master   up     15:20:01    ",
        "direct1  Direct   master   up     15:20:01    ",
    ]
    for other in lab.nodes:
        if other.name != node.name and (not reflectors or {node.name, other.name} & set(reflectors)):
            name = f"{kind}_{other.address}".replace(".", "_")
            lines.append(f"{name} BGP      master   up     15:20:05    Established   ")
    for peer in lab.calico.peers:
        name = f"Global_{peer.peer_ip}".replace(".", "_")
        lines.append(f"{name} BGP      master   up     15:20:05    Established   ")
    return "".join(f"{line}\n" for line in lines)


def calico_conflist(lab: Lab) -> dict[str, Any]:
    """10-calico.conflist as the operator's calico-node writes it."""
    calico: dict[str, Any] = {
        "container_settings": {"allow_ip_forwarding": lab.calico.container_ip_forwarding == "Enabled"},
        "datastore_type": "kubernetes",
        "ipam": {"assign_ipv4": "true", "assign_ipv6": "false", "type": "calico-ipam"},
        "kubernetes": {"k8s_api_root": delegates.api_server(lab), "kubeconfig": "/etc/cni/net.d/calico-kubeconfig"},
        "log_file_max_age": 30,
        "log_file_max_count": 10,
        "log_file_max_size": 100,
        "log_file_path": "/var/log/calico/cni/cni.log",
        "log_level": "Info",
        "mtu": lab.calico.mtu or 0,
        "nodename_file_optional": False,
        "policy": {"type": "k8s"},
        "policy_setup_timeout_seconds": 0,
        "type": "calico",
    }
    portmap = {"capabilities": {"portMappings": True}, "snat": True, "type": "portmap"}
    return {"cniVersion": "0.3.1", "name": "k8s-pod-network", "plugins": [calico, portmap]}
