"""pydantic's errors in the words of the stack file, and what is left of a lab once the broken parts are put aside."""

from __future__ import annotations

import types
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, ip_interface
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from components.spec.findings import Finding, nearest, shown, shown_key
from components.spec.models import Lab

KeyPath = tuple[str | int, ...]
"""The place of a value in the lab, e.g. ("nodes", 2, "address"); () is the lab itself."""

# What a value looks like, by the pattern that its type demands.
PATTERNS = {
    r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$": "at most 63 lower-case letters, digits and hyphens, with no hyphen "
    "at either end",
    r"^\d{1,3}\.\d{1,3}\.\d{1,3}$": "three numbers with dots, without a v, e.g. 1.36.3",
    r"^[A-Za-z0-9_.-]{1,15}$": "an interface name: at most 15 letters, digits, dots, hyphens and underscores",
    r"^[a-z0-9-]+\.[a-z0-9-]+$": "an EC2 instance type, e.g. t3.large",
    r"^ami-[0-9a-f]{8,17}$": "an AMI id, e.g. ami-0123456789abcdef0",
    r"^\d+(Mi|Gi)$": "a whole number with Mi or Gi, e.g. 4Gi",
    r"^[A-Za-z0-9.-]+:\d{1,5}$": "host:port, e.g. 10.0.1.10:6443",
    r"^[a-z0-9.-]+(:\d+)?/[^\s:@]+(:[\w.-]+)?(@sha256:[0-9a-f]{64})?$": "a full image name that starts with its "
    "registry, e.g. docker.io/library/busybox:1.37",
    r"^(https?|file)://[^\s]+[^/\s]$": "an http, https or file URL without a final slash",
    r"^[a-z_][a-z0-9_-]{0,31}$": "a Linux user name, e.g. ubuntu",
    r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$": "a host name or an IPv4 address",
    r"^[^\n]*[^\s][^\n]*$": "one line that is not empty",
    r"^/[^:\n]*$": "an absolute path without a colon, e.g. /var/cache/images",
    r"^[A-Za-z0-9.-]+(:\d+)?(/[A-Za-z0-9._/-]+)?$": "host[:port][/path], e.g. registry.k8s.io",
    r"^[0-9A-F]{40}$": "a key fingerprint: 40 upper-case hexadecimal digits without spaces",
    r"^[0-9a-f]{64}$": "a SHA-256 checksum: 64 lower-case hexadecimal digits",
    r"^[\w .:/=+@-]{1,128}$": "at most 128 letters, digits, spaces and . : / = + @ _ -",
}

_KINDS = {
    "string_type": ("text", "put it in quotes if it is what you mean"),
    "int_type": ("a whole number", "write digits only, without quotes"),
    "float_type": ("a number", "write digits only, without quotes"),
    "bool_type": ("true or false", "write true or false, without quotes"),
    "model_type": ("a mapping", "write keys and values under it, or leave the key out"),
    "dict_type": ("a mapping", "write keys and values under it, or leave the key out"),
    "tuple_type": ("a list", "write its items as lines that start with '- '"),
}

_ADDRESSES: dict[object, tuple[str, str]] = {
    IPv4Address: ("an IPv4 address", "write four numbers with dots, e.g. 10.0.1.100"),
    IPv4Interface: ("an IPv4 address with its prefix length", "write e.g. 10.1.128.7/24"),
    IPv4Network: ("an IPv4 network", "write its first address and prefix length, e.g. 10.0.1.0/24"),
}

_LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def dotted(path: KeyPath) -> str:
    """`("nodes", 2, "address")` as `nodes[2].address`, never shortened; the lab itself is `cni-lab:lab`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{shown_key(part)}" for part in path)
    return text.removeprefix(".") or "cni-lab:lab"


def pattern_of(path: KeyPath) -> str:
    """The path with every list index as `[]`, as rules name what they read: `nodes[].address`."""
    return "".join("[]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def _place_of(loc: Sequence[str | int], raw: object) -> tuple[KeyPath, bool]:
    """The path that pydantic's location `loc` stands for, and whether the error is in the key and not in its value.

    pydantic adds the tag of a union's member, which is no part of the file, and `[key]` after a mapping's key that is
    itself wrong. A file may hold a key that is spelt `[key]`: the models tell the two apart.
    """
    path = list(loc)
    if path[:1] == ["machines"]:
        del path[1:2]
    elif path[:1] == ["networks"]:
        del path[2:3]
        if path[2:3] == ["ipam"]:
            del path[3:4]
    in_key = path[-1:] == ["[key]"] and get_origin(_bare(_annotation(raw, tuple(path[:-1])))) is not dict
    return tuple(path[:-1] if in_key else path), in_key


@dataclass(frozen=True)
class Flaw:
    """A Finding in one value: the path to that value, and the path of the key that no rule may rely on now.

    `absent`: the value is required and not there.
    """

    finding: Finding
    path: KeyPath
    spoilt: KeyPath
    absent: bool = False


def flaws(errors: Sequence[ErrorDetails], raw: object) -> Iterator[Flaw]:
    """pydantic's errors on `raw`, each as a Flaw. An unknown key spoils the key that was probably meant."""
    found = [(error, *_place_of(error["loc"], raw)) for error in errors]
    misspelt = {_meant(raw, path) for error, path, _ in found if error["type"] == "extra_forbidden"}
    for error, path, in_key in found:
        # A required key that is there but misspelt is told of once.
        if error["type"] == "missing" and path in misspelt:
            continue
        value = path[-1] if in_key else _at(raw, path)
        # A list that only its broken items make too short is told of through those items.
        if error["type"] == "too_short" and isinstance(value, list) and value:
            continue
        yield _flaw(error, path, value, raw, in_key=in_key)


def _flaw(error: ErrorDetails, path: KeyPath, value: object, raw: object, *, in_key: bool) -> Flaw:
    kind, context = error["type"], error.get("ctx", {})
    seen, spoilt = shown(value), path
    match kind:
        case "extra_forbidden":
            spoilt = _meant(raw, path)
            known = ", ".join(known_keys(raw, path[:-1]))
            problem = "is not a key that is known here"
            fix = f"did you mean {spoilt[-1]}? If not, remove it" if spoilt != path else f"use one of {known}"
        case "missing":
            seen, problem, fix = "missing", "this key is required", f"add {path[-1]}{_example(path)}"
        case "union_tag_not_found" | "union_tag_invalid":
            words = _tags(raw, path)
            path = spoilt = (*path, context["discriminator"].strip("'"))
            given = _at(raw, path)
            seen, problem = ("missing", "this key is required") if given is None else (shown(given), "is unknown")
            fix = _one_of(given, words)
        case "literal_error":
            words = [str(w) for w in get_args(_bare(_annotation(raw, path)))]
            problem, fix = "is not a value it can have", _one_of(value, words)
        case "string_pattern_mismatch":
            problem = f"{'this key ' * in_key}is not in the form it must have"
            fix = f"write {PATTERNS[context['pattern']]}"
        case "value_error":
            problem, fix = _address_words(value, _bare(_annotation(raw, path)))
        case "too_short":
            problem, fix = "is empty", "give at least one"
        case "greater_than_equal" | "greater_than" | "less_than_equal" | "less_than":
            ((op, bound),) = context.items()
            problem, fix = "is out of range", f"make it {_LIMITS[op]} {bound}"
        case "string_type" if (wanted := _bare(_annotation(raw, path))) in _ADDRESSES:
            problem, fix = _address_words(value, wanted)
        case "string_type" if path[-1] == "version" and isinstance(value, float):
            # YAML reads 1.36 as a number.
            problem, fix = "is not a whole version", f"write all three parts, e.g. {value:g}.0"
        case "json_text":
            problem, fix = error["msg"], "correct the text there, or write it as a mapping"
        case _ if kind in _KINDS:
            what, fix = _KINDS[kind]
            problem = f"must be {what}"
        case _:
            problem, fix = error["msg"][0].lower() + error["msg"][1:], "see stacks/schema.json"
    return Flaw(Finding(dotted(path), seen, problem, fix), path, spoilt, absent=seen == "missing")


def _meant(raw: object, path: KeyPath) -> KeyPath:
    """The path of the key that an unknown key was probably meant to be, or the unknown key's own."""
    meant = nearest(str(path[-1]), known_keys(raw, path[:-1]))
    return (*path[:-1], meant) if meant else path


def _address_words(value: object, wanted: object) -> tuple[str, str]:
    """Problem and fix for a value that is no IPv4 address, address with prefix, or network."""
    what, fix = _ADDRESSES.get(wanted, ("valid", "see stacks/schema.json"))
    interface = None
    with suppress(ValueError):
        interface = ip_interface(value) if isinstance(value, str) else None
    if isinstance(interface, IPv6Interface):
        return "IPv6 is not supported", f"write {what}"
    if wanted is IPv4Network and interface is not None:
        return "is an address inside a network, not a network", f"write {interface.network}"
    return f"is not {what}", fix


def _one_of(value: object, words: Sequence[str]) -> str:
    meant = nearest(value, words) if isinstance(value, str) else None
    # YAML's null, for Calico's word None.
    meant = "None" if value is None and "None" in words else meant
    return (f"did you mean {meant}? One of " if meant else "write one of ") + ", ".join(words)


# --- the models, walked along a path ----------------------------------------------------------------------------------


def known_keys(raw: object, path: KeyPath) -> list[str]:
    """The keys that may stand in the mapping at `path`."""
    model = _annotation(raw, path)
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _annotation(raw: object, path: KeyPath) -> Any:
    """The type that the models give to the value at `path`, None where they know none; unions decided by `raw`."""
    found: Any = Lab
    for depth, part in enumerate(path):
        found = _inside(found, part)
        if (members := _members(found)) and depth + 1 <= len(path):
            found = members.get(str(_tag(_at(raw, path[: depth + 1]))), found)
    return found


def _inside(annotation: Any, part: str | int) -> Any:
    annotation = _bare(annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        fields = {field.alias or name: field for name, field in annotation.model_fields.items()}
        return fields[part].annotation if part in fields else None
    arguments = get_args(annotation)
    match get_origin(annotation):
        case origin if origin is tuple:
            return arguments[0]
        case origin if origin is dict:
            return arguments[1]
    return None


def _bare(annotation: Any) -> Any:
    """Without Annotated and without None."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
            continue
        if get_origin(annotation) in (Union, types.UnionType):
            rest = [a for a in get_args(annotation) if a is not types.NoneType]
            if len(rest) == 1:
                annotation = rest[0]
                continue
        return annotation


def _members(annotation: Any) -> dict[str, Any]:
    """The models of a tagged union by their tag; {} for any other type."""
    bare = _bare(annotation)
    if get_origin(bare) not in (Union, types.UnionType):
        return {}
    found = {}
    for model in get_args(bare):
        for name in ("provider", "type"):
            if name in model.model_fields and get_origin(literal := model.model_fields[name].annotation) is Literal:
                found[str(get_args(literal)[0])] = model
    return found


def _tag(value: object) -> object:
    return value.get("provider", value.get("type")) if isinstance(value, dict) else None


def _tags(raw: object, path: KeyPath) -> list[str]:
    return list(_members(_annotation(raw, path)))


def _at(raw: object, path: KeyPath) -> Any:
    """The value at `path` of the stack file, None where there is none."""
    for part in path:
        try:
            raw = raw[part]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return None
    return raw


def _example(path: KeyPath) -> str:
    examples = {
        "operatorCidrs": ", your own address, e.g. [203.0.113.7/32]",
        "address": ", e.g. 10.0.1.100",
        "subnet": ", the name of one of network.subnets" if path[:1] == ("nodes",) else ", e.g. 10.1.128.0/24",
        "machines": ", e.g. {provider: local}",
        "hostKey": ": on the host, cat /etc/ssh/ssh_host_ed25519_key.pub",
        "clusterNetwork": ", the name of one of multus.delegates",
    }
    return examples.get(str(path[-1]), "")


# --- what is left -----------------------------------------------------------------------------------------------------

# Stands in for a required value that is missing or broken. No rule sees it: those that read the key are not run.
_STANDINS: dict[str, object] = {
    "machines": {"provider": "local"},
    "machines.provider": "local",
    "machines.operatorCidrs": ["203.0.113.7/32"],
    "machines.user": "ubuntu",
    "machines.jumpHost.address": "none",
    "machines.jumpHost.user": "none",
    "machines.extraMounts[].hostPath": "/",
    "machines.extraMounts[].containerPath": "/",
    "nodes[].subnet": "none",
    "nodes[].address": "203.0.113.1",
    "nodes[].ssh.hostKey": "",
    "calico.pools[].cidr": "203.0.113.0/24",
    "calico.peers[].peerIP": "203.0.113.1",
    "calico.peers[].asNumber": 64512,
    "multus.clusterNetwork": "none",
    "multus.delegates[].rangeStart": 1,
    "multus.delegates[].rangeEnd": 1,
    "networks[].type": "custom",
    "networks[].subnet": "203.0.113.0/24",
    "networks[].bridge": "none",
    "networks[].master": "none",
    "networks[].device": "none",
    "networks[].config": {"type": "none"},
    "workloads[].image": "docker.io/library/busybox",
}
_NAMED = ("nodes[]", "calico.pools[]", "calico.peers[]", "multus.delegates[]", "networks[]", "workloads[]")


def replaceable(path: KeyPath) -> bool:
    """Whether something can stand in for the value at `path`."""
    parent, _, last = pattern_of(path).rpartition(".")
    return pattern_of(path) in _STANDINS or (last == "name" and parent in _NAMED)


def without(raw: object, path: KeyPath) -> object:
    """A copy of `raw` without the value at `path`: a stand-in in its place where it is required, else nothing."""
    pattern = pattern_of(path)
    parent, _, last = pattern.rpartition(".")
    if last == "name" and parent in _NAMED:
        return _replaced(raw, path, f"stand-in-{path[-2]}")
    return _replaced(raw, path, _STANDINS.get(pattern))


def _replaced(raw: object, path: KeyPath, value: object) -> object:
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(raw, dict):
        if value is None and (not rest or head not in raw):
            return {key: item for key, item in raw.items() if key != head}
        return {**raw, head: _replaced(raw.get(head), rest, value)}
    if isinstance(raw, list) and isinstance(head, int) and head < len(raw):
        kept = [] if value is None and not rest else [_replaced(raw[head], rest, value)]
        return [*raw[:head], *kept, *raw[head + 1 :]]
    return value if value is None else {head: _replaced(None, rest, value)}
