"""Pings: who pings whom, what comes back, and what a walk tries."""

from __future__ import annotations

from dataclasses import replace

import pytest

from components.verify.expect.probes import Ping, answered, pairs, ping_of, pings, tried, ttl
from components.verify.model import OneOf, Pod, Topic
from tests.verify.expect import labs
from tests.verify.expect.labs import FIRST, Expected, again, of, shipped


def running(found: Expected, *kept: tuple[str, str]) -> Expected:
    """The lab with only these of its workloads' pods: name, and node."""
    pods = [pod for pod in found.observed.pods if pod.workload is None or (pod.workload, pod.node) in kept]
    return again(found, pods=pods)


# --- the ring ---------------------------------------------------------------------------------------------------------


def test_the_nodes_ping_each_other_in_a_ring() -> None:
    """Three pings for three nodes, so that each is once a source and once a destination."""
    found = of()
    one, two, three = (found.pod("app", node) for node in ("control1", "worker1", "worker2"))
    assert pairs(found.observed) == [(one, two), (two, three), (three, one)]
    wanted = {node.node: [Ping(node.interface, to.address)] for node, to in ((one, two), (two, three), (three, one))}
    assert pings(found.observed) == wanted
    for source, destination in pairs(found.observed):
        (probe,) = found.of(Topic.PROBE, source.node)
        assert probe.key == f"{source.interface} {destination.address}"
        assert probe.about == f"{source.id}->{destination.node}"


def test_two_nodes_ping_each_other_and_one_pings_nobody() -> None:
    found = running(of(), ("app", "worker1"), ("app", "worker2"))
    one, two = (found.pod("app", node) for node in ("worker1", "worker2"))
    assert pairs(found.observed) == [(one, two), (two, one)]
    assert pairs(running(of(), ("app", "worker1")).observed) == []
    assert pairs(running(of()).observed) == []


def test_where_one_node_has_pods_two_of_them_ping() -> None:
    found = of(workloads=[{"name": "app", "image": labs.IMAGE, "replicas": 9, "onControlPlane": True}])
    found = running(found, ("app", "worker1"))
    first, second, _ = sorted((p for p in found.observed.pods if p.workload), key=lambda pod: pod.name)
    assert pairs(found.observed) == [(first, second)]
    # The node lowers the TTL once.
    assert found.table(Topic.PROBE, "worker1") == {
        f"{first.interface} {second.address}": {"received": "yes", "ttl": "63"}
    }


def test_the_first_pod_by_name_pings_and_a_firewall_only_if_there_is_no_other() -> None:
    found = shipped("cfos-egress")
    node, other = "ip-10-0-2-200", "ip-10-0-2-201"
    assert [pair.source.workload for pair in pairs(found.observed)] == ["normal", "normal", "normal"]
    found = running(found, ("firewall", node), ("normal-egress", node), ("firewall", other))
    assert [pair.source.workload for pair in pairs(found.observed)] == ["normal-egress", "firewall"]


def test_a_pod_that_is_not_the_labs_own_pings_nobody() -> None:
    """A network policy may be in front of it."""
    found = of(workloads=[])
    assert len(found.observed.running("worker1")) > 0 and not found.of(Topic.PROBE, "worker1")


def test_pods_without_a_route_to_each_other_do_not_ping() -> None:
    """A delegate's routes are the only ones of its pods."""
    delegates = [{"name": "narrow", "rangeStart": 30, "rangeEnd": 40, "routes": ["10.96.0.0/12"]}]
    workloads = [
        {"name": name, "image": labs.IMAGE, "replicas": 3, "onControlPlane": True, "defaultNetwork": network}
        for name, network in (("app", "narrow"), ("wide", "k8s-pod-network"))
    ]
    multus = {"clusterNetwork": "narrow", "delegates": delegates}
    found = of(multus=multus, workloads=workloads)
    assert [pair.source.workload for pair in pairs(found.observed)] == ["wide"] * 3
    app, *wide = ("app", "control1"), ("wide", "worker1"), ("wide", "worker2")
    found = running(found, app, *wide)
    assert [(pair.source.node, pair.destination.node) for pair in pairs(found.observed)] == [("worker1", "worker2")]
    assert pairs(running(found, app, wide[0]).observed) == []


# --- gateways ---------------------------------------------------------------------------------------------------------


def test_one_pod_of_each_node_pings_the_firewall_that_is_its_gateway() -> None:
    before = shipped("cfos-egress")
    node = "ip-10-0-2-200"
    egress = before.pod("normal-egress", node)
    twin = replace(egress, name=f"{egress.name}-twin", address="10.244.97.60")
    found = again(before, pods=[*before.observed.pods, twin])
    gateway = f"{egress.interface} 10.1.128.2"
    # One on the same bridge: nobody forwards, so the TTL is the sender's 64.
    assert found.table(Topic.PROBE, node)[gateway] == {"received": "yes", "ttl": "64"}
    assert len([key for key in found.table(Topic.PROBE, node) if key.endswith(" 10.1.128.2")]) == 1
    assert pings(found.observed)[node] == [
        Ping(found.pod("normal", node).interface, found.pod("normal", "ip-10-0-2-201").address),
        Ping(egress.interface, "10.1.128.2"),
    ]
    assert not [key for key in found.table(Topic.PROBE, "ip1001100") if key.endswith(" 10.1.128.2")]


# --- pods that do not run ---------------------------------------------------------------------------------------------


def waiting(pod: Pod) -> Pod:
    return replace(pod, phase="Pending", address="", problem="no image")


def test_a_node_whose_pods_all_start_yet_cannot_ping() -> None:
    before = of(workloads=[{"name": "app", "image": labs.IMAGE, "replicas": 6, "onControlPlane": True}])
    on_worker1 = [pod for pod in before.observed.pods if (pod.workload, pod.node) == ("app", "worker1")]
    assert len(on_worker1) == 2
    found = again(before, pods=[waiting(pod) if pod in on_worker1 else pod for pod in before.observed.pods])
    (probe,) = found.of(Topic.PROBE, "worker1")
    assert probe.key == f"{on_worker1[0].interface} another node"
    assert probe.unread == f"{on_worker1[0].id} does not run: no image"
    # The other two nodes ping each other meanwhile.
    assert [pair.source.node for pair in pairs(found.observed)] == ["control1", "worker2"]


def test_a_node_with_one_running_pod_pings_from_that() -> None:
    before = of(workloads=[{"name": "app", "image": labs.IMAGE, "replicas": 6, "onControlPlane": True}])
    late = before.pod("app", "worker1")
    found = again(before, pods=[waiting(pod) if pod == late else pod for pod in before.observed.pods])
    (probe,) = found.of(Topic.PROBE, "worker1")
    assert probe.unread == "" and probe.about.endswith("->worker2")


# --- the TTL of the answer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "destination", "encapsulation", "wanted"),
    [
        # Each node on the way takes one of 64: the pod's own, and the other's.
        ("worker1", "worker1", "VXLAN", "63"),
        ("worker1", "worker2", "VXLAN", "62"),
        ("worker2", "worker1", "VXLAN", "62"),
        ("control1", "worker1", "VXLAN", "62"),
        ("worker1", "worker2", "None", "62"),
        # An ordinary router between the subnets takes one more; that of a VPC does not.
        ("control1", "worker1", "None", OneOf(("62", "61"))),
        ("worker1", "control1", "None", OneOf(("62", "61"))),
        # It does not see into a tunnel.
        ("worker1", "control1", "VXLANCrossSubnet", "62"),
        ("worker1", "control1", "IPIP", "62"),
    ],
)
def test_the_ttl_of_an_answer(source: str, destination: str, encapsulation: str, wanted: str | OneOf) -> None:
    found = of(FIRST | {"encapsulation": encapsulation}, bgp="Enabled")
    assert ttl(found.observed, found.pod("app", source), found.pod("app", destination)) == wanted


# --- what a walk tries ------------------------------------------------------------------------------------------------


def on_host(found: Expected, node: str) -> Pod:
    """calico-node: a pod on the node's own network."""
    return next(p for p in found.observed.pods if p.host_network and p.node == node and p.name.startswith("calico"))


def test_the_key_of_a_ping() -> None:
    assert Ping("cali1", "10.0.0.1").key == "cali1 10.0.0.1"
    assert Ping("cali1", "10.0.0.1", 80).key == "cali1 10.0.0.1 80"
    found = of()
    pod = found.pod("app", "worker1")
    assert ping_of(pod, "10.0.0.1") == (pod.interface, "10.0.0.1", 0)
    assert ping_of(on_host(found, "worker1"), "10.0.0.1", 80) == ("-", "10.0.0.1", 80)


def test_of_an_address_outside_only_an_answer_is_expected() -> None:
    """How many routers lie between is not known."""
    found = of()
    probe = answered(found.observed, found.pod("app", "worker1"), None, "8.8.8.8")
    assert probe.expected == {"received": "yes"} and probe.sentence.endswith(" reaches 8.8.8.8")
    assert tried(found.observed, found.pod("app", "worker1"), None, "8.8.8.8") == probe


def test_of_another_pod_the_ttl_is_expected_too() -> None:
    found = of()
    source, destination = found.pod("app", "worker1"), found.pod("app", "worker2")
    probe = tried(found.observed, source, destination, destination.address)
    assert probe.expected == {"received": "yes", "ttl": "62"}
    assert probe.command == f"kubectl -n default exec {source.name} -- ping -c 1 {destination.address}"


def test_a_ping_to_a_node_or_from_one() -> None:
    found = of()
    pod, node = found.pod("app", "worker1"), on_host(found, "worker2")
    there = tried(found.observed, pod, node, node.address)
    assert there.expected == {"received": "yes"}, "the TTL of a node's answer is not known"
    assert there.command == f"kubectl -n default exec {pod.name} -- ping -c 1 {node.address}"
    assert there.sentence == f"{pod.id} on worker1 reaches {node.id} ({node.address})"
    assert (there.because, there.cause) == ("a ping is answered", "one of the hops does not hold")
    back = tried(found.observed, node, pod, pod.address)
    assert back.key == f"- {pod.address}" and back.expected == {"received": "yes"}
    assert back.command == f"ping -c 1 {pod.address}", "the node itself types it"
    assert back.advice == f"`./lab walk STACK {node.id} {pod.address}` shows the hop at which it ends"
    outside = tried(found.observed, node, None, "8.8.8.8")
    assert outside.sentence == f"{node.id} on worker2 reaches 8.8.8.8"


def test_a_tcp_connection() -> None:
    found = of()
    pod, node, other = found.pod("app", "worker1"), on_host(found, "worker2"), found.pod("app", "control1")
    to_pod = tried(found.observed, pod, other, other.address, port=8080)
    assert to_pod.key == f"{pod.interface} {other.address} 8080" and to_pod.expected == {"received": "yes"}
    assert to_pod.command == f"kubectl -n default exec {pod.name} -- nc -zv {other.address} 8080"
    assert to_pod.sentence == f"{pod.id} on worker1 reaches {other.id} ({other.address}:8080)"
    assert to_pod.because == "a TCP connection is accepted by whoever listens there"
    assert to_pod.cause.endswith("or nothing listens on this port")
    assert f"{other.address} --tcp 8080`" in to_pod.advice
    from_node = tried(found.observed, node, None, "198.51.100.1", port=443)
    assert from_node.command == "timeout 3 bash -c '</dev/tcp/198.51.100.1/443'"
    assert from_node.sentence == f"{node.id} on worker2 reaches 198.51.100.1:443"


def test_a_services_address_is_named_by_the_service() -> None:
    found = of()
    pod = found.pod("app", "worker1")
    port = next(port for port in found.observed.services if port.name == "dns-tcp")
    probe = tried(found.observed, pod, None, port.address, port, 53)
    assert probe.sentence == f"{pod.id} on worker1 reaches the Service kube-system/kube-dns:dns-tcp (10.96.0.10:53)"
    # A UDP port is not connected to; a ping of a Service's address is one of the address.
    assert tried(found.observed, pod, None, port.address).sentence.endswith(" reaches 10.96.0.10")
