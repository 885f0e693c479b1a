"""A lab's data path in network namespaces on this computer: what verify, walk, break and mend read and change.

    with Replica(lab) as replica:
        replica.access        # as the stack output `access`: SSH to each node on a port of 127.0.0.1
        replica.kubeconfig    # as the stack output: an API stand-in on 127.0.0.1
        replica.blocks, replica.pods, replica.lab
        replica.exec("ip-10-0-2-200", ["ip", "route"])

Nodes are real where the data path is: their own network, mount, UTS and PID namespaces, their own root to write to, a
kernel that routes, answers ARP and encapsulates, iptables, sshd. Interfaces and routes stand as Felix, Multus and the
plugins would leave them (replica_plan.py); nothing repairs them, so what a test breaks stays broken until mended.
Stand-ins are only at the edge: `journalctl --unit crio` (replica_journalctl.py), BIRD's sessions by `crictl exec`
(replica_crictl.sh), files in /opt/cni/bin that no one runs, the Kubernetes API (replica_api.py). Absent: systemd,
CRI-O, calicoctl, BIRD, kube-proxy's and Felix's rules but for NAT and VXLAN's NOTRACK.

Everything hangs on one pipe: when the test ends, however it ends, the kernel takes all of it down. No address of this
computer is used but ports of 127.0.0.1, so replicas and other labs stand side by side.
"""

from __future__ import annotations

import contextlib
import json
import os
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

from components.spec.models import Lab, Node
from tests.verify import replica_plan
from tests.verify.replica_api import Api, make_objects, pod_object
from tests.verify.replica_plan import Plan, Pod, digest

HERE = Path(__file__).parent
PREFIX = "cnilab-replica-"
TOOLS = ["ip", "bridge", "nsenter", "unshare", "iptables-restore", "pivot_root", "ping", "/usr/sbin/sshd"]


@cache
def missing() -> str | None:
    """Why no replica can stand here; None where one can."""
    if os.geteuid() != 0:
        return "a replica needs root"
    absent = [tool for tool in TOOLS if shutil.which(tool, path=f"{os.defpath}:/usr/sbin:/sbin") is None]
    if absent:
        return f"a replica needs {', '.join(absent)}"
    probe = (
        "set -e; mount --make-rprivate /; mount -t tmpfs t /mnt; mkdir /mnt/u /mnt/w /mnt/m; "
        "mount -t overlay -o lowerdir=/,upperdir=/mnt/u,workdir=/mnt/w o /mnt/m; "
        "ip link add probe type veth; ip link add vxlan0 type vxlan id 1 dstport 4789"
    )
    done = _run(["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "bash", "-c", probe])
    return None if done.returncode == 0 else f"no namespaces, overlay, veth or vxlan here: {done.stderr.strip()}"


@cache
def has_ipip() -> bool:
    """Whether this kernel makes IPIP tunnels."""
    make = ["ip", "tunnel", "add", "probe", "mode", "ipip", "remote", "127.0.0.2"]
    return _run(["unshare", "--net", *make]).returncode == 0


def _run(argv: Sequence[str], timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=timeout, check=False, stdin=subprocess.DEVNULL)


class Replica:
    """One lab. `blocks`: node name → CIDRs, without a word as Calico would choose; `system_pods`: also what Kubernetes,
    Calico and Multus run. `router_knows_pods`: whether the router between the subnets has routes to the blocks, which
    a VPC's has not."""

    def __init__(
        self,
        lab: Lab,
        *,
        stack: str = "replica",
        blocks: Mapping[str, Sequence[str]] | None = None,
        system_pods: bool = True,
        router_knows_pods: bool = True,
    ) -> None:
        self.plan: Plan = replica_plan.make_plan(
            lab, stack=stack, blocks=blocks, system_pods=system_pods, router_knows_pods=router_knows_pods
        )
        self.lab = lab
        self.blocks = {node: list(mine) for node, mine in self.plan.blocks.items()}
        self.pods = list(self.plan.pods)
        self._keys = {node.name: Ed25519PrivateKey.generate() for node in lab.nodes}
        self._login = Ed25519PrivateKey.generate()
        self._stack = contextlib.ExitStack()

    # --- what the commands under test get ---

    @property
    def access(self) -> dict[str, dict[str, Any]]:
        """As the stack output: node → how SSH reaches it."""
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

    def exec(self, node: str | None, argv: Sequence[str], timeout: float = 60) -> subprocess.CompletedProcess[str]:
        """Run on a node as root, without SSH; None: on the router."""
        command = ["nsenter", "--target", str(self._init), "--mount", "--net", "--uts", "--pid", "--"]
        if node is not None:
            pid = (self.directory / node / "pid").read_text().strip()
            command += ["nsenter", "--target", pid, "--mount", "--net", "--uts", "--pid", "--root", "--wd", "--"]
        return _run([*command, *argv], timeout)

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

    # --- making it ---

    def __enter__(self) -> Replica:
        reason = missing()
        if reason:
            raise RuntimeError(reason)
        sweep()
        with contextlib.ExitStack() as stack:
            self.directory = Path(tempfile.mkdtemp(prefix=PREFIX))
            stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
            (self.directory / "owner").write_text(str(os.getpid()))
            self._write()
            self._start(stack)
            self._forward(stack)
            self.api = Api(make_objects(self.plan), self.directory)
            stack.callback(self.api.close)
            self.kubeconfig = self.api.kubeconfig()
            self.expired_kubeconfig = self.api.kubeconfig(days=-2)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _write(self) -> None:
        plan = self.plan
        _lines(self.directory / "nodes", [node.name for node in self.lab.nodes])
        _lines(self.directory / "router.batch", replica_plan.router_batch(plan))
        for node in self.lab.nodes:
            here = self.directory / node.name
            (here / "pods").mkdir(parents=True)
            _lines(here / "node.batch", replica_plan.node_batch(plan, node))
            _lines(here / "fdb.batch", replica_plan.fdb_batch(plan, node))
            _lines(here / "nat.rules", replica_plan.nat_rules(plan, node))
            for pod in plan.on(node.name):
                if not pod.host_network:
                    _lines(here / "pods" / pod.netns, replica_plan.pod_batch(pod))
            for path, (text, mode) in (replica_plan.node_files(plan, node) | self._ssh_files(node)).items():
                file = here / "root" / path.lstrip("/")
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(text.encode())
                file.chmod(mode)
            (here / "root/root").chmod(0o700)

    def _ssh_files(self, node: Node) -> dict[str, tuple[str, int]]:
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
            "Subsystem sftp internal-sftp",
        ]
        public = _public(self._keys[node.name])
        return {
            "/etc/hostname": (f"{node.name}\n", 0o644),
            "/etc/ssh/sshd_config": ("".join(f"{line}\n" for line in config), 0o644),
            "/etc/ssh/ssh_host_ed25519_key": (_private(self._keys[node.name]), 0o600),
            "/etc/ssh/ssh_host_ed25519_key.pub": (f"{public}\n", 0o644),
            "/root/.ssh/authorized_keys": (f"{_public(self._login)}\n", 0o600),
            "/usr/local/bin/crictl": ((HERE / "replica_crictl.sh").read_text(), 0o755),
            "/usr/local/bin/journalctl": (
                f"#!{Path(sys.executable).resolve()} -IS\n" + (HERE / "replica_journalctl.py").read_text(),
                0o755,
            ),
        }

    def _start(self, stack: contextlib.ExitStack) -> None:
        log = self.directory / "log"
        command = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--"]
        with log.open("w") as errors:
            process = subprocess.Popen(
                [*command, "bash", str(HERE / "replica.sh"), "router", str(self.directory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        stack.callback(_end, process)
        patience = 60 + 10 * len(self.lab.nodes)
        if _line(process, patience) != "ready":
            said = log.read_text().strip() or f"no word within {patience} s"
            raise RuntimeError(f"the replica does not stand: {said}")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        self._init = int(children[0])

    def _forward(self, stack: contextlib.ExitStack) -> None:
        targets = [f"{node.address}:22" for node in self.lab.nodes]
        process = subprocess.Popen(
            [sys.executable, str(HERE / "replica_proxy.py"), f"/proc/{self._init}/ns/net", *targets],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        stack.callback(_end, process)
        ports = json.loads(_line(process, 30) or "[]")
        self._ports: dict[str, int] = dict(zip((node.name for node in self.lab.nodes), ports, strict=True))


def _lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


def _line(process: subprocess.Popen[bytes], seconds: float) -> str:
    """The first line a process prints; empty when it ends, or does not print one in time."""
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], seconds)
    return process.stdout.readline().decode().strip() if ready else ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close its standard input, which ends it, and wait; kill it when it does not."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(20)
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


def sweep() -> list[Path]:
    """Remove the directories of replicas whose test is no more; namespaces and processes went with it."""
    removed = []
    for directory in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            owner = int((directory / "owner").read_text())
            os.kill(owner, 0)
        except (OSError, ValueError):
            shutil.rmtree(directory, ignore_errors=True)
            removed.append(directory)
    return removed


@contextlib.contextmanager
def standing(lab: Lab, **options: Any) -> Iterator[Replica]:
    """A replica for a fixture; the test is skipped where none can stand."""
    if reason := missing():
        pytest.skip(reason)
    if any(encapsulation.startswith("IPIP") for encapsulation in lab.encapsulations) and not has_ipip():
        pytest.skip("this kernel makes no IPIP tunnels")
    with Replica(lab, **options) as it:
        yield it
