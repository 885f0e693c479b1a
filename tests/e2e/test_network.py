"""Kubernetes' own network tests against a lab that is up. They know nothing of this project, so they are a second
account of its pod network.

CNILAB_E2E names a folder with `e2e.test` of the lab's Kubernetes version. CNILAB_E2E_STACK: the stack, `local` if it is
not set. CNILAB_E2E_FOCUS: other tests, as a regular expression. The nodes take the images of registry.k8s.io from where
they take all others.
"""

from __future__ import annotations

import os
import re
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STACK = os.environ.get("CNILAB_E2E_STACK", "local")
CONFORMANCE = r"\[sig-network\].*\[Conformance\]"
PODS_AND_SERVICES = r"\[sig-network\] Networking Granular Checks: (Pods|Services)"
FOCUS = os.environ.get("CNILAB_E2E_FOCUS", f"{CONFORMANCE}|{PODS_AND_SERVICES}")
FOCUS_AFTER_RESTART = os.environ.get("CNILAB_E2E_FOCUS", r"\[sig-network\] Networking Granular Checks: Pods")
# What disturbs other tests, wants a cloud's load balancer or SCTP, or takes longer than all others together.
SKIP = r"\[Serial\]|\[Disruptive\]|\[Slow\]|\[Feature:|LoadBalancer|SCTP"
PROGRAMS = 6
TIMEOUT_SECONDS = 3600
LAB_TIMEOUT_SECONDS = 1200

pytestmark = [
    pytest.mark.timeout(TIMEOUT_SECONDS + 2 * LAB_TIMEOUT_SECONDS),
    pytest.mark.xdist_group("hosts"),
    pytest.mark.skipif("CNILAB_E2E" not in os.environ, reason="CNILAB_E2E is not set: a folder with e2e.test"),
]


def lab(*words: str) -> str:
    done = subprocess.run([str(ROOT / "lab"), *words], capture_output=True, text=True, timeout=LAB_TIMEOUT_SECONDS)
    assert done.returncode == 0, f"./lab {' '.join(words)}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def command(folder: Path, *options: str) -> list[str]:
    program = Path(os.environ["CNILAB_E2E"]).resolve() / "e2e.test"
    return [
        str(program),
        "--provider=skeleton",
        f"--kubeconfig={folder / 'kubeconfig'}",
        f"--ginkgo.skip={SKIP}",
        f"--ginkgo.timeout={TIMEOUT_SECONDS - 120}s",
        "--ginkgo.no-color",
        *options,
    ]


def run(folder: Path, focus: str) -> dict[str, set[str]]:
    """Runs the tests that `focus` matches, and returns their names by outcome: passed, failed, timedout, …

    Most of a test is waiting, and each has namespaces of its own, so several programs share them.
    """
    lab("kubeconfig", STACK, "--out", str(folder / "kubeconfig"))
    subprocess.run(
        command(folder, f"--ginkgo.focus={focus}", "--ginkgo.dry-run", f"--report-dir={folder / 'names'}"),
        cwd=folder, check=True, capture_output=True, timeout=300,
    )  # fmt: skip
    names = sorted(set().union(*outcomes(folder / "names").values()))
    running = []
    for number in range(min(PROGRAMS, len(names))):
        share = "|".join(re.escape(name.removeprefix("[It] ")) for name in names[number::PROGRAMS])
        report = folder / f"report-{number}"
        output = (folder / f"output-{number}").open("w")
        options = [f"--ginkgo.focus={share}", f"--report-dir={report}"]
        running.append((report, subprocess.Popen(command(folder, *options), cwd=folder, stdout=output, stderr=output)))
    found: dict[str, set[str]] = {}
    try:
        for report, program in running:
            program.wait(TIMEOUT_SECONDS)
            for outcome, those in outcomes(report).items():
                found.setdefault(outcome, set()).update(those)
    finally:
        for _, program in running:
            program.kill()
            program.wait()
    assert set().union(*found.values()) == set(names)
    return found


def outcomes(folder: Path) -> dict[str, set[str]]:
    """The names of the tests by outcome, from the only report in a folder."""
    (report,) = folder.glob("junit*.xml")
    found: dict[str, set[str]] = {}
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name, status = case.get("name", ""), case.get("status", "")
        # ginkgo also lists its own set-up, and every test that the focus left out.
        if name.startswith("[It]") and status != "skipped":
            found.setdefault(status, set()).add(name)
    return found


def check(found: dict[str, set[str]]) -> None:
    for outcome, names in found.items():
        print(f"{outcome}: {len(names)}", *sorted(names), sep="\n  ")
    failed = sorted(set().union(*(names for outcome, names in found.items() if outcome != "passed")))
    assert not failed
    assert found, "no test matches the focus"


def test_the_network_tests_of_kubernetes_pass(tmp_path: Path) -> None:
    check(run(tmp_path, FOCUS))


def test_pods_reach_each_other_after_every_machine_was_off(tmp_path: Path) -> None:
    lab("stop", STACK)
    lab("start", STACK)
    lab("verify", STACK, "--wait", "300")
    check(run(tmp_path, FOCUS_AFTER_RESTART))
