"""A sandbox's packet filter: what Felix makes on a node, and the rules of pods that are firewalls.

Each function comes twice: as input for `iptables-restore`, and for `nft -f` where Felix would use nftables.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network

from components.sandbox.model import VXLAN_PORT, Plan, Pod
from components.spec.gateways import firewalls
from components.spec.models import BridgeNetwork, Node


def nat_rules(plan: Plan, node: Node) -> list[str]:
    """`iptables-restore`: what leaves the pools (natOutgoing) and the bridges (ipMasq) gets the node's address.

    Felix names the pools by ipsets, cali40masq-ipam-pools and cali40all-ipam-pools; here their ranges are in the
    rules, because not every computer has ipset. VXLAN passes untracked, as Felix sees to it.
    """
    pools = [str(pool.cidr) for pool in plan.lab.calico.pools]
    lines = [
        "*nat",
        ":cali-POSTROUTING - [0:0]",
        ":cali-nat-outgoing - [0:0]",
        "-A POSTROUTING -j cali-POSTROUTING",
        "-A cali-POSTROUTING -j cali-nat-outgoing",
    ]
    lines += [f"-A cali-nat-outgoing -d {cidr} -j RETURN" for cidr in pools]
    lines += [
        f"-A cali-nat-outgoing -s {pool.cidr} ! -o cali+ -j MASQUERADE --random-fully"
        for pool in plan.lab.calico.pools
        if pool.nat_outgoing
    ]
    lines += [
        f"-A POSTROUTING -s {address} ! -d {subnet} -j MASQUERADE" for address, subnet in _masqueraded(plan, node)
    ]
    lines += ["COMMIT", "*raw"]
    if plan.tunnel_address(node.name, "VXLAN"):
        lines += [f"-A {chain} -p udp --dport {VXLAN_PORT} -j NOTRACK" for chain in ("PREROUTING", "OUTPUT")]
    return [*lines, "COMMIT"]


def nat_ruleset(plan: Plan, node: Node) -> list[str]:
    """The same for `nft -f`, in Felix's table `calico`; the bridges' rules are the bridge plugin's own."""
    masqueraded = [str(pool.cidr) for pool in plan.lab.calico.pools if pool.nat_outgoing]
    lines = [
        "table ip calico {",
        *_nft_set("cali40masq-ipam-pools", masqueraded),
        *_nft_set("cali40all-ipam-pools", [str(pool.cidr) for pool in plan.lab.calico.pools]),
        "  chain nat-cali-nat-outgoing {",
        "    ip saddr @cali40masq-ipam-pools ip daddr != @cali40all-ipam-pools masquerade fully-random",
        "  }",
        "  chain nat-cali-POSTROUTING { jump nat-cali-nat-outgoing; }",
        "  chain nat-POSTROUTING {",
        "    type nat hook postrouting priority srcnat; policy accept;",
        "    jump nat-cali-POSTROUTING",
        "  }",
    ]
    if plan.tunnel_address(node.name, "VXLAN"):
        for chain, hook in (("PREROUTING", "prerouting"), ("OUTPUT", "output")):
            lines.append(
                f"  chain raw-{chain} {{ type filter hook {hook} priority raw; udp dport {VXLAN_PORT} notrack; }}"
            )
    lines.append("}")
    if pairs := _masqueraded(plan, node):
        lines += [
            "table ip cni_plugins_masquerade {",
            "  chain masq_checks {",
            "    type nat hook postrouting priority srcnat; policy accept;",
            *(f"    ip saddr {address} ip daddr != {subnet} masquerade" for address, subnet in pairs),
            "  }",
            "}",
        ]
    return lines


def _nft_set(name: str, elements: list[str]) -> list[str]:
    filled = [f"    elements = {{ {', '.join(elements)} }}"] if elements else []
    return [f"  set {name} {{", "    type ipv4_addr; flags interval;", *filled, "  }"]


def firewall_rules(plan: Plan, pod: Pod) -> list[str]:
    """`iptables-restore` in a pod that is the gateway of others: what it takes from the bridge leaves by eth0 with its
    own address, and nothing else is forwarded. Empty for other pods."""
    inside = [f.interface for f in firewalls(plan.lab) if pod.labels.get("cni-lab/workload") == f.workload.name]
    if not inside:
        return []
    accepted = "-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
    lines = ["*filter", ":FORWARD DROP [0:0]", f"-A FORWARD {accepted}"]
    lines += [f"-A FORWARD -i {interface} -o eth0 -j ACCEPT" for interface in inside]
    return [*lines, "COMMIT", "*nat", "-A POSTROUTING -o eth0 -j MASQUERADE", "COMMIT"]


def firewall_ruleset(plan: Plan, pod: Pod) -> list[str]:
    """The same for `nft -f`, where there is no iptables."""
    inside = [f.interface for f in firewalls(plan.lab) if pod.labels.get("cni-lab/workload") == f.workload.name]
    if not inside:
        return []
    return [
        "table ip firewall {",
        "  chain forward {",
        "    type filter hook forward priority filter; policy drop;",
        "    ct state established,related accept",
        *(f'    iifname "{interface}" oifname "eth0" accept' for interface in inside),
        "  }",
        "  chain postrouting {",
        "    type nat hook postrouting priority srcnat; policy accept;",
        '    oifname "eth0" masquerade',
        "  }",
        "}",
    ]


def _masqueraded(plan: Plan, node: Node) -> list[tuple[IPv4Address, IPv4Network]]:
    return [
        (address.ip, extra.network.subnet)
        for pod in plan.on(node.name)
        for extra in pod.extras
        if isinstance(extra.network, BridgeNetwork) and extra.network.ip_masq
        for address in extra.addresses
    ]
