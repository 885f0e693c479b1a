"""CNILAB_SLOWDOWN: one factor for every limit on time, of `./lab`, of steps, and of the scripts on the machines."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cli.main import app
from components import slowdown
from components.node.script import compose, read_script, text_of
from components.spec.models import Lab
from tests.cluster.test_kubeadm import HA, find_kubeadm, init, join, make_lab, printed_manifests, write_config
from tests.support.graphs import STEP, run_lab_once
from tests.support.steps import run_program


@pytest.mark.parametrize(("text", "wanted"), [("", 1), (" 1 ", 1), ("7", 7), ("100", 100)])
def test_the_factor_is_a_whole_number(text: str, wanted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(slowdown.VARIABLE, text)
    assert slowdown.factor() == wanted
    assert slowdown.scaled(2.5) == 2.5 * wanted


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "101", "fast", "\N{FULLWIDTH DIGIT TWO}"])
def test_another_value_is_refused_with_the_fix(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(slowdown.VARIABLE, text)
    done = CliRunner().invoke(app, ["cost", "cfos-egress"])
    assert done.exit_code == 2
    assert f"CNILAB_SLOWDOWN={text} is not a whole number from 1 to 100. Fix: " in done.output


def test_a_wait_on_a_machine_lasts_as_many_times_as_long(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert "SLOWDOWN=" not in compose("test", {}, [], []).replace(read_script("lib.sh"), "")
    monkeypatch.setenv(slowdown.VARIABLE, "2")
    wait = "} </dev/null"
    program = compose("test", {}, [], []).replace(wait, f"wait_for 1 'the thing' false\n{wait}")
    done = run_program(tmp_path, program, timeout=60)
    assert done.returncode == 1
    assert "the thing: not within 2 s." in done.stderr


def test_steps_have_longer_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    ordinary = timeouts()
    monkeypatch.setenv(slowdown.VARIABLE, "3")
    assert timeouts() == {name: seconds * 3 for name, seconds in ordinary.items()}


def timeouts() -> dict[str, int]:
    graph = run_lab_once({"machines": {"provider": "local"}})
    return {step.name: step.inputs["timeout"] for step in graph.of_type(STEP)}


def test_kubeadm_has_longer_limits_and_accepts_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lab = make_lab(**HA)
    assert all("timeouts" not in document for document in [*init(lab), *(join(lab, n) for n in lab.nodes[1:])])
    monkeypatch.setenv(slowdown.VARIABLE, "10")
    documents: dict[str, Any] = {"init": init(lab)} | {n.name: join(lab, n) for n in lab.nodes[1:]}
    assert documents["init"][0]["timeouts"]["controlPlaneComponentHealthCheck"] == "2400s"
    lease = {"name": "leader-elect-lease-duration", "value": "150s"}
    assert all(lease in documents["init"][1][part]["extraArgs"] for part in ("controllerManager", "scheduler"))
    for name, content in documents.items():
        file = tmp_path / f"{name}.yaml"
        file.write_text(text_of(str(file), content))
        command = [find_kubeadm(), "config", "validate", "--config", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0 and "unknown field" not in done.stderr, done.stderr


def test_kubelet_waits_longer_for_the_control_plane_and_coredns(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """kubelet gives a pod up after as many failures as before, each of which takes as many times as long."""
    monkeypatch.setenv(slowdown.VARIABLE, "1")
    ordinary = rendered_probes(make_lab(), tmp_path / "ordinary")
    monkeypatch.setenv(slowdown.VARIABLE, "5")
    slow = rendered_probes(make_lab(), tmp_path / "slow")
    assert slow.keys() == ordinary.keys()
    assert {name for name, _ in slow} == {
        "etcd",
        "kube-apiserver",
        "kube-controller-manager",
        "kube-scheduler",
        "coredns",
    }
    for (name, kind), probe in slow.items():
        before = ordinary[name, kind]
        where = f"{name} {kind}"
        assert probe["httpGet"] == before["httpGet"], where
        assert probe["timeoutSeconds"] == 5 * before.get("timeoutSeconds", 1), where
        if kind == "startupProbe":
            assert probe["periodSeconds"] == before["periodSeconds"], where
            assert probe["failureThreshold"] == 5 * before["failureThreshold"], where
        else:
            assert probe["periodSeconds"] == 5 * before.get("periodSeconds", 10), where
            assert probe.get("failureThreshold") == before.get("failureThreshold"), where


def test_a_probe_of_the_stack_file_replaces_the_longer_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(slowdown.VARIABLE, "5")
    probe = {"containers": [{"name": "etcd", "livenessProbe": {"periodSeconds": 7}}]}
    lab = make_lab(kubernetes={"patches": [{"target": "etcd", "patch": {"spec": probe}}]})
    assert rendered_probes(lab, tmp_path)["etcd", "livenessProbe"]["periodSeconds"] == 7


def rendered_probes(lab: Lab, folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The probes that kubeadm gives the control plane's pods and CoreDNS, by container and kind of probe."""
    config = write_config(lab, folder)
    made = folder / "made"
    made.mkdir()

    def phase(*words: str) -> str:
        done = subprocess.run(
            [find_kubeadm(), "init", "phase", *words, "--config", str(config)],
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "KUBEADM_INIT_DRYRUN_DIR": str(made)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    phase("control-plane", "all", "--dry-run")
    phase("etcd", "local", "--dry-run")
    pods = [yaml.safe_load(file.read_text()) for file in sorted(made.glob("*.yaml"))]
    addon = printed_manifests(phase("addon", "coredns", "--print-manifest"))
    deployments = [it for it in addon if it["kind"] == "Deployment"]
    return {
        (container["name"], kind): container[kind]
        for pod in [*pods, *(it["spec"]["template"] for it in deployments)]
        for container in pod["spec"]["containers"]
        for kind in ("livenessProbe", "readinessProbe", "startupProbe")
        if kind in container
    }
