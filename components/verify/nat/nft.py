"""The rules of nftables, as `nft -j list ruleset` prints them. Tables that iptables manages are left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from components.verify.nat.iptables import within
from components.verify.nat.model import Action, Base, Condition, Flow, Rule, Ruleset

_VERDICTS = ("jump", "goto", "return", "accept", "drop", "reject", "dnat", "snat", "masquerade", "continue")
# Of `ip`, as iptables-nft makes them.
_OF_IPTABLES = frozenset(("nat", "filter", "mangle", "raw", "security"))
Json = Any


def add_nft(rules: Ruleset, listed: str, own: frozenset[str], *, iptables: bool) -> None:
    """Add what `nft -j list ruleset` printed of IPv4. `own`: the node's addresses. `iptables`: whether iptables-save
    was read too, which prints the tables of iptables. Raises ValueError, KeyError or TypeError for another form."""
    items = json.loads(listed)["nftables"] if listed.strip() else []
    reader = _Reader(own)
    for item in items:
        kind, body = next(iter(item.items()))
        if kind not in ("set", "map", "chain", "rule") or body.get("family") not in ("ip", "inet"):
            continue
        name = body.get("table", "")
        if iptables and body["family"] == "ip" and name in _OF_IPTABLES:
            continue
        table = f"nft {name}"
        if kind in ("set", "map"):
            reader.sets[table, body["name"]] = body.get("elem") or []
        elif kind == "chain":
            rules.chains.setdefault((table, body["name"]), [])
            if "hook" in body:
                base = Base(table, body["name"], str(body["type"]), str(body["hook"]), int(body["prio"]))
                rules.bases.append(base)
        else:
            # A set may be listed behind the rules that name it.
            rules.chains.setdefault((table, body["chain"]), []).extend(reader.rules(table, body))


class _Reader:
    """`sets`: (table, name) → elements of a set or a map."""

    def __init__(self, own: frozenset[str]) -> None:
        self.sets: dict[tuple[str, str], Sequence[Json]] = {}
        self._own = own

    def rules(self, table: str, body: Mapping[str, Json]) -> list[Rule]:
        """A rule; or several, where a verdict map chooses one of them."""
        line, conditions = show(body), list[Condition]()
        made: list[Rule] = []
        certain = True
        for expression in body["expr"]:
            kind, value = next(iter(expression.items()))
            if kind == "match":
                condition = self._match(table, value)
                if condition is None:
                    certain = False
                    condition = _unknown
                conditions.append(condition)
            elif kind == "vmap":
                made += self._choices(table, value, line, tuple(conditions))
            elif kind == "mangle":
                made.append(Rule(line, tuple(conditions), _mark(value), certain))
            elif kind in _VERDICTS:
                made.append(Rule(line, tuple(conditions), _verdict(kind, value), certain))
            elif kind == "xt":
                certain = False
                conditions.append(_unknown)
        return made

    def _match(self, table: str, value: Mapping[str, Json]) -> Condition | None:
        condition = self._equals(table, value["left"], value["right"])
        if condition is None or value["op"] in ("==", "in"):
            return condition
        if value["op"] != "!=":
            return None
        return lambda flow: None if (found := condition(flow)) is None else not found

    def _equals(self, table: str, left: Json, right: Json) -> Condition | None:
        key = _key(left)
        if key == "ct state":
            states = right if isinstance(right, list) else right.get("set", []) if isinstance(right, dict) else [right]
            return lambda flow: "new" in states
        if key == "fib daddr type":
            return lambda flow: (flow.destination in self._own) == (right == "local")
        if isinstance(left, dict) and "&" in left and _key(left["&"][0]) == "meta mark":
            mask = int(left["&"][1])
            return lambda flow: flow.mark & mask == int(right)
        field = _FIELDS.get(key)
        if field is None:
            return None
        if isinstance(right, str) and right.startswith("@"):
            members = self.sets.get((table, right[1:]))
            return None if members is None else _member(field, members)
        return _member(field, right["set"] if isinstance(right, dict) and "set" in right else [right])

    def _choices(
        self, table: str, value: Mapping[str, Json], line: str, conditions: tuple[Condition, ...]
    ) -> list[Rule]:
        """A rule for each element of a verdict map. By `numgen` chance chooses: all but the last may be passed by."""
        data, key = value["data"], value["key"]
        elements = self.sets.get((table, data[1:]), ()) if isinstance(data, str) else data["set"]
        chosen: list[Rule] = []
        for number, (element, verdict) in enumerate(elements):
            kind, target = next(iter(verdict.items()))
            where: Condition | None
            if "numgen" in key:
                where = _unknown if number < len(elements) - 1 else _always
            else:
                parts = key.get("concat", [key])
                wanted = element["concat"] if isinstance(element, dict) and "concat" in element else [element]
                where = self._all([self._equals(table, part, want) for part, want in zip(parts, wanted, strict=True)])
            rule = Rule(f"{line}: {_text(element)} : {_show_verdict(kind, target)}", conditions, _verdict(kind, target))
            certain = where is not None
            chosen.append(replace(rule, conditions=(*conditions, where or _unknown), certain=certain))
        return chosen

    def _all(self, conditions: Sequence[Condition | None]) -> Condition | None:
        known = [condition for condition in conditions if condition is not None]
        if len(known) < len(conditions):
            return None
        return lambda flow: all(condition(flow) for condition in known)


def _unknown(flow: Flow) -> bool | None:
    return None


def _always(flow: Flow) -> bool | None:
    return True


_FIELDS: Mapping[str, Callable[[Flow], str]] = {
    "ip saddr": lambda flow: flow.source,
    "ip daddr": lambda flow: flow.destination,
    "ip protocol": lambda flow: flow.protocol,
    "meta l4proto": lambda flow: flow.protocol,
    "meta iifname": lambda flow: flow.inbound,
    "meta oifname": lambda flow: flow.outbound,
    "th dport": lambda flow: str(flow.port),
    "tcp dport": lambda flow: str(flow.port) if flow.protocol == "tcp" else "",
    "udp dport": lambda flow: str(flow.port) if flow.protocol == "udp" else "",
}


def _key(left: Json) -> str:
    """What is compared: "ip saddr", "meta mark", "ct state", "fib daddr type"; empty where it is not known."""
    if not isinstance(left, dict):
        return ""
    if "payload" in left:
        return f"{left['payload'].get('protocol', '')} {left['payload'].get('field', '')}"
    if "meta" in left:
        return f"meta {left['meta']['key']}"
    if "ct" in left:
        return f"ct {left['ct']['key']}"
    if "fib" in left:
        flags = left["fib"].get("flags")
        return f"fib {flags if isinstance(flags, str) else ' '.join(flags or [])} {left['fib'].get('result', '')}"
    return ""


def _member(field: Callable[[Flow], str], members: Sequence[Json]) -> Condition:
    """Whether a field is one of the members: values, prefixes or ranges."""
    plain, ranges, spans = set(), [], []
    for member in members:
        if isinstance(member, dict) and "elem" in member:
            member = member["elem"]["val"]
        if isinstance(member, dict) and "prefix" in member:
            ranges.append(f"{member['prefix']['addr']}/{member['prefix']['len']}")
        elif isinstance(member, dict) and "range" in member:
            spans.append(tuple(member["range"]))
        else:
            plain.add(str(member))
    inside = within(ranges, field) if ranges else None

    def found(flow: Flow) -> bool | None:
        value = field(flow)
        if value in plain or any(name.endswith("*") and value.startswith(name[:-1]) for name in plain):
            return True
        if any(value.isdigit() and int(first) <= int(value) <= int(last) for first, last in spans):
            return True
        return inside(flow) if inside is not None else False

    return found


def _verdict(kind: str, value: Json) -> Action:
    if kind in ("jump", "goto"):
        return Action("jump" if kind == "jump" else "goto", str(value["target"]))
    if kind in ("dnat", "snat"):
        port = f":{value['port']}" if isinstance(value, dict) and "port" in value else ""
        address = value.get("addr", "") if isinstance(value, dict) else ""
        return Action("dnat" if kind == "dnat" else "snat", f"{address}{port}")
    if kind == "reject":
        return Action("drop")
    if kind == "continue":
        return Action("none")
    return Action(kind)  # type: ignore[arg-type]  # one of the rest of _VERDICTS


def _mark(value: Mapping[str, Json]) -> Action:
    """`meta mark set meta mark | 0x4000`, or ^, or a value."""
    if _key(value["key"]) != "meta mark":
        return Action("none")
    new = value["value"]
    if isinstance(new, int):
        return Action("mark", mask=0xFFFFFFFF, value=new)
    for operator, mask in (("|", 1), ("^", 0)):
        if isinstance(new, dict) and operator in new and isinstance(new[operator][1], int):
            bits = new[operator][1]
            return Action("mark", mask=bits if mask else 0, value=bits)
    return Action("none")


# --- as a person sees it ----------------------------------------------------------------------------------------------


def show(body: Mapping[str, Json]) -> str:
    """A rule as text, with its table and chain: `kube-proxy services: ip daddr . … vmap @service-ips`."""
    words = []
    for expression in body["expr"]:
        kind, value = next(iter(expression.items()))
        if kind == "match":
            operator = "" if value["op"] in ("==", "in") else f"{value['op']} "
            words.append(f"{_text(value['left'])} {operator}{_text(value['right'])}")
        elif kind == "vmap":
            words.append(f"{_text(value['key'])} vmap {value['data'] if isinstance(value['data'], str) else '{…}'}")
        elif kind == "mangle":
            words.append(f"{_text(value['key'])} set {_text(value['value'])}")
        elif kind in _VERDICTS:
            words.append(_show_verdict(kind, value))
    return f"{body['table']} {body['chain']}: {' '.join(words)}"


def _show_verdict(kind: str, value: Json) -> str:
    if kind in ("jump", "goto"):
        return f"{kind} {value['target']}"
    if kind in ("dnat", "snat"):
        return f"{kind} to {_verdict(kind, value).target}"
    return kind


def _text(value: Json) -> str:
    if not isinstance(value, dict):
        return str(value)
    if "concat" in value:
        return " . ".join(map(_text, value["concat"]))
    if "prefix" in value:
        return f"{value['prefix']['addr']}/{value['prefix']['len']}"
    if "set" in value:
        return f"{{ {', '.join(map(_text, value['set']))} }}"
    if "numgen" in value:
        return f"numgen {value['numgen']['mode']} mod {value['numgen']['mod']}"
    for operator in ("&", "|", "^"):
        if operator in value:
            return f"{_text(value[operator][0])} {operator} {_hex(value[operator][1])}"
    return _key(value) or json.dumps(value)


def _hex(value: Json) -> str:
    return hex(value) if isinstance(value, int) else _text(value)
