"""The lab's networks as a Mermaid flowchart: pods, the networks of their interfaces, pools, and nodes in subnets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from components.spec.models import CALICO_NETWORK, BridgeNetwork, Lab, Node
from components.spec.placement import pod_count, pools_for, selected
from engine.boxes import ROOM_COLOURS
from engine.mermaid import quoted, word

_KINDS = {
    "workload": ("pods of a workload", ROOM_COLOURS["workloads"]),
    "network": ("CNI network of an interface", ROOM_COLOURS["multus"]),
    "pool": ("Calico's pool, and how packets travel between nodes", ROOM_COLOURS["calico"]),
    "node": ("node, and its foreseen blocks", ROOM_COLOURS["machines"]),
}
"""The kinds of boxes: their meaning in the legend, and their colour."""


def topology(lab: Lab, blocks: Mapping[str, Sequence[str]]) -> str:
    """The flowchart. `blocks`: the foreseen blocks of each node."""
    lines = ["flowchart TB"]
    lines += [*_workloads(lab), *_networks(lab), *_pools(lab), *_nodes(lab, blocks)]
    lines.append('  subgraph legend["legend"]')
    for kind, (meaning, _) in _KINDS.items():
        lines.append(f"    legend_{kind}[{quoted(meaning)}]:::{kind}")
    lines.append("  end")
    lines += [f"  classDef {kind} fill:{colour},stroke:#888,color:#222" for kind, (_, colour) in _KINDS.items()]
    return "\n".join(lines) + "\n"


def _workloads(lab: Lab) -> list[str]:
    lines = []
    for workload in lab.workloads:
        own = f"workload_{word(workload.namespace)}_{word(workload.name)}"
        title = f"{pod_count(lab, workload)} × {workload.name}"
        lines.append(f"  {own}[{quoted(f'{title}<br/>{workload.kind}')}]:::workload")
        delegate = lab.delegate_of(workload)
        if delegate is not None:
            lines.append(f"  {own} -- eth0 --> network_{word(delegate.name)}")
        else:
            lines += [f"  {own} -- eth0 --> pool_{word(pool.name)}" for pool in pools_for(lab, workload)]
        for interface, attachment in workload.interfaces.items():
            lines.append(f"  {own} -- {interface} --> network_{word(attachment.name)}")
    return lines


def _networks(lab: Lab) -> list[str]:
    lines = []
    for delegate in lab.multus.delegates if lab.multus else ():
        numbers = f"addresses {delegate.range_start}-{delegate.range_end} of each block"
        default = "<br/>default network" if lab.multus and lab.multus.cluster_network == delegate.name else ""
        lines.append(f"  network_{word(delegate.name)}[{quoted(f'{delegate.name}<br/>{numbers}{default}')}]:::network")
        lines.append(f"  network_{word(delegate.name)} --> pool_{word(lab.pool_of(delegate).name)}")
    for network in lab.networks:
        link = f"bridge {network.bridge} on every node" if isinstance(network, BridgeNetwork) else network.type
        parts = [network.name, link, str(getattr(network, "subnet", ""))]
        text = "<br/>".join(part for part in parts if part)
        lines.append(f"  network_{word(network.name)}[{quoted(text)}]:::network")
    return lines


def _pools(lab: Lab) -> list[str]:
    lines = []
    for pool in lab.calico.pools:
        mode = pool.mode.tunnel.name if pool.mode.tunnel else "no encapsulation"
        where = "between subnets" if pool.mode.across_subnets_only else "between nodes"
        default = f"<br/>{CALICO_NETWORK}" if lab.multus and lab.multus.cluster_network == CALICO_NETWORK else ""
        text = f"{pool.name}<br/>{pool.cidr}, blocks of /{pool.block_size}<br/>{mode} {where}{default}"
        lines.append(f"  pool_{word(pool.name)}([{quoted(text)}]):::pool")
        chosen = selected(lab, pool.node_selector)
        for node in lab.nodes if chosen is None else chosen:
            lines.append(f"  pool_{word(pool.name)} --- node_{word(node.name)}")
    return lines


def _nodes(lab: Lab, blocks: Mapping[str, Sequence[str]]) -> list[str]:
    lines = []
    for subnet in dict.fromkeys(node.subnet for node in lab.nodes):
        text = f"subnet {subnet} {lab.network.subnets.get(subnet, '')}".rstrip()
        lines.append(f"  subgraph subnet_{word(subnet)}[{quoted(text)}]")
        lines += [f"    {_node(node, blocks)}" for node in lab.nodes if node.subnet == subnet]
        lines.append("  end")
    return lines


def _node(node: Node, blocks: Mapping[str, Sequence[str]]) -> str:
    role = "control plane" if node.role == "control-plane" else "worker"
    parts = [f"{node.name} ({role})", str(node.address), *blocks.get(node.name, ())]
    return f"node_{word(node.name)}[{quoted('<br/>'.join(parts))}]:::node"
