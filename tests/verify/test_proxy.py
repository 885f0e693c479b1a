"""The API behind a jump host: the kubeconfig leads there through a SOCKS proxy, for our own reader and for kubectl."""

from __future__ import annotations

import asyncio
import copy
import json
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from cli.doctor import hosts
from cli.doctor.model import Answer
from components.sandbox import services
from components.sandbox.api import Api, Object
from components.sandbox.certificates import Authority
from components.spec.load import parse_lab
from components.verify.faults import objects
from components.verify.read import api
from components.verify.read.reading import LiveLab
from tests.calico.cluster import binary
from tests.support.graphs import run_lab
from tests.support.socks import socks_proxy

LAB: dict[str, Any] = {
    "machines": {
        "provider": "existing",
        "user": "ubuntu",
        "privateKeyFile": "~/.ssh/nodes",
        "jumpHost": {"address": "203.0.113.20", "user": "ec2-user", "socksPort": 1080},
    },
    "network": {"subnets": {"lan": "10.20.0.0/24"}},
    "nodes": [
        {
            "name": "cp",
            "role": "control-plane",
            "subnet": "lan",
            "address": "10.20.0.10",
            "ssh": {"hostKey": "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOFBmAgNisWSMUt9Ik0yXc8dT9cHcAwz7MVL9I1SLpPg"},
        }
    ],
}


class Nodes(BaseHTTPRequestHandler):
    """An API with one Node."""

    def do_GET(self) -> None:
        text = json.dumps({"kind": "NodeList", "apiVersion": "v1", "items": [{"metadata": {"name": "cp"}}]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *arguments: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def target(tmp_path: Path, authority: Authority) -> Iterator[int]:
    """The port of an API over TLS, whose certificate is for the name `kubernetes`."""
    certificate, key = authority.issue("kubernetes")
    (tmp_path / "server.pem").write_text(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    server = HTTPServer(("127.0.0.1", 0), Nodes)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join(10)


def through(authority: Authority, port: int) -> str:
    """A kubeconfig for a name that only the far end of the proxy could resolve."""
    config = json.loads(authority.kubeconfig("https://kubernetes:6443"))
    config["clusters"][0]["cluster"]["proxy-url"] = f"socks5://127.0.0.1:{port}"
    return json.dumps(config)


def test_the_api_is_read_through_the_proxy(authority: Authority, target: int) -> None:
    with socks_proxy(target) as (port, asked):
        found = asyncio.run(api.read(through(authority, port), {"nodes": "/api/v1/nodes"}))
    assert [node["metadata"]["name"] for node in found.of("nodes")] == ["cp"]
    assert asked == ["kubernetes:6443"]


def test_a_proxy_that_does_not_run_is_named(authority: Authority) -> None:
    with pytest.raises(api.NoApi, match=r"leads there through socks5://127\.0\.0\.1:1: does that proxy run\?"):
        asyncio.run(api.read(through(authority, 1), {"nodes": "/api/v1/nodes"}))


def test_a_service_is_changed_through_the_proxy(authority: Authority, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text(authority.pem)
    (tmp_path / "server.pem").write_text("".join(authority.issue("kubernetes")))
    port = services.Port("", "TCP", 80, 8080)
    web = services.service("default", "web", "10.96.0.80", [port], {"app": "web"})
    served = Api({services.SERVICES: [web], services.SLICES: []}, tmp_path / "ca.crt", tmp_path / "server.pem")
    changes = []

    def patch(namespace: str, name: str, change: Object) -> Object:
        changes.append((namespace, name, change["spec"]))
        return web

    served.patch_service = patch
    with closing(served), socks_proxy(int(served.url.rpartition(":")[2])) as (proxy, asked):
        live = LiveLab(parse_lab(LAB), blocks={}, access={}, kubeconfig=through(authority, proxy))
        asyncio.run(objects.change(live, "service-without-endpoints", "default/web"))
    assert changes == [("default", "web", {"selector": {"app": "nobody"}})]
    assert set(asked) == {"kubernetes:6443"}


def test_doctor_looks_for_the_proxy(target: int) -> None:
    def answer(port: int) -> Answer:
        spec = copy.deepcopy(LAB)
        spec["machines"]["jumpHost"]["socksPort"] = port
        (check,) = (check for check in hosts.checks(parse_lab(spec), "test") if check.name == "hosts.proxy")
        return check.ask()

    assert answer(target).verdict == "ok"
    refused = answer(1)
    assert refused.verdict == "stop" and "`ssh -N -D 1 -p 22 ec2-user@203.0.113.20`" in refused.fix


def test_kubectl_goes_through_the_proxy(authority: Authority, target: int, tmp_path: Path) -> None:
    kubectl = binary("kubectl")
    with socks_proxy(target) as (port, asked):
        (tmp_path / "config").write_text(through(authority, port))
        command = [kubectl, "--kubeconfig", str(tmp_path / "config"), "get", "--raw", "/api/v1/nodes"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["items"][0]["metadata"]["name"] == "cp"
    assert set(asked) == {"kubernetes:6443"}


def test_the_stacks_kubeconfig_names_the_proxy() -> None:
    graph = run_lab(LAB, dry_run=False)
    (provider,) = graph.of_type("pulumi:providers:kubernetes")
    cluster = json.loads(graph.plain[provider.urn]["kubeconfig"])["clusters"][0]["cluster"]
    assert (cluster["server"], cluster["proxy-url"]) == ("https://10.20.0.10:6443", "socks5://127.0.0.1:1080")
