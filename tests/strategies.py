"""hypothesis strategies: valid labs of all three providers, as the value of `cni-lab:lab`."""

from __future__ import annotations

import base64
import hashlib
from ipaddress import IPv4Network
from typing import Any

from hypothesis import strategies as st

from components.spec import versions
from components.spec.models import CALICO_NETWORK

Raw = dict[str, Any]

PROVIDERS = ("aws", "local", "existing")
CONFIG = {"aws:region": "us-west-2"}
"""The configuration beside the lab in the stack file."""

names = st.integers(0, 999).map("n-{}".format) | st.sampled_from(["a", "0", "a-b", "x" * 63, "net-calico"])
ports = st.sampled_from([1, 22, 2222, 65535])


def host_key(seed: int) -> str:
    """An ed25519 public key in one line (RFC 8709)."""
    kind, key = b"ssh-ed25519", hashlib.sha256(bytes([seed])).digest()
    wire = len(kind).to_bytes(4, "big") + kind + len(key).to_bytes(4, "big") + key
    return f"ssh-ed25519 {base64.b64encode(wire).decode()}"


host_keys = st.integers(0, 255).map(host_key)


def optional(strategy: st.SearchStrategy[Any], **keys: st.SearchStrategy[Any]) -> st.SearchStrategy[Raw]:
    """Mappings that `strategy` draws, each with any of the keys added."""
    return st.builds(lambda base, more: {**base, **more}, strategy, st.fixed_dictionaries({}, optional=keys))


def machines(provider: str) -> st.SearchStrategy[Raw]:
    base = st.just({"provider": provider})
    match provider:
        case "aws":
            return optional(
                st.just({"provider": "aws", "operatorCidrs": ["203.0.113.7/32"]}),
                instanceType=st.sampled_from(["t3.large", "t3.medium", "m7i.xlarge", "t4g.large"]),
                image=st.just("ami-0123456789abcdef0"),
                spot=st.booleans(),
                volumeSize=st.integers(10, 1024),
            )
        case "local":
            return optional(
                base,
                engine=st.sampled_from(["auto", "podman", "docker"]),
                runArgs=st.just(["--runtime", "runc"]),
                memory=st.just("4Gi"),
                cpus=st.sampled_from([1, 2.5]),
                extraMounts=st.just([{"hostPath": "/srv", "containerPath": "/srv", "readOnly": True}]),
            )
    jump = optional(
        st.just({"address": "198.51.100.1", "user": "jump"}),
        port=ports,
        hostKey=host_keys,
        privateKeyFile=st.just("~/.ssh/jump"),
        socksPort=ports,
    )
    return optional(
        st.just({"provider": "existing", "user": "vagrant"}),
        port=ports,
        privateKeyFile=st.just("~/.ssh/id_ed25519"),
        jumpHost=jump,
    )


@st.composite
def labs(draw: st.DrawFn, provider: str | None = None, multus: bool | None = None, max_nodes: int = 5) -> Raw:
    """A lab that `parse_lab` accepts: it keeps to every rule by construction. With None, a choice is drawn."""
    provider = provider or draw(st.sampled_from(PROVIDERS))
    multus = draw(st.booleans()) if multus is None else multus
    vpc = IPv4Network((10 << 24 | draw(st.integers(0, 31)) << 16, 16))
    subnet_names = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    subnets = dict(zip(subnet_names, list(vpc.subnets(new_prefix=24))[1:], strict=False))
    nodes = draw(_nodes(provider, subnets, max_nodes))
    pods = IPv4Network(draw(st.sampled_from(["10.244.0.0/16", "192.168.0.0/16", "10.48.0.0/16"])))
    services = draw(st.sampled_from(["10.96.0.0/12", "10.233.0.0/18", "172.30.0.0/16"]))
    control_planes = sum(node.get("role") == "control-plane" for node in nodes)
    link_mtu = draw(st.sampled_from([None, 1500, 9001]))

    lab: Raw = {
        "machines": draw(machines(provider)),
        "network": {"vpcCidr": str(vpc), "subnets": {name: str(cidr) for name, cidr in subnets.items()}}
        | ({"mtu": link_mtu} if link_mtu else {}),
        "nodes": nodes,
        "kubernetes": draw(
            optional(
                st.just({"podCidr": str(pods), "serviceCidr": services}),
                version=st.sampled_from([f"{minor}.{known.patch}" for minor, known in versions.KUBERNETES.items()]),
                controlPlaneEndpoint=st.just("lb.example:6443"),
                dnsDomain=st.just("lab.example"),
                patches=st.lists(
                    st.sampled_from(
                        [
                            {"target": "kubeletconfiguration", "type": "merge", "patch": {"maxPods": 50}},
                            {"target": "etcd", "patch": {"metadata": {"labels": {"a": "b"}}}},
                            {"target": "etcd", "type": "json", "patch": [{"op": "remove", "path": "/metadata/labels"}]},
                        ]
                    ),
                    max_size=2,
                ),
                apiServer=st.just(
                    {
                        "certSANs": ["k8s.example"],
                        "extraArgs": [{"name": "service-node-port-range", "value": "1-65535"}],
                    }
                ),
            )
        )
        | ({"allowEvenControlPlanes": True} if control_planes % 2 == 0 else {}),
    }
    if "jumpHost" in lab["machines"] and "socksPort" not in lab["machines"]["jumpHost"]:
        lab["kubernetes"]["controlPlaneEndpoint"] = "lb.example:6443"
    if provider == "aws" and draw(st.booleans()):
        # The load balancer of several control planes is in one zone.
        choice = st.sampled_from(["us-west-2a", "us-west-2b"] if control_planes == 1 else ["us-west-2a"])
        lab["network"]["zones"] = {name: draw(choice) for name in subnets}
    subnets_of = {role: {n["subnet"] for n in nodes if n.get("role") == role} for role in ("control-plane", None)}
    if provider == "aws" and subnets_of[None] and not subnets_of[None] & subnets_of["control-plane"]:
        lab["machines"]["workerAccess"] = draw(st.sampled_from(["Public", "InstanceConnect"]))
    lab["calico"] = draw(_calico(provider, pods, nodes, multus))
    if multus:
        lab["multus"] = draw(_multus(lab["calico"]["pools"]))
        lab["networks"] = draw(_networks(provider))
    lab["workloads"] = draw(_workloads(lab))
    return lab | draw(optional(st.just({}), owner=st.just("ann"), ttlHours=st.integers(1, 720)))


@st.composite
def _nodes(draw: st.DrawFn, provider: str, subnets: dict[str, IPv4Network], most: int) -> list[Raw]:
    found: list[Raw] = []
    node_names = draw(st.lists(names, min_size=1, max_size=most, unique=True))
    control_planes = draw(st.integers(1, min(3, len(node_names))))
    for index, name in enumerate(node_names):
        subnet = draw(st.sampled_from(sorted(subnets)))
        node: Raw = {"name": name, "subnet": subnet, "address": str(subnets[subnet][10 + index])}
        if index < control_planes:
            node["role"] = "control-plane"
        if provider == "existing":
            node["ssh"] = draw(optional(st.fixed_dictionaries({"hostKey": host_keys}), port=ports))
        if draw(st.booleans()):
            node["labels"] = {"example.com/rack": draw(names)}
        if draw(st.booleans()):
            node["taints"] = [{"key": "example.com/only", "effect": "NoSchedule"}]
        found.append(node)
    # There must be a node that accepts every pod: a worker, or a control plane without kubeadm's taint.
    workers = found[control_planes:]
    if workers:
        workers[0].pop("taints", None)
    else:
        found[0]["taints"] = []
    return draw(st.permutations(found))


@st.composite
def _calico(draw: st.DrawFn, provider: str, pods: IPv4Network, nodes: list[Raw], multus: bool) -> Raw:
    calico: Raw = draw(
        optional(
            st.just({}),
            install=st.sampled_from(["operator", "manifest"]),
            containerIPForwarding=st.sampled_from(["Enabled", "Disabled"]),
            linuxDataplane=st.sampled_from(["Iptables", "Nftables"]),
            wireguard=st.booleans(),
            strictAffinity=st.booleans(),
            nodeAddressAutodetection=st.sampled_from(["FirstFound", "NodeInternalIP"]),
            mtu=st.integers(1280, 1440),
            asNumber=st.integers(1, 4294967295),
            bgp=st.sampled_from(["Enabled", "Disabled"]),
        )
    )
    calico |= draw(
        st.sampled_from(
            [
                {},
                *({"interface": pattern} for pattern in ("eth.*", "^(eth|en)[0-9]+$,bond0", "(?i)WG0")),
                {"canReach": "198.51.100.1"},
                {"skipInterface": "docker.*"},
                {"cidrs": ["10.0.0.0/8"]},
            ]
        )
    )
    kinds = ["VXLAN", "VXLANCrossSubnet"]
    if calico.get("bgp") == "Enabled":
        kinds += ["IPIP", "IPIPCrossSubnet"]
        if len({node["subnet"] for node in nodes}) == 1:
            kinds.append("None")
        if draw(st.booleans()):
            calico["routeReflectors"] = draw(st.lists(st.sampled_from([n["name"] for n in nodes]), unique=True))
        elif draw(st.booleans()):
            calico["nodeToNodeMesh"] = draw(st.booleans())
        for node in nodes:
            if draw(st.booleans()):
                node["asNumber"] = draw(st.integers(1, 4294967295))
        if draw(st.booleans()):
            selector = draw(st.sampled_from(["all()", "rack == 'r1'", "has(a) && b in {'c', 'd'} || !global()"]))
            calico["peers"] = [{"name": "tor", "peerIP": "198.51.100.2", "asNumber": 64513, "nodeSelector": selector}]
            if draw(st.booleans()):
                calico["peers"][0]["password"] = {"config": "torPassword"}
        if not multus and draw(st.booleans()):
            calico["ipam"] = "HostLocal"
            kinds = [kind for kind in kinds if not kind.startswith("VXLAN")]
    cidrs = list(pods.subnets(new_prefix=18))
    pool_names = draw(st.lists(names, min_size=1, max_size=2, unique=True))
    selectors = [st.sampled_from(["all()", "has(kubernetes.io/hostname)", "!(kubernetes.io/os == 'windows')"])] * 2
    if len(pool_names) == 2 and not multus and draw(st.booleans()):
        # Each node is selected by one of the two.
        control_plane = "has(node-role.kubernetes.io/control-plane)"
        selectors = [st.just(control_plane), st.just(f"!{control_plane}")]
    calico["pools"] = [
        draw(
            optional(
                st.fixed_dictionaries(
                    {
                        "name": st.just(name),
                        "cidr": st.just(str(cidr)),
                        "blockSize": st.integers(22, 26),
                        "encapsulation": st.sampled_from(kinds),
                    }
                ),
                natOutgoing=st.booleans(),
                disableBGPExport=st.booleans(),
            )
        )
        | {"nodeSelector": draw(selector)}
        for name, cidr, selector in zip(pool_names, cidrs, selectors, strict=False)
    ]
    return calico


@st.composite
def _multus(draw: st.DrawFn, pools: list[Raw]) -> Raw:
    """Up to three delegates. Their ranges follow one another in each pool's block and leave nine addresses."""
    if draw(st.integers(0, 3)) == 0:
        return {"clusterNetwork": CALICO_NETWORK}
    delegates: list[Raw] = []
    reached = {pool["name"]: 0 for pool in pools}
    for name in draw(st.lists(names, min_size=1, max_size=3, unique=True)):
        pool = draw(st.sampled_from(pools))
        start = reached[pool["name"]] + draw(st.integers(1, 3))
        end = start + draw(st.integers(7, 14))
        reached[pool["name"]] = end
        delegate: Raw = {"name": name, "rangeStart": start, "rangeEnd": end}
        if pool is not pools[0] or draw(st.booleans()):
            delegate["pool"] = pool["name"]
        if draw(st.booleans()):
            delegate["routes"] = ["10.96.0.0/12", "10.0.0.0/8"]
        if draw(st.booleans()):
            delegate["allowIPForwarding"] = draw(st.booleans())
        delegates.append(delegate)
    chosen = draw(st.sampled_from([*(delegate["name"] for delegate in delegates), CALICO_NETWORK]))
    return draw(
        optional(
            st.just({"clusterNetwork": chosen, "delegates": delegates}), logLevel=st.sampled_from(["debug", "error"])
        )
    )


@st.composite
def _networks(draw: st.DrawFn, provider: str) -> list[Raw]:
    kinds = ["bridge", "host-device", "custom"] + (["macvlan", "ipvlan"] if provider != "aws" else [])
    found: list[Raw] = []
    for index, name in enumerate(draw(st.lists(names, max_size=3, unique=True))):
        kind = draw(st.sampled_from(kinds))
        network: Raw = {"name": name, "type": kind, "namespace": draw(st.sampled_from(["default", "red"]))}
        if kind == "custom":
            found.append(network | {"config": {"cniVersion": "0.3.1", "type": "ptp", "ipMasq": True}})
            continue
        subnet = f"10.40.{index}"
        network["subnet"] = f"{subnet}.0/24"
        match kind:
            case "bridge":
                network |= {"bridge": f"lab{index}", "hairpinMode": draw(st.booleans()), "ipMasq": draw(st.booleans())}
            case "host-device":
                network["device"] = f"eth{index + 1}"
            case _:
                network["master"] = f"eth{index + 1}"
        # On a link that nodes share, host-local would give the same address on each of them.
        local = [None, "host-local"] if kind == "bridge" else []
        match draw(st.sampled_from([*local, "static", "whereabouts"])):
            case "static":
                network["ipam"] = {"type": "static", "addresses": [f"{subnet}.7/24"]}
            case str(ipam):
                network["ipam"] = {"type": ipam, "rangeStart": f"{subnet}.10", "rangeEnd": f"{subnet}.200"}
                if ipam == "whereabouts" and draw(st.booleans()):
                    network["ipam"]["exclude"] = [f"{subnet}.16/30"]
        if draw(st.booleans()):
            network["routes"] = [{"dst": "198.51.100.0/24", "gateway": f"{subnet}.1"}]
        if draw(st.booleans()):
            network["annotations"] = {"example.com/note": "any text"}
        found.append(network)
    return found


@st.composite
def _attachment(draw: st.DrawFn, workload: Raw, attachment: Raw, network: Raw, number: int) -> None:
    """Let an attachment ask for an interface's name, and where one pod in all has it, for an address and a MAC."""
    if draw(st.booleans()):
        attachment["interface"] = f"port{number}"
    if workload.get("kind") != "Pod" or network["type"] not in ("bridge", "macvlan"):
        return
    if draw(st.booleans()):
        attachment["mac"] = f"02:00:00:00:00:0{number}"
    # The address is outside of what the ipam hands out. No other workload may have it, and the name of the network's
    # second definition is longer by six characters.
    given = network.get("ipam", {}).get("rangeStart") and not network.get("taken") and len(network["name"]) < 57
    if given and draw(st.booleans()):
        network["taken"] = True
        attachment["ips"] = [network["subnet"].replace("0/24", "5/24")]


@st.composite
def _workloads(draw: st.DrawFn, lab: Raw) -> list[Raw]:
    """Up to four workloads with at most two pods each, because a delegate may have only eight addresses."""
    networks = list(lab.get("networks", ()))
    found: list[Raw] = []
    for name in draw(st.lists(names, max_size=4, unique=True)):
        workload: Raw = draw(
            optional(
                st.just({"name": name, "image": "docker.io/library/busybox:1.37", "replicas": draw(st.integers(0, 2))}),
                onControlPlane=st.just(True),
                annotations=st.just({"example.com/note": "any text"}),
                capabilities=st.just(["NET_ADMIN", "SYS_TIME"]),
                resources=st.just({"requests": {"cpu": "100m"}, "limits": {"memory": "64Mi"}}),
                kind=st.sampled_from(["Deployment", "DaemonSet", "Pod"]),
            )
        )
        if workload.get("kind", "Deployment") != "Deployment":
            del workload["replicas"]
        if "multus" in lab:
            if draw(st.booleans()):
                delegates = [delegate["name"] for delegate in lab["multus"].get("delegates", ())]
                workload["defaultNetwork"] = draw(st.sampled_from([*delegates, CALICO_NETWORK]))
            attached = draw(st.lists(st.sampled_from(networks), max_size=2, unique_by=id)) if networks else []
            workload["networks"] = [{"name": network["name"]} for network in attached]
            for network in attached:
                if network.get("ipam", {}).get("type") == "static":
                    # Only one pod of one workload can have the address.
                    workload |= {"kind": "Deployment", "replicas": min(1, workload.get("replicas", 1))}
                    networks.remove(network)
            for number, (attachment, network) in enumerate(zip(workload["networks"], attached, strict=True)):
                draw(_attachment(workload, attachment, network, number))
            if attached and attached[0]["type"] == "bridge" and draw(st.booleans()):
                workload["networks"][0]["defaultRoute"] = attached[0]["subnet"].replace("0/24", "1")
                attached[0]["ipMasq"] = True
        found.append(workload)
    for network in lab.get("networks", ()):
        network.pop("taken", None)
    return found
