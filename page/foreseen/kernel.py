"""What a Linux kernel would hold after `ip -batch`: interfaces, routes, neighbours and forwarding entries.

It understands the commands that components/sandbox/links.py writes, and prints the result as iproute2 does. A test
compares it with a real kernel. Values that a real kernel draws at random, such as a bridge's MAC address, are derived
from names here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from ipaddress import IPv4Interface, IPv4Network
from typing import Any

from components.spec.addresses import network_of

_PROTOCOLS = {"12": "bird"}
_IGNORED = {("netns", "attach"), ("ntable", "change"), ("rule", "add")}
_MAIN_TABLE = "main"


class UnknownCommand(ValueError):
    """A command that this model does not understand; str() has the line."""


@dataclass
class Link:
    """An interface. `peer`: the other end of a veth."""

    name: str
    index: int
    kind: str = ""
    mtu: int = 1500
    mac: str = ""
    up: bool = False
    addresses: list[IPv4Interface] = field(default_factory=list)
    peer: Link | None = None
    master: str = ""
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Route:
    destination: IPv4Network
    text: str
    metric: int
    number: int
    """Of two routes with the same destination and metric, the lower number comes first."""

    def order(self) -> tuple[int, int, int, int]:
        return int(self.destination.network_address), self.destination.prefixlen, self.metric, self.number


@dataclass
class Namespace:
    """A network namespace. `fdb` and `neighbours`: lines as iproute2 prints them."""

    name: str
    links: dict[str, Link] = field(default_factory=dict)
    neighbours: list[str] = field(default_factory=list)
    fdb: list[str] = field(default_factory=list)
    _routes: dict[str, list[_Route]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        loopback = self.new_link("lo")
        loopback.mtu, loopback.mac, loopback.addresses = 65536, "00:00:00:00:00:00", [IPv4Interface("127.0.0.1/8")]

    def new_link(self, name: str) -> Link:
        """A link of this namespace with the next free index."""
        link = Link(name, max((link.index for link in self.links.values()), default=0) + 1)
        digits = sha256(f"{self.name}/{name}".encode()).hexdigest()
        link.mac = ":".join(["02", *(digits[i : i + 2] for i in range(0, 10, 2))])
        self.links[name] = link
        return link

    def add_route(self, text: str, *, table: str = _MAIN_TABLE, first: bool = False) -> None:
        """A route by the line that `ip route` prints."""
        words = text.split()
        destination = words[1] if words[0] == "blackhole" else words[0]
        metric = int(_after(words, "metric") or 0)
        routes = self._routes.setdefault(table, [])
        network = network_of("0.0.0.0/0" if destination == "default" else destination)
        routes.append(_Route(network, text, metric, -len(routes) if first else len(routes)))

    def routes(self, table: str = _MAIN_TABLE) -> list[str]:
        """The lines of `ip route`, in the kernel's order."""
        found = self._routes.get(table, [])
        return [route.text for route in sorted(found, key=_Route.order)]

    def links_json(self) -> str:
        """What `ip -j -d addr` prints, without what nobody here reads."""
        return json.dumps([_link_json(link) for link in self.links.values()])


class Kernel:
    """Network namespaces by name."""

    def __init__(self) -> None:
        self.namespaces: dict[str, Namespace] = {}

    def namespace(self, name: str) -> Namespace:
        """The namespace of a name, which is made where it does not exist."""
        if name not in self.namespaces:
            self.namespaces[name] = Namespace(name)
        return self.namespaces[name]

    def run(self, namespace: str, lines: Iterable[str]) -> None:
        """Run a batch of `ip` or `bridge` inside a namespace. Raises UnknownCommand."""
        here = self.namespace(namespace)
        for line in lines:
            words = line.split()
            match words[:2]:
                case ["netns", "add"]:
                    self.namespace(words[2])
                case ["link", "add"]:
                    self._add_link(here, words[2:], line)
                case ["link", "set"]:
                    self._set_link(here, words[2:])
                case ["address", "add"]:
                    _add_address(here, words)
                case ["route", "add" | "prepend"]:
                    _add_route(here, words)
                case ["neigh", "add"]:
                    address, mac, device = words[2], _after(words, "lladdr"), _after(words, "dev")
                    here.neighbours.append(f"{address} dev {device} lladdr {mac} {_after(words, 'nud').upper()}")
                case ["fdb", "add"]:
                    rest = " ".join(words[5:])
                    here.fdb.append(f"{words[2]} dev {_after(words, 'dev')} {rest}")
                case [first, second] if (first, second) in _IGNORED:
                    pass
                case _:
                    raise UnknownCommand(f"this model of a kernel does not know: {line}")

    def _add_link(self, here: Namespace, words: Sequence[str], line: str) -> None:
        options, _, kind_options = _split(words, "type")
        if not kind_options:
            raise UnknownCommand(f"a link without a type: {line}")
        kind, details = kind_options[0], kind_options[1:]
        named = _after(options, "name") or options[0]
        link = self.namespace(_after(options, "netns") or here.name).new_link(named)
        link.kind, link.mtu = kind, int(_after(options, "mtu") or _after(details, "mtu") or 1500)
        link.mac = _after(options, "address") or link.mac
        if kind == "veth":
            _, _, end = _split(details, "peer")
            other = self.namespace(_after(end, "netns") or here.name).new_link(_after(end, "name"))
            other.kind, other.mtu = "veth", int(_after(end, "mtu") or 1500)
            other.mac = _after(end, "address") or other.mac
            link.peer, other.peer = other, link
        elif kind == "vxlan":
            names = {"id": "id", "local": "local", "dev": "link", "dstport": "port"}
            link.data = {key: _after(details, word) for word, key in names.items()}
            link.data["learning"] = "nolearning" not in details
        elif kind == "ipvlan":
            link.mac = here.links[_after(options, "link")].mac
        elif kind == "wireguard":
            link.mac = ""

    def _set_link(self, here: Namespace, words: Sequence[str]) -> None:
        words = words[1:] if words[0] == "dev" else words
        link = here.links[words[0]]
        link.up = link.up or "up" in words
        link.master = _after(words, "master") or link.master
        link.mtu = int(_after(words, "mtu") or link.mtu)
        if target := _after(words, "netns"):
            there = self.namespace(target)
            moved = there.new_link(_after(words, "name") or link.name)
            moved.kind, moved.mtu, moved.mac, moved.peer = link.kind, link.mtu, link.mac, link.peer
            if moved.peer is not None:
                moved.peer.peer = moved
            del here.links[link.name]


def _add_address(here: Namespace, words: Sequence[str]) -> None:
    address, device = IPv4Interface(words[2]), _after(words, "dev")
    here.links[device].addresses.append(address)
    if address.network.prefixlen < 32:
        here.add_route(f"{address.network} dev {device} proto kernel scope link src {address.ip}")


def _add_route(here: Namespace, words: Sequence[str]) -> None:
    """The words in the order in which `ip route` prints them."""
    rest = list(words[2:])
    kind = [rest.pop(0)] if rest[0] == "blackhole" else []
    destination = rest.pop(0).removesuffix("/32")
    found = [*kind, destination]
    for name in ("via", "dev", "proto", "scope", "metric"):
        if value := _after(rest, name):
            found += [name, _PROTOCOLS.get(value, value) if name == "proto" else value]
    found += ["onlink"] if "onlink" in rest else []
    found += ["mtu", _after(rest, "mtu")] if "mtu" in rest else []
    table = _after(rest, "table")
    here.add_route(" ".join(found), table=table or _MAIN_TABLE, first=words[1] == "prepend")


def _after(words: Sequence[str], name: str) -> str:
    """The word behind a name; empty where the name is not there."""
    if name in words[:-1]:
        return words[words.index(name) + 1]
    return ""


def _split(words: Sequence[str], name: str) -> tuple[Sequence[str], bool, Sequence[str]]:
    """What is before a word and what is after it."""
    if name not in words:
        return words, False, ()
    at = list(words).index(name)
    return words[:at], True, words[at + 1 :]


def _link_json(link: Link) -> dict[str, Any]:
    found: dict[str, Any] = {
        "ifindex": link.index,
        "ifname": link.name,
        "flags": ["UP"] if link.up else [],
        "mtu": link.mtu,
        "address": link.mac,
        # What the kernel gives to a device that has no queue of its own.
        "qdisc": "noqueue",
        "addr_info": [_address_json(address) for address in link.addresses],
    }
    if link.kind:
        found["linkinfo"] = {"info_kind": link.kind, "info_data": link.data}
    if link.peer is not None:
        found["link_index"] = link.peer.index
    if link.master:
        found["master"] = link.master
    return found


def _address_json(address: IPv4Interface) -> dict[str, Any]:
    return {"family": "inet", "local": str(address.ip), "prefixlen": address.network.prefixlen}
