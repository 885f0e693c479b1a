"""Labs as plain values, each right but for what a test puts in, and what the rules find in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from components.spec.findings import Finding, SpecError
from components.spec.load import parse_lab

Raw = dict[str, Any]


def nodes(count: int, role: str = "worker") -> list[Raw]:
    """One control plane, and nodes of the role, so that there are `count` nodes."""
    return [
        {
            "name": f"n{number}",
            "role": role if number else "control-plane",
            "subnet": "control",
            "address": f"10.0.1.{number + 10}",
        }
        for number in range(count)
    ]


def raw(**keys: Any) -> Raw:
    return {"machines": {"provider": "local"}, "nodes": nodes(1)} | keys


def aws(**keys: Any) -> Raw:
    return raw(machines={"provider": "aws", "operatorCidrs": ["198.18.0.0/32"]}, **keys)


def addressed(address: str, subnet: str = "10.0.1.0/24") -> Raw:
    """One node with this address in this subnet."""
    return {
        "network": {"subnets": {"control": subnet}},
        "nodes": [{"name": "n0", "role": "control-plane", "subnet": "control", "address": address}],
    }


def pool(cidr: str, block_size: int, **keys: Any) -> Raw:
    return {"pools": [{"name": "pool", "cidr": cidr, "blockSize": block_size}], **keys}


def delegates(*ranges: tuple[int, int]) -> Raw:
    listed = [{"name": f"d{n}", "rangeStart": start, "rangeEnd": end} for n, (start, end) in enumerate(ranges)]
    return {"clusterNetwork": "k8s-pod-network", "delegates": listed}


def bridged(subnet: str = "10.40.0.0/24", name: str = "net", bridge: str = "br1", **ipam: Any) -> Raw:
    return {"name": name, "type": "bridge", "bridge": bridge, "subnet": subnet, "ipam": ipam or {"type": "host-local"}}


def on_bridge(*networks: Raw, **keys: Any) -> Raw:
    return raw(networks=list(networks), multus={"clusterNetwork": "k8s-pod-network"}, **keys)


def attached(ip: str, **network: Any) -> Raw:
    """A pod with a fixed address in a bridge network."""
    attachment = {"name": network.get("name", "net"), "ips": [ip]}
    workload = {"name": "w", "kind": "Pod", "image": "docker.io/library/busybox", "networks": [attachment]}
    return on_bridge(bridged(**network), workloads=[workload | {"onControlPlane": True}])


def workers_and_pods(replicas: int, range_: tuple[int, int] = (10, 19)) -> Raw:
    """Two workers with a delegate's range of addresses each, and a workload of so many pods."""
    workload = {"name": "w", "image": "docker.io/library/busybox", "replicas": replicas, "defaultNetwork": "d0"}
    return raw(nodes=nodes(3), multus=delegates(range_), workloads=[workload])


def ranged(name: str, first: int, last: int, ipam: str = "host-local") -> Raw:
    """A bridge network that hands out these addresses of 10.40.0.0/24."""
    return bridged(name=name, type=ipam, rangeStart=f"10.40.0.{first}", rangeEnd=f"10.40.0.{last}")


def without_gateway(**ipam: Any) -> Raw:
    """A network whose bridge has no address."""
    return bridged(**ipam or {"type": "host-local", "rangeStart": "10.40.0.10"}) | {"isGateway": False}


def custom(capabilities: Raw) -> Raw:
    plugins = [{"type": "macvlan", "capabilities": capabilities}, {"type": "tuning"}]
    return {"name": "net", "type": "custom", "config": {"cniVersion": "0.3.1", "plugins": plugins}}


KEPT = ranged("net", 10, 20)
MACVLAN = {"name": "net", "type": "macvlan", "master": "eth1", "subnet": "10.40.0.0/24"} | {
    "ipam": {"type": "whereabouts", "rangeStart": "10.40.0.10"}
}


def attaching(network: Raw, attachment: Raw, **keys: Any) -> Raw:
    """A workload that asks for the network."""
    workload = {"name": "w", "image": "docker.io/library/busybox", "onControlPlane": True}
    workload |= {"networks": [{"name": "net"} | attachment]}
    return on_bridge(
        network, workloads=[workload | {key: keys.pop(key) for key in ("replicas",) if key in keys}], **keys
    )


def fixed_in(ips: list[str], network: Raw) -> Raw:
    return attaching(network, {"ips": ips})


def one_mac(mac: str, network: Raw, **keys: Any) -> Raw:
    return attaching(network, {"mac": mac}, **keys)


def routed(gateway: str, network: Raw, ips: Sequence[str] = (), keeps_cluster: bool = True) -> Raw:
    """A pod with a default route through the network. With `keeps_cluster`, a delegate's routes lead to the cluster."""
    lab = attaching(network, {"defaultRoute": gateway, "ips": list(ips)})
    if keeps_cluster:
        lab["multus"] = delegates((50, 60))
        lab["multus"]["delegates"][0]["routes"] = ["10.244.0.0/16", "10.96.0.0/12"]
        lab["workloads"][0]["defaultNetwork"] = "d0"
    return lab


def balanced(zones: dict[str, str]) -> Raw:
    """Three control planes on EC2 in two subnets."""
    control_planes = nodes(3, "control-plane")
    control_planes[2] |= {"subnet": "second", "address": "10.0.2.10"}
    network = {"subnets": {"control": "10.0.1.0/24", "second": "10.0.2.0/24"}, "zones": zones}
    return aws(nodes=control_planes, network=network)


def findings(given: Raw) -> list[Finding]:
    try:
        parse_lab(given)
    except SpecError as error:
        return list(error.findings)
    return []
