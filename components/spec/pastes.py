"""Words of other files that people paste from, and the keys that they belong to here.

Sources: kubeadm's v1beta4 types; kubespray's inventory (inventory/sample/group_vars); the environment of calico-node
and the ConfigMap in calico.yaml; tigera/operator's Installation; the configurations of CNI plugins and whereabouts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

# A foreign word without its capitals, _ and -, and the place here. A place with [] has one for each item.
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

# The same word means another thing in another place.
_PLACES_UNDER: Final[Mapping[tuple[str, str], str]] = {
    ("networks[].ipam", "range"): "networks[].subnet",
    ("networks[].ipam", "subnet"): "networks[].subnet",
    ("machines.extraMounts[]", "mode"): "machines.extraMounts[].readOnly",
    ("nodes[]", "ip"): "nodes[].address",
}

_AUTODETECTION: Final = {"nodeaddressautodetectionv4", "ipautodetectionmethod", "ip4autodetectionmethod"}
# Other methods of Calico's to find a node's address, as the Installation and as calico-node's environment name them.
_METHODS: Final[Mapping[str, str]] = {
    "firstfound": "FirstFound",
    "kubernetes": "NodeInternalIP",
    "kubernetesinternalip": "NodeInternalIP",
}


def plain(word: str) -> str:
    """The word without capitals, hyphens and underscores, which other files have and ours have not."""
    return re.sub(r"[-_]", "", word).lower()


def place_of(parent: str, word: str) -> str | None:
    """Where a foreign word in the mapping at `parent` (with [] for indices) belongs here; None for one not known."""
    return _PLACES_UNDER.get((parent, plain(word))) or _PLACES.get(plain(word))


def is_autodetection(word: str) -> bool:
    """Whether the word is another file's for how Calico finds a node's address."""
    return plain(word) in _AUTODETECTION


def autodetection(value: object) -> str | None:
    """What to write for a method of Calico's to find a node's address, in another file's form; None where it is none.

    The Installation has a mapping (`{interface: ens.*}`), calico-node's environment a text (`interface=ens.*`).
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
    if method in ("canreach", "cidr", "cidrs", "skipinterface"):
        return "name the interface instead, e.g. calico.interface: eth1; this method has no key here"
    return None
