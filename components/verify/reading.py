"""Read a whole live lab: the API once per kind, each node over one SSH connection, all nodes at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import IPv4Address
from pathlib import Path

from components.spec import addresses, models
from components.verify import api, ec2, facts
from components.verify.expectations import Lab, expectations, probes
from components.verify.facts import NodeFacts, Pod, Scope
from components.verify.iproute import Seen
from components.verify.read.connection import Access, Connection, Unreachable, render
from components.verify.read.namespace import NamespaceAccess
from components.verify.report import Result, compare

NODE_TIMEOUT_SECONDS = 60.0
_OBSERVE = Path(__file__).with_name("observe.sh")
# A hundred nodes at once would be a hundred key exchanges at once.
CONNECTIONS_AT_ONCE = 16


@dataclass(frozen=True)
class Live:
    """What a stack gives out: the stack file's lab, its blocks, how its nodes are reached, its kubeconfig.

    `instances`: node → machine id, EC2's where the lab is there. `region`: the stack's, where it has one.
    """

    lab: models.Lab
    blocks: Mapping[str, Sequence[str]]
    access: Mapping[str, Access]
    kubeconfig: str
    instances: Mapping[str, str] = field(default_factory=dict)
    region: str | None = None

    @property
    def sandbox(self) -> bool:
        """Whether it is namespaces of this computer, where nothing repairs itself."""
        return any(isinstance(access, NamespaceAccess) for access in self.access.values())

    @asynccontextmanager
    async def connect(self, node: str) -> AsyncIterator[Connection]:
        """An open connection to a node. Raises Unreachable, also where the stack does not say how to reach it."""
        if node not in self.access:
            raise Unreachable("the stack's output `access` does not name it: `up` has not made it yet")
        async with self.access[node].connect() as connection:
            yield connection


@dataclass
class Reading:
    """A live lab as read. `unreachable`: node → why. `no_api`: why the API could not be read, else empty."""

    cluster: Scope
    pods: list[Pod]
    nodes: dict[str, NodeFacts] = field(default_factory=dict)
    unreachable: dict[str, str] = field(default_factory=dict)
    no_api: str = ""

    @cached_property
    def allocations(self) -> list[tuple[int, str, str]]:
        """What calico-ipam gave: the address as a number and as text, and who has it."""
        given = self.cluster.topics.get("allocation", {})
        return [(int(IPv4Address(a)), a, entries[0].fields["holder"]) for a, entries in given.items()]


_CLUSTER_TOPICS = ("annotation", "node", "affinity", "pool", "reservation", "allocation", "status", "event")


async def read_cluster(live: Live) -> Reading:
    """What the API says. Where it does not answer every topic is unread, with the reason."""
    try:
        objects = await api.read(live.kubeconfig)
    except api.NoApi as error:
        return Reading(Scope(unread=dict.fromkeys(_CLUSTER_TOPICS, str(error))), [], no_api=str(error))
    host_local = live.lab.calico.ipam == "HostLocal"
    return Reading(facts.cluster(objects, host_local=host_local), facts.pods(objects))


async def read_lab(live: Live) -> Reading:
    """The whole lab. A node that does not answer is in `unreachable`; the others are read all the same."""
    reading = await read_cluster(live)
    await read_ec2(live, reading)
    await read_nodes(live, reading, [node.name for node in live.lab.nodes])
    return reading


async def read_ec2(live: Live, reading: Reading) -> None:
    """The instances' source/destination checks, where the lab is on EC2."""
    if live.instances and isinstance(live.lab.machines, models.AwsMachines):
        checks = await asyncio.to_thread(ec2.source_dest_checks, live.instances, live.region)
        if isinstance(checks, str):
            reading.cluster.unread["source_dest"] = checks
        else:
            reading.cluster.topics["source_dest"] = checks


async def read_nodes(live: Live, reading: Reading, names: Sequence[str], *, ping: bool = True) -> None:
    """Read these nodes into the reading, each over one connection."""
    view = Lab.of(live.lab, live.blocks, reading.cluster, reading.pods, {})
    wanted = probes(view) if ping else {}
    gate = asyncio.Semaphore(CONNECTIONS_AT_ONCE)

    async def one(name: str) -> None:
        async with gate:
            try:
                async with live.connect(name) as connection:
                    text = await observe(live, connection, wanted.get(name, ()))
                reading.nodes[name] = with_derived(live, reading, name, facts.node_facts(text))
            except Unreachable as error:
                reading.unreachable[name] = str(error)

    await asyncio.gather(*(one(name) for name in names))


async def observe(live: Live, connection: Connection, wanted: Sequence[tuple[str, str]]) -> str:
    """What observe.sh prints on a node; `wanted`: pings as `probes` names them. Raises Unreachable."""
    variables = {
        "PROBES": "".join(f"{interface} {address}\n" for interface, address in wanted),
        "BGP": "yes" if live.lab.calico.bgp == "Enabled" else "no",
        "WIREGUARD": "yes" if live.lab.calico.wireguard else "no",
    }
    done = await connection.run(render(_OBSERVE, variables), timeout_seconds=NODE_TIMEOUT_SECONDS)
    if "\x1e" not in done.stdout:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Unreachable(
            f"the node cannot be read (status {done.status}): {said[-1] if said else 'it printed nothing'}"
        )
    return done.stdout


def with_derived(live: Live, reading: Reading, name: str, node: NodeFacts) -> NodeFacts:
    """Add what follows from both sides: each pod's address by itself, and who sits in the delegates' ranges."""
    for pod in node.pods.values():
        if "link" in pod.topics:
            pod.topics["address"] = {
                interface: tuple(
                    Seen({"address": seen.fields["addresses"].partition("/")[0]}, seen.line) for seen in entries
                )
                for interface, entries in pod.topics["link"].items()
            }
        else:
            pod.unread["address"] = pod.unread.get("link", "not read")
    if live.lab.multus is None:
        return node
    if "allocation" not in reading.cluster.topics:
        node.unread["free"] = reading.cluster.unread.get("allocation", "not read")
        return node
    node.topics["free"] = {}
    for delegate in live.lab.multus.delegates:
        block = addresses.block_in_pool(live.blocks.get(name, ()), live.lab.pool_of(delegate))
        if block is not None:
            first, last = addresses.delegate_range(block, delegate)
            span = range(int(first), int(last) + 1)
            taken = [f"{address} ({holder})" for at, address, holder in reading.allocations if at in span]
            line = ", ".join(taken) or f"nothing of {first}-{last}"
            node.topics["free"][delegate.name] = (Seen({"taken": " ".join(taken)}, line),)
    return node


def view(live: Live, reading: Reading) -> Lab:
    """What expectations follow from."""
    return Lab.of(live.lab, live.blocks, reading.cluster, reading.pods, reading.nodes)


def verify(live: Live, reading: Reading) -> list[Result]:
    """Every expectation of the lab against what was read."""
    return compare(expectations(view(live, reading)), reading.cluster, reading.nodes, reading.unreachable)
