"""What iproute2 prints, as values: `ip addr` in JSON or text, `ip route`, `ip neigh` and `bridge fdb` in text.

Text, for it is what a person sees at the prompt, and JSON of a blackhole route is broken up to 4.20. A link's text is
long and has changed with every version, so its JSON is taken where there is one (4.14). Fields we do not use are
passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any


class Unreadable(ValueError):
    """The output is not iproute2's; str() shows how it begins."""


@dataclass(frozen=True)
class Seen:
    """One entry as observed: its fields as text, and the line a person sees."""

    fields: Mapping[str, str]
    line: str = field(compare=False)


Table = dict[str, tuple[Seen, ...]]
"""Entries by key; more than one where the kernel has several of a key (two routes to one destination)."""


def links(output: str) -> Table:
    """`ip -d addr`, by interface. Fields: index, kind, mtu, address (MAC), up (yes, no), addresses (CIDRs, spaces
    between); where there are any: peer (index of the other end), master, and of a VXLAN: id, local, dev, port,
    learning (on, off)."""
    if output.lstrip().startswith(("[", "{")):
        return _table(map(_link_of_json, _objects(output)))
    return _table(_links_of_text(_lines(output)))


def routes(output: str) -> Table:
    """`ip route`, by destination. Fields: type where it is no unicast; via, dev, proto, scope, src, metric, mtu,
    onlink (yes)."""
    return _table(map(_route, _lines(output)))


def neighbours(output: str) -> Table:
    """`ip neigh`, by "DEV ADDRESS". Fields: lladdr, state."""
    return _table(map(_neighbour, _lines(output)))


def fdb(output: str) -> Table:
    """`bridge fdb`, by "DEV MAC". Fields: dst, state (permanent), master."""
    return _table(map(_fdb, _lines(output)))


def _lines(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.strip()]


def _objects(output: str) -> list[Mapping[str, Any]]:
    try:
        found = json.loads(output)
    except ValueError:
        raise Unreadable(f"broken JSON: {output.strip()[:60]!r}") from None
    if not isinstance(found, list):
        raise Unreadable(f"no list: {output.strip()[:60]!r}")
    # `ip -j addr` of an empty selection prints [{},{}].
    return [entry for entry in found if isinstance(entry, dict) and entry]


def _table(entries: Iterable[tuple[str, Seen]]) -> Table:
    found: Table = {}
    try:
        for key, seen in entries:
            found[key] = (*found.get(key, ()), seen)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise Unreadable(f"entry {len(found) + 1} has another form ({type(error).__name__}: {error})") from None
    return found


def _text(value: Any) -> str:
    return str(value)


# --- links -----------------------------------------------------------------------------------------------------------


def _link_of_json(entry: Mapping[str, Any]) -> tuple[str, Seen]:
    info = entry.get("linkinfo") or {}
    data = info.get("info_data") or {}
    fields = {
        "index": _text(entry.get("ifindex", "")),
        "kind": _text(info.get("info_kind", "")),
        "mtu": _text(entry.get("mtu", "")),
        "address": _text(entry.get("address", "")),
        "up": "yes" if "UP" in entry.get("flags", ()) else "no",
        "addresses": " ".join(
            f"{a['local']}/{a['prefixlen']}"
            for a in entry.get("addr_info", ())
            if a.get("family") == "inet" and "local" in a
        ),
    }
    if "link_index" in entry:
        fields["peer"] = _text(entry["link_index"])
    if "master" in entry:
        fields["master"] = _text(entry["master"])
    if info.get("info_kind") == "vxlan":
        vxlan = {key: data.get(key) for key in ("id", "local", "port")} | {"dev": data.get("link")}
        fields |= {key: _text(value) for key, value in vxlan.items() if value is not None}
        fields["learning"] = "on" if data.get("learning", True) else "off"
    return _text(entry.get("ifname", "")), Seen(fields, _link_line(_text(entry.get("ifname", "")), fields))


def _link_line(name: str, fields: Mapping[str, str]) -> str:
    words = [f"{name}: mtu {fields['mtu']}", f"link {fields['address']}"]
    if fields["kind"] == "vxlan":
        words.append(
            f"vxlan id {fields.get('id')} local {fields.get('local')} dev {fields.get('dev')} "
            f"dstport {fields.get('port')} {'nolearning' if fields['learning'] == 'off' else 'learning'}"
        )
    elif fields["kind"]:
        words.append(fields["kind"])
    words += [f"inet {address}" for address in fields["addresses"].split()]
    return " ".join(words) + ("" if fields["up"] == "yes" else " DOWN")


_KINDS = ("vxlan", "veth", "bridge", "ipip", "wireguard", "macvlan", "ipvlan", "dummy")


def _links_of_text(lines: list[str]) -> Iterator[tuple[str, Seen]]:
    """`ip -o -d link` and `ip -o -4 addr`, one after the other."""
    found: dict[str, dict[str, str]] = {}
    for line in lines:
        match = re.match(r"(?P<index>\d+):\s+(?P<name>[^\s:@]+)(?:@(?P<peer>[^\s:]+))?:?\s+(?P<rest>.*)", line)
        if match is None:
            raise Unreadable(f"no line of `ip link`: {line[:60]!r}")
        name, words = match["name"], match["rest"].replace("\\", " ").split()
        after = _after(words)
        if words[0] == "inet":
            fields = found.setdefault(name, {})
            fields["addresses"] = f"{fields.get('addresses', '')} {words[1]}".strip()
            continue
        if not words[0].startswith("<"):
            continue
        kind = next((k for k in _KINDS if k in words), "")
        mac = next((after[k] for k in ("link/ether", "link/loopback", "link/ipip") if k in after), "")
        up = "yes" if "UP" in words[0].strip("<>").split(",") else "no"
        fields = {"index": match["index"], "kind": kind, "mtu": after.get("mtu", ""), "address": mac, "up": up}
        peer = match["peer"] or ""
        if peer.startswith("if"):
            fields["peer"] = peer[2:]
        if "master" in after:
            fields["master"] = after["master"]
        if kind == "vxlan":
            vxlan = _after(words[words.index("vxlan") :])
            fields |= {key: vxlan[key] for key in ("id", "local", "dev") if key in vxlan}
            fields["port"] = vxlan.get("dstport", "")
            fields["learning"] = "off" if "nolearning" in words else "on"
        found[name] = {"addresses": ""} | fields | ({"addresses": found[name]["addresses"]} if name in found else {})
    for name, fields in found.items():
        if "mtu" not in fields:
            raise Unreadable(f"{name} has an address and is no link")
        yield name, Seen(fields, _link_line(name, fields))


def _after(words: list[str]) -> dict[str, str]:
    """Each word with the one that follows it; the first of a word's several wins."""
    found: dict[str, str] = {}
    for word, following in pairwise(words):
        found.setdefault(word, following)
    return found


# --- routes ----------------------------------------------------------------------------------------------------------

_TYPES = {"blackhole", "unreachable", "prohibit", "throw", "local", "broadcast", "multicast", "unicast"}
# As /etc/iproute2/rt_protos names them; a host that lacks the file prints the number.
_PROTOCOLS = {"12": "bird", "2": "kernel", "3": "boot", "4": "static"}


def _named(fields: dict[str, str]) -> dict[str, str]:
    return fields | {"proto": _PROTOCOLS.get(fields["proto"], fields["proto"])} if "proto" in fields else fields


def _route(line: str) -> tuple[str, Seen]:
    words = line.split()
    fields: dict[str, str] = {}
    if words[0] in _TYPES:
        kind = words.pop(0)
        if kind != "unicast":
            fields["type"] = kind
    if not words or not re.fullmatch(r"default|[0-9a-fA-F:.]+(/\d+)?", words[0]):
        raise Unreadable(f"no line of `ip route`: {line[:60]!r}")
    after = _after(words)
    fields |= {name: after[name] for name in ("via", "dev", "proto", "scope", "src", "metric", "mtu") if name in after}
    if "onlink" in words:
        fields["onlink"] = "yes"
    return words[0], Seen(_named(fields), line.strip())


# --- neighbours and FDB ----------------------------------------------------------------------------------------------


def _neighbour(line: str) -> tuple[str, Seen]:
    words = line.split()
    after = _after(words)
    if "dev" not in after:
        raise Unreadable(f"no line of `ip neigh`: {line[:60]!r}")
    fields = {"lladdr": after["lladdr"]} if "lladdr" in after else {}
    return f"{after['dev']} {words[0]}", Seen(fields | {"state": words[-1]}, line.strip())


def _fdb(line: str) -> tuple[str, Seen]:
    words = line.split()
    after = _after(words)
    if "dev" not in after:
        raise Unreadable(f"no line of `bridge fdb`: {line[:60]!r}")
    fields: dict[str, str] = {name: after[name] for name in ("dst", "master") if name in after}
    for state in ("permanent", "static", "stale"):
        if state in words:
            fields["state"] = state
    return f"{after['dev']} {words[0]}", Seen(fields, line.strip())
