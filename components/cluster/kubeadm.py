"""kubeadm's configuration (v1beta4) and kubeconfigs, rendered as plain data.

Sources: k8s.io/kubernetes v1.36.3 cmd/kubeadm/app/apis/kubeadm/v1beta4/types.go, cmd/kubeadm/app/util/pubkeypin.
Values typed Any may be Pulumi outputs, leaf by leaf.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from components.spec.addresses import API_PORT
from components.spec.models import Lab, Node

DIRECTORY = "/etc/kubernetes/cni-lab"
CRI_SOCKET = "unix:///var/run/crio/crio.sock"
MACHINE_LABEL = "cni-lab/machine"
TOKEN_TTL = "2h0m0s"


def ca_cert_hash(public_key_pem: str) -> str:
    """`sha256:` and the hex SHA-256 of the CA's DER SubjectPublicKeyInfo, as kubeadm's discovery wants it.

    The body of a PUBLIC KEY PEM is that very DER. Raises ValueError (binascii.Error) where it is no base64.
    """
    body = "".join(line for line in public_key_pem.splitlines() if line and not line.startswith("-----"))
    return "sha256:" + hashlib.sha256(base64.b64decode(body, validate=True)).hexdigest()


def machine_label(machine_id: str) -> str:
    """A label value that tells one machine from another of the same node name: 16 hex digits."""
    return hashlib.sha256(machine_id.encode()).hexdigest()[:16]


def node_registration(node: Node, machine: Any) -> dict[str, Any]:
    """`machine`: the label value of `machine_label`. Without `taints`, kubeadm taints a control plane; an empty list
    says that it must not (kubeadm's own meaning)."""
    fixed = [f"{key}={value}" for key, value in sorted(node.labels.items())]
    labels = (
        ",".join([*fixed, f"{MACHINE_LABEL}={machine}"])
        if isinstance(machine, str)
        else machine.apply(lambda known: ",".join([*fixed, f"{MACHINE_LABEL}={known}"]))
    )
    registration: dict[str, Any] = {
        "name": node.name,
        "criSocket": CRI_SOCKET,
        "imagePullPolicy": "IfNotPresent",
        "kubeletExtraArgs": [
            {"name": "node-ip", "value": str(node.address)},
            {"name": "node-labels", "value": labels},
        ],
    }
    if node.taints is not None:
        registration["taints"] = [t.model_dump(exclude_defaults=True) | {"effect": t.effect} for t in node.taints]
    return registration


def init_documents(lab: Lab, *, endpoint: Any, token: Any, machine: Any, sans: list[Any]) -> list[dict[str, Any]]:
    """The documents of `kubeadm init --config` on the first control plane.

    `endpoint`: host:port at which nodes reach the API; `sans`: names in the API's certificate beside the defaults.
    """
    first = lab.control_planes[0]
    documents: list[dict[str, Any]] = [
        {
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "InitConfiguration",
            "bootstrapTokens": [{"token": token, "ttl": TOKEN_TTL, "description": "cni-lab: joins of the first up"}],
            "nodeRegistration": node_registration(first, machine),
            "localAPIEndpoint": {"advertiseAddress": str(first.address), "bindPort": API_PORT},
            "patches": {"directory": f"{DIRECTORY}/patches"},
            # It would print the token.
            "skipPhases": ["show-join-command"],
        },
        {
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "ClusterConfiguration",
            "kubernetesVersion": f"v{lab.kubernetes.version}",
            "clusterName": "cni-lab",
            "controlPlaneEndpoint": endpoint,
            "networking": {
                "podSubnet": str(lab.kubernetes.pod_cidr),
                "serviceSubnet": str(lab.kubernetes.service_cidr),
                "dnsDomain": lab.kubernetes.dns_domain,
            },
            "apiServer": {"certSANs": sans},
        },
        {"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", **_kubelet(lab)},
        {"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration"},
    ]
    if lab.calico.linux_dataplane == "Nftables":
        # Calico and kube-proxy must agree (Calico's documentation, "Calico nftables data plane").
        documents[-1]["mode"] = "nftables"
    if lab.machines.in_containers:
        # A container may not write nf_conntrack_max; 0 leaves the computer's own limits alone.
        documents[-1]["conntrack"] = {"maxPerCore": 0, "min": 0}
    return documents


def _kubelet(lab: Lab) -> dict[str, Any]:
    """Settings of every kubelet. What is this computer's own is not a container's to mind: its swap, and its disk,
    which kubelet would else clear by removing images and evicting pods once 15 % are left (as kind has it too)."""
    if not lab.machines.in_containers:
        return {"failSwapOn": True}
    disk = dict.fromkeys(("nodefs.available", "nodefs.inodesFree", "imagefs.available"), "0%")
    # What is named replaces all of kubelet's defaults; the memory's is kept.
    eviction = {"memory.available": "100Mi"} | disk
    return {"failSwapOn": False, "imageGCHighThresholdPercent": 100, "evictionHard": eviction}


def join_document(
    node: Node, *, endpoint: Any, token: Any, ca_hash: Any, machine: Any, certificate_key: Any = None
) -> dict[str, Any]:
    """The document of `kubeadm join --config`; `certificate_key` for a further control plane only."""
    document: dict[str, Any] = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "JoinConfiguration",
        "discovery": {"bootstrapToken": {"token": token, "apiServerEndpoint": endpoint, "caCertHashes": [ca_hash]}},
        "nodeRegistration": node_registration(node, machine),
        "patches": {"directory": f"{DIRECTORY}/patches"},
    }
    if node.role == "control-plane":
        document["controlPlane"] = {
            "certificateKey": certificate_key,
            "localAPIEndpoint": {"advertiseAddress": str(node.address), "bindPort": API_PORT},
        }
    return document


def kubeconfig(*, server: Any, user: str, ca: Any, certificate: Any, key: Any) -> dict[str, Any]:
    """A kubeconfig with one cluster, user and context; `ca`, `certificate`, `key` are base64 of their PEM."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cni-lab", "cluster": {"server": server, "certificate-authority-data": ca}}],
        "users": [{"name": user, "user": {"client-certificate-data": certificate, "client-key-data": key}}],
        "contexts": [{"name": "cni-lab", "context": {"cluster": "cni-lab", "user": user}}],
        "current-context": "cni-lab",
    }


def pem_data(pem: str) -> str:
    """Base64 of a PEM text, as kubeconfigs carry it."""
    return base64.b64encode(pem.encode()).decode()
