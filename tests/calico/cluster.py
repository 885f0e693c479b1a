"""A real Kubernetes API for tests: etcd and kube-apiserver of the pinned version, without anything that runs pods."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

TOKEN = "tests-only"
NODE = "ip-10-0-2-200"
"""The one node with credentials of its own, as its kubelet would have."""


@dataclass(frozen=True)
class Cluster:
    kubectl_path: str
    kubeconfig: Path
    node_kubeconfig: Path

    def kubectl(self, *args: str, stdin: str | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [self.kubectl_path, "--kubeconfig", str(self.kubeconfig), *args]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, check=False)
        if check and done.returncode:
            raise AssertionError(f"{' '.join(args)}: {done.stderr}")
        return done

    def create(self, *manifests: dict[str, Any]) -> None:
        """Create an object. Unknown and duplicate fields are refused."""
        self.kubectl("create", "--validate=strict", "-f", "-", stdin=yaml.safe_dump_all(manifests))

    def apply(self, *manifests: dict[str, Any]) -> None:
        """Create objects, or make those that are there like these."""
        self.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=yaml.safe_dump_all(manifests))

    def dry_run(self, manifest: dict[str, Any]) -> dict[str, Any]:
        """The object as the API would store it, admission included."""
        done = self.kubectl("create", "--dry-run=server", "-f", "-", "-o", "json", stdin=yaml.safe_dump(manifest))
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def read(self, *args: str) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load(self.kubectl("get", *args, "-o", "yaml").stdout)
        return found


def binary(name: str) -> str:
    """Path of a Kubernetes program in CNILAB_KUBE_BIN or on the PATH. Skips the test if there is none."""
    folder = os.environ.get("CNILAB_KUBE_BIN")
    path = shutil.which(name, path=folder) if folder else None
    path = path or (shutil.which(name) if name == "etcd" else None)
    if path is None:
        pytest.skip(f"no {name}: set CNILAB_KUBE_BIN to a folder with etcd, kube-apiserver and kubectl")
    return path


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _kubeconfig(port: int, token: str) -> str:
    server = {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": server}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
    )


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """A running API, until the end of the block."""
    etcd, server, kubectl = binary("etcd"), binary("kube-apiserver"), binary("kubectl")
    client_port, peer_port, api_port = _free_ports(3)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    (folder / "sa.key").write_bytes(pem)
    (folder / "tokens").write_text(
        f'{TOKEN},admin,admin,"system:masters"\nnode-{TOKEN},system:node:{NODE},node,"system:nodes"\n'
    )
    clients, peers = f"http://127.0.0.1:{client_port}", f"http://127.0.0.1:{peer_port}"
    commands = [
        [
            etcd,
            f"--data-dir={folder}/etcd",
            f"--listen-client-urls={clients}",
            f"--advertise-client-urls={clients}",
            f"--listen-peer-urls={peers}",
            f"--initial-advertise-peer-urls={peers}",
            f"--initial-cluster=default={peers}",
        ],
        [
            server,
            f"--etcd-servers={clients}",
            f"--secure-port={api_port}",
            "--bind-address=127.0.0.1",
            f"--cert-dir={folder}/certificates",
            f"--token-auth-file={folder}/tokens",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            "--service-cluster-ip-range=10.96.0.0/12",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={folder}/sa.key",
            f"--service-account-signing-key-file={folder}/sa.key",
            # Pods need this account, and the controller that would make it does not run.
            "--disable-admission-plugins=ServiceAccount",
        ],
    ]
    for name, token in (("admin.conf", TOKEN), ("kubelet.conf", f"node-{TOKEN}")):
        (folder / name).write_text(_kubeconfig(api_port, token))
    cluster = Cluster(kubectl, folder / "admin.conf", folder / "kubelet.conf")
    processes = []
    try:
        for command in commands:
            log = (folder / f"{Path(command[0]).name}.log").open("w")
            processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        deadline = time.monotonic() + 90
        while cluster.kubectl("get", "namespace", "kube-system", check=False).returncode:
            for process, command in zip(processes, commands, strict=True):
                assert process.poll() is None, (folder / f"{Path(command[0]).name}.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "the API did not answer within 90 s"
            time.sleep(1)
        yield cluster
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in reversed(processes):
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
