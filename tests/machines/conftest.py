"""Runs the scripts of local machines, with a stand-in for the container engine and with a real one.

CNILAB_HOST_IMAGE is an image with systemd, sshd and sudo. CNILAB_ENGINE is the real engine, podman or docker; podman is
the default. CNILAB_RUN_ARGS are what its `run` needs on this computer besides (separated by spaces). Where the engine,
root or the image is missing, the tests on real machines skip.
"""

from __future__ import annotations

import contextlib
import json
import marshal
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "components" / "machines"
HOST_IMAGE = os.environ.get("CNILAB_HOST_IMAGE", "")
REAL_ENGINE = os.environ.get("CNILAB_ENGINE", "podman")
RUN_ARGS = os.environ.get("CNILAB_RUN_ARGS", "").split()
OWNER = "SHA256:0123456789abcdef/+"


@dataclass(frozen=True)
class Done:
    """How a script ended. `refusal`: the last line of its own messages, without the prefix; empty if there is none."""

    status: int
    stdout: str
    stderr: str

    @property
    def refusal(self) -> str:
        lines = [line for line in self.stderr.splitlines() if line.startswith("cni-lab: ")]
        return lines[-1].removeprefix("cni-lab: ") if lines else ""


@dataclass
class Scripts:
    """Runs the scripts as the program's commands do: in the project's folder, with their values in the environment."""

    stack: str
    environment: dict[str, str]
    folder: Path
    keys: dict[str, Path] = field(default_factory=dict)

    def key(self, name: str) -> Path:
        """The file of a private ed25519 key, which is made at the first call."""
        if name not in self.keys:
            self.keys[name] = self.folder / name
            make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(self.keys[name])]
            subprocess.run(make, check=True)
        return self.keys[name]

    def public(self, name: str) -> str:
        return self.key(name).with_suffix(".pub").read_text().strip()

    def start(self, script: str, word: str, stdin: str = "", **environment: str) -> subprocess.Popen[str]:
        """Start a script in a process group of its own, so that a test can kill the group or the script alone."""
        process = subprocess.Popen(
            ["bash", f"components/machines/{script}", word],
            cwd=ROOT,
            env=os.environ | self.environment | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdin is not None
        process.stdin.write(stdin)
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, script: str, word: str, stdin: str = "", **environment: str) -> Done:
        process = self.start(script, word, stdin, **environment)
        try:
            stdout, stderr = process.communicate(timeout=200)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        return Done(process.returncode, stdout.strip(), stderr)

    def engine(self, word: str, **environment: str) -> Done:
        return self.run(
            "local-engine.sh", word, **({"PULUMI_COMMAND_STDOUT": self.environment["ENGINE"]} | environment)
        )

    def network(self, word: str, subnet: str = "a", **environment: str) -> Done:
        return self.run("local-network.sh", word, **(self.of_network(subnet) | environment))

    def machine(self, word: str, node: str = "n1", subnet: str = "a", octet: int = 10, **environment: str) -> Done:
        secret = self.key(f"host-{node}").read_text()
        return self.run("local-machine.sh", word, secret, **(self.of_machine(node, subnet, octet) | environment))

    def container(self, node: str = "n1") -> str:
        return f"cni-lab-{self.stack}-{node}"

    def cidr(self, subnet: str) -> str:
        return {"a": "10.78.1.0/24", "b": "10.78.2.0/24"}[subnet]

    def of_network(self, subnet: str) -> dict[str, str]:
        return {
            "NETWORK": f"cni-lab-{self.stack}-{subnet}",
            "SUBNET": self.cidr(subnet),
            "GATEWAY": self.cidr(subnet).replace("0/24", "1"),
            "MTU": "9001",
            "LAB_SUBNETS": f"{self.cidr('a')} {self.cidr('b')}",
            "CLUSTER_RANGES": "10.96.0.0/12 10.244.0.0/16",
        }

    def of_machine(self, node: str, subnet: str, octet: int) -> dict[str, str]:
        return {
            "NETWORK": f"cni-lab-{self.stack}-{subnet}",
            "NODE": node,
            "ADDRESS": self.cidr(subnet).replace("0/24", str(octet)),
            "IMAGE": HOST_IMAGE or "localhost/a-machine:1",
            "LOGIN": "ubuntu",
            "AUTHORIZED_KEY": self.public("login"),
            "HOST_KEY": self.public(f"host-{node}"),
            "RUN_ARGS": "\n".join(RUN_ARGS),
        }


@dataclass
class Stub(Scripts):
    """The scripts, with a stand-in for every engine and network tool."""

    def calls(self, *words: str) -> list[list[str]]:
        """The calls that begin with these words."""
        calls: list[list[str]] = []
        if (path := self.folder / "calls").exists():
            with path.open("rb") as file, contextlib.suppress(EOFError):
                while True:
                    calls.append(marshal.load(file))
        return [call for call in calls if tuple(call[: len(words)]) == words]

    def put(self, kind: str, name: str, labels: Mapping[str, str], **more: str) -> None:
        file = self.folder / "state"
        empty: dict[str, Any] = {"container": {}, "volume": {}, "network": {}}
        state = marshal.loads(file.read_bytes()) if file.exists() else empty
        state[kind][name] = {"labels": dict(labels), **more}
        file.write_bytes(marshal.dumps(state))

    def there(self, kind: str) -> list[str]:
        file = self.folder / "state"
        return list(marshal.loads(file.read_bytes())[kind]) if file.exists() else []

    def fail(self, *words: str, saying: str = "Error: no") -> None:
        (self.folder / "-".join(["fail", *words])).write_text(saying)

    @property
    def mine(self) -> dict[str, str]:
        return {"cni-lab.stack": self.stack, "cni-lab.owner": OWNER}


@pytest.fixture
def stub(tmp_path: Path) -> Stub:
    for tool in ("ssh-keygen", "flock"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("podman", "docker", "nft", "ip", "iptables", "unshare", "modprobe", "ssh-keyscan"):
        script = tools / tool
        # -IS: it needs no installed packages.
        script.write_text(f"#!{sys.executable} -IS\n" + (Path(__file__).parent / "engine_stub.py").read_text())
        script.chmod(0o755)
    stack = f"test-stub-{uuid.uuid4().hex[:8]}"
    made = Stub(stack, {"ENGINE": "podman", "STACK": stack, "OWNER": OWNER}, tmp_path)
    made.environment |= {
        "STUB": str(tmp_path),
        "LOCKS": str(tmp_path / "locks"),
        "STUB_HOST_KEY": made.public("host-n1"),
        "PATH": f"{tools}:{os.environ['PATH']}",
    }
    return made


def run_engine(*arguments: str) -> str:
    """Run a command of the real engine."""
    done = subprocess.run([REAL_ENGINE, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{REAL_ENGINE} {' '.join(arguments)}: {done.stderr.strip()}"
    return done.stdout.strip()


def require_engine() -> None:
    """Skip the test if this computer cannot run local machines, or if CNILAB_HOST_IMAGE permits no privileged ones."""
    if not HOST_IMAGE:
        pytest.skip("no image for machines: set CNILAB_HOST_IMAGE")
    for tool in (REAL_ENGINE, "nft", "ip", "unshare", "ssh", "ssh-keygen", "ssh-keyscan"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    if os.geteuid() != 0:
        pytest.skip("machines on lab networks need root")
    if subprocess.run([REAL_ENGINE, "image", "inspect", HOST_IMAGE], capture_output=True).returncode != 0:
        pytest.skip(f"the image {HOST_IMAGE} is not here")


def leftovers(stack: str) -> list[str]:
    """Everything on this computer that carries the stack's label or name."""
    label = f"label=cni-lab.stack={stack}"
    found = run_engine("ps", "--all", "--filter", label, "--format", "{{.Names}}").split()
    found += run_engine("volume", "ls", "--filter", label, "--format", "{{.Name}}").split()
    found += run_engine("network", "ls", "--filter", label, "--format", "{{.Name}}").split()
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    found += [line for line in tables.splitlines() if f"cni-lab-{stack}-" in line]
    return found + [route for subnet in "ab" for route in guard_routes(f"cni-lab-{stack}-{subnet}")]


def guard_routes(network: str) -> list[str]:
    """The ranges that a network's guard routes keep on this computer; they have the network's own metric."""
    metric = str(
        0x80000000
        | int(subprocess.run(["cksum"], input=f"{network}\n", capture_output=True, text=True).stdout.split()[0])
    )
    shown = subprocess.run(["ip", "-4", "route", "show", "type", "unreachable"], capture_output=True, text=True).stdout
    return [line.split()[1] for line in shown.splitlines() if line.split()[-1] == metric]


def ssh(lab: Scripts, command: str, node: str = "n1", address: str = "10.78.1.10", key: str = "") -> tuple[int, str]:
    """Run a command through sshd, with the host key that was pinned before the machine existed."""
    known = lab.folder / "known_hosts"
    known.write_text(f"{address} {lab.public(key or f'host-{node}')}\n")
    done = subprocess.run(
        ["ssh", "-i", str(lab.key("login")), "-o", f"UserKnownHostsFile={known}", "-o", "StrictHostKeyChecking=yes",
         "-o", "BatchMode=yes", "-o", "ConnectTimeout=5", "-o", "LogLevel=ERROR", f"ubuntu@{address}", command],
        capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def make(done: Any) -> str:
    assert done.status == 0, done.stderr
    return str(done.stdout)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Scripts]:
    """A stack of its own on the real engine. What a test leaves there is removed."""
    require_engine()
    stack = f"test-local-{uuid.uuid4().hex[:8]}"
    made = Scripts(stack, {"ENGINE": REAL_ENGINE, "STACK": stack, "OWNER": OWNER}, tmp_path)
    yield made
    swept = made.engine("delete")
    assert swept.status == 0, swept.stderr
    assert leftovers(stack) == []


# --- with the real pulumi ---------------------------------------------------------------------------------------------

PROGRAM = """
import json, os, pulumi
from pulumi_command import remote
from components.machines.local import Containers, ContainersArgs
from components.spec.models import Lab
from components.spec.modes import TUNNELS, links_for_shell
lab = Lab.model_validate(json.loads(os.environ["TEST_LAB"]))
for name, machine in Containers("m", ContainersArgs(lab, pulumi.get_stack())).machines.items():
    step = remote.Command(name, connection=machine.connection, create="hostname && sudo -n id -u",
                          triggers=[machine.id], opts=pulumi.ResourceOptions(deleted_with=machine.resource))
    pulumi.export(name, {"id": machine.id, "said": step.stdout})
"""


class Project:
    """A Pulumi project of its own with a local state. `up` returns the number of changes by kind."""

    def __init__(self, folder: Path, stack: str) -> None:
        self.folder, self.stack = folder, stack
        (folder / "components").symlink_to(ROOT / "components")
        (folder / "Pulumi.yaml").write_text("name: cni-lab\nruntime: {name: python, options: {virtualenv: ''}}\n")
        (folder / "__main__.py").write_text(PROGRAM)
        (folder / "state").mkdir()
        self.environment = os.environ | {
            "PULUMI_BACKEND_URL": f"file://{folder}/state",
            "PULUMI_CONFIG_PASSPHRASE": "test",
            "PULUMI_SKIP_UPDATE_CHECK": "1",
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "1",
        }
        self.call("stack", "init", stack)

    def call(self, *words: str) -> str:
        done = subprocess.run(
            ["pulumi", *words, "--non-interactive"], cwd=self.folder, env=self.environment, text=True,
            capture_output=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def up(self, lab: dict[str, Any]) -> dict[str, int]:
        self.environment["TEST_LAB"] = json.dumps(lab)
        self.call("up", "--yes", "--skip-preview")
        return dict(json.loads(self.call("stack", "history", "--json"))[0]["resourceChanges"])

    def outputs(self) -> dict[str, dict[str, str]]:
        return dict(json.loads(self.call("stack", "output", "--json")))


@pytest.fixture
def project(lab: Scripts, tmp_path_factory: pytest.TempPathFactory) -> Any:
    for tool in ("pulumi", "pulumi-resource-command", "pulumi-resource-tls"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not on the PATH")
    made = Project(tmp_path_factory.mktemp("project"), lab.stack)
    yield made
    made.call("destroy", "--yes", "--skip-preview")
    assert leftovers(lab.stack) == []


def small(*workers: int, **machines: Any) -> dict[str, Any]:
    nodes = [{"name": "cp", "role": "control-plane", "subnet": "a", "address": "10.78.1.10"}]
    nodes += [{"name": f"w{n}", "subnet": "b", "address": f"10.78.2.{n}"} for n in workers]
    return {
        "machines": {"provider": "local", "engine": REAL_ENGINE, "image": HOST_IMAGE, "runArgs": RUN_ARGS, **machines},
        "network": {"vpcCidr": "10.78.0.0/16", "subnets": {"a": "10.78.1.0/24", "b": "10.78.2.0/24"}},
        "nodes": nodes,
    }
