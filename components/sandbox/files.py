"""The files of a sandbox's node: what the product, Calico, Multus and host-local leave there."""

from __future__ import annotations

from typing import Any

from components.calico.blocks import block_of, range_of
from components.multus import delegates
from components.multus.manifests import STANDBY
from components.node.script import text_of
from components.sandbox.links import pod_mtu
from components.sandbox.model import Plan
from components.spec.addresses import given_mtu
from components.spec.models import BridgeNetwork, HostLocal, Lab, Node
from components.spec.placement import selected


def node_files(plan: Plan, node: Node) -> dict[str, tuple[str, int]]:
    """Path → (text, mode)."""
    lab = plan.lab
    files: dict[str, tuple[str, int]] = {}

    def put(path: str, content: Any, mode: int = 0o644) -> None:
        files[path] = (content if isinstance(content, str) else text_of(path, content), mode)

    put("/etc/cni/net.d/10-calico.conflist", calico_conflist(lab), 0o600)
    put("/etc/cni/net.d/calico-kubeconfig", "# Kubeconfig file for Calico CNI plugin.\n", 0o600)
    put("/var/lib/calico/nodename", node.name)
    put("/var/lib/calico/mtu", str(pod_mtu(plan)))
    put("/var/lib/cni-lab/owner", f"cni-lab/{plan.stack}\n")
    put("/var/lib/cni-lab/joined", "")
    if lab.multus:
        for delegate in lab.multus.delegates:
            first, last = range_of(lab, plan.blocks, node.name, delegate)
            block = block_of(lab, plan.blocks, node.name, delegate)
            config = delegates.delegate_config(lab, delegate, subnet=str(block), start=str(first), end=str(last))
            put(f"{delegates.DELEGATE_DIRECTORY}/{delegate.name}.conf", config)
        put(delegates.KUBECONFIG, "# The client certificate of cni-lab:multus.\n", 0o600)
        bridges = sorted({network.bridge for network in lab.networks if isinstance(network, BridgeNetwork)})
        if bridges:
            put("/var/lib/cni-lab/bridges", "".join(f"{bridge}\n" for bridge in bridges))
        put("/etc/cni/net.d/00-multus.conf", delegates.multus_config(lab.multus))
        put("/etc/cni/net.d/70-multus.conf", delegates.multus_config(lab.multus, STANDBY))
    if lab.calico.bgp == "Enabled":
        put("/var/lib/sandbox-bird", bird_protocols(lab, node))
    # What CRI-O logged while the files came one after the other; journalctl.py continues from there.
    names = ["k8s-pod-network", "k8s-pod-network"]
    if lab.multus:
        names = [STANDBY, *names, delegates.DEFAULT_NETWORK]
    began = plan.started.removesuffix("Z")
    lines = [
        f'time="{began}.{number}00000000Z" level=info msg="Updated default CNI network name to {name}"\n'
        for number, name in enumerate(names)
    ]
    put("/var/log/sandbox-crio.log", "".join(lines))
    last_of: dict[str, str] = {}
    for pod in plan.on(node.name):
        entries = [(pod.delegate.name, str(pod.address), "eth0")] if pod.delegate else []
        entries += [
            (extra.network.name, str(address.ip), extra.interface)
            for extra in pod.extras
            if not extra.fixed and isinstance(getattr(extra.network, "ipam", None), HostLocal)
            for address in extra.addresses
        ]
        for network, address, interface in entries:
            put(f"/var/lib/cni/networks/{network}/{address}", f"{pod.container}\r\n{interface}")
            last_of[network] = address
    for network, address in last_of.items():
        put(f"/var/lib/cni/networks/{network}/last_reserved_ip.0", address)
        put(f"/var/lib/cni/networks/{network}/lock", "")
    # CRI-O takes a configuration only where the executables of its plugins are. None of them is run here.
    for plugin in {*delegates.plugins(lab), "portmap", "loopback", "calico-ipam"}:
        put(f"/opt/cni/bin/{plugin}", "#!/bin/sh\necho 'not a plugin: this is a sandbox' >&2\nexit 1\n", 0o755)
    return files


def bird_protocols(lab: Lab, node: Node) -> str:
    """What `birdcl show protocols` prints in calico-node: the mesh, or the sessions with route reflectors; and those
    with peers outside, whose prefix is Node because each has a nodeSelector."""
    reflectors = lab.calico.route_reflectors
    kind = "Mesh" if lab.calico.mesh else "Node"
    lines = [
        "BIRD v0.3.3+birdv1.6.8 ready.",
        "name     proto    table    state  since       info",
        "static1  Static   master   up     15:20:01    ",
        "kernel1  Kernel   master   up     15:20:01    ",
        "device1  Device   master   up     15:20:01    ",
        "direct1  Direct   master   up     15:20:01    ",
    ]
    for other in lab.nodes:
        if other.name != node.name and (lab.calico.mesh or {node.name, other.name} & set(reflectors)):
            name = f"{kind}_{other.address}".replace(".", "_")
            lines.append(f"{name} BGP      master   up     15:20:05    Established   ")
    for peer in lab.calico.peers:
        if node not in (selected(lab, peer.node_selector) or ()):
            continue
        name = f"Node_{peer.peer_ip}".replace(".", "_")
        lines.append(f"{name} BGP      master   up     15:20:05    Established   ")
    return "".join(f"{line}\n" for line in lines)


def calico_conflist(lab: Lab) -> dict[str, Any]:
    """10-calico.conflist as the operator's calico-node writes it."""
    calico: dict[str, Any] = {
        "container_settings": {"allow_ip_forwarding": lab.calico.container_ip_forwarding == "Enabled"},
        "datastore_type": "kubernetes",
        "ipam": {"assign_ipv4": "true", "assign_ipv6": "false", "type": "calico-ipam"},
        "kubernetes": {"k8s_api_root": delegates.api_server(lab), "kubeconfig": "/etc/cni/net.d/calico-kubeconfig"},
        "log_file_max_age": 30,
        "log_file_max_count": 10,
        "log_file_max_size": 100,
        "log_file_path": "/var/log/calico/cni/cni.log",
        "log_level": "Info",
        "mtu": given_mtu(lab) or 0,
        "nodename_file_optional": False,
        "policy": {"type": "k8s"},
        "policy_setup_timeout_seconds": 0,
        "type": "calico",
    }
    portmap = {"capabilities": {"portMappings": True}, "snat": True, "type": "portmap"}
    return {"cniVersion": "0.3.1", "name": "k8s-pod-network", "plugins": [calico, portmap]}
