"""pydantic's errors in the terms of the stack file, and what is left of a lab without its broken values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, ip_interface
from typing import get_args, get_origin

from pydantic_core import ErrorDetails

from components.spec.advice import for_unknown_key
from components.spec.findings import Finding, nearest, shown
from components.spec.keypath import KeyPath, dotted, pattern_of, value_at
from components.spec.model_paths import annotation_at, bare, tags_at
from components.spec.models.base import CONFIG_KEY
from components.spec.models.lab import NODE_COUNT
from components.spec.models.pods import ImageName
from components.spec.pastes import autodetection

# A description of each pattern that a type demands.
PATTERNS = {
    r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$": "at most 63 lower-case letters, digits and hyphens, with no hyphen "
    "at either end",
    r"^[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}$": "three numbers with dots, without a v, e.g. 1.36.3",
    r"^[A-Za-z0-9_.-]{1,15}$": "an interface name: at most 15 letters, digits, dots, hyphens and underscores",
    r"^[a-z0-9-]+\.[a-z0-9-]+$": "an EC2 instance type, e.g. t3.large",
    r"^ami-[0-9a-f]{8,17}$": "an AMI id, e.g. ami-0123456789abcdef0",
    CONFIG_KEY: "a name for the password of at least four letters, digits, - or _, e.g. torPassword",
    r"^[a-z]{2}(-[a-z]+)+-[0-9][a-z]$": "an availability zone, e.g. us-west-2b",
    r"^[a-z][a-z0-9-]*$": "the argument's name without the two hyphens, e.g. service-node-port-range",
    r"^[0-9]+(\.[0-9]+)?([munkMGTPE]|[KMGTPE]i)?$": "an amount as Kubernetes writes it, e.g. 500m, 64Mi or 1",
    r"^[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}$": "a MAC address, e.g. 02:00:00:00:00:02",
    r"^[A-Z][A-Z0-9_]{1,40}$": "a capability without CAP_, e.g. NET_ADMIN",
    r"^[0-9]+(Mi|Gi)$": "a whole number with Mi or Gi, e.g. 4Gi",
    r"^[A-Za-z0-9.-]+:[0-9]{1,5}$": "host:port, e.g. 10.0.1.10:6443",
    get_args(ImageName)[1].pattern: "a full image name that starts with its registry, in lower case up to the tag, "
    "e.g. docker.io/library/busybox:1.37",
    r"^(https?|file)://[^\s]+[^/\s]$": "an http, https or file URL without a final slash",
    r"^[a-z_][a-z0-9_-]{0,31}$": "a Linux user name, e.g. ubuntu",
    r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$": "a host name or an IPv4 address",
    r"^[^\n]*[^\s][^\n]*$": "one line that is not empty",
    r"^/[^:\n]*$": "an absolute path without a colon, e.g. /var/cache/images",
    r"^[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._/-]+)?$": "host[:port][/path], e.g. registry.k8s.io",
    r"^[0-9A-F]{40}$": "a key fingerprint: 40 upper-case hexadecimal digits without spaces",
    r"^[0-9a-f]{64}$": "a SHA-256 checksum: 64 lower-case hexadecimal digits",
    r"^[\w .:/=+@-]+$": "letters, digits, spaces and . : / = + @ _ -",
}

PASSWORD_FIX = "write {config: bgpPassword}, and run ./lab secret STACK bgpPassword, which asks for it and encrypts it"

_KINDS = {
    "string_type": ("text", "put it in quotes if it is what you mean"),
    "int_type": ("a whole number", "write digits only, without quotes"),
    "float_type": ("a number", "write digits only, without quotes"),
    "bool_type": ("true or false", "write true or false, without quotes"),
    "model_type": ("a mapping", "write keys and values under it, such as {key: value}"),
    "dict_type": ("a mapping", "write keys and values under it, such as {key: value}"),
    "tuple_type": ("a list", "write its items as lines that start with '- '"),
}

_ADDRESSES: dict[object, tuple[str, str]] = {
    IPv4Address: ("an IPv4 address", "write four numbers with dots, e.g. 10.0.1.100"),
    IPv4Interface: ("an IPv4 address with its prefix length", "write e.g. 10.1.128.7/24"),
    IPv4Network: ("an IPv4 network", "write its first address and prefix length, e.g. 10.0.1.0/24"),
}

_LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def _place_of(loc: Sequence[str | int], raw: object) -> tuple[KeyPath, bool]:
    """The path of pydantic's location `loc`, and whether the error is in the key and not in its value.

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
    in_key = path[-1:] == ["[key]"] and get_origin(bare(annotation_at(raw, tuple(path[:-1])))) is not dict
    return tuple(path[:-1] if in_key else path), in_key


def _loc(error: ErrorDetails) -> Sequence[str | int]:
    """pydantic's location of the error. An error of the whole lab names the key that it belongs to."""
    return (error["ctx"]["key"],) if error["type"] == NODE_COUNT else error["loc"]


@dataclass(frozen=True)
class Flaw:
    """What is wrong with one value.

    `finding`: None if another Flaw's finding covers it. `path`: the place of the value. `unreliable`: the key on which
    no rule may rely now; for a misspelt key that is the one that was probably meant. `missing`: the value is required,
    and there is none.
    """

    finding: Finding | None
    path: KeyPath
    unreliable: KeyPath
    missing: bool = False


def flaws(errors: Sequence[ErrorDetails], raw: object) -> Iterator[Flaw]:
    """A Flaw for each of pydantic's errors on `raw`, without those that only follow from another."""
    found = [(error, *_place_of(_loc(error), raw)) for error in errors]
    misspelt = {for_unknown_key(raw, path).meant for error, path, _ in found if error["type"] == "extra_forbidden"}
    in_ipv6 = [path for _, path, in_key in found if not in_key and _is_ipv6(raw, path)]
    yield from _ipv6_flaws(in_ipv6, raw)
    ipv6_pools = {path[:3] for path in in_ipv6 if path[:2] == ("calico", "pools")}
    for error, path, in_key in found:
        if path in in_ipv6 or path[:3] in ipv6_pools:
            continue
        # A required key that is misspelt gives one finding, as an unknown key.
        if error["type"] == "missing" and path in misspelt:
            continue
        value = path[-1] if in_key else value_at(raw, path)
        # pydantic also calls a list too short whose items are all broken. The items have findings of their own.
        if error["type"] == "too_short" and isinstance(value, list) and value:
            continue
        yield _flaw(error, path, value, raw, in_key=in_key)


def _ipv6_flaws(paths: Sequence[KeyPath], raw: object) -> Iterator[Flaw]:
    """One Finding for all IPv6 addresses of the file, at the first of them. The others are flaws without a finding.

    All keys of a pool with such an address are flaws, because its block size and encapsulation are for IPv6 as well.
    """
    if not paths:
        return
    first, *others = paths
    ipv4 = [text for text in _parts(value_at(raw, first)) if not isinstance(_interface(text), IPv6Interface)]
    wanted = ipv4[0] if ipv4 else _ADDRESSES[bare(annotation_at(raw, first))][0]
    more = f"; the same goes for {', '.join(map(dotted, others))}" if others else ""
    finding = Finding(dotted(first), shown(value_at(raw, first)), _NO_IPV6, f"write {wanted} alone{more}")
    yield Flaw(finding, first, first)
    pools = {path[:3]: None for path in paths if path[:2] == ("calico", "pools")}
    for path in (*others, *((*pool, key) for pool in pools for key in value_at(raw, pool) if key != "name")):
        if path != first:
            yield Flaw(None, path, path)


_NO_IPV6 = "IPv6 is not supported, nor is dual stack"


def _is_ipv6(raw: object, path: KeyPath) -> bool:
    """Whether the value at `path` should be IPv4 and has an IPv6 address or range, alone or in a list."""
    wanted = bare(annotation_at(raw, path))
    return wanted in _ADDRESSES and any(isinstance(_interface(p), IPv6Interface) for p in _parts(value_at(raw, path)))


def _parts(value: object) -> list[str]:
    """The items of a list in one text, which is how dual stack is written: 10.244.0.0/16,fd00::/64."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else []


def _interface(text: str) -> IPv4Interface | IPv6Interface | None:
    with suppress(ValueError):
        return ip_interface(text)
    return None


def _flaw(error: ErrorDetails, path: KeyPath, value: object, raw: object, *, in_key: bool) -> Flaw:
    kind, context = error["type"], error.get("ctx", {})
    seen, unreliable = shown(value), path
    match kind:
        case "extra_forbidden":
            advice = for_unknown_key(raw, path)
            unreliable = advice.meant or path
            problem, fix = "is an unknown key", advice.fix
        case "missing":
            seen, problem, fix = "missing", "this key is required", f"add {path[-1]}{_example(path)}"
        case "union_tag_not_found" | "union_tag_invalid":
            words = tags_at(raw, path)
            path = unreliable = (*path, context["discriminator"].strip("'"))
            given = value_at(raw, path)
            seen, problem = ("missing", "this key is required") if given is None else (shown(given), "is unknown")
            fix = _one_of(given, words)
        case "literal_error" if path[-1] == "nodeAddressAutodetection" and (advised := autodetection(value)):
            problem, fix = "is not one of the possible values", advised
        case "literal_error":
            words = [str(w) for w in get_args(bare(annotation_at(raw, path)))]
            problem, fix = "is not one of the possible values", _one_of(value, words)
        case "string_pattern_mismatch":
            problem = f"{'this key ' * in_key}does not have the required form"
            fix = f"write {PATTERNS[context['pattern']]}"
            if path[-1] == "controlPlaneEndpoint" and isinstance(value, str) and value and ":" not in value:
                # kubeadm accepts an endpoint without a port.
                fix = f"write {value}:6443"
        case "string_too_long":
            problem, fix = "is too long", f"write at most {context['max_length']} characters"
        case "value_error":
            problem, fix = _address_problem(value, bare(annotation_at(raw, path)))
        case "too_short":
            problem, fix = "is empty", "give at least one"
        case "greater_than_equal" | "greater_than" | "less_than_equal" | "less_than":
            ((op, bound),) = context.items()
            problem, fix = "is out of range", f"make it {_LIMITS[op]} {bound}"
        case "string_type" if (wanted := bare(annotation_at(raw, path))) in _ADDRESSES:
            problem, fix = _address_problem(value, wanted)
        case "string_type" if path[-1] == "version" and isinstance(value, float):
            # YAML reads 1.36 as a number. `seen` is its text in the file.
            problem, fix = "is not a whole version", f"write all three parts, e.g. {seen}.0"
        case _ if kind == NODE_COUNT:
            problem, fix, unreliable = context["problem"], context["fix"], ("nodes",)
        case "model_type" if path[-1:] == ("password",):
            seen, problem, fix = "a password", "must not be in the file as it is", PASSWORD_FIX
        case "json_text":
            problem, fix = error["msg"], "correct the text there, or write it as a mapping"
        case _ if kind in _KINDS:
            what, fix = _KINDS[kind]
            problem = f"must be {what}"
            if value is None:
                fix = "write a value; a key that is not required can be left out"
            elif kind == "string_type" and isinstance(value, (dict, list)):
                fix = f"write one word or one line in place of the {'mapping' if isinstance(value, dict) else 'list'}"
        case _:
            problem, fix = error["msg"][0].lower() + error["msg"][1:], "see stacks/schema.json"
    return Flaw(Finding(dotted(path), seen, problem, fix), path, unreliable, missing=seen == "missing")


def _address_problem(value: object, wanted: object) -> tuple[str, str]:
    """Problem and fix for a value that is not the IPv4 address or network that it should be."""
    what, fix = _ADDRESSES.get(wanted, ("valid", "see stacks/schema.json"))
    interface = _interface(value) if isinstance(value, str) else None
    if interface is not None and wanted is not IPv4Address and not str(value).rpartition("/")[2].isdecimal():
        if "/" in str(value):
            return "has a mask in place of a prefix length", f"write {interface}"
        return "has no prefix length", "add it, e.g. /24 for 256 addresses or /32 for one"
    if wanted is IPv4Network and interface is not None:
        return "is an address inside a network, not a network", f"write {interface.network}"
    return f"is not {what}", fix


def _one_of(value: object, words: Sequence[str]) -> str:
    meant = nearest(value, words) if isinstance(value, str) else None
    # Calico's word None is easily written as YAML's null.
    meant = "None" if value is None and "None" in words else meant
    return (f"did you mean {meant}? One of " if meant else "write one of ") + ", ".join(words)


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


# --- placeholders -----------------------------------------------------------------------------------------------------

# Takes the place of a required value that is missing or broken. No rule sees it: rules that read the key do not run.
_PLACEHOLDERS: dict[str, object] = {
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
    "kubernetes.patches[].target": "etcd",
    "kubernetes.patches[].patch": {},
    "calico.pools[].cidr": "203.0.113.0/24",
    "calico.peers[].peerIP": "203.0.113.1",
    "calico.peers[].asNumber": 64512,
    "calico.peers[].password.config": "none",
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


def has_placeholder(path: KeyPath) -> bool:
    """Whether there is a placeholder for the value at `path`."""
    parent, _, last = pattern_of(path).rpartition(".")
    return pattern_of(path) in _PLACEHOLDERS or (last == "name" and parent in _NAMED)


def with_placeholder(raw: object, path: KeyPath) -> object:
    """A copy of `raw` with a placeholder at `path`, or without that key if it is not required."""
    pattern = pattern_of(path)
    parent, _, last = pattern.rpartition(".")
    if last == "name" and parent in _NAMED:
        return _replaced(raw, path, f"placeholder-{path[-2]}")
    return _replaced(raw, path, _PLACEHOLDERS.get(pattern))


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
