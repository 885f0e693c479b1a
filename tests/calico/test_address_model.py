"""No address is given twice: calico-ipam and host-local as they decide, on what our code reserves and writes.

calico-ipam: libcalico-go/lib/ipam of Calico 3.32.1 (a block's addresses in the order of `Unallocated`, where a freed
one goes to the end; a new block when a node's own are full; another node's where none is left and affinity is not
strict). host-local: plugins/ipam/host-local of containernetworking/plugins 1.9.1 (round robin from the last one given,
the gateway left out, its books by network name on each node's disk).
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
    """One pool. `nodes` maps a node to its blocks, in the order it claimed them."""

    blocks: list[IPv4Network]
    strict: bool
    nodes: dict[str, list[IPv4Network]] = field(default_factory=dict)
    unallocated: dict[IPv4Network, list[IPv4Address]] = field(default_factory=dict)
    reserved: list[IPv4Network] = field(default_factory=list)

    def assign(self, node: str, pick: int) -> IPv4Address | None:
        """`pick` stands for what the node's name decides: which of the free blocks it claims."""
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
    """One network's books on one node; they stay when its range becomes another."""

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
    """`steps`: what happens, as (kind, node, number); see `Cluster`."""

    lab: Lab
    strict: bool
    steps: list[tuple[str, int, int]]


class Cluster:
    """The lab's cluster, from Calico's first pods on. `pods` maps an address to who gave it: at most one may."""

    def __init__(self, case: Case, *, reserving: bool) -> None:
        self.lab, self.reserving, self.collided = case.lab, reserving, False
        [pool] = case.lab.calico.pools
        self.names = [node.name for node in case.lab.nodes]
        self.calico = CalicoIpam(list(pool.cidr.subnets(new_prefix=pool.block_size)), case.strict)
        self.pods: dict[IPv4Address, tuple[str, str]] = {}
        self.books: dict[tuple[str, str], HostLocal] = {}
        self.blocks: dict[str, list[str]] = {}
        self.written: dict[str, dict[str, list[str]]] = {}
        """The blocks of the last read that each node's files follow from."""
        # blocks.sh: no node is without a block before anything follows from them.
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
        """One that calico-ipam serves: Multus does not run on its node yet, or it is a tunnel's address."""
        self._give(self.calico.assign(node, pick), "calico-ipam", node)

    def read(self, node: str, pick: int) -> None:
        """blocks.sh and the reservation, of all nodes at once."""
        self.blocks = {name: [str(block) for block in self.calico.nodes[name]] for name in self.names}
        if self.reserving:
            self.calico.reserved = [IPv4Network(cidr) for cidr in reserved(self.lab, self.blocks)]

    def files(self, node: str, pick: int) -> None:
        """vacate.sh and files.sh on one node: pods in a range go, and come again where calico-ipam puts them."""
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
        """A pod that Multus gives to one of the delegates."""
        if node not in self.written:
            return
        assert self.lab.multus is not None
        delegate = self.lab.multus.delegates[pick % len(self.lab.multus.delegates)]
        first, last = range_of(self.lab, self.written[node], node, delegate)
        gateway = block_of(self.lab, self.written[node], node, delegate)[1]
        self._give(self._book(node, delegate.name).assign(first, last, gateway), delegate.name, node)

    def end(self, node: str, pick: int) -> None:
        """Some pod ends."""
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
    """Small blocks and pools: they are full after a few pods, and everything that can happen then happens."""
    block_size = draw(st.integers(26, 29))
    count = draw(st.integers(1, 3))
    # A block for every node, as the stack file's rules want, and few more.
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
    # A few pods are there before the first read; borrowing begins when the pool is full, which takes longer.
    before = draw(st.lists(st.tuples(st.sampled_from(["pod", "end"]), *where), max_size=4))
    first = [("read", 0, 0), *(("files", n, 0) for n in draw(st.permutations(range(count))))]
    then = draw(st.lists(st.tuples(kinds, *where), min_size=20, max_size=80))
    return Case(made, draw(st.booleans()), [*before, *first, *then])


@examples(300)
@given(cases())
def test_no_address_is_given_by_both_once_the_reservation_stands(case: Case) -> None:
    assert not Cluster(case, reserving=True).collided


# Any case will do, not the smallest.
SEARCH = settings(examples(5000), phases=[Phase.generate])


def test_without_the_reservation_it_is() -> None:
    """The same model finds the collision that the labs' original has."""
    found = find(cases(), lambda case: Cluster(case, reserving=False).collided, settings=SEARCH)
    assert Cluster(found, reserving=False).collided and not Cluster(found, reserving=True).collided


def test_with_the_lowest_block_instead_of_the_oldest_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A node's second block may have the lower address: the delegates would move there and leave their pods behind."""

    def lowest(held: Sequence[str], pool: Pool) -> IPv4Network | None:
        return min((block for block in map(IPv4Network, held) if block.subnet_of(pool.cidr)), default=None)

    for module in (addresses, blocks):
        monkeypatch.setattr(module, "block_in_pool", lowest)
    find(cases(), lambda case: Cluster(case, reserving=True).collided, settings=SEARCH)


def test_the_model_reaches_what_it_is_about() -> None:
    """Second blocks, borrowed addresses, delegates that are exhausted: each stands in some case."""

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
