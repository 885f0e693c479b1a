"""Start the processes of one sandbox from a plan.

directory/                     mode 0700
  nodes, router.batch          what machine.sh reads; NODE/node.batch, fdb.batch, rules/, pods/, firewalls/, root/
  objects.json, settings.json, ca.crt, apiserver.pem
  log, NODE/log                what the machines complained about
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.sandbox import links, nat, proxy
from components.sandbox.files import node_files
from components.sandbox.model import Plan, digest
from components.sandbox.objects import listening, make_objects
from components.sandbox.processes import machine_pids
from components.sandbox.requirements import PATH, filter_tool, find, is_root, unshare
from components.sandbox.services import SERVICES, SLICES
from components.slowdown import scaled
from components.spec.models import Node
from components.system_errors import system_message
from components.verify.read.namespace import start_time

HERE = Path(__file__).resolve().parent
_START_SECONDS, _START_SECONDS_PER_NODE = 60, 10
_STOP_SECONDS = 20


class SandboxError(Exception):
    """A sandbox cannot be made or reached; str() is one line that says why and what to do."""


class Running:
    """The processes of one sandbox, started by this process. It ends with this process unless `stay` was called."""

    def __init__(self, plan: Plan, directory: Path, *, keep_open: Sequence[int] = (), services: bool = True) -> None:
        """`directory` is there and empty; `keep_open`: file descriptors that the sandbox keeps while it lives;
        `services`: whether the nodes get kube-proxy's rules, which not every kernel can hold."""
        self.plan = plan
        self.services = services
        self.tool = filter_tool(plan.lab)
        self.directory = directory.resolve()
        self._keep_open = tuple(keep_open)
        # Only a sandbox that is built needs certificates. Whatever reads one loads faster without them.
        from components.sandbox.certificates import Authority

        self._authority = Authority()
        self._url = ""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when every machine is up. Raises SandboxError; then nothing is left running."""
        try:
            self._write()
            self._launch()
            self._await_ready()
            self.pids = self._find_machines()
        except OSError as error:
            self.stop()
            raise SandboxError(system_message(error, self.directory)) from None
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        """The process whose end is the sandbox's end."""
        assert self._process is not None
        return self._process.pid

    @property
    def access(self) -> dict[str, dict[str, Any]]:
        """Node → how its namespaces are entered."""
        return {
            node: {
                "kind": "namespace",
                "pid": pid,
                "started": start_time(pid),
                "user": not is_root(),
                "stack": self.plan.stack,
                "pods": {
                    f"{pod.namespace}/{pod.name}": pod.netns
                    for pod in self.plan.pods
                    if pod.node == node and not pod.host_network
                },
            }
            for node, pid in self.pids.items()
        }

    @property
    def outputs(self) -> dict[str, Any]:
        """What the stack of a deployed lab gives out."""
        return {
            "access": self.access,
            "blocks": {node: list(cidrs) for node, cidrs in self.plan.blocks.items()},
            "kubeconfig": self._authority.kubeconfig(self._url),
            "nodes": {node.name: digest(node.name) for node in self.plan.lab.nodes},
        }

    def stay(self) -> None:
        """Let it outlive this process."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(b"stay\n")
        self._process.stdin.flush()

    def stop(self) -> None:
        """End every process of it; with them go interfaces and mounts."""
        process = self._process
        if process is None:
            return
        end(process.pid)
        try:
            process.wait(scaled(_STOP_SECONDS))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()
        self._process = None

    # --- parts of start ---

    def _find_machines(self) -> dict[str, int]:
        nodes = [node.name for node in self.plan.lab.nodes]
        found = machine_pids(self.pid, nodes)
        if missing := [node for node in nodes if node not in found]:
            raise SandboxError(f"the sandbox could not be built: no machine of {', '.join(missing)}")
        return {node: found[node] for node in nodes}

    def _write(self) -> None:
        plan, directory = self.plan, self.directory
        wireguard = links.wireguard_configurations(plan)
        _lines(directory / "nodes", [node.name for node in plan.lab.nodes])
        _lines(directory / "router.batch", links.router_batch(plan))
        objects = make_objects(plan)
        (directory / "objects.json").write_text(json.dumps(objects))
        (directory / "settings.json").write_text(json.dumps(self._settings()))
        self._proxy = self._proxy_rules(objects)
        (directory / "ca.crt").write_text(self._authority.pem)
        _secret(directory / "apiserver.pem", "".join(self._authority.issue("kube-apiserver")))
        if any(pool.encapsulation.startswith("IPIP") for pool in plan.lab.calico.pools):
            (directory / "ipip").touch()
        for node in plan.lab.nodes:
            self._write_node(node, wireguard.get(node.name))

    def _settings(self) -> dict[str, Any]:
        """What holder.py needs to know: the tool of kube-proxy's rules, and who listens where."""
        spec = self.plan.lab.kubernetes
        return {
            "tool": self.tool if self.services else "",
            "podCidr": str(spec.pod_cidr),
            "serviceCidr": str(spec.service_cidr),
            "nodes": [node.name for node in self.plan.lab.nodes],
            "listeners": listening(self.plan),
        }

    def _proxy_rules(self, objects: Mapping[str, Sequence[dict[str, Any]]]) -> list[str]:
        """kube-proxy's rules, which are the same on every node."""
        spec = self.plan.lab.kubernetes
        ports = proxy.service_ports(objects[SERVICES], objects[SLICES])
        if not self.services:
            return []
        if self.tool == "nft":
            return proxy.nft_rules(ports, str(spec.pod_cidr), str(spec.service_cidr))
        return [*proxy.iptables_jumps(), *proxy.iptables_rules(ports, str(spec.pod_cidr))]

    def _write_node(self, node: Node, wireguard: str | None) -> None:
        plan, here = self.plan, self.directory / node.name
        (here / "pods").mkdir(parents=True)
        (here / "rules").mkdir()
        _lines(here / "node.batch", links.node_batch(plan, node))
        _lines(here / "fdb.batch", links.fdb_batch(plan, node))
        # In the order of their names; the suffix says by which tool.
        if self.tool == "nft":
            _lines(here / "rules" / "1-felix.nft", nat.nat_ruleset(plan, node))
        else:
            _lines(here / "rules" / "1-felix.iptables", nat.nat_rules(plan, node))
        if self._proxy:
            _lines(here / "rules" / f"2-kube-proxy.{self.tool}", self._proxy)
        _lines(here / "forwarding", links.forwarding(plan, node))
        (here / "firewalls").mkdir()
        for pod in plan.on(node.name):
            rules = nat.firewall_rules(plan, pod) if find("iptables") else nat.firewall_ruleset(plan, pod)
            if rules:
                suffix = "iptables" if find("iptables") else "nft"
                _lines(here / "firewalls" / f"{pod.netns}.{suffix}", rules)
        if (self.directory / "ipip").exists():
            (here / "ipip").touch()
        if wireguard is not None:
            _secret(here / "wireguard.conf", wireguard)
        for pod in plan.on(node.name):
            if not pod.host_network:
                _lines(here / "pods" / pod.netns, links.pod_batch(pod))
        made: set[Path] = set()
        for path, (text, mode) in (node_files(plan, node) | stand_ins(node)).items():
            file = here / "root" / path.lstrip("/")
            if file.parent not in made:
                file.parent.mkdir(parents=True, exist_ok=True)
                made.add(file.parent)
            file.write_bytes(text.encode())
            file.chmod(mode)

    def _launch(self) -> None:
        # The Python that runs holder.py needs no packages: the standard library is enough.
        holder = [os.path.realpath(sys.executable), "-IS", str(HERE / "holder.py"), str(self.directory)]
        command = [*unshare("--pid", "--fork", "--kill-child", "--mount", "--mount-proc"), *holder]
        with (self.directory / "log").open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd="/",
                env={**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{PATH}", "LC_ALL": "C"},
                pass_fds=self._keep_open,
                start_new_session=True,
            )

    def _await_ready(self) -> None:
        seconds = scaled(_START_SECONDS + _START_SECONDS_PER_NODE * len(self.plan.lab.nodes))
        deadline = time.monotonic() + seconds
        for line in self._events(deadline):
            word, _, rest = line.partition(" ")
            if word == "api":
                self._url = rest
            elif word == "ready":
                return
            elif word == "failed":
                raise SandboxError(f"the sandbox could not be built: {rest}")
        reported = (self.directory / "log").read_text(errors="replace").strip().splitlines()
        raise SandboxError(f"the sandbox could not be built: {' '.join(reported[-3:]) or 'it gave no reason in time'}")

    def _events(self, deadline: float) -> Iterator[str]:
        """Lines of the holder, until it ends or the time is over."""
        assert self._process is not None and self._process.stdout is not None
        descriptor, text = self._process.stdout.fileno(), b""
        while (left := deadline - time.monotonic()) > 0:
            ready, _, _ = select.select([descriptor], [], [], left)
            data = os.read(descriptor, 4096) if ready else b""
            if not data:
                return
            text += data
            *whole, text = text.split(b"\n")
            yield from (line.decode(errors="replace") for line in whole)


def stand_ins(node: Node) -> dict[str, tuple[str, int]]:
    """Programs that answer for what a sandbox's node has not, and its names: path → (text, mode)."""
    # The interpreter is this computer's, seen from inside.
    python = f"/host{os.path.realpath(sys.executable)}"
    found = {
        "/etc/hostname": (f"{node.name}\n", 0o644),
        "/etc/hosts": (f"127.0.0.1 localhost\n{node.address} {node.name}\n", 0o644),
        "/root/.bashrc": ("PS1='sandbox:\\h:\\w\\$ '\n", 0o644),
        "/opt/sandbox/bin/crictl": ((HERE / "crictl.sh").read_text(), 0o755),
        "/opt/sandbox/bin/journalctl": ((HERE / "journalctl.sh").read_text(), 0o755),
        "/opt/sandbox/journalctl.py": (f"#!{python} -IS\n" + (HERE / "journalctl.py").read_text(), 0o755),
    }
    tcpdump = find("tcpdump")
    if tcpdump and not is_root():
        script = (HERE / "tcpdump.py").read_text().replace('main("/usr/bin/tcpdump")', f'main("/host{tcpdump}")')
        found["/opt/sandbox/bin/tcpdump"] = (f"#!{python} -IS\n{script}", 0o755)
    return found


def end(pid: int) -> None:
    """End a sandbox by the process that `Running.pid` named, `unshare`. Its child goes first: `unshare` then ends when
    every process of the sandbox has."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    for victim in children or [str(pid)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(victim), signal.SIGKILL)


def _lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


def _secret(path: Path, text: str) -> None:
    with open(path, "w", encoding="ascii", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(text)
