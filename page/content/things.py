"""The nodes and pods of a lab, each with what was read of it, or is foreseen: interfaces, routes, neighbours, files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from components.spec import models
from components.spec.modes import tunnel_of
from components.verify.model import Entry, EntryKey, Pod, Scope, Topic, addresses_of
from page.content.source import Source

Json = dict[str, Any]

# Forwarding entries of multicast groups, which every interface has.
_MULTICAST = re.compile(r"33:33:|01:00:5e:")
_SECRET_KEY = re.compile(r"token|secret|password|private|(certificate|key|ca)-?_?data", re.IGNORECASE)
SECRET = "<secret>"
_TABLES = {Topic.ROUTE: "routes", Topic.ENCRYPTED: "encrypted", Topic.NEIGHBOUR: "neighbours", Topic.FDB: "fdb"}


@dataclass(frozen=True)
class Attached:
    """A further interface of a pod: `network` as the stack file names it; `shared`: whether it reaches other nodes."""

    interface: str
    network: str
    address: str
    shared: bool


@dataclass(frozen=True)
class PodView:
    """A pod of a node. `own`: whether it belongs to a workload of the stack file."""

    id: str
    name: str
    workload: str
    address: str
    phase: str
    own: bool
    attached: tuple[Attached, ...]


@dataclass(frozen=True)
class NodeView:
    """A node as the drawing needs it. `tunnels`, `bridges`: name and address. `blocks`: CIDR and pool. `hosted`: how
    many pods are on its own network. `problem`: why it could not be read. `failed`: how many of its expectations
    failed."""

    name: str
    role: str
    subnet: str
    address: str
    nic: str
    tunnels: tuple[tuple[str, str], ...]
    bridges: tuple[tuple[str, str], ...]
    blocks: tuple[tuple[str, str], ...]
    pods: tuple[PodView, ...]
    hosted: int
    problem: str
    failed: int


def node_views(source: Source) -> list[NodeView]:
    """The nodes in the stack file's order."""
    return [_view(source, node) for node in source.live.spec.nodes]


def _view(source: Source, node: models.Node) -> NodeView:
    lab, reading = source.lab, source.reading
    links = _links(reading.nodes.get(node.name, Scope()))
    held = lab.affinities.get(node.name, ())
    pods = [pod for pod in reading.pods if pod.node == node.name]
    return NodeView(
        name=node.name,
        role=node.role,
        subnet=node.subnet,
        address=str(node.address),
        nic=lab.nics[node.name],
        tunnels=tuple((name, _first(link)) for name, link in links if tunnel_of(name) and link.fields["up"] == "yes"),
        bridges=tuple((name, _first(link)) for name, link in links if link.fields["kind"] == "bridge"),
        blocks=tuple((cidr, pool.name if (pool := lab.pool_of(cidr)) else "") for cidr in held),
        pods=tuple(_pod_view(source, pod) for pod in sorted(pods, key=_order) if not pod.host_network),
        hosted=sum(pod.host_network for pod in pods),
        problem=reading.unreachable.get(node.name, ""),
        failed=source.failed_on[node.name],
    )


def _order(pod: Pod) -> tuple[bool, str, str]:
    """The lab's own pods first."""
    return pod.workload is None, pod.namespace, pod.name


def _pod_view(source: Source, pod: Pod) -> PodView:
    workload = source.lab.workload_of(pod)
    networks = {network.name: network for network in source.live.spec.networks}
    attached = []
    for interface, attachment in (workload.interfaces if workload else {}).items():
        network = networks[attachment.name]
        shared = not isinstance(network, models.BridgeNetwork | models.CustomNetwork)
        ips = pod.networks.get(interface, {}).get("ips") or []
        attached.append(Attached(interface, network.name, " ".join(map(str, ips)), shared))
    name = workload.name if workload else ""
    return PodView(pod.id, pod.name, name, pod.address, pod.phase, workload is not None, tuple(attached))


def _links(scope: Scope) -> list[tuple[str, Entry]]:
    return [(name, entry) for name, entries in scope.topics.get(Topic.LINK, {}).items() for entry in entries]


def _first(link: Entry) -> str:
    return next(iter(addresses_of(link)), "")


# --- the panels ------------------------------------------------------------------------------------------------------


def node_json(source: Source, view: NodeView) -> Json:
    """A node's panel. A line of a table is [TEXT, number of the expectation about it or None]."""
    scope = source.reading.nodes.get(view.name, Scope())
    files = scope.topics.get(Topic.FILE, {})
    return {
        "name": view.name,
        "role": view.role,
        "subnet": view.subnet,
        "address": view.address,
        "blocks": [list(block) for block in view.blocks],
        "pods": [pod.id for pod in view.pods],
        "hosted": view.hosted,
        "problem": view.problem,
        "links": [_link_json(source, name, link, view.name, None) for name, link in _links(scope)],
        **{key: list(_lines(source, scope, topic, view.name, None)) for topic, key in _TABLES.items()},
        "files": [[path, _pretty(entries[0].line)] for path, entries in sorted(files.items()) if path != "first"],
        "unread": _unread(scope),
    }


def pod_json(source: Source, pod: Pod, view: PodView) -> Json:
    """A pod's panel."""
    facts = source.reading.nodes.get(pod.node)
    scope = facts.pods.get(pod.interface, Scope()) if facts else Scope()
    return {
        "id": pod.id,
        "node": pod.node,
        "workload": view.workload,
        "address": pod.address,
        "phase": pod.phase,
        "hostSide": pod.interface,
        "attached": [[a.interface, a.network, a.address] for a in view.attached],
        "links": [_link_json(source, name, link, pod.node, pod.interface) for name, link in _links(scope)],
        "routes": list(_lines(source, scope, Topic.ROUTE, pod.node, pod.interface)),
        "neighbours": list(_lines(source, scope, Topic.NEIGHBOUR, pod.node, pod.interface)),
        "unread": _unread(scope) or ([] if facts else [f"{pod.node} was not read"]),
    }


def _link_json(source: Source, name: str, link: Entry, node: str, pod: str | None) -> list[Any]:
    """Name, kind, MAC, MTU, addresses, whether it is up, master, number of the expectation."""
    fields = link.fields
    number = source.number_of.get(EntryKey(Topic.LINK, name, node, pod))
    mac = "" if name == "lo" else fields["address"]
    return [name, fields["kind"], mac, fields["mtu"], fields["addresses"], fields["up"] == "yes",
            fields.get("master", ""), number]  # fmt: skip


def _lines(source: Source, scope: Scope, topic: Topic, node: str, pod: str | None) -> Iterator[list[Any]]:
    for key, entries in scope.topics.get(topic, {}).items():
        number = source.number_of.get(EntryKey(topic, key, node, pod))
        for entry in entries:
            if not (topic == Topic.FDB and _MULTICAST.match(entry.line)):
                yield [entry.line, number]


def _unread(scope: Scope) -> list[str]:
    """What could not be read, and why; pings aside, which the walks show."""
    return [f"{topic.heading}: {why}" for topic, why in scope.unread.items() if topic != Topic.PROBE]


def _pretty(text: str) -> str:
    """JSON over several lines, secrets left out; other text as it is."""
    try:
        return json.dumps(_clean(json.loads(text)), indent=2, ensure_ascii=False)
    except ValueError:
        return text


def _clean(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: SECRET if _SECRET_KEY.search(key) else _clean(item) for key, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list) else value


def panels(source: Source, views: Sequence[NodeView]) -> Json:
    """Every node's and pod's panel."""
    by_id = {pod.id: pod for pod in source.reading.pods}
    pods = [pod for view in views for pod in view.pods]
    return {
        "nodes": [node_json(source, view) for view in views],
        "pods": [pod_json(source, by_id[view.id], view) for view in pods],
    }
