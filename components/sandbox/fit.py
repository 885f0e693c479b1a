"""The lab that a sandbox stands for: the stack file's, less what has no machine or no kernel module behind it here."""

from __future__ import annotations

from typing import Any

from components.sandbox.requirements import Kernel, filter_tool
from components.spec.models import AttachedNetwork, CustomNetwork, Lab, LocalMachines

_INSTEAD = {"IPIP": "VXLAN", "IPIPCrossSubnet": "VXLANCrossSubnet"}


def fit(lab: Lab, kernel: Kernel) -> tuple[Lab, list[str]]:
    """The lab as it can be built here, and what is different, each as one line for a person."""
    notes: list[str] = []
    # The machines are this computer's.
    changes: dict[str, Any] = {"machines": LocalMachines(provider="local"), "verify": False}
    if lab.machines.provider == "existing":
        # The MTU is what the lab's own machines would have.
        changes["network"] = lab.network.model_copy(update={"mtu": lab.link_mtu})
    calico: dict[str, Any] = {}
    if lab.calico.wireguard and "wireguard" in kernel.lacks:
        calico["wireguard"] = False
        notes.append("calico.wireguard is left out, pods' packets are not encrypted: this kernel has no WireGuard")
    if "ipip" in kernel.lacks:
        pools = []
        for pool in lab.calico.pools:
            instead = _INSTEAD.get(pool.encapsulation)
            if instead:
                notes.append(f"pool {pool.name} has {instead} instead of {pool.encapsulation}: this kernel has no IPIP")
            pools.append(pool.model_copy(update={"encapsulation": instead}) if instead else pool)
        calico["pools"] = tuple(pools)
    match filter_tool(lab), lab.calico.linux_dataplane:
        case "iptables", "Nftables":
            calico["linux_dataplane"] = "Iptables"
            notes.append("Felix' and kube-proxy's rules are iptables' instead of nftables': nft is not installed")
        case "nft", "Iptables":
            calico["linux_dataplane"] = "Nftables"
            notes.append("Felix' and kube-proxy's rules are nftables' instead of iptables': iptables is not installed")
    if calico:
        changes["calico"] = lab.calico.model_copy(update=calico)
    networks: list[AttachedNetwork] = []
    for attached in lab.networks:
        if attached.type in kernel.lacks:
            notes.append(f"network {attached.name} is a device that leads nowhere: this kernel has no {attached.type}")
            spec = {"name": attached.name, "namespace": attached.namespace, "type": "custom"}
            networks.append(CustomNetwork.model_validate(spec | {"config": {"type": attached.type}}))
            continue
        if isinstance(attached, CustomNetwork):
            notes.append(f"network {attached.name} is a device that leads nowhere: a sandbox runs no CNI plugin")
        networks.append(attached)
    changes["networks"] = tuple(networks)
    if "services" in kernel.lacks:
        notes.append("Services lead nowhere: this kernel lacks the matches of kube-proxy's rules")
    if lab.calico.bgp == "Enabled":
        notes.append("BGP's sessions and routes are as BIRD would have them: no BIRD runs")
        if not lab.calico.mesh and not lab.calico.route_reflectors:
            notes.append("calico.peers are no part of a sandbox: the routes are those that a mesh would give")
    return lab.model_copy(update=changes), notes
