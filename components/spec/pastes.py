"""Keys of other programs' files from which people paste, and the keys that they correspond to here.

Sources: kubeadm's v1beta4 types; kubespray's inventory (inventory/sample/group_vars); the environment of calico-node
and the ConfigMap in calico.yaml; tigera/operator's Installation; the configurations of CNI plugins and whereabouts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

# A key of another program without capitals, _ and -, and the key here. [] means any item of a list.
_PLACES: Final[Mapping[str, str]] = {
    # kubeadm
    "podsubnet": "kubernetes.podCidr",
    "clustercidr": "kubernetes.podCidr",
    "servicesubnet": "kubernetes.serviceCidr",
    "serviceclusteriprange": "kubernetes.serviceCidr",
    "kubernetesversion": "kubernetes.version",
    "clusterdomain": "kubernetes.dnsDomain",
    "advertiseaddress": "nodes[].address",
    "nodelabels": "nodes[].labels",
    "imagerepository": "mirrors.images",
    # kubespray
    "kubepodssubnet": "kubernetes.podCidr",
    "kubeserviceaddresses": "kubernetes.serviceCidr",
    "kubeversion": "kubernetes.version",
    "dnsdomain": "kubernetes.dnsDomain",
    "calicoversion": "calico.version",
    "calicoipipmode": "calico.pools[].encapsulation",
    "calicovxlanmode": "calico.pools[].encapsulation",
    "calicopoolblocksize": "calico.pools[].blockSize",
    "calicopoolcidr": "calico.pools[].cidr",
    "calicomtu": "calico.mtu",
    "calicovethmtu": "calico.mtu",
    "caliconetworkbackend": "calico.bgp",
    "globalasnum": "calico.asNumber",
    "loadbalancerapiserver": "kubernetes.controlPlaneEndpoint",
    "kubeproxymode": "calico.linuxDataplane",
    "ansiblehost": "nodes[].ssh.address",
    "ansibleport": "nodes[].ssh.port",
    "ansibleuser": "machines.user",
    "ansiblesshprivatekeyfile": "machines.privateKeyFile",
    "accessip": "nodes[].address",
    # calico.yaml
    "calicoipv4poolcidr": "calico.pools[].cidr",
    "calicoipv4poolipip": "calico.pools[].encapsulation",
    "calicoipv4poolvxlan": "calico.pools[].encapsulation",
    "calicoipv4poolblocksize": "calico.pools[].blockSize",
    "calicoipv4poolnatoutgoing": "calico.pools[].natOutgoing",
    "calicoipv4poolnodeselector": "calico.pools[].nodeSelector",
    "calicobackend": "calico.bgp",
    "caliconetworkingbackend": "calico.bgp",
    "vethmtu": "calico.mtu",
    "felixipinipmtu": "calico.mtu",
    "felixvxlanmtu": "calico.mtu",
    "felixwireguardenabled": "calico.wireguard",
    "wireguardenabled": "calico.wireguard",
    "felixnftablesmode": "calico.linuxDataplane",
    "nftablesmode": "calico.linuxDataplane",
    # Installation, IPPool, BGPConfiguration
    "caliconetwork": "calico",
    "ippools": "calico.pools",
    "ipipmode": "calico.pools[].encapsulation",
    "vxlanmode": "calico.pools[].encapsulation",
    # networks
    "gw": "networks[].routes[].gateway",
    "isdefaultgateway": "workloads[].networks[].defaultRoute",
    "hostpath": "machines.extraMounts[].hostPath",
    "tolerations": "workloads[].onControlPlane",
}

# Keys whose meaning depends on the mapping around them.
_PLACES_UNDER: Final[Mapping[tuple[str, str], str]] = {
    ("networks[].ipam", "range"): "networks[].subnet",
    ("networks[].ipam", "subnet"): "networks[].subnet",
    ("machines.extraMounts[]", "mode"): "machines.extraMounts[].readOnly",
    ("nodes[]", "ip"): "nodes[].address",
}

_AUTODETECTION: Final = {"nodeaddressautodetectionv4", "ipautodetectionmethod", "ip4autodetectionmethod"}
# Calico's methods to find a node's address, as the Installation and the environment of calico-node name them.
_METHODS: Final[Mapping[str, str]] = {
    "firstfound": "FirstFound",
    "kubernetes": "NodeInternalIP",
    "kubernetesinternalip": "NodeInternalIP",
}


def plain(word: str) -> str:
    """The word in lower case, without hyphens and underscores, in which the spellings of programs differ."""
    return re.sub(r"[-_]", "", word).lower()


def place_of(parent: str, word: str) -> str | None:
    """The key here for another program's key in the mapping at `parent` (with [] for indices), or None."""
    return _PLACES_UNDER.get((parent, plain(word))) or _PLACES.get(plain(word))


def is_autodetection(word: str) -> bool:
    """Whether another program calls by this word how Calico finds a node's address."""
    return plain(word) in _AUTODETECTION


def autodetection(value: object) -> str | None:
    """What to write here for another program's value of how Calico finds a node's address; None if it is not one.

    The Installation has a mapping (`{interface: ens.*}`), the environment of calico-node a text (`interface=ens.*`).
    """
    method, setting = "", ""
    if isinstance(value, dict) and len(value) == 1:
        ((method, setting),) = value.items()
    elif isinstance(value, str):
        method, _, setting = value.partition("=")
    method = plain(str(method))
    if method == "interface" and setting:
        return f"write calico.interface: {setting}"
    if method in _METHODS:
        return f"write calico.nodeAddressAutodetection: {_METHODS[method]}"
    if method == "canreach" and setting:
        return f"write calico.canReach: {setting}"
    if method == "skipinterface" and setting:
        return f"write calico.skipInterface: {setting}"
    if method in ("cidr", "cidrs") and setting:
        given = setting if isinstance(setting, list) else str(setting).split(",")
        return f"write calico.cidrs: [{', '.join(map(str, given))}]"
    return None
