"""From what a person types to the two ends of a walk."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from ipaddress import AddressValueError, IPv4Address
from typing import NamedTuple

from components.verify.model import Pod
from components.verify.services import ServicePort
from components.verify.walk.model import NoWalk

NODE_NAMESPACE = "node"
"""A node as an end is a Pod of this namespace, on the host's network. No Pod of a cluster has an id like node/NAME,
unless somebody makes a namespace of this name: then the node is meant."""
_SERVICE = re.compile(r"(?:service|services|svc)[/ ]")


class Ends(NamedTuple):
    """Where a packet goes from and to. `target` None: the address is outside of the lab, or an endpoint of `service`
    has not been chosen yet. `protocol`: icmp, tcp or udp; `port`: 0 for icmp."""

    source: Pod
    target: Pod | None
    address: str
    service: ServicePort | None = None
    protocol: str = "icmp"
    port: int = 0

    @property
    def nodes(self) -> list[str]:
        """The nodes to read, the source's first."""
        return list(dict.fromkeys([self.source.node, *([self.target.node] if self.target else [])]))


def node_end(name: str, address: str) -> Pod:
    """A node as the end of a walk."""
    return Pod(NODE_NAMESPACE, name, name, address, True, "Running", None, {}, "")


def find_ends(
    pods: Sequence[Pod],
    source: str,
    target: str,
    *,
    nodes: Mapping[str, str] | None = None,
    tunnels: Mapping[str, str] | None = None,
    services: Sequence[ServicePort] = (),
    tcp: int | None = None,
) -> Ends:
    """Two different pods or nodes, or one and an address or a Service. An address that a pod, a node or a Service has
    is that. `nodes`: node → address. `tunnels`: address of a node's end of a tunnel → node. `tcp`: the port that a TCP
    connection goes to instead of a ping. Raises NoWalk."""
    known = dict(nodes or {})
    port, protocol = tcp or 0, "tcp" if tcp else "icmp"
    start = _find(pods, known, source)
    if _SERVICE.match(target):
        found = find_service(services, _SERVICE.sub("", target, count=1), tcp)
        return Ends(start, None, found.address, found, found.protocol, found.port)
    try:
        address = str(IPv4Address(target))
    except AddressValueError:
        end = _find(pods, known, target, other_than=start)
        if end.id == start.id:
            # A workload and one of its pods: any other pod of the workload may be the source.
            start = _find(pods, known, source, other_than=end)
        if end.id == start.id:
            raise NoWalk(f"{source} and {target} are one pod, {start.id}: name two") from None
        return Ends(start, end, end.address, None, protocol, port)
    of_address = [service for service in services if service.address == address]
    if of_address:
        found = _port_of(of_address, f"{address}", str(tcp or ""))
        return Ends(start, None, address, found, found.protocol, found.port)
    if kind := _not_routed(IPv4Address(address)):
        raise NoWalk(f"{target} is a {kind} address, and a walk goes to one pod, node or host: name another")
    end_pod = _owner(pods, known, address)
    if end_pod is None and (node := (tunnels or {}).get(address)):
        end_pod = node_end(node, address)
    return _checked(Ends(start, end_pod, address, None, protocol, port))


def ends_on_node(ends: Ends, has_address: bool) -> Ends:
    """The ends where the address that was taken for one outside of the lab is on an interface of the source's node,
    such as a bridge. Raises NoWalk where that node is the source."""
    if ends.target is not None or ends.service is not None or not has_address:
        return ends
    return _checked(ends._replace(target=node_end(ends.source.node, ends.address)))


def _checked(ends: Ends) -> Ends:
    """Raises NoWalk where the packet would not leave its source."""
    if ends.target is not None and ends.target.id == ends.source.id:
        raise NoWalk(f"{ends.address} is the address of {ends.source.id} itself: name another")
    return ends


def _not_routed(address: IPv4Address) -> str:
    """What kind of address it is, if no router forwards packets to it alone; else empty."""
    if address.is_loopback:
        return "loopback"
    if address.is_multicast:
        return "multicast"
    return "reserved" if address.is_reserved or address.is_unspecified else ""


def _find(pods: Sequence[Pod], nodes: Mapping[str, str], name: str, *, other_than: Pod | None = None) -> Pod:
    """A node by node/NAME, or by its name where no pod has that; a pod or node by its address; else a pod."""
    explicit = name.removeprefix("node/")
    if explicit != name:
        if explicit not in nodes:
            raise NoWalk(f"there is no node {explicit}; there are: {', '.join(nodes)}")
        return node_end(explicit, nodes[explicit])
    name = name.removeprefix("pod/")
    if name in nodes and not any(name in (pod.name, pod.id, pod.workload) for pod in pods):
        return node_end(name, nodes[name])
    if re.fullmatch(r"[0-9.]+", name):
        return _at_address(pods, nodes, name)
    return find_pod(pods, name, other_than=other_than)


def _at_address(pods: Sequence[Pod], nodes: Mapping[str, str], text: str) -> Pod:
    """The running pod or the node that has this address. Raises NoWalk."""
    try:
        address = str(IPv4Address(text))
    except AddressValueError:
        raise NoWalk(f"{text} is not an IPv4 address") from None
    if found := _owner(pods, nodes, address):
        return found
    raise NoWalk(f"no pod and no node of the lab has the address {address}, and a walk begins at one of them")


def _owner(pods: Sequence[Pod], nodes: Mapping[str, str], address: str) -> Pod | None:
    """The running pod, else the node, that has this address."""
    pod = next((pod for pod in pods if pod.running and pod.address == address), None)
    return pod or next((node_end(name, its) for name, its in nodes.items() if its == address), None)


def find_pod(pods: Sequence[Pod], name: str, *, other_than: Pod | None = None) -> Pod:
    """A pod by [NAMESPACE/]NAME, or one of a workload's by [NAMESPACE/]NAME of the workload: the lab's own before a
    Deployment or DaemonSet of others. @NODE chooses one on a node. Raises NoWalk. `other_than`: another pod is
    preferred, and one on another node."""
    wanted, _, node = name.partition("@")
    named = [pod for pod in pods if wanted in (pod.name, pod.id)]
    named = named or [pod for pod in pods if pod.workload and wanted in _names(f"{pod.namespace}/{pod.workload}")]
    named = named or [pod for pod in pods if wanted in _names(pod.controller.partition(" ")[2])]
    found = [pod for pod in named if not node or pod.node == node]
    if named and not found:
        on = ", ".join(sorted({pod.node for pod in named if pod.node}))
        raise NoWalk(f"there is no pod {name}; {wanted} has pods on: {on or 'no node'}")
    if not found:
        known = ", ".join(sorted({p.workload for p in pods if p.running and p.workload})) or "none of the lab's"
        raise NoWalk(
            f"there is no pod {name}; the lab's workloads are: {known}. Also: [NAMESPACE/]NAME of any pod, Deployment "
            "or DaemonSet; node/NAME; service/NAME[:PORT]"
        )
    # A pod with a network of its own before one on its node's.
    candidates = [pod for pod in found if pod.running] or [pod for pod in found if _runs(pod)] or found
    if other_than is not None:
        candidates = [pod for pod in candidates if pod.id != other_than.id] or candidates
        candidates = [pod for pod in candidates if pod.node != other_than.node] or candidates
    pod = candidates[0]
    if not _runs(pod):
        raise NoWalk(f"{pod.id} does not run (phase {pod.phase or 'unknown'}, address {pod.address or 'none'})")
    return pod


def _names(workload: str) -> tuple[str, str]:
    """How NAMESPACE/NAME may be written."""
    return workload, workload.partition("/")[2]


def _runs(pod: Pod) -> bool:
    """Also on the host's network."""
    return pod.phase == "Running" and bool(pod.address)


# --- Services ---------------------------------------------------------------------------------------------------------


def find_service(services: Sequence[ServicePort], text: str, tcp: int | None = None) -> ServicePort:
    """One port of a Service by [NAMESPACE/]NAME[:PORT]; PORT is a number or a name. Without a namespace, `default` is
    tried first. Raises NoWalk."""
    name, _, port = text.strip().partition(":")
    if port and tcp and port != str(tcp):
        raise NoWalk(f"{text} and --tcp {tcp} name two ports: leave one of them out")
    named = [it for it in services if it.id == name] or [it for it in services if it.id == f"default/{name}"]
    named = named or [it for it in services if it.service == name]
    if len({it.id for it in named}) > 1:
        raise NoWalk(f"there are several Services {name}: write {' or '.join(sorted({it.id for it in named}))}")
    if not named:
        known = ", ".join(dict.fromkeys(it.id for it in services)) or "none with a ClusterIP"
        raise NoWalk(f"there is no Service {name}; there are: {known}")
    return _port_of(named, named[0].id, port or str(tcp or ""))


def _port_of(services: Sequence[ServicePort], name: str, wanted: str) -> ServicePort:
    """The port of a Service; TCP where there is a choice, because a TCP connection can be tried."""
    found = [it for it in services if wanted in ("", str(it.port), it.name)]
    if not found:
        ports = ", ".join(f"{it.port}/{it.protocol}{f' ({it.name})' if it.name else ''}" for it in services)
        raise NoWalk(f"the Service {name} has no port {wanted}; it has: {ports}")
    return min(found, key=lambda it: it.protocol != "tcp")


def choose_endpoint(ends: Ends, pods: Sequence[Pod], nodes: Mapping[str, str], used: str = "") -> Ends:
    """The ends with one endpoint of the Service as target. `used`: ADDRESS:PORT of the one that the real connection
    went to; without it another node's is preferred."""
    service = ends.service
    if service is None or not service.endpoints:
        return ends
    of_used = [it for it in service.endpoints if it.text == used]
    others = [it for it in service.endpoints if it.node != ends.source.node]
    chosen = (of_used or others or list(service.endpoints))[0]
    target = next((pod for pod in pods if chosen.pod == pod.id), None)
    if target is None:
        target = _owner(pods, nodes, chosen.address)
    return ends._replace(target=target)
