"""What the Kubernetes API of a sandbox holds: nodes, pods, events, Calico's and Multus' objects."""

from __future__ import annotations

from ipaddress import IPv4Network

from components.calico import manifests as calico
from components.multus import manifests as multus
from components.sandbox import services
from components.sandbox.api import RESOURCES, Object
from components.sandbox.model import Plan, Pod, digest, uid
from components.sandbox.services import SERVICES, SLICES
from components.spec.addresses import network_of, reservation
from components.spec.models import Node
from components.spec.placement import node_taints

API_PORT = 6443
"""kube-apiserver's port."""
_CRD = "/apis/crd.projectcalico.org/v1"
_TUNNEL_ANNOTATIONS = {
    "VXLAN": "IPv4VXLANTunnelAddr",
    "IPIP": "IPv4IPIPTunnelAddr",
    "WireGuard": "IPv4WireguardInterfaceAddr",
}


def make_objects(plan: Plan) -> dict[str, list[Object]]:
    """What each resource's list holds, by path, e.g. /api/v1/pods."""
    lab = plan.lab
    found: dict[str, list[Object]] = {f"{it.path}/{it.plural}": [] for it in RESOURCES}
    found["/api/v1/nodes"] = [_node(plan, node, i) for i, node in enumerate(lab.nodes)]
    found["/api/v1/pods"] = [pod_object(plan, pod) for pod in plan.pods]
    for kind, plural in (("Deployment", "deployments"), ("DaemonSet", "daemonsets")):
        found[f"/apis/apps/v1/{plural}"] = _controllers(plan, kind)
    found["/api/v1/events"] = [event for pod in plan.pods for event in _events(plan, pod)]
    found["/apis/events.k8s.io/v1/events"] = [_new_event(event) for event in found["/api/v1/events"]]
    names = {"default", "kube-system", "kube-public", "kube-node-lease", *(pod.namespace for pod in plan.pods)}
    found["/api/v1/namespaces"] = [_with_meta(plan, {"metadata": {"name": n}}, "Namespace") for n in sorted(names)]
    found["/apis/k8s.cni.cncf.io/v1/network-attachment-definitions"] = [
        _with_meta(plan, it, key) for key, it in (multus.attachments(lab) if lab.multus else {}).items()
    ]
    found[f"{_CRD}/ippools"] = [_stored(plan, it) for it in calico.ip_pools(lab).values()]
    blocks = [(node, network_of(block)) for node, cidrs in plan.blocks.items() for block in cidrs]
    if lab.calico.ipam == "HostLocal":
        blocks = []
    found[f"{_CRD}/blockaffinities"] = [
        _custom(
            plan,
            "BlockAffinity",
            f"{node}-{_dashed(block)}",
            {"cidr": str(block), "deleted": "false", "node": node, "state": "confirmed", "type": "host"},
        )
        for node, block in blocks
    ]
    found[f"{_CRD}/ipamblocks"] = [_ipam_block(plan, node, block) for node, block in blocks]
    strict = lab.calico.strict_affinity
    found[f"{_CRD}/ipamconfigs"] = [
        _custom(plan, "IPAMConfig", "default", {"autoAllocateBlocks": True, "strictAffinity": strict})
    ]
    if lab.multus and lab.multus.delegates:
        cidrs = [str(cidr) for cidr in reservation(lab, plan.blocks)]
        found[f"{_CRD}/ipreservations"] = [_stored(plan, calico.ip_reservation(lab, cidrs))]
    found[SERVICES], found[SLICES] = _services(plan)
    felix = {"bpfEnabled": False, "healthPort": 9099, "nftablesMode": "Disabled", "vxlanPort": 4789, "vxlanVNI": 4096}
    found[f"{_CRD}/felixconfigurations"] = [_custom(plan, "FelixConfiguration", "default", felix)]
    bgp = calico.bgp_configuration(lab)
    settings: Object = {"logSeverityScreen": "Info"} | (bgp["spec"] if bgp else {})
    found[f"{_CRD}/bgpconfigurations"] = [_custom(plan, "BGPConfiguration", "default", settings)]
    found[f"{_CRD}/bgppeers"] = [_stored(plan, it) for it in calico.bgp_peers(lab).values()]
    return found


def _services(plan: Plan) -> tuple[list[Object], list[Object]]:
    """The Services of Kubernetes itself and of the workloads, and their EndpointSlices."""
    lab, pods = plan.lab, [pod_object(plan, pod) for pod in plan.pods]
    cidr = lab.kubernetes.service_cidr
    api = services.service(
        "default", "kubernetes", str(cidr[1]), [services.Port("https", "TCP", 443, API_PORT)], selector=None
    )
    named = [services.Port("dns", "UDP", 53, 53), services.Port("dns-tcp", "TCP", 53, 53)]
    named.append(services.Port("metrics", "TCP", 9153, 9153))
    dns = services.service("kube-system", "kube-dns", str(cidr[10]), named, {"k8s-app": "kube-dns"})
    found = [(api, services.sliced(api, "kubernetes", [_control_plane(node) for node in lab.control_planes]))]
    if any(pod.labels.get("k8s-app") == "kube-dns" for pod in plan.pods):
        found.append((dns, services.endpoint_slice(dns, f"kube-dns-{digest('slice', 'kube-dns')[:5]}", pods)))
    taken = {str(cidr[1]), str(cidr[10])}
    for workload in lab.workloads:
        if workload.service is None:
            continue
        port, target = workload.service.port, workload.service.target_port or workload.service.port
        address = _cluster_ip(cidr, workload.namespace, workload.name, taken)
        ports = [services.Port("", workload.service.protocol, port, target)]
        made = services.service(workload.namespace, workload.name, address, ports, {"app": workload.name})
        name = f"{workload.name}-{digest('slice', workload.namespace, workload.name)[:5]}"
        found.append((made, services.endpoint_slice(made, name, pods)))
    return (
        [_with_meta(plan, made, it["metadata"]["namespace"], "Service") for made, it in found],
        [_with_meta(plan, it, it["metadata"]["namespace"], "EndpointSlice") for _, it in found],
    )


def _control_plane(node: Node) -> Object:
    return services.endpoint(str(node.address), node.name)


def _cluster_ip(cidr: IPv4Network, namespace: str, name: str, taken: set[str]) -> str:
    """An address for a Service: one that looks drawn, as the API server's, and always the same one."""
    first, size = min(16, cidr.num_addresses // 4), cidr.num_addresses * 3 // 4 - 1
    start = int(digest("service", namespace, name)[:8], 16)
    address = next(it for n in range(size) if (it := str(cidr[first + (start + n) % size])) not in taken)
    taken.add(address)
    return address


def listening(plan: Plan) -> list[tuple[str, str, int, str]]:
    """The TCP ports behind the Services: node, network namespace (empty: the node's own), port, and the name with which
    it answers."""
    found = [(node.name, "", API_PORT, f"kube-apiserver-{node.name}") for node in plan.lab.control_planes]
    for pod in plan.pods:
        if pod.phase != "Running" or pod.host_network:
            continue
        ports = [53, 9153] if pod.labels.get("k8s-app") == "kube-dns" else []
        workload = next((w for w in plan.lab.workloads if pod.labels.get("cni-lab/workload") == w.name), None)
        if workload is not None and workload.service is not None and workload.service.protocol == "TCP":
            ports.append(workload.service.target_port or workload.service.port)
        found += [(pod.node, pod.netns, port, pod.name) for port in ports]
    return found


def _dashed(block: IPv4Network) -> str:
    return str(block).replace(".", "-").replace("/", "-")


def _with_meta(plan: Plan, it: Object, *words: str) -> Object:
    name = it["metadata"]["name"]
    extra = {"creationTimestamp": plan.started, "resourceVersion": "1", "uid": uid(name, *words)}
    return it | {"metadata": it["metadata"] | extra}


def _custom(plan: Plan, kind: str, name: str, spec: Object) -> Object:
    it = {"apiVersion": "crd.projectcalico.org/v1", "kind": kind, "metadata": {"name": name}, "spec": spec}
    return _with_meta(plan, it, kind)


def _stored(plan: Plan, it: Object) -> Object:
    """An object of projectcalico.org/v3 as it is stored, in crd.projectcalico.org/v1."""
    return _custom(plan, it["kind"], it["metadata"]["name"], it["spec"])


def _node(plan: Plan, node: Node, i: int) -> Object:
    prefix = plan.lab.network.subnets[node.subnet].prefixlen
    annotations = {
        "node.alpha.kubernetes.io/ttl": "0",
        "projectcalico.org/IPv4Address": f"{node.address}/{prefix}",
        "volumes.kubernetes.io/controller-managed-attach-detach": "true",
    }
    for kind, key in _TUNNEL_ANNOTATIONS.items():
        if address := plan.tunnel_address(node.name, kind):
            annotations[f"projectcalico.org/{key}"] = str(address)
    labels = {"kubernetes.io/hostname": node.name, "kubernetes.io/os": "linux", **node.labels}
    if node.role == "control-plane":
        labels["node-role.kubernetes.io/control-plane"] = ""
    # kube-controller-manager gives it; Calico uses it with HostLocal only.
    pod_cidr = str(IPv4Network((int(plan.lab.kubernetes.pod_cidr[0]) + 256 * i, 24)))
    if plan.lab.calico.ipam == "HostLocal":
        pod_cidr = plan.blocks[node.name][0]
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
                    "lastHeartbeatTime": plan.started,
                    "lastTransitionTime": plan.started,
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
    return _with_meta(plan, it, "Node")


def pod_object(plan: Plan, pod: Pod) -> Object:
    """A Pod as the API gives it. A pod that is Pending has no address yet; one that ended keeps it."""
    base = pod.name.rpartition("-")[0] or pod.name
    container = next((w.name for w in plan.lab.workloads if pod.labels.get("app") == w.name), base)
    image = next((w.image for w in plan.lab.workloads if w.name == container), "registry.k8s.io/pause:3.10.2")
    host = next(node.address for node in plan.lab.nodes if node.name == pod.node)
    running = pod.phase == "Running"
    state: Object = {"running": {"startedAt": plan.started}}
    if pod.phase == "Pending":
        state = {"waiting": {"reason": "ContainerCreating", "message": pod.reason}}
    elif not running:
        state = {
            "terminated": {"exitCode": 0, "reason": "Completed", "startedAt": plan.started, "finishedAt": plan.started}
        }
    conditions = ["PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"]
    status: Object = {
        "phase": pod.phase,
        "qosClass": "BestEffort",
        "startTime": plan.started,
        "hostIP": str(host),
        "hostIPs": [{"ip": str(host)}],
        "conditions": [
            {
                "type": kind,
                "status": "True" if running or kind in ("Initialized", "PodScheduled") else "False",
                "lastProbeTime": None,
                "lastTransitionTime": plan.started,
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
    metadata: Object = {
        "name": pod.name,
        "namespace": pod.namespace,
        "labels": dict(pod.labels),
    }
    if pod.owner:
        owner = {"apiVersion": "apps/v1", "blockOwnerDeletion": True, "controller": True, "kind": pod.owner}
        metadata["ownerReferences"] = [owner | {"name": base, "uid": uid("owner", base)}]
    if pod.annotations:
        metadata["annotations"] = dict(pod.annotations)
    return _with_meta(plan, {"metadata": metadata, "spec": spec, "status": status}, pod.namespace, "Pod")


def _controllers(plan: Plan, kind: str) -> list[Object]:
    """The Deployments or DaemonSets of the pods, with the status that the pods give them. A workload may have none."""
    pods: dict[tuple[str, str], list[Pod]] = {(w.namespace, w.name): [] for w in plan.lab.workloads if w.kind == kind}
    for pod in plan.pods:
        if pod.owner == {"Deployment": "ReplicaSet", "DaemonSet": "DaemonSet"}[kind]:
            # A Deployment's pod is named NAME-TEMPLATE-UNIQUE, a DaemonSet's NAME-UNIQUE.
            name = pod.name.rsplit("-", 2 if kind == "Deployment" else 1)[0]
            pods.setdefault((pod.namespace, name), []).append(pod)
    found = []
    for (namespace, name), of in pods.items():
        ready = sum(pod.phase == "Running" for pod in of)
        if kind == "Deployment":
            spec: Object = {"replicas": len(of)}
            status = {"replicas": len(of), "updatedReplicas": len(of), "readyReplicas": ready}
            status["availableReplicas"] = ready
        else:
            spec = {}
            status = {"desiredNumberScheduled": len(of), "currentNumberScheduled": len(of), "numberReady": ready}
            status |= {"numberAvailable": ready, "updatedNumberScheduled": len(of), "numberMisscheduled": 0}
        it = {"metadata": {"name": name, "namespace": namespace}, "spec": spec, "status": status}
        found.append(_with_meta(plan, it, namespace, kind))
    return found


def _events(plan: Plan, pod: Pod) -> list[Object]:
    """The event that Multus makes for each interface it added."""
    if not pod.network:
        return []
    messages = [f"Add eth0 [{pod.address}/32] from {pod.network}"]
    for extra in pod.extras:
        net, addresses = extra.network, " ".join(map(str, extra.addresses))
        messages.append(f"Add {extra.interface} [{addresses}] from {net.namespace}/{extra.definition}")
    return [
        _with_meta(
            plan,
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
                "firstTimestamp": plan.started,
                "lastTimestamp": plan.started,
                "eventTime": None,
            },
            pod.namespace,
            "Event",
        )
        for message in messages
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
    """A block's allocations: tunnel addresses and the pods that calico-ipam gave one, none of host-local's."""
    used: dict[int, Object] = {}
    for kind in ("vxlan", "ipip", "wireguard"):
        address = plan.tunnel_address(node, {"wireguard": "WireGuard"}.get(kind, kind.upper()))
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
    return _custom(plan, "IPAMBlock", _dashed(block), spec)
