"""A lab in about a dozen lines of at most 80 columns: its nodes, versions, pools, networks and pods, and what it costs.

`./lab plan` begins with it, and so does `./lab demo`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rich.text import Text

from components.spec import versions
from components.spec.models import CALICO_NETWORK, BridgeNetwork, Lab, Pool
from components.spec.placement import pod_count

WIDTH = 80
_SHOWN_NODES = 6
_SHOWN_OTHERS = 4
"""How many pools, delegates or networks get a line of their own."""
_PLACES = {"aws": "on EC2", "local": "in containers on this computer", "existing": "on your hosts"}


@dataclass(frozen=True)
class Deployed:
    """What only a deployed lab has, and a sandbox does not. `cost`: a sentence without a full stop."""

    region: str | None
    cost: str


def overview(
    stack: str, lab: Lab, blocks: Mapping[str, Sequence[str]], *, foreseen: bool, deployed: Deployed | None = None
) -> Iterator[Text]:
    """The lines. `blocks`: each node's; `foreseen`: they follow from Calico's rule and were not read from the nodes."""
    where = ""
    if deployed is not None:
        where = f" {_PLACES.get(lab.machines.provider, '')}" + (f" in {deployed.region}" if deployed.region else "")
    pods = {workload.name: pod_count(lab, workload) for workload in lab.workloads}
    sizes = f"{_count(len(lab.nodes), 'node')}{where}, {_count(sum(pods.values()), 'pod')} of workloads"
    yield Text.assemble((stack, "bold"), f": {sizes}")
    if deployed is not None:
        yield from _wrapped(", ".join(_versions(lab)))
    yield from _nodes(lab, blocks, foreseen)
    yield from _limited([_pool(pool) for pool in lab.calico.pools], "pool")
    if lab.multus:
        delegates = [
            f"delegate {d.name}: eth0 with addresses {d.range_start}-{d.range_end} of each block"
            + (", the default" if d.name == lab.multus.cluster_network else "")
            for d in lab.multus.delegates
        ]
        if lab.multus.cluster_network == CALICO_NETWORK:
            delegates.append("eth0 is on Calico's own network by default")
        yield from _limited(delegates, "delegate")
    networks = []
    for network in lab.networks:
        link = f"bridge {network.bridge}" if isinstance(network, BridgeNetwork) else network.type
        subnet = getattr(network, "subnet", "")
        networks.append(f"network {network.name}: further interfaces, {link} {subnet}".rstrip())
    yield from _limited(networks, "network")
    if groups := [f"{number} {name}" for name, number in pods.items() if number]:
        yield from _wrapped(f"pods: {', '.join(groups)}")
    if deployed is not None:
        yield from _wrapped(f"cost: {deployed.cost}")


def _versions(lab: Lab) -> Iterator[str]:
    yield f"Kubernetes {lab.kubernetes.version}"
    yield f"CRI-O {versions.crio(lab.kubernetes.version)}"
    routing = " with BGP" if lab.calico.bgp == "Enabled" else ""
    installer = "the operator" if lab.calico.install == "operator" else "manifest"
    yield f"Calico {lab.calico.version} by {installer}{routing}"
    if lab.calico.wireguard:
        yield "WireGuard"
    if lab.multus:
        yield f"Multus {lab.multus.version}"


def _nodes(lab: Lab, blocks: Mapping[str, Sequence[str]], foreseen: bool) -> Iterator[Text]:
    width = max(len(node.name) for node in lab.nodes)
    addresses = max(len(str(node.address)) for node in lab.nodes)
    shown = lab.nodes if len(lab.nodes) <= _SHOWN_NODES else lab.nodes[: _SHOWN_NODES - 1]
    for node in shown:
        role = "control plane" if node.role == "control-plane" else "worker"
        head = f"{node.name:{width}}  {role:13}  {node.address!s:{addresses}}"
        held = ", ".join(blocks.get(node.name, ()))
        pods = f"  pods {'foreseen ' if foreseen else ''}in {held}" if held else ""
        if len(head) + len(pods) + 2 <= WIDTH:
            yield Text(f"  {head}{pods}")
        else:
            yield Text(f"  {head}")
            yield from _wrapped(pods.strip(), "    ")
    if len(shown) < len(lab.nodes):
        yield Text(f"  and {len(lab.nodes) - len(shown)} more nodes")


def _pool(pool: Pool) -> str:
    mode = pool.mode.tunnel.name if pool.mode.tunnel else "no encapsulation"
    where = " between subnets" if pool.mode.across_subnets_only else " between nodes"
    selector = "" if pool.node_selector == "all()" else f", for nodes with {pool.node_selector}"
    return f"pool {pool.name}: {pool.cidr} in blocks of /{pool.block_size}, {mode}{where}{selector}"


def _limited(lines: Sequence[str], noun: str) -> Iterator[Text]:
    for line in lines[:_SHOWN_OTHERS]:
        yield from _wrapped(line)
    if len(lines) > _SHOWN_OTHERS:
        yield Text(f"  and {_count(len(lines) - _SHOWN_OTHERS, f'more {noun}')}")


def _wrapped(text: str, indent: str = "  ") -> Iterator[Text]:
    """Lines that fit. No word is cut; the lines after the first are indented further."""
    for line in textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=f"{indent}  ",
        break_on_hyphens=False,
        break_long_words=False,
    ):
        yield Text(line)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
