"""kube-proxy's packet filter rules, from the Services and EndpointSlices of the API.

Chains, their names and the order of rules are kube-proxy 1.36's (pkg/proxy/iptables, pkg/proxy/nftables), for
ClusterIPs only: a sandbox has neither node ports nor load balancers. The standard library is all it needs: holder.py
runs it without the lab's virtual environment.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

Object = dict[str, Any]


class ServicePort(NamedTuple):
    """One port of a Service. `name`: NAMESPACE/NAME[:PORT], as kube-proxy names it; `endpoints`: the ready ones, as
    ADDRESS and port."""

    name: str
    protocol: str
    address: str
    port: int
    endpoints: tuple[tuple[str, int], ...]

    @property
    def chain(self) -> str:
        """Its chain in iptables."""
        return f"KUBE-SVC-{_hash(self.name + self.protocol)}"

    def endpoint_chain(self, endpoint: str) -> str:
        """The chain of an endpoint, ADDRESS:PORT, in iptables."""
        return f"KUBE-SEP-{_hash(self.name + self.protocol + endpoint)}"

    @property
    def nft_name(self) -> str:
        """Its part of a chain's name in nftables: hash, namespace, name, protocol and port."""
        spaced, _, port = self.name.partition(":")
        return f"{_hash(self.name + self.protocol)[:8]}-{spaced}/{self.protocol}/{port}"


def _hash(text: str) -> str:
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode()[:16]


def service_ports(services: Iterable[Object], slices: Iterable[Object]) -> list[ServicePort]:
    """Every port of every Service with a ClusterIP, in the order of their names."""
    by_service: dict[tuple[str, str], list[Object]] = {}
    for it in slices:
        labels = it["metadata"].get("labels") or {}
        key = (it["metadata"]["namespace"], labels.get("kubernetes.io/service-name", ""))
        by_service.setdefault(key, []).append(it)
    found = []
    for service in services:
        key = (service["metadata"]["namespace"], service["metadata"]["name"])
        for port in service["spec"]["ports"]:
            name = port.get("name", "")
            endpoints = [
                (endpoint["addresses"][0], theirs["port"])
                for slice_ in by_service.get(key, ())
                for theirs in slice_["ports"]
                if theirs.get("name", "") == name
                for endpoint in slice_["endpoints"]
                if endpoint["conditions"]["ready"]
            ]
            full = "/".join(key) + (f":{name}" if name else "")
            address, protocol = service["spec"]["clusterIP"], port["protocol"].lower()
            found.append(ServicePort(full, protocol, address, port["port"], tuple(endpoints)))
    return sorted(found, key=lambda port: port.name)


# --- iptables ---------------------------------------------------------------------------------------------------------

_PORTALS = '-m comment --comment "kubernetes service portals"'
_MARK = "0x4000/0x4000"


def iptables_jumps() -> list[str]:
    """`iptables-restore --noflush`, once: how packets get into kube-proxy's chains."""
    new = "-m conntrack --ctstate NEW"
    return [
        "*filter",
        ":KUBE-FORWARD - [0:0]",
        ":KUBE-SERVICES - [0:0]",
        f"-A FORWARD -m comment --comment {_quoted('kubernetes forwarding rules')} -j KUBE-FORWARD",
        f"-A FORWARD {new} {_PORTALS} -j KUBE-SERVICES",
        f"-A OUTPUT {new} {_PORTALS} -j KUBE-SERVICES",
        "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
        f"-A KUBE-FORWARD -m comment --comment {_quoted('kubernetes forwarding rules')} -m mark --mark {_MARK} "
        "-j ACCEPT",
        f"-A KUBE-FORWARD -m comment --comment {_quoted('kubernetes forwarding conntrack rule')} -m conntrack "
        "--ctstate RELATED,ESTABLISHED -j ACCEPT",
        "COMMIT",
        "*nat",
        ":KUBE-MARK-MASQ - [0:0]",
        ":KUBE-POSTROUTING - [0:0]",
        ":KUBE-SERVICES - [0:0]",
        f"-A PREROUTING {_PORTALS} -j KUBE-SERVICES",
        f"-A OUTPUT {_PORTALS} -j KUBE-SERVICES",
        f"-A POSTROUTING -m comment --comment {_quoted('kubernetes postrouting rules')} -j KUBE-POSTROUTING",
        f"-A KUBE-MARK-MASQ -j MARK --set-xmark {_MARK}",
        f"-A KUBE-POSTROUTING -m mark ! --mark {_MARK} -j RETURN",
        "-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0",
        f"-A KUBE-POSTROUTING -m comment --comment {_quoted('kubernetes service traffic requiring SNAT')} "
        "-j MASQUERADE --random-fully",
        "COMMIT",
    ]


def iptables_rules(ports: Sequence[ServicePort], pod_cidr: str, before: Sequence[ServicePort] = ()) -> list[str]:
    """`iptables-restore --noflush`: the chains of the Services. `before`: the ports that the present rules are of;
    chains that are no longer needed are deleted."""
    reject, lines, chains = [], [], ["KUBE-SERVICES"]
    for port in ports:
        what = f"-d {port.address}/32 -p {port.protocol} -m comment --comment"
        matched = f"-m {port.protocol} --dport {port.port}"
        if not port.endpoints:
            comment = _quoted(f"{port.name} has no endpoints")
            reject.append(f"-A KUBE-SERVICES {what} {comment} {matched} -j REJECT --reject-with icmp-port-unreachable")
            continue
        cluster_ip = _quoted(f"{port.name} cluster IP")
        chains.append(port.chain)
        lines.append(f"-A KUBE-SERVICES {what} {cluster_ip} {matched} -j {port.chain}")
        lines.append(f"-A {port.chain} ! -s {pod_cidr} {what} {cluster_ip} {matched} -j KUBE-MARK-MASQ")
        for number, (address, target) in enumerate(port.endpoints):
            endpoint, left = f"{address}:{target}", len(port.endpoints) - number
            chain = port.endpoint_chain(endpoint)
            chance = f" -m statistic --mode random --probability {1 / left:.11f}" if left > 1 else ""
            chains.append(chain)
            comment = f"-m comment --comment {_quoted(f'{port.name} -> {endpoint}')}"
            lines.append(f"-A {port.chain} {comment}{chance} -j {chain}")
            named = f"-m comment --comment {_quoted(port.name)}"
            lines.append(f"-A {chain} -s {address}/32 {named} -j KUBE-MARK-MASQ")
            lines.append(
                f"-A {chain} -p {port.protocol} {named} -m {port.protocol} -j DNAT --to-destination {endpoint}"
            )
    gone = [chain for chain in _chains(before) if chain not in chains]
    return [
        "*filter",
        ":KUBE-SERVICES - [0:0]",
        *reject,
        "COMMIT",
        "*nat",
        *(f":{chain} - [0:0]" for chain in (*chains, *gone)),
        *lines,
        *(f"-X {chain}" for chain in gone),
        "COMMIT",
    ]


def _chains(ports: Iterable[ServicePort]) -> list[str]:
    """The chains of the Services that have endpoints, each before those that it jumps to."""
    found = []
    for port in ports:
        if port.endpoints:
            found.append(port.chain)
            found += [port.endpoint_chain(f"{address}:{target}") for address, target in port.endpoints]
    return found


def _quoted(text: str) -> str:
    return f'"{text}"' if " " in text else text


# --- nftables ---------------------------------------------------------------------------------------------------------


def nft_rules(ports: Sequence[ServicePort], pod_cidr: str, service_cidr: str) -> list[str]:
    """`nft -f`: the whole table, in the place of the one that is there."""
    live = [port for port in ports if port.endpoints]
    addresses = sorted({port.address for port in ports})
    return [
        "table ip kube-proxy",
        "delete table ip kube-proxy",
        "table ip kube-proxy {",
        '  comment "rules for kube-proxy"',
        *_nft_set("cluster-ips", addresses),
        *_nft_map(
            "no-endpoint-services", [f"{_key(port)} : goto reject-chain" for port in ports if not port.endpoints]
        ),
        *_nft_map("service-ips", [f"{_key(port)} : goto service-{port.nft_name}" for port in live]),
        "  chain reject-chain { reject; }",
        "  chain mark-for-masquerade { meta mark set meta mark | 0x00004000; }",
        "  chain masquerading {",
        "    meta mark & 0x00004000 == 0x00000000 return",
        "    meta mark set meta mark ^ 0x00004000",
        "    masquerade fully-random",
        "  }",
        *(line for port in live for line in _nft_service(port, pod_cidr)),
        "  chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }",
        "  chain service-endpoints-check { ip daddr . meta l4proto . th dport vmap @no-endpoint-services; }",
        "  chain cluster-ips-check {",
        '    ip daddr @cluster-ips reject comment "Reject traffic to invalid ports of ClusterIPs"',
        f'    ip daddr {{ {service_cidr} }} drop comment "Drop traffic to unallocated ClusterIPs"',
        "  }",
        *_nft_base("filter-forward", "filter", "forward", "-110", "service-endpoints-check", "cluster-ips-check"),
        *_nft_base("filter-output", "filter", "output", "-110", "service-endpoints-check"),
        *_nft_base("nat-prerouting", "nat", "prerouting", "dstnat", "services"),
        *_nft_base("nat-output", "nat", "output", "-100", "services"),
        *_nft_base("nat-postrouting", "nat", "postrouting", "srcnat", "masquerading"),
        "}",
    ]


def _key(port: ServicePort) -> str:
    return f"{port.address} . {port.protocol} . {port.port}"


def _nft_set(name: str, elements: Sequence[str]) -> list[str]:
    filled = [f"    elements = {{ {', '.join(elements)} }}"] if elements else []
    return [f"  set {name} {{", "    type ipv4_addr", *filled, "  }"]


def _nft_map(name: str, elements: Sequence[str]) -> list[str]:
    filled = [f"    elements = {{ {', '.join(elements)} }}"] if elements else []
    return [f"  map {name} {{", "    type ipv4_addr . inet_proto . inet_service : verdict", *filled, "  }"]


def _nft_base(name: str, kind: str, hook: str, priority: str, *jumps: str) -> list[str]:
    new = "ct state new " if kind == "filter" else ""
    head = f"    type {kind} hook {hook} priority {priority}; policy accept;"
    return [f"  chain {name} {{", head, *(f"    {new}jump {jump}" for jump in jumps), "  }"]


def _nft_service(port: ServicePort, pod_cidr: str) -> list[str]:
    named, lines, chains = port.nft_name, [], []
    for address, target in port.endpoints:
        chain = (
            f"endpoint-{_hash(port.name + port.protocol + f'{address}:{target}')[:8]}-{named[9:]}__{address}/{target}"
        )
        chains.append(chain)
        lines += [
            f"  chain {chain} {{",
            f"    ip saddr {address} jump mark-for-masquerade",
            f"    meta l4proto {port.protocol} dnat to {address}:{target}",
            "  }",
        ]
    verdicts = ", ".join(f"{number} : goto {chain}" for number, chain in enumerate(chains))
    return [
        *lines,
        f"  chain service-{named} {{",
        f"    ip daddr {port.address} {port.protocol} dport {port.port} ip saddr != {pod_cidr} "
        "jump mark-for-masquerade",
        f"    numgen random mod {len(chains)} vmap {{ {verdicts} }}",
        "  }",
    ]
