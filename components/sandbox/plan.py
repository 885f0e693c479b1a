"""Which blocks the nodes of a sandbox hold, which pods it has, and who has which address."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Interface
from itertools import islice
from typing import Any

from components.calico.blocks import foreseen, range_of
from components.sandbox.model import (
    Extra,
    Plan,
    Pod,
    digest,
    gateway_of,
    mac_of,
    uid,
)
from components.spec.addresses import network_of
from components.spec.models import (
    AddressedNetwork,
    Attachment,
    BridgeNetwork,
    Delegate,
    HostDeviceNetwork,
    Lab,
    Node,
    Pool,
    StaticAddresses,
    Whereabouts,
    Workload,
)
from components.spec.placement import nodes_for, perhaps_selected, pod_count, pools_for
from components.workloads.manifests import pod_annotations


def make_plan(
    lab: Lab,
    *,
    stack: str = "sandbox",
    blocks: Mapping[str, Sequence[str]] | None = None,
    system_pods: bool = True,
    router_knows_pods: bool = True,
) -> Plan:
    """Plan a lab. `blocks`: node name → CIDRs, by default as Calico would choose. `system_pods`: also the pods of
    Kubernetes, Calico and Multus. Raises ValueError, naming the key, where the pools or ranges are too small."""
    started = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    held = {node: list(cidrs) for node, cidrs in blocks.items()} if blocks else _blocks(lab)
    plan = Plan(lab, stack, held, [], router_knows_pods, started)
    return replace(plan, pods=_pods(plan, system_pods))


# --- blocks -----------------------------------------------------------------------------------------------------------


def _blocks(lab: Lab) -> dict[str, list[str]]:
    """The blocks that Calico's own rule gives the nodes. There is no such rule for a pool of single addresses: there
    the nodes get them in order."""
    found = foreseen(lab)
    if lab.calico.ipam == "HostLocal":
        if missing := [node for node, cidrs in found.items() if not cidrs]:
            raise ValueError(f"kubernetes.podCidr: {lab.kubernetes.pod_cidr} has no /24 left for {', '.join(missing)}")
        return found
    for pool in lab.calico.pools:
        names = pool_nodes(lab, pool)
        if 2 ** (pool.block_size - pool.cidr.prefixlen) < len(names):
            raise ValueError(f"calico.pools.{pool.name}: {pool.cidr} has too few /{pool.block_size} for the nodes")
        if pool.block_size == 32:
            for name, block in zip(names, pool.cidr.subnets(new_prefix=32), strict=False):
                found[name].append(str(block))
    return found


def pool_nodes(lab: Lab, pool: Pool) -> list[str]:
    """Names of the nodes that a pool's nodeSelector selects; all where that cannot be told from the stack file."""
    return [node.name for node in perhaps_selected(lab, pool.node_selector)]


# --- addresses --------------------------------------------------------------------------------------------------------


class _Addresses:
    """Gives addresses as calico-ipam (from a block's start), host-local and whereabouts (from a range's start) do."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._used: dict[tuple[str, str], int] = defaultdict(int)

    def _next(self, node: str, key: str) -> int:
        self._used[node, key] += 1
        return self._used[node, key] - 1

    def calico(self, node: str, pool: Pool) -> IPv4Address:
        """The next of the node's blocks in the pool. A full node claims one more block, or borrows."""
        plan, number = self._plan, self._next(node, f"pool {pool.name}")
        blocks = [n for n in map(network_of, plan.blocks[node]) if n.subnet_of(pool.cidr)]
        if plan.lab.calico.ipam == "HostLocal":
            blocks = [network_of(block) for block in plan.blocks[node]]
        reserved = plan.tunnel_addresses(node) | self._delegates_of(node)
        for block in blocks:
            # host-local keeps the network's own address and takes the next one for a gateway.
            skip = 2 if plan.lab.calico.ipam == "HostLocal" else 0
            free = (address for address in block if int(address) - int(block[0]) >= skip and address not in reserved)
            size = block.num_addresses - skip - sum(address in block for address in reserved)
            if number < size:
                return next(islice(free, number, None))
            number -= size
        taken = {network_of(cidr) for cidrs in plan.blocks.values() for cidr in cidrs}
        more = next((b for b in pool.cidr.subnets(new_prefix=pool.block_size) if b not in taken), None)
        if more is None or plan.lab.calico.ipam == "HostLocal":
            raise ValueError(f"calico.pools.{pool.name}: {node} has more pods than {pool.cidr} has addresses for it")
        plan.blocks[node].append(str(more))  # type: ignore[attr-defined]
        self._used[node, f"pool {pool.name}"] -= 1
        return self.calico(node, pool)

    def _delegates_of(self, node: str) -> set[IPv4Address]:
        """What the IPReservation keeps from calico-ipam."""
        lab = self._plan.lab
        found: set[IPv4Address] = set()
        for delegate in lab.multus.delegates if lab.multus else ():
            first, last = range_of(lab, self._plan.blocks, node, delegate)
            found |= {IPv4Address(number) for number in range(int(first), int(last) + 1)}
        return found

    def delegate(self, node: str, delegate: Delegate) -> IPv4Address:
        first, last = range_of(self._plan.lab, self._plan.blocks, node, delegate)
        address = first + self._next(node, f"delegate {delegate.name}")
        if address > last:
            raise ValueError(f"multus.delegates.{delegate.name}: more pods on {node} than addresses")
        return address

    def network(self, node: str, network: AddressedNetwork) -> tuple[IPv4Interface, ...]:
        """Of a further network: host-local's on each node, whereabouts' in the cluster, static the same for all."""
        ipam, subnet = network.ipam, network.subnet
        if isinstance(ipam, StaticAddresses):
            return ipam.addresses
        scope = "" if isinstance(ipam, Whereabouts) else node
        skipped = {subnet[0]} if isinstance(ipam, Whereabouts) else {subnet[0], gateway_of(network)}
        if isinstance(ipam, Whereabouts):
            skipped |= {address for cidr in ipam.exclude for address in cidr}
        first = ipam.range_start or subnet[1]
        last = ipam.range_end or (subnet[-2] if subnet.prefixlen < 31 else subnet[-1])
        free = (IPv4Address(n) for n in range(int(first), int(last) + 1) if IPv4Address(n) not in skipped)
        address = next(islice(free, self._next(scope, f"network {network.name}"), None), None)
        if address is None:
            raise ValueError(f"networks.{network.name}: more pods{f' on {scope}' if scope else ''} than addresses")
        return (IPv4Interface(f"{address}/{subnet.prefixlen}"),)


# --- pods -------------------------------------------------------------------------------------------------------------


def _pods(plan: Plan, system_pods: bool) -> list[Pod]:
    lab, addresses = plan.lab, _Addresses(plan)
    found: list[Pod] = []
    if system_pods:
        found += _system_pods(lab, addresses)
    devices: set[tuple[str, str]] = set()
    for workload in lab.workloads:
        found += _workload_pods(lab, workload, addresses, devices)
    return found


def _system_pods(lab: Lab, addresses: _Addresses) -> Iterator[Pod]:
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
    first = lab.control_planes[0]
    if operator:
        yield _host_pod(first, "tigera-operator", _deployed("tigera-operator", 0), "ReplicaSet", {})
        for i, node in zip(range(_typhas(len(lab.nodes))), lab.nodes, strict=False):
            yield _host_pod(node, calico, _deployed("calico-typha", i), "ReplicaSet", {"k8s-app": "calico-typha"})
    pool = lab.calico.pools[0]
    holders = pool_nodes(lab, pool)
    home = next((node.name for node in (*lab.control_planes, *lab.nodes) if node.name in holders), None)
    replicas = {"coredns": ("kube-system", 2), "calico-kube-controllers": (calico, 1)}
    if operator:
        # As controlPlaneReplicas of the Installation, which is 2 by default.
        replicas["calico-apiserver"] = (calico, 1 if len(lab.control_planes) == 1 else 2)
    named = [
        (namespace, _deployed(name, i), home, "ReplicaSet")
        for name, (namespace, count) in replicas.items()
        for i in range(count)
        if home
    ]
    if operator:
        named += [(calico, f"csi-node-driver-{digest('csi', on)[:5]}", on, "DaemonSet") for on in holders]
    for namespace, name, on, owner in named:
        address = addresses.calico(on, pool)
        # CoreDNS has the label of the program that it replaced, by which its Service finds it.
        labels = {"k8s-app": "kube-dns" if name.startswith("coredns") else name.split("-")[0]}
        annotations = calico_annotations(address, namespace, name)
        yield Pod(namespace, name, on, address, uid("netns", namespace, name), owner, labels, annotations)


def _typhas(nodes: int) -> int:
    """How many Typhas the operator runs for so many nodes (tigera/operator, pkg/common/typha_autoscaling.go)."""
    return 1 if nodes <= 2 else 2 if nodes <= 4 else 3


def _deployed(name: str, number: int) -> str:
    """The name of a Deployment's pod."""
    return f"{name}-{digest('template', name)[:10]}-{digest(name, str(number))[:5]}"


def _host_pod(node: Node, namespace: str, name: str, owner: str, labels: Mapping[str, str]) -> Pod:
    netns = uid("netns", namespace, name)
    return Pod(namespace, name, node.name, node.address, netns, owner, labels, host_network=True)


def _workload_pods(lab: Lab, workload: Workload, addresses: _Addresses, devices: set[tuple[str, str]]) -> Iterator[Pod]:
    """Replicas go around the nodes that may take them. On Calico's own network each round takes the next pool.
    `devices`: node and host-device network that a pod has already."""
    nodes = nodes_for(lab, workload)
    count = pod_count(lab, workload)
    if not nodes and count:
        raise ValueError(f"workloads.{workload.name}: no node of the lab may take its pods")
    template = digest("template", workload.namespace, workload.name)[:10]
    networks = {network.name: network for network in lab.networks}
    for i in range(count):
        node = nodes[i % len(nodes)]
        labels = {"app": workload.name, "cni-lab/workload": workload.name}
        owner, unique = "", digest(workload.name, str(i))[:5]
        match workload.kind:
            case "Deployment":
                owner, name = "ReplicaSet", f"{workload.name}-{template}-{unique}"
                labels["pod-template-hash"] = template
            case "DaemonSet":
                owner, name = "DaemonSet", f"{workload.name}-{unique}"
            case "Pod":
                name = workload.name
        netns = uid("netns", workload.namespace, name)
        wanted = [networks[attachment.name] for attachment in workload.networks]
        held = [n.name for n in wanted if isinstance(n, HostDeviceNetwork) and (node.name, n.name) in devices]
        if held:
            reason = f"network {held[0]}: another pod of {node.name} has the device"
            pending = Pod(workload.namespace, name, node.name, IPv4Address(0), netns, owner, labels, phase="Pending")
            yield replace(pending, annotations=pod_annotations(lab, workload), reason=reason)
            continue
        devices |= {(node.name, network.name) for network in wanted if isinstance(network, HostDeviceNetwork)}
        delegate = lab.delegate_of(workload)
        if delegate is not None:
            address = addresses.delegate(node.name, delegate)
        else:
            pools = [pool for pool in pools_for(lab, workload) if node.name in pool_nodes(lab, pool)]
            if not pools:
                raise ValueError(f"calico.pools: none selects {node.name}, which pods of {workload.name} go to")
            address = addresses.calico(node.name, pools[i // len(nodes) % len(pools)])
        extras = tuple(
            _extra(interface, networks[attachment.name], attachment, node.name, name, addresses)
            for interface, attachment in workload.interfaces.items()
        )
        pod = Pod(workload.namespace, name, node.name, address, netns, owner, labels, delegate=delegate, extras=extras)
        if lab.multus:
            pod.network = f"kube-system/{lab.default_network(workload)}"
        pod.annotations = calico_annotations(address, workload.namespace, name) | pod_annotations(lab, workload)
        if pod.network:
            pod.annotations = {**pod.annotations, "k8s.v1.cni.cncf.io/network-status": network_status(pod)}
        yield pod


def _extra(interface: str, network: Any, attachment: Attachment, node: str, pod: str, addresses: _Addresses) -> Extra:
    own: tuple[IPv4Interface, ...] = ()
    if isinstance(network, AddressedNetwork):
        fixed = tuple(IPv4Interface(f"{it.ip}/{network.subnet.prefixlen}") for it in attachment.ips)
        own = fixed or addresses.network(node, network)
    host_side = "veth" + digest("veth", pod, interface)[:8] if isinstance(network, BridgeNetwork) else ""
    mac = (attachment.mac or mac_of("extra", pod, interface)).lower()
    name = f"{network.name}-fixed" if attachment.ips and own else network.name
    return Extra(interface, network, own, mac, host_side, attachment.default_route, name, bool(attachment.ips))


def calico_annotations(address: IPv4Address, namespace: str, name: str) -> dict[str, str]:
    """What Calico's CNI plugin writes on a pod."""
    return {
        "cni.projectcalico.org/containerID": digest("sandbox", namespace, name),
        "cni.projectcalico.org/podIP": f"{address}/32",
        "cni.projectcalico.org/podIPs": f"{address}/32",
    }


def network_status(pod: Pod) -> str:
    """What Multus writes on a pod, with its spaces."""
    entries: list[dict[str, Any]] = [
        {
            "name": pod.network,
            "interface": "eth0",
            "ips": [str(pod.address)],
            "mac": pod.mac,
            "default": True,
            "dns": {},
        }
    ]
    for extra in pod.extras:
        entry: dict[str, Any] = {
            "name": f"{extra.network.namespace}/{extra.definition}",
            "interface": extra.interface,
            "mac": extra.mac,
            "dns": {},
        }
        if extra.addresses:
            entry["ips"] = [str(address.ip) for address in extra.addresses]
        entries.append(entry)
    return "[" + ",".join(json.dumps(entry, indent=4) for entry in entries) + "]"
