"""Time and memory of `plan`, as ratios: `python benchmarks/plan.py [STACK]`.

1. The plan of a shipped stack takes at most 1.5 times as long as a program takes to import the SDK modules that it
   uses, with all that such an import loads. The plan itself loads the modules of large packages one by one.
2. The plan of 100 nodes and 20 networks takes at most 6 times as long as that of 10 nodes, 9 times without the import,
   and less than 600 MB.

Each figure is the lowest CPU time of several new processes, because wall time depends on what else the computer does.
The processes whose times are compared take turns, because CPU time depends on it too, if less. They have bytecode of
every module, as they have from the second command of a user on.
Exit code 1 if a bound is exceeded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.ratio import report  # noqa: E402

RUNS = 5

MEASURED = """
import importlib, resource
{body}
usage = resource.getrusage(resource.RUSAGE_SELF)
print("@", usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)
"""

# What `./lab plan` does after it has read the command line.
PLAN = """
import io, contextlib
from engine.garbage import no_collection
with no_collection(), contextlib.redirect_stdout(io.StringIO()):
    from cli.plan.command import plan
    assert plan({stack!r}, as_json=False, out=None) == 0
"""

# Prints the SDK modules that a plan loads.
MODULES = """
from cli.plan.command import plan
import io, contextlib, sys
with contextlib.redirect_stdout(io.StringIO()):
    plan({stack!r}, as_json=False, out=None)
sdk = ("pulumi", "grpc", "google.protobuf")
print(*(name for name in sys.modules if name.startswith(sdk) and sys.modules[name]), sep="\\n")
"""

# Runs the program and makes every drawing, without the page.
SCALE = """
import json
from pathlib import Path
from engine.run import run_program
from engine.graph import Graph
from engine.mermaid import mermaid
from engine.svg import svg
program, config = Path("__main__.py").resolve(), json.loads({config!r})
deployment = run_program(program, stack="scale", config=config, timeout_seconds=600)
graph = Graph.of(deployment.to_json()["resources"])
list(graph.tree()), graph.longest_chain(), svg(graph, "scale"), mermaid(graph)
print(len(graph.nodes))
"""


def run(body: str) -> tuple[str, float, float]:
    """What a new process prints, its CPU time in seconds, and its peak memory in MB."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED.format(body=body)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(done.stderr)
    text, _, figures = done.stdout.rpartition("@")
    seconds, memory = map(float, figures.split())
    return text, seconds, memory


def least(*bodies: str) -> list[float]:
    """The lowest CPU time of each, in seconds. They take turns."""
    rounds = [[run(body)[1] for body in bodies] for _ in range(RUNS)]
    return [min(times) for times in zip(*rounds, strict=True)]


NETWORKS = 20


def scale(nodes: int) -> str:
    """The configuration of a lab of `nodes` nodes, one of them a control plane, two delegates and NETWORKS bridges."""
    names = ["control", *(f"worker-{i:03d}" for i in range(1, nodes))]
    lab = {
        "machines": {"provider": "aws", "operatorCidrs": ["203.0.113.7/32"]},
        "nodes": [
            {
                "name": name,
                "role": "worker" if i else "control-plane",
                "subnet": "workers" if i else "control",
                "address": f"10.0.2.{i + 100}" if i else "10.0.1.100",
            }
            for i, name in enumerate(names)
        ],
        "multus": {
            "clusterNetwork": "net-calico",
            "delegates": [
                {"name": "net-calico", "rangeStart": 150, "rangeEnd": 250},
                {"name": "default-calico", "rangeStart": 50, "rangeEnd": 100, "routes": ["10.96.0.0/12"]},
            ],
        },
        "networks": [
            {"name": f"net-{i}", "type": "bridge", "bridge": f"br{i}", "subnet": f"10.40.{i}.0/24"}
            for i in range(NETWORKS)
        ],
    }
    return json.dumps({"aws:region": "us-west-2", "cni-lab:lab": json.dumps(lab)})


def main() -> int:
    stack = sys.argv[1] if len(sys.argv) > 1 else "cfos-egress"
    names = run(MODULES.format(stack=stack))[0].split()
    imports = f"names = {names!r}\nfor name in names: importlib.import_module(name)"
    usual, own, whole = least(imports, f"import engine.run\n{imports}", PLAN.format(stack=stack))
    print(
        f"plan {stack}: {whole:.2f} s CPU; import of its {len(names)} SDK modules: {usual:.2f} s, one by one {own:.2f}"
    )
    broken = report("plan / import", whole / usual, 1.5)

    # The import does not grow with the lab, so it is also compared without.
    results = {nodes: min(run(SCALE.format(config=scale(nodes))) for _ in range(2)) for nodes in (10, 100)}
    for nodes, (count, seconds, memory) in results.items():
        print(f"{nodes} nodes, {count.split()[0]} resources: {seconds:.2f} s CPU, {memory:.0f} MB")
    broken |= report("100 nodes / 10 nodes", results[100][1] / results[10][1], 6.0)
    grown = (results[100][1] - own) / (results[10][1] - own)
    broken |= report("100 nodes / 10 nodes, without the import", grown, 9.0)
    broken |= report("peak memory of 100 nodes / 600 MB", results[100][2] / 600, 1.0)
    return int(broken)


if __name__ == "__main__":
    sys.exit(main())
