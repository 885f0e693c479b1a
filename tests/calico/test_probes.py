"""The policy that changes the probes of Calico's pods: sooner, or more patient on a slow computer."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest

from components import slowdown
from components.calico.probes import NAME, probe_policy
from tests.calico.cluster import Cluster
from tests.calico.labs import calico_lab, lab


def test_the_policy_is_for_the_operators_pods_on_a_kubernetes_that_has_such_policies() -> None:
    made = probe_policy(lab())
    assert [manifest["kind"] for manifest in made.values()] == [
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
    ]
    assert made["probes-binding"]["spec"] == {"policyName": made["probes"]["metadata"]["name"]}
    assert probe_policy(calico_lab(install="manifest", bgp="Enabled")) == {}
    for version, has_policy in (("1.35.9", False), ("1.36.0", True), ("1.37.2", True)):
        spec = lab()
        spec = spec.model_copy(update={"kubernetes": spec.kubernetes.model_copy(update={"version": version})})
        assert bool(probe_policy(spec)) is has_policy, version


def expressions() -> list[str]:
    mutations = probe_policy(lab())["probes"]["spec"]["mutations"]
    return [mutation["applyConfiguration"]["expression"] for mutation in mutations]


def test_readiness_is_asked_for_every_second_or_by_a_command_every_five(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the API makes of it, the tests below see where there is one."""
    monkeypatch.delenv(slowdown.VARIABLE, raising=False)
    (expression,) = expressions()
    period = "(has(c.readinessProbe.exec) ? 5 : 1)"
    failures = f"c.readinessProbe.failureThreshold * c.readinessProbe.periodSeconds / {period}"
    probe = f"readinessProbe{{periodSeconds: {period}, failureThreshold: {failures}}}"
    assert f"readinessProbe: Object.spec.containers.{probe}" in expression
    assert "object.spec.containers.filter(c, has(c.readinessProbe))" in expression


def test_a_slow_computer_changes_both_probes_by_its_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(slowdown.VARIABLE, "5")
    assert [re.findall(r"(\w+): c\.(\w+)\.(\w+) \* (\d+)", expression) for expression in expressions()] == [
        [
            ("periodSeconds", "livenessProbe", "periodSeconds", "5"),
            ("timeoutSeconds", "livenessProbe", "timeoutSeconds", "5"),
        ],
        [("timeoutSeconds", "readinessProbe", "timeoutSeconds", "5")],
    ]


def pod(namespace: str, probe: dict[str, Any] | None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "probed-", "namespace": namespace},
        "spec": {
            "automountServiceAccountToken": False,
            "containers": [
                {"name": "probed", "image": "x", **({"readinessProbe": probe} if probe else {})},
                {"name": "other", "image": "x", "livenessProbe": {"tcpSocket": {"port": 1}, "periodSeconds": 60}},
            ],
        },
    }


REQUEST = {"httpGet": {"path": "/readiness", "port": 9098}, "timeoutSeconds": 10}
COMMAND = {"exec": {"command": ["/bin/calico-node", "-felix-ready"]}, "timeoutSeconds": 10}


@pytest.fixture(scope="module")
def with_policy(cluster: Cluster) -> Cluster:
    """An API with the policy, when it is in force."""
    return enforced(cluster, probe_policy(lab()))


@pytest.fixture(scope="module")
def with_patient_policy(with_policy: Cluster) -> Cluster:
    """The same API with the policy of a computer that is five times as slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(slowdown.VARIABLE, "5")
        return enforced(with_policy, probe_policy(lab()))


def enforced(cluster: Cluster, policy: dict[str, dict[str, Any]]) -> Cluster:
    for namespace in ("calico-system", "elsewhere"):
        # The tests of the other objects share this API.
        cluster.kubectl("create", "namespace", namespace, check=False)
        cluster.kubectl("-n", namespace, "create", "serviceaccount", "default", check=False)
    before = containers(cluster, "calico-system", REQUEST | {"periodSeconds": 30})
    cluster.apply(*policy.values())
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if containers(cluster, "calico-system", REQUEST | {"periodSeconds": 30}) != before:
            return cluster
        time.sleep(0.5)
    raise AssertionError(f"{NAME} is not in force after 60 s")


def containers(cluster: Cluster, namespace: str, probe: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The two containers of a pod, as the API stores them."""
    stored: list[dict[str, Any]] = cluster.dry_run(pod(namespace, probe))["spec"]["containers"]
    return stored


def made(cluster: Cluster, namespace: str, probe: dict[str, Any] | None) -> dict[str, Any]:
    """The readiness probe of the first container; the other container is as it was."""
    probed, other = containers(cluster, namespace, probe)
    assert other.get("readinessProbe") is None
    assert (other["livenessProbe"]["periodSeconds"], other["livenessProbe"]["timeoutSeconds"]) == (60, 1)
    return probed.get("readinessProbe") or {}


@pytest.mark.parametrize(
    ("probe", "period", "failures"),
    [
        (REQUEST | {"periodSeconds": 30}, 1, 90),
        (REQUEST | {"periodSeconds": 60, "failureThreshold": 2}, 1, 120),
        (COMMAND | {"periodSeconds": 30}, 5, 18),
        # Kubernetes' own defaults: every 10 s, three failures.
        (COMMAND, 5, 6),
    ],
)
def test_a_pod_is_ready_sooner_and_given_up_no_sooner(
    with_policy: Cluster, probe: dict[str, Any], period: int, failures: int
) -> None:
    stored = made(with_policy, "calico-system", probe)
    assert (stored["periodSeconds"], stored["failureThreshold"]) == (period, failures)
    assert stored["timeoutSeconds"] == 10 and stored["successThreshold"] == 1


def test_other_pods_stay_as_they_are(with_policy: Cluster) -> None:
    assert made(with_policy, "elsewhere", REQUEST | {"periodSeconds": 30})["periodSeconds"] == 30
    assert made(with_policy, "calico-system", None) == {}


def test_a_slow_computer_asks_less_often_and_waits_longer(with_patient_policy: Cluster) -> None:
    """A factor of five, against the operator's own times."""
    probed, other = containers(with_patient_policy, "calico-system", COMMAND | {"periodSeconds": 30})
    ready, alive = probed["readinessProbe"], other["livenessProbe"]
    assert (ready["periodSeconds"], ready["timeoutSeconds"], ready["failureThreshold"]) == (30, 50, 3)
    assert (alive["periodSeconds"], alive["timeoutSeconds"], alive["failureThreshold"]) == (300, 5, 3)
    assert "livenessProbe" not in probed and "readinessProbe" not in other
