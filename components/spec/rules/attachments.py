"""What an attachment or a workload asks for by itself: fixed addresses, MACs, interface names, annotations, devices."""

from __future__ import annotations

import json
from collections.abc import Iterator

from components.spec.findings import Finding, shown
from components.spec.gateways import firewalls_of, forwards
from components.spec.grammar.labels import is_key
from components.spec.links import gateway, is_shared
from components.spec.models import (
    AddressedNetwork,
    AttachedNetwork,
    Attachment,
    BridgeNetwork,
    CustomNetwork,
    HostDeviceNetwork,
    IpvlanNetwork,
    Lab,
    MacvlanNetwork,
    StaticAddresses,
    Workload,
)
from components.spec.modes import IPIP
from components.spec.placement import POOLS_ANNOTATION, is_on_each, nodes_for, pod_count, pools_for, selected
from components.spec.rules.core import POD_PLACES, listed, repeated, rule
from components.spec.rules.networks import REFUSED_INTERFACES, handed_out, how_to_keep, last_host, may_hand_out

OWN_ANNOTATIONS = {
    "v1.multus-cni.io/default-network": "write defaultNetwork",
    "k8s.v1.cni.cncf.io/networks": "write networks",
    "k8s.v1.cni.cncf.io/network-status": "remove it: Multus writes it",
}
RESOURCE = "k8s.v1.cni.cncf.io/resourceName"
"""A NetworkAttachmentDefinition's annotation: the resource whose devices its pods get (Multus, docs/how-to-use.md)."""


def _attachments(lab: Lab) -> Iterator[tuple[str, Workload, Attachment, AttachedNetwork]]:
    """The key of each attachment, its workload, itself, and its network if there is one."""
    networks = {network.name: network for network in lab.networks}
    for index, workload in enumerate(lab.workloads):
        for number, attachment in enumerate(workload.networks):
            if attachment.name in networks:
                yield f"workloads[{index}].networks[{number}]", workload, attachment, networks[attachment.name]


_NETWORKS = ("networks[].name", "networks[].type", "networks[].subnet", "networks[].ipam", "networks[].config")
_PLACES = (
    *POD_PLACES,
    "nodes",
    *_NETWORKS,
)
"""What says on which nodes pods run, and on which networks."""


@rule("workloads[].networks", *_NETWORKS, each="workloads[]")
def fixed_addresses_fit(lab: Lab) -> Iterator[Finding]:
    for key, _, attachment, network in _attachments(lab):
        if isinstance(network, CustomNetwork):
            if attachment.ips:
                yield from _capability(f"{key}.ips", shown(attachment.ips), network, "ips")
            continue
        if network.subnet.prefixlen > 30:
            continue
        subnet, (first, last) = network.subnet, handed_out(network)
        for number, address in enumerate(attachment.ips):
            place, value, ip = f"{key}.ips[{number}]", str(address), address.ip
            if not subnet[1] <= ip <= last_host(subnet):
                fix = f"choose from {subnet[1]} to {last_host(subnet)}"
                yield Finding(place, value, f"is not a host of the network's subnet {subnet}", fix)
            elif address.network.prefixlen not in (32, subnet.prefixlen):
                problem = f"has another prefix length than the network's subnet {subnet}"
                yield Finding(place, value, problem, f"write {ip}/{subnet.prefixlen}")
            elif isinstance(network, BridgeNetwork) and network.is_gateway and ip == gateway(network):
                problem = f"is the address of the bridge {network.bridge} itself"
                yield Finding(place, value, problem, "choose another, or set isGateway: false on the network")
            elif not isinstance(network.ipam, StaticAddresses) and may_hand_out(network, ip):
                problem = f"may also be handed out: {network.ipam.type} gives {first} to {last}"
                yield Finding(
                    place, value, problem, f"{how_to_keep(network, ip)}, or choose an address outside that range"
                )
        for number, before in repeated([address.ip for address in attachment.ips]):
            problem = f"is ips[{before}] already"
            yield Finding(f"{key}.ips[{number}]", str(attachment.ips[number]), problem, "remove it")
        other_gateway = isinstance(network, BridgeNetwork) and network.is_gateway and gateway(network) != subnet[1]
        if attachment.ips and other_gateway:
            problem = f"needs a bridge at {subnet[1]}, the only gateway that the plugin finds for a fixed address"
            yield Finding(f"{key}.ips", shown(attachment.ips), problem, "remove the network's ipam.gateway")


def _capability(key: str, value: str, network: CustomNetwork, name: str) -> Iterator[Finding]:
    """A plugin of a custom configuration gets the value only if the configuration says that it can take it."""
    plugins = network.config.get("plugins", [network.config])
    declared = [plugin.get("capabilities") for plugin in plugins if isinstance(plugin, dict)]
    if not any(isinstance(found, dict) and found.get(name) is True for found in declared):
        problem = f"does not reach the plugin: the config of network {network.name} does not declare the capability"
        yield Finding(key, value, problem, f"add capabilities: {{{name}: true}} to its plugin")


@rule(*_PLACES, each="workloads[]")
def fixed_macs_fit(lab: Lab) -> Iterator[Finding]:
    for key, workload, attachment, network in _attachments(lab):
        mac, place = attachment.mac, f"{key}.mac"
        if mac is None:
            continue
        count, nodes = pod_count(lab, workload), nodes_for(lab, workload)
        if int(mac[:2], 16) & 1:
            yield Finding(place, mac, "is a multicast address", "let its first byte be even, e.g. 02")
        elif not int(mac.replace(":", ""), 16):
            yield Finding(place, mac, "is no address: the kernel refuses it", "let its first byte be 02")
        elif isinstance(network, CustomNetwork):
            yield from _capability(place, mac, network, "mac")
        elif isinstance(network, IpvlanNetwork | HostDeviceNetwork):
            problem = f"cannot be given to an interface of type {network.type}"
            yield Finding(place, mac, problem, "remove it, or use bridge or macvlan")
        elif count > (1 if is_shared(network) else max(1, len(nodes))):
            where = "one link" if is_shared(network) else f"the bridges of {len(nodes)} nodes"
            problem = f"would be the address of {count} pods on {where}"
            yield Finding(place, mac, problem, "lower replicas, or remove it")


@rule(*_PLACES, each="workloads[]")
def masters_have_one_type(lab: Lab) -> Iterator[Finding]:
    """On a node the kernel lets an interface have macvlan interfaces or ipvlan interfaces. EC2 carries neither."""
    if lab.machines.provider == "aws":
        return
    used: dict[tuple[str, str], set[str]] = {}
    named: set[str] = set()
    for key, workload, _, network in _attachments(lab):
        if not isinstance(network, MacvlanNetwork | IpvlanNetwork) or not pod_count(lab, workload):
            continue
        nodes = {node.name for node in nodes_for(lab, workload)}
        used.setdefault((network.master, network.type), set()).update(nodes)
        other = "macvlan" if network.type == "ipvlan" else "ipvlan"
        both = sorted(nodes & used.get((network.master, other), set()))
        if both and network.master not in named:
            named.add(network.master)
            problem = f"is {network.type} on {network.master}, where other pods on {both[0]} have {other}"
            yield Finding(f"{key}.name", network.name, problem, f"use {other}, or another master: the kernel takes one")


@rule("workloads[].networks", each="workloads[]")
def interface_names(lab: Lab) -> Iterator[Finding]:
    for index, workload in enumerate(lab.workloads):
        names = [a.interface or f"net{number}" for number, a in enumerate(workload.networks, 1)]
        taken = dict(repeated(names))
        for number, name in enumerate(names):
            key = f"workloads[{index}].networks[{number}].interface"
            if name in ("eth0", "lo", IPIP.device):
                # The kernel makes tunl0 in every network namespace, once its module is loaded.
                yield Finding(key, name, "is a name that every pod uses already", "choose another, e.g. net1")
            elif name in REFUSED_INTERFACES:
                yield Finding(key, name, "is a name that the kernel gives to no interface", "choose another, e.g. net1")
            elif number in taken:
                problem = f"is the interface of networks[{taken[number]}] already"
                yield Finding(key, name, problem, "give each its own name")


@rule("workloads[].kind", "workloads[].replicas", each="workloads[]")
def replicas_of_deployments(lab: Lab) -> Iterator[Finding]:
    for index, workload in enumerate(lab.workloads):
        if workload.kind != "Deployment" and "replicas" in workload.model_fields_set:
            has = "one pod on every node" if workload.kind == "DaemonSet" else "one pod"
            problem = f"is a Deployment's; a {workload.kind} has {has}"
            yield Finding(f"workloads[{index}].replicas", str(workload.replicas), problem, "remove it, or the kind")


@rule("workloads[].annotations", "networks[].annotations")
def annotation_keys(lab: Lab) -> Iterator[Finding]:
    items = [*((f"workloads[{n}]", w.annotations) for n, w in enumerate(lab.workloads))]
    items += [(f"networks[{n}]", network.annotations) for n, network in enumerate(lab.networks)]
    for owner, given in items:
        for name, value in given.items():
            key = f"{owner}.annotations.{name}"
            if not is_key(name):
                fix = "write [prefix/]name; the name has at most 63 letters, digits, - _ and ."
                yield Finding(key, shown(value), "is not a valid annotation key", fix)
            elif owner.startswith("workloads") and name in OWN_ANNOTATIONS:
                yield Finding(key, shown(value), "is an annotation that the lab makes", OWN_ANNOTATIONS[name])


@rule(
    "workloads[].annotations",
    "workloads[].defaultNetwork",
    "workloads[].nodeSelector",
    "workloads[].onControlPlane",
    "multus",
    "calico.ipam",
    "calico.pools[].name",
    "calico.pools[].cidr",
    "calico.pools[].nodeSelector",
    "nodes",
    each="workloads[]",
)
def pools_of_pods(lab: Lab) -> Iterator[Finding]:
    """calico-ipam reads the annotation, and no other plugin does. A pool that does not exist stops the pod."""
    known = {name for pool in lab.calico.pools for name in (pool.name, str(pool.cidr))}
    for index, workload in enumerate(lab.workloads):
        text = workload.annotations.get(POOLS_ANNOTATION)
        if text is None:
            continue
        key = f"workloads[{index}].annotations.{POOLS_ANNOTATION}"
        example = f"write e.g. {json.dumps([lab.calico.pools[-1].name])}"
        try:
            wanted = json.loads(text)
        except ValueError:
            wanted = None
        if not isinstance(wanted, list) or not wanted or not all(isinstance(name, str) for name in wanted):
            yield Finding(key, shown(text), "is not a JSON list of pools", example)
            continue
        if unknown := [name for name in wanted if name not in known]:
            problem = f"names {listed(unknown)}, which is not one of calico.pools"
            yield Finding(key, shown(text), problem, f"write {listed([pool.name for pool in lab.calico.pools])}")
        elif (delegate := lab.delegate_of(workload)) is not None:
            problem = f"has no effect: host-local gives the addresses of delegate {delegate.name}"
            yield Finding(key, shown(text), problem, "set defaultNetwork: k8s-pod-network, or the delegate's pool")
        elif lab.calico.ipam == "HostLocal":
            problem = "has no effect: with calico.ipam HostLocal, addresses come from the node's podCIDR"
            yield Finding(key, shown(text), problem, "set calico.ipam: Calico, or remove it")
        else:
            chosen = [selected(lab, pool.node_selector) for pool in pools_for(lab, workload)]
            covered = {node.name for nodes in chosen for node in nodes or ()}
            left = [node.name for node in nodes_for(lab, workload) if node.name not in covered]
            if None not in chosen and left:
                problem = f"names no pool that selects {listed(left)}, where pods may start"
                yield Finding(key, shown(text), problem, "name a pool for every node, or set a nodeSelector")


@rule("workloads[].networks", "workloads[].resources", "networks[].name", "networks[].annotations", each="workloads[]")
def devices_are_requested(lab: Lab) -> Iterator[Finding]:
    """Multus gives a pod the device that kubelet set aside for it, and kubelet does so only if the pod asks for it."""
    for key, workload, attachment, network in _attachments(lab):
        resource = network.annotations.get(RESOURCE)
        if resource is not None and resource not in workload.resources.limits:
            problem = f"hands out devices of {resource}, and the workload requests none"
            fix = f'add resources: {{limits: {{{resource}: "1"}}}} to the workload'
            yield Finding(f"{key}.name", attachment.name, problem, fix)


@rule("networks[].name", "networks[].namespace", "workloads[].networks")
def names_of_fixed_networks(lab: Lab) -> Iterator[Finding]:
    """The definition that the lab makes for an attachment with `ips` (links.definition_name)."""
    taken = {(network.namespace, network.name): index for index, network in enumerate(lab.networks)}
    for key, _, attachment, network in _attachments(lab):
        name = f"{network.name}-fixed"
        if not attachment.ips or not isinstance(network, AddressedNetwork):
            continue
        if (network.namespace, name) in taken:
            other = f"networks[{taken[network.namespace, name]}]"
            problem = f"needs a second definition {name}, and that is the name of {other}"
            yield Finding(f"{key}.ips", shown(attachment.ips), problem, f"give {other} another name")
        elif len(name) > 63:
            problem = f"needs a second definition {name}, whose name would be longer than 63 characters"
            yield Finding(f"{key}.ips", shown(attachment.ips), problem, "give the network a shorter name")


@rule(*_PLACES, "workloads[].defaultNetwork", "multus", "calico.containerIPForwarding")
def firewalls_where_they_are_needed(lab: Lab) -> Iterator[Finding]:
    """A default route through a pod's fixed address needs such a pod on each node, and one that forwards packets."""
    for index, workload in enumerate(lab.workloads):
        number = next((n for n, a in enumerate(workload.networks) if a.default_route is not None), None)
        found = firewalls_of(lab, workload)
        if number is None or not found or not pod_count(lab, workload):
            continue
        key = f"workloads[{index}].networks[{number}].defaultRoute"
        value = str(workload.networks[number].default_route)
        names = listed([firewall.workload.name for firewall in found])
        nodes = nodes_for(lab, workload)
        bare = [n.name for n in nodes if not any(is_on_each(lab, firewall.workload, [n]) for firewall in found)]
        if bare:
            problem = f"is an address of {names}, which need not have a pod on {listed(bare)}, and bridges end there"
            fix = f"let {names} be a DaemonSet that every node of {workload.name} accepts (see onControlPlane)"
            yield Finding(key, value, problem, fix)
        elif not all(forwards(lab, firewall.workload) for firewall in found):
            problem = f"is an address of {names}, whose pods forward no packets"
            fix = "set calico.containerIPForwarding: Enabled, or the delegate's allowIPForwarding: true"
            yield Finding(key, value, problem, fix)


RULES = (
    fixed_addresses_fit,
    fixed_macs_fit,
    masters_have_one_type,
    interface_names,
    replicas_of_deployments,
    annotation_keys,
    pools_of_pods,
    devices_are_requested,
    names_of_fixed_networks,
    firewalls_where_they_are_needed,
)
