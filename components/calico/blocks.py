"""The blocks that nodes have claimed, as `components/node/blocks.sh` prints them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from ipaddress import IPv4Address, IPv4Network

from components.calico.first_blocks import foreseen_blocks
from components.spec.addresses import block_in_pool, delegate_range, reservation
from components.spec.models import Delegate, Lab, Pool
from components.spec.placement import perhaps_selected, selected

Blocks = Mapping[str, Sequence[str]]
"""The CIDRs of each node's blocks by the node's name, the oldest block first."""


def parse_blocks(text: str, nodes: Collection[str]) -> dict[str, list[str]]:
    """The blocks in the printed JSON. Raises ValueError if it has another form or lacks one of `nodes`."""
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(
            f'the blocks step must print JSON of the form {{"node": ["CIDR"]}}, and it printed {text[:200]!r}'
        )
    for node, cidrs in found.items():
        if not isinstance(cidrs, list):
            raise ValueError(f"the blocks of node {node} must be a list of CIDRs, and they are {cidrs!r}")
        for cidr in cidrs:
            IPv4Network(cidr)
    if missing := sorted(set(nodes) - set(found)):
        raise ValueError(
            f"no blocks were read for {', '.join(missing)}. "
            "Fix: see `kubectl get nodes`, and repeat `up` when they are Ready"
        )
    return {str(node): [str(cidr) for cidr in cidrs] for node, cidrs in found.items()}


def foreseen(lab: Lab) -> dict[str, list[str]]:
    """The blocks that each node of a new cluster will probably hold: one of every pool that selects the node, by
    Calico's rule; with calico.ipam HostLocal the node's podCIDR, which Kubernetes hands out in the order of the nodes.
    A node has none where the rule does not tell (components/calico/first_blocks.py)."""
    found: dict[str, list[str]] = {node.name: [] for node in lab.nodes}
    if lab.calico.ipam == "HostLocal":
        cidr = lab.kubernetes.pod_cidr
        for node, block in zip(found, cidr.subnets(new_prefix=max(24, cidr.prefixlen)), strict=False):
            found[node].append(str(block))
        return found
    for pool in lab.calico.pools:
        names = [node.name for node in perhaps_selected(lab, pool.node_selector)]
        for name, network in foreseen_blocks(pool.cidr, pool.block_size, names).items():
            found[name].append(str(network))
    return found


def claimed_pools(lab: Lab) -> list[Pool]:
    """The pools in which every node must have a block: those of the delegates. Without delegates, the first pool, if it
    selects every node."""
    if lab.multus is not None and lab.multus.delegates:
        used = {lab.pool_of(delegate).name for delegate in lab.multus.delegates}
        return [pool for pool in lab.calico.pools if pool.name in used]
    return [pool for pool in lab.calico.pools[:1] if selected(lab, pool.node_selector) == lab.nodes]


def block_of(lab: Lab, blocks: Blocks, node: str, delegate: Delegate) -> IPv4Network:
    """The block that has the delegate's addresses on this node. Raises ValueError if there is none."""
    pool = lab.pool_of(delegate)
    block = block_in_pool(blocks[node], pool)
    if block is None:
        raise ValueError(
            f"delegate {delegate.name}: node {node} has no block of pool {pool.name} ({pool.cidr}). Its blocks are: "
            f"{', '.join(blocks[node]) or 'none'}. Fix: see `kubectl get blockaffinities.crd.projectcalico.org`"
        )
    return block


def range_of(lab: Lab, blocks: Blocks, node: str, delegate: Delegate) -> tuple[IPv4Address, IPv4Address]:
    """First and last address of the delegate on this node. Raises ValueError if the node's block is too small."""
    block = block_of(lab, blocks, node, delegate)
    try:
        return delegate_range(block, delegate)
    except IndexError:
        raise ValueError(
            f"delegate {delegate.name}: range {delegate.range_start}-{delegate.range_end} does not fit in {block} of "
            f"node {node}. Fix: make a new pool for the new size, because the blockSize of a live pool cannot change"
        ) from None


def reserved(lab: Lab, blocks: Blocks) -> list[str]:
    """The CIDRs of the delegates, which calico-ipam must not hand out. Raises ValueError as `range_of` does."""
    for node in lab.nodes:
        for delegate in lab.multus.delegates if lab.multus else ():
            range_of(lab, blocks, node.name, delegate)
    return [str(cidr) for cidr in reservation(lab, blocks)]
