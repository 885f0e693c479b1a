"""A stand-in for the Kubernetes API of a replica: HTTPS, client certificates, lists as a real API server gives them.

What it serves is in `objects`, and may be changed while it serves. Only reading is there: GET of a list, of a
namespace's part of it, of one object; `limit` and `continue`, and `fieldSelector` of plain fields.
"""

from __future__ import annotations

import base64
import json
import ssl
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from components.calico import manifests as calico
from components.cluster.kubeadm import kubeconfig, pem_data
from components.multus import manifests as multus
from components.spec.addresses import reservation
from components.spec.models import Node
from components.spec.placement import node_taints
from tests.verify.replica_plan import Plan, Pod, digest, uid

BORN = "2026-11-21T15:20:48Z"
Object = dict[str, Any]
_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME: like kube-apiserver, an old client certificate is refused by 401, not by TLS."""


# --- certificates -----------------------------------------------------------------------------------------------------


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    encoding, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    return key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, plain).decode()


class Authority:
    """A CA of its own. Certificates are (PEM, key PEM)."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "kubernetes")])
        builder = self._builder(self._name, self._key, 3650)
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        self._certificate = builder.add_extension(constraints, critical=True).sign(self._key, hashes.SHA256())
        self.pem = self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        ends = now + timedelta(days=days)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self._name).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(min(now, ends) - timedelta(days=1)).not_valid_after(ends)
        return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)

    def issue(self, user: str, organization: str | None = None, *, days: int = 3650) -> tuple[str, str]:
        """For a client, and for a server on 127.0.0.1; negative `days`: it ended so many days ago."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = [x509.NameAttribute(NameOID.COMMON_NAME, user)]
        if organization:
            names.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
        builder = self._builder(x509.Name(names), key, days)
        alternative = [x509.DNSName("kubernetes"), x509.DNSName("localhost"), x509.IPAddress(IPv4Address("127.0.0.1"))]
        usage = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = builder.add_extension(identifier, critical=False).sign(self._key, hashes.SHA256())
        return certificate.public_bytes(serialization.Encoding.PEM).decode(), _pem(key)


# --- objects ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Resource:
    """One kind as the API serves it, e.g. /api/v1 pods."""

    path: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        return self.path.removeprefix("/apis/").removeprefix("/api/")

    @property
    def core(self) -> bool:
        """Items of a list of built-in kinds carry neither apiVersion nor kind; those of custom resources do."""
        return "projectcalico" not in self.path and "cni.cncf.io" not in self.path and "tigera" not in self.path


_CRD = "/apis/crd.projectcalico.org/v1"
RESOURCES = [
    Resource("/api/v1", "nodes", "Node"),
    Resource("/api/v1", "pods", "Pod"),
    Resource("/api/v1", "events", "Event"),
    Resource("/api/v1", "namespaces", "Namespace"),
    Resource("/apis/events.k8s.io/v1", "events", "Event"),
    Resource("/apis/apps/v1", "deployments", "Deployment"),
    Resource("/apis/k8s.cni.cncf.io/v1", "network-attachment-definitions", "NetworkAttachmentDefinition"),
    Resource(_CRD, "ippools", "IPPool"),
    Resource(_CRD, "blockaffinities", "BlockAffinity"),
    Resource(_CRD, "ipamblocks", "IPAMBlock"),
    Resource(_CRD, "ipamhandles", "IPAMHandle"),
    Resource(_CRD, "ipamconfigs", "IPAMConfig"),
    Resource(_CRD, "ipreservations", "IPReservation"),
    Resource(_CRD, "felixconfigurations", "FelixConfiguration"),
    Resource(_CRD, "bgpconfigurations", "BGPConfiguration"),
    Resource(_CRD, "bgppeers", "BGPPeer"),
    Resource(_CRD, "caliconodestatuses", "CalicoNodeStatus"),
]


def make_objects(plan: Plan) -> dict[str, list[Object]]:
    """What each resource's list holds, by path, e.g. /api/v1/pods."""
    lab = plan.lab
    found: dict[str, list[Object]] = {f"{it.path}/{it.plural}": [] for it in RESOURCES}
    found["/api/v1/nodes"] = [_node(plan, node, i) for i, node in enumerate(lab.nodes)]
    found["/api/v1/pods"] = [pod_object(plan, pod) for pod in plan.pods]
    found["/api/v1/events"] = [event for pod in plan.pods for event in _events(pod)]
    found["/apis/events.k8s.io/v1/events"] = [_new_event(event) for event in found["/api/v1/events"]]
    names = {"default", "kube-system", "kube-public", "kube-node-lease", *(pod.namespace for pod in plan.pods)}
    found["/api/v1/namespaces"] = [_with_meta({"metadata": {"name": n}}, "Namespace") for n in sorted(names)]
    found["/apis/k8s.cni.cncf.io/v1/network-attachment-definitions"] = [
        _with_meta(it, key) for key, it in (multus.attachments(lab) if lab.multus else {}).items()
    ]
    found[f"{_CRD}/ippools"] = [_stored(it) for it in calico.ip_pools(lab).values()]
    blocks = [(node, IPv4Network(block)) for node, mine in plan.blocks.items() for block in mine]
    found[f"{_CRD}/blockaffinities"] = [
        _custom(
            "BlockAffinity",
            f"{node}-{_dashed(block)}",
            {"cidr": str(block), "deleted": "false", "node": node, "state": "confirmed", "type": "host"},
        )
        for node, block in blocks
    ]
    found[f"{_CRD}/ipamblocks"] = [_ipam_block(plan, node, block) for node, block in blocks]
    strict = lab.calico.strict_affinity
    found[f"{_CRD}/ipamconfigs"] = [
        _custom("IPAMConfig", "default", {"autoAllocateBlocks": True, "strictAffinity": strict})
    ]
    if lab.multus and lab.calico.ipam == "Calico":
        cidrs = [str(cidr) for cidr in reservation(lab, plan.blocks)]
        found[f"{_CRD}/ipreservations"] = [_stored(calico.ip_reservation(lab, cidrs))]
    felix = {"bpfEnabled": False, "healthPort": 9099, "nftablesMode": "Disabled", "vxlanPort": 4789, "vxlanVNI": 4096}
    found[f"{_CRD}/felixconfigurations"] = [_custom("FelixConfiguration", "default", felix)]
    bgp = calico.bgp_configuration(lab)
    settings: Object = {"logSeverityScreen": "Info"} | (bgp["spec"] if bgp else {})
    found[f"{_CRD}/bgpconfigurations"] = [_custom("BGPConfiguration", "default", settings)]
    found[f"{_CRD}/bgppeers"] = [_stored(it) for it in calico.bgp_peers(lab).values()]
    return found


def _dashed(block: IPv4Network) -> str:
    return str(block).replace(".", "-").replace("/", "-")


def _with_meta(it: Object, *words: str) -> Object:
    name = it["metadata"]["name"]
    extra = {"creationTimestamp": BORN, "resourceVersion": "1", "uid": uid(name, *words)}
    return it | {"metadata": it["metadata"] | extra}


def _custom(kind: str, name: str, spec: Object) -> Object:
    it = {"apiVersion": "crd.projectcalico.org/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return _with_meta(it, kind)


def _stored(it: Object) -> Object:
    """An object of projectcalico.org/v3 as it is stored, in crd.projectcalico.org/v1."""
    return _custom(it["kind"], it["metadata"]["name"], it["spec"])


def _node(plan: Plan, node: Node, i: int) -> Object:
    prefix = plan.lab.network.subnets[node.subnet].prefixlen
    annotations = {
        "node.alpha.kubernetes.io/ttl": "0",
        "projectcalico.org/IPv4Address": f"{node.address}/{prefix}",
        "volumes.kubernetes.io/controller-managed-attach-detach": "true",
    }
    for kind, key in (("VXLAN", "IPv4VXLANTunnelAddr"), ("IPIP", "IPv4IPIPTunnelAddr")):
        if address := plan.tunnel_address(node.name, kind):
            annotations[f"projectcalico.org/{key}"] = str(address)
    labels = {"kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux", **node.labels}
    if node.role == "control-plane":
        labels["node-role.kubernetes.io/control-plane"] = ""
    # kube-controller-manager's, and nothing to Calico.
    pod_cidr = str(IPv4Network((int(plan.lab.kubernetes.pod_cidr[0]) + 256 * i, 24)))
    conditions = [
        ("NetworkUnavailable", "False", "CalicoIsUp", "Calico is running on this node"),
        ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
        ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
        ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ]
    it: Object = {
        "metadata": {"name": node.name, "annotations": annotations, "labels": labels},
        "spec": {"podCIDR": pod_cidr, "podCIDRs": [pod_cidr]},
        "status": {
            "addresses": [
                {"address": str(node.address), "type": "InternalIP"},
                {"address": node.name, "type": "Hostname"},
            ],
            "conditions": [
                {
                    "type": kind,
                    "status": status,
                    "reason": reason,
                    "message": message,
                    "lastHeartbeatTime": BORN,
                    "lastTransitionTime": BORN,
                }
                for kind, status, reason, message in conditions
            ],
            "nodeInfo": {
                "architecture": "amd64",
                "containerRuntimeVersion": f"cri-o://{plan.lab.kubernetes.version}",
                "kubeletVersion": f"v{plan.lab.kubernetes.version}",
                "operatingSystem": "linux",
                "osImage": "Debian GNU/Linux 12 (bookworm)",
            },
        },
    }
    if taints := node_taints(node):
        it["spec"]["taints"] = [taint.model_dump(exclude_defaults=True) for taint in taints]
    return _with_meta(it, "Node")


def pod_object(plan: Plan, pod: Pod) -> Object:
    """A Pod as the API gives it. A pod that is Pending has no address yet; one that ended keeps it."""
    base = pod.name.rpartition("-")[0] or pod.name
    container = next((w.name for w in plan.lab.workloads if pod.labels.get("app") == w.name), base)
    image = next((w.image for w in plan.lab.workloads if w.name == container), "registry.k8s.io/pause:3.10.2")
    host = next(node.address for node in plan.lab.nodes if node.name == pod.node)
    running = pod.phase == "Running"
    state: Object = {"running": {"startedAt": BORN}}
    if pod.phase == "Pending":
        state = {"waiting": {"reason": "ContainerCreating"}}
    elif not running:
        state = {"terminated": {"exitCode": 0, "reason": "Completed", "startedAt": BORN, "finishedAt": BORN}}
    conditions = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
    status: Object = {
        "phase": pod.phase,
        "qosClass": "BestEffort",
        "startTime": BORN,
        "hostIP": str(host),
        "hostIPs": [{"ip": str(host)}],
        "conditions": [
            {
                "type": kind,
                "status": "True" if running or kind in ("Initialized", "PodScheduled") else "False",
                "lastProbeTime": None,
                "lastTransitionTime": BORN,
            }
            for kind in conditions
        ],
        "containerStatuses": [
            {
                "name": container,
                "image": image,
                "ready": running,
                "started": running,
                "restartCount": 0,
                "state": state,
                "lastState": {},
            }
        ],
    }
    if pod.phase != "Pending":
        status |= {"podIP": str(pod.address), "podIPs": [{"ip": str(pod.address)}]}
    spec: Object = {
        "containers": [{"name": container, "image": image, "resources": {}}],
        "nodeName": pod.node,
        "restartPolicy": "Always",
        "serviceAccountName": "default",
    }
    if pod.host_network:
        spec["hostNetwork"] = True
    owner = {"apiVersion": "apps/v1", "blockOwnerDeletion": True, "controller": True, "kind": pod.owner, "name": base}
    metadata: Object = {
        "name": pod.name,
        "namespace": pod.namespace,
        "labels": dict(pod.labels),
        "ownerReferences": [owner | {"uid": uid("owner", base)}],
    }
    if pod.annotations:
        metadata["annotations"] = dict(pod.annotations)
    return _with_meta({"metadata": metadata, "spec": spec, "status": status}, pod.namespace, "Pod")


def _events(pod: Pod) -> list[Object]:
    """Multus' event for each interface it added."""
    if pod.delegate is None:
        return []
    said = [f"Add eth0 [{pod.address}/32] from kube-system/{pod.delegate.name}"]
    for extra in pod.extras:
        net = extra.network
        address = f"{extra.address}/{net.subnet.prefixlen}"
        said.append(f"Add {extra.interface} [{address}] from {net.namespace}/{net.name}")
    return [
        _with_meta(
            {
                "metadata": {"name": f"{pod.name}.{digest(message)[:16]}", "namespace": pod.namespace},
                "involvedObject": {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": pod.name,
                    "namespace": pod.namespace,
                    "uid": uid(pod.name, pod.namespace, "Pod"),
                },
                "reason": "AddedInterface",
                "message": message,
                "source": {"component": "multus"},
                "reportingComponent": "multus",
                "reportingInstance": "",
                "type": "Normal",
                "count": 1,
                "firstTimestamp": BORN,
                "lastTimestamp": BORN,
                "eventTime": None,
            },
            pod.namespace,
            "Event",
        )
        for message in said
    ]


def _new_event(old: Object) -> Object:
    """The same event as events.k8s.io/v1 shows it."""
    return {
        "metadata": old["metadata"],
        "eventTime": None,
        "reason": old["reason"],
        "regarding": old["involvedObject"],
        "note": old["message"],
        "type": old["type"],
        "deprecatedSource": old["source"],
        "deprecatedFirstTimestamp": old["firstTimestamp"],
        "deprecatedLastTimestamp": old["lastTimestamp"],
        "deprecatedCount": old["count"],
        "reportingController": "multus",
    }


def _ipam_block(plan: Plan, node: str, block: IPv4Network) -> Object:
    """calico-ipam's book of a block: the tunnel's address and its own pods, and none of host-local's."""
    used: dict[int, Object] = {}
    for kind in ("vxlan", "ipip"):
        address = plan.tunnel_address(node, kind.upper())
        if address and address in block:
            handle = f"{kind}-tunnel-addr-{node}"
            secondary = {"node": node, "type": f"{kind}TunnelAddress"}
            used[int(address) - int(block[0])] = {"handle_id": handle, "secondary": secondary}
    for pod in plan.on(node):
        if not pod.host_network and pod.delegate is None and pod.address in block and pod.phase == "Running":
            secondary = {"namespace": pod.namespace, "node": node, "pod": pod.name}
            handle = f"k8s-pod-network.{pod.container}"
            used[int(pod.address) - int(block[0])] = {"handle_id": handle, "secondary": secondary}
    order = sorted(used)
    spec = {
        "affinity": f"host:{node}",
        "allocations": [order.index(i) if i in used else None for i in range(block.num_addresses)],
        "attributes": [used[i] for i in order],
        "cidr": str(block),
        "deleted": False,
        "strictAffinity": False,
        "unallocated": [i for i in range(block.num_addresses) if i not in used],
    }
    return _custom("IPAMBlock", _dashed(block), spec)


# --- the server -------------------------------------------------------------------------------------------------------


class Api:
    """Serves `objects` on a port of 127.0.0.1 until closed. `directory` keeps the certificates."""

    def __init__(self, objects: dict[str, list[Object]], directory: Path) -> None:
        self.objects = objects
        self.requests: list[str] = []
        """Paths asked for, in order."""
        self.authority = Authority()
        self._directory = directory
        (directory / "ca.crt").write_text(self.authority.pem)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_verify_locations(directory / "ca.crt")
        self._context.verify_mode = ssl.CERT_OPTIONAL
        self._context.verify_flags |= ssl.VerifyFlags(_NO_CHECK_TIME)
        self.serve_certificate()
        api = self

        class Handler(_Handler):
            def setup(self) -> None:
                self.api = api
                self.request.settimeout(30)
                self.request = api._context.wrap_socket(self.request, server_side=True)
                super().setup()

        self._server = _Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self._server.server_address[1]}"

    def serve_certificate(self, days: int = 365) -> None:
        """The server's own certificate from now on; negative `days`: one that ended."""
        certificate, key = self.authority.issue("kube-apiserver", days=days)
        path = self._directory / "apiserver.pem"
        path.write_text(certificate + key)
        self._context.load_cert_chain(path)

    def kubeconfig(self, *, days: int = 3650, user: str = "cni-lab:admin") -> str:
        """As the stack output: JSON, everything embedded. Negative `days`: the client's certificate ended."""
        certificate, key = self.authority.issue(user, "kubeadm:cluster-admins", days=days)
        config = kubeconfig(
            server=self.url,
            user=user,
            ca=pem_data(self.authority.pem),
            certificate=pem_data(certificate),
            key=base64.b64encode(key.encode()).decode(),
        )
        return json.dumps(config, indent=2)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that refuses our certificate, or goes away, is no news."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "kube-apiserver"
    api: Api

    def log_message(self, format: str, *args: object) -> None:
        return

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(address.query).items()}
        self.api.requests.append(address.path)
        assert isinstance(self.request, ssl.SSLSocket)
        certificate = self.request.getpeercert()
        if not certificate:
            self._refuse(403, "Forbidden", f'forbidden: User "system:anonymous" cannot get path "{address.path}"')
        elif ssl.cert_time_to_seconds(str(certificate["notAfter"])) < datetime.now(UTC).timestamp():
            self._refuse(401, "Unauthorized", "Unauthorized")
        elif address.path == "/version":
            self._send(200, {"major": "1", "minor": "36", "gitVersion": "v1.36.3", "platform": "linux/amd64"})
        elif (answer := self._find(address.path, query)) is not None:
            self._send(200, answer)
        else:
            self._refuse(404, "NotFound", "the server could not find the requested resource")

    def _find(self, path: str, query: Mapping[str, str]) -> Object | None:
        for resource in RESOURCES:
            rest = path.removeprefix(resource.path + "/")
            if rest == path:
                continue
            words = rest.split("/")
            namespace = None
            if words[0] == "namespaces" and len(words) > 2:
                namespace, words = words[1], words[2:]
            if words[0] != resource.plural or len(words) > 2:
                continue
            items = self.api.objects[f"{resource.path}/{resource.plural}"]
            if namespace is not None:
                items = [it for it in items if it["metadata"].get("namespace") == namespace]
            if len(words) == 2:
                head = {"apiVersion": resource.api_version, "kind": resource.kind}
                return next((head | it for it in items if it["metadata"]["name"] == words[1]), None)
            return self._list(resource, items, query)
        return None

    def _list(self, resource: Resource, items: list[Object], query: Mapping[str, str]) -> Object:
        for term in filter(None, query.get("fieldSelector", "").split(",")):
            path, _, wanted = term.replace("==", "=").partition("=")
            keep = path.removesuffix("!")
            items = [it for it in items if (str(_field(it, keep)) == wanted) != path.endswith("!")]
        start, limit = int(query.get("continue", "0")), int(query.get("limit", "0"))
        page = items[start : start + limit] if limit else items[start:]
        metadata: Object = {"resourceVersion": "1700"}
        if start + len(page) < len(items):
            metadata |= {"continue": str(start + len(page)), "remainingItemCount": len(items) - start - len(page)}
        if resource.core:
            page = [{key: value for key, value in it.items() if key not in ("apiVersion", "kind")} for it in page]
        return {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": metadata, "items": page}

    def _refuse(self, code: int, reason: str, message: str) -> None:
        status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        self._send(code, status | {"message": message, "reason": reason, "code": code})

    def _send(self, code: int, body: Object) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def _field(it: Object, path: str) -> Any:
    found: Any = it
    for key in path.split("."):
        found = found.get(key, "") if isinstance(found, dict) else ""
    return found
