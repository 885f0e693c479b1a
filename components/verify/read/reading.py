"""Reading a whole live lab: the API once per kind, each node over one connection, all nodes at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from components.aws_client import AwsSettings
from components.slowdown import scaled
from components.spec import addresses, models
from components.spec.modes import WIREGUARD
from components.verify.expect.egress import firewall_pods
from components.verify.expect.probes import Ping, pings
from components.verify.model import Entry, NodeFacts, ObservedLab, Pod, Scope, Topic
from components.verify.read import api, ec2, facts, rules
from components.verify.read.access import access_of
from components.verify.read.connection import NETNS, Access, Connection, Unreachable, render
from components.verify.read.namespace import NamespaceAccess
from components.verify.services import ServicePort

# A hundred nodes at once would be a hundred key exchanges at once.
CONNECTIONS_AT_ONCE = 16
_NODE_TIMEOUT_SECONDS = 60.0
_OBSERVE = Path(__file__).with_name("observe.sh")


@dataclass(frozen=True)
class LiveLab:
    """A lab that was brought up: its stack file, and the stack's outputs.

    `blocks`: node → CIDRs. `access`: node → how it is reached. `instances`: node → machine id (on EC2, the
    instance's). `aws`: the account and region of EC2 machines.
    """

    spec: models.Lab
    blocks: Mapping[str, Sequence[str]]
    access: Mapping[str, Access]
    kubeconfig: str
    instances: Mapping[str, str] = field(default_factory=dict)
    aws: AwsSettings = field(default_factory=AwsSettings)

    @classmethod
    def of(cls, spec: models.Lab, outputs: Mapping[str, Any], aws: AwsSettings | None) -> LiveLab:
        """From the stack's outputs blocks, access, kubeconfig and nodes. Those that `up` has not made yet are empty."""
        return cls(
            spec,
            blocks=outputs.get("blocks") or {},
            access={node: access_of(node, entry) for node, entry in (outputs.get("access") or {}).items()},
            kubeconfig=str(outputs.get("kubeconfig") or ""),
            instances={node: str(machine) for node, machine in (outputs.get("nodes") or {}).items()},
            aws=aws or AwsSettings(),
        )

    @property
    def sandbox(self) -> bool:
        """Whether its nodes are namespaces of this computer, where nothing repairs itself."""
        return any(isinstance(access, NamespaceAccess) for access in self.access.values())

    def netns(self, pod: Pod) -> str:
        """The name of a pod's network namespace in a sandbox; empty elsewhere."""
        access = self.access.get(pod.node)
        return access.pods.get(pod.id, "") if isinstance(access, NamespaceAccess) else ""

    @asynccontextmanager
    async def connect(self, node: str) -> AsyncIterator[Connection]:
        """An open connection to a node. Raises Unreachable, also where the stack does not say how to reach it."""
        if node not in self.access:
            raise Unreachable("the stack's output `access` does not name it: `up` has not made it yet")
        async with self.access[node].connect() as connection:
            yield connection

    @property
    def on_ec2(self) -> bool:
        """Whether its machines are EC2 instances that exist."""
        return bool(self.instances) and isinstance(self.spec.machines, models.AwsMachines)


# No repr, which would have every table of every node: asyncio.run asks for its result's and throws it away.
@dataclass(repr=False)
class Reading:
    """What was read. `unreachable`: node → why it could not be read. `no_api`: why the API could not be read, or
    empty."""

    cluster: Scope
    pods: list[Pod]
    nodes: dict[str, NodeFacts] = field(default_factory=dict)
    unreachable: dict[str, str] = field(default_factory=dict)
    no_api: str = ""
    services: list[ServicePort] = field(default_factory=list)

    @cached_property
    def allocations(self) -> Mapping[IPv4Address, str]:
        """The addresses that calico-ipam gave: address → who has it."""
        given = self.cluster.topics.get(Topic.ALLOCATION, {})
        return {IPv4Address(address): entries[0].fields["holder"] for address, entries in given.items()}


async def read_cluster(live: LiveLab) -> Reading:
    """What the API has. Where it does not answer, every topic is unread, with the reason."""
    try:
        objects = await api.read(live.kubeconfig)
    except api.NoApi as error:
        # A sandbox has no control plane. Why its API ended, its nodes say.
        reason = str(error).removesuffix(": is the control plane up?") if live.sandbox else str(error)
        return Reading(Scope(unread=dict.fromkeys(facts.CLUSTER_TOPICS, reason)), [], no_api=reason)
    host_local = live.spec.calico.ipam == "HostLocal"
    scope = facts.cluster(objects, host_local=host_local)
    found = [replace(pod, netns=live.netns(pod)) for pod in facts.pods(objects)]
    return Reading(scope, found, services=facts.services(objects))


async def read_lab(live: LiveLab) -> Reading:
    """The whole lab. A node that does not answer is in `unreachable`; the others are read all the same."""
    reading = await read_cluster(live)
    await read_ec2(live, reading)
    await read_nodes(live, reading, [node.name for node in live.spec.nodes])
    return reading


async def read_ec2(live: LiveLab, reading: Reading) -> None:
    """Add the instances' source/destination checks, where the lab is on EC2."""
    if live.on_ec2:
        try:
            checks = await asyncio.to_thread(ec2.source_dest_checks, live.instances, live.aws)
        except ec2.NoEc2 as error:
            reading.cluster.unread[Topic.SOURCE_DEST] = str(error)
        else:
            reading.cluster.topics[Topic.SOURCE_DEST] = checks


async def read_nodes(live: LiveLab, reading: Reading, names: Sequence[str], *, ping: bool = True) -> None:
    """Add these nodes, each read over one connection. `ping`: with the pings that `verify` looks at."""
    wanted = pings(observed(live, reading)) if ping else {}
    gate = asyncio.Semaphore(CONNECTIONS_AT_ONCE)

    async def read(name: str) -> None:
        async with gate:
            try:
                async with live.connect(name) as connection:
                    await read_node(live, reading, name, connection, wanted.get(name, ()))
            except Unreachable as error:
                reading.unreachable[name] = str(error)

    await asyncio.gather(*(read(name) for name in names))


async def read_node(
    live: LiveLab, reading: Reading, name: str, connection: Connection, wanted: Sequence[Ping] = ()
) -> None:
    """Add one node, over a connection to it. `wanted`: the pings that its pods send. Raises Unreachable."""
    variables = {
        "PROBES": "".join(f"{ping.key}\n" for ping in wanted),
        "FIREWALLS": " ".join(pod.interface for pod in firewall_pods(live.spec, reading.pods, name)),
        "BGP": "yes" if live.spec.calico.bgp == "Enabled" else "no",
        "WIREGUARD_DEVICE": WIREGUARD.device if live.spec.calico.wireguard else "",
    }
    done = await connection.run(render([NETNS, _OBSERVE], variables), timeout_seconds=scaled(_NODE_TIMEOUT_SECONDS))
    if "\x1e" not in done.stdout:
        printed = (done.stderr or done.stdout).strip().splitlines()
        raise Unreachable(
            f"the node cannot be read (status {done.status}): {printed[-1] if printed else 'it printed nothing'}"
        )
    node = facts.node_facts(done.stdout)
    for pod in node.pods.values():
        _add_addresses(pod)
    if live.spec.multus is not None:
        _add_free_ranges(live, live.spec.multus, reading, name, node)
    _add_nat(live, reading, name, node)
    reading.nodes[name] = node


def _add_addresses(pod: Scope) -> None:
    """The topic ADDRESS: each interface's address by itself, without its prefix length."""
    if Topic.LINK not in pod.topics:
        pod.unread[Topic.ADDRESS] = pod.unread.get(Topic.LINK, "not read")
        return
    pod.topics[Topic.ADDRESS] = {
        interface: tuple(
            Entry({"address": entry.fields["addresses"].partition("/")[0]}, entry.line) for entry in entries
        )
        for interface, entries in pod.topics[Topic.LINK].items()
    }


def _add_free_ranges(live: LiveLab, multus: models.Multus, reading: Reading, name: str, node: NodeFacts) -> None:
    """The topic FREE, by delegate: who has an address of its range on this node from calico-ipam."""
    if Topic.ALLOCATION not in reading.cluster.topics:
        node.unread[Topic.FREE] = reading.cluster.unread.get(Topic.ALLOCATION, "not read")
        return
    node.topics[Topic.FREE] = {}
    for delegate in multus.delegates:
        block = addresses.block_in_pool(live.blocks.get(name, ()), live.spec.pool_of(delegate))
        if block is not None:
            first, last = addresses.delegate_range(block, delegate)
            taken = [f"{at} ({holder})" for at, holder in reading.allocations.items() if first <= at <= last]
            line = ", ".join(taken) or f"nothing of {first}-{last}"
            node.topics[Topic.FREE][delegate.name] = (Entry({"taken": " ".join(taken)}, line),)


def _add_nat(live: LiveLab, reading: Reading, name: str, node: NodeFacts) -> None:
    """The topics SERVICE and NAT: what the node's rules make of each Service and of each pool."""
    if Topic.NAT in node.unread:
        return
    pools = live.spec.calico.pools
    address = next(str(it.address) for it in live.spec.nodes if it.name == name)
    nic = node.interface_with(address) or live.spec.calico.interface or "eth0"
    node.topics[Topic.SERVICE] = rules.services(node.rules, reading.services, str(pools[0].cidr[1]))
    node.topics[Topic.NAT] = rules.masquerades(node.rules, pools, nic)


def observed(live: LiveLab, reading: Reading) -> ObservedLab:
    """The lab as its expectations need it."""
    return ObservedLab.of(live.spec, live.blocks, reading.cluster, reading.pods, reading.nodes, reading.services)
