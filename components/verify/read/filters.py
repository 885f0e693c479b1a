"""Which packets of tunnels a node's packet filter drops, from iptables-save and `nft -nn list ruleset`."""

from __future__ import annotations

import re

from components.spec.modes import TUNNELS
from components.verify.model import Entry, Table, Topic

_RULE = re.compile(r"-A (?P<chain>\S+) (?P<match>.*)-j (?:DROP|REJECT)\b")
_NFT_RULE = re.compile(r"(?P<match>.*)\b(?:drop|reject)\b")
_NFT_MATCH = re.compile(r"\b(?P<what>udp dport|ip protocol|meta l4proto) (?P<values>\{[^}]*\}|\S+)")
# Calico's and kube-proxy's own rules, by iptables and by nft, are part of the lab.
_CHAINS, _TABLES = ("cali-", "KUBE-"), ("calico", "kube-proxy")
# As iptables-save prints a protocol by /etc/protocols, where "ipip" is another one (94).
_NAMES = {"ipencap": "4", "ipv4": "4", "17": "udp"}


def filters(output: str) -> Table:
    """Rules outside Calico's and kube-proxy's that drop packets of a tunnel whatever their source, by `Tunnel.packet`
    ("udp 4789", "4"). iptables-save does not show the tables that are nft's own; nft shows those of both."""
    found: Table = {}
    table = chain = ""
    for line in map(str.strip, output.splitlines()):
        match line.split():
            case ["table", _, name, *_]:
                table = name
            case ["chain", name, *_]:
                chain = name
        for key in [] if table in _TABLES or chain.startswith(_CHAINS) else _dropped(line):
            # nft lists the rules of iptables-nft a second time.
            if line.startswith("-A ") or not any(entry.line.startswith("-A ") for entry in found.get(key, ())):
                found[key] = (*found.get(key, ()), Entry({}, line))
    return found


def _dropped(line: str) -> list[str]:
    """The tunnels' packets that one rule drops."""
    if line.startswith("-A "):
        rule = _RULE.match(line)
        words = rule["match"].split() if rule and not rule["chain"].startswith(_CHAINS) else []
        return _packets(_option(words, "-p", "--protocol"), _option(words, "--dport", "--dports"))
    # A comment or a log prefix may contain "drop".
    rule = _NFT_RULE.match(re.sub(r'"[^"]*"', "", line))
    found: list[str] = []
    for matched in _NFT_MATCH.finditer(rule["match"] if rule else ""):
        if matched["what"] == "udp dport":
            found += _packets("udp", matched["values"])
        else:
            found += [key for protocol in re.findall(r"\w+", matched["values"]) for key in _packets(protocol, "")]
    return found


def _option(words: list[str], *names: str) -> str:
    """The value of a rule's option; empty where it is absent or negated."""
    return next((words[n + 1] for n, word in enumerate(words[:-1]) if word in names and words[n - 1 : n] != ["!"]), "")


def _packets(protocol: str, ports: str) -> list[str]:
    """The tunnels' packets that a rule matches. `ports`: 4789, or several: 4789,8472 or 4700:4800 or
    { 4789, 4800-4900 }."""
    ranges = [(int(a), int(b or a)) for a, b in re.findall(r"(\d+)(?:[-:](\d+))?", ports)]
    return [
        tunnel.packet
        for tunnel in TUNNELS
        if tunnel.protocol == _NAMES.get(protocol, protocol)
        and (tunnel.ports is None or any(first <= tunnel.ports[0] <= last for first, last in ranges))
    ]


FORWARDED = "forwarded packets"
"""The key of a rule that drops every packet that is forwarded."""

_IPTABLES_DROP = re.compile(r'-A FORWARD(?: -i \S+)?(?: -m comment --comment (?:"[^"]*"|\S+))* -j (?:DROP|REJECT)\b.*')
_NFT_DROP = re.compile(r"(?:iifname \S+ )?(?:counter(?: packets \d+ bytes \d+)? )?(?:drop|reject)\b.*")


def forward_drops(output: str) -> Table:
    """The rules that drop all forwarded packets, or all from one interface, before a rule of their chain accepts any.

    A firewall's own last rule, which drops what none before it accepts, is not among them.
    """
    found: list[Entry] = []
    forward = accepted = False
    table = ""
    for line in map(str.strip, output.splitlines()):
        words = line.split()
        if line.startswith("*"):
            table, accepted = line, False
        elif words[:1] == ["chain"]:
            forward = accepted = False
            table = ""
        elif "hook forward" in line:
            forward = True
        elif line.startswith("-A FORWARD ") and table == "*filter":
            if _IPTABLES_DROP.fullmatch(line) and not accepted:
                found.append(Entry({}, line))
            accepted = accepted or "-j ACCEPT" in line
        elif forward:
            # nft lists the rules of iptables-nft a second time.
            if _NFT_DROP.fullmatch(re.sub(r' ?comment "[^"]*"', "", line)) and not accepted and not found:
                found.append(Entry({}, line))
            accepted = accepted or "accept" in words
    return {FORWARDED: tuple(found)} if found else {}


PARSERS = {Topic.FILTER: filters}
"""What reads each of observe.sh's sections."""
