"""A lab as read, from what the API and observe.sh answered.

What could not be read is not an empty topic: it is missing, with the reason in `unread`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv4Network

from components.verify.model import Entry, NodeFacts, Pod, Scope, Table, Topic, canonical_json
from components.verify.read import filters, iproute, workloads
from components.verify.read.api import Item, Objects
from components.verify.read.probes import connection, ping
from components.verify.read.rules import printed, rules_of
from components.verify.services import ServicePort, service_ports

Parser = Callable[[str], Table]

# What a parser raises for an answer that it does not understand.
_GARBAGE = (ValueError, KeyError, IndexError, TypeError, AttributeError)


def pods(objects: Objects) -> list[Pod]:
    """Every pod of the cluster, by namespace and name."""
    found = workloads.warnings(objects)
    return sorted((_pod(item, found) for item in objects.of("pods")), key=lambda pod: (pod.namespace, pod.name))


def _pod(item: Item, found: workloads.Warnings) -> Pod:
    metadata, spec, status = item.get("metadata", {}), item.get("spec", {}), item.get("status", {})
    annotations = metadata.get("annotations") or {}
    networks: dict[str, Mapping[str, object]] = {}
    try:
        for network in json.loads(annotations.get("k8s.v1.cni.cncf.io/network-status") or "[]"):
            networks[str(network.get("interface", ""))] = network
    except (ValueError, TypeError, AttributeError):
        networks = {}
    return Pod(
        namespace=str(metadata.get("namespace", "")),
        name=str(metadata.get("name", "")),
        node=str(spec.get("nodeName") or ""),
        address=str(status.get("podIP") or ""),
        host_network=bool(spec.get("hostNetwork")),
        phase="Terminating" if metadata.get("deletionTimestamp") else str(status.get("phase", "")),
        workload=(metadata.get("labels") or {}).get("cni-lab/workload"),
        networks=networks,
        started=str(status.get("startTime") or ""),
        labels={str(key): str(value) for key, value in (metadata.get("labels") or {}).items()},
        ports={
            str(port["name"]): int(port["containerPort"])
            for container in spec.get("containers") or []
            for port in container.get("ports") or []
            if port.get("name") and port.get("containerPort")
        },
        controller=workloads.controller(item),
        problem=workloads.problem(item, found),
    )


# --- the cluster -----------------------------------------------------------------------------------------------------


def cluster(objects: Objects, *, host_local: bool = False) -> Scope:
    """The cluster's topics. Keys: of ANNOTATION and NODE the node (fields without the prefix projectcalico.org/), of
    AFFINITY and RESERVATION the CIDR, of POOL and PEER its name, of WORKLOAD "KIND NAMESPACE/NAME", of ALLOCATION the
    address, of STATUS and EVENT "POD INTERFACE", of SERVICE "NAMESPACE/NAME" (field ready: yes where it has a ready
    endpoint).

    `host_local`: calico.ipam is HostLocal. Then a node's one block is its podCIDR, and there is no BlockAffinity."""
    scope = Scope()

    def add(topic: Topic, kind: str, entries: Callable[[Item], Iterable[tuple[str, Entry]]]) -> None:
        if kind in objects.missing:
            scope.unread[topic] = objects.missing[kind]
            return
        table: Table = {}
        for item in objects.of(kind):
            for key, entry in entries(item):
                table[key] = (*table.get(key, ()), entry)
        scope.topics[topic] = table

    add(Topic.ANNOTATION, "nodes", _annotations)
    add(Topic.NODE, "nodes", _node_status)
    if host_local:
        add(Topic.AFFINITY, "nodes", _pod_cidr)
    else:
        add(Topic.AFFINITY, "blockaffinities", _affinity)
    add(Topic.POOL, "ippools", _pool)
    add(Topic.RESERVATION, "ipreservations", _reservation)
    add(Topic.PEER, "bgppeers", _peer)
    add(Topic.ALLOCATION, "ipamblocks", _allocations)
    add(Topic.STATUS, "pods", _status)
    unread = [objects.missing[kind] for kind in ("pods", "deployments", "daemonsets") if kind in objects.missing]
    if unread:
        scope.unread[Topic.WORKLOAD] = unread[0]
    else:
        scope.topics[Topic.WORKLOAD] = workloads.workloads(objects)
    add(Topic.EVENT, "events", _event)
    for kind in ("services", "endpointslices"):
        if kind in objects.missing:
            scope.unread[Topic.SERVICE] = objects.missing[kind]
    if Topic.SERVICE not in scope.unread:
        scope.topics[Topic.SERVICE] = _services(objects)
    return scope


CLUSTER_TOPICS = (
    Topic.ANNOTATION,
    Topic.NODE,
    Topic.WORKLOAD,
    Topic.AFFINITY,
    Topic.POOL,
    Topic.RESERVATION,
    Topic.PEER,
    Topic.ALLOCATION,
    Topic.STATUS,
    Topic.EVENT,
    Topic.SERVICE,
)
"""What cannot be read where the API does not answer."""


def _entry(fields: Mapping[str, str]) -> Entry:
    return Entry(dict(fields), " ".join(f"{key}={value}" for key, value in fields.items()))


def _name(item: Item) -> str:
    return str(item.get("metadata", {}).get("name", ""))


def _annotations(item: Item) -> Iterable[tuple[str, Entry]]:
    prefix = "projectcalico.org/"
    found = item.get("metadata", {}).get("annotations") or {}
    yield _name(item), _entry({k.removeprefix(prefix): str(v) for k, v in found.items() if k.startswith(prefix)})


def _node_status(item: Item) -> Iterable[tuple[str, Entry]]:
    conditions = {str(it.get("type")): it for it in item.get("status", {}).get("conditions") or ()}
    ready = str(conditions.get("Ready", {}).get("status", "Unknown"))
    pressure = [kind for kind in _PRESSURE if conditions.get(kind, {}).get("status") == "True"]
    fields = {"Ready": ready, "pressure": " ".join(pressure) or "none"}
    bad = [kind for kind in ("Ready", *pressure) if kind in conditions and (kind != "Ready" or ready != "True")]
    said = (f"{kind} is {conditions[kind].get('status')}: {_said(conditions[kind])}" for kind in bad)
    yield _name(item), replace(_entry(fields), reason="; ".join(said))


_PRESSURE = ("DiskPressure", "MemoryPressure", "PIDPressure")
"""A node's conditions under which kubelet evicts pods and takes no new ones."""


def _said(condition: Item) -> str:
    """A condition's reason and message, on one line."""
    return " ".join(f"{condition.get('reason', '')}: {condition.get('message', '')}".split())


def _affinity(item: Item) -> Iterable[tuple[str, Entry]]:
    spec = item.get("spec", {})
    if str(spec.get("deleted", "false")) != "true":
        fields = {"node": str(spec.get("node", "")), "state": str(spec.get("state", ""))}
        yield str(spec.get("cidr", "")), _entry(fields)


def _pod_cidr(item: Item) -> Iterable[tuple[str, Entry]]:
    if cidr := item.get("spec", {}).get("podCIDR"):
        yield str(cidr), _entry({"node": _name(item), "state": "confirmed"})


def _pool(item: Item) -> Iterable[tuple[str, Entry]]:
    spec = item.get("spec", {})
    keys = ("cidr", "blockSize", "ipipMode", "vxlanMode", "natOutgoing", "disabled")
    yield _name(item), _entry({key: str(spec[key]) for key in keys if key in spec})


def _peer(item: Item) -> Iterable[tuple[str, Entry]]:
    spec = item.get("spec", {})
    keys = ("peerIP", "asNumber", "nodeSelector")
    yield _name(item), _entry({key: str(spec[key]) for key in keys if key in spec})


def _reservation(item: Item) -> Iterable[tuple[str, Entry]]:
    for cidr in item.get("spec", {}).get("reservedCIDRs") or []:
        yield str(cidr), _entry({"by": _name(item)})


def _allocations(item: Item) -> Iterable[tuple[str, Entry]]:
    spec = item.get("spec", {})
    try:
        block = IPv4Network(spec.get("cidr"))
    except ValueError:
        return  # an IPv6 block
    attributes = spec.get("attributes") or []
    for ordinal, index in enumerate(spec.get("allocations") or []):
        if index is None:
            continue
        about = (attributes[index].get("secondary") or {}) if index < len(attributes) else {}
        holder = f"{about['namespace']}/{about['pod']}" if "pod" in about else str(about.get("type", "unknown"))
        yield str(block[ordinal]), _entry({"holder": holder, "node": str(about.get("node", ""))})


def _status(item: Item) -> Iterable[tuple[str, Entry]]:
    pod = _pod(item, {})
    for interface, network in pod.networks.items():
        fields = {
            "name": str(network.get("name", "")),
            "ips": " ".join(map(str, network.get("ips") or [])),
            "default": "true" if network.get("default") else "false",
        }
        yield f"{pod.id} {interface}", _entry(fields)


def _event(item: Item) -> Iterable[tuple[str, Entry]]:
    about, message = item.get("involvedObject") or {}, str(item.get("message", ""))
    match = re.match(r"Add (\S+) \[([^\]]*)\] from (\S+)", message)
    if match:
        key = f"{about.get('namespace')}/{about.get('name')} {match[1]}"
        yield key, Entry({"ips": match[2], "from": match[3]}, message)


def _services(objects: Objects) -> Table:
    table: Table = {}
    for port in services(objects):
        endpoints = [endpoint.text for endpoint in port.endpoints]
        entry = Entry({"ready": "yes" if endpoints else "no"}, f"endpoints: {', '.join(endpoints) or 'none'}")
        if port.id not in table or not endpoints:
            # A Service is as ready as its least ready port.
            table[port.id] = (entry,)
    return table


def services(objects: Objects) -> list[ServicePort]:
    """Every port of every Service that has a ClusterIP."""
    return service_ports(objects.of("services"), objects.of("endpointslices"))


# --- a node ----------------------------------------------------------------------------------------------------------


_NO_PROGRAM = 127
"""The status of a probe whose program is not installed on the node."""


@dataclass(frozen=True)
class Section:
    """What one command of a script printed, and its status."""

    output: str
    status: int


def sections(text: str) -> dict[str, Section]:
    """The sections of observe.sh's or capture.sh's output; one that was cut off has status -1."""
    found: dict[str, Section] = {}
    for part in text.split("\x1e")[1:]:
        name, _, rest = part.partition("\n")
        output, ended, status = rest.rpartition("\x1f")
        number = status.strip()
        whole = bool(ended) and number.lstrip("-").isdigit()
        found[name] = Section((output if ended else rest).strip("\n"), int(number) if whole else -1)
    return found


def node_facts(text: str) -> NodeFacts:
    """A node from observe.sh's output. What is not understood is named in `unread`; nothing is raised."""
    found, facts = sections(text), NodeFacts()
    for topic, parse in _PARSERS.items():
        _add(facts, topic, found.get(topic), parse)
    for topic, parse in _PARSERS_WHERE_ASKED.items():
        if topic in found:
            _add(facts, topic, found[topic], parse)
    _add_probes(facts, found)
    _add_queues(facts)
    _add_pods(facts, found)
    _add_rules(facts, found)
    if "host_local" in found and found["host_local"].status == 0:
        for path in found["host_local"].output.splitlines():
            network, _, name = path.removeprefix("/var/lib/cni/networks/").partition("/")
            # host-local also keeps files that are named otherwise: last_reserved_ip.0, lock.
            with suppress(ValueError):
                facts.host_local.setdefault(network, []).append(str(IPv4Address(name)))
    return facts


def _add_probes(facts: NodeFacts, found: Mapping[str, Section]) -> None:
    """What the packets of a reading met; or why the node could send none."""
    probes = {name.removeprefix("probe "): section for name, section in found.items() if name.startswith("probe ")}
    unsent = next((section.output for section in probes.values() if section.status == _NO_PROGRAM), None)
    if unsent is not None:
        facts.unread[Topic.PROBE] = unsent.strip()
        return
    table: Table = {}
    for key, section in probes.items():
        tcp = key.split(" ")[1:] if key.count(" ") == 2 else None
        table[key] = (connection(section.output, *tcp) if tcp else ping(section.output),)
    facts.topics[Topic.PROBE] = table


def _add_queues(facts: NodeFacts) -> None:
    """The topic QUEUE, by interface: whether something delays packets or loses them there. Field: netem (yes, no)."""
    if Topic.LINK not in facts.topics:
        facts.unread[Topic.QUEUE] = facts.unread[Topic.LINK]
        return
    facts.topics[Topic.QUEUE] = {
        name: tuple(_queue(name, link.fields["qdisc"]) for link in links)
        for name, links in facts.topics[Topic.LINK].items()
    }


def _queue(interface: str, kind: str) -> Entry:
    return Entry({"netem": "yes" if kind == "netem" else "no"}, f"qdisc {kind or 'unknown'} dev {interface}")


def _add_rules(facts: NodeFacts, found: Mapping[str, Section]) -> None:
    """The NAT rules; or why the topics that follow from them cannot be read."""
    read = {name: section for name, section in found.items() if name.startswith("nat ")}
    problem = next((section.output or "cut off" for section in read.values() if section.status != 0), "")
    if not read:
        problem = "neither iptables nor nft is installed here"
    try:
        facts.rules = rules_of(printed({name: section.output for name, section in read.items()}), facts)
    except _GARBAGE as error:
        problem = problem or str(error)
    if problem:
        facts.unread[Topic.SERVICE] = facts.unread[Topic.NAT] = problem.strip().replace("\n", "; ")[:200]


def _add(scope: Scope, topic: Topic, section: Section | None, parse: Parser) -> None:
    """A section as a topic of the scope; or why it cannot be one."""
    if section is None:
        scope.unread[topic] = "it is missing from the node's answer, which was cut off"
    elif section.status != 0:
        scope.unread[topic] = section.output.strip().replace("\n", "; ")[:200] or f"status {section.status}"
    else:
        try:
            scope.topics[topic] = parse(section.output)
        except _GARBAGE as error:
            scope.unread[topic] = str(error)


def _add_pods(facts: NodeFacts, found: Mapping[str, Section]) -> None:
    """The pods' namespaces, each under its host-side interface, whose index its eth0 names as peer."""
    names = [name.split(" ")[1] for name in found if re.fullmatch(r"pod \S+ link", name)]
    by_index: dict[str, str] = {}
    for name in names:
        with suppress(*_GARBAGE):
            for eth0 in iproute.links(found[f"pod {name} link"].output).get("eth0", ()):
                by_index[eth0.fields["peer"]] = name
    for interface, entries in facts.topics.get(Topic.LINK, {}).items():
        name = by_index.get(entries[0].fields["index"], "")
        if interface.startswith("cali") and name:
            facts.pods[interface] = Scope()
            for topic in (Topic.LINK, Topic.ROUTE, Topic.NEIGHBOUR):
                _add(facts.pods[interface], topic, found.get(f"pod {name} {topic}"), iproute.PARSERS[topic])
            for topic, parse in _POD_PARSERS_WHERE_ASKED.items():
                if f"pod {name} {topic}" in found:
                    _add(facts.pods[interface], topic, found[f"pod {name} {topic}"], parse)


def _values(line: re.Pattern[str]) -> Parser:
    """Lines FILE:VALUE. `line`: its groups are the key and the value."""

    def parse(output: str) -> Table:
        matches = filter(None, map(line.fullmatch, map(str.strip, output.splitlines())))
        return {match[1]: (Entry({"value": match[2]}, match[2]),) for match in matches}

    return parse


def _rp_filter(output: str) -> Table:
    """By interface: the larger of its own value and that of `all`, which is the one that counts (ip-sysctl)."""
    values = {key: found.line for key, (found,) in _values(_RP_FILTER)(output).items()}
    common = values.pop("all", "0")
    return {
        name: (Entry({"value": max(common, value, key=int)}, f"all {common}, {name} {value}"),)
        for name, value in values.items()
    }


_RP_FILTER = re.compile(r"/proc/sys/net/ipv4/conf/([^/]+)/rp_filter:(\d+)")


def _one(key: str) -> Parser:
    return lambda output: {key: (Entry({"value": output.strip()}, output.strip()),)}


def _files(output: str) -> Table:
    """CNI files by path. Fields: the JSON of each top-level key; none where a file is empty or not a JSON object.
    Under "first": the name of the first file in /etc/cni/net.d that has any."""
    found: Table = {}
    for line in filter(None, output.split("\n")):
        path, _, escaped = line.partition(" ")
        text = re.sub(r"\\(.)", lambda match: "\n" if match[1] == "n" else match[1], escaped)
        try:
            content = json.loads(text)
        except ValueError:
            content = None
        if isinstance(content, dict):
            fields = {key: canonical_json(value) for key, value in content.items()}
            found[path] = (Entry(fields, json.dumps(content)),)
        else:
            found[path] = (Entry({}, "(empty)" if not text.strip() else f"(not JSON) {text[:80]!r}"),)
    order = sorted(p.rpartition("/")[2] for p in found if p.startswith("/etc/cni/net.d/"))
    usable = [name for name in order if found[f"/etc/cni/net.d/{name}"][0].fields]
    found["first"] = (Entry({"name": usable[0] if usable else ""}, " ".join(order)),)
    return found


def _crio(output: str) -> Table:
    match = re.search(r"Updated default CNI network name to ([^\s\"\\]*)", output)
    if match is None:
        raise ValueError(
            "CRI-O's journal has no line `Updated default CNI network name to …`: it may have been rotated"
        )
    return {"default network": (Entry({"name": match[1]}, output.strip()),)}


def _bgp(output: str) -> Table:
    """birdcl's `show protocols`, by peer: Mesh_10_0_1_30 → 10.0.1.30."""
    found: Table = {}
    for line in output.splitlines():
        words = line.split()
        match = re.fullmatch(r"(?:Mesh|Node|Global)_(\d+_\d+_\d+_\d+)(?:_port_\d+)?", words[0]) if words else None
        if match and len(words) > 1:
            state = words[5] if len(words) > 5 else ""
            found[match[1].replace("_", ".")] = (Entry({"state": state or words[3]}, line.strip()),)
    return found


# A section of observe.sh has the name of its topic.
_PARSERS: Mapping[Topic, Parser] = {
    **iproute.PARSERS,
    **filters.PARSERS,
    Topic.PROXY_ARP: _values(re.compile(r"/proc/sys/net/ipv4/conf/([^/]+)/proxy_arp:(\S+)")),
    Topic.RP_FILTER: _rp_filter,
    Topic.IP_FORWARD: _one("all"),
    Topic.FILE: _files,
    Topic.CRIO: _crio,
}
_POD_PARSERS_WHERE_ASKED: Mapping[Topic, Parser] = {
    Topic.IP_FORWARD: _one("all"),
    Topic.FILTER: filters.forward_drops,
}
_PARSERS_WHERE_ASKED: Mapping[Topic, Parser] = {Topic.BGP: _bgp, Topic.ENCRYPTED: iproute.routes}
