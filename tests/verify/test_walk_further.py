"""Walks to Services, nodes and addresses outside, and what network policies decide, on a sandbox."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from cli.errors import CommandError
from cli.live import walk as command
from cli.live.picture import picture
from components.sandbox import life
from components.sandbox.model import OUTSIDE
from components.sandbox.requirements import examine, find
from components.slowdown import scaled
from components.spec.models import Lab
from components.verify.model import Pod, Topic
from components.verify.policy.decide import decide
from components.verify.policy.model import Party, Traffic
from components.verify.policy.read import policies
from components.verify.read.api import Objects
from components.verify.read.namespace import NamespaceAccess
from components.verify.read.reading import LiveLab, Reading, read_lab
from components.verify.report import verify
from components.verify.services import Endpoint, ServicePort
from components.verify.walk.ends import Ends, choose_endpoint, find_ends, find_service
from components.verify.walk.live import LiveWalk, walk_live
from components.verify.walk.model import NoWalk, Walk
from components.verify.walk.route import walk

IMAGE = "docker.io/library/busybox:1.37"
POOLS = [
    {"name": "first", "cidr": "10.244.0.0/17", "blockSize": 24},
    {"name": "second", "cidr": "10.244.128.0/17", "blockSize": 24, "natOutgoing": False},
]
OTHER = {"cni.projectcalico.org/ipv4pools": '["second"]'}
LAB = {
    "machines": {"provider": "local"},
    "workloads": [
        {
            "name": "web",
            "image": IMAGE,
            "replicas": 3,
            "onControlPlane": True,
            "annotations": {"cni.projectcalico.org/ipv4pools": '["first"]'},
            "service": {"port": 80, "targetPort": 8080},
        },
        # These pods send nothing of their own.
        {
            "name": "quiet",
            "image": IMAGE,
            "replicas": 3,
            "onControlPlane": True,
            "service": {"port": 82, "targetPort": 8080},
        },
        {"name": "other", "image": IMAGE, "annotations": OTHER},
        {"name": "none", "image": IMAGE, "replicas": 0, "service": {"port": 81}},
    ],
}
HERE, THERE = "ip-10-0-2-200", "ip-10-0-2-201"
OUT_OF_POD = ["pod route", "gateway arp", "host veth"]
CROSS = ["tunnel", "underlay", "arrival"]


@pytest.fixture(scope="module", params=["Iptables", "Nftables"])
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveLab]:
    if problem := examine().problem:
        pytest.skip(f"no sandbox can be built here: {problem}")
    if request.param == "Nftables" and find("nft") is None:
        pytest.skip("nft is not installed")
    lab = Lab.model_validate(LAB | {"calico": {"linuxDataplane": request.param, "pools": POOLS}})
    home: Path = tmp_path_factory.mktemp("sandbox")
    running = life.build("walk", lab, home, stay=False)
    try:
        yield LiveLab.of(running.plan.lab, running.outputs, None)
    finally:
        running.stop()


def walked(live: LiveLab, source: str, target: str, *, tcp: int | None = None, capture: bool = False) -> LiveWalk:
    return asyncio.run(walk_live(live, source, target, tcp=tcp, captured=capture))


def kinds(found: Walk, direction: str) -> list[str]:
    return [hop.kind for hop in found.hops if hop.direction == direction]


def holds(found: Walk) -> None:
    assert found.ping.status == "passed", found.ping
    assert [(hop.kind, hop.status) for hop in found.hops if hop.status != "passed"] == []
    assert found.holds


def hop(found: Walk, kind: str) -> str:
    return next(it.sentence for it in found.hops if it.kind == kind)


def test_to_a_service_and_back(live: LiveLab) -> None:
    found = walked(live, f"web@{HERE}", "service/web").walk
    holds(found)
    assert found.target is not None and found.target.workload == "web"
    across = found.target.node != HERE
    assert kinds(found, "out") == [*OUT_OF_POD, "service", *(["host route", *CROSS] if across else []), "delivery"] or (
        # The pod itself is one of the endpoints: then its packet comes back to it.
        found.target.id == found.source.id
    )
    assert "conntrack" in kinds(found, "back")
    sentence = hop(found, "service")
    for endpoint in ("one of its 3 endpoints at random", "8080", "DNAT", found.target.id):
        assert endpoint in sentence
    if find("conntrack") or Path("/proc/net/nf_conntrack").exists():
        assert f"this connection went to {found.target.address}:8080" in sentence, "the real one's endpoint"


def test_to_an_endpoint_on_the_network_of_the_pods_own_node(live: LiveLab) -> None:
    control_plane = live.spec.control_planes[0].name
    found = walked(live, f"web@{control_plane}", "service/kubernetes").walk
    holds(found)
    assert kinds(found, "out") == [*OUT_OF_POD, "service", "delivery"]
    assert kinds(found, "back") == ["conntrack", "delivery"]


def test_the_cluster_ip_is_the_service(live: LiveLab) -> None:
    found = walked(live, "other", "10.96.0.10").walk
    holds(found)
    assert found.service is not None and found.service.proxy_name == "kube-system/kube-dns:dns-tcp"
    assert found.to_json()["target"]["service"] == "kube-system/kube-dns"


def test_a_pod_that_has_sent_nothing_need_not_know_its_gateway(live: LiveLab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither where nothing is sent, nor where conntrack cannot tell which endpoint has answered."""
    nothing_sent = walked(live, "quiet", "service/kube-system/kube-dns:dns").walk
    assert nothing_sent.protocol == "udp" and nothing_sent.stopped is None, nothing_sent.stopped

    def another(ends: Ends, pods: Sequence[Pod], nodes: Mapping[str, str], used: str) -> Ends:
        """As without conntrack, and never the one that has answered."""
        assert ends.service is not None
        others = tuple(it for it in ends.service.endpoints if it.text != used)
        return choose_endpoint(ends._replace(service=replace(ends.service, endpoints=others)), pods, nodes)

    monkeypatch.setattr("components.verify.walk.live.choose_endpoint", another)
    found = walked(live, "other", "service/quiet").walk
    assert "the walk follows" in hop(found, "service")
    assert found.holds, found.stopped


def on(live: LiveLab, node: str, *argv: str) -> None:
    access = live.access[node]
    assert isinstance(access, NamespaceAccess)
    subprocess.run(access.command(argv), check=True, timeout=scaled(60))


def test_a_node_without_ping_does_not_count_as_unreachable(live: LiveLab) -> None:
    """Its pods reach everybody. Only nobody can send the packet that shows it."""
    ping = str(Path(find("ping") or "").resolve())
    missing = f"ping is not installed on {HERE}: apt-get install iputils-ping"
    on(live, HERE, "mount", "--bind", "/dev/null", ping)
    try:
        sent = [r for r in verify(live, asyncio.run(read_lab(live))) if r.expectation.topic is Topic.PROBE]
        from_pod, from_node = walked(live, f"web@{HERE}", f"web@{THERE}"), walked(live, HERE, THERE, capture=True)
        over_tcp = walked(live, f"web@{HERE}", f"web@{THERE}", tcp=8080).walk
    finally:
        on(live, HERE, "umount", ping)
    assert {(r.status, r.difference) for r in sent if r.expectation.node == HERE} == {("unknown", missing)}
    assert {r.status for r in sent if r.expectation.node != HERE} == {"passed"}
    for found in (from_pod, from_node):
        assert (found.walk.ping.status, found.walk.ping.difference) == ("unknown", missing)
        assert found.walk.stopped is None
    if find("tcpdump"):
        assert from_node.notes == [f"{HERE} cannot listen: {missing}"], "and nobody waits for a packet"
    holds(over_tcp)


def test_the_api_is_reached_with_the_node_s_address(live: LiveLab) -> None:
    """Its endpoint is no pod, so natOutgoing translates the source."""
    found = walked(live, f"web@{HERE}", "service/kubernetes").walk
    holds(found)
    assert kinds(found, "out") == [
        *OUT_OF_POD,
        "service",
        "host route",
        "masquerade",
        "plain",
        "underlay",
        "arrival",
        "delivery",
    ]
    assert kinds(found, "back")[-3:] == ["conntrack", "conntrack", "delivery"]
    assert "becomes 10.0.2.200 (natOutgoing" in hop(found, "masquerade")


def test_a_service_without_endpoints_ends_the_walk(live: LiveLab) -> None:
    found = walked(live, f"web@{HERE}", "svc/none").walk
    assert found.stopped is not None and found.stopped.kind == "service" and not found.holds
    assert found.ping.difference.startswith("the connection was refused")
    assert "has no ready endpoint" in found.stopped.sentence


def test_outside_with_the_node_s_address_and_without_nat(live: LiveLab) -> None:
    found = walked(live, f"web@{HERE}", OUTSIDE, capture=True)
    holds(found.walk)
    assert kinds(found.walk, "out") == [*OUT_OF_POD, "host route", "masquerade", "outside"]
    assert "becomes 10.0.2.200" in hop(found.walk, "masquerade") and "natOutgoing" in hop(found.walk, "masquerade")
    if found.sightings:
        last = found.sightings[-1]
        assert f"10.0.2.200 > {OUTSIDE}" in last.request, "the packet that left has the source that the walk names"
    kept = walked(live, "other", OUTSIDE).walk
    assert "keeps its source" in hop(kept, "masquerade") and kept.stopped is None
    assert kept.ping.status == "failed", "nobody outside has a route to a pod"


def test_from_and_to_nodes(live: LiveLab) -> None:
    there = walked(live, f"node/{HERE}", f"web@{THERE}").walk
    holds(there)
    assert kinds(there, "out") == ["host route", *CROSS, "delivery"]
    assert there.hops[0].packet.source.startswith("10.244."), "by the tunnel the node sends with the tunnel's address"
    assert kinds(there, "back") == [*OUT_OF_POD, "host route", *CROSS, "delivery"]
    assert "ttl=63" in there.ping.seen and there.hops[-1].packet.ttl == 63
    own = walked(live, f"web@{HERE}", HERE).walk
    holds(own)
    assert kinds(own, "out") == [*OUT_OF_POD, "delivery"] and "ttl=64" in own.ping.seen
    far = walked(live, f"web@{HERE}", "10.0.2.201").walk
    holds(far)
    assert far.target is not None and far.target.id == f"node/{THERE}"
    assert [it.kind for it in far.hops if it.kind in ("masquerade", "conntrack")] == ["masquerade", "conntrack"]
    between = walked(live, HERE, THERE).walk
    holds(between)


def test_rules_that_could_not_be_read_let_the_packet_go_on_as_it_must(live: LiveLab) -> None:
    reading = asyncio.run(read_lab(live))
    for node in reading.nodes.values():
        node.unread[Topic.NAT] = "not read"
        del node.topics[Topic.NAT]
    out = walk(live, reading, find_ends(reading.pods, f"web@{HERE}", "8.8.8.8"))
    masquerade = next(it for it in out.hops if it.kind == "masquerade")
    assert masquerade.status == "unknown" and "should become 10.0.2.200 (natOutgoing)" in masquerade.sentence
    assert masquerade.packet.source == out.hops[-1].packet.source == "10.0.2.200"
    kept = walk(live, reading, find_ends(reading.pods, "other", "8.8.8.8"))
    assert "should keep its source" in hop(kept, "masquerade"), "natOutgoing is off for its pool"


def test_a_pod_on_the_host_s_network(live: LiveLab) -> None:
    pods = asyncio.run(read_lab(live)).pods
    proxy = next(pod for pod in pods if pod.name.startswith("kube-proxy") and pod.node == THERE)
    found = walked(live, f"web@{HERE}", proxy.id).walk
    holds(found)
    assert proxy.id in hop(found, "delivery")
    holds(walked(live, proxy.id, "service/web").walk)


def test_a_tcp_connection_to_a_pod(live: LiveLab) -> None:
    found = walked(live, f"web@{HERE}", f"web@{THERE}", tcp=8080, capture=True)
    holds(found.walk)
    assert found.walk.hops[0].packet.to_json()["protocol"] == "tcp"
    if found.sightings:
        assert all(sighting.request and sighting.reply for sighting in found.sightings), found.sightings
    refused = walked(live, f"web@{HERE}", f"web@{THERE}", tcp=9)
    closed = refused.walk
    assert closed.stopped is None and closed.ping.status == "failed" and "refused" in closed.ping.difference
    if refused.sightings:
        page = StringIO()
        command.show("lab", closed, refused.sightings, refused.notes, Console(file=page, width=120))
        assert "nothing listens at port 9 of" in page.getvalue() and "lost" not in page.getvalue()


def test_page_json_and_picture(live: LiveLab) -> None:
    found = walked(live, f"web@{HERE}", "service/kube-dns:metrics")
    page = StringIO()
    command.show("lab", found.walk, found.sightings, found.notes, Console(file=page, width=120))
    for words in ("service kube-system/kube-dns:metrics (10.96.0.10:9153), endpoint", "DNAT", "The connection"):
        assert words in page.getvalue()
    document = json.loads(json.dumps(found.walk.to_json()))
    assert document["target"]["port"] == 9153
    assert "service kube-system/kube-dns:9153" in picture("lab", found.walk)


# --- policies ---------------------------------------------------------------------------------------------------------


def policy(name: str, spec: dict[str, object], kind: str = "networkpolicies") -> Objects:
    metadata = {"name": name} | ({} if kind == "globalnetworkpolicies" else {"namespace": "default"})
    spaces = ({"metadata": {"name": "default"}}, {"metadata": {"name": "kube-system", "labels": {"team": "x"}}})
    return Objects({kind: ({"metadata": metadata, "spec": spec},), "namespaces": spaces})


WEB = {"matchLabels": {"app": "web"}}
CASES = [
    pytest.param("networkpolicies", {"podSelector": {}, "policyTypes": ["Ingress"]}, 0, "ingress", id="deny all"),
    pytest.param("networkpolicies", {"podSelector": {}, "policyTypes": ["Egress"]}, 0, "egress", id="no egress"),
    pytest.param(
        "networkpolicies", {"podSelector": WEB, "ingress": [{"from": [{"podSelector": WEB}]}]}, 0, None, id="by pod"
    ),
    pytest.param(
        "networkpolicies",
        {"podSelector": WEB, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "x"}}}]}]},
        0,
        "ingress",
        id="by namespace",
    ),
    pytest.param(
        "networkpolicies",
        {"podSelector": WEB, "ingress": [{"from": [{"ipBlock": {"cidr": "10.244.0.0/16", "except": []}}]}]},
        0,
        None,
        id="by block",
    ),
    pytest.param(
        "networkpolicies",
        {"podSelector": WEB, "ingress": [{"ports": [{"port": 8000, "endPort": 8100}]}]},
        8080,
        None,
        id="a range of ports",
    ),
    pytest.param(
        "networkpolicies", {"podSelector": WEB, "ingress": [{"ports": [{"port": 80}]}]}, 8080, "ingress", id="a port"
    ),
    pytest.param(
        "networkpolicies", {"podSelector": WEB, "ingress": [{"ports": [{"port": 8080}]}]}, 0, "ingress", id="a ping"
    ),
    pytest.param("networkpolicies", {"podSelector": {"matchLabels": {"app": "db"}}}, 0, None, id="another pod's"),
    pytest.param(
        "calico networkpolicies",
        {"selector": "app == 'web'", "ingress": [{"action": "Allow", "protocol": "TCP"}]},
        0,
        "ingress",
        id="Calico, another protocol",
    ),
    pytest.param(
        "globalnetworkpolicies",
        {
            "selector": "all()",
            "types": ["Egress"],
            "egress": [
                {"action": "Deny", "destination": {"nets": ["10.96.0.0/12"]}},
                {"action": "Allow", "destination": {"selector": "app == 'web'"}},
            ],
        },
        0,
        None,
        id="global, by selector",
    ),
    pytest.param(
        "globalnetworkpolicies",
        {"selector": "has(app)", "types": ["Egress"], "egress": [{"action": "Deny", "protocol": "ICMP"}]},
        0,
        "egress",
        id="global, denied by a rule",
    ),
]


@pytest.fixture(scope="module")
def policed(live: LiveLab) -> tuple[LiveLab, Reading, Ends]:
    """The lab, read once: a policy of these tests is in no lab."""
    # Its ping has the pods ask for their gateway, also where these tests run alone.
    walked(live, f"web@{HERE}", f"web@{THERE}")
    reading = asyncio.run(read_lab(live))
    return live, reading, find_ends(reading.pods, f"web@{HERE}", f"web@{THERE}")


@pytest.mark.parametrize(("kind", "spec", "port", "denied"), CASES)
def test_what_a_policy_decides(
    policed: tuple[LiveLab, Reading, Ends], kind: str, spec: dict[str, object], port: int, denied: str | None
) -> None:
    live, reading, ends = policed
    ends = ends._replace(port=port, protocol="tcp" if port else "icmp")
    found = walk(live, reading, ends, policies(policy("rule", spec, kind)))
    hops = [it for it in found.hops if it.kind == "policy"]
    if denied is None:
        assert all(it.status == "passed" for it in hops)
        assert bool(hops) == ("db" not in str(spec))
    else:
        assert found.stopped is not None and found.stopped.kind == "policy"
        assert found.stopped.sentence.startswith(denied)
        assert "rule" in found.stopped.sentence, "it is named"
        assert found.stopped.node == (HERE if denied == "egress" else THERE)


@pytest.mark.parametrize(
    "spec",
    [{"selector": "app ="}, {"ingress": [{"action": "Deny", "source": {"selector": "app ="}}]}],
    ids=["its selector", "a rule's selector"],
)
def test_a_policy_that_is_not_understood_is_named_and_decides_nothing(spec: dict[str, object]) -> None:
    found = policies(policy("odd", spec, "globalnetworkpolicies"))
    assert found.all == () and "odd is not understood" in found.unread


def test_a_tier_of_order_0_comes_before_one_without_an_order() -> None:
    tiers = ({"metadata": {"name": "a"}, "spec": {}}, {"metadata": {"name": "b"}, "spec": {"order": 0}})
    specs = ({"tier": "a", "egress": [{"action": "Deny"}]}, {"tier": "b", "egress": [{"action": "Allow"}]})
    listed = tuple({"metadata": {"name": spec["tier"]}, "spec": spec} for spec in specs)
    found = policies(Objects({"globalnetworkpolicies": listed, "tiers": tiers}))
    pod = Pod("default", "web", "a", "10.244.0.9", False, "Running", None, {}, "")
    decision = decide(found, Traffic(Party(pod.address, pod), Party("8.8.8.8", None), "tcp", 80), "egress")
    assert decision is not None and decision.allowed


# --- without a network ------------------------------------------------------------------------------------------------


def port(service: str, number: int, name: str = "", protocol: str = "tcp", namespace: str = "default") -> ServicePort:
    endpoints = (Endpoint("10.244.0.9", 8080, "a", "default/web-1"),)
    return ServicePort(namespace, service, name, protocol, f"10.96.0.{number % 200}", number, endpoints, {})


SERVICES = [
    port("web", 80),
    port("dns", 53, "dns", "udp", "kube-system"),
    port("dns", 53, "dns-tcp", "tcp", "kube-system"),
    port("both", 1, namespace="a"),
    port("both", 1, namespace="b"),
]


@pytest.mark.parametrize(
    ("text", "tcp", "wanted"),
    [
        ("web", None, "default/web:80/tcp"),
        ("default/web:80", None, "default/web:80/tcp"),
        ("dns", None, "kube-system/dns:53/tcp"),
        ("kube-system/dns:dns", None, "kube-system/dns:53/udp"),
        ("dns", 53, "kube-system/dns:53/tcp"),
        ("a/both", None, "a/both:1/tcp"),
    ],
)
def test_services_are_found_by_name_and_port(text: str, tcp: int | None, wanted: str) -> None:
    assert find_service(SERVICES, text, tcp).key == wanted


@pytest.mark.parametrize(
    ("text", "tcp", "words"),
    [
        ("wbe", None, "there is no Service wbe; there are: default/web"),
        ("web:81", None, "the Service default/web has no port 81; it has: 80/tcp"),
        ("both", None, "write a/both or b/both"),
        ("web:80", 81, "name two ports"),
    ],
)
def test_a_service_that_is_not_there(text: str, tcp: int | None, words: str) -> None:
    with pytest.raises(NoWalk, match=words.replace("(", r"\(")):
        find_service(SERVICES, text, tcp)


def test_the_endpoint_that_was_used_is_followed() -> None:
    pods = [
        Pod("default", f"web-{n}", node, f"10.244.0.{n}", False, "Running", "web", {}, "")
        for n, node in ((1, "a"), (2, "b"), (3, "b"))
    ]
    endpoints = tuple(Endpoint(pod.address, 80, pod.node, pod.id) for pod in pods)
    service = replace(SERVICES[0], endpoints=endpoints)
    ends = Ends(pods[0], None, service.address, service, "tcp", 80)
    assert choose_endpoint(ends, pods, {}, "10.244.0.1:80").target == pods[0]
    assert choose_endpoint(ends, pods, {}).target == pods[1], "on another node"


def test_the_words_of_the_command_line() -> None:
    assert command.end_of(["web"]) == "web"
    assert command.end_of(["service", "web:80"]) == "service/web:80"
    with pytest.raises(CommandError, match="name one target"):
        command.end_of(["web", "db"])
    with pytest.raises(NoWalk, match="there is no node x"):
        find_ends([], "node/x", "node/y", nodes={"a": "10.0.0.1"})
