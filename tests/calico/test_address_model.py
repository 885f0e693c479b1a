"""No address is given twice: a model of calico-ipam and host-local, with the reservation and files that our code makes.

calico-ipam: libcalico-go/lib/ipam of Calico 3.32.1. It gives a block's addresses in the order of `Unallocated`, at
whose end it puts a released one. It claims a new block when the node's blocks are full, and borrows from another node
when no block is left and affinity is not strict. host-local: plugins/ipam/host-local of containernetworking/plugins
1.9.1. It goes round from the last address that it gave, leaves out the gateway, and has a list for each network on each
node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from components.calico import blocks
from components.calico.blocks import block_of, range_of, reserved
from components.spec import addresses
from components.spec.models import Lab, Pool
from tests.calico.labs import lab
from tests.support.examples import examples


@dataclass
class CalicoIpam:
    """One pool. `nodes` maps a node to its blocks, in the order in which it claimed them."""

    blocks: list[IPv4Network]
    strict: bool
    nodes: dict[str, list[IPv4Network]] = field(default_factory=dict)
    unallocated: dict[IPv4Network, list[IPv4Address]] = field(default_factory=dict)
    reserved: list[IPv4Network] = field(default_factory=list)

    def assign(self, node: str, pick: int) -> IPv4Address | None:
        """`pick` decides which of the free blocks the node claims; in Calico the node's name decides it."""
        for block in self.nodes.get(node, []):
            if address := self._take(block):
                return address
        if free := [block for block in self.blocks if block not in self.unallocated]:
            block = free[pick % len(free)]
            self.nodes.setdefault(node, []).append(block)
            self.unallocated[block] = list(block)
            return self._take(block)
        if not self.strict:
            for block in self.unallocated:
                if address := self._take(block):
                    return address
        return None

    def _take(self, block: IPv4Network) -> IPv4Address | None:
        for address in self.unallocated[block]:
            if not any(address in cidr for cidr in self.reserved):
                self.unallocated[block].remove(address)
                return address
        return None

    def release(self, address: IPv4Address) -> None:
        next(free for block, free in self.unallocated.items() if address in block).append(address)


@dataclass
class HostLocal:
    """The addresses that host-local has given on one node for one network. They stay when the range changes."""

    leases: set[IPv4Address] = field(default_factory=set)
    last: IPv4Address | None = None

    def assign(self, first: IPv4Address, last: IPv4Address, gateway: IPv4Address) -> IPv4Address | None:
        addresses = [IPv4Address(n) for n in range(int(first), int(last) + 1)]
        if self.last in addresses:
            at = addresses.index(self.last) + 1
            addresses = addresses[at:] + addresses[:at]
        for address in addresses:
            if address not in self.leases and address != gateway:
                self.leases.add(address)
                self.last = address
                return address
        return None


@dataclass(frozen=True)
class Case:
    """`steps`: the events, as (kind, node, number); see `Cluster`."""

    lab: Lab
    strict: bool
    steps: list[tuple[str, int, int]]


class Cluster:
    """The cluster of a lab. `pods` maps each address to the program that gave it, of which there may be only one."""

    def __init__(self, case: Case, *, reserving: bool) -> None:
        self.lab, self.reserving, self.collided = case.lab, reserving, False
        [pool] = case.lab.calico.pools
        self.names = [node.name for node in case.lab.nodes]
        self.calico = CalicoIpam(list(pool.cidr.subnets(new_prefix=pool.block_size)), case.strict)
        self.pods: dict[IPv4Address, tuple[str, str]] = {}
        self.books: dict[tuple[str, str], HostLocal] = {}
        self.blocks: dict[str, list[str]] = {}
        self.written: dict[str, dict[str, list[str]]] = {}
        """The blocks at the last read, from which each node's files follow."""
        # As blocks.sh does: every node has a block before anything follows from the blocks.
        for number, node in enumerate(self.names):
            self.pod(node, number)
        for kind, number, pick in case.steps:
            if self.collided:
                break
            getattr(self, kind)(self.names[number % len(self.names)], pick)

    def _give(self, address: IPv4Address | None, by: str, node: str) -> None:
        if address is not None:
            self.collided |= address in self.pods
            self.pods[address] = (by, node)

    def pod(self, node: str, pick: int) -> None:
        """An address from calico-ipam: for a pod on a node without Multus, or for a tunnel."""
        self._give(self.calico.assign(node, pick), "calico-ipam", node)

    def read(self, node: str, pick: int) -> None:
        """blocks.sh and the reservation, for all nodes at once."""
        self.blocks = {name: [str(block) for block in self.calico.nodes[name]] for name in self.names}
        if self.reserving:
            self.calico.reserved = [IPv4Network(cidr) for cidr in reserved(self.lab, self.blocks)]

    def files(self, node: str, pick: int) -> None:
        """vacate.sh and files.sh on one node. Pods in a range restart and get another address from calico-ipam."""
        if not self.blocks:
            return
        assert self.lab.multus is not None
        intruders = []
        for delegate in self.lab.multus.delegates:
            first, last = range_of(self.lab, self.blocks, node, delegate)
            leases = self._book(node, delegate.name).leases
            intruders += [
                a for a, (_, on) in self.pods.items() if on == node and first <= a <= last and a not in leases
            ]
        for address in intruders:
            self.release(address)
        self.written[node] = self.blocks
        for _ in intruders:
            self.pod(node, pick)

    def delegated(self, node: str, pick: int) -> None:
        """A pod with an address from a delegate."""
        if node not in self.written:
            return
        assert self.lab.multus is not None
        delegate = self.lab.multus.delegates[pick % len(self.lab.multus.delegates)]
        first, last = range_of(self.lab, self.written[node], node, delegate)
        gateway = block_of(self.lab, self.written[node], node, delegate)[1]
        self._give(self._book(node, delegate.name).assign(first, last, gateway), delegate.name, node)

    def end(self, node: str, pick: int) -> None:
        """A pod ends."""
        if self.pods:
            self.release(sorted(self.pods)[pick % len(self.pods)])

    def release(self, address: IPv4Address) -> None:
        by, node = self.pods.pop(address)
        if by == "calico-ipam":
            self.calico.release(address)
        else:
            self._book(node, by).leases.remove(address)

    def _book(self, node: str, delegate: str) -> HostLocal:
        return self.books.setdefault((node, delegate), HostLocal())


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Small blocks and pools, which are full after a few pods, so that every case occurs."""
    block_size = draw(st.integers(26, 29))
    count = draw(st.integers(1, 3))
    # A block for every node, as the rules of the stack file demand, and few more.
    prefix = block_size - draw(st.integers((count - 1).bit_length(), 3))
    cuts = sorted(draw(st.lists(st.integers(1, 2 ** (32 - block_size) - 1), min_size=2, max_size=6, unique=True)))
    delegates = [
        {"name": f"d{i}", "rangeStart": start, "rangeEnd": end}
        for i, (start, end) in enumerate(zip(cuts[::2], cuts[1::2], strict=False))
    ]
    made = lab(
        calico={"pools": [{"name": "p", "cidr": f"10.244.0.0/{prefix}", "blockSize": block_size}]},
        multus={"clusterNetwork": "d0", "delegates": delegates},
        nodes=[{"name": f"n{i}", "subnet": "workers", "address": f"10.0.2.{9 + i}"} for i in range(count)],
        networks=[],
        workloads=[],
    )
    kinds = st.sampled_from(["delegated", "delegated", "pod", "pod", "pod", "end", "files", "read"])
    where = (st.integers(0, 2), st.integers(0, 9))
    # A few pods exist before the first read. Nodes borrow addresses when the pool is full, which takes longer.
    before = draw(st.lists(st.tuples(st.sampled_from(["pod", "end"]), *where), max_size=4))
    first = [("read", 0, 0), *(("files", n, 0) for n in draw(st.permutations(range(count))))]
    then = draw(st.lists(st.tuples(kinds, *where), min_size=20, max_size=80))
    return Case(made, draw(st.booleans()), [*before, *first, *then])


@examples(300)
@given(cases())
def test_with_the_reservation_no_address_is_given_twice(case: Case) -> None:
    assert not Cluster(case, reserving=True).collided


# Any example will do, it need not be the smallest.
SEARCH = settings(examples(5000), phases=[Phase.generate])


def test_without_the_reservation_an_address_is_given_twice() -> None:
    """The model finds the collision that the original labs have."""
    found = find(cases(), lambda case: Cluster(case, reserving=False).collided, settings=SEARCH)
    assert Cluster(found, reserving=False).collided and not Cluster(found, reserving=True).collided


def test_with_the_lowest_block_instead_of_the_oldest_an_address_is_given_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node's second block may have lower addresses. The delegates would move there, and their pods would not."""

    def lowest(held: Sequence[str], pool: Pool) -> IPv4Network | None:
        return min((block for block in map(IPv4Network, held) if block.subnet_of(pool.cidr)), default=None)

    for module in (addresses, blocks):
        monkeypatch.setattr(module, "block_in_pool", lowest)
    find(cases(), lambda case: Cluster(case, reserving=True).collided, settings=SEARCH)


def test_the_model_reaches_every_case() -> None:
    """Second blocks, borrowed addresses and exhausted delegates each occur in some example."""

    def reached(case: Case, what: str) -> bool:
        cluster = Cluster(case, reserving=True)
        owners = {block: node for node, blocks in cluster.calico.nodes.items() for block in blocks}
        match what:
            case "second block":
                return any(len(blocks) > 1 for blocks in cluster.calico.nodes.values())
            case "lower second block":
                return any(len(blocks) > 1 and blocks[1] < blocks[0] for blocks in cluster.calico.nodes.values())
            case "borrowed":
                calicos = [(a, node) for a, (by, node) in cluster.pods.items() if by == "calico-ipam"]
                return any(owners[b] != node for a, node in calicos for b in owners if a in b)
        return sum(by != "calico-ipam" for by, _ in cluster.pods.values()) >= 5

    for what in ("second block", "lower second block", "borrowed", "delegated"):
        try:
            find(cases(), lambda case, what=what: reached(case, what), settings=SEARCH)
        except NoSuchExample:
            pytest.fail(f"no case has a {what}")
