"""The benchmark beside kind: what kind gets, in which order, and that it is deleted again. kind and kubectl are
stand-ins that write down their arguments and what they are given."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml

from benchmarks import kind
from components.spec.load import load_stack_file

KIND = """#!/bin/sh
echo "kind $*" >>"$RECORD"
[ "$1" = create ] || exit 0
printf ' ✓ Preparing nodes 📦 📦 \\n • Starting control-plane  ...\\n ✓ Starting control-plane 🕹️\\n' >&2
[ ! -e "$RECORD.fail" ]
"""
KUBECTL = """#!/bin/sh
case "$*" in *'--filename -'*) name=given-$(ls "$RECORD".given-* 2>/dev/null | wc -l); cat >"$RECORD.$name" ;; esac
echo "kubectl $* $name" >>"$RECORD"
"""


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in {"kind": KIND, "kubectl": KUBECTL}.items():
        tool = tmp_path / "bin" / name
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(text)
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    return tmp_path / "record"


@pytest.fixture
def side(tmp_path: Path, record: Path) -> kind.Kind:
    lab = load_stack_file(kind.ROOT / "stacks" / "Pulumi.local.yaml").lab
    manifests = tmp_path / "calico" / f"v{lab.calico.version}" / "manifests"
    manifests.mkdir(parents=True)
    for name in ("v1_crd_projectcalico_org.yaml", "tigera-operator.yaml"):
        (manifests / name).write_text("")
    mirrors = lab.mirrors.model_copy(update={"calico_manifests": (tmp_path / "calico").as_uri()})
    (tmp_path / "folder").mkdir()
    return kind.Kind(lab.model_copy(update={"mirrors": mirrors}), "local", "node:1", tmp_path / "folder")


def test_kind_gets_what_the_plan_has(side: kind.Kind, record: Path, tmp_path: Path) -> None:
    stages = side.create()
    assert [stage for stage, _ in stages.reached] == [
        "Preparing nodes", "Starting control-plane", "Calico applied", "nodes Ready", "Multus ready",
        "workloads ready", "Calico Available",
    ]  # fmt: skip
    said = record.read_text().splitlines()
    assert said[0].startswith("kind create cluster")
    given = [list(yaml.safe_load_all(path.read_text())) for path in sorted(tmp_path.glob("record.given-*"))]
    kinds = [sorted({manifest["kind"] for manifest in manifests}) for manifests in given]
    assert kinds == [
        ["CustomResourceDefinition"],
        ["APIServer", "Installation"],
        [
            "ClusterRole",
            "ClusterRoleBinding",
            "ConfigMap",
            "DaemonSet",
            "NetworkAttachmentDefinition",
            "ServiceAccount",
        ],
        ["DaemonSet", "Deployment"],
    ]
    networks = {m["metadata"]["name"]: m for m in given[2] if m["kind"] == "NetworkAttachmentDefinition"}
    assert json.loads(networks["net-calico"]["spec"]["config"])["ipam"] == {"type": "calico-ipam"}
    assert json.loads(networks["cfosdefaultcni5"]["spec"]["config"])["type"] == "bridge"
    ready, multus = (next(i for i, line in enumerate(said) if part in line) for part in ("nodes --all", "given-2"))
    assert ready < multus
    rolled_out = {line.split()[-1] for line in said if "rollout" in line}
    assert {f"deployment/{name}" for name in ("normal", "normal-default-calico", "normal-egress")} < rolled_out
    assert "daemonset/firewall" in rolled_out
    cluster = yaml.safe_load((tmp_path / "folder" / "cluster.yaml").read_text())
    assert [node["role"] for node in cluster["nodes"]] == ["control-plane", "worker", "worker"]


def test_a_cluster_that_failed_is_deleted(side: kind.Kind, record: Path) -> None:
    Path(f"{record}.fail").touch()
    with pytest.raises(SystemExit, match="Starting control-plane"):
        kind.measure(side)
    assert record.read_text().splitlines()[-1] == "kind delete cluster --name cni-lab-benchmark"


@pytest.mark.parametrize(
    ("hidden", "image", "said"), [(True, "node:1", "not on PATH: "), (False, "", "CNILAB_KIND_IMAGE names no")]
)
def test_without_kind_it_is_skipped(
    record: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    hidden: bool,
    image: str,
    said: str,
) -> None:
    pulumi = record.parent / "bin" / "pulumi"
    pulumi.write_text("#!/bin/sh\n")
    pulumi.chmod(0o755)
    if hidden:
        monkeypatch.setenv("PATH", str(record.parent))
    monkeypatch.setenv("CNILAB_KIND_IMAGE", image)
    monkeypatch.setattr("sys.argv", ["kind.py"])
    assert kind.main() == 3
    assert said in capsys.readouterr().err
