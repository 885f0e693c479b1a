"""What Multus needs on a node, and what a pod must have from it: the files, and the attached networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import NamedTuple

from components.multus import delegates
from components.spec import addresses, models
from components.spec.links import definition_name, fixed_addresses, gateway
from components.verify.expect.shared import inside, renew
from components.verify.model import (
    Expectation,
    ObservedLab,
    Pod,
    Repair,
    Topic,
    Value,
    canonical_json,
)
from components.verify.routes import destination_of

MULTUS_FILE = "/etc/cni/net.d/00-multus.conf"
# Kubernetes keeps events for an hour (kube-apiserver --event-ttl).
_EVENT_LIFE = timedelta(minutes=50)
_AFTER_BREAK = "if `./lab break` did it: `./lab mend STACK`"


# --- a node's files --------------------------------------------------------------------------------------------------


def files(observed: ObservedLab, node: models.Node, multus: models.Multus) -> Iterator[Expectation]:
    """The CNI files of a node, the delegates' ranges in its block, and what CRI-O makes of the files."""
    spec, name = observed.spec, node.name
    yield Expectation(
        topic=Topic.FILE,
        key="first",
        expected={"name": "00-multus.conf"},
        sentence=f"00-multus.conf is the first usable file in {name}'s /etc/cni/net.d",
        command="ls /etc/cni/net.d",
        because="CRI-O takes the first file that it can use",
        cause="00-multus.conf is empty, broken or gone, or another file sorts before it",
        repair=Repair.FILES,
        advice=_AFTER_BREAK,
        node=name,
    )
    yield _file(name, MULTUS_FILE, delegates.multus_config(multus), "Multus as the node's default network")
    for delegate in multus.delegates:
        block = addresses.block_in_pool(observed.blocks.get(name, ()), spec.pool_of(delegate))
        if block is None:
            continue
        start, end = addresses.delegate_range(block, delegate)
        config = delegates.delegate_config(spec, delegate, subnet=str(block), start=str(start), end=str(end))
        contents = f"delegate {delegate.name}, {start}-{end} of {name}'s block {block}"
        yield _file(name, delegate_file(delegate.name), config, contents)
        yield Expectation(
            topic=Topic.FREE,
            key=delegate.name,
            expected={"taken": ""},
            sentence=f"calico-ipam has given none of {delegate.name}'s addresses {start}-{end} on {name}",
            command="./lab addresses STACK",
            because="host-local gives them; an address that both give belongs to two pods at once",
            cause="the pod is older than the reservation",
            advice=f"delete the pods that are named; their successors get addresses outside {start}-{end}",
            node=name,
        )
    yield Expectation(
        topic=Topic.CRIO,
        key="default network",
        expected={"name": delegates.DEFAULT_NETWORK},
        sentence=f"CRI-O of {name} uses {delegates.DEFAULT_NETWORK}",
        command="journalctl -u crio | grep 'Updated default CNI network name' | tail -1",
        because="this is the name inside 00-multus.conf",
        cause="CRI-O did not take 00-multus.conf: new pods get Calico's network only",
        repair=Repair.FILES,
        advice="journalctl -u crio | grep CNI shows why",
        node=name,
    )


def delegate_file(delegate: str) -> str:
    """The path of a delegate's file on every node."""
    return f"{delegates.DELEGATE_DIRECTORY}/{delegate}.conf"


def _file(node: str, path: str, config: Mapping[str, object], contents: str) -> Expectation:
    return Expectation(
        topic=Topic.FILE,
        key=path,
        expected={key: canonical_json(value) for key, value in config.items()},
        sentence=f"{path} on {node}: {contents}",
        command=f"cat {path}",
        because="the stack file and the node's block",
        cause="the file was renamed, emptied or edited; a file whose name does not end in .conf is not read",
        repair=Repair.FILES,
        advice=_AFTER_BREAK,
        node=node,
    )


# --- a pod's interfaces ----------------------------------------------------------------------------------------------


class _Attached(NamedTuple):
    """An attached network as a pod has it: its interface, the entry of the workload, the network."""

    interface: str
    attachment: models.Attachment
    network: models.AttachedNetwork


def _attached(observed: ObservedLab, workload: models.Workload) -> Iterator[_Attached]:
    by_name = {network.name: network for network in observed.spec.networks}
    for interface, attachment in workload.interfaces.items():
        yield _Attached(interface, attachment, by_name[attachment.name])


def default_interface(spec: models.Lab, workload: models.Workload) -> str | None:
    """The interface of the default route of a workload's pods; None where they have none."""
    for interface, attachment in workload.interfaces.items():
        if attachment.default_route:
            return interface
    delegate = spec.delegate_of(workload)
    return None if delegate and delegate.routes else "eth0"


def gateway_bridge(observed: ObservedLab, pod: Pod, interface: str) -> str | None:
    """The bridge on the pod's node that is the gateway of one of the pod's attached networks; None where the network
    has none."""
    workload = observed.workload_of(pod)
    for attached in _attached(observed, workload) if workload else ():
        network = attached.network
        if attached.interface == interface and isinstance(network, models.BridgeNetwork) and network.is_gateway:
            return network.bridge
    return None


def interfaces(observed: ObservedLab, pod: Pod, workload: models.Workload) -> Iterator[Expectation]:
    """What Multus reports of the pod's interfaces; then each attached network's device, routes and bridge."""
    yield from _reports(observed, pod, workload)
    for attached in _attached(observed, workload):
        interface, network = attached.interface, attached.network
        if isinstance(network, models.AddressedNetwork):
            yield _device(observed.spec, pod, attached, network)
            yield from _routes(pod, interface, network)
        if isinstance(network, models.BridgeNetwork) and network.is_gateway:
            yield _bridge(pod.node, network)
        gateway = attached.attachment.default_route
        if gateway is not None:
            yield inside(
                pod,
                topic=Topic.ROUTE,
                key="default",
                expected={"via": str(gateway), "dev": interface},
                sentence=f"{pod.id}'s default route is by {gateway} on {interface}",
                command="ip route show default",
                because=f"defaultRoute of workload {workload.name}",
                cause="the default route was changed. If it leads to the pod's own address, packets go nowhere",
            )


def _reports(observed: ObservedLab, pod: Pod, workload: models.Workload) -> Iterator[Expectation]:
    wanted = [("eth0", f"kube-system/{observed.spec.default_network(workload)}")]
    for attached in _attached(observed, workload):
        name = definition_name(attached.network, attached.attachment)
        wanted.append((attached.interface, f"{attached.network.namespace}/{name}"))
    for interface, network in wanted:
        fields: dict[str, Value] = {"name": network, "default": "true" if interface == "eth0" else "false"}
        if interface == "eth0":
            fields["ips"] = pod.address
        yield Expectation(
            topic=Topic.STATUS,
            key=f"{pod.id} {interface}",
            expected=fields,
            sentence=f"Multus reports that {pod.id} has {interface} from {network}",
            command=f"kubectl -n {pod.namespace} get pod {pod.name} -o yaml | grep -A20 network-status",
            because="the workload asks for it, or it is multus.clusterNetwork",
            cause="CRI-O did not use Multus when the pod was made",
            advice=renew(pod),
            about=f"{pod.node}/{pod.id}",
        )
        if _has_events(observed, pod):
            yield Expectation(
                topic=Topic.EVENT,
                key=f"{pod.id} {interface}",
                expected={"from": network},
                sentence=f"there is an event that {pod.id} got {interface} from {network}",
                command=f"kubectl -n {pod.namespace} describe pod {pod.name} | grep AddedInterface",
                because="Multus makes an event for every interface; Kubernetes keeps it for an hour",
                cause="Multus is not allowed to make events, or did not make the interface",
                advice=renew(pod),
                about=f"{pod.node}/{pod.id}",
            )


def _has_events(observed: ObservedLab, pod: Pod) -> bool:
    """Whether the pod is so young that its events are still there."""
    try:
        return observed.now - datetime.fromisoformat(pod.started) < _EVENT_LIFE
    except ValueError:
        return False


def _device(spec: models.Lab, pod: Pod, attached: _Attached, network: models.AddressedNetwork) -> Expectation:
    fields: dict[str, Value] = {"up": "yes"}
    interface, attachment = attached.interface, attached.attachment
    # The stack file's own addresses are known; of others, what Multus reports.
    found = fixed_addresses(attached.network, attachment) or pod.networks.get(interface, {}).get("ips")
    if found:
        fields["addresses"] = " ".join(f"{address}/{network.subnet.prefixlen}" for address in found)
    if attachment.mac:
        fields["address"] = attachment.mac.lower()
    if mtu := addresses.attached_mtu(spec, network):
        fields["mtu"] = str(mtu)
    return inside(
        pod,
        topic=Topic.LINK,
        key=interface,
        expected=fields,
        sentence=f"{pod.id} has {interface} in {network.subnet}",
        command=f"ip addr show {interface}",
        because=f"network {network.name}",
        cause="the pod was made without Multus, or the plugin failed",
    )


def _routes(pod: Pod, interface: str, network: models.AddressedNetwork) -> Iterator[Expectation]:
    for route in network.routes:
        fields: dict[str, Value] = {"dev": interface}
        if route.gateway:
            fields["via"] = str(route.gateway)
        yield inside(
            pod,
            topic=Topic.ROUTE,
            key=destination_of(route.dst),
            expected=fields,
            sentence=f"{pod.id} sends {route.dst} by {interface}",
            command=f"ip route show {route.dst}",
            because=f"routes of network {network.name}",
            cause="the pod is older than the network's routes",
        )


def connected(observed: ObservedLab, pod: Pod, workload: models.Workload) -> Iterator[Expectation]:
    """The routes that the kernel makes for the subnets of the attached networks."""
    for interface, _, network in _attached(observed, workload):
        if isinstance(network, models.AddressedNetwork):
            yield inside(
                pod,
                topic=Topic.ROUTE,
                key=destination_of(network.subnet),
                expected={"dev": interface, "scope": "link"},
                sentence=f"{pod.id} reaches {network.subnet} on {interface} itself",
                command=f"ip route show {network.subnet}",
                because=f"the subnet of network {network.name}",
                cause=f"{interface} has lost its address",
            )


def _bridge(node: str, network: models.BridgeNetwork) -> Expectation:
    address = gateway(network)
    return Expectation(
        topic=Topic.LINK,
        key=network.bridge,
        expected={"kind": "bridge", "up": "yes", "addresses": f"{address}/{network.subnet.prefixlen}"},
        sentence=f"bridge {network.bridge} of {node} is the gateway {address}",
        command=f"ip -d addr show {network.bridge}",
        because=f"network {network.name} is a bridge with isGateway",
        cause="the bridge was removed, or lost its address",
        advice="delete the pods on it: the plugin makes the bridge again for the next one",
        node=node,
    )
