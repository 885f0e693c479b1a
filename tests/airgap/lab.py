"""A copy of the checkout with a local lab of its own on the closed network."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.airgap.site import REGISTRY, Site

ROOT = Path(__file__).resolve().parents[2]
STACK = "airgap"
FIRST, *WORKERS = NODES = ("ip1001100", "ip-10-0-2-200", "ip-10-0-2-201")
UP_TIMEOUT_SECONDS = 1500

# Each start of sshd takes the default route away. What is left is the way to the lab and to the site, and a route to
# 169.254.1.1, the gateway of Calico's pods: without one, no node answers for it (prepare.sh).
NO_DEFAULT_ROUTE = """\
[Service]
ExecStartPre=/bin/sh -c 'ip -4 route show default | while read -r _ _ gateway _ device _; do \
ip route replace 10.0.0.0/8 via $$gateway && ip route replace 169.254.1.1 dev $$device && \
ip route delete default; done'
"""


@dataclass(frozen=True)
class Copy:
    """A copy of the checkout with a stack of its own, so that no other stack and no state is touched."""

    path: Path
    site: Site

    def lab(self, *words: str, timeout_seconds: float = UP_TIMEOUT_SECONDS) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cli", *words],
            cwd=self.path,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
        )

    def read(self, *words: str) -> str:
        """The output of a command that succeeds."""
        done = self.lab(*words)
        assert done.returncode == 0, f"{words}: {done.stdout[-20000:]}\n{done.stderr[-5000:]}"
        return done.stdout

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command in a process group of its own, with its output in `log`."""
        with self.log.open("w") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "cli", *words],
                cwd=self.path,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def log(self) -> Path:
        return self.path.parent / "started.log"

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        """Kill a command with the engine and the plugins."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=60)

    def on(self, node: str, command: str, timeout_seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run a command line as root on a machine, also while `up` runs."""
        execute = ["podman", "exec", f"cni-lab-{STACK}-{node}", "env", "KUBECONFIG=/etc/kubernetes/admin.conf"]
        return subprocess.run(
            [*execute, "bash", "-c", command], capture_output=True, text=True, timeout=timeout_seconds
        )

    def kubectl(self, words: str) -> str:
        done = self.on(FIRST, f"kubectl --request-timeout 30s {words}")
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stack_file(self) -> Path:
        return self.path / "stacks" / f"Pulumi.{STACK}.yaml"

    def version(self) -> str:
        """The version of Kubernetes in the stack file."""
        found: str = yaml.safe_load(self.stack_file().read_text())["config"]["cni-lab:lab"]["kubernetes"]["version"]
        return found

    def change_version(self, version: str) -> None:
        document = yaml.safe_load(self.stack_file().read_text())
        document["config"]["cni-lab:lab"]["kubernetes"]["version"] = version
        self.stack_file().write_text(yaml.safe_dump(document, sort_keys=False))

    def commit(self) -> None:
        """Make a git repository of the copy, as it is now."""
        git = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.invalid"]
        for words in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "as it is"]):
            subprocess.run([*git, *words], cwd=self.path, check=True)

    def write_stack(self) -> None:
        document = yaml.safe_load((ROOT / "stacks" / "Pulumi.local.yaml").read_text())
        lab = document["config"]["cni-lab:lab"]
        if version := os.environ.get("CNILAB_AIRGAP_KUBERNETES"):
            lab["kubernetes"]["version"] = version
        unit = self.path / "no-default-route.conf"
        unit.write_text(NO_DEFAULT_ROUTE)
        lab["machines"] = {
            "provider": "local",
            "engine": "podman",
            "image": f"{REGISTRY}/machine:1",
            "runArgs": os.environ.get("CNILAB_RUN_ARGS", "").split(),
            "extraMounts": [
                {
                    "hostPath": str(unit),
                    "containerPath": "/etc/systemd/system/ssh.service.d/10-no-default-route.conf",
                    "readOnly": True,
                }
            ],
        }
        lab["mirrors"] = self.site.mirrors()
        self.stack_file().write_text(yaml.safe_dump(document, sort_keys=False))

    def needs(self) -> dict[str, list[dict[str, Any]]]:
        """What `./lab airgap` lists, by kind."""
        found: dict[str, list[dict[str, Any]]] = {}
        for need in json.loads(self.read("airgap", STACK, "--json"))["needs"]:
            found.setdefault(need["kind"], []).append(need)
        return found
