"""A live lab as read: for the cluster, each node and each pod, topics with entries by key.

An entry is an `iproute.Seen`: fields as text, and the line a person would have seen. What could not be read is no
empty topic but a missing one, with its reason in `unread`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha1
from ipaddress import IPv4Address, IPv4Network
from typing import Any

from components.verify import iproute
from components.verify.api import Item, Objects
from components.verify.iproute import Seen, Table


@dataclass
class Scope:
    """What was read of one thing: topics, and for each topic that could not be read why."""

    topics: dict[str, Table] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)

    def get(self, topic: str, key: str) -> tuple[Seen, ...]:
        return self.topics.get(topic, {}).get(key, ())


@dataclass
class NodeFacts(Scope):
    """A node. `pods`: by host-side interface. `addresses`: host-local's, network → addresses."""

    pods: dict[str, Scope] = field(default_factory=dict)
    host_local: dict[str, list[str]] = field(default_factory=dict)

    def nic(self, address: str) -> str | None:
        """The interface that holds an address."""
        for name, entries in self.topics.get("link", {}).items():
            if any(address == cidr.partition("/")[0] for seen in entries for cidr in seen.fields["addresses"].split()):
                return name
        return None


@dataclass(frozen=True)
class Pod:
    """A pod as the API knows it. `interface`: the host side of its eth0, as Calico names it."""

    namespace: str
    name: str
    node: str
    address: str
    host_network: bool
    phase: str
    workload: str | None
    networks: Mapping[str, Mapping[str, Any]]
    started: str

    @property
    def interface(self) -> str:
        return host_interface(self.namespace, self.name)

    @property
    def id(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def running(self) -> bool:
        return self.phase == "Running" and bool(self.address) and not self.host_network


def host_interface(namespace: str, pod: str) -> str:
    """The host side of a pod's eth0: "cali" and 11 hex digits of SHA-1 (libcalico-go, names/workloadendpoint.go)."""
    return "cali" + sha1(f"{namespace}.{pod}".encode()).hexdigest()[:11]


@cache
def tunnel_mac(node: str) -> str:
    """The MAC address Felix gives a node's vxlan.calico: "f" and SHA-1 of its name (felix, vxlan_mgr.go)."""
    return ":".join(f"{byte:02x}" for byte in b"f" + sha1(node.encode()).digest()[:5])


def pods(objects: Objects) -> list[Pod]:
    """Every pod of the cluster, by namespace and name."""
    return sorted((_pod(item) for item in objects.of("pods")), key=lambda pod: (pod.namespace, pod.name))


def _pod(item: Item) -> Pod:
    metadata, spec, status = item.get("metadata", {}), item.get("spec", {}), item.get("status", {})
    annotations = metadata.get("annotations") or {}
    networks: dict[str, Mapping[str, Any]] = {}
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
    )


# --- the cluster -----------------------------------------------------------------------------------------------------


def cluster(objects: Objects, *, host_local: bool = False) -> Scope:
    """Topics: annotation (node → fields without the prefix projectcalico.org/), affinity (CIDR), pool, reservation
    (all CIDRs under one key), allocation (address → who holds it), status (pod and interface), event.

    `host_local`: calico.ipam is HostLocal, so a node's one block is its podCIDR and no BlockAffinity tells of it."""
    scope = Scope()

    def add(topic: str, kind: str, entries: Callable[[Item], Iterable[tuple[str, Seen]]]) -> None:
        if kind in objects.missing:
            scope.unread[topic] = objects.missing[kind]
            return
        table: Table = {}
        for item in objects.of(kind):
            for key, seen in entries(item):
                table[key] = (*table.get(key, ()), seen)
        scope.topics[topic] = table

    add("annotation", "nodes", _annotations)
    add("node", "nodes", _node_status)
    if host_local:
        add("affinity", "nodes", _pod_cidr)
    else:
        add("affinity", "blockaffinities", _affinity)
    add("pool", "ippools", _pool)
    add("reservation", "ipreservations", _reservation)
    add("allocation", "ipamblocks", _allocations)
    add("status", "pods", _status)
    add("event", "events", _event)
    return scope


def _seen(fields: Mapping[str, str]) -> Seen:
    return Seen(dict(fields), " ".join(f"{key}={value}" for key, value in fields.items()))


def _name(item: Item) -> str:
    return str(item.get("metadata", {}).get("name", ""))


def _annotations(item: Item) -> Iterable[tuple[str, Seen]]:
    prefix = "projectcalico.org/"
    found = item.get("metadata", {}).get("annotations") or {}
    yield _name(item), _seen({k.removeprefix(prefix): str(v) for k, v in found.items() if k.startswith(prefix)})


def _node_status(item: Item) -> Iterable[tuple[str, Seen]]:
    conditions = item.get("status", {}).get("conditions") or []
    ready = next((str(c.get("status")) for c in conditions if c.get("type") == "Ready"), "Unknown")
    yield _name(item), _seen({"Ready": ready})


def _affinity(item: Item) -> Iterable[tuple[str, Seen]]:
    spec = item.get("spec", {})
    if str(spec.get("deleted", "false")) != "true":
        yield str(spec.get("cidr", "")), _seen({"node": str(spec.get("node", "")), "state": str(spec.get("state", ""))})


def _pod_cidr(item: Item) -> Iterable[tuple[str, Seen]]:
    if cidr := item.get("spec", {}).get("podCIDR"):
        yield str(cidr), _seen({"node": _name(item), "state": "confirmed"})


def _pool(item: Item) -> Iterable[tuple[str, Seen]]:
    spec = item.get("spec", {})
    keys = ("cidr", "blockSize", "ipipMode", "vxlanMode", "natOutgoing", "disabled")
    yield _name(item), _seen({key: str(spec[key]) for key in keys if key in spec})


def _reservation(item: Item) -> Iterable[tuple[str, Seen]]:
    for cidr in item.get("spec", {}).get("reservedCIDRs") or []:
        yield str(cidr), _seen({"by": _name(item)})


def _allocations(item: Item) -> Iterable[tuple[str, Seen]]:
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
        yield str(block[ordinal]), _seen({"holder": holder, "node": str(about.get("node", ""))})


def _status(item: Item) -> Iterable[tuple[str, Seen]]:
    pod = _pod(item)
    for interface, network in pod.networks.items():
        fields = {
            "name": str(network.get("name", "")),
            "ips": " ".join(map(str, network.get("ips") or [])),
            "default": "true" if network.get("default") else "false",
        }
        yield f"{pod.id} {interface}", _seen(fields)


def _event(item: Item) -> Iterable[tuple[str, Seen]]:
    about, message = item.get("involvedObject") or {}, str(item.get("message", ""))
    match = re.match(r"Add (\S+) \[([^\]]*)\] from (\S+)", message)
    if match:
        key = f"{about.get('namespace')}/{about.get('name')} {match[1]}"
        yield key, Seen({"ips": match[2], "from": match[3]}, message)


# --- a node ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Section:
    """What one command of observe.sh printed, and its status."""

    output: str
    status: int


def sections(text: str) -> dict[str, Section]:
    """The sections of observe.sh's output; one that was cut has status -1."""
    found: dict[str, Section] = {}
    for part in text.split("\x1e")[1:]:
        name, _, rest = part.partition("\n")
        output, cut, status = rest.rpartition("\x1f")
        number = status.strip()
        whole = bool(cut) and number.lstrip("-").isdigit()
        found[name] = Section((output if cut else rest).strip("\n"), int(number) if whole else -1)
    return found


def node_facts(text: str) -> NodeFacts:
    """A node from observe.sh's output. What is garbage is named in `unread`; nothing is raised."""
    found, facts = sections(text), NodeFacts()

    def add(scope: Scope, topic: str, section: str, parse: Callable[[str], Table]) -> None:
        part = found.get(section)
        if part is None:
            scope.unread[topic] = "the node's answer lacks it: it was cut"
        elif part.status != 0:
            scope.unread[topic] = part.output.strip().replace("\n", "; ")[:200] or f"status {part.status}"
        else:
            try:
                scope.topics[topic] = parse(part.output)
            except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
                scope.unread[topic] = str(error)

    for topic, section, parse in _TOPICS:
        add(facts, topic, section, parse)
    if "bgp" in found:
        add(facts, "bgp", "bgp", _bgp)
    if "encrypted" in found:
        add(facts, "encrypted", "encrypted", iproute.routes)
    facts.topics["probe"] = {}
    for name, part in found.items():
        if name.startswith("probe "):
            _, interface, address = name.split(" ")
            facts.topics["probe"][f"{interface} {address}"] = (_probe(part),)
    by_index = {s.fields["peer"]: name for name in _pod_names(found) for s in _eth0(found[f"pod {name} links"])}
    for interface, entries in facts.topics.get("link", {}).items():
        name = by_index.get(entries[0].fields["index"], "")
        if interface.startswith("cali") and name:
            pod = facts.pods[interface] = Scope()
            add(pod, "link", f"pod {name} links", iproute.links)
            add(pod, "route", f"pod {name} routes", iproute.routes)
            add(pod, "neighbour", f"pod {name} neighbours", iproute.neighbours)
    if "host_local" in found and found["host_local"].status == 0:
        for path in found["host_local"].output.splitlines():
            network, _, name = path.removeprefix("/var/lib/cni/networks/").partition("/")
            # host-local's other file is last_reserved_ip.0.
            with suppress(ValueError):
                facts.host_local.setdefault(network, []).append(str(IPv4Address(name)))
    return facts


def _pod_names(found: Mapping[str, Section]) -> list[str]:
    return [name.split(" ")[1] for name in found if re.fullmatch(r"pod \S+ links", name)]


def _eth0(section: Section) -> list[Seen]:
    try:
        return [seen for seen in iproute.links(section.output).get("eth0", ()) if "peer" in seen.fields]
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return []


def _values(name: re.Pattern[str]) -> Callable[[str], Table]:
    """Lines FILE:VALUE, as grep -H prints them; a person sees the value, as cat prints it."""

    def parse(output: str) -> Table:
        found: Table = {}
        for line in output.splitlines():
            match = name.fullmatch(line.strip())
            if match:
                found[match[1]] = (Seen({"value": match[2]}, match[2]),)
        return found

    return parse


def _one(key: str) -> Callable[[str], Table]:
    return lambda output: {key: (Seen({"value": output.strip()}, output.strip()),)}


def _files(output: str) -> Table:
    """Fields of a file: the JSON of each top-level key; none where it is empty or no JSON object."""
    found: Table = {}
    for line in output.splitlines():
        path, _, encoded = line.partition(" ")
        text = base64.b64decode(encoded).decode("utf-8", "replace")
        try:
            content = json.loads(text)
        except ValueError:
            content = None
        if isinstance(content, dict):
            fields = {key: json.dumps(value, sort_keys=True) for key, value in content.items()}
            found[path] = (Seen(fields, json.dumps(content)),)
        else:
            found[path] = (Seen({}, "(empty)" if not text.strip() else f"(no JSON) {text[:80]!r}"),)
    order = sorted(p.rpartition("/")[2] for p in found if p.startswith("/etc/cni/net.d/"))
    usable = [name for name in order if found[f"/etc/cni/net.d/{name}"][0].fields]
    found["first"] = (Seen({"name": usable[0] if usable else ""}, " ".join(order)),)
    return found


def _crio(output: str) -> Table:
    match = re.search(r"Updated default CNI network name to ([^\s\"\\]*)", output)
    if match is None:
        raise ValueError(
            "CRI-O's journal has no line `Updated default CNI network name to …`: it may have been rotated"
        )
    return {"default network": (Seen({"name": match[1]}, output.strip()),)}


_RULE = re.compile(r"-A (?P<chain>\S+) (?P<match>.*)-j (?:DROP|REJECT)\b")
_NFT_RULE = re.compile(r"(?P<match>.*)\b(?:drop|reject)\b")
_NFT_MATCH = re.compile(r"\b(?P<what>udp dport|ip protocol|meta l4proto) (?P<values>\{[^}]*\}|\S+)")
# Whose rules are no fault of the lab's: Calico's and kube-proxy's, by iptables and by nft.
_CHAINS, _TABLES = ("cali-", "KUBE-"), ("calico", "kube-proxy")


def _filter(output: str) -> Table:
    """Packets between nodes that some rule outside Calico's and kube-proxy's drops, whoever sends them: "4" (IPIP),
    "udp 4789", "udp 51820". From iptables-save and `nft -nn list ruleset`, whose tables the first passes over."""
    found: Table = {}
    table = chain = ""
    for line in map(str.strip, output.splitlines()):
        match line.split():
            case ["table", _, name, *_]:
                table = name
            case ["chain", name, *_]:
                chain = name
        for key in [] if table in _TABLES or chain.startswith(_CHAINS) else _dropped(line):
            # What iptables-nft wrote stands in nft's tables once more.
            if line.startswith("-A ") or not any(seen.line.startswith("-A ") for seen in found.get(key, ())):
                found[key] = (*found.get(key, ()), Seen({}, line))
    return found


def _dropped(line: str) -> list[str]:
    """The tunnels that a rule of iptables or nft drops."""
    if line.startswith("-A "):
        rule = _RULE.match(line)
        words = rule["match"].split() if rule and not rule["chain"].startswith(_CHAINS) else []
        return _tunnels(_option(words, "-p", "--protocol"), _option(words, "--dport", "--dports"))
    # A comment or a log prefix may say drop too.
    rule = _NFT_RULE.match(re.sub(r'"[^"]*"', "", line))
    found: list[str] = []
    for matched in _NFT_MATCH.finditer(rule["match"] if rule else ""):
        if matched["what"] == "udp dport":
            found += _tunnels("udp", matched["values"])
        else:
            found += [key for protocol in re.findall(r"\w+", matched["values"]) for key in _tunnels(protocol, "")]
    return found


def _option(words: list[str], *names: str) -> str:
    """What follows an option of a rule; nothing where it is not there, or is negated."""
    return next((words[n + 1] for n, word in enumerate(words[:-1]) if word in names and words[n - 1 : n] != ["!"]), "")


def _tunnels(protocol: str, ports: str) -> list[str]:
    """The tunnels that a rule is about. `ports`: 4789, or several: 4789,8472 or 4700:4800 or { 4789, 4800-4900 }."""
    if protocol in ("4", "ipencap", "ipv4"):  # /etc/protocols' ipip is 94, another one
        return ["4"]
    ranges = re.findall(r"(\d+)(?:[-:](\d+))?", ports) if protocol in ("udp", "17") else []
    return [f"udp {n}" for n in (4789, 51820) if any(int(first) <= n <= int(last or first) for first, last in ranges)]


def _bgp(output: str) -> Table:
    """birdcl's `show protocols`, by peer: Mesh_10_0_1_30 → 10.0.1.30."""
    found: Table = {}
    for line in output.splitlines():
        words = line.split()
        match = re.fullmatch(r"(?:Mesh|Node|Global)_(\d+_\d+_\d+_\d+)(?:_port_\d+)?", words[0]) if words else None
        if match and len(words) > 1:
            state = words[5] if len(words) > 5 else ""
            found[match[1].replace("_", ".")] = (Seen({"state": state or words[3]}, line.strip()),)
    return found


def _probe(section: Section) -> Seen:
    """ping's output: received (yes, no) and the answer's ttl."""
    answer = re.search(r"^.*\bttl=(\d+).*$", section.output, re.MULTILINE | re.IGNORECASE)
    if answer:
        return Seen({"received": "yes", "ttl": answer[1]}, answer[0].strip())
    lines = [line for line in section.output.splitlines() if line.strip()]
    said = next((line for line in lines if "packet loss" in line), lines[-1] if lines else "no answer")
    return Seen({"received": "no"}, said.strip())


_TOPICS: list[tuple[str, str, Callable[[str], Table]]] = [
    ("link", "links", iproute.links),
    ("route", "routes", iproute.routes),
    ("neighbour", "neighbours", iproute.neighbours),
    ("fdb", "fdb", iproute.fdb),
    ("proxy_arp", "proxy_arp", _values(re.compile(r"/proc/sys/net/ipv4/conf/([^/]+)/proxy_arp:(\S+)"))),
    ("ip_forward", "ip_forward", _one("all")),
    ("file", "files", _files),
    ("crio", "crio", _crio),
    ("filter", "filter", _filter),
]
