"""Who assigns which addresses of each block, who has them, and which were assigned twice."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Literal

from components.spec import addresses as plan
from components.verify.model import Topic
from components.verify.read.reading import LiveLab, Reading


@dataclass(frozen=True)
class Block:
    """One block of a node.

    `delegates`: the range of each delegate. `reserved`: how many addresses calico-ipam does not assign. `calico`,
    `host_local`: the holder of each assigned address. `collisions`: addresses that were assigned twice, or by
    calico-ipam from the range of a delegate, with the reason. `assigner`: who assigns the addresses outside the
    delegates' ranges. It is host-local where calico.ipam is HostLocal; then the block is the node's podCIDR.
    """

    pool: str
    cidr: IPv4Network
    node: str
    delegates: dict[str, tuple[IPv4Address, IPv4Address]]
    reserved: int
    calico: dict[str, str]
    host_local: dict[str, str]
    collisions: dict[str, str]
    assigner: Literal["calico-ipam", "host-local"] = "calico-ipam"

    @property
    def free(self) -> int:
        """How many addresses the assigner can still assign here."""
        if self.assigner == "host-local":
            # The first address, the gateway and the last one are never assigned.
            return self.cidr.num_addresses - 3 - len(self.host_local)
        ours = {address for address in self.calico if self._range_of(address) is None}
        return self.cidr.num_addresses - self.reserved - len(ours)

    def _range_of(self, address: str) -> str | None:
        at = IPv4Address(address)
        return next((name for name, (first, last) in self.delegates.items() if first <= at <= last), None)

    def to_json(self) -> dict[str, Any]:
        return {
            "pool": self.pool,
            "block": str(self.cidr),
            "node": self.node,
            "delegates": {name: f"{first}-{last}" for name, (first, last) in self.delegates.items()},
            "reserved": self.reserved,
            "calicoIpam": self.calico,
            "hostLocal": self.host_local,
            "free": self.free,
            "collisions": self.collisions,
        }


def table(lab: LiveLab, reading: Reading) -> list[Block]:
    """Every block of the lab's pools, by pool and address."""
    found = []
    allocations = reading.cluster.topics[Topic.ALLOCATION]
    reserved = [IPv4Network(cidr) for cidr in reading.cluster.topics.get(Topic.RESERVATION, {})]
    pods = {pod.address: pod.id for pod in reading.pods if pod.running}
    for cidr, entries in reading.cluster.topics[Topic.AFFINITY].items():
        block, node = IPv4Network(cidr), entries[0].fields["node"]
        pool = next((p for p in lab.spec.calico.pools if block.subnet_of(p.cidr)), None)
        if pool is None:
            continue
        multus = lab.spec.multus
        ranges = {}
        for delegate in multus.delegates if multus else ():
            if plan.block_in_pool(lab.blocks.get(node, ()), lab.spec.pool_of(delegate)) == block:
                ranges[delegate.name] = plan.delegate_range(block, delegate)
        calico = {a: s[0].fields["holder"] for a, s in allocations.items() if IPv4Address(a) in block}
        facts = reading.nodes.get(node)
        local = {
            address: network
            for network, given in (facts.host_local if facts else {}).items()
            for address in given
            if IPv4Address(address) in block
        }
        found.append(
            Block(
                pool.name,
                block,
                node,
                ranges,
                sum(r.num_addresses for r in reserved if r.subnet_of(block)),
                calico,
                {address: pods.get(address, network) for address, network in local.items()},
                _collisions(calico, local, ranges),
                "host-local" if lab.spec.calico.ipam == "HostLocal" else "calico-ipam",
            )
        )
    return sorted(found, key=lambda b: (b.pool, b.cidr))


def _collisions(
    calico: dict[str, str], local: dict[str, str], ranges: dict[str, tuple[IPv4Address, IPv4Address]]
) -> dict[str, str]:
    found = {}
    for address, holder in calico.items():
        inside = next((n for n, (first, last) in ranges.items() if first <= IPv4Address(address) <= last), None)
        if address in local:
            found[address] = f"calico-ipam assigned it to {holder}, host-local for {local[address]}: two pods have it"
        elif inside:
            found[address] = (
                f"calico-ipam assigned it to {holder}; it is in the range of {inside}, which may assign it again"
            )
    return found
