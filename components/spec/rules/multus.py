"""Multus and its delegates: ranges inside the nodes' blocks that do not overlap and leave room for Calico."""

from __future__ import annotations

from collections.abc import Iterator

from components.spec.findings import Finding, nearest, shown
from components.spec.models import CALICO_NETWORK, Delegate, Lab, Multus, Pool
from components.spec.placement import selected
from components.spec.rules.core import listed, repeated, rule

LEFT_FOR_CALICO = 8
"""The number of addresses of a block that calico-ipam needs: for tunnels, cluster DNS and Calico's own pods."""

RANGES = ("multus.delegates[].rangeStart", "multus.delegates[].rangeEnd", "multus.delegates[].pool")
POOLS = ("calico.pools[].name", "calico.pools[].blockSize")


def _placed(lab: Lab) -> Iterator[tuple[int, Delegate, Pool]]:
    """The index, the delegate and its pool, for each delegate whose pool exists."""
    pools = {pool.name: pool for pool in lab.calico.pools}
    for index, delegate in enumerate(lab.multus.delegates if lab.multus else ()):
        pool = lab.calico.pools[0] if delegate.pool is None else pools.get(delegate.pool)
        if pool is not None:
            yield index, delegate, pool


def _inside(delegate: Delegate, pool: Pool) -> bool:
    return delegate.range_start <= delegate.range_end < 1 << (32 - pool.block_size)


@rule("multus.delegates[].name", each="multus.delegates[]")
def delegate_names(lab: Lab) -> Iterator[Finding]:
    names = [delegate.name for delegate in lab.multus.delegates] if lab.multus else []
    for index, first in repeated(names):
        problem = f"is delegates[{first}]'s name already"
        yield Finding(f"multus.delegates[{index}].name", names[index], problem, "give it its own name")
    for index, name in enumerate(names):
        if name == CALICO_NETWORK:
            problem = "is the name of Calico's own network, which needs no delegate"
            yield Finding(f"multus.delegates[{index}].name", name, problem, "give it its own name, or remove it")


@rule("multus.clusterNetwork", "multus.delegates[].name")
def cluster_network(lab: Lab) -> Iterator[Finding]:
    if lab.multus is not None:
        yield from not_a_delegate("multus.clusterNetwork", lab.multus.cluster_network, lab.multus)


def not_a_delegate(key: str, name: str, multus: Multus) -> Iterator[Finding]:
    names = [*(delegate.name for delegate in multus.delegates), CALICO_NETWORK]
    if name not in names:
        meant = nearest(name, names)
        problem = "is not one of multus.delegates, and not Calico's own network"
        yield Finding(key, name, problem, f"did you mean {meant}?" if meant else f"write {listed(names)}")


@rule("multus.delegates[].pool", "calico.pools[].name", each="multus.delegates[]")
def delegate_pools(lab: Lab) -> Iterator[Finding]:
    names = [pool.name for pool in lab.calico.pools]
    for index, delegate in enumerate(lab.multus.delegates if lab.multus else ()):
        if delegate.pool is not None and delegate.pool not in names:
            meant = nearest(delegate.pool, names)
            fix = f"did you mean {meant}?" if meant else f"write {listed(names)}"
            yield Finding(f"multus.delegates[{index}].pool", delegate.pool, "is not one of calico.pools", fix)


@rule(*RANGES, *POOLS, each="multus.delegates[]")
def ranges_in_block(lab: Lab) -> Iterator[Finding]:
    for index, delegate, pool in _placed(lab):
        start, end, size = delegate.range_start, delegate.range_end, 1 << (32 - pool.block_size)
        key = f"multus.delegates[{index}]"
        if start > end:
            problem = f"comes after rangeEnd {end}"
            yield Finding(f"{key}.rangeStart", str(start), problem, "swap the two, or make rangeEnd larger")
        elif end >= size:
            problem = f"lies outside the block: a /{pool.block_size} of pool {pool.name} has addresses 0 to {size - 1}"
            fix = f"make it at most {size - 1}" if start < size else "choose a range inside the block"
            yield Finding(
                f"{key}.rangeEnd", str(end), problem, f"{fix}, or lower the pool's blockSize, which makes larger blocks"
            )


@rule(*RANGES, *POOLS)
def ranges_apart(lab: Lab) -> Iterator[Finding]:
    """host-local has a list of addresses for each network name: two networks would both hand out a common address."""
    widest: dict[str, tuple[int, int]] = {}
    placed = {index: (pool.name, delegate) for index, delegate, pool in _placed(lab) if _inside(delegate, pool)}
    for index in sorted(placed, key=lambda i: (placed[i][0], placed[i][1].range_start)):
        pool_name, (start, end) = placed[index][0], (placed[index][1].range_start, placed[index][1].range_end)
        before = widest.get(pool_name)
        if before is not None and start <= before[0]:
            earlier, later = sorted((index, before[1]))
            problem = f"its range overlaps the range of delegates[{earlier}] in the same blocks"
            fix = "choose ranges without a common address"
            value = str(placed[later][1].range_start)
            yield Finding(f"multus.delegates[{later}].rangeStart", value, problem, fix)
        if before is None or end > before[0]:
            widest[pool_name] = (end, index)


@rule(*RANGES, *POOLS)
def room_for_calico(lab: Lab) -> Iterator[Finding]:
    ranges: dict[str, list[tuple[int, int]]] = {}
    for _, delegate, pool in _placed(lab):
        if _inside(delegate, pool):
            ranges.setdefault(pool.name, []).append((delegate.range_start, delegate.range_end))
    for pool in {pool.name: pool for pool in lab.calico.pools}.values():
        size = 1 << (32 - pool.block_size)
        mine = ranges.get(pool.name, ())
        reserved = len({number for start, end in mine for number in range(start, end + 1)})
        if mine and size - reserved < LEFT_FOR_CALICO:
            problem = (
                f"the ranges leave calico-ipam {size - reserved} of the {size} addresses of a block of pool {pool.name}"
            )
            fix = f"leave at least {LEFT_FOR_CALICO}, or lower the pool's blockSize, which makes larger blocks"
            yield Finding("multus.delegates", f"{reserved} addresses", problem, fix)


@rule("multus.delegates", "calico.ipam")
def delegates_need_blocks(lab: Lab) -> Iterator[Finding]:
    if lab.multus is not None and lab.multus.delegates and lab.calico.ipam == "HostLocal":
        given = shown([delegate.name for delegate in lab.multus.delegates])
        problem = "need Calico's blocks, and with calico.ipam HostLocal there are none"
        yield Finding("multus.delegates", given, problem, "set calico.ipam: Calico")


@rule(
    "multus.delegates[].pool",
    "calico.pools[].name",
    "calico.pools[].nodeSelector",
    "nodes[].name",
    "nodes[].role",
    "nodes[].labels",
    each="multus.delegates[]",
)
def delegates_need_block_everywhere(lab: Lab) -> Iterator[Finding]:
    for index, _, pool in _placed(lab):
        nodes = selected(lab, pool.node_selector)
        if nodes is None or len(nodes) < len(lab.nodes):
            problem = f"nodes outside the nodeSelector of pool {pool.name} have no block for the delegate's range"
            fix = "choose a pool that selects every node, e.g. with all()"
            yield Finding(f"multus.delegates[{index}].pool", pool.name, problem, fix)


RULES = (
    delegate_names,
    cluster_network,
    delegate_pools,
    ranges_in_block,
    ranges_apart,
    room_for_calico,
    delegates_need_blocks,
    delegates_need_block_everywhere,
)
