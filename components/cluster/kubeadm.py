"""kubeadm's configuration (v1beta4) and kubeconfigs, rendered as plain data.

Sources: k8s.io/kubernetes v1.36.3 cmd/kubeadm/app/apis/kubeadm/v1beta4/types.go, cmd/kubeadm/app/util/pubkeypin.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from components import slowdown
from components.node.script import File
from components.spec.addresses import API_PORT
from components.spec.models import Lab, Node

if TYPE_CHECKING:
    # For the types alone: a sandbox renders its kubeconfig here, and its commands do without the SDK.
    import pulumi

    Text = str | pulumi.Output[str]

DIRECTORY = "/etc/kubernetes/cni-lab"
CRI_SOCKET = "unix:///var/run/crio/crio.sock"
PATCHES = f"{DIRECTORY}/patches"
MACHINE_LABEL = "cni-lab/machine"
TOKEN_TTL = "2h0m0s"
# kubeadm's defaults (cmd/kubeadm/app/apis/kubeadm/v1beta4/defaults.go, cmd/kubeadm/app/constants/constants.go).
_TIMEOUTS_SECONDS = {
    "controlPlaneComponentHealthCheck": 240,
    "kubeletHealthCheck": 240,
    "kubernetesAPICall": 60,
    "etcdAPICall": 120,
    "tlsBootstrap": 300,
    "discovery": 300,
}
# kubeadm's probes of the control plane's pods and of CoreDNS (cmd/kubeadm/app/util/staticpod/utils.go,
# cmd/kubeadm/app/phases/addons/dns/manifests.go). The pods are restarted after 8 failures, CoreDNS after 5.
_LIVENESS_SECONDS = {"periodSeconds": 10, "timeoutSeconds": 15}
_READINESS_SECONDS = {"periodSeconds": 1, "timeoutSeconds": 15}
_COREDNS_SECONDS = {
    "livenessProbe": {"periodSeconds": 10, "timeoutSeconds": 5},
    "readinessProbe": {"periodSeconds": 10, "timeoutSeconds": 1},
}
# The defaults of kube-controller-manager and kube-scheduler (k8s.io/component-base, config/v1alpha1/defaults.go).
_LEASES_SECONDS = {
    "leader-elect-lease-duration": 15,
    "leader-elect-renew-deadline": 10,
    "leader-elect-retry-period": 2,
}


def ca_cert_hash(public_key_pem: str) -> str:
    """The CA's checksum for kubeadm's discovery: `sha256:` and the hex SHA-256 of its DER SubjectPublicKeyInfo.

    The body of a PUBLIC KEY PEM is that DER in base64. Raises ValueError (binascii.Error) if it is not base64.
    """
    body = "".join(line for line in public_key_pem.splitlines() if line and not line.startswith("-----"))
    return "sha256:" + hashlib.sha256(base64.b64decode(body, validate=True)).hexdigest()


def machine_label(machine_id: str) -> str:
    """A label value that differs between machines of the same node name: 16 hex digits."""
    return hashlib.sha256(machine_id.encode()).hexdigest()[:16]


def node_registration(node: Node, machine: Text) -> dict[str, Any]:
    """`machine`: the value of `machine_label`. Without `taints`, kubeadm taints a control plane; with an empty list it
    does not."""
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


def init_documents(
    lab: Lab, *, endpoint: Text, token: Text, machine: Text, sans: Sequence[Text]
) -> list[dict[str, Any]]:
    """The documents of `kubeadm init --config` on the first control plane.

    `endpoint`: the host:port at which the nodes reach the API. `sans`: names for the API's certificate besides
    kubeadm's.
    """
    first = lab.control_planes[0]
    documents: list[dict[str, Any]] = [
        {
            "apiVersion": "kubeadm.k8s.io/v1beta4",
            "kind": "InitConfiguration",
            "bootstrapTokens": [{"token": token, "ttl": TOKEN_TTL, "description": "cni-lab: joins of the first up"}],
            "nodeRegistration": node_registration(first, machine),
            "localAPIEndpoint": {"advertiseAddress": str(first.address), "bindPort": API_PORT},
            "patches": {"directory": PATCHES},
            # This phase would print the token.
            "skipPhases": ["show-join-command"],
        }
        | _timeouts(),
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
            "apiServer": {"certSANs": [*sans, *lab.kubernetes.api_server.cert_sans]} | _extra_args(lab),
        }
        | _leases(),
        {"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", **_kubelet(lab)},
        {"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration"},
    ]
    if lab.calico.linux_dataplane == "Nftables":
        # Calico and kube-proxy must agree (Calico's documentation, "Calico nftables data plane").
        documents[-1]["mode"] = "nftables"
    if lab.machines.in_containers:
        # A container may not write nf_conntrack_max. 0 leaves the computer's limits as they are.
        documents[-1]["conntrack"] = {"maxPerCore": 0, "min": 0}
    return documents


def _timeouts() -> dict[str, Any]:
    """kubeadm's own limits, longer on a slow computer. kubeadm also derives the startup probes of the control plane's
    pods from the first."""
    factor = slowdown.factor()
    if factor == 1:
        return {}
    return {"timeouts": {name: f"{seconds * factor}s" for name, seconds in _TIMEOUTS_SECONDS.items()}}


def _leases() -> dict[str, Any]:
    """Longer leases of the controllers on a slow computer: one that cannot renew its lease in time ends itself."""
    factor = slowdown.factor()
    if factor == 1:
        return {}
    arguments = [{"name": name, "value": f"{seconds * factor}s"} for name, seconds in _LEASES_SECONDS.items()]
    return {part: {"extraArgs": arguments} for part in ("controllerManager", "scheduler")}


def patch_files(lab: Lab) -> list[File]:
    """The patches as files that kubeadm reads on every node. It applies them in the order of their names, which say
    target and type (k8s.io/kubernetes, cmd/kubeadm/app/util/patches). The stack file's come last, so they win."""
    own = [(target, "strategic", patch) for target, patch in _probes().items()]
    patches = [*own, *((it.target, it.type, it.patch) for it in lab.kubernetes.patches)]
    return [
        File(f"{PATCHES}/{target}{number:03}+{kind}.json", patch)
        for number, (target, kind, patch) in enumerate(patches)
    ]


def _probes() -> dict[str, dict[str, Any]]:
    """Longer probes on a slow computer, by kubeadm's target: kubelet would restart a pod that only answers slowly. The
    startup probes ask as often as before, so the control plane is found as soon as it runs; kubeadm lets them fail as
    often as `_timeouts` allows."""
    factor = slowdown.factor()
    if factor == 1:
        return {}

    def scaled(seconds: dict[str, int]) -> dict[str, int]:
        return {name: number * factor for name, number in seconds.items()}

    alive = {
        "livenessProbe": scaled(_LIVENESS_SECONDS),
        "startupProbe": {"timeoutSeconds": _LIVENESS_SECONDS["timeoutSeconds"] * factor},
    }
    ready = alive | {"readinessProbe": scaled(_READINESS_SECONDS)}
    # kubeadm gives kube-controller-manager no readiness probe.
    probes = {"etcd": ready, "kube-apiserver": ready, "kube-controller-manager": alive, "kube-scheduler": ready}
    pods = {name: {"spec": {"containers": [{"name": name} | probe]}} for name, probe in probes.items()}
    coredns = {"name": "coredns"} | {name: scaled(seconds) for name, seconds in _COREDNS_SECONDS.items()}
    return pods | {"corednsdeployment": {"spec": {"template": {"spec": {"containers": [coredns]}}}}}


def _extra_args(lab: Lab) -> dict[str, Any]:
    args = lab.kubernetes.api_server.extra_args
    return {"extraArgs": [argument.model_dump() for argument in args]} if args else {}


def _kubelet(lab: Lab) -> dict[str, Any]:
    """Settings of every kubelet.

    In a container kubelet must ignore what belongs to the computer: its swap, and its disk. With less than 15 % of the
    disk free, kubelet would otherwise remove images and evict pods. kind sets the same.
    """
    if not lab.machines.in_containers:
        return {"failSwapOn": True}
    disk = dict.fromkeys(("nodefs.available", "nodefs.inodesFree", "imagefs.available"), "0%")
    # These thresholds replace all of kubelet's defaults, so the one for memory is repeated.
    eviction = {"memory.available": "100Mi"} | disk
    return {"failSwapOn": False, "imageGCHighThresholdPercent": 100, "evictionHard": eviction}


def join_document(
    node: Node, *, endpoint: Text, token: Text, ca_hash: Text, machine: Text, certificate_key: Text | None = None
) -> dict[str, Any]:
    """The document of `kubeadm join --config`. `certificate_key`: for a further control plane only."""
    document: dict[str, Any] = {
        "apiVersion": "kubeadm.k8s.io/v1beta4",
        "kind": "JoinConfiguration",
        "discovery": {"bootstrapToken": {"token": token, "apiServerEndpoint": endpoint, "caCertHashes": [ca_hash]}},
        "nodeRegistration": node_registration(node, machine),
        "patches": {"directory": PATCHES},
    } | _timeouts()
    if node.role == "control-plane":
        document["controlPlane"] = {
            "certificateKey": certificate_key,
            "localAPIEndpoint": {"advertiseAddress": str(node.address), "bindPort": API_PORT},
        }
    return document


def kubeconfig(
    *, server: pulumi.Input[str], user: str, ca: Text, certificate: Text, key: Text, proxy: str | None = None
) -> dict[str, Any]:
    """A kubeconfig with one cluster, one user and one context. `ca`, `certificate`, `key`: base64 of the PEM. `proxy`:
    the URL of a proxy (k8s.io/client-go, tools/clientcmd/api/v1, Cluster.ProxyURL)."""
    cluster = {"server": server, "certificate-authority-data": ca} | ({"proxy-url": proxy} if proxy else {})
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "cni-lab", "cluster": cluster}],
        "users": [{"name": user, "user": {"client-certificate-data": certificate, "client-key-data": key}}],
        "contexts": [{"name": "cni-lab", "context": {"cluster": "cni-lab", "user": user}}],
        "current-context": "cni-lab",
    }


def pem_data(pem: str) -> str:
    """A PEM text in base64, as it is in a kubeconfig."""
    return base64.b64encode(pem.encode()).decode()
