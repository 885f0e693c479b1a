"""reasons.sh: what a wait says of nodes and pods, with a real kubectl on a sandbox's API."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from components.node.script import read_script
from components.sandbox.api import Api
from components.sandbox.certificates import Authority
from tests.calico.cluster import binary
from tests.verify.test_workloads import CNI, TAINTED, Cluster, unscheduled, waits, warning

Json = dict[str, Any]


class Waiting:
    """A lab's API, and scripts that wait for it."""

    def __init__(self, folder: Path, kubectl: str) -> None:
        self.folder, self.cluster = folder, Cluster()
        authority = Authority()
        (folder / "ca.crt").write_text(authority.pem)
        (folder / "server.pem").write_text("".join(authority.issue("kube-apiserver")))
        self.api = Api(self.cluster.objects, folder / "ca.crt", folder / "server.pem")
        (folder / "kubeconfig").write_text(authority.kubeconfig(self.api.url))
        self._path = f"{Path(kubectl).parent}:{os.environ['PATH']}"

    def run(self, program: str, quiet: int = 0) -> subprocess.CompletedProcess[str]:
        folder = self.folder
        environment = {
            "CNI_LAB_STATE": str(folder / "state"),
            "CNI_LAB_LOCK": str(folder / "lock"),
            "KUBECONFIG": str(folder / "kubeconfig"),
            "PATH": self._path,
            "HOME": str(folder),
            "QUIET_SECONDS": str(quiet),
        }
        text = f"{read_script('lib.sh')}\n{read_script('reasons.sh')}\n{program}\n"
        return subprocess.run(
            ["bash", "-c", text], env=os.environ | environment, capture_output=True, text=True, timeout=180, check=False
        )

    def reasons(self, *namespaces: str) -> tuple[int, list[str]]:
        """The status and the lines."""
        done = self.run(f"reasons {' '.join(namespaces)}")
        assert done.stderr == ""
        return done.returncode, done.stdout.splitlines()

    def condition(self, node: str, kind: str, status: str, reason: str, message: str, minutes: int = 0) -> None:
        nodes = self.cluster.objects["/api/v1/nodes"]
        found = next(it for it in nodes if it["metadata"]["name"] == node)["status"]["conditions"]
        since = (datetime.now(UTC) - timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")
        next(it for it in found if it["type"] == kind).update(
            status=status, reason=reason, message=message, lastTransitionTime=since
        )


@pytest.fixture
def waiting(tmp_path: Path) -> Iterator[Waiting]:
    made = Waiting(tmp_path, binary("kubectl"))
    yield made
    made.api.close()


def test_of_a_cluster_that_is_whole_it_says_nothing(waiting: Waiting) -> None:
    assert waiting.reasons("kube-system", "calico-system", "tigera-operator") == (0, [])


def test_pods_their_containers_and_the_last_message_of_a_probe(waiting: Waiting) -> None:
    cluster = waiting.cluster
    node = cluster.pod("calico-node-", "ip-10-0-2-200")
    node["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
    node["status"]["containerStatuses"][0]["ready"] = False
    warning(cluster, node, "Unhealthy", "Readiness probe failed: BIRD is\n not ready", at="2026-11-25T21:00:09Z")
    warning(cluster, node, "Unhealthy", "Readiness probe failed: older", at="2026-11-25T21:00:02Z")
    image = cluster.pod("calico-typha-")
    waits(image, "ErrImagePull", "no such host")
    new = cluster.pod("calico-apiserver-")
    unscheduled(new, TAINTED)
    sandbox = cluster.pod("calico-kube-controllers-")
    waits(sandbox, "ContainerCreating")
    warning(cluster, sandbox, "FailedCreatePodSandBox", CNI)
    waits(cluster.pod("coredns-"), "ContainerCreating")
    status, lines = waiting.reasons("calico-system")

    def line(pod: Json) -> str:
        name = pod["metadata"]["name"]
        return next(it for it in lines if it.startswith(f"pod {name} ") or it.startswith(f"pod {name}:"))

    assert status == 0 and len(lines) == 4, "kube-system was not asked for"
    name = "container calico-node: it runs, and is not ready; Unhealthy: Readiness probe failed: BIRD is not ready"
    assert line(node) == f"pod {node['metadata']['name']} on ip-10-0-2-200: {name}"
    assert line(image).endswith(": ErrImagePull: no such host")
    assert line(new).endswith(f": no node takes it: {TAINTED}") and " on " not in line(new).partition(": ")[0]
    assert line(sandbox).endswith(f": ContainerCreating; FailedCreatePodSandBox: {CNI}")


def test_a_node_that_is_not_ready(waiting: Waiting) -> None:
    said = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady"
    waiting.condition("ip-10-0-2-201", "Ready", "False", "KubeletNotReady", said)
    assert waiting.reasons("kube-system") == (0, [f"node ip-10-0-2-201 is not Ready: KubeletNotReady: {said}"])


def test_pressure_and_evictions_are_counted_and_end_the_wait(waiting: Waiting) -> None:
    """As on five existing hosts whose disks were full."""
    cluster = waiting.cluster
    operator = cluster.pod("tigera-operator-")
    waits(operator, "ContainerCreating")

    def evict(number: int) -> None:
        said = "The node was low on resource: ephemeral-storage."
        for i in range(number):
            metadata = operator["metadata"] | {"name": f"{operator['metadata']['name']}{i}"}
            cluster.pods.append(
                {"metadata": metadata, "status": {"phase": "Failed", "reason": "Evicted", "message": said}}
            )

    evict(2)
    waiting.condition("ip1001100", "DiskPressure", "True", "KubeletHasDiskPressure", "kubelet has disk pressure", 1)
    status, lines = waiting.reasons("tigera-operator")
    assert status == 0, "it may pass"
    assert lines[0].startswith("node ip1001100 has DiskPressure since 20")
    assert lines[0].endswith(": KubeletHasDiskPressure: kubelet has disk pressure")
    assert lines[2] == "2 pods ended as Evicted, the last one: The node was low on resource: ephemeral-storage."
    evict(2000)
    status, lines = waiting.reasons("tigera-operator")
    assert status == 3 and lines[2].startswith("2002 pods ended as Evicted")


def test_the_lines_have_an_order(waiting: Waiting) -> None:
    """wait_for repeats a text that has changed, so the same reasons must be the same text."""
    names = [f"set-{letter}" for letter in "qvdamzk"]
    records = "".join(rf"event\037t\037DaemonSet\037{name}\037FailedCreate\037forbidden\036" for name in names)
    records += "".join(rf"failed\037{reason}\037\036" for reason in ("NodeLost", "Evicted", "Error"))
    records += r"pod\037waits\037n\037; container c: it runs\036"
    done = waiting.run(f"printf '{records}' | awk -v hopeless=3 \"$SENTENCES\"")
    controllers = [f"DaemonSet {name}: FailedCreate: forbidden" for name in sorted(names)]
    ended = [f"1 pods ended as {reason}" for reason in ("Error", "Evicted", "NodeLost")]
    assert done.stdout.splitlines() == ["pod waits on n: container c: it runs", *ended, *controllers], done.stderr


def test_long_pressure_ends_the_wait_for_a_pod_that_it_holds_up_and_for_no_other(waiting: Waiting) -> None:
    waiting.condition("ip-10-0-2-201", "MemoryPressure", "True", "KubeletHasInsufficientMemory", "no memory", 10)
    waits(waiting.cluster.pod("calico-node-", "ip-10-0-2-200"), "ContainerCreating")
    assert waiting.reasons("calico-system")[0] == 0
    waits(waiting.cluster.pod("calico-node-", "ip-10-0-2-201"), "ContainerCreating")
    assert waiting.reasons("calico-system")[0] == 3


@pytest.mark.parametrize(("restarts", "status"), [(4, 0), (5, 3), (12, 3)])
def test_a_crash_loop_is_named_and_ends_the_wait_when_it_goes_on(waiting: Waiting, restarts: int, status: int) -> None:
    pod = waiting.cluster.pod("calico-typha-")
    last = {"terminated": {"exitCode": 1, "reason": "Error", "message": "cannot bind"}}
    waits(pod, "CrashLoopBackOff", "back-off 2m40s", lastState=last, restartCount=restarts)
    found, [line] = waiting.reasons("calico-system")
    assert found == status
    assert "CrashLoopBackOff: back-off 2m40s; its last run ended with status 1 (Error): cannot bind; " in line
    assert line.endswith(f"; restarts: {restarts}")


def test_init_containers_and_pods_of_which_little_is_known(waiting: Waiting) -> None:
    pods = waiting.cluster.pods
    pods[:] = [
        {"metadata": {"name": "new", "namespace": "kube-system"}, "spec": {}, "status": {"phase": "Pending"}},
        {"metadata": {"name": "over", "namespace": "kube-system"}, "spec": {}, "status": {"phase": "Succeeded"}},
        {
            "metadata": {"name": "init", "namespace": "kube-system"},
            "spec": {"nodeName": "n"},
            "status": {
                "phase": "Pending",
                "initContainerStatuses": [
                    {"name": "one", "ready": True, "state": {"terminated": {"exitCode": 0}}},
                    {"name": "two", "ready": False, "state": {"terminated": {"exitCode": 7, "reason": "Error"}}},
                ],
                "containerStatuses": [
                    {"name": "c", "ready": False, "state": {"waiting": {"reason": "PodInitializing"}}}
                ],
            },
        },
    ]
    assert waiting.reasons("kube-system") == (
        0,
        ["pod new: not started yet", "pod init on n: container two: ended with status 7 (Error)"],
    )


def test_a_wait_has_the_reasons_in_its_lines_and_at_its_end(waiting: Waiting) -> None:
    waits(waiting.cluster.pod("calico-typha-"), "ErrImagePull", "no such host")
    wait = "wait_for 4 Calico with_reasons 'reasons calico-system' rolled_out"
    done = waiting.run(f"rolled_out() {{ echo '1 of 2'; return 1; }}; {wait}", quiet=1)
    first, *rest = done.stderr.splitlines()
    assert "for Calico: 1 of 2; pod calico-typha-" in first and first.endswith("ErrImagePull: no such host")
    end = "\n".join(rest)
    assert "Calico: not within 4 s. Last answer: 1 of 2\npod calico-typha-" in end
    assert waiting.run("with_reasons 'reasons calico-system' true", quiet=1).returncode == 0


def test_a_hopeless_wait_ends_at_once(waiting: Waiting) -> None:
    waits(waiting.cluster.pod("calico-typha-"), "CrashLoopBackOff", "back-off", restartCount=9)
    done = waiting.run("(wait_for 900 Calico with_reasons 'reasons calico-system' false) || echo ended", quiet=1)
    assert done.stdout == "ended\n" and "waiting longer does not help" in done.stderr
    assert "restarts: 9" in done.stderr


def test_a_node_sees_its_own_pods(waiting: Waiting) -> None:
    """By its own credentials, which show it no events."""
    waits(waiting.cluster.pod("kube-multus-ds-", "ip-10-0-2-200"), "ErrImagePull", "no such host")
    waits(waiting.cluster.pod("kube-multus-ds-", "ip-10-0-2-201"), "ErrImagePull", "not mine")
    program = "hostname() { echo ip-10-0-2-200; }; KUBELET_CONF=$KUBECONFIG; reasons_here"
    done = waiting.run(program)
    [line] = done.stdout.splitlines()
    assert line.startswith("pod kube-multus-ds-") and line.endswith("ErrImagePull: no such host")
    assert waiting.run("KUBELET_CONF=/nowhere; reasons_here").stdout == ""


def test_without_the_api_the_wait_goes_on(waiting: Waiting) -> None:
    waiting.api.close()
    done = waiting.run("WAITED_SECONDS=9 with_reasons 'reasons calico-system' false")
    assert done.returncode == 1 and "refused" in done.stderr
