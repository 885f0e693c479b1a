"""The room's data: what was read of a lab, what must be true of it, and how the two compare. Nothing here reads a
machine."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, StrEnum
from functools import cache, cached_property
from hashlib import sha1
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Literal, NamedTuple

from components.spec import models, modes, names
from components.spec.addresses import network_of
from components.spec.placement import selected
from components.verify.nat.model import Ruleset
from components.verify.services import ServicePort

HOST_SIDE_MAC = "ee:ee:ee:ee:ee:ee"
"""Calico gives this MAC address to the host side of every pod's eth0."""


class Topic(StrEnum):
    """What kind of thing an entry is. The value appears in reports; `heading` names the rows of `./lab verify`."""

    heading: str

    def __new__(cls, value: str, heading: str) -> Topic:
        topic = str.__new__(cls, value)
        topic._value_ = value
        topic.heading = heading
        return topic

    # Of the cluster, from the Kubernetes API; SOURCE_DEST from EC2.
    POOL = "pool", "IPPools"
    AFFINITY = "affinity", "block affinities"
    RESERVATION = "reservation", "reserved ranges"
    PEER = "peer", "BGPPeers"
    ALLOCATION = "allocation", "allocations"
    NODE = "node", "nodes Ready"
    WORKLOAD = "workload", "workloads Ready"
    ANNOTATION = "annotation", "Calico's annotation"
    STATUS = "status", "Multus status"
    EVENT = "event", "Multus events"
    SOURCE_DEST = "source_dest", "source/dest check"
    # Of a node. LINK, ROUTE, NEIGHBOUR and ADDRESS also of a pod.
    IP_FORWARD = "ip_forward", "forwarding"
    RP_FILTER = "rp_filter", "reverse path"
    QUEUE = "queue", "queues"
    FILTER = "filter", "packet filter"
    LINK = "link", "devices"
    ROUTE = "route", "routes"
    ENCRYPTED = "encrypted", "encrypted routes"
    NEIGHBOUR = "neighbour", "neighbours"
    FDB = "fdb", "forwarding entries"
    BGP = "bgp", "BGP sessions"
    FILE = "file", "CNI files"
    FREE = "free", "delegates' ranges"
    CRIO = "crio", "CRI-O's network"
    PROXY_ARP = "proxy_arp", "proxy ARP"
    ADDRESS = "address", "pod addresses"
    PROBE = "probe", "pings"
    NAT = "nat", "pools' NAT"
    SERVICE = "service", "Services"
    POLICY = "policy", "network policies"


# --- what was read ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """One entry as read: its fields as text, and the line that a person sees. `reason`: why it is not as it should be,
    where Kubernetes says so."""

    fields: Mapping[str, str]
    line: str = field(compare=False)
    reason: str = field(default="", compare=False)


Table = dict[str, tuple[Entry, ...]]
"""Entries by key; more than one where the kernel has several of a key (two routes to one destination)."""


class EntryKey(NamedTuple):
    """Where an entry is: a topic and a key of a pod (by the host side of its eth0), of a node, or of the cluster."""

    topic: Topic
    key: str
    node: str | None = None
    pod: str | None = None


@dataclass
class Scope:
    """What was read of one thing: tables by topic; and for each topic that could not be read, why."""

    topics: dict[Topic, Table] = field(default_factory=dict)
    unread: dict[Topic, str] = field(default_factory=dict)

    def get(self, topic: Topic, key: str) -> tuple[Entry, ...]:
        """The entries of a key; none where there are none, or the topic could not be read."""
        return self.topics.get(topic, {}).get(key, ())

    def field_of(self, topic: Topic, key: str, name: str) -> str:
        """One field of a key's first entry; empty where it is not there."""
        return next((entry.fields.get(name, "") for entry in self.get(topic, key)), "")


@dataclass
class NodeFacts(Scope):
    """What was read of a node. `pods`: by host-side interface. `host_local`: the addresses that host-local gave, by
    network. `rules`: its NAT rules."""

    pods: dict[str, Scope] = field(default_factory=dict)
    rules: Ruleset = field(default_factory=Ruleset)
    host_local: dict[str, list[str]] = field(default_factory=dict)

    def interface_with(self, address: str) -> str | None:
        """The interface that has an address."""
        for name, entries in self.topics.get(Topic.LINK, {}).items():
            if any(address in addresses_of(entry) for entry in entries):
                return name
        return None


def addresses_of(link: Entry) -> list[str]:
    """The IPv4 addresses of a link's entry, without their prefix lengths."""
    return [cidr.partition("/")[0] for cidr in link.fields["addresses"].split()]


@dataclass(frozen=True)
class Pod:
    """A pod as the API has it. `networks`: Multus' network-status by interface. `started`: as in RFC 3339. `ports`: the
    ports of its containers that have a name. `controller`: KIND NAMESPACE/NAME of the Deployment or DaemonSet that
    makes it; else of the pod itself. `problem`: why it is not Ready, as Kubernetes says; empty where it is. `netns`: in
    a sandbox, the name of its network namespace on its node; else empty."""

    namespace: str
    name: str
    node: str
    address: str
    host_network: bool
    phase: str
    workload: str | None
    networks: Mapping[str, Mapping[str, Any]]
    started: str
    labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    controller: str = ""
    problem: str = ""
    netns: str = ""

    @property
    def interface(self) -> str:
        """The host side of its eth0."""
        return host_interface(self.namespace, self.name)

    @property
    def id(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def running(self) -> bool:
        """Whether it runs on a network of its own."""
        return self.phase == "Running" and bool(self.address) and not self.host_network

    @property
    def starting(self) -> bool:
        """Whether it is to run on a network of its own, and does not yet."""
        return not self.host_network and not self.running and self.phase in ("Pending", "Running", "Unknown")


def host_interface(namespace: str, pod: str) -> str:
    """The host side of a pod's eth0: "cali" and 11 hex digits of SHA-1 (libcalico-go, names/workloadendpoint.go)."""
    return "cali" + sha1(f"{namespace}.{pod}".encode()).hexdigest()[:11]


@cache
def tunnel_mac(node: str) -> str:
    """The MAC address that Felix gives to a node's vxlan.calico: "f" and SHA-1 of its name (felix, vxlan_mgr.go)."""
    return ":".join(f"{byte:02x}" for byte in b"f" + sha1(node.encode()).digest()[:5])


# --- the lab that expectations follow from ---------------------------------------------------------------------------


@dataclass(frozen=True)
class ObservedLab:
    """A lab's stack file, with what is known of it alive: what all expectations follow from.

    `blocks`: node → CIDRs, as `up` read them; `affinities`: the same, as the API has them now. `tunnel_addresses`: node
    → annotation (IPv4VXLANTunnelAddr, …) → address. `nics`: node → the interface with its address.
    """

    spec: models.Lab
    blocks: Mapping[str, Sequence[str]]
    affinities: Mapping[str, Sequence[str]]
    tunnel_addresses: Mapping[str, Mapping[str, str]]
    pods: Sequence[Pod]
    nics: Mapping[str, str]
    now: datetime
    services: Sequence[ServicePort] = ()

    @classmethod
    def of(
        cls,
        spec: models.Lab,
        blocks: Mapping[str, Sequence[str]],
        cluster: Scope,
        pods: Sequence[Pod],
        nodes: Mapping[str, NodeFacts],
        services: Sequence[ServicePort] = (),
        now: datetime | None = None,
    ) -> ObservedLab:
        """From what was read. Where the API did not answer, `affinities` are the blocks that `up` read."""
        affinities: dict[str, list[str]] = {}
        for cidr, entries in cluster.topics.get(Topic.AFFINITY, {}).items():
            for entry in entries:
                if entry.fields["state"] == "confirmed" and _is_ipv4(cidr):
                    affinities.setdefault(entry.fields["node"], []).append(cidr)
        tunnels = {node: entries[0].fields for node, entries in cluster.topics.get(Topic.ANNOTATION, {}).items()}
        nics = {}
        for node in spec.nodes:
            nic = nodes[node.name].interface_with(str(node.address)) if node.name in nodes else None
            nics[node.name] = nic or spec.calico.interface or "eth0"
        present = {node: sorted(cidrs, key=network_of) for node, cidrs in affinities.items()}
        known = Topic.AFFINITY in cluster.topics
        at = now or datetime.now(UTC)
        return cls(spec, blocks, present if known else blocks, tunnels, pods, nics, at, services)

    @cached_property
    def sandbox(self) -> bool:
        """Whether it is a sandbox: its pods have no containers, and nothing repairs itself."""
        return any(pod.netns for pod in self.pods)

    @property
    def outside(self) -> str:
        """An address that a pod reaches by its default route only. A sandbox's router answers for no other one."""
        return names.SANDBOX_OUTSIDE if self.sandbox else "8.8.8.8"

    @cached_property
    def nodes(self) -> dict[str, models.Node]:
        """By name."""
        return {node.name: node for node in self.spec.nodes}

    @cached_property
    def addresses(self) -> dict[str, str]:
        """Node → its address."""
        return {node.name: str(node.address) for node in self.spec.nodes}

    def same_subnet(self, one: str, other: str) -> bool:
        """Whether two nodes are in one subnet. Nodes that are not the lab's are not."""
        return one in self.nodes and other in self.nodes and self.nodes[one].subnet == self.nodes[other].subnet

    @cached_property
    def _pools(self) -> dict[str, models.Pool | None]:
        """What pool_of has found: every node asks for every other node's blocks."""
        return {}

    def pool_of(self, cidr: str) -> models.Pool | None:
        """The pool that holds an address or a block."""
        if cidr not in self._pools:
            pools = self.spec.calico.pools
            self._pools[cidr] = next((pool for pool in pools if network_of(cidr).subnet_of(pool.cidr)), None)
        return self._pools[cidr]

    def block_of(self, pod: Pod) -> str | None:
        """The block of the pod's node that its address lies in."""
        blocks = self.affinities.get(pod.node, ())
        return next((cidr for cidr in blocks if IPv4Address(pod.address) in network_of(cidr)), None)

    def tunnel_between(self, source: str, destination: str, cidr: str) -> modes.Tunnel | None:
        """The tunnel that carries a packet for an address or a block of `destination`'s pods from node `source`; None
        where the packet travels as it is, or stays on its node. Where the lab has WireGuard, everything between nodes
        goes through it."""
        if source == destination:
            return None
        if self.spec.calico.wireguard:
            return modes.WIREGUARD
        pool = self.pool_of(cidr)
        return pool.mode.tunnel_between(same_subnet=self.same_subnet(source, destination)) if pool else None

    def tunnel_address(self, node: str, tunnel: modes.Tunnel) -> str:
        """The address of a tunnel's device on a node, as the Node's annotation has it; empty where it has none."""
        return self.tunnel_addresses.get(node, {}).get(tunnel.annotation, "")

    def has_device(self, node: str, tunnel: modes.Tunnel) -> bool:
        """Whether Felix makes a tunnel's device on a node. That of VXLAN only with an address, which IPAM gives from a
        VXLAN pool that selects the node."""
        if tunnel != modes.VXLAN:
            return tunnel in self.spec.tunnels
        return node in self._selected_by_vxlan or bool(self.tunnel_address(node, modes.VXLAN))

    @cached_property
    def _selected_by_vxlan(self) -> frozenset[str]:
        """The nodes that a VXLAN pool selects."""
        selectors = [pool.node_selector for pool in self.spec.calico.pools if pool.mode.tunnel == modes.VXLAN]
        return frozenset(node.name for selector in selectors for node in selected(self.spec, selector) or ())

    def running(self, node: str) -> list[Pod]:
        """The node's pods that run on a network of their own."""
        return [pod for pod in self.pods if pod.node == node and pod.running]

    def starting(self, node: str) -> list[Pod]:
        """The pods of the lab's workloads that are to run on a node, and do not yet. `node` is empty for those that no
        node has taken."""
        return [pod for pod in self.pods if pod.node == node and pod.starting and self.workload_of(pod)]

    def workload_of(self, pod: Pod) -> models.Workload | None:
        """The workload of the stack file that a pod belongs to."""
        mine = (pod.workload, pod.namespace)
        return next((w for w in self.spec.workloads if (w.name, w.namespace) == mine), None)


def _is_ipv4(cidr: str) -> bool:
    try:
        IPv4Network(cidr)
    except ValueError:
        return False
    return True


# --- what must be true -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Within:
    """An IPv4 address from `first` to `last`, both included."""

    first: IPv4Address
    last: IPv4Address

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


@dataclass(frozen=True)
class OneOf:
    """Any of several values."""

    values: tuple[str, ...]

    def __str__(self) -> str:
        return " or ".join(self.values)


Value = str | Within | OneOf
"""What a field must be."""


class Repair(Enum):
    """What `./lab up STACK --repair` does about an expectation that is not met."""

    FILES = "writes the node's CNI files again"
    BLOCKS = "reads the blocks again and writes the node files for them"
    REFRESH = "sets it back to what the stack file says"

    @property
    def sentence(self) -> str:
        return f"`./lab up STACK --repair` {self.value}"


@dataclass(frozen=True, kw_only=True)
class Expectation:
    """One thing that must be true of a live lab.

    `topic`, `key`, `node` and `pod` name the entry that is meant. `expected`: its fields; None: there must be no such
    entry. `command`: what a person types to see it. `because`: where it follows from. `cause`: what most likely went
    wrong if it is not met. `repair` and `advice`: what to do then; either may be absent. `unread`: why it cannot be
    checked; empty where it can. `about`: the part of the id between node and topic. In the texts STACK stands for the
    stack's name.
    """

    topic: Topic
    key: str
    expected: Mapping[str, Value] | None
    sentence: str
    command: str
    because: str
    cause: str
    repair: Repair | None = None
    advice: str = ""
    unread: str = ""
    node: str | None = None
    pod: str | None = None
    about: str = field(default="", compare=False)

    @property
    def entry(self) -> EntryKey:
        """The entry that is meant."""
        return EntryKey(self.topic, self.key, self.node, self.pod)

    @property
    def id(self) -> str:
        """As reports name it: NODE/POD/TOPIC/KEY, of which NODE is "cluster" where there is none."""
        where = [part for part in (self.node, self.about or self.pod) if part] or ["cluster"]
        return "/".join([*where, self.topic, self.key.replace(" ", ",")]).replace("//", "/")

    @property
    def fix(self) -> str:
        """What to do where it is not met."""
        return "; ".join(part for part in (self.repair.sentence if self.repair else "", self.advice) if part)


# --- how the two compare ---------------------------------------------------------------------------------------------

Status = Literal["passed", "failed", "unknown"]


@dataclass(frozen=True)
class Result:
    """`seen`: the line that was read, "(nothing)" or "(no such rule)" where there was none. `difference`: field by
    field where it failed; the reason where it could not be read."""

    expectation: Expectation
    status: Status
    seen: str
    difference: str = ""

    def to_json(self, stack: str = "STACK") -> dict[str, Any]:
        """`stack`: its name, for the commands to type."""
        e = self.expectation
        expected = None if e.expected is None else {key: str(value) for key, value in e.expected.items()}
        found: dict[str, Any] = {
            "id": e.id,
            "status": self.status,
            "node": e.node,
            "topic": str(e.topic),
            "sentence": e.sentence,
            "command": e.command.replace("STACK", stack),
            "expected": expected,
            "seen": self.seen,
            "because": e.because,
        }
        if self.status != "passed":
            found |= {"difference": self.difference, "cause": e.cause, "fix": e.fix.replace("STACK", stack)}
        return found


def canonical_json(value: object) -> str:
    """The one spelling in which JSON values of files are compared."""
    return json.dumps(value, sort_keys=True)
