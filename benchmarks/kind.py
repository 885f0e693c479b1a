"""`up` beside kind with Calico and Multus, both given their images: `python benchmarks/kind.py [STACK [RUNS]]`.

STACK (default local): a stack on this computer whose machines find their images without a download, as with a baked
image. CNILAB_KIND_IMAGE: a node image of kind of the same version of Kubernetes, to which all images of the lab were
added as `kind build node-image` adds its own. RUNS (default 3): how often each side runs. They alternate, and the
median of each counts.

kind gets a cluster of as many nodes, then the objects of the lab's own plan: Calico's operator and Installation,
Multus, its networks, and the workloads. It does not get what only the lab has: delegates with addresses from files on
the nodes (kind's come from Calico's IPAM), quicker probes of Calico's pods, and checks. Both sides end when every node
is Ready, Calico's status is Available, and every workload is rolled out. `up` has its doctor before that, and its
verification after it if the stack asks for one.

Ratio: `up` takes at most as long as kind. Needs root, the engine, and on PATH pulumi, kind and kubectl. Where kind's
provider is not docker, KIND_EXPERIMENTAL_PROVIDER names it. Exit code 1 if the bound is exceeded, 3 if something is
missing. It means something on an idle computer only. No lab of the stack may be up.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.ratio import report  # noqa: E402
from cli.lifecycle.screen import recall  # noqa: E402
from components.spec import versions  # noqa: E402
from components.spec.load import load_stack_file  # noqa: E402
from components.spec.models import Lab  # noqa: E402

CLUSTER = "cni-lab-benchmark"
TIMEOUT_SECONDS = 900
# Of the objects of the plan, those that only the lab has: its probes, and what it knows after `up`.
LEFT_OUT = {"MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding", "IPReservation"}
WORKLOADS = {"Deployment", "DaemonSet", "Pod"}

Manifest = dict[str, Any]


class Stages:
    """Seconds since the start, by what has been reached."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self.reached: list[tuple[str, float]] = []

    def mark(self, stage: str) -> None:
        self.reached.append((stage, time.monotonic() - self._start))

    @property
    def seconds(self) -> float:
        return self.reached[-1][1]

    def __str__(self) -> str:
        return ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in self.reached)


def run(*words: str | Path, env: dict[str, str] | None = None, given: str | None = None) -> str:
    """The output of a command. Exits if it fails or takes too long."""
    try:
        done = subprocess.run(
            words, cwd=ROOT, env=env, input=given, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        sys.exit(f"{' '.join(map(str, words))}: no end after {TIMEOUT_SECONDS} s")
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))}: {done.stderr or done.stdout}")
    return done.stdout


class Kind:
    """A cluster of kind with what the lab's plan has. `folder`: for its files, and the plan."""

    def __init__(self, lab: Lab, stack: str, image: str, folder: Path) -> None:
        self._lab, self._image, self._folder = lab, image, folder
        self._environment = os.environ | {"KUBECONFIG": str(folder / "kubeconfig")}
        (folder / "cluster.yaml").write_text(yaml.safe_dump(self._cluster()))
        run(sys.executable, "-m", "cli", "plan", stack, "--out", folder / "plan")
        self._objects = self._objects_of_plan()
        base = f"{lab.mirrors.calico_manifests}/v{lab.calico.version}/manifests"
        self._calico = [self._download(f"{base}/{name}") for name in versions.calico_manifests("operator", "Enabled")]

    def create(self) -> Stages:
        stages = Stages()
        self._create(stages)
        definitions, operator = self._calico
        self._apply("--filename", definitions)
        self._apply("--filename", "-", given=self._objects["definitions"])
        self._kubectl("wait", "--for=condition=Established", "--timeout=120s", "customresourcedefinitions", "--all")
        self._apply("--filename", operator, "--filename", "-", given=self._objects["Calico"])
        stages.mark("Calico applied")
        self._kubectl("wait", "--for=condition=Ready", "--timeout=600s", "nodes", "--all")
        stages.mark("nodes Ready")
        # Not sooner: Multus ends where it finds no network, and Kubernetes starts it again later and later.
        self._apply("--filename", "-", given=self._objects["Multus"])
        self._rolled_out("kube-system", "daemonset/kube-multus-ds")
        stages.mark("Multus ready")
        self._apply("--filename", "-", given=self._objects["workloads"])
        for workload in yaml.safe_load_all(self._objects["workloads"]):
            self._ready(workload)
        stages.mark("workloads ready")
        self._rolled_out("kube-system", "deployment/coredns")
        for part in ("calico", "ippools", "apiserver"):
            self._kubectl("wait", "--for=create", "--timeout=300s", f"tigerastatus/{part}")
            self._kubectl("wait", "--for=condition=Available", "--timeout=600s", f"tigerastatus/{part}")
        stages.mark("Calico Available")
        return stages

    def delete(self) -> None:
        run("kind", "delete", "cluster", "--name", CLUSTER, env=self._environment)

    def _create(self, stages: Stages) -> None:
        """`kind create cluster`. What it says on a line of its own is a stage."""
        command = ["kind", "create", "cluster", "--name", CLUSTER, "--image", self._image]
        process = subprocess.Popen(
            [*command, "--config", self._folder / "cluster.yaml"],
            env=self._environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith(" ✓ "):
                stages.mark(" ".join(word for word in line.split() if word.isascii()))
        if process.wait():
            sys.exit(f"{' '.join(command)}: {''.join(said)}")

    def _cluster(self) -> Manifest:
        workers = len(self._lab.nodes) - len(self._lab.control_planes)
        roles = ["control-plane"] * len(self._lab.control_planes) + ["worker"] * workers
        kubelet = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            # As the lab has it on a computer with cgroup v1.
            "failCgroupV1": False,
        }
        return {
            "kind": "Cluster",
            "apiVersion": "kind.x-k8s.io/v1alpha4",
            "networking": {
                "disableDefaultCNI": True,
                "podSubnet": str(self._lab.kubernetes.pod_cidr),
                "serviceSubnet": str(self._lab.kubernetes.service_cidr),
            },
            "kubeadmConfigPatches": [yaml.safe_dump(kubelet)],
            "nodes": [{"role": role} for role in roles],
        }

    def _objects_of_plan(self) -> dict[str, str]:
        """The plan's objects as YAML documents, by what they are for."""
        found: dict[str, list[Manifest]] = {"definitions": [], "Calico": [], "Multus": [], "workloads": []}
        for path in sorted((self._folder / "plan" / "kubernetes").glob("*.yaml")):
            manifest = yaml.safe_load(path.read_text())
            group = manifest["apiVersion"].split("/")[0]
            if manifest["kind"] in LEFT_OUT or group == "projectcalico.org":
                continue
            if manifest["kind"] == "CustomResourceDefinition":
                use = "definitions"
            elif group == "operator.tigera.io":
                use = "Calico"
            elif manifest["kind"] in WORKLOADS and manifest["metadata"]["namespace"] != "kube-system":
                use = "workloads"
            else:
                use = "Multus"
            found[use].append(self._for_kind(manifest))
        return {use: yaml.safe_dump_all(manifests) for use, manifests in found.items()}

    def _for_kind(self, manifest: Manifest) -> Manifest:
        name = manifest["metadata"]["name"]
        if manifest["kind"] == "NetworkAttachmentDefinition" and "spec" not in manifest:
            # On a lab's nodes, a file holds the configuration of this network.
            plugin = {
                "cniVersion": "0.3.1",
                "name": name,
                "type": "calico",
                "datastore_type": "kubernetes",
                "ipam": {"type": "calico-ipam"},
                "kubernetes": {"kubeconfig": "/etc/cni/net.d/calico-kubeconfig"},
                "policy": {"type": "k8s"},
            }
            return manifest | {"spec": {"config": json.dumps(plugin)}}
        if manifest["kind"] == "DaemonSet" and name == "kube-multus-ds":
            # Multus writes its configuration itself, as its own manifest has it.
            [container] = manifest["spec"]["template"]["spec"]["containers"]
            container["args"] = [
                "--multus-conf-file=auto", "--multus-autoconfig-dir=/host/etc/cni/net.d",
                "--cni-conf-dir=/host/etc/cni/net.d",
            ]  # fmt: skip
        return manifest

    def _download(self, url: str) -> Path:
        path = self._folder / url.rsplit("/", 1)[1]
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                path.write_bytes(answer.read())
        except OSError as error:
            sys.exit(f"mirrors.calicoManifests: {url} cannot be read here: {error}")
        return path

    def _kubectl(self, *words: str | Path, given: str | None = None) -> None:
        run("kubectl", *words, env=self._environment, given=given)

    def _apply(self, *words: str | Path, given: str | None = None) -> None:
        self._kubectl("apply", "--server-side", "--force-conflicts", *words, given=given)

    def _ready(self, workload: Manifest) -> None:
        kind, namespace = workload["kind"].lower(), workload["metadata"]["namespace"]
        name = f"{kind}/{workload['metadata']['name']}"
        if kind == "pod":
            self._kubectl("--namespace", namespace, "wait", "--for=condition=Ready", "--timeout=600s", name)
        else:
            self._rolled_out(namespace, name)

    def _rolled_out(self, namespace: str, name: str) -> None:
        self._kubectl("--namespace", namespace, "rollout", "status", "--timeout=600s", name)


class Up:
    """The lab itself."""

    def __init__(self, stack: str) -> None:
        self._stack = stack

    def create(self) -> Stages:
        stages = Stages()
        run(sys.executable, "-m", "cli", "up", self._stack, "--yes", "--non-interactive")
        stages.mark("the end of up")
        # Its phases, as `up` keeps them. They begin at the engine's first event, after the doctor.
        phases = [it.phases for it in recall(ROOT / ".lab", self._stack) if it.command == "up"][-1].items()
        print("  phases:", ", ".join(f"{phase} {begin:.0f}-{end:.0f}" for phase, (begin, end) in phases))
        return stages

    def delete(self) -> None:
        run(sys.executable, "-m", "cli", "destroy", self._stack, "--yes", "--non-interactive")


def measure(side: Kind | Up) -> float:
    """The seconds until one side is up. It is deleted again, also when it fails or is interrupted."""
    try:
        stages = side.create()
    finally:
        side.delete()
    print(f"{type(side).__name__.lower()}: {stages.seconds:.1f} s ({stages})", flush=True)
    return stages.seconds


def main() -> int:
    stack = sys.argv[1] if len(sys.argv) > 1 else "local"
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    missing = [tool for tool in ("pulumi", "kind", "kubectl") if shutil.which(tool) is None]
    if missing:
        print(f"not on PATH: {', '.join(missing)}", file=sys.stderr)
        return 3
    image = os.environ.get("CNILAB_KIND_IMAGE")
    if not image:
        print("CNILAB_KIND_IMAGE names no node image of kind", file=sys.stderr)
        return 3
    lab = load_stack_file(ROOT / "stacks" / f"Pulumi.{stack}.yaml").lab
    if lab.machines.provider != "local" or lab.calico.install != "operator" or lab.multus is None:
        sys.exit(f"stack {stack}: want a lab on this computer, with Calico by its operator, and with Multus")
    with tempfile.TemporaryDirectory(prefix="cni-lab-bench-") as folder:
        sides = Kind(lab, stack, image, Path(folder)), Up(stack)
        kind, up = zip(*([measure(side) for side in sides] for _ in range(runs)), strict=True)
    return int(report("up / kind with Calico and Multus", statistics.median(up) / statistics.median(kind), 1.0))


if __name__ == "__main__":
    sys.exit(main())
