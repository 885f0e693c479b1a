"""What iproute2 prints, as tables: `ip addr` in JSON; `ip route`, `ip neigh` and `bridge fdb` in text.

Text where a line is what a person sees at the prompt, and because JSON of a blackhole route is broken up to iproute2
4.20. A link's text is long and differs from version to version, so its JSON is read. Fields that nothing here needs
are ignored.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

from components.verify.model import Entry, Table, Topic


class Unreadable(ValueError):
    """The output is not iproute2's; str() shows how it begins."""


def links(output: str) -> Table:
    """`ip -j -d addr`, by interface. Fields: index, kind, mtu, address (MAC), qdisc, up (yes, no), addresses (CIDRs,
    separated by spaces); where there is one: peer (index of the other end), master; of a VXLAN: id, local, dev, port,
    learning (on, off)."""
    return _table(map(_link, _objects(output)))


def routes(output: str) -> Table:
    """`ip route`, by destination. Fields: type where it is not unicast; via, dev, proto, scope, src, metric, mtu,
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
        raise Unreadable(f"not a list: {output.strip()[:60]!r}")
    # `ip -j addr` of an empty selection prints [{},{}].
    return [entry for entry in found if isinstance(entry, dict) and entry]


def _table(entries: Iterable[tuple[str, Entry]]) -> Table:
    found: Table = {}
    try:
        for key, entry in entries:
            found[key] = (*found.get(key, ()), entry)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise Unreadable(f"entry {len(found) + 1} has another form ({type(error).__name__}: {error})") from None
    return found


# --- links -----------------------------------------------------------------------------------------------------------


def _link(entry: Mapping[str, Any]) -> tuple[str, Entry]:
    info = entry.get("linkinfo") or {}
    data = info.get("info_data") or {}
    fields = {
        "index": str(entry.get("ifindex", "")),
        "kind": str(info.get("info_kind", "")),
        "mtu": str(entry.get("mtu", "")),
        "address": str(entry.get("address", "")),
        "qdisc": str(entry.get("qdisc", "")),
        "up": "yes" if "UP" in entry.get("flags", ()) else "no",
        "addresses": " ".join(
            f"{a['local']}/{a['prefixlen']}"
            for a in entry.get("addr_info", ())
            if a.get("family") == "inet" and "local" in a
        ),
    }
    if "link_index" in entry:
        fields["peer"] = str(entry["link_index"])
    if "master" in entry:
        fields["master"] = str(entry["master"])
    if info.get("info_kind") == "vxlan":
        vxlan = {key: data.get(key) for key in ("id", "local", "port")} | {"dev": data.get("link")}
        fields |= {key: str(value) for key, value in vxlan.items() if value is not None}
        fields["learning"] = "on" if data.get("learning", True) else "off"
    name = str(entry.get("ifname", ""))
    return name, Entry(fields, _link_line(name, fields))


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
    if fields["qdisc"] == "netem":
        words.append("qdisc netem")
    return " ".join(words) + ("" if fields["up"] == "yes" else " DOWN")


# --- routes ----------------------------------------------------------------------------------------------------------

_TYPES = {"blackhole", "unreachable", "prohibit", "throw", "local", "broadcast", "multicast", "unicast"}
# As in /etc/iproute2/rt_protos; a host without that file prints the number.
_PROTOCOLS = {"12": "bird", "2": "kernel", "3": "boot", "4": "static"}


def _route(line: str) -> tuple[str, Entry]:
    words = line.split()
    fields: dict[str, str] = {}
    if words[0] in _TYPES:
        kind = words.pop(0)
        if kind != "unicast":
            fields["type"] = kind
    if not words or not re.fullmatch(r"default|[0-9a-fA-F:.]+(/\d+)?", words[0]):
        raise Unreadable(f"not a line of `ip route`: {line[:60]!r}")
    following = _following(words)
    for name in ("via", "dev", "proto", "scope", "src", "metric", "mtu"):
        if name in following:
            fields[name] = following[name]
    if "proto" in fields:
        fields["proto"] = _PROTOCOLS.get(fields["proto"], fields["proto"])
    if "onlink" in words:
        fields["onlink"] = "yes"
    return words[0], Entry(fields, line.strip())


def _following(words: list[str]) -> dict[str, str]:
    """Each word with the one that follows it; of a word that is there twice, the first."""
    found: dict[str, str] = {}
    for word, following in pairwise(words):
        found.setdefault(word, following)
    return found


# --- neighbours and FDB ----------------------------------------------------------------------------------------------


def _neighbour(line: str) -> tuple[str, Entry]:
    words = line.split()
    following = _following(words)
    if "dev" not in following:
        raise Unreadable(f"not a line of `ip neigh`: {line[:60]!r}")
    fields = {"lladdr": following["lladdr"]} if "lladdr" in following else {}
    return f"{following['dev']} {words[0]}", Entry(fields | {"state": words[-1]}, line.strip())


def _fdb(line: str) -> tuple[str, Entry]:
    words = line.split()
    following = _following(words)
    if "dev" not in following:
        raise Unreadable(f"not a line of `bridge fdb`: {line[:60]!r}")
    fields: dict[str, str] = {name: following[name] for name in ("dst", "master") if name in following}
    for state in ("permanent", "static", "stale"):
        if state in words:
            fields["state"] = state
    return f"{following['dev']} {words[0]}", Entry(fields, line.strip())


PARSERS = {Topic.LINK: links, Topic.ROUTE: routes, Topic.NEIGHBOUR: neighbours, Topic.FDB: fdb}
"""What reads each of observe.sh's sections."""
