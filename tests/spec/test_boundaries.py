"""Each rule at its limit: the last value that it accepts, and the first that it refuses.

A comparison that is wrong by one passes every other test. `./lab test` cannot see that such an example is missing; a
mutation run can (docs/contributing.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pytest

from components.multus.delegates import network_config
from components.spec import addresses, versions
from components.spec.findings import SpecError
from components.spec.links import gateway
from components.spec.load import parse_lab
from components.spec.models import BridgeNetwork, Delegate, Lab
from components.spec.rules.machines import placeholders
from components.spec.rules.networks import handed_out, last_host
from tests.spec.raw_labs import (
    KEPT,
    MACVLAN,
    Raw,
    addressed,
    attached,
    aws,
    balanced,
    bridged,
    custom,
    delegates,
    findings,
    fixed_in,
    nodes,
    on_bridge,
    one_mac,
    pool,
    ranged,
    raw,
    routed,
    without_gateway,
    workers_and_pods,
)
from tests.strategies import host_key

PLAIN = {"bgp": "Enabled", "pools": [{"name": "p", "cidr": "10.244.0.0/16", "encapsulation": "None"}]}
SUMS = dict.fromkeys(versions.calico_manifests("operator", "Disabled"), "0" * 64)


@dataclass(frozen=True)
class Limit:
    """`text`: what the refusal says at `key`, a part of its line. `accepted` may break no rule at all."""

    name: str
    accepted: Raw
    refused: Raw
    key: str
    text: str

    def __str__(self) -> str:
        return self.name


OLDEST = min(versions.KUBERNETES, key=versions.numbers)
NEWEST = max(versions.KUBERNETES, key=versions.numbers)
BEFORE_OLDEST = f"1.{int(OLDEST.split('.')[1]) - 1}.99"

KUBE_PROXY = {"target": "kubeproxydaemonset", "patch": {"metadata": {"annotations": {"lab": "yes"}}}}

LIMITS = [
    # --- pools and blocks
    Limit(
        "a block as large as its pool",
        raw(calico=pool("10.244.0.0/24", 24)),
        raw(calico=pool("10.244.0.0/24", 23)),
        "calico.pools[0].blockSize",
        "make it 24 or more",
    ),
    Limit(
        "as many blocks as nodes",
        raw(calico=pool("10.244.0.0/24", 25), nodes=nodes(2)),
        raw(calico=pool("10.244.0.0/24", 25), nodes=nodes(3)),
        "calico.pools[0].blockSize",
        "has 2 blocks of /25, and the pool selects 3 nodes. Fix: widen the pool, or make blockSize 26 or more",
    ),
    Limit(
        "blocks of one address",
        raw(calico=pool("10.244.0.0/31", 32), nodes=nodes(2)),
        raw(calico=pool("10.244.0.0/31", 31), nodes=nodes(2)),
        "calico.pools[0].blockSize",
        "or make blockSize 32 or more",
    ),
    Limit(
        "a pool of one address",
        raw(calico=pool("10.244.0.0/32", 32)),
        raw(calico=pool("10.244.0.0/32", 32), nodes=nodes(2)),
        "calico.pools[0].blockSize",
        "Fix: widen the pool.",
    ),
    # --- machines' addresses
    Limit(
        "the fifth address of a subnet on EC2",
        aws(**addressed("10.0.1.4")),
        aws(**addressed("10.0.1.3")),
        "nodes[0].address",
        "is reserved for AWS in 10.0.1.0/24. Fix: choose from 10.0.1.4 to 10.0.1.254",
    ),
    Limit(
        "the second address of a local subnet",
        raw(**addressed("10.0.1.2")),
        raw(**addressed("10.0.1.1")),
        "nodes[0].address",
        "is reserved for the gateway in 10.0.1.0/24. Fix: choose from 10.0.1.2 to 10.0.1.254",
    ),
    Limit(
        "the last address of a subnet",
        raw(**addressed("10.0.1.254")),
        raw(**addressed("10.0.1.255")),
        "nodes[0].address",
        "is the broadcast address",
    ),
    Limit(
        "the first address of a subnet",
        raw(**addressed("10.0.1.2")),
        raw(**addressed("10.0.1.0")),
        "nodes[0].address",
        "is the network address",
    ),
    Limit(
        "the longest prefix of a subnet",
        raw(**addressed("10.0.1.2", "10.0.1.0/29")),
        raw(**addressed("10.0.1.2", "10.0.1.0/30")),
        "network.subnets.control",
        "choose a prefix length of at most /29",
    ),
    Limit(
        "the longest prefix of a subnet on EC2",
        aws(**addressed("10.0.1.4", "10.0.1.0/28")),
        aws(**addressed("10.0.1.4", "10.0.1.0/29")),
        "network.subnets.control",
        "has a size that AWS does not accept",
    ),
    Limit(
        "the shortest prefix of a VPC",
        aws(network={"vpcCidr": "10.0.0.0/16", "subnets": {"control": "10.0.1.0/24"}}),
        aws(network={"vpcCidr": "10.0.0.0/15", "subnets": {"control": "10.0.1.0/24"}}),
        "network.vpcCidr",
        "choose a prefix length from /16 to /28",
    ),
    Limit(
        "the widest range of operators",
        raw(machines={"provider": "aws", "operatorCidrs": ["20.0.0.0/8"]}),
        raw(machines={"provider": "aws", "operatorCidrs": ["20.0.0.0/7"]}),
        "machines.operatorCidrs[0]",
        "is far too wide",
    ),
    Limit(
        "the last address of the smallest subnet",
        raw(**addressed("10.0.1.6", "10.0.1.0/29")),
        raw(**addressed("10.0.1.7", "10.0.1.0/29")),
        "nodes[0].address",
        "is the broadcast address of 10.0.1.0/29",
    ),
    Limit(
        "control planes in one zone, if a load balancer is for all of them",
        balanced({}),
        balanced({"second": "us-west-2b"}),
        "network.zones",
        "puts control planes into several zones",
    ),
    # --- the cluster's ranges
    Limit(
        "the widest range of Services",
        raw(kubernetes={"serviceCidr": "10.96.0.0/12"}),
        raw(kubernetes={"serviceCidr": "10.96.0.0/11"}),
        "kubernetes.serviceCidr",
        "is larger than kube-apiserver accepts",
    ),
    Limit(
        "the smallest range of Services",
        raw(kubernetes={"serviceCidr": "10.96.0.0/28"}),
        raw(kubernetes={"serviceCidr": "10.96.0.0/29"}),
        "kubernetes.serviceCidr",
        "has no room for the DNS Service",
    ),
    Limit(
        "the smallest range of pods",
        raw(kubernetes={"podCidr": "10.244.0.0/24"}),
        raw(kubernetes={"podCidr": "10.244.0.0/25"}),
        "kubernetes.podCidr",
        "kubeadm needs a prefix length from /8 to /24",
    ),
    Limit(
        "the largest range of pods",
        raw(
            kubernetes={"podCidr": "20.0.0.0/8"},
            calico=pool("20.0.0.0/24", 26),
        ),
        raw(
            kubernetes={"podCidr": "20.0.0.0/7"},
            calico=pool("20.0.0.0/24", 26),
        ),
        "kubernetes.podCidr",
        "kubeadm needs a prefix length from /8 to /24",
    ),
    Limit(
        "a /24 of the pods' range for each node",
        raw(kubernetes={"podCidr": "10.244.0.0/23"}, nodes=nodes(2)),
        raw(kubernetes={"podCidr": "10.244.0.0/23"}, nodes=nodes(3)),
        "kubernetes.podCidr",
        "has room for 2 ranges of /24, one for each node, and there are 3 nodes. Fix: choose a prefix length of at "
        "most /22",
    ),
    Limit(
        "as many nodes as a power of two",
        raw(kubernetes={"podCidr": "10.244.0.0/22"}, nodes=nodes(4)),
        raw(kubernetes={"podCidr": "10.244.0.0/23"}, nodes=nodes(4)),
        "kubernetes.podCidr",
        "choose a prefix length of at most /22",
    ),
    Limit(
        "one /24 of the pods' range",
        raw(kubernetes={"podCidr": "10.244.0.0/24"}),
        raw(kubernetes={"podCidr": "10.244.0.0/24"}, nodes=nodes(2)),
        "kubernetes.podCidr",
        "choose a prefix length of at most /23",
    ),
    # --- versions and names
    Limit(
        "the first Kubernetes whose kubeadm patches kube-proxy",
        raw(kubernetes={"version": "1.37.0", "patches": [KUBE_PROXY]}),
        raw(kubernetes={"version": "1.36.9", "patches": [KUBE_PROXY]}),
        "kubernetes.patches[0].target",
        "does not have. Fix: leave the patch out, or set kubernetes.version to 1.37 or later",
    ),
    Limit(
        "the oldest version of Kubernetes",
        raw(kubernetes={"version": f"{OLDEST}.0"}),
        raw(kubernetes={"version": BEFORE_OLDEST}),
        "kubernetes.version",
        f"Fix: write {OLDEST}.{versions.KUBERNETES[OLDEST].patch} or a later version",
    ),
    Limit(
        "a later minor, and another major",
        raw(kubernetes={"version": f"1.{int(NEWEST.split('.')[1]) + 1}.0"}),
        raw(kubernetes={"version": "2.0.0"}),
        "kubernetes.version",
        f"Fix: write {NEWEST}.{versions.KUBERNETES[NEWEST].patch}",
    ),
    Limit(
        "the first port",
        raw(kubernetes={"controlPlaneEndpoint": "api.example.com:1"}),
        raw(kubernetes={"controlPlaneEndpoint": "api.example.com:0"}),
        "kubernetes.controlPlaneEndpoint",
        "has an impossible port",
    ),
    Limit(
        "the last port",
        raw(kubernetes={"controlPlaneEndpoint": "api.example.com:65535"}),
        raw(kubernetes={"controlPlaneEndpoint": "api.example.com:65536"}),
        "kubernetes.controlPlaneEndpoint",
        "has an impossible port",
    ),
    Limit(
        "an IPv4 address",
        raw(kubernetes={"controlPlaneEndpoint": "10.0.1.255:6443"}),
        raw(kubernetes={"controlPlaneEndpoint": "10.0.1.256:6443"}),
        "kubernetes.controlPlaneEndpoint",
        "has no host name or IPv4 address before the port",
    ),
    Limit(
        "the oldest version of Calico",
        raw(calico={"version": versions.OLDEST_CALICO, "sha256": SUMS}),
        raw(calico={"version": "3.0.0", "sha256": SUMS}),
        "calico.version",
        f"is earlier than {versions.OLDEST_CALICO}",
    ),
    Limit(
        "a DNS label of 63 characters",
        raw(kubernetes={"dnsDomain": f"{'a' * 63}.local"}),
        raw(kubernetes={"dnsDomain": f"{'a' * 64}.local"}),
        "kubernetes.dnsDomain",
        "is not a DNS domain",
    ),
    Limit(
        "an odd number of control planes",
        raw(nodes=nodes(3, role="control-plane")),
        raw(nodes=nodes(2, role="control-plane")),
        "nodes",
        "tolerate no more losses than 1 would",
    ),
    # --- MTUs
    Limit(
        "the link's MTU less VXLAN's 50 bytes",
        raw(network={"mtu": 1500}, calico={"mtu": 1450}),
        raw(network={"mtu": 1500}, calico={"mtu": 1451}),
        "calico.mtu",
        "is more than the 1500 bytes of the link less 50 bytes for VXLAN. Fix: make it at most 1450",
    ),
    Limit(
        "the link's MTU without a tunnel",
        raw(network={"mtu": 1500}, calico=PLAIN | {"mtu": 1500}),
        raw(network={"mtu": 1500}, calico=PLAIN | {"mtu": 1501}),
        "calico.mtu",
        "is more than the 1500 bytes of the link. Fix: make it at most 1500",
    ),
    Limit(
        "the largest MTU of a link",
        raw(network={"mtu": 9216}),
        raw(network={"mtu": 9217}),
        "network.mtu",
        "make it at most 9216",
    ),
    Limit(
        "the link's MTU for a macvlan network",
        on_bridge(
            {"name": "m", "type": "macvlan", "master": "eth1", "subnet": "10.40.0.0/24", "mtu": 1500},
            network={"mtu": 1500},
        ),
        on_bridge(
            {"name": "m", "type": "macvlan", "master": "eth1", "subnet": "10.40.0.0/24", "mtu": 1501},
            network={"mtu": 1500},
        ),
        "networks[0].mtu",
        "make it at most 1500",
    ),
    # --- delegates
    Limit(
        "a delegate's range that ends before the next",
        raw(multus=delegates((50, 100), (101, 150))),
        raw(multus=delegates((50, 101), (101, 150))),
        "multus.delegates[1].rangeStart",
        "its range overlaps the range of delegates[0]",
    ),
    Limit(
        "a delegate's range that starts after a nested one",
        raw(multus=delegates((10, 99), (100, 150))),
        raw(multus=delegates((10, 100), (20, 30), (100, 150))),
        "multus.delegates[2].rangeStart",
        "its range overlaps the range of delegates[0]",
    ),
    Limit(
        "a range of one address before the next",
        raw(multus=delegates((50, 50), (51, 60))),
        raw(multus=delegates((50, 50), (50, 60))),
        "multus.delegates[1].rangeStart",
        "its range overlaps the range of delegates[0]",
    ),
    Limit(
        "the last address of a block",
        raw(multus=delegates((200, 255))),
        raw(multus=delegates((200, 256))),
        "multus.delegates[0].rangeEnd",
        "has addresses 0 to 255. Fix: make it at most 255",
    ),
    Limit(
        "a range that starts at the end of its block",
        raw(multus=delegates((255, 255))),
        raw(multus=delegates((256, 256))),
        "multus.delegates[0].rangeEnd",
        "Fix: choose a range inside the block",
    ),
    Limit(
        "a range of one address",
        raw(multus=delegates((50, 50))),
        raw(multus=delegates((51, 50))),
        "multus.delegates[0].rangeStart",
        "comes after rangeEnd 50",
    ),
    Limit(
        "eight addresses left for Calico",
        raw(multus=delegates((8, 255))),
        raw(multus=delegates((7, 255))),
        "multus.delegates",
        "the ranges leave calico-ipam 7 of the 256 addresses",
    ),
    Limit(
        "eight addresses left by two ranges with a gap",
        raw(multus=delegates((7, 99), (101, 255))),
        raw(multus=delegates((7, 99), (100, 255))),
        "multus.delegates",
        "the ranges leave calico-ipam 7 of the 256 addresses",
    ),
    # --- attached networks
    Limit(
        "the longest prefix of an attached network",
        on_bridge(bridged("10.40.0.0/30")),
        on_bridge(bridged("10.40.0.0/31")),
        "networks[0].subnet",
        "has no room for a gateway and a pod",
    ),
    Limit(
        "a range that ends before the next network's",
        on_bridge(
            bridged(name="a", type="host-local", rangeStart="10.40.0.10", rangeEnd="10.40.0.20"),
            bridged(name="b", type="host-local", rangeStart="10.40.0.21", rangeEnd="10.40.0.30"),
        ),
        on_bridge(
            bridged(name="a", type="host-local", rangeStart="10.40.0.10", rangeEnd="10.40.0.21"),
            bridged(name="b", type="host-local", rangeStart="10.40.0.21", rangeEnd="10.40.0.30"),
        ),
        "networks[1].subnet",
        "both hand out the same addresses",
    ),
    Limit(
        "one subnet on one bridge",
        on_bridge(
            bridged(name="a", type="host-local", rangeEnd="10.40.0.20"),
            bridged(name="b", type="host-local", rangeStart="10.40.0.21"),
        ),
        on_bridge(
            bridged(name="a", type="host-local", rangeEnd="10.40.0.20"),
            bridged(name="b", bridge="br2", type="host-local", rangeStart="10.40.0.21"),
        ),
        "networks[1].subnet",
        "is the subnet of networks[0] too, on another interface",
    ),
    Limit(
        # whereabouts has one list for all its networks, and host-local does not know that list.
        "a range that whereabouts hands out by two networks",
        on_bridge(
            bridged(name="a", type="whereabouts", rangeStart="10.40.0.10", rangeEnd="10.40.0.20"),
            bridged(name="b", type="whereabouts", rangeStart="10.40.0.15", rangeEnd="10.40.0.30"),
        ),
        on_bridge(
            bridged(name="a", type="host-local", rangeStart="10.40.0.10", rangeEnd="10.40.0.20"),
            bridged(name="b", type="whereabouts", rangeStart="10.40.0.15", rangeEnd="10.40.0.30"),
        ),
        "networks[1].subnet",
        "both hand out the same addresses",
    ),
    Limit(
        "a range after those of two networks, one within the other",
        on_bridge(*(ranged(f"n{first}", first, last) for first, last in ((10, 49), (20, 30), (50, 60))[::2])),
        on_bridge(*(ranged(f"n{first}", first, last) for first, last in ((10, 50), (20, 30), (50, 60)))),
        "networks[2].subnet",
        "is the subnet of networks[0] too, and both hand out the same addresses",
    ),
    Limit(
        "a range of whereabouts after those of two networks, one within the other",
        on_bridge(ranged("n10", 10, 49), ranged("n50", 50, 60, "whereabouts")),
        on_bridge(ranged("n10", 10, 50), ranged("n20", 20, 30), ranged("n50", 50, 60, "whereabouts")),
        "networks[2].subnet",
        "is the subnet of networks[0] too, and both hand out the same addresses",
    ),
    Limit(
        "the name of a delegate in another namespace than the delegate",
        raw(
            networks=[bridged(name="d0"), bridged("10.41.0.0/24", "net", "br2") | {"namespace": "kube-system"}],
            multus=delegates((50, 60)),
        ),
        raw(networks=[bridged(name="d0") | {"namespace": "kube-system"}], multus=delegates((50, 60))),
        "networks[0].name",
        "is the name of a delegate",
    ),
    Limit(
        "the gateway of a route: an address of the subnet, or none",
        on_bridge(bridged() | {"routes": [{"dst": "10.8.0.0/16"}, {"dst": "10.9.0.0/16", "gateway": "10.40.0.254"}]}),
        on_bridge(bridged() | {"routes": [{"dst": "10.8.0.0/16"}, {"dst": "10.9.0.0/16", "gateway": "10.40.1.1"}]}),
        "networks[0].routes[1].gateway",
        "lies outside the subnet 10.40.0.0/24",
    ),
    Limit(
        "ipam: the last host of the smallest subnet",
        on_bridge(bridged("10.40.0.0/30", type="host-local", gateway="10.40.0.2")),
        on_bridge(bridged("10.40.0.0/30", type="host-local", gateway="10.40.0.3")),
        "networks[0].ipam.gateway",
        "choose from 10.40.0.1 to 10.40.0.2",
    ),
    Limit(
        "ipam: a static address that is the first host",
        on_bridge(bridged(type="static", addresses=["10.40.0.1/24"])),
        on_bridge(bridged(type="static", addresses=["10.40.0.0/24"])),
        "networks[0].ipam.addresses[0]",
        "choose from 10.40.0.1 to 10.40.0.254",
    ),
    Limit(
        "ipam: the first host",
        on_bridge(bridged(type="host-local", rangeStart="10.40.0.1")),
        on_bridge(bridged(type="host-local", rangeStart="10.40.0.0")),
        "networks[0].ipam.rangeStart",
        "choose from 10.40.0.1 to 10.40.0.254",
    ),
    Limit(
        "ipam: the last host",
        on_bridge(bridged(type="host-local", rangeEnd="10.40.0.254")),
        on_bridge(bridged(type="host-local", rangeEnd="10.40.0.255")),
        "networks[0].ipam.rangeEnd",
        "choose from 10.40.0.1 to 10.40.0.254",
    ),
    Limit(
        "ipam: a gateway that is the last host",
        on_bridge(bridged(type="host-local", gateway="10.40.0.254")),
        on_bridge(bridged(type="host-local", gateway="10.40.0.255")),
        "networks[0].ipam.gateway",
        "is not a host of the subnet 10.40.0.0/24",
    ),
    Limit(
        "ipam: a gateway that is the first host",
        on_bridge(bridged(type="host-local", gateway="10.40.0.1")),
        on_bridge(bridged(type="host-local", gateway="10.40.0.0")),
        "networks[0].ipam.gateway",
        "is not a host of the subnet 10.40.0.0/24",
    ),
    Limit(
        "ipam: a range of one address",
        on_bridge(bridged(type="host-local", rangeStart="10.40.0.9", rangeEnd="10.40.0.9")),
        on_bridge(bridged(type="host-local", rangeStart="10.40.0.10", rangeEnd="10.40.0.9")),
        "networks[0].ipam.rangeStart",
        "comes after the last address, 10.40.0.9",
    ),
    Limit(
        "ipam: a static address that is the last host",
        on_bridge(bridged(type="static", addresses=["10.40.0.254/24"])),
        on_bridge(bridged(type="static", addresses=["10.40.0.255/24"])),
        "networks[0].ipam.addresses[0]",
        "choose from 10.40.0.1 to 10.40.0.254",
    ),
    # --- workloads
    Limit(
        "as many pods as addresses",
        workers_and_pods(20),
        workers_and_pods(21),
        "workloads[0].replicas",
        "21 pods in all need addresses of d0, which has 10 on each of 2 nodes",
    ),
    Limit(
        "a fixed address before the range of the others",
        attached("10.40.0.9", type="host-local", rangeStart="10.40.0.10", rangeEnd="10.40.0.20"),
        attached("10.40.0.10", type="host-local", rangeStart="10.40.0.10", rangeEnd="10.40.0.20"),
        "workloads[0].networks[0].ips[0]",
        "let the network's ipam.rangeStart be 10.40.0.11",
    ),
    Limit(
        "a fixed address after the range of the others",
        attached("10.40.0.21", type="host-local", rangeStart="10.40.0.10", rangeEnd="10.40.0.20"),
        attached("10.40.0.20", type="host-local", rangeStart="10.40.0.10", rangeEnd="10.40.0.20"),
        "workloads[0].networks[0].ips[0]",
        "end ipam.rangeEnd before it",
    ),
    Limit(
        "a fixed address that is the last host",
        attached("10.40.0.254", type="host-local", rangeEnd="10.40.0.20"),
        attached("10.40.0.255", type="host-local", rangeEnd="10.40.0.20"),
        "workloads[0].networks[0].ips[0]",
        "choose from 10.40.0.1 to 10.40.0.254",
    ),
    Limit(
        "a fixed address that is the first host",
        attached("10.40.0.1", type="host-local", rangeStart="10.40.0.10") | {"networks": [without_gateway()]},
        attached("10.40.0.0", type="host-local", rangeStart="10.40.0.10") | {"networks": [without_gateway()]},
        "workloads[0].networks[0].ips[0]",
        "choose from 10.40.0.1 to 10.40.0.254",
    ),
    Limit(
        "a fixed address in the smallest subnet",
        attached("10.40.0.2", subnet="10.40.0.0/30", type="host-local", rangeEnd="10.40.0.1"),
        attached("10.40.0.3", subnet="10.40.0.0/30", type="host-local", rangeEnd="10.40.0.1"),
        "workloads[0].networks[0].ips[0]",
        "choose from 10.40.0.1 to 10.40.0.2",
    ),
    Limit(
        "a fixed address that whereabouts keeps",
        attached("10.40.0.50", type="whereabouts", exclude=["10.40.0.48/30"]),
        attached("10.40.0.52", type="whereabouts", exclude=["10.40.0.48/30"]),
        "workloads[0].networks[0].ips[0]",
        "add 10.40.0.52/32 to the network's ipam.exclude",
    ),
    Limit(
        # whereabouts hands out the gateway's address too, if no bridge has it.
        "a fixed address that is a gateway which host-local keeps",
        attached("10.40.0.1") | {"networks": [without_gateway(type="host-local")]},
        attached("10.40.0.1") | {"networks": [without_gateway(type="whereabouts")]},
        "workloads[0].networks[0].ips[0]",
        "may also be handed out: whereabouts gives 10.40.0.1 to 10.40.0.254",
    ),
    Limit(
        "a fixed address with the bridge as the first host",
        attached("10.40.0.9", type="host-local", rangeStart="10.40.0.10", gateway="10.40.0.1"),
        attached("10.40.0.9", type="host-local", rangeStart="10.40.0.10", gateway="10.40.0.254"),
        "workloads[0].networks[0].ips",
        "needs a bridge at 10.40.0.1, the only gateway that the plugin finds",
    ),
    Limit(
        "a fixed address that is written once",
        fixed_in(["10.40.0.9/24", "10.40.0.8"], KEPT),
        fixed_in(["10.40.0.9/24", "10.40.0.9"], KEPT),
        "workloads[0].networks[0].ips[1]",
        "is ips[0] already",
    ),
    Limit(
        "a fixed address for a custom configuration that takes it",
        fixed_in(["10.40.0.9/24"], custom({"ips": True, "mac": False})),
        fixed_in(["10.40.0.9/24"], custom({"ips": False, "mac": True})),
        "workloads[0].networks[0].ips",
        "does not declare the capability. Fix: add capabilities: {ips: true} to its plugin",
    ),
    Limit(
        "a custom configuration with its version",
        on_bridge(custom({})),
        on_bridge(custom({}) | {"config": {"type": "ptp"}}),
        "networks[0].config.cniVersion",
        "missing — a CNI configuration needs it. Fix: add cniVersion: 0.3.1",
    ),
    Limit(
        "a MAC address that is not multicast",
        one_mac("1e:00:00:00:00:01", bridged()),
        one_mac("1f:00:00:00:00:01", bridged()),
        "workloads[0].networks[0].mac",
        "is a multicast address",
    ),
    Limit(
        "a MAC address for one pod of a bridge",
        one_mac("02:00:00:00:00:01", bridged(), replicas=1),
        one_mac("02:00:00:00:00:01", bridged(), replicas=2),
        "workloads[0].networks[0].mac",
        "would be the address of 2 pods",
    ),
    Limit(
        "a MAC address for one pod of a link that all nodes share",
        one_mac("02:00:00:00:00:01", MACVLAN, replicas=1, nodes=nodes(3)),
        one_mac("02:00:00:00:00:01", MACVLAN, replicas=2, nodes=nodes(3)),
        "workloads[0].networks[0].mac",
        "would be the address of 2 pods on one link",
    ),
    Limit(
        "a default route before the addresses of pods",
        routed("10.40.0.9", ranged("net", 10, 20)),
        routed("10.40.0.10", ranged("net", 10, 20)),
        "workloads[0].networks[0].defaultRoute",
        "because pods get 10.40.0.10 to 10.40.0.20. Fix: write 10.40.0.1, the bridge's own address, or let the "
        "network's ipam.rangeStart be 10.40.0.11",
    ),
    Limit(
        "a default route after the addresses of pods",
        routed("10.40.0.21", ranged("net", 10, 20)),
        routed("10.40.0.20", ranged("net", 10, 20)),
        "workloads[0].networks[0].defaultRoute",
        "or end ipam.rangeEnd before it",
    ),
    Limit(
        "a default route through the last host",
        routed("10.40.0.254", ranged("net", 10, 20)),
        routed("10.40.0.255", ranged("net", 10, 20)),
        "workloads[0].networks[0].defaultRoute",
        "is not a host of the network's subnet 10.40.0.0/24",
    ),
    Limit(
        "a default route through the first host",
        routed("10.40.0.1", MACVLAN),
        routed("10.40.0.0", MACVLAN),
        "workloads[0].networks[0].defaultRoute",
        "is not a host of the network's subnet 10.40.0.0/24. Fix: choose another in 10.40.0.0/24",
    ),
    Limit(
        "a default route in the smallest subnet",
        routed("10.40.0.1", bridged("10.40.0.0/30")),
        routed("10.40.0.3", bridged("10.40.0.0/30")),
        "workloads[0].networks[0].defaultRoute",
        "is not a host of the network's subnet 10.40.0.0/30",
    ),
    Limit(
        "a default route through another address than the pod's own",
        routed("10.40.0.8", KEPT, ips=["10.40.0.9/24"]),
        routed("10.40.0.9", KEPT, ips=["10.40.0.9/24"]),
        "workloads[0].networks[0].defaultRoute",
        "is the pod's own address",
    ),
    Limit(
        # The bridge of every node has the same range, so replies to the pod's own address would end on another node.
        "a default route through the node's bridge, which masquerades",
        routed("10.40.0.1", bridged() | {"ipMasq": True}, keeps_cluster=False),
        routed("10.40.0.1", bridged(), keeps_cluster=False),
        "workloads[0].networks[0].defaultRoute",
        "no other route leads to pods (10.244.0.0/16) and Services (10.96.0.0/12)",
    ),
    Limit(
        "a default route through an address that nobody has",
        routed("10.40.0.9", ranged("net", 10, 20)),
        routed("10.40.0.9", ranged("net", 10, 20) | {"ipMasq": True}, keeps_cluster=False),
        "workloads[0].networks[0].defaultRoute",
        "no other route leads to pods (10.244.0.0/16) and Services (10.96.0.0/12)",
    ),
    Limit(
        "as many pods as a range of one address has on the nodes",
        workers_and_pods(2, (10, 10)),
        workers_and_pods(3, (10, 10)),
        "workloads[0].replicas",
        "3 pods in all need addresses of d0, which has 1 on each of 2 nodes",
    ),
    Limit(
        "the longest name of a network with fixed addresses",
        attached("10.40.0.21", name="n" * 57, type="host-local", rangeEnd="10.40.0.20"),
        attached("10.40.0.21", name="n" * 58, type="host-local", rangeEnd="10.40.0.20"),
        "workloads[0].networks[0].ips",
        "whose name would be longer than 63 characters",
    ),
]


@pytest.mark.parametrize("limit", LIMITS, ids=str)
def test_the_last_value_that_is_accepted_and_the_first_that_is_not(limit: Limit) -> None:
    assert findings(limit.accepted) == []
    refusals = [finding for finding in findings(limit.refused) if finding.key == limit.key]
    assert any(limit.text in str(finding) for finding in refusals), findings(limit.refused)


def test_a_node_may_have_every_host_of_its_subnet_but_the_reserved_ones() -> None:
    """AWS keeps the first four addresses of a subnet and the last one."""
    for provider, first in ((aws, 4), (raw, 2)):
        refused = [host for host in range(16) if findings(provider(**addressed(f"10.0.1.{host}", "10.0.1.0/28"))) != []]
        assert refused == [*range(first), 15]


@pytest.mark.parametrize(
    ("control_planes", "workers", "fits"), [(1, 10, True), (1, 11, False), (3, 7, True), (3, 8, False)]
)
def test_the_last_address_of_a_subnet_on_ec2(control_planes: int, workers: int, fits: bool) -> None:
    """A /28 has 16 addresses, AWS keeps five, and the load balancer of three control planes needs one."""
    listed = nodes(control_planes + workers)
    for number, node in enumerate(listed):
        node["address"] = f"10.0.1.{4 + number}"
        node["role"] = "control-plane" if number < control_planes else "worker"
    given = aws(network={"subnets": {"control": "10.0.1.0/28"}}, nodes=listed)
    assert (findings(given) == []) is fits


def test_a_subnet_without_hosts_has_one_finding() -> None:
    """The rules about addresses in it do not repeat that it is too small."""
    for length in (31, 32):
        network = bridged(f"10.40.0.0/{length}", type="host-local", gateway="10.40.0.9")
        given = routed("10.40.0.9", network, ips=["10.40.0.9/24"])
        assert [finding.key for finding in findings(given)] == ["networks[0].subnet"]
        only = addressed("10.0.1.0", f"10.0.1.0/{length}")
        assert [finding.key for finding in findings(raw(**only))] == ["network.subnets.control"]


def test_a_range_that_overlaps_several_has_one_finding() -> None:
    found = findings(on_bridge(bridged("10.0.0.0/8")))
    assert [finding.key for finding in found] == ["networks[0].subnet"]


def test_a_workload_without_pods_uses_no_address() -> None:
    def lab(*replicas: int) -> Raw:
        given = fixed_in(["10.40.0.9/24"], KEPT)
        (workload,) = given["workloads"]
        return given | {"workloads": [workload | {"name": f"w{n}", "replicas": r} for n, r in enumerate(replicas)]}

    assert findings(lab(1, 0)) == []
    assert findings(lab(0, 1)) == []
    # Each workload has one finding, also the last, whose address two others have.
    assert [finding.key for finding in findings(lab(1, 1, 1))] == [f"workloads[{n}].networks[0].ips" for n in (1, 2)]


def test_pods_that_no_node_accepts_have_one_finding() -> None:
    given = one_mac("02:00:00:00:00:01", bridged(), nodes=nodes(1))
    given["workloads"][0]["onControlPlane"] = False
    assert [finding.key for finding in findings(given)] == ["workloads[0].onControlPlane"]


SELECTIVE = [
    {"name": "first", "cidr": "10.244.0.0/17", "nodeSelector": "kubernetes.io/hostname == 'n1'"},
    {"name": "second", "cidr": "10.244.128.0/17", "nodeSelector": "kubernetes.io/hostname != 'n1'"},
]
UNKNOWN = [SELECTIVE[0] | {"nodeSelector": "kubernetes.io/arch == 'arm64'"}, SELECTIVE[1] | {"nodeSelector": "all()"}]


@pytest.mark.parametrize(
    ("pools", "text", "problem"),
    [
        (SELECTIVE, '["first", "second"]', None),
        (SELECTIVE, '["10.244.0.0/17", "second"]', None),
        (SELECTIVE, '["first"]', "names no pool that selects n2, where pods may start"),
        (SELECTIVE, '["second"]', "names no pool that selects n1, where pods may start"),
        (SELECTIVE, '["third"]', "names third, which is not one of calico.pools"),
        (SELECTIVE, "first", "is not a JSON list of pools"),
        (SELECTIVE, '"first"', "is not a JSON list of pools"),
        (SELECTIVE, "[]", "is not a JSON list of pools"),
        (SELECTIVE, "[1]", "is not a JSON list of pools"),
        # The live node decides whether the pool selects it.
        (UNKNOWN, '["first"]', None),
    ],
)
def test_the_pools_that_a_workload_names(pools: list[Raw], text: str, problem: str | None) -> None:
    workload = {"name": "w", "image": "docker.io/library/busybox"}
    workload |= {"annotations": {"cni.projectcalico.org/ipv4pools": text}}
    found = findings(raw(nodes=nodes(3), calico={"pools": pools}, workloads=[workload]))
    assert [finding.problem for finding in found] == ([problem] if problem else [])


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({}, None),
        ({"multus": delegates((50, 60))}, None),
        ({"multus": {**delegates((50, 60)), "clusterNetwork": "d0"}}, "host-local gives the addresses of delegate d0"),
        ({"calico": PLAIN | {"ipam": "HostLocal"}}, "addresses come from the node's podCIDR"),
    ],
)
def test_only_calico_ipam_reads_the_pools_of_a_workload(keys: Raw, problem: str | None) -> None:
    lab = raw(nodes=nodes(2), calico=PLAIN) | keys
    annotations = {"cni.projectcalico.org/ipv4pools": '["p"]'}
    lab["workloads"] = [{"name": "w", "image": "docker.io/library/busybox", "annotations": annotations}]
    found = findings(lab)
    assert len(found) == bool(problem)
    assert problem is None or problem in found[0].problem


ROUTES = ["10.244.0.0/16", "10.96.0.0/12"]


@pytest.mark.parametrize(
    ("routes", "lost"),
    [
        (ROUTES, None),
        (["10.0.0.0/8"], None),
        (["10.244.0.0/17", "10.244.128.0/17", "10.96.0.0/12"], None),
        (ROUTES[:1], "Services (10.96.0.0/12)"),
        (ROUTES[1:], "pods (10.244.0.0/16)"),
        (["10.244.0.0/17", "10.96.0.0/12"], "pods (10.244.0.0/16)"),
        ([], "pods (10.244.0.0/16) and Services (10.96.0.0/12)"),
    ],
)
def test_the_routes_that_a_default_route_leaves(routes: list[str], lost: str | None) -> None:
    """Routes of the delegate and of the attached networks together must lead to every pod and every Service."""
    of_delegate, of_network = routes[:1], [{"dst": dst} for dst in routes[1:]]
    given = routed("10.40.0.1", bridged() | {"routes": of_network})
    given["multus"]["delegates"][0]["routes"] = of_delegate
    found = findings(given)
    assert len(found) == bool(lost)
    assert lost is None or found[0].problem.endswith(f"no other route leads to {lost}")


@pytest.mark.parametrize("name", ["k8s-pod-network", "d0", "nothing"])
def test_a_default_network_that_does_not_exist_has_one_finding(name: str) -> None:
    given = routed("10.40.0.1", bridged()) | {"multus": delegates((50, 60))}
    given["workloads"][0]["defaultNetwork"] = name
    key = "defaultNetwork" if name == "nothing" else "networks[0].defaultRoute"
    assert [finding.key for finding in findings(given)] == [f"workloads[0].{key}"]


@pytest.mark.parametrize(
    ("machines", "peers", "accepted"),
    [
        ("existing", ["all()"], True),
        ("existing", ["kubernetes.io/hostname == 'n0'", "kubernetes.io/hostname == 'n1'"], True),
        ("existing", ["kubernetes.io/hostname == 'n0'"], False),
        ("existing", [], False),
        # The router of these machines takes no routes.
        ("local", ["all()"], False),
    ],
)
def test_plain_packets_need_a_router_that_every_node_peers_with(
    machines: str, peers: list[str], accepted: bool
) -> None:
    two = nodes(2)
    two[1] |= {"subnet": "workers", "address": "10.0.2.10"}
    provider = {"provider": machines}
    if machines == "existing":
        provider["user"] = "root"
        two = [node | {"ssh": {"hostKey": host_key(number)}} for number, node in enumerate(two)]
    peering = [
        {"name": f"p{n}", "peerIP": "10.0.1.1", "asNumber": 64999, "nodeSelector": text} for n, text in enumerate(peers)
    ]
    found = findings(raw(machines=provider, nodes=two, calico=PLAIN | {"peers": peering}))
    assert [finding.key for finding in found] == ([] if accepted else ["calico.pools[0].encapsulation"])


def test_zones_of_a_region_are_for_ec2() -> None:
    """A wrong provider, or a region that is no region, has its own finding, and the zones have none."""
    network = {"subnets": {"control": "10.0.1.0/24"}, "zones": {"control": "us-west-2a"}}

    def keys(given: Raw, region: str) -> list[str]:
        try:
            parse_lab(given, {"aws:region": region})
        except SpecError as error:
            return [finding.key for finding in error.findings]
        return []

    assert keys(aws(network=network), "us-west-2") == []
    assert keys(aws(network=network), "us-west-1") == ["network.zones.control"]
    assert keys(aws(network=network), "west") == ["aws:region"]
    assert keys(raw(network=network), "us-west-1") == ["network.zones.control"]
    assert "is for EC2" in str(findings(raw(network=network))[0])


def test_addresses_for_documentation_are_placeholders() -> None:
    """RFC 5737."""
    given = ["192.0.2.0/24", "192.0.3.0/32", "198.51.100.255/32", "203.0.113.0/25", "203.0.112.0/23"]
    lab = parse_lab(raw(machines={"provider": "aws", "operatorCidrs": given}))
    assert [finding.value for finding in placeholders(lab)] == [given[0], given[2], given[3]]
    assert list(placeholders(parse_lab(raw()))) == []


def tiny(subnet: str, **ipam: Any) -> BridgeNetwork:
    return BridgeNetwork.model_validate(bridged(subnet, **ipam))


def test_subnets_without_hosts_have_an_answer_too() -> None:
    """The rule about their size has the finding, and every other rule must get that far."""
    one, two, four = (tiny(f"10.40.0.0/{length}") for length in (32, 31, 30))
    first, second, third = (IPv4Address(f"10.40.0.{host}") for host in (0, 1, 2))
    assert (gateway(one), handed_out(one), last_host(one.subnet)) == (first, (first, first), first)
    assert (gateway(two), handed_out(two), last_host(two.subnet)) == (second, (second, first), first)
    assert (gateway(four), handed_out(four), last_host(four.subnet)) == (second, (second, third), third)


@pytest.mark.parametrize("ipam", ["host-local", "whereabouts"])
def test_each_end_of_a_range_by_itself(ipam: str) -> None:
    for end, key, address, handed in (
        ("start", "rangeStart", "10.40.0.9", ("10.40.0.9", "10.40.0.254")),
        ("end", "rangeEnd", "10.40.0.99", ("10.40.0.1", "10.40.0.99")),
    ):
        lab = parse_lab(on_bridge(bridged(type=ipam, **{key: address})))
        (network,) = lab.networks
        assert isinstance(network, BridgeNetwork)
        assert handed_out(network) == tuple(map(IPv4Address, handed))
        assert rendered(lab) == {end: address}


def rendered(lab: Lab) -> dict[str, str]:
    """The ends of the range in the configuration of the lab's only network."""
    ipam = network_config(lab, lab.networks[0])["ipam"]
    values = ipam if ipam["type"] == "whereabouts" else ipam["ranges"][0][0]
    names = {"rangeStart": "start", "range_start": "start", "rangeEnd": "end", "range_end": "end"}
    return {names[key]: value for key, value in values.items() if key in names}


def test_a_reservation_needs_a_delegate_and_a_block() -> None:
    two_pools = {
        "pools": [
            {"name": "one", "cidr": "10.244.0.0/17", "blockSize": 24},
            {"name": "two", "cidr": "10.244.128.0/17", "blockSize": 24},
        ]
    }
    lab = parse_lab(raw(calico=two_pools, multus=delegates((8, 15))))
    # No delegate is in pool two, and node b has no block of pool one yet.
    blocks = {"a": ["10.244.1.0/24", "10.244.129.0/24"], "b": ["10.244.130.0/24"], "c": []}
    assert addresses.reservation(lab, blocks) == [IPv4Network("10.244.1.8/29")]


def test_the_first_and_last_address_of_a_block() -> None:
    block = IPv4Network("10.244.1.0/26")
    whole = Delegate.model_validate({"name": "d", "rangeStart": 1, "rangeEnd": 63})
    assert addresses.delegate_range(block, whole) == (IPv4Address("10.244.1.1"), IPv4Address("10.244.1.63"))
    with pytest.raises(IndexError):
        addresses.delegate_range(block, whole.model_copy(update={"range_end": 64}))


BASE_MODULES = ["overlay", "br_netfilter"]


@pytest.mark.parametrize(
    ("keys", "modules"),
    [
        (
            raw(
                calico={
                    "bgp": "Enabled",
                    "pools": [{"name": "p", "cidr": "10.244.0.0/16", "encapsulation": "None"}],
                }
            ),
            [],
        ),
        (raw(), ["vxlan"]),
        (raw(calico={"wireguard": True}), ["vxlan", "wireguard"]),
        (raw(calico={"linuxDataplane": "Nftables"}), ["nf_tables", "vxlan"]),
        (on_bridge(bridged()), ["bridge", "vxlan"]),
        (
            on_bridge(
                {"name": "m", "type": "macvlan", "master": "eth1", "subnet": "10.41.0.0/24"},
                {"name": "i", "type": "ipvlan", "master": "eth2", "subnet": "10.42.0.0/24"},
            ),
            ["ipvlan", "macvlan", "vxlan"],
        ),
        # The kernel has no module for the other kinds of network.
        (
            on_bridge(
                {"name": "d", "type": "host-device", "device": "eth3", "subnet": "10.43.0.0/24"},
                {"name": "c", "type": "custom", "config": {"cniVersion": "0.3.1", "type": "ptp"}},
            ),
            ["vxlan"],
        ),
    ],
)
def test_the_kernel_modules_of_a_lab(keys: Raw, modules: list[str]) -> None:
    assert addresses.kernel_modules(parse_lab(keys)) == [*BASE_MODULES, *modules]


@pytest.mark.parametrize(
    ("label", "allowed"),
    [
        ("example.com/rack", True),
        ("rack", True),
        ("kubernetes.io", True),
        ("notkubernetes.io/rack", True),
        ("kubernetes.io/rack", False),
        ("k8s.io/rack", False),
        ("team.kubernetes.io/rack", False),
        ("kubernetes.io/hostname", True),
        ("topology.kubernetes.io/zone", True),
        ("topology.kubernetes.io/rack", False),
        ("kubelet.kubernetes.io/rack", True),
        ("node.kubernetes.io/rack", True),
        ("team.node.kubernetes.io/rack", True),
        ("notnode.kubernetes.io/rack", False),
        ("node-role.kubernetes.io/worker", False),
    ],
)
def test_the_known_domains_of_labels(label: str, allowed: bool) -> None:
    """Source: Kubernetes, "Using Node Authorization", the admission plugin NodeRestriction."""
    given = raw(nodes=[nodes(1)[0] | {"labels": {label: "a"}}])
    found = [finding for finding in findings(given) if "kubelet may not set this label" in finding.problem]
    assert bool(found) is not allowed


def test_the_longest_key_and_value_of_a_label() -> None:
    def refused(key: str, value: str) -> bool:
        return findings(raw(nodes=[nodes(1)[0] | {"labels": {key: value}}])) != []

    assert [refused("a" * length, "v") for length in (63, 64)] == [False, True]
    assert [refused("a", "v" * length) for length in (63, 64)] == [False, True]
    domains = [".".join(["a" * 62] * 3 + ["b" * length]) for length in (64, 65)]
    assert [len(domain) for domain in domains] == [253, 254]
    assert [refused(f"{domain}/a", "v") for domain in domains] == [False, True]


def test_a_fixed_mac_for_as_many_pods_as_bridges() -> None:
    """Each node has its own bridge, so each may have one pod with the address."""

    def lab(replicas: int) -> Raw:
        attachment = {"name": "net", "mac": "02:00:00:00:00:01"}
        workload = {"name": "w", "image": "docker.io/library/busybox", "replicas": replicas, "networks": [attachment]}
        return on_bridge(bridged(), workloads=[workload], nodes=nodes(3))

    assert findings(lab(2)) == []
    (finding,) = findings(lab(3))
    assert finding.key == "workloads[0].networks[0].mac"
    assert "3 pods on the bridges of 2 nodes" in finding.problem
