"""A sandbox for tests, with what only a test needs: sshd on every node, and an API that the test may change.

    with Replica(lab) as replica:
        replica.access        # as the stack output `access`: SSH to each node on a port of 127.0.0.1
        replica.kubeconfig    # as the stack output: an API stand-in on 127.0.0.1
        replica.blocks, replica.pods, replica.lab
        replica.exec("ip-10-0-2-200", ["ip", "route"])

It needs root and sshd. The sandbox itself is components/sandbox; it ends with the test, however the test ends.
"""

from __future__ import annotations

import contextlib
import json
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from ipaddress import IPv4Address
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from components.sandbox.api import Api
from components.sandbox.certificates import Authority
from components.sandbox.controller import Controller
from components.sandbox.model import Plan, Pod, digest
from components.sandbox.objects import make_objects, pod_object
from components.sandbox.plan import make_plan
from components.sandbox.requirements import examine, is_root
from components.sandbox.running import Running
from components.slowdown import scaled
from components.spec.models import Lab, Node
from components.verify.read.namespace import NamespaceAccess
from tests.vm import machine

HERE = Path(__file__).parent
SSHD = "/usr/sbin/sshd"


@cache
def missing() -> str | None:
    """Why no replica can stand here; None where one can."""
    if not is_root():
        return "a replica needs root"
    if shutil.which(SSHD) is None:
        return f"a replica needs {SSHD}"
    return examine().problem or None


def lacking(lab: Lab) -> str | None:
    """Why this kernel cannot stand for the lab's tunnels, and where the test runs instead; None if it can."""
    lacks = examine(lab).lacks & {"ipip", "wireguard"}
    return f"this kernel makes no {' and no '.join(sorted(lacks))} devices; {machine.HINT}" if lacks else None


def skip_without_kernel(lab: Lab) -> None:
    if reason := lacking(lab):
        pytest.skip(reason)


def _run(argv: Sequence[str], timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, capture_output=True, text=True, timeout=scaled(timeout), check=False, stdin=subprocess.DEVNULL
    )


class Replica:
    """One lab. `blocks`: node name → CIDRs, by default as Calico would choose; `system_pods`: also what Kubernetes,
    Calico and Multus run. `router_knows_pods`: whether the router between the subnets has routes to the blocks, which
    a VPC's has not. Without `ssh` the nodes are entered as a sandbox's are,
    which takes half the time."""

    def __init__(
        self,
        lab: Lab,
        *,
        stack: str = "replica",
        blocks: Mapping[str, Sequence[str]] | None = None,
        system_pods: bool = True,
        router_knows_pods: bool = True,
        ssh: bool = True,
    ) -> None:
        self._ssh = ssh
        self.plan: Plan = make_plan(
            lab, stack=stack, blocks=blocks, system_pods=system_pods, router_knows_pods=router_knows_pods
        )
        self.lab = lab
        self.blocks = {node: list(cidrs) for node, cidrs in self.plan.blocks.items()}
        self.pods = list(self.plan.pods)
        self._keys = {node.name: Ed25519PrivateKey.generate() for node in lab.nodes}
        self._login = Ed25519PrivateKey.generate()
        self._stack = contextlib.ExitStack()

    # --- what the commands under test get ---

    @property
    def access(self) -> dict[str, dict[str, Any]]:
        """As the stack output: node → how SSH reaches it."""
        if not self._ssh:
            return self.running.access
        return {
            node: {
                "host": "127.0.0.1",
                "port": port,
                "user": "root",
                "privateKey": _private(self._login),
                "hostKey": _public(self._keys[node]),
                "jump": None,
            }
            for node, port in self._ports.items()
        }

    @property
    def outputs(self) -> dict[str, Any]:
        """All outputs of the stack."""
        nodes = {node: digest(node) for node in self.blocks}
        return {"access": self.access, "blocks": self.blocks, "kubeconfig": self.kubeconfig, "nodes": nodes}

    # --- for tests ---

    def pod(self, workload: str, node: str | None = None, pool: int | None = None) -> Pod:
        """The first pod of a workload, on a node, with an address of the numbered pool."""
        for pod in self.pods:
            cidr = self.lab.calico.pools[pool].cidr if pool is not None else None
            if pod.labels.get("app") == workload and node in (None, pod.node) and (not cidr or pod.address in cidr):
                return pod
        raise KeyError(f"no pod of {workload} on {node}")

    def exec(self, node: str, argv: Sequence[str], timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run on a node as root, without SSH."""
        return _run(NamespaceAccess.of(node, self.running.access[node]).command(argv), timeout)

    def pod_exec(self, pod: Pod, argv: Sequence[str], timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run in a pod's network namespace."""
        return self.exec(pod.node, ["nsenter", f"--net=/run/netns/{pod.netns}", "--", *argv], timeout)

    def ping(self, source: Pod, target: IPv4Address | str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Two packets from a pod, at most 3 s."""
        return self.pod_exec(source, ["ping", "-n", "-c", "2", "-i", "0.05", "-w", "3", *arguments, str(target)])

    def add_pod(self, namespace: str, name: str, node: str, phase: str, address: str = "0.0.0.0") -> Pod:
        """A Pod that only the API knows: Pending, or ended and with an `address` that it once had."""
        pod = Pod(namespace, name, node, IPv4Address(address), "", phase=phase)
        self.pods.append(pod)
        self.api.objects["/api/v1/pods"].append(pod_object(self.plan, pod))
        return pod

    def stop_sshd(self, node: str) -> None:
        """From now on the node refuses SSH; connections that stand stay."""
        self.exec(node, ["sh", "-c", "kill $(cat /run/sshd.pid)"])

    def serve_certificate(self, days: int = 365) -> None:
        """Give the API another certificate; negative `days`: one that ended."""
        path = self.directory / "server.pem"
        path.write_text("".join(self._authority.issue("kube-apiserver", days=days)))
        self.api.use_certificate(path)

    # --- making it ---

    def __enter__(self) -> Replica:
        reason = missing()
        if reason:
            raise RuntimeError(reason)
        with contextlib.ExitStack() as stack:
            self.directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cnilab-test-")))
            sandbox = self.directory / "sandbox"
            sandbox.mkdir()
            self.running = Running(self.plan, sandbox)
            self.running.start()
            stack.callback(self.running.stop)
            if self._ssh:
                for node in self.lab.nodes:
                    self._start_sshd(node)
                self._forward(stack)
            self._serve(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _serve(self, stack: contextlib.ExitStack) -> None:
        """An API in this process, beside the sandbox's own."""
        self._authority = Authority()
        authority, certificate = self.directory / "ca.crt", self.directory / "server.pem"
        authority.write_text(self._authority.pem)
        certificate.write_text("".join(self._authority.issue("kube-apiserver")))
        self.api = Api(make_objects(self.plan), authority, certificate)
        stack.callback(self.api.close)
        spec = self.lab.kubernetes
        self.api.patch_service = Controller(
            self.api.objects,
            {node: f"/proc/{pid}/ns/net" for node, pid in self.running.pids.items()},
            tool=self.running.tool,
            pod_cidr=str(spec.pod_cidr),
            service_cidr=str(spec.service_cidr),
        ).patch
        self.kubeconfig = self._authority.kubeconfig(self.api.url)
        self.expired_kubeconfig = self._authority.kubeconfig(self.api.url, days=-2)

    def _start_sshd(self, node: Node) -> None:
        config = [
            f"ListenAddress {node.address}",
            "ListenAddress 127.0.0.1",
            "HostKey /etc/ssh/ssh_host_ed25519_key",
            "PidFile /run/sshd.pid",
            "PermitRootLogin prohibit-password",
            "PasswordAuthentication no",
            "UsePAM no",
            "MaxStartups 200",
            "MaxSessions 100",
            "SetEnv PATH=/opt/sandbox/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "Subsystem sftp internal-sftp",
        ]
        files = {
            "/etc/ssh/sshd_config": "".join(f"{line}\n" for line in config),
            "/etc/ssh/ssh_host_ed25519_key": _private(self._keys[node.name]),
            "/root/.ssh/authorized_keys": f"{_public(self._login)}\n",
        }
        script = (
            "umask 077; mkdir -p /etc/ssh /root/.ssh; chmod 0700 /root; mkdir -m 0755 /run/sshd; "
            'while (($# > 1)); do printf %s "$2" >"$1"; shift 2; done; '
            f"exec {SSHD} -f /etc/ssh/sshd_config -E /var/log/sshd.log"
        )
        words = [word for pair in files.items() for word in pair]
        done = self.exec(node.name, ["bash", "-ec", script, "-", *words])
        if done.returncode:
            raise RuntimeError(f"sshd of {node.name}: {done.stderr}")

    def _forward(self, stack: contextlib.ExitStack) -> None:
        targets = [f"{node.address}:22" for node in self.lab.nodes]
        # The router started the node's `unshare`, whose child is the machine's process 1.
        router = _parent(_parent(self.running.pids[self.lab.nodes[0].name]))
        process = subprocess.Popen(
            [sys.executable, str(HERE / "replica_proxy.py"), f"/proc/{router}/ns/net", *targets],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        stack.callback(_end, process)
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], scaled(30))
        ports = json.loads(process.stdout.readline() if ready else "[]")
        self._ports: dict[str, int] = dict(zip((node.name for node in self.lab.nodes), ports, strict=True))


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close its standard input, which ends it, and wait; kill it when it does not."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(scaled(20))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _private(key: Ed25519PrivateKey) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


def _public(key: Ed25519PrivateKey) -> str:
    encoding, form = serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    return key.public_key().public_bytes(encoding, form).decode()


@contextlib.contextmanager
def standing(lab: Lab, **options: Any) -> Iterator[Replica]:
    """A replica for a fixture; the test is skipped where none can stand."""
    if reason := missing():
        pytest.skip(reason)
    skip_without_kernel(lab)
    with Replica(lab, **options) as it:
        yield it
