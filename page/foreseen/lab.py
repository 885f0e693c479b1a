"""A planned lab in the form in which a live one is read, so that the page shows both by the same code."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from components.sandbox import links, nat, proxy
from components.sandbox.files import node_files
from components.sandbox.model import IPIP_DEVICE, Plan
from components.sandbox.objects import make_objects
from components.sandbox.plan import make_plan
from components.sandbox.services import SERVICES, SLICES
from components.spec.models import AwsMachines, Lab, Node
from components.verify.model import HOST_SIDE_MAC, Entry, Topic
from components.verify.read import api, facts
from components.verify.read.connection import Completed, Process, Unreachable
from components.verify.read.reading import LiveLab, Reading, read_node
from page.foreseen import nft
from page.foreseen.kernel import Kernel, Namespace

NOT_SENT = "nothing was sent: this is the plan"
_TIME = re.compile(r'^time="[^"]*" ')
_ROUTER = "the router"
# iptables-save begins each table with the chains that the kernel has.
_BASE_CHAINS = [
    "*nat",
    *(f":{chain} ACCEPT [0:0]" for chain in ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING")),
    "COMMIT",
    "*filter",
    *(f":{chain} ACCEPT [0:0]" for chain in ("INPUT", "FORWARD", "OUTPUT")),
    "COMMIT",
]
_CNI_FOLDERS = ("/etc/cni/net.d/", "/etc/cni/multus/net.d/")
_CNI_ENDINGS = (".conf", ".conflist", ".json")


def foresee(lab: Lab, stack: str, nodes: Collection[str] | None = None) -> tuple[LiveLab, Reading]:
    """The lab and the reading of it that its plan leads one to expect. Pings are unread, for nothing was sent.

    `nodes`: only these are read; by default all. Raises ValueError, naming the key, where the pools or ranges are too
    small."""
    plan = make_plan(lab, stack=stack)
    live = LiveLab(lab, plan.blocks, access={}, kubeconfig="")
    listed = make_objects(plan)
    objects = api.Objects({kind: tuple(listed.get(path, ())) for kind, path in api.KINDS.items()})
    cluster = facts.cluster(objects, host_local=lab.calico.ipam == "HostLocal")
    reading = Reading(cluster, facts.pods(objects), services=facts.services(objects))
    if isinstance(lab.machines, AwsMachines):
        off = (Entry({"check": "off"}, "SourceDestCheck: false"),)
        reading.cluster.topics[Topic.SOURCE_DEST] = {node.name: off for node in lab.nodes}
    wanted = [node for node in lab.nodes if nodes is None or node.name in nodes]
    ports = proxy.service_ports(listed[SERVICES], listed[SLICES])
    pod_cidr = str(lab.kubernetes.pod_cidr)
    if lab.calico.linux_dataplane == "Nftables":
        rules = proxy.nft_rules(ports, pod_cidr, str(lab.kubernetes.service_cidr))
    else:
        rules = [*proxy.iptables_jumps(), *proxy.iptables_rules(ports, pod_cidr)]
    asyncio.run(_read(live, reading, plan, wanted, rules))
    return live, reading


async def _read(
    live: LiveLab, reading: Reading, plan: Plan, nodes: Sequence[Node], service_rules: Sequence[str]
) -> None:
    kernel = _kernel(plan, nodes)
    for node in nodes:
        await read_node(live, reading, node.name, _Planned(_observed(plan, node, kernel, service_rules)))
        found = reading.nodes[node.name]
        del found.topics[Topic.PROBE]
        found.unread[Topic.PROBE] = NOT_SENT


@dataclass(frozen=True)
class _Planned:
    """A connection to a node that nobody has made: whatever the program, this is its answer."""

    answer: str

    async def run(self, program: str, *, timeout_seconds: float) -> Completed:
        return Completed(self.answer, "", 0)

    async def start(self, program: str, *, timeout_seconds: float) -> Process:
        raise Unreachable("nothing can be started on a planned node")


def _kernel(plan: Plan, nodes: Sequence[Node]) -> Kernel:
    """The namespaces of the nodes and their pods."""
    kernel = Kernel()
    kernel.run(_ROUTER, links.router_batch(plan))
    for node in nodes:
        here = kernel.namespace(node.name)
        if any(pool.encapsulation.startswith("IPIP") for pool in plan.lab.calico.pools):
            # The kernel makes it with the module.
            device = here.new_link(IPIP_DEVICE)
            device.kind, device.mac = "ipip", "0.0.0.0"
        kernel.run(node.name, links.node_batch(plan, node))
        kernel.run(node.name, links.fdb_batch(plan, node))
        for pod in plan.on(node.name):
            if not pod.host_network:
                kernel.run(pod.netns, links.pod_batch(pod))
                # What the pod learns with its first packet.
                gateway = f"169.254.1.1 dev eth0 lladdr {HOST_SIDE_MAC} REACHABLE"
                kernel.namespace(pod.netns).neighbours.append(gateway)
    return kernel


# --- what observe.sh would print -------------------------------------------------------------------------------------


def _observed(plan: Plan, node: Node, kernel: Kernel, service_rules: Sequence[str]) -> str:
    """A node as components/verify/read/observe.sh would print it."""
    return "".join(f"\x1e{name}\n{text}\n\x1f0\n" for name, text in _sections(plan, node, kernel, service_rules))


def _sections(plan: Plan, node: Node, kernel: Kernel, service_rules: Sequence[str]) -> Iterator[tuple[str, str]]:
    here, files = kernel.namespace(node.name), node_files(plan, node)
    yield from _tables("", here)
    yield "fdb", _text(here.fdb)
    yield "proxy_arp", _text([f"/proc/sys/net/ipv4/conf/{name}/proxy_arp:{_proxy_arp(name)}" for name in here.links])
    yield "ip_forward", "1"
    yield "rp_filter", _text([f"/proc/sys/net/ipv4/conf/{name}/rp_filter:0" for name in ("all", *here.links)])
    yield "file", _text([f"{path} {_escaped(text)}" for path, (text, _) in sorted(files.items()) if _is_cni(path)])
    # Without its time, so that the same lab is foreseen in the same words.
    yield "crio", _TIME.sub("", files["/var/log/sandbox-crio.log"][0].splitlines()[-1])
    yield "host_local", _text([path for path in files if path.startswith("/var/lib/cni/networks/")])
    if plan.lab.calico.linux_dataplane == "Nftables":
        ruleset = [*nat.nat_ruleset(plan, node), *service_rules]
        yield "filter", _text(ruleset)
        yield "nat nft", nft.listed(ruleset)
    else:
        rules = [*_BASE_CHAINS, *nat.nat_rules(plan, node), *service_rules]
        yield "filter", _text(rules)
        yield "nat iptables", _text(rules)
    if "/var/lib/sandbox-bird" in files:
        yield "bgp", files["/var/lib/sandbox-bird"][0]
    if plan.lab.calico.wireguard:
        yield "encrypted", _text(here.routes("1"))
    forwarding = links.forwarding(plan, node)
    for pod in plan.on(node.name):
        if pod.host_network:
            continue
        yield from _tables(f"pod {pod.netns} ", kernel.namespace(pod.netns))
        if pod_rules := nat.firewall_rules(plan, pod):
            yield f"pod {pod.netns} ip_forward", "1" if pod.netns in forwarding else "0"
            yield f"pod {pod.netns} filter", _text(pod_rules)


def _tables(prefix: str, namespace: Namespace) -> Iterator[tuple[str, str]]:
    yield f"{prefix}link", namespace.links_json()
    yield f"{prefix}route", _text(namespace.routes())
    yield f"{prefix}neighbour", _text(namespace.neighbours)


def _proxy_arp(interface: str) -> int:
    """Felix switches it on on the host side of every pod."""
    return int(interface.startswith("cali"))


def _is_cni(path: str) -> bool:
    return path.startswith(_CNI_FOLDERS) and path.endswith(_CNI_ENDINGS)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _text(lines: Sequence[str]) -> str:
    return "\n".join(lines)
