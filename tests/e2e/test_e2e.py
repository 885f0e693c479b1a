"""Kubernetes' own network tests against a lab that is up: an account of its pod network that is not ours.

CNILAB_E2E names a folder with `e2e.test` of the lab's version of Kubernetes (`go test -c ./test/e2e` in
kubernetes/kubernetes). CNILAB_E2E_STACK: the stack, `local` by default. CNILAB_E2E_FOCUS: other tests, as a regular
expression. The nodes pull the images that `e2e.test --list-images` names from registry.k8s.io/e2e-test-images, or from
the lab's mirror of it.
"""

from __future__ import annotations

import os
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STACK = os.environ.get("CNILAB_E2E_STACK", "local")
CONFORMANCE = r"\[sig-network\].*\[Conformance\]"
GRANULAR = r"\[sig-network\] Networking Granular Checks: (Pods|Services)"
FOCUS = os.environ.get("CNILAB_E2E_FOCUS", f"{CONFORMANCE}|{GRANULAR}")
# What disturbs other tests, wants a cloud's load balancer or SCTP, or takes longer than the others together.
SKIP = r"\[Serial\]|\[Disruptive\]|\[Slow\]|\[Feature:|LoadBalancer|SCTP"
TIMEOUT_SECONDS = 3000

pytestmark = [pytest.mark.timeout(TIMEOUT_SECONDS + 120), pytest.mark.xdist_group("hosts")]


def outcomes(report: Path) -> dict[str, set[str]]:
    """The names of the tests by their outcome: passed, failed, and what else ginkgo says of those that ran."""
    found: dict[str, set[str]] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name, status = case.get("name", ""), case.get("status", "")
        # ginkgo also lists its own set-up, and every test that the focus left out.
        if name.startswith("[It]") and status != "skipped":
            found.setdefault(status, set()).add(name)
    return found


def test_the_network_tests_of_kubernetes_pass(tmp_path: Path) -> None:
    if "CNILAB_E2E" not in os.environ:
        pytest.skip("CNILAB_E2E is not set: the folder with e2e.test, for a lab that is up (CNILAB_E2E_STACK)")
    program = Path(os.environ["CNILAB_E2E"]) / "e2e.test"
    kubeconfig = tmp_path / "kubeconfig"
    subprocess.run([str(ROOT / "lab"), "kubeconfig", STACK, "--out", str(kubeconfig)], check=True, timeout=120)
    done = subprocess.run(
        [
            str(program),
            "--provider=skeleton",
            f"--kubeconfig={kubeconfig}",
            f"--ginkgo.focus={FOCUS}",
            f"--ginkgo.skip={SKIP}",
            "--ginkgo.timeout=50m",
            "--ginkgo.no-color",
            f"--report-dir={tmp_path}",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
    )
    reports = sorted(tmp_path.glob("junit*.xml"))
    assert len(reports) == 1, done.stdout[-5000:] + done.stderr[-5000:]
    found = outcomes(reports[0])
    print({outcome: len(names) for outcome, names in found.items()})
    assert set(found) == {"passed"}, sorted(set().union(*(names for key, names in found.items() if key != "passed")))
    assert done.returncode == 0, done.stdout[-5000:]
