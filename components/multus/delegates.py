"""CNI configurations, as plain dicts: those of Multus, of the delegates on each node, and of the attached networks.

A delegate inherits nothing from Calico's Installation, so each has the MTU, the forwarding and the API's address.
Sources: Calico, "Configure the Calico CNI plugins"; Multus, `docs/configuration.md`; containernetworking/plugins 1.9.1.
"""

from __future__ import annotations

from typing import Any, Final

from components.spec.addresses import api_service_address, attached_mtu, given_mtu
from components.spec.links import definition_name, gateway
from components.spec.models import (
    CALICO_NETWORK,
    AddressedNetwork,
    AttachedNetwork,
    Attachment,
    BridgeNetwork,
    CustomNetwork,
    Delegate,
    HostDeviceNetwork,
    HostLocal,
    IpvlanNetwork,
    Lab,
    MacvlanNetwork,
    Multus,
    StaticAddresses,
    Whereabouts,
)

Config = dict[str, Any]

CNI_VERSION: Final = "0.3.1"
"""The version that Calico's own configuration has. Multus must not use a later one than its delegates."""

DELEGATE_DIRECTORY: Final = "/etc/cni/multus/net.d"
KUBECONFIG: Final = "/etc/cni/multus/multus.kubeconfig"
"""Not in Multus' own `/etc/cni/net.d/multus.d`: the token there is written once and becomes invalid with its pod."""
DEFAULT_NETWORK: Final = "multus-cni-network"


def api_server(lab: Lab) -> str:
    """The URL of the API on every node where kube-proxy runs: the Service `kubernetes`."""
    return f"https://{api_service_address(lab.kubernetes.service_cidr)}:443"


def delegate_config(lab: Lab, delegate: Delegate, *, subnet: Any, start: Any, end: Any) -> Config:
    """Calico's plugin with host-local addresses in a node's block. `subnet` (a CIDR), `start`, `end` may be outputs."""
    ipam: Config = {
        "type": "host-local",
        "ranges": [[{"subnet": subnet, "rangeStart": start, "rangeEnd": end}]],
    }
    if delegate.routes:
        ipam["routes"] = [{"dst": str(dst)} for dst in delegate.routes]
    forwarding = delegate.allow_ip_forwarding
    return {"cniVersion": CNI_VERSION, "name": delegate.name} | _calico_plugin(lab, ipam, forwarding)


def calico_config(lab: Lab) -> Config:
    """Calico's own network, as in the file that Calico writes on every node. Nothing in it depends on the node.

    It is in a NetworkAttachmentDefinition, not a path to Calico's file, for the reason given in `multus_config`.
    """
    ipam: Config = {"type": "calico-ipam", "assign_ipv4": "true", "assign_ipv6": "false"}
    if lab.calico.ipam == "HostLocal":
        # Calico's plugin puts the podCIDR of the pod's node here.
        ipam = {"type": "host-local", "subnet": "usePodCidr"}
    portmap: Config = {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}}
    return {"cniVersion": CNI_VERSION, "name": CALICO_NETWORK, "plugins": [_calico_plugin(lab, ipam), portmap]}


def _calico_plugin(lab: Lab, ipam: Config, forwarding: bool | None = None) -> Config:
    if forwarding is None:
        forwarding = lab.calico.container_ip_forwarding == "Enabled"
    return {
        "type": "calico",
        "datastore_type": "kubernetes",
        # With 0, the plugin reads the MTU that Calico finds on each node, from /var/lib/calico/mtu.
        "mtu": given_mtu(lab) or 0,
        "nodename_file_optional": False,
        "log_level": "Info",
        "log_file_path": "/var/log/calico/cni/cni.log",
        "ipam": ipam,
        "container_settings": {"allow_ip_forwarding": forwarding},
        "policy": {"type": "k8s"},
        "kubernetes": {"k8s_api_root": api_server(lab), "kubeconfig": "/etc/cni/net.d/calico-kubeconfig"},
    }


def multus_config(multus: Multus, name: str = DEFAULT_NETWORK) -> Config:
    """Multus as a CNI network: `clusterNetwork` gives eth0, and a pod gets no other network unless it asks for one."""
    return {
        "cniVersion": CNI_VERSION,
        "name": name,
        "type": "multus",
        "confDir": DELEGATE_DIRECTORY,
        "cniDir": "/var/lib/cni/multus",
        "binDir": "/opt/cni/bin",
        "logFile": "/var/log/multus.log",
        "logLevel": multus.log_level,
        "capabilities": {"portMappings": True},
        # The name of a NetworkAttachmentDefinition. With the path of a file, Multus 4.3.0 loses what Calico's plugin
        # needs to release addresses (k8snetworkplumbingwg/multus-cni#1449).
        "clusterNetwork": multus.cluster_network,
        "defaultNetworks": [],
        "kubeconfig": KUBECONFIG,
    }


def uses_calico_network(lab: Lab) -> bool:
    """Whether Multus gives some pods their eth0 from Calico's own network."""
    multus = lab.multus
    return multus is not None and CALICO_NETWORK in (
        multus.cluster_network,
        *(workload.default_network for workload in lab.workloads),
    )


def network_config(lab: Lab, network: AttachedNetwork) -> Config:
    """The CNI configuration of an attached network. A custom one gets defaults for the two required keys."""
    head: Config = {"cniVersion": CNI_VERSION, "name": network.name}
    if isinstance(network, CustomNetwork):
        return head | network.config
    config = head | {"type": network.type} | _kind(network)
    if any(a.mac and not a.ips for a in _attached(lab, network)):
        config["capabilities"] = {"mac": True}
    if (mtu := attached_mtu(lab, network)) is not None:
        config["mtu"] = mtu
    return config | {"ipam": _ipam(network)}


def fixed_config(lab: Lab, network: AttachedNetwork) -> Config | None:
    """The network's second configuration, for pods that ask for addresses of their own (links.definition_name).

    The plugin static takes the addresses of the runtimeConfig; it knows no gateway, so every route names one. None if
    no pod asks for an address.
    """
    asking = [attachment for attachment in _attached(lab, network) if attachment.ips]
    if not asking or isinstance(network, CustomNetwork):
        return None
    ipam: Config = {"type": "static"}
    if network.routes:
        default = gateway(network)
        ipam["routes"] = [{"dst": str(route.dst), "gw": str(route.gateway or default)} for route in network.routes]
    return network_config(lab, network) | {
        "name": definition_name(network, asking[0]),
        "capabilities": {"ips": True} | ({"mac": True} if any(a.mac for a in asking) else {}),
        "ipam": ipam,
    }


def _attached(lab: Lab, network: AttachedNetwork) -> list[Attachment]:
    return [a for workload in lab.workloads for a in workload.networks if a.name == network.name]


def _kind(network: BridgeNetwork | MacvlanNetwork | IpvlanNetwork | HostDeviceNetwork) -> Config:
    if isinstance(network, BridgeNetwork):
        return {
            "bridge": network.bridge,
            "isGateway": network.is_gateway,
            "ipMasq": network.ip_masq,
            "hairpinMode": network.hairpin_mode,
        }
    if isinstance(network, HostDeviceNetwork):
        return {"device": network.device}
    return {"master": network.master, "mode": network.mode}


def _ipam(network: AddressedNetwork) -> Config:
    ipam = network.ipam
    found: Config = {"type": ipam.type}
    if network.routes:
        found["routes"] = [
            {"dst": str(route.dst)} | ({"gw": str(route.gateway)} if route.gateway else {}) for route in network.routes
        ]
    named = {"gateway": str(ipam.gateway)} if ipam.gateway else {}
    if isinstance(ipam, StaticAddresses):
        found["addresses"] = [{"address": str(address)} | named for address in ipam.addresses]
        return found
    limits = {"rangeStart": ipam.range_start, "rangeEnd": ipam.range_end}
    if isinstance(ipam, HostLocal):
        given = {key: str(address) for key, address in limits.items() if address}
        found["ranges"] = [[{"subnet": str(network.subnet)} | given | named]]
        return found
    return found | _whereabouts(network, ipam) | named


def _whereabouts(network: AddressedNetwork, ipam: Whereabouts) -> Config:
    found: Config = {"range": str(network.subnet)}
    if ipam.range_start:
        found["range_start"] = str(ipam.range_start)
    if ipam.range_end:
        found["range_end"] = str(ipam.range_end)
    return found | ({"exclude": [str(cidr) for cidr in ipam.exclude]} if ipam.exclude else {})


def plugins(lab: Lab) -> list[str]:
    """The plugins that /opt/cni/bin must have on every node for the lab's networks, sorted."""
    found = {"multus", "calico"}
    if lab.multus is not None and lab.multus.delegates:
        found.add("host-local")
    if uses_calico_network(lab):
        found |= _types(calico_config(lab))
    for network in lab.networks:
        found |= _types(network_config(lab, network))
        found |= _types(fixed_config(lab, network))
    return sorted(found)


def _types(config: Any) -> set[str]:
    """The plugins of a configuration, of its list, and of their IPAM. A custom configuration may hold anything."""
    if isinstance(config, list):
        return {found for item in config for found in _types(item)}
    if not isinstance(config, dict):
        return set()
    own = {config["type"]} if isinstance(config.get("type"), str) else set()
    return own | _types(config.get("ipam")) | _types(config.get("plugins"))
