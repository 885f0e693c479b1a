"""The policy that lets kubelet notice soon that Calico's pods are ready."""

from __future__ import annotations

import time
from typing import Any

import pytest

from components.calico.probes import NAME, quick_probes
from tests.calico.cluster import Cluster
from tests.calico.labs import calico_lab, lab


def test_the_policy_is_for_the_operators_pods_on_a_kubernetes_that_has_such_policies() -> None:
    made = quick_probes(lab())
    assert [manifest["kind"] for manifest in made.values()] == [
        "MutatingAdmissionPolicy",
        "MutatingAdmissionPolicyBinding",
    ]
    assert made["probes-binding"]["spec"] == {"policyName": made["probes"]["metadata"]["name"]}
    assert quick_probes(calico_lab(install="manifest", bgp="Enabled")) == {}
    for version, has_policy in (("1.35.9", False), ("1.36.0", True), ("1.37.2", True)):
        spec = lab()
        spec = spec.model_copy(update={"kubernetes": spec.kubernetes.model_copy(update={"version": version})})
        assert bool(quick_probes(spec)) is has_policy, version


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
    cluster.create(*quick_probes(lab()).values())
    for namespace in ("calico-system", "elsewhere"):
        # The tests of the other objects share this API.
        cluster.kubectl("create", "namespace", namespace, check=False)
        cluster.kubectl("-n", namespace, "create", "serviceaccount", "default", check=False)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if made(cluster, pod("calico-system", REQUEST | {"periodSeconds": 30}))["periodSeconds"] != 30:
            return cluster
        time.sleep(0.5)
    raise AssertionError(f"{NAME} is not in force after 60 s")


def made(cluster: Cluster, manifest: dict[str, Any]) -> dict[str, Any]:
    """The readiness probe of the first container, as the API stores it."""
    containers = cluster.dry_run(manifest)["spec"]["containers"]
    assert containers[1].get("readinessProbe") is None
    assert containers[1]["livenessProbe"]["periodSeconds"] == 60
    return containers[0].get("readinessProbe") or {}


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
    stored = made(with_policy, pod("calico-system", probe))
    assert (stored["periodSeconds"], stored["failureThreshold"]) == (period, failures)
    assert stored["timeoutSeconds"] == 10 and stored["successThreshold"] == 1


def test_other_pods_stay_as_they_are(with_policy: Cluster) -> None:
    assert made(with_policy, pod("elsewhere", REQUEST | {"periodSeconds": 30}))["periodSeconds"] == 30
    assert made(with_policy, pod("calico-system", None)) == {}
