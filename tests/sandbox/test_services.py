"""Services in a sandbox: a packet to a ClusterIP reaches an endpoint, by iptables and by nftables."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from components.sandbox import life, proxy
from components.sandbox.fit import fit
from components.sandbox.objects import make_objects
from components.sandbox.plan import make_plan
from components.sandbox.requirements import Kernel, examine, find
from components.sandbox.services import SERVICES, SLICES, merge_patch
from components.slowdown import scaled
from components.spec.models import Lab
from components.verify.read import api
from components.verify.read.namespace import NamespaceAccess
from components.verify.read.reading import LiveLab, read_lab
from components.verify.report import verify

if examine().problem:
    pytest.skip(f"no sandbox can be built here: {examine().problem}", allow_module_level=True)

IMAGE = "docker.io/library/busybox:1.37"
WEB = {
    "name": "web",
    "image": IMAGE,
    "replicas": 3,
    "onControlPlane": True,
    "service": {"port": 80, "targetPort": 8080},
}
LAB = {"machines": {"provider": "local"}, "workloads": [WEB]}


def lab(dataplane: str) -> Lab:
    return Lab.model_validate(LAB | {"calico": {"linuxDataplane": dataplane}})


@pytest.fixture(scope="module", params=["Iptables", "Nftables"])
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveLab]:
    if request.param == "Nftables" and find("nft") is None:
        pytest.skip("nft is not installed")
    home: Path = tmp_path_factory.mktemp("sandbox")
    running = life.build("web", lab(request.param), home, stay=False)
    try:
        yield LiveLab.of(running.plan.lab, running.outputs, None)
    finally:
        running.stop()


def on_node(live: LiveLab, node: str, *argv: str) -> subprocess.CompletedProcess[str]:
    access = live.access[node]
    assert isinstance(access, NamespaceAccess)
    return subprocess.run(access.command(argv), capture_output=True, text=True, timeout=scaled(60), check=False)


def cluster_ip(live: LiveLab, name: str) -> str:
    objects = asyncio.run(api.read(live.kubeconfig))
    return next(str(it["spec"]["clusterIP"]) for it in objects.of("services") if it["metadata"]["name"] == name)


def pods(live: LiveLab, node: str) -> list[str]:
    """The network namespaces of the node's pods of the workload."""
    return [pod.netns for pod in make_plan(live.spec).on(node) if pod.labels.get("app") == "web"]


ASK = 'exec 3<>"/dev/tcp/$1/$2" && printf "GET / HTTP/1.0\\r\\n\\r\\n" >&3 && cat <&3'


def ask(live: LiveLab, node: str, netns: str, address: str, port: int) -> subprocess.CompletedProcess[str]:
    command = ["timeout", str(scaled(3)), "bash", "-c", ASK, "-", address, str(port)]
    return on_node(live, node, "ip", "netns", "exec", netns, *command)


def patch(live: LiveLab, name: str, change: object) -> httpx.Response:
    server = api.server_of(live.kubeconfig)
    with httpx.Client(base_url=server.address, verify=server.tls, trust_env=False, timeout=scaled(5)) as client:
        path = f"/api/v1/namespaces/default/services/{name}"
        return client.patch(path, content=json.dumps(change), headers={"Content-Type": "application/merge-patch+json"})


def test_every_endpoint_answers_at_the_cluster_ip(live: LiveLab) -> None:
    address, node = cluster_ip(live, "web"), live.spec.workers[0].name
    # By chance, so often that one which is never chosen would be a miracle.
    many = f"for ((i = 0; i < 30; i++)); do ({ASK}); done"
    command = ["timeout", str(scaled(20)), "bash", "-c", many, "-", address, "80"]
    done = on_node(live, node, "ip", "netns", "exec", pods(live, node)[0], *command)
    answered = Counter(line for line in done.stdout.splitlines() if line.startswith("web-"))
    assert len(answered) == 3 and answered.total() == 30, done


def test_the_api_server_and_dns_answer_on_every_node(live: LiveLab) -> None:
    for node in live.spec.nodes:
        netns = pods(live, node.name)[0]
        assert "kube-apiserver" in ask(live, node.name, netns, "10.96.0.1", 443).stdout
        assert "coredns" in ask(live, node.name, netns, "10.96.0.10", 53).stdout
        # From the node itself, where the packet passes OUTPUT.
        command = ["timeout", str(scaled(3)), "bash", "-c", ASK, "-", "10.96.0.10", "53"]
        assert "coredns" in on_node(live, node.name, *command).stdout


def test_a_service_whose_selector_matches_no_pod_refuses_and_comes_back(live: LiveLab) -> None:
    address, node = cluster_ip(live, "web"), live.spec.workers[0].name
    netns = pods(live, node)[0]
    changed = patch(live, "web", {"spec": {"selector": {"app": "wbe"}}})
    assert changed.status_code == 200 and changed.json()["kind"] == "Service", "kubectl wants to know"
    try:
        refused = ask(live, node, netns, address, 80)
        assert refused.returncode and "refused" in refused.stderr, refused
        reading = asyncio.run(read_lab(live))
        failed = [r.expectation.id for r in verify(live, reading) if r.status != "passed"]
        assert failed == ["default/web/service/default/web"], "the nodes' rules follow the endpoints"
    finally:
        assert patch(live, "web", {"spec": {"selector": {"app": "web"}}}).status_code == 200
    assert ask(live, node, netns, address, 80).returncode == 0
    assert [r for r in verify(live, asyncio.run(read_lab(live))) if r.status != "passed"] == []


def test_the_api_takes_no_other_change(live: LiveLab) -> None:
    assert patch(live, "none", {"spec": {}}).status_code == 404
    server = api.server_of(live.kubeconfig)
    with httpx.Client(base_url=server.address, verify=server.tls, trust_env=False, timeout=scaled(5)) as client:
        assert client.patch("/api/v1/nodes/a", json={}).status_code == 405
        assert client.patch("/api/v1/namespaces/default/services/web", json={}).status_code == 415
    with httpx.Client(base_url=server.address, verify=False, trust_env=False, timeout=scaled(5)) as client:
        assert client.patch("/api/v1/namespaces/default/services/web", json={}).status_code == 403


# --- without a sandbox ------------------------------------------------------------------------------------------------


def test_the_chains_have_kube_proxy_s_names() -> None:
    """As on every cluster: these names follow from the Services of Kubernetes itself."""
    objects = make_objects(make_plan(lab("Iptables")))
    ports = {port.name: port.chain for port in proxy.service_ports(objects[SERVICES], objects[SLICES])}
    assert ports["default/kubernetes:https"] == "KUBE-SVC-NPX46M4PTMTKRN6Y"
    assert ports["kube-system/kube-dns:dns"] == "KUBE-SVC-TCOU7JCQXEZGVUNU"
    assert ports["kube-system/kube-dns:dns-tcp"] == "KUBE-SVC-ERIFXISQEP7F7OF4"
    assert ports["kube-system/kube-dns:metrics"] == "KUBE-SVC-JD5MR3NA4I4DYORP"


def test_a_small_range_of_services_has_room() -> None:
    many = [WEB | {"name": f"web{i}", "replicas": 1} for i in range(9)]
    small = Lab.model_validate(LAB | {"workloads": many, "kubernetes": {"serviceCidr": "10.96.0.0/27"}})
    addresses = [it["spec"]["clusterIP"] for it in make_objects(make_plan(small))[SERVICES]]
    assert len(set(addresses)) == 11


def test_a_kernel_without_the_matches_is_named() -> None:
    _, notes = fit(lab("Iptables"), Kernel("", frozenset(["services"])))
    assert any("Services lead nowhere" in note for note in notes)
    assert not any("Services" in note for note in fit(lab("Iptables"), Kernel())[1])


def test_merge_patch() -> None:
    assert merge_patch({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"c": None, "e": 4}}) == {"a": 1, "b": {"d": 3, "e": 4}}
    assert merge_patch({"a": 1}, {"a": {"b": {"c": None}}}) == {"a": {"b": {}}}
