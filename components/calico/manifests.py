"""Calico's Kubernetes objects for a lab, as plain dicts.

The operator also installs Calico's API server, which serves the objects in `projectcalico.org/v3`. An installation by
manifest has no such server, so the objects are written as they are stored, in `crd.projectcalico.org/v1`. The field
names are those of the CRDs in Calico's manifest `v1_crd_projectcalico_org.yaml` and of tigera/operator's `api/v1`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from components import slowdown
from components.spec.addresses import given_mtu
from components.spec.models import CALICO_NETWORK, Lab
from components.spec.versions import calico_manifests

Manifest = dict[str, Any]

ROUTE_REFLECTOR_LABEL: Final = "cni-lab/route-reflector"


def api_version(lab: Lab) -> str:
    return "projectcalico.org/v3" if lab.calico.install == "operator" else "crd.projectcalico.org/v1"


def _object(lab: Lab, kind: str, name: str, spec: Manifest) -> Manifest:
    return {"apiVersion": api_version(lab), "kind": kind, "metadata": {"name": name}, "spec": spec}


# --- by the operator --------------------------------------------------------------------------------------------------


def installation(lab: Lab) -> Manifest:
    """What the operator installs and maintains. That includes the pools: it undoes manual changes to an IPPool."""
    calico = lab.calico
    network: Manifest = {
        "bgp": calico.bgp,
        "containerIPForwarding": calico.container_ip_forwarding,
        "hostPorts": "Enabled",
        "linuxDataplane": calico.linux_dataplane,
        "nodeAddressAutodetectionV4": _autodetection(lab),
        "ipPools": [
            {
                "name": pool.name,
                "cidr": str(pool.cidr),
                "blockSize": pool.block_size,
                "encapsulation": pool.encapsulation,
                "natOutgoing": "Enabled" if pool.nat_outgoing else "Disabled",
                "nodeSelector": pool.node_selector,
                "disableBGPExport": pool.disable_bgp_export,
            }
            for pool in calico.pools
        ],
    }
    if (mtu := given_mtu(lab)) is not None:
        network["mtu"] = mtu
    spec: Manifest = {"calicoNetwork": network, "cni": {"type": "Calico", "ipam": {"type": calico.ipam}}}
    if len(lab.control_planes) == 1:
        # With one control plane, a second replica of each controller would not make the cluster more available.
        spec["controlPlaneReplicas"] = 1
    return {
        "apiVersion": "operator.tigera.io/v1",
        "kind": "Installation",
        # The operator fills in defaults, also in the list of pools, and becomes a second owner of these fields.
        "metadata": {"name": "default", "annotations": {"pulumi.com/patchForce": "true"}},
        "spec": spec,
    }


def _autodetection(lab: Lab) -> Manifest:
    """How Calico finds a node's address: one method, with its setting."""
    calico = lab.calico
    if calico.interface is not None:
        return {"interface": calico.interface}
    if calico.can_reach is not None:
        return {"canReach": calico.can_reach}
    if calico.skip_interface is not None:
        return {"skipInterface": calico.skip_interface}
    if calico.cidrs:
        return {"cidrs": [str(cidr) for cidr in calico.cidrs]}
    if calico.node_address_autodetection == "NodeInternalIP":
        return {"kubernetes": "NodeInternalIP"}
    return {"firstFound": True}


def api_server() -> Manifest:
    return {"apiVersion": "operator.tigera.io/v1", "kind": "APIServer", "metadata": {"name": "default"}, "spec": {}}


# --- by manifest ------------------------------------------------------------------------------------------------------


def kustomization(lab: Lab) -> Manifest:
    """The lab's changes to the upstream manifest, applied before it is installed. The file is written beside it."""
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [*calico_manifests(lab.calico.install, lab.calico.bgp)],
        "patches": [{"path": "calico-node.yaml"}, {"path": "calico-config.yaml"}],
    }


# The operator's names of the methods of autodetection, and what calico-node reads from its environment instead.
_METHODS: Final = {
    "interface": "interface={}",
    "canReach": "can-reach={}",
    "skipInterface": "skip-interface={}",
    "cidrs": "cidr={}",
    "kubernetes": "kubernetes-internal-ip",
    "firstFound": "first-found",
}


def node_patch(lab: Lab) -> Manifest:
    """Strategic merge patch of the DaemonSet: no default pool, and how Calico finds a node's address."""
    [(method, setting)] = _autodetection(lab).items()
    text = _METHODS[method].format(",".join(setting) if isinstance(setting, list) else setting)
    env = {"NO_DEFAULT_POOLS": "true", "IP_AUTODETECTION_METHOD": text}
    if lab.calico.ipam == "HostLocal":
        # Without it, BIRD looks for Calico's blocks, finds none, and announces no route to the node's pods.
        env["USE_POD_CIDR"] = "true"
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "calico-node", "namespace": "kube-system"},
        "spec": {
            "template": {
                # Pods read the ConfigMap when they start, so a change of it must also change their template.
                "metadata": {"annotations": {"cni-lab/calico-config": json.dumps(_config(lab), sort_keys=True)}},
                "spec": {
                    "containers": [
                        {"name": "calico-node", "env": [{"name": k, "value": v} for k, v in env.items()], **_probes()},
                    ]
                },
            }
        },
    }


def _probes() -> Manifest:
    """Longer and rarer probes of the DaemonSet on slow machines, where each is a command that costs time: kubelet would
    restart an agent that works. Without a factor the manifest's own count: every 10 s, 10 s for each, and 6 failures
    until the restart."""
    factor = slowdown.factor()
    if factor == 1:
        return {}
    probe = {"periodSeconds": 10 * factor, "timeoutSeconds": 10 * factor}
    return {"livenessProbe": probe, "readinessProbe": probe}


def config_patch(lab: Lab) -> Manifest:
    """Strategic merge patch of the ConfigMap: the MTU, and the CNI configuration for every node."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "calico-config", "namespace": "kube-system"},
        "data": _config(lab),
    }


def _config(lab: Lab) -> dict[str, str]:
    calico = lab.calico
    plugin: Manifest = {
        "type": "calico",
        "log_level": "info",
        "log_file_path": "/var/log/calico/cni/cni.log",
        "datastore_type": "kubernetes",
        "nodename": "__KUBERNETES_NODE_NAME__",
        "mtu": "__CNI_MTU__",
        "ipam": {"type": "calico-ipam"} if calico.ipam == "Calico" else {"type": "host-local", "subnet": "usePodCidr"},
        "container_settings": {"allow_ip_forwarding": calico.container_ip_forwarding == "Enabled"},
        "policy": {"type": "k8s"},
        "kubernetes": {"kubeconfig": "__KUBECONFIG_FILEPATH__"},
    }
    portmap = {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}}
    network = {"name": CALICO_NETWORK, "cniVersion": "0.3.1", "plugins": [plugin, portmap]}
    # The installer replaces this word by a number, so it must not be in quotes.
    text = json.dumps(network, indent=2).replace('"__CNI_MTU__"', "__CNI_MTU__")
    # 0: as Calico finds it on each node.
    return {"veth_mtu": str(given_mtu(lab) or 0), "cni_network_config": text}


def ip_pools(lab: Lab) -> dict[str, Manifest]:
    """One IPPool for each pool, by name."""
    return {
        pool.name: _object(
            lab,
            "IPPool",
            pool.name,
            {
                "cidr": str(pool.cidr),
                "blockSize": pool.block_size,
                "ipipMode": pool.mode.ipip_mode,
                "vxlanMode": pool.mode.vxlan_mode,
                "natOutgoing": pool.nat_outgoing,
                "nodeSelector": pool.node_selector,
                "disableBGPExport": pool.disable_bgp_export,
                "allowedUses": ["Workload", "Tunnel"],
                "assignmentMode": "Automatic",
            },
        )
        for pool in lab.calico.pools
    }


# --- both -------------------------------------------------------------------------------------------------------------


def felix_configuration(lab: Lab) -> Manifest | None:
    """Patch of FelixConfiguration `default`, which Calico makes. None if the lab sets none of its fields."""
    spec: Manifest = {}
    if lab.calico.wireguard:
        spec["wireguardEnabled"] = True
    if lab.calico.install == "manifest" and lab.calico.linux_dataplane == "Nftables":
        spec["nftablesMode"] = "Enabled"
    return _object(lab, "FelixConfiguration", "default", spec) if spec else None


def bgp_configuration(lab: Lab) -> Manifest | None:
    """Patch of BGPConfiguration `default`. None if there is no BGP or the lab changes no default."""
    calico = lab.calico
    if calico.bgp == "Disabled" or (calico.as_number == 64512 and calico.mesh):
        return None
    spec = {"asNumber": calico.as_number, "nodeToNodeMeshEnabled": calico.mesh}
    return _object(lab, "BGPConfiguration", "default", spec)


def bgp_peers(lab: Lab) -> dict[str, Manifest]:
    """A BGPPeer for each of the lab's peers, and one that connects every node to the route reflectors, by name."""
    calico = lab.calico
    peers = {}
    for peer in calico.peers:
        spec: Manifest = {"peerIP": str(peer.peer_ip), "asNumber": peer.as_number, "nodeSelector": peer.node_selector}
        if peer.password is not None:
            spec["password"] = {"secretKeyRef": {"name": _secret_name(peer.name), "key": "password"}}
        peers[peer.name] = _object(lab, "BGPPeer", peer.name, spec)
    if calico.route_reflectors:
        name = "cni-lab-route-reflectors"
        selector = f"has({ROUTE_REFLECTOR_LABEL})"
        peers[name] = _object(lab, "BGPPeer", name, {"nodeSelector": "all()", "peerSelector": selector})
    return peers


def bgp_secrets(lab: Lab, passwords: Mapping[str, Any]) -> dict[str, Manifest]:
    """The Secret with each peer's password, by the peer's name, and what lets calico-node read them.

    Calico, "Secure BGP sessions": a Secret is in the namespace of calico-node, whose account needs a role for it. The
    role names the Secrets, which is enough because confd asks for each by its name (projectcalico/calico,
    confd/pkg/backends/calico/secret_watcher.go). `passwords`: by the peer's name; each may be an output.
    """
    if not lab.calico.passwords:
        return {}
    namespace = "calico-system" if lab.calico.install == "operator" else "kube-system"
    group, name = "rbac.authorization.k8s.io", "cni-lab-bgp-passwords"
    secrets = [_secret_name(peer) for peer in lab.calico.passwords]
    role: Manifest = {
        "apiVersion": f"{group}/v1",
        "kind": "Role",
        "metadata": {"name": name, "namespace": namespace},
        "rules": [
            {"apiGroups": [""], "resources": ["secrets"], "resourceNames": secrets, "verbs": ["get", "list", "watch"]}
        ],
    }
    binding: Manifest = {
        "apiVersion": f"{group}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": name, "namespace": namespace},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": "calico-node", "namespace": namespace}],
    }
    found: dict[str, Manifest] = {
        f"password-{peer}": {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": _secret_name(peer), "namespace": namespace},
            "type": "Opaque",
            "stringData": {"password": passwords[peer]},
        }
        for peer in lab.calico.passwords
    }
    return found | {"passwords-role": role, "passwords-binding": binding}


def _secret_name(peer: str) -> str:
    return f"cni-lab-bgp-{peer}"


def node_as_numbers(lab: Lab) -> dict[str, Manifest]:
    """The patches that give Nodes an AS number of their own, by node name.

    calico-node keeps this annotation (projectcalico/calico, libcalico-go/lib/backend/k8s/resources/node.go).
    """
    return {
        node.name: {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": node.name, "annotations": {"projectcalico.org/ASNumber": str(node.as_number)}},
        }
        for node in lab.nodes
        if node.as_number is not None
    }


def route_reflectors(lab: Lab) -> dict[str, Manifest]:
    """The patches that turn Nodes into route reflectors, by node name. They share one cluster id and are redundant."""
    return {
        node: {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": node,
                "labels": {ROUTE_REFLECTOR_LABEL: "true"},
                "annotations": {"projectcalico.org/RouteReflectorClusterID": "224.0.0.1"},
            },
        }
        for node in lab.calico.route_reflectors
    }


def ipam_configuration(lab: Lab) -> Manifest | None:
    """Patch of calico-ipam's settings. None if the lab changes none."""
    if not lab.calico.strict_affinity:
        return None
    kind = "IPAMConfiguration" if lab.calico.install == "operator" else "IPAMConfig"
    return _object(lab, kind, "default", {"strictAffinity": True, "autoAllocateBlocks": True})


def ip_reservation(lab: Lab, cidrs: Any) -> Manifest:
    """The IPReservation of the delegates' addresses. `cidrs`: a list of CIDRs, or an output of one."""
    return _object(lab, "IPReservation", "cni-lab-delegates", {"reservedCIDRs": cidrs})
