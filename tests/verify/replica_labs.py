"""Labs that a replica can stand for, one for each mode, and ones of any size."""

from __future__ import annotations

from typing import Any

from components.spec.models import Lab, Service
from tests.calico.labs import SEED

IMAGE = "docker.io/library/busybox:1.37"


def _lab(
    pools: list[dict[str, Any]],
    *,
    bgp: bool = False,
    wireguard: bool = False,
    one_subnet: bool = False,
    rounds: int = 1,
) -> Lab:
    """Three nodes, Calico alone, `rounds` pods on each node."""
    subnet = "control" if one_subnet else "workers"
    net = "10.0.1" if one_subnet else "10.0.2"
    return Lab.model_validate(
        {
            "machines": {"provider": "aws", "operatorCidrs": ["203.0.113.7/32"]},
            "nodes": [
                {"name": "control1", "role": "control-plane", "subnet": "control", "address": "10.0.1.20"},
                {"name": "worker1", "subnet": subnet, "address": f"{net}.30"},
                {"name": "worker2", "subnet": subnet, "address": f"{net}.31"},
            ],
            "calico": {"bgp": "Enabled" if bgp else "Disabled", "wireguard": wireguard, "pools": pools},
            "workloads": [{"name": "multitool", "image": IMAGE, "replicas": 3 * rounds, "onControlPlane": True}],
        }
    )


def _pool(encapsulation: str, name: str = "first", cidr: str = "10.244.0.0/20") -> dict[str, Any]:
    return {"name": name, "cidr": cidr, "blockSize": 26, "encapsulation": encapsulation}


EGRESS = Lab.model_validate(
    SEED
    | {
        "networks": [SEED["networks"][0] | {"ipMasq": True}],
        "workloads": [
            {"name": "normal", "image": IMAGE, "replicas": 3, "onControlPlane": True},
            {"name": "short", "image": IMAGE, "replicas": 2, "defaultNetwork": "default-calico"},
            {
                "name": "egress",
                "image": IMAGE,
                "replicas": 2,
                "defaultNetwork": "default-calico",
                "networks": [{"name": "cfosdefaultcni5", "defaultRoute": "10.1.128.1"}],
            },
        ],
    }
)
"""Seed 000: VXLAN, Multus, two delegates, bridge cni5; as shipped in stacks/Pulumi.cfos-egress.yaml."""

VXLAN = _lab([_pool("VXLAN")], rounds=2)
NONE = _lab([_pool("None")], bgp=True, one_subnet=True)
"""Seed 001 as it starts: routes by BIRD, no tunnel."""
NONE_ROUTED = _lab([_pool("None")], bgp=True)
"""Across two subnets: packets with pod addresses pass the router, which a VPC's would drop."""
CROSS_SUBNET = _lab([_pool("VXLANCrossSubnet")])
MIXED = _lab([_pool("VXLAN"), _pool("None", "second", "10.244.128.0/20")], bgp=True, one_subnet=True, rounds=2)
"""Seed 001 after its change: one pool by VXLAN, one by BIRD; the pods of each node are one in each."""
SERVED = VXLAN.model_copy(
    update={
        "workloads": (
            VXLAN.workloads[0].model_copy(update={"service": Service.model_validate({"port": 80, "targetPort": 8080})}),
        ),
    }
)
NFTABLES = VXLAN.model_copy(update={"calico": VXLAN.calico.model_copy(update={"linux_dataplane": "Nftables"})})
_TOR = {"name": "tor", "peerIP": "10.0.1.1", "asNumber": 64512}


def _peered(**calico: object) -> Lab:
    document = NONE.model_dump(mode="json", by_alias=True)
    return Lab.model_validate(document | {"calico": document["calico"] | calico})


PEERED = _peered(nodeToNodeMesh=False, peers=[_TOR])
"""Routes by BIRD, learned from one router in the nodes' own AS."""
PEERED_TWICE = _peered(
    nodeToNodeMesh=False,
    peers=[_TOR, _TOR | {"name": "spare", "peerIP": "10.0.1.2", "nodeSelector": "kubernetes.io/hostname == 'worker1'"}],
)
"""The same, with a second router for one of the nodes."""
PEERED_MESH = _peered(peers=[_TOR | {"asNumber": 64999}])
"""Routes by a mesh; a router outside learns them too."""
IPIP = _lab([_pool("IPIP")], bgp=True)
"""Seed 002."""
WIREGUARD = _lab([_pool("VXLAN")], wireguard=True)
"""Seed 003 with encryption: routes to VXLAN, which WireGuard's table comes before."""


def of_size(nodes: int, pods: int, subnet: str = "10.0.0.0/22") -> Lab:
    """`nodes` nodes in one subnet with `pods` pods altogether, VXLAN, delegates and no bridge."""
    machines = [
        {
            "name": f"node-{i:03}",
            "role": "worker" if i else "control-plane",
            "subnet": "nodes",
            "address": f"10.0.{i // 250 + 1}.{i % 250 + 2}",
        }
        for i in range(nodes)
    ]
    workloads = [{"name": "load", "image": IMAGE, "replicas": pods, "onControlPlane": True}]
    network = {"subnets": {"nodes": subnet}}
    return Lab.model_validate(SEED | {"network": network, "nodes": machines, "networks": [], "workloads": workloads})


NODE_FAULTS = (
    "vxlan-dropped",
    "fdb-gone",
    "proxy-arp-off",
    "multus-emptied",
    "delegate-renamed",
    "wrong-default-route",
    "range-moved",
)
"""The faults of a node that tests make in EGRESS."""
