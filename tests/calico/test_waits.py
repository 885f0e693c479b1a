"""What the waits of calico.sh and blocks.sh say, with a kubectl that answers as in a lab that does not start."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.steps import run_step

NODE = (
    "node\x1fcontrol1\x1fDiskPressure\x1f2026-11-25T20:00:00Z\x1fKubeletHasDiskPressure: kubelet has disk pressure\x1e"
)
POD = "pod\x1fcalico-node-x\x1fcontrol1\x1f; container calico-node: {}\x1e"
PROBE = "event\x1f2026-11-25T21:00:00Z\x1fPod\x1fcalico-node-x\x1fUnhealthy\x1fBIRD is not ready\x1e"
EVICTED = "failed\x1fEvicted\x1fThe node was low on resource: ephemeral-storage.\x1e"
# Answers by what the command line contains; the first that fits. The others of a kind are empty.
KUBECTL = """#!/bin/bash
here=$(dirname "$0")
case "$*" in
  *"get --raw /readyz"*) echo ok ;;
  *"get customresourcedefinition "*) echo there ;;
  *daemonset/calico-node*--ignore-not-found*) ;;
  *"get installation default"* | *"observedGeneration"*) echo 3 ;;
  *'@.type=="Available"'*) echo False ;;
  *'@.status=="True"'*) echo 'Degraded: Pod calico-system/calico-node-x is not ready' ;;
  *"rollout status"*) echo 'Waiting for 1 of 1 replicas'; exit 1 ;;
  *apply*) echo "customresourcedefinition.apiextensions.k8s.io/ippools.crd.projectcalico.org serverside-applied" ;;
  *"get customresourcedefinitions"*) cat "$here/served" ;;
  *"get nodes"*) cat "$here/nodes" ;;
  *"get events"*) cat "$here/events" ;;
  *"get pods"*) cat "$here/pods" ;;
  *) echo "unexpected: $*" >&2; exit 9 ;;
esac
"""


@pytest.fixture
def kubectl(tmp_path: Path) -> Path:
    """The folder of the stand-in, with its lists."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "kubectl").write_text(KUBECTL)
    (folder / "kubectl").chmod(0o755)
    lists = {
        "nodes": "",
        "events": PROBE,
        "pods": POD.format("it runs, and is not ready"),
        "served": "ippools.crd.projectcalico.org\n",
    }
    for name, text in lists.items():
        (folder / name).write_text(text)
    return folder


def step(kubectl: Path, phase: str, **variables: str) -> subprocess.CompletedProcess[str]:
    env = {
        "PATH": f"{kubectl}:{os.environ['PATH']}",
        "CNI_LAB_KUBECONFIG": str(kubectl / "none"),
        "QUIET_SECONDS": "1",
        "REPEAT_SECONDS": "1",
        "PAUSE_IMAGE": "registry.k8s.io/pause:3.10",
    }
    return run_step(kubectl.parent, phase, variables, env=env)


def blocks(kubectl: Path, seconds: str) -> subprocess.CompletedProcess[str]:
    return step(kubectl, "blocks", INSTALL="operator", IPAM="Calico", NODES="control1", TIMEOUT_SECONDS=seconds)


def test_blocks_says_why_calico_does_not_serve_the_nodes(kubectl: Path) -> None:
    done = blocks(kubectl, "3")
    assert done.returncode == 1 and done.stdout == ""
    said = [line for line in done.stderr.splitlines() if "waiting since" in line]
    reason = "pod calico-node-x on control1: container calico-node: it runs, and is not ready; Unhealthy: BIRD is not"
    assert len(said) == 1, "the same reason is said once"
    assert "for TigeraStatus calico to be Available: " in said[0] and reason in said[0]
    assert "Degraded: Pod calico-system/calico-node-x is not ready" in said[0]
    end = done.stderr.partition("TigeraStatus calico to be Available: not within ")[2]
    assert reason in end and "Calico does not serve every node, see above." in end


def test_blocks_asks_again_when_a_busy_api_does_not_answer_once(kubectl: Path) -> None:
    """A lab on a computer with a load of 100 ended with `net/http: TLS handshake timeout`."""
    script = (kubectl / "kubectl").read_text()
    once = '[[ -e $here/busy ]] || { : >"$here/busy"; echo "TLS handshake timeout" >&2; exit 1; }; echo there'
    there = '*"get customresourcedefinition "*) '
    assert there + "echo there" in script
    (kubectl / "kubectl").write_text(script.replace(there + "echo there", there + once))
    done = blocks(kubectl, "1")
    assert "TLS handshake timeout" in done.stderr and "try 1 of 5 failed with status 1: kubectl" in done.stderr
    assert "TigeraStatus calico to be Available: not within" in done.stderr, "it went on to the first wait"


def test_blocks_ends_early_when_kubelet_evicts_its_pods(kubectl: Path) -> None:
    """On five hosts with full disks the wait went on for nine minutes and printed nothing."""
    (kubectl / "nodes").write_text(NODE)
    (kubectl / "pods").write_text(POD.format("ContainerCreating") + EVICTED * 2000)
    begin = time.monotonic()
    done = blocks(kubectl, "900")
    assert done.returncode == 1 and time.monotonic() - begin < 60
    assert "TigeraStatus calico to be Available: waiting longer does not help." in done.stderr
    assert "node control1 has DiskPressure since 2026-11-25T20:00:00Z: KubeletHasDiskPressure" in done.stderr
    assert "4000 pods ended as Evicted, the last one: The node was low on resource" in done.stderr, "of two namespaces"


def install(kubectl: Path) -> subprocess.CompletedProcess[str]:
    """Calico by its operator."""
    sources = {}
    for name in ("crds.yaml", "operator.yaml"):
        (kubectl / name).write_text(name)
        sources[name] = subprocess.run(["sha256sum", kubectl / name], capture_output=True, text=True).stdout[:64]
    variables = {
        "INSTALL": "operator",
        "DIRECTORY": str(kubectl / "manifests"),
        "BASE": f"file://{kubectl}",
        "SOURCES": "".join(f"{sha256} {name}\n" for name, sha256 in sources.items()),
    }
    return step(kubectl, "calico", **variables)


def test_calico_ends_early_when_the_operator_crashes(kubectl: Path) -> None:
    (kubectl / "events").write_text("")
    (kubectl / "pods").write_text(POD.format("CrashLoopBackOff: back-off 5m0s; restarts: 11"))
    begin = time.monotonic()
    done = install(kubectl)
    assert done.returncode == 1 and time.monotonic() - begin < 60
    assert "Calico's operator to run: waiting longer does not help." in done.stderr
    assert "CrashLoopBackOff: back-off 5m0s; restarts: 11" in done.stderr
    assert "Calico's operator does not start." in done.stderr


def test_calico_waits_until_the_api_serves_what_was_applied(kubectl: Path) -> None:
    """Another CRD with a longer name is not this one, and one that comes later is waited for."""
    (kubectl / "served").write_text("globalippools.crd.projectcalico.org\nippools.crd.projectcalico.org.example\n")
    script = (kubectl / "kubectl").read_text()
    later = 'cat "$here/served"; echo ippools.crd.projectcalico.org >"$here/served"'
    (kubectl / "kubectl").write_text(script.replace('cat "$here/served"', later + '; echo asked >>"$here/asked"'))
    (kubectl / "pods").write_text(POD.format("CrashLoopBackOff: back-off 5m0s; restarts: 11"))
    done = install(kubectl)
    assert "Calico's operator to run: waiting longer does not help." in done.stderr, "that comes after the CRDs"
    assert (kubectl / "asked").read_text() == "asked\nasked\n"
