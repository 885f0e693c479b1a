"""A field of a Kubernetes object that is changed on purpose, and back again, by the Kubernetes API. One patch changes
the field and records its right value in an annotation, so nothing can come between the two."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from components.calico.manifests import api_version
from components.slowdown import scaled
from components.spec import models
from components.spec.placement import selected
from components.verify.faults.model import Refused, Undone
from components.verify.faults.targets import wrong_as
from components.verify.model import Topic
from components.verify.read import api
from components.verify.read.reading import LiveLab, read_cluster, read_nodes
from components.verify.services import service_ports

ANNOTATION = "cni-lab/fault"
_FOLLOW_SECONDS = 30
"""How long the lab may take to follow a change. What it does not do in time, verify shows."""
_RECOVER_SECONDS = 90
"""The same when a value is put back: BIRD 2, as a peer, waits for 60 s after an error before it tries again."""


@dataclass(frozen=True)
class _Change:
    """What one fault changes. `title`: the kind of its objects; `path`: of their list; `field`: of their spec; `wrong`:
    the value that takes the place of a right one. `possible`: whether a lab has such objects. `shows`: whether the lab
    shows an object (NAMESPACE/NAME, or NAME) in its right or wrong state. `still`: what to say when that takes
    longer. `on_clusters_only`: whether no sandbox has it."""

    title: str
    path: Callable[[models.Lab], str]
    field: str
    wrong: Callable[[Any], Any]
    possible: Callable[[models.Lab], bool]
    shows: Callable[[LiveLab, str, bool], Awaitable[bool]]
    still: str
    on_clusters_only: bool = False


async def change(live: LiveLab, fault: str, name: str) -> None:
    """Make a fault on an object, NAMESPACE/NAME, or NAME where its kind has no namespace. Raises Refused, NoApi."""
    how = CHANGES[fault]
    for item in await _list(live, how):
        if _name_of(item) != name:
            continue
        right = (item.get("spec") or {}).get(how.field)
        if _record_of(item) is not None:
            raise Refused(f"{fault} is broken on {name} already: mend first")
        if not right:
            raise Refused(f"the {how.title} {name} has no {how.field} to change")
        record = {"annotations": {ANNOTATION: json.dumps(right)}}
        spec = {how.field: _replacing(right, how.wrong(right))}
        await _patch(live, how, name, {"metadata": record, "spec": spec})
        await _wait(live, how, name, right=False, seconds=_FOLLOW_SECONDS)
        return
    raise Refused(f"there is no {how.title} {name}")


async def restore(live: LiveLab) -> tuple[list[Undone], list[str]]:
    """Put back the field of every object that `change` changed. Returns what was undone, and why some of it may not
    be."""
    undone: list[Undone] = []
    problems: list[str] = []
    for fault, how in CHANGES.items():
        if live.sandbox and how.on_clusters_only:
            continue
        try:
            for item in await _list(live, how):
                if (record := _record_of(item)) is not None:
                    undone.append(await _restore(live, fault, item, json.loads(record)))
        except (api.NoApi, api.NotListed, Refused) as error:
            # Only a lab that has such objects can have a changed one.
            if how.possible(live.spec) and str(error) not in problems:
                problems.append(str(error))
    return undone, problems


async def _restore(live: LiveLab, fault: str, item: api.Item, right: Any) -> Undone:
    how, name = CHANGES[fault], _name_of(item)
    now = (item.get("spec") or {}).get(how.field)
    as_broken = now == how.wrong(right)
    document: dict[str, Any] = {"metadata": {"annotations": {ANNOTATION: None}}}
    if as_broken:
        document["spec"] = {how.field: _replacing(now, right)}
    await _patch(live, how, name, document)
    if not as_broken:
        return Undone(name, fault, f"its {how.field} has been changed since")
    if not await _wait(live, how, name, right=True, seconds=_RECOVER_SECONDS):
        return Undone(name, fault, f"put back; {how.still}")
    return Undone(name, fault, "put back")


# --- the API ----------------------------------------------------------------------------------------------------------


async def _list(live: LiveLab, how: _Change) -> tuple[api.Item, ...]:
    async with api.connected(live.kubeconfig) as client:
        return await api.list_objects(client, how.path(live.spec), {})


async def _patch(live: LiveLab, how: _Change, name: str, document: object) -> None:
    namespace, _, plain = name.rpartition("/")
    group, _, plural = how.path(live.spec).rpartition("/")
    path = f"{group}/namespaces/{namespace}/{plural}/{plain}" if namespace else f"{group}/{plural}/{plain}"
    headers = {"Content-Type": "application/merge-patch+json"}
    async with api.connected(live.kubeconfig) as client:
        response = await api.send(client, "PATCH", path, content=json.dumps(document), headers=headers)
    if response.status_code != 200:
        raise Refused(f"the {how.title} {name} cannot be changed: HTTP {response.status_code}")


def _replacing(old: Any, new: Any) -> Any:
    """The value in a merge patch. There, a key of a map that is to go is null."""
    return dict.fromkeys(old) | new if isinstance(old, dict) and isinstance(new, dict) else new


def _name_of(item: api.Item) -> str:
    metadata: Mapping[str, str] = item.get("metadata") or {}
    return "/".join(part for part in (metadata.get("namespace"), metadata.get("name")) if part)


def _record_of(item: api.Item) -> str | None:
    annotations: Mapping[str, str] = (item.get("metadata") or {}).get("annotations") or {}
    return annotations.get(ANNOTATION)


async def _wait(live: LiveLab, how: _Change, name: str, *, right: bool, seconds: float) -> bool:
    """Whether the lab follows in time."""
    end = time.monotonic() + scaled(seconds)
    while not (followed := await how.shows(live, name, right)) and time.monotonic() < end:
        await asyncio.sleep(1)
    return followed


# --- each fault -------------------------------------------------------------------------------------------------------


async def _has_endpoints(live: LiveLab, name: str, right: bool) -> bool:
    kinds = {kind: api.KINDS[kind] for kind in ("services", "endpointslices")}
    objects = await api.read(live.kubeconfig, kinds)
    ports = service_ports(objects.of("services"), objects.of("endpointslices"))
    return all(bool(port.endpoints) == right for port in ports if port.id == name)


async def _has_sessions(live: LiveLab, name: str, right: bool) -> bool:
    """Whether the sessions with a peer are established on all of its nodes, or on none. Nodes that do not answer do not
    count."""
    peer = next((peer for peer in live.spec.calico.peers if peer.name == name), None)
    if peer is None:
        return True
    reading = await read_cluster(live)
    nodes = [node.name for node in selected(live.spec, peer.node_selector) or () if node.name in live.access]
    await read_nodes(live, reading, nodes, ping=False)
    states = [
        reading.nodes[node].field_of(Topic.BGP, str(peer.peer_ip), "state") for node in nodes if node in reading.nodes
    ]
    return all((state == "Established") == right for state in states)


CHANGES: Mapping[str, _Change] = {
    "service-without-endpoints": _Change(
        title="Service",
        path=lambda lab: "/api/v1/services",
        field="selector",
        wrong=lambda selector: {"app": "nobody"},
        possible=lambda lab: any(workload.service for workload in lab.workloads),
        shows=_has_endpoints,
        still="the EndpointSlices have not followed yet",
    ),
    "wrong-peer-as": _Change(
        title="BGPPeer",
        path=lambda lab: f"/apis/{api_version(lab)}/bgppeers",
        field="asNumber",
        wrong=wrong_as,
        possible=lambda lab: bool(lab.calico.peers),
        shows=_has_sessions,
        still="the session is not up yet: after an error a router waits, often for minutes, before it tries again",
        on_clusters_only=True,
    ),
}
"""By the fault's id."""
