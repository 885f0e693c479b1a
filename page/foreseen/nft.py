"""What `nft -j list ruleset` would print after `nft -f`.

It understands the rules that components/sandbox writes for Felix and kube-proxy. A test compares it with a real nft.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

Json = Any

_TOKEN = re.compile(r'"[^"]*"|[{};,]|[^\s{};,]+')
_PRIORITIES = {"raw": -300, "dstnat": -100, "filter": 0, "srcnat": 100}
_BITWISE = {"&", "|", "^"}
_MARK = {"meta": {"key": "mark"}}


class UnknownRule(ValueError):
    """A rule that this model does not understand; str() has its words."""


def listed(lines: Iterable[str]) -> str:
    """The JSON of the rules of a file for `nft -f`. Raises UnknownRule."""
    found: list[Json] = []
    words = _Words(_TOKEN.findall("\n".join(line.replace("\n", " ;") + " ;" for line in lines)))
    while words.left:
        match words.take():
            case "table":
                family, table = words.take(), words.take()
                if words.next_is("{"):
                    found += _table(words, family, table)
            case "delete":
                words.until(";")
            case ";":
                pass
            case other:
                raise UnknownRule(f"this model of nft does not know: {other}")
    return json.dumps({"nftables": found})


class _Words:
    """The words of a file that are left to read."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words, self._at = words, 0

    @property
    def left(self) -> bool:
        return self._at < len(self._words)

    @property
    def next(self) -> str:
        return self._words[self._at] if self.left else ""

    def take(self) -> str:
        self._at += 1
        return self._words[self._at - 1]

    def next_is(self, *words: str) -> bool:
        """Whether these words come next; then they are taken."""
        same = list(self._words[self._at : self._at + len(words)]) == list(words)
        self._at += len(words) if same else 0
        return same

    def until(self, *ends: str) -> list[str]:
        """The words before the next of `ends`, which is left."""
        taken = []
        while self.left and self.next not in ends:
            taken.append(self.take())
        return taken

    def block(self) -> _Words:
        """The words between a brace that was taken and the one that closes it."""
        taken, depth = [], 1
        while depth:
            word = self.take()
            depth += {"{": 1, "}": -1}.get(word, 0)
            taken.append(word)
        return _Words(taken[:-1])


def _table(words: _Words, family: str, table: str) -> Iterator[Json]:
    """The objects of a table: sets and maps, then chains, then rules, as nft lists them."""
    where = {"family": family, "table": table}
    sets: list[Json] = []
    chains: list[Json] = []
    rules: list[Json] = []
    body = words.block()
    while body.left:
        match body.take():
            case "set" | "map" as kind:
                sets.append({kind: where | {"name": body.take()} | _elements(_block_of(body))})
            case "chain":
                name = body.take()
                chain, found = _chain(_block_of(body))
                chains.append({"chain": where | {"name": name} | chain})
                rules += [{"rule": where | {"chain": name, "expr": rule}} for rule in found]
            case "comment":
                body.take()
            case ";":
                pass
            case other:
                raise UnknownRule(f"this model of nft does not know: {other}")
    yield {"table": {"family": family, "name": table}}
    yield from (*sets, *chains, *rules)


def _block_of(words: _Words) -> _Words:
    assert words.next_is("{"), words.next
    return words.block()


def _elements(words: _Words) -> Json:
    found: Json = {}
    while words.left:
        if words.next_is("elements", "="):
            found["elem"] = list(_members(_block_of(words)))
        else:
            words.take()
    return found


def _members(words: _Words) -> Iterator[Json]:
    """The elements of a set, or the pairs of a map."""
    while words.left:
        member = words.until(",")
        words.next_is(",")
        key, colon, verdict = " ".join(member).partition(" : ")
        parts = [_value(part) for part in key.split(" . ")]
        one = {"concat": parts} if len(parts) > 1 else parts[0]
        yield [one, _verdict(_Words(verdict.split()))] if colon else one


def _value(text: str) -> Json:
    if text.isdigit() or text.startswith("0x"):
        return int(text, 0)
    address, slash, length = text.partition("/")
    return {"prefix": {"addr": address, "len": int(length)}} if slash else text.strip('"')


def _chain(words: _Words) -> tuple[Json, list[Json]]:
    """Where a chain is hooked, and its rules, which end with a semicolon each."""
    hook: Json = {}
    rules: list[Json] = []
    while words.left:
        if words.next_is(";"):
            continue
        if words.next_is("type"):
            _, kind, _, name, _, priority = "type", words.take(), words.take(), words.take(), words.take(), words.take()
            prio = _PRIORITIES[priority] if priority in _PRIORITIES else int(priority)
            hook = {"type": kind, "hook": name, "prio": prio, "policy": "accept"}
        elif words.next_is("policy"):
            hook["policy"] = words.take()
        else:
            rules.append(list(_rule(words)))
    return hook, rules


def _rule(words: _Words) -> Iterator[Json]:
    while words.left and not words.next_is(";"):
        if words.next_is("comment"):
            words.take()
        elif words.next_is("meta", "mark", "set", "meta", "mark"):
            operator, bits = words.take(), int(words.take(), 0)
            yield {"mangle": {"key": _MARK, "value": {operator: [_MARK, bits]}}}
        elif words.next_is("notrack"):
            yield {"notrack": None}
        elif words.next in _VERDICTS:
            yield _verdict(words)
        else:
            yield _match(words)


def _verdict(words: _Words) -> Json:
    kind = words.take()
    if kind not in _VERDICTS:
        raise UnknownRule(f"this model of nft does not know: {kind}")
    return {kind: _VERDICTS[kind](words)}


def _target(words: _Words) -> Json:
    return {"target": words.take()}


def _nothing(words: _Words) -> Json:
    return None


def _masquerade(words: _Words) -> Json:
    return {"flags": "fully-random"} if words.next_is("fully-random") else None


def _dnat(words: _Words) -> Json:
    words.take()
    address, _, port = words.take().partition(":")
    return {"addr": address, "port": int(port)}


_VERDICTS: dict[str, Callable[[_Words], Json]] = {
    "jump": _target,
    "goto": _target,
    "return": _nothing,
    "accept": _nothing,
    "drop": _nothing,
    "reject": lambda words: {"type": "icmp", "expr": "port-unreachable"},
    "masquerade": _masquerade,
    "dnat": _dnat,
}


def _match(words: _Words) -> Json:
    """A comparison, or the lookup of a verdict map."""
    keys = [_key(words)]
    while words.next_is("."):
        keys.append(_key(words))
    left = {"concat": keys} if len(keys) > 1 else keys[0]
    if words.next_is("vmap"):
        data = {"set": list(_members(_block_of(words)))} if words.next == "{" else words.take()
        return {"vmap": {"key": left, "data": data}}
    if words.next in _BITWISE:
        operator, mask = words.take(), int(words.take(), 0)
        left = {operator: [left, mask]}
    operator = words.take() if words.next in ("==", "!=") else "in" if "ct" in keys[0] else "=="
    if words.next == "{":
        members = list(_members(_block_of(words)))
        return {"match": {"op": operator, "left": left, "right": {"set": members} if len(members) > 1 else members[0]}}
    values = [_value(words.take())]
    while words.next_is(","):
        values.append(_value(words.take()))
    return {"match": {"op": operator, "left": left, "right": values if len(values) > 1 else values[0]}}


def _key(words: _Words) -> Json:
    kind = words.take()
    match kind:
        case "meta":
            return {"meta": {"key": words.take()}}
        case "iifname" | "oifname":
            return {"meta": {"key": kind}}
        case "ct":
            return {"ct": {"key": words.take()}}
        case "ip" | "tcp" | "udp" | "th":
            return {"payload": {"protocol": kind, "field": words.take()}}
        case "numgen":
            mode = words.take()
            assert words.next_is("mod"), words.next
            return {"numgen": {"mode": mode, "mod": int(words.take()), "offset": 0}}
    raise UnknownRule(f"this model of nft does not know: {kind} {words.next}")
