"""Faults on purpose: what each breaks, in which labs it can, and what verify and walk must then say.

A fault is data. Where it strikes is a Target, chosen so that a packet shows it where one can. What verify must then
report follows from the lab's expectations: those of the thing that was broken, and the pings whose way crosses it.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from itertools import product
from pathlib import Path

from components.multus import delegates
from components.spec import addresses, models
from components.verify import source_dest
from components.verify.expectations import IPIP, VXLAN, VXLAN_PORT, Expectation, Lab, delegate_of, expectations, probes
from components.verify.facts import Pod, tunnel_mac
from components.verify.read.connection import Unreachable, render
from components.verify.reading import CONNECTIONS_AT_ONCE, Live

TIMEOUT_SECONDS = 60.0
SCRIPT = Path(__file__).with_name("fault.sh")
MULTUS_FILE = "/etc/cni/net.d/00-multus.conf"
OUTSIDE = "8.8.8.8"
"""An address that a pod reaches by its default route only."""


@dataclass(frozen=True)
class Target:
    """Where a fault strikes. `variables`: fault.sh's, beside the fault's own. `breaks`: topic and key of the node's,
    or with `inside` the pod's, expectations that are then false."""

    node: str
    what: str
    breaks: tuple[tuple[str, str], ...]
    variables: Mapping[str, str] = field(default_factory=dict)
    pod: Pod | None = None
    peer: str = ""
    inside: bool = False


@dataclass(frozen=True)
class Fault:
    """`refusal`: why a lab has no such thing to break, else None. `targets`: where it can strike, best first.
    `cuts`: whether it loses what a pod sends to a pod of another node. `hop`: where walk then stops; none where no
    packet of a pod that runs is lost. `kind`: what fault.sh does; empty: not on the node."""

    id: str
    title: str
    heals: str
    kind: str
    hop: str | None
    refusal: Callable[[models.Lab], str | None]
    targets: Callable[[Lab], Iterator[Target]]
    cuts: Callable[[Lab, Target, Pod, Pod], bool] = lambda lab, target, source, destination: False


@dataclass(frozen=True)
class Symptoms:
    """What verify must report failed, and nothing else; `walk`: arguments of walk that show it, and it stops at
    `hop` of `node`."""

    failed: tuple[Expectation, ...]
    walk: tuple[str, str] | None
    hop: str | None
    node: str


class Refused(ValueError):
    """The fault cannot strike there; str() says why and what can be done."""


# --- the way of a packet ----------------------------------------------------------------------------------------------


def way(lab: Lab, source: Pod, destination: Pod) -> str:
    """How a packet crosses between the two pods' nodes: VXLAN, IPIP, WireGuard, or plain."""
    if lab.lab.calico.wireguard:
        return "WireGuard"
    pool = lab.pool_of(f"{destination.address}/32")
    mode = pool.encapsulation if pool else "None"
    subnet = {node.name: node.subnet for node in lab.lab.nodes}
    if mode == "None" or (mode.endswith("CrossSubnet") and subnet[source.node] == subnet[destination.node]):
        return "plain"
    return mode.removesuffix("CrossSubnet")


def leaves_by(lab: Lab, pod: Pod, address: str) -> tuple[str, str]:
    """The route and the interface by which a workload's pod sends to an address: a network, or "default"; eth0, net1.
    Of two equal routes the further network's is the first."""
    workload = _workload(lab, pod)
    if workload is None:
        return "default", "eth0"
    home = {network.name: network for network in lab.lab.networks}
    found: list[tuple[int, IPv4Network, str]] = []
    for number, attachment in enumerate(workload.networks, 1):
        network = home[attachment.name]
        if isinstance(network, models.AddressedNetwork):
            found += [(number, dst, f"net{number}") for dst in (network.subnet, *(r.dst for r in network.routes))]
    delegate = delegate_of(lab.lab, workload)
    found += [(len(workload.networks) + 1, route, "eth0") for route in (delegate.routes if delegate else ())]
    fitting = [entry for entry in found if IPv4Address(address) in entry[1] and entry[1].prefixlen]
    if not fitting:
        return "default", _default_by(lab.lab, workload) or "eth0"
    _, route, interface = min(fitting, key=lambda entry: (-entry[1].prefixlen, entry[0]))
    return str(route), interface


def _workload(lab: Lab, pod: Pod) -> models.Workload | None:
    return next((w for w in lab.lab.workloads if (w.name, w.namespace) == (pod.workload, pod.namespace)), None)


def _default_by(lab: models.Lab, workload: models.Workload) -> str | None:
    """The interface of its pods' default route; None where they have none."""
    further = next((f"net{n}" for n, a in enumerate(workload.networks, 1) if a.default_route), None)
    delegate = delegate_of(lab, workload)
    return further or (None if delegate and delegate.routes else "eth0")


# --- where a fault can strike -----------------------------------------------------------------------------------------


def _nodes(lab: Lab) -> list[str]:
    """Workers first: there the lab's pods are."""
    return [node.name for node in (*lab.lab.workers, *lab.lab.control_planes)]


def _pods(lab: Lab) -> Iterator[Pod]:
    """Pods of the lab's workloads, as the nodes come: those whose pings verify looks at are the first of each."""
    for node in _nodes(lab):
        yield from sorted(
            (pod for pod in lab.running(node) if _workload(lab, pod)), key=lambda pod: (pod.namespace, pod.name)
        )


def _source_dest(lab: Lab) -> Iterator[Target]:
    for node in _nodes(lab):
        yield Target(node, f"switch EC2's source/destination check of {node} on", (("source_dest", node),))


def _dropped(protocol: str, rule: str, name: str) -> Callable[[Lab], Iterator[Target]]:
    def targets(lab: Lab) -> Iterator[Target]:
        for node in _nodes(lab):
            yield Target(node, f"drop {name} that reaches {node}", (("filter", protocol),), {"RULE": rule})

    return targets


def _fdb(lab: Lab) -> Iterator[Target]:
    for node, peer in product(_nodes(lab), _nodes(lab)):
        if node != peer:
            mac = tunnel_mac(peer)
            what = f"take {peer}'s entry ({mac}) out of the forwarding table of {VXLAN} on {node}"
            yield Target(node, what, (("fdb", f"{VXLAN} {mac}"),), {"MAC": mac}, peer=peer)


def _proxy_arp(lab: Lab) -> Iterator[Target]:
    for pod in _pods(lab):
        what = f"switch proxy ARP off on {pod.interface} of {pod.node}, the host side of {pod.id}"
        yield Target(pod.node, what, (("proxy_arp", pod.interface),), {"INTERFACE": pod.interface}, pod)


def _multus(lab: Lab) -> Iterator[Target]:
    breaks = (("file", "first"), ("file", MULTUS_FILE), ("crio", "default network"))
    for node in _nodes(lab):
        yield Target(node, f"empty {MULTUS_FILE} on {node}", breaks, {"FILE": MULTUS_FILE})


def _renamed(lab: Lab) -> Iterator[Target]:
    # The seed's own: the last delegate, which pods ask for by name.
    for delegate, node in product(reversed(lab.lab.multus.delegates if lab.lab.multus else ()), _nodes(lab)):
        if addresses.block_in_pool(lab.blocks.get(node, ()), lab.lab.pool_of(delegate)) is not None:
            path = f"{delegates.DELEGATE_DIRECTORY}/{delegate.name}.conf"
            what = f"rename {path} on {node} to {delegate.name}.conf.bak"
            yield Target(node, what, (("file", path),), {"FILE": path})


def _default_route(lab: Lab) -> Iterator[Target]:
    """The seed's own: pods whose default route goes through a second network. Only there is it a black hole: on eth0
    the host side's proxy ARP answers for every address, so a gateway that is none does no harm."""
    for pod in _pods(lab):
        workload = _workload(lab, pod)
        interface = _default_by(lab.lab, workload) if workload else None
        own = next(map(str, pod.networks.get(interface or "", {}).get("ips") or ()), "")
        if own and interface and interface != "eth0":
            what = f"point the default route of {pod.id} on {pod.node} at {own}, its own address on {interface}"
            variables = {"INTERFACE": pod.interface, "GATEWAY": own, "DEVICE": interface}
            yield Target(pod.node, what, (("route", "default"),), variables, pod, inside=True)


# --- in which labs ----------------------------------------------------------------------------------------------------


def _only_on_aws(lab: models.Lab) -> str | None:
    if isinstance(lab.machines, models.AwsMachines):
        return None
    return f"machines.provider is {lab.machines.provider}: only EC2 has a source/destination check"


def _only_with(kind: str) -> Callable[[models.Lab], str | None]:
    def refusal(lab: models.Lab) -> str | None:
        if lab.calico.wireguard:
            return f"calico.wireguard: packets between nodes travel inside WireGuard, none by {kind}"
        if kind not in {tunnel.name for tunnel in lab.tunnels}:
            modes = ", ".join(sorted(set(lab.encapsulations)))
            return f"calico.pools: no pool uses {kind} (encapsulation: {modes}), so no packet travels by it"
        return None if len(lab.nodes) > 1 else "nodes: there is one, so no packet leaves it"

    return refusal


def _only_with_multus(lab: models.Lab) -> str | None:
    return None if lab.multus else "multus: the lab has none"


def _only_with_pods(lab: models.Lab) -> str | None:
    return None if any(workload.replicas for workload in lab.workloads) else "workloads: the lab has no pods of its own"


def _only_with_default_route(lab: models.Lab) -> str | None:
    if any(workload.replicas and _default_by(lab, workload) not in (None, "eth0") for workload in lab.workloads):
        return None
    return (
        "workloads: no pod's default route goes through a second network (defaultRoute), "
        f"and on eth0 proxy ARP answers for any gateway, not for {addresses.GATEWAY} alone"
    )


_STAYS = "nothing, it stays until mend"

FAULTS: Mapping[str, Fault] = {
    fault.id: fault
    for fault in (
        Fault(
            "source-dest-check",
            "EC2's source/destination check is on: a node may send and receive under its own address only",
            "`up --refresh`, which switches it off again",
            "",
            "arrival",
            _only_on_aws,
            _source_dest,
            lambda lab, t, a, b: t.node in (a.node, b.node) and way(lab, a, b) == "plain",
        ),
        Fault(
            "vxlan-dropped",
            f"a packet filter drops UDP {VXLAN_PORT}: what comes to the node by VXLAN",
            f"{_STAYS}; Felix minds its own chains only. A restart of the node clears it",
            "filter",
            "arrival",
            _only_with("VXLAN"),
            _dropped(f"udp {VXLAN_PORT}", f"-p udp --dport {VXLAN_PORT}", f"UDP {VXLAN_PORT}"),
            lambda lab, t, a, b: t.node == b.node and way(lab, a, b) == "VXLAN",
        ),
        Fault(
            "ipip-dropped",
            "a packet filter drops IP protocol 4: what comes to the node by IPIP",
            f"{_STAYS}; Felix minds its own chains only. A restart of the node clears it",
            "filter",
            "arrival",
            _only_with("IPIP"),
            _dropped("4", "-p 4", f"IP protocol 4 ({IPIP})"),
            lambda lab, t, a, b: t.node == b.node and way(lab, a, b) == "IPIP",
        ),
        Fault(
            "fdb-gone",
            f"an entry of {VXLAN}'s forwarding table is gone: the node knows no outer address for a peer",
            "Felix, when it next compares its entries with the kernel's: within 90 s (routeRefreshInterval)",
            "fdb",
            "tunnel",
            _only_with("VXLAN"),
            _fdb,
            lambda lab, t, a, b: (t.node, t.peer) == (a.node, b.node) and way(lab, a, b) == "VXLAN",
        ),
        Fault(
            "proxy-arp-off",
            f"the host side of a pod answers no ARP for {addresses.GATEWAY}: the pod finds no gateway",
            "Felix, but only when the pod or its interface changes, or calico-node starts again",
            "sysctl",
            "gateway arp",
            _only_with_pods,
            _proxy_arp,
            lambda lab, t, a, b: a == t.pod and leaves_by(lab, a, b.address)[1] == "eth0",
        ),
        Fault(
            "multus-emptied",
            "00-multus.conf is empty: CRI-O takes the next file, and new pods get Calico's network alone",
            _STAYS,
            "emptied",
            None,
            _only_with_multus,
            _multus,
        ),
        Fault(
            "delegate-renamed",
            "a delegate's file is named .conf.bak, which Multus never reads: new pods that ask for it do not start",
            _STAYS,
            "renamed",
            None,
            _only_with_multus,
            _renamed,
        ),
        Fault(
            "wrong-default-route",
            "a pod's default route leads to the pod's own address on its second network: a black hole",
            "nothing, but it goes with the pod: its successor is made right",
            "route",
            "pod route",
            _only_with_default_route,
            _default_route,
            lambda lab, t, a, b: a == t.pod and leaves_by(lab, a, b.address)[0] == "default",
        ),
    )
}


# --- choosing, and what follows ---------------------------------------------------------------------------------------


def find(name: str, lab: models.Lab) -> Fault:
    """A fault that this lab can have. Raises Refused."""
    fault = FAULTS.get(name)
    if fault is None:
        raise Refused(f"there is no fault {name!r}; there are: {', '.join(FAULTS)}")
    why = fault.refusal(lab)
    if why is not None:
        raise Refused(f"{name} cannot be in this lab: {why}")
    return fault


def aim(fault: Fault, lab: Lab, node: str | None = None) -> Target:
    """Where it strikes: the first place where a ping of verify shows it, else the first place. Raises Refused."""
    names = [n.name for n in lab.lab.nodes]
    if node is not None and node not in names:
        raise Refused(f"--node {node}: there is no such node; there are: {', '.join(names)}")
    targets = [target for target in fault.targets(lab) if node in (None, target.node)]
    if not targets:
        where = f" on {node}" if node else ""
        raise Refused(f"{fault.id} finds nothing to break{where}: it needs a running pod of the lab, or a node's block")
    pings = crossings(lab)
    return next((t for t in targets if any(_lost(fault, lab, t, a, b) for a, b in pings)), targets[0])


def crossings(lab: Lab) -> list[tuple[Pod, Pod]]:
    """Who pings whom in verify."""
    by_interface = {pod.interface: pod for pod in lab.pods if pod.running}
    by_address = {pod.address: pod for pod in lab.pods if pod.running}
    return [
        (by_interface[interface], by_address[address]) for pairs in probes(lab).values() for interface, address in pairs
    ]


def _lost(fault: Fault, lab: Lab, target: Target, source: Pod, destination: Pod) -> bool:
    """Whether a ping is: on its way out, or back."""
    return fault.cuts(lab, target, source, destination) or fault.cuts(lab, target, destination, source)


def symptoms(fault: Fault, lab: Lab, target: Target) -> Symptoms:
    """What verify and walk must say while the fault is there."""
    lost = {(a.interface, b.address) for a, b in crossings(lab) if _lost(fault, lab, target, a, b)}
    failed = []
    for e in expectations(lab):
        if e.topic == "probe":
            wanted = tuple(e.key.split(" ")) in lost
        else:
            inside = target.pod.interface if target.inside and target.pod else None
            # What EC2 and the API say of a node stands without one.
            wanted = e.node in (target.node, None) and e.pod == inside and (e.topic, e.key) in target.breaks
        if wanted:
            failed.append(e)
    return Symptoms(tuple(failed), _example(fault, lab, target), fault.hop, target.node)


def _example(fault: Fault, lab: Lab, target: Target) -> tuple[str, str] | None:
    """Two pods between which walk shows it: the fault on the way out where it can be."""
    pods = list(_pods(lab))
    crossing = [(a, b) for a, b in product(pods, pods) if a.node != b.node and fault.cuts(lab, target, a, b)]
    for a, b in sorted(crossing, key=lambda pair: pair[1].node != target.node if fault.hop == "arrival" else 0):
        return a.id, b.id
    if target.pod is not None and fault.hop is not None:
        return target.pod.id, OUTSIDE
    return None


# --- doing ------------------------------------------------------------------------------------------------------------


def owner(stack: str) -> str:
    """What a node of the stack says in /var/lib/cni-lab/owner."""
    return f"cni-lab/{stack}"


async def inject(live: Live, stack: str, fault: Fault, target: Target) -> None:
    """Break it, after it was written down. Raises Refused where the node says no, Unreachable."""
    if not fault.kind:
        said = await asyncio.to_thread(source_dest.switch_on, live.instances, target.node, stack, live.region)
        if said:
            raise Refused(said)
        return
    variables = {"DO": "break", "OWNER": owner(stack), "FAULT": fault.id, "KIND": fault.kind, **target.variables}
    async with live.connect(target.node) as connection:
        try:
            done = await connection.run(render(SCRIPT, variables), timeout_seconds=TIMEOUT_SECONDS)
        except Unreachable as error:
            raise Unreachable(
                f"{error}. What it did is written down on the node: `./lab mend {shlex.quote(stack)}` undoes it"
            ) from None
    if done.status:
        raise Refused(f"{target.node}: {_last(done.stderr) or f'status {done.status}'}")


@dataclass(frozen=True)
class Mended:
    """`done`: node, fault, how. `failed`: node → why, where something is not known to be whole."""

    done: tuple[tuple[str, str, str], ...]
    failed: Mapping[str, str]


async def mend(live: Live, stack: str) -> Mended:
    """Put back all that was broken, on every node that answers, newest first."""
    gate = asyncio.Semaphore(CONNECTIONS_AT_ONCE)
    failed: dict[str, str] = {}

    async def one(node: str) -> list[tuple[str, str, str]]:
        async with gate:
            try:
                async with live.connect(node) as connection:
                    program = render(SCRIPT, {"DO": "mend", "OWNER": owner(stack)})
                    done = await connection.run(program, timeout_seconds=TIMEOUT_SECONDS)
            except Unreachable as error:
                failed[node] = str(error)
                return []
        if done.status:
            failed[node] = _last(done.stderr) or f"status {done.status}"
        lines = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
        return [(node, name.partition("-")[2], how) for name, how, *_ in lines]

    nodes = [node.name for node in live.lab.nodes]
    done = [entry for entries in await asyncio.gather(*map(one, nodes)) for entry in entries]
    if isinstance(live.lab.machines, models.AwsMachines) and live.instances:
        switched = await asyncio.to_thread(source_dest.switch_back, live.instances, stack, live.region)
        if isinstance(switched, str):
            failed["EC2"] = switched
        else:
            done += [(node, "source-dest-check", how) for node, how in switched.items()]
    return Mended(tuple(done), failed)


def _last(errors: str) -> str:
    lines: Sequence[str] = [line for line in errors.splitlines() if line.strip()]
    return "; ".join(lines[-2:])
