"""The rules of iptables, as iptables-save prints them, and the sets of `ipset save`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network

from components.verify.nat.model import Action, Base, Condition, Flow, Rule, Ruleset, Sets

_PRIORITIES = {"PREROUTING": -100, "OUTPUT": -100, "INPUT": 100, "POSTROUTING": 100, "FORWARD": 0}
# Options that say nothing of the packet, and how many values they have.
_IGNORED = {"-m": 1, "--match": 1, "--comment": 1, "--limit-iface-out": 0, "--limit-iface-in": 0}


def add_iptables(rules: Ruleset, saved: str, sets: Sets, own: frozenset[str]) -> None:
    """Add what iptables-save printed of the tables nat and filter. `own`: the node's addresses."""
    table = ""
    for line in map(str.strip, saved.splitlines()):
        if line.startswith("*"):
            table = f"iptables {line[1:]}"
        elif line.startswith(":") and table in ("iptables nat", "iptables filter"):
            chain = line[1:].split()[0]
            rules.chains.setdefault((table, chain), [])
            if chain in _PRIORITIES:
                rules.bases.append(Base(table, chain, table.split()[1], chain.lower(), _PRIORITIES[chain]))
        elif line.startswith("-A ") and table in ("iptables nat", "iptables filter"):
            chain = line.split()[1]
            rules.chains.setdefault((table, chain), []).append(_rule(line, sets, own))


def ipsets(saved: str) -> dict[str, list[str]]:
    """The members of each set of `ipset save`, which are addresses or ranges."""
    found: dict[str, list[str]] = {}
    for line in saved.splitlines():
        match line.split():
            case ["create", name, *_]:
                found[name] = []
            case ["add", name, member, *_]:
                found.setdefault(name, []).append(member)
    return found


def _rule(line: str, sets: Sets, own: frozenset[str]) -> Rule:
    words = _words(line)[2:]
    conditions: list[Condition] = []
    action, certain, negated, at = Action("none"), True, False, 0
    while at < len(words):
        word, values = words[at], words[at + 1 :]
        if word == "!":
            negated, at = True, at + 1
            continue
        used = 2
        if word in ("-j", "-g"):
            action = _action(word, values)
            break
        if word in _IGNORED:
            used = 1 + _IGNORED[word]
        elif word == "--match-set":
            conditions.append(_in_set(values[0], values[1], sets, negated))
            used = 3
        elif word == "--set":
            used = 2
        else:
            condition = _condition(word, values[0] if values else "", own)
            if condition is None:
                certain = False
                conditions.append(_unknown)
                used = 1 + next((n for n, value in enumerate(values) if value.startswith("-") or value == "!"), 0)
            else:
                conditions.append(_negation(condition) if negated else condition)
        negated, at = False, at + used
    return Rule(line, tuple(conditions), action, certain)


@lru_cache(maxsize=1 << 14)
def _words(line: str) -> list[str]:
    """A rule's words. The nodes of a lab share most of their rules, and shlex is slow."""
    return shlex.split(line)


def _action(word: str, values: Sequence[str]) -> Action:
    target, options = values[0], list(values[1:])
    match target:
        case "ACCEPT":
            return Action("accept")
        case "DROP" | "REJECT":
            return Action("drop")
        case "RETURN":
            return Action("return")
        case "MASQUERADE":
            return Action("masquerade")
        case "DNAT" | "SNAT":
            option = "--to-destination" if target == "DNAT" else "--to-source"
            to = options[options.index(option) + 1] if option in options else ""
            return Action("dnat" if target == "DNAT" else "snat", to)
        case "MARK" if options[:1] == ["--set-xmark"]:
            value, _, mask = options[1].partition("/")
            return Action("mark", mask=int(mask or "0xffffffff", 0), value=int(value, 0))
        case "MARK" if options[:1] == ["--or-mark"]:
            return Action("mark", mask=int(options[1], 0), value=int(options[1], 0))
        case _ if target.isupper() and target in ("LOG", "NFLOG", "CONNMARK", "NOTRACK", "CT", "MARK", "TCPMSS"):
            return Action("none")
    return Action("goto" if word == "-g" else "jump", target)


def _unknown(flow: Flow) -> bool | None:
    return None


def _negation(condition: Condition) -> Condition:
    def negated(flow: Flow) -> bool | None:
        found = condition(flow)
        return None if found is None else not found

    return negated


def _condition(option: str, value: str, own: frozenset[str]) -> Condition | None:
    """The condition of one option; None where it is not understood."""
    match option:
        case "-s":
            return within([value], lambda flow: flow.source)
        case "-d":
            return within([value], lambda flow: flow.destination)
        case "-p":
            return lambda flow: value in ("all", flow.protocol)
        case "-i":
            return lambda flow: _is_interface(value, flow.inbound)
        case "-o":
            return lambda flow: _is_interface(value, flow.outbound)
        case "--dport" | "--dports":
            return lambda flow: _is_port(value, flow.port)
        case "--mark":
            wanted, _, mask = value.partition("/")
            return lambda flow: flow.mark & int(mask or "0xffffffff", 0) == int(wanted, 0)
        case "--mode":
            return _unknown if value == "random" else None
        case "--probability":
            return lambda flow: True
        case "--ctstate":
            return lambda flow: "NEW" in value.split(",")
        case "--dst-type" | "--src-type" if value == "LOCAL":
            return lambda flow: (flow.destination if option == "--dst-type" else flow.source) in own
    return None


def within(ranges: Iterable[str], address: Callable[[Flow], str]) -> Condition:
    """Whether an address of a packet is in one of the ranges; None where a range is not one of addresses."""
    try:
        networks = [IPv4Network(cidr, strict=False) for cidr in ranges]
    except ValueError:
        return _unknown
    return lambda flow: any(IPv4Address(address(flow)) in network for network in networks)


def _in_set(name: str, side: str, sets: Sets, negated: bool) -> Condition:
    if name not in sets:
        return _unknown
    condition = within(sets[name], lambda flow: flow.source if side == "src" else flow.destination)
    return _negation(condition) if negated else condition


def _is_interface(pattern: str, name: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern


def _is_port(ports: str, port: int) -> bool:
    for part in ports.split(","):
        first, _, last = part.partition(":")
        if int(first) <= port <= int(last or first):
            return True
    return False
