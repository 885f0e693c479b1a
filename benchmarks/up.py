"""Time of `up` and `destroy` with pulumi itself, as ratios: `python benchmarks/up.py [SECONDS]`.

The machines are sshds on this computer, each with its own key and log. The program makes a cluster on them as a lab
does, through every phase, but each script takes SECONDS (20).

1. `up` of 12 machines takes at most 1.3 times as long as that of 2.
2. Pulumi and SSH add at most 15 % to the longest chain of scripts.
3. Each node gets at most 4 connections, including the one to the first control plane that admits it.
4. `destroy` of steps and Kubernetes objects takes less than 5 s, and connects to no node and not to the API.

Needs on PATH: pulumi with its providers command, kubernetes, random and tls, and OpenSSH's sshd and ssh-keygen. Exit
code 1 if a bound is exceeded, 3 if something is missing. On a busy computer the second bound does not hold.
"""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from benchmarks.ratio import report  # noqa: E402
from cli.lifecycle.pulumi_cli import PARALLEL  # noqa: E402
from components.node.script import LIBRARY, USES  # noqa: E402
from components.spec import names  # noqa: E402

LIBRARIES = {LIBRARY, *(part for used in USES.values() for part in used)}
TOOLS = (
    "pulumi",
    "sshd",
    "ssh-keygen",
    *(f"pulumi-resource-{name}" for name in ("command", "kubernetes", "random", "tls")),
)
# A loopback address at which no other Kubernetes API is served.
API = ("127.77.0.1", 6443)

PROGRAM = """
import json
import os
from pathlib import Path

import pulumi
import pulumi_kubernetes as kubernetes
from pulumi_command import local, remote

from components.cluster.api import Api
from components.cluster.component import Cluster, ClusterArgs
from components.machines.machine import Machine
from components.node import script
from components.node.step import Step, StepArgs
from components.spec.models import Lab

script.SCRIPTS = Path(os.environ["BENCH_SCRIPTS"])
known = json.loads(os.environ["BENCH_MACHINES"])
lab = Lab.model_validate(json.loads(os.environ["BENCH_LAB"]))
key = pulumi.Output.secret(Path(os.environ["BENCH_KEY"]).read_text())
machines = {}
for node in lab.nodes:
    made = local.Command(node.name, create="echo " + node.name)
    connection = remote.ConnectionArgs(
        host="127.0.0.1", port=known[node.name]["port"], host_key=known[node.name]["hostKey"],
        user=os.environ["BENCH_USER"], private_key=key, dial_error_limit=60, per_dial_timeout=15,
    )
    machines[node.name] = Machine(node, made.stdout, made, connection, pulumi.Output.from_input("127.77.0.1"), True)

cluster = Cluster("cluster", ClusterArgs(lab, machines, "bench", "127.77.0.1:6443"))
first, init = machines[lab.nodes[0].name], cluster.api.ready


def step(machine, phase, after):
    args = StepArgs(machine, phase, [f"{phase}.sh"], after=after, deleted_with=init)
    return Step(f"{machine.name}-{phase}", args).done


calico = step(first, "calico", [init])
blocks = step(first, "blocks", [calico, *cluster.joined])
for machine in machines.values():
    step(machine, "files", [blocks])
# Objects that are rendered into files and need no API. A delete would remove their files.
files = kubernetes.Provider("files", render_yaml_to_directory=os.environ["BENCH_OBJECTS"])
for number in range(20):
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"object-{number}"}, "data": {"a": "b"}}
    Api(files, init).object(f"object-{number}", manifest, parent=files)
"""

SSHD = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/../key.pub
PidFile none
StrictModes no
PasswordAuthentication no
KbdInteractiveAuthentication no
LogLevel VERBOSE
SetEnv MACHINE={folder} WORK_SECONDS={seconds}
ForceCommand {here}/force-command.sh
"""


class Machines:
    """`count` sshds, and a Pulumi project that makes a cluster on them."""

    def __init__(self, folder: Path, count: int, seconds: float) -> None:
        self.folder, self.count, self.seconds = folder, count, seconds
        self.names = [f"n{index}" for index in range(count)]
        self._daemons: list[subprocess.Popen[bytes]] = []
        _key(folder / "key")
        known = {name: self._machine(name) for name in self.names}
        self._scripts(folder / "scripts")
        nodes = [
            {
                "name": name,
                "role": "worker" if index else "control-plane",
                "subnet": "workers" if index else "control",
                "address": f"10.0.{2 if index else 1}.{index + 10}",
            }
            for index, name in enumerate(self.names)
        ]
        (folder / "program").mkdir()
        for place in ("objects", "state"):
            (folder / place).mkdir()
        (folder / "program" / "__main__.py").write_text(PROGRAM)
        (folder / "program" / "Pulumi.yaml").write_text("name: cni-lab\nruntime: python\n")
        self._environment = os.environ | {
            "BENCH_SCRIPTS": str(folder / "scripts"),
            "BENCH_MACHINES": json.dumps(known),
            "BENCH_LAB": json.dumps({"machines": {"provider": "local"}, "nodes": nodes}),
            "BENCH_KEY": str(folder / "key"),
            "BENCH_USER": getpass.getuser(),
            "BENCH_OBJECTS": str(folder / "objects"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "PULUMI_BACKEND_URL": (folder / "state").as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "benchmark",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            # As in `./lab up`.
            "PULUMI_DIY_BACKEND_ZSTD": "true",
            "PULUMI_PARALLEL": PARALLEL,
        }
        self.pulumi("stack", "init", "bench")

    def pulumi(self, *words: str) -> float:
        """The seconds that a command takes. Exits if it fails."""
        start = time.monotonic()
        command = ["pulumi", *words, "--non-interactive", "--stack", "bench"]
        if words[0] == "stack":
            command = ["pulumi", *words, "--non-interactive"]
        # As `./lab destroy` has it.
        own = {"PULUMI_SKIP_CHECKPOINTS": "true"} if words[0] == "destroy" else {}
        done = subprocess.run(
            command, cwd=self.folder / "program", env=self._environment | own, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        return time.monotonic() - start

    def chain(self) -> float:
        """Seconds that the scripts on the longest chain of steps take, read from the state."""
        text = subprocess.run(
            ["pulumi", "stack", "export", "--stack", "bench"],
            cwd=self.folder / "program", env=self._environment, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        resources = {r["urn"]: r for r in json.loads(text)["deployment"]["resources"]}

        def scripts_of(step: dict[str, Any]) -> int:
            """How many run when the step is made."""
            if step.get("type") != names.STEP or step["inputs"].get("forChanges"):
                return 0
            return len(step["inputs"]["scripts"].keys() - LIBRARIES)

        @cache
        def scripts_until(urn: str) -> int:
            resource = resources[urn]
            own = scripts_of(resources.get(resource.get("parent", ""), {}))
            return own + max(map(scripts_until, resource.get("dependencies", [])), default=0)

        return max(map(scripts_until, resources)) * self.seconds

    def connections(self) -> dict[str, int]:
        """The number of SSH connections to each machine so far."""
        return {name: (self.folder / name / "log").read_text().count("Accepted publickey") for name in self.names}

    def close(self) -> None:
        for daemon in self._daemons:
            daemon.terminate()
            daemon.wait()

    def _machine(self, name: str) -> dict[str, object]:
        """Start its sshd; returns the port and the host key."""
        folder = self.folder / name
        folder.mkdir()
        _key(folder / "host")
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        text = SSHD.format(port=port, folder=folder, here=HERE, seconds=self.seconds)
        (folder / "config").write_text(text)
        sshd = shutil.which("sshd", path=_path())
        assert sshd is not None
        self._daemons.append(subprocess.Popen([sshd, "-D", "-f", folder / "config", "-E", folder / "log"]))
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except ConnectionRefusedError:
                time.sleep(0.1)
        else:
            sys.exit(f"sshd does not start: {(folder / 'log').read_text()}")
        kind, key, *_ = (folder / "host.pub").read_text().split()
        return {"port": port, "hostKey": f"{kind} {key}"}

    @staticmethod
    def _scripts(folder: Path) -> None:
        """Copy components/node, with each script except the libraries replaced by one that takes a fixed time."""
        folder.mkdir()
        for script in (ROOT / "components" / "node").glob("*.sh"):
            shutil.copy(script if script.name in LIBRARIES else HERE / "work.sh", folder / script.name)


class ApiListener:
    """Counts the connections to the address in the kubeconfig."""

    def __init__(self) -> None:
        self.count = 0
        self._server = socket.create_server(API)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._server.accept()
            self.count += 1
            connection.close()


def _path() -> str:
    """PATH with the folders in which sshd often is."""
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"


def _key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)


def measure(count: int, seconds: float, api: ApiListener) -> tuple[float, bool]:
    """The seconds of an `up` of `count` machines, and whether a bound was exceeded."""
    with tempfile.TemporaryDirectory(prefix="cni-lab-bench-") as folder:
        machines = Machines(Path(folder), count, seconds)
        try:
            up = machines.pulumi("up", "--yes", "--skip-preview")
            chain = machines.chain()
            print(f"up of {count} machines: {up:.1f} s; longest chain of scripts: {chain:.1f} s")
            broken = report("engine and SSH over the chain", (up - chain) / chain, 0.15)
            held = machines.connections()
            # Each admission is a connection to the first control plane, and counts for the node that is admitted.
            own = held | {machines.names[0]: held[machines.names[0]] - (count - 1)}
            most = max(own[name] + (name != machines.names[0]) for name in machines.names)
            broken |= report("connections for each node / 4", most / 4, 1.0)

            objects, before = set((Path(folder) / "objects").rglob("*.yaml")), api.count
            destroy = machines.pulumi("destroy", "--yes", "--skip-preview")
            print(f"destroy of {count} machines' steps and {len(objects)} objects: {destroy:.1f} s")
            broken |= report("destroy / 5 s", destroy / 5, 1.0)
            dialled = sum(machines.connections().values()) - sum(held.values())
            broken |= report("connections to nodes at destroy", dialled, 0)
            broken |= report("connections to the API at destroy", api.count - before, 0)
            asked = len(objects - set((Path(folder) / "objects").rglob("*.yaml")))
            broken |= report("objects deleted one by one", asked, 0)
            return up, broken
        finally:
            machines.close()


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 20.0
    missing = [tool for tool in TOOLS if shutil.which(tool, path=_path()) is None]
    if missing:
        print(f"not on PATH: {', '.join(missing)}", file=sys.stderr)
        return 3
    try:
        api = ApiListener()
    except OSError as error:
        print(f"{API[0]}:{API[1]} cannot be listened on: {error.strerror}", file=sys.stderr)
        return 3
    few, broken = measure(2, seconds, api)
    many, more = measure(12, seconds, api)
    broken |= more | report("up of 12 machines / 2", many / few, 1.3)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
