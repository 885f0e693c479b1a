"""Labs for the tests of Calico, Multus and workloads: the lab of seed 000 with changes."""

from __future__ import annotations

from typing import Any, Final

from components.spec.models import Lab

SEED_BLOCKS = {
    "ip1001100": ["10.244.6.0/24"],
    "ip-10-0-2-200": ["10.244.97.0/24"],
    "ip-10-0-2-201": ["10.244.93.0/24"],
}
"""The blocks that the cluster of seed 000 claimed."""

SEED: dict[str, Any] = {
    "machines": {"provider": "aws", "operatorCidrs": ["203.0.113.7/32"]},
    "calico": {"containerIPForwarding": "Enabled"},
    "multus": {
        "clusterNetwork": "net-calico",
        "delegates": [
            {"name": "net-calico", "rangeStart": 150, "rangeEnd": 250},
            {
                "name": "default-calico",
                "rangeStart": 50,
                "rangeEnd": 100,
                "routes": ["10.96.0.0/12", "10.0.0.0/8"],
            },
        ],
    },
    "networks": [
        {
            "name": "cfosdefaultcni5",
            "type": "bridge",
            "bridge": "cni5",
            "subnet": "10.1.128.0/24",
            "hairpinMode": True,
            "routes": [
                {"dst": "10.96.0.0/12", "gateway": "10.1.128.1"},
                {"dst": "10.0.0.2/32", "gateway": "10.1.128.1"},
            ],
        }
    ],
    "workloads": [
        {
            "name": "normal",
            "image": "docker.io/praqma/network-multitool",
            "replicas": 3,
            "defaultNetwork": "default-calico",
            "networks": [{"name": "cfosdefaultcni5", "defaultRoute": "10.1.128.1"}],
        }
    ],
}


def lab(**changed: Any) -> Lab:
    """The lab of seed 000 with some top-level keys replaced."""
    return Lab.model_validate({**SEED, **changed})


def calico_lab(**calico: Any) -> Lab:
    """The lab of seed 000 with some keys of `calico` added or replaced."""
    return lab(calico={**SEED["calico"], **calico})


def pool(name: str, cidr: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "cidr": cidr, **keys}


VARIETY: dict[str, Lab] = {
    "seed-000": lab(),
    "plain": Lab.model_validate({"machines": SEED["machines"]}),
    "cross-node": calico_lab(
        bgp="Enabled",
        strictAffinity=True,
        asNumber=64600,
        peers=[{"name": "tor", "peerIP": "10.0.1.1", "asNumber": 64999}],
        pools=[
            pool("first", "10.244.0.0/24", blockSize=26, encapsulation="None"),
            pool("second", "10.244.128.0/24", blockSize=26, encapsulation="IPIPCrossSubnet", natOutgoing=False),
        ],
    ),
    "reflectors": calico_lab(bgp="Enabled", routeReflectors=["ip-10-0-2-200", "ip-10-0-2-201"]),
    "rack": calico_lab(
        bgp="Enabled",
        nodeToNodeMesh=False,
        peers=[{"name": "tor", "peerIP": "10.0.1.1", "asNumber": 64999, "password": {"config": "torPassword"}}],
        pools=[pool("p", "10.244.0.0/16", encapsulation="IPIPCrossSubnet")],
    ),
    "manifest-bird": calico_lab(
        install="manifest", bgp="Enabled", wireguard=True, pools=[pool("p", "10.244.0.0/16", encapsulation="IPIP")]
    ),
    "manifest-vxlan": calico_lab(
        install="manifest",
        mtu=1400,
        interface="eth1",
        linuxDataplane="Nftables",
        strictAffinity=True,
        pools=[pool("p", "10.244.0.0/16", encapsulation="VXLANCrossSubnet", disableBGPExport=True)],
    ),
    "host-local": calico_lab(bgp="Enabled", ipam="HostLocal", pools=[pool("p", "10.244.0.0/16", encapsulation="None")]),
}

POOL_MODES: Final = [
    ("IPIP", "Always", "Never"),
    ("IPIPCrossSubnet", "CrossSubnet", "Never"),
    ("VXLAN", "Never", "Always"),
    ("VXLANCrossSubnet", "Never", "CrossSubnet"),
    ("None", "Never", "Never"),
]
"""A pool's encapsulation as the operator's API has it, and the ipipMode and vxlanMode that an IPPool has for it."""
