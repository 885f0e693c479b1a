"""The lab of test_airgap.py goes to the next minor of Kubernetes and CRI-O by `./lab up`, which is killed twice on the
way. The tests are one story and run in this order.

Needs, in the folder of CNILAB_AIRGAP, also the packages and the images of a Kubernetes one minor later than that of
stacks/Pulumi.local.yaml.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from components.spec.versions import minor_of, numbers
from tests.airgap.lab import FIRST, NODES, STACK, UP_TIMEOUT_SECONDS, WORKERS, Copy
from tests.airgap.site import folder

pytestmark = [pytest.mark.timeout(4 * UP_TIMEOUT_SECONDS), pytest.mark.xdist_group("hosts")]

# On a worker: one HTTP request a second from a pod here to a pod of the other worker, until the pod here is gone. Each
# failure is a line with its time, and the last line has the number of requests.
PROBE = """
container=$(crictl ps --quiet --label io.kubernetes.pod.name=%(source)s)
process=$(crictl inspect --output go-template --template '{{.info.pid}}' "$container")
request='exec 3<>/dev/tcp/%(address)s/80; printf "GET / HTTP/1.0\\r\\n\\r\\n" >&3; read -r line <&3'
count=0
while nsenter --target "$process" --net true; do
  count=$((count + 1))
  timeout 10 nsenter --target "$process" --net bash -c "$request" || date +%%s
  sleep 1
done
echo "requests $count"
"""


@pytest.fixture(scope="module")
def new(copy: Copy) -> str:
    """The version to which the lab goes."""
    given = folder()
    assert given is not None
    major, minor, _ = numbers(copy.version())
    names = [deb.name for deb in (given / "packages").glob(f"kubelet_{major}.{minor + 1}.*.deb")]
    if not names:
        pytest.skip(f"the folder of CNILAB_AIRGAP has no packages of Kubernetes {major}.{minor + 1}")
    return names[0].split("_")[1].partition("-")[0]


def kubelets(copy: Copy) -> dict[str, str]:
    """By node, its kubelet's and its CRI-O's version, with `cordoned` where no pods may go there."""
    path = "{range .items[*]}{.metadata.name} {.status.nodeInfo.kubeletVersion}"
    path += ' {.status.nodeInfo.containerRuntimeVersion}{.spec.unschedulable}{"\\n"}{end}'
    found = {}
    for line in copy.kubectl(f"get nodes -o jsonpath='{path}'").splitlines():
        node, kubelet, crio = line.split()
        found[node] = f"{kubelet} {crio.removeprefix('cri-o://').replace('true', ' cordoned')}"
    return found


def networks(copy: Copy) -> dict[str, set[str]]:
    """By workload, the names and interfaces of its pods' networks."""
    found: dict[str, set[str]] = {}
    for pod in json.loads(copy.kubectl("get pods -o json"))["items"]:
        status = json.loads(pod["metadata"]["annotations"]["k8s.v1.cni.cncf.io/network-status"])
        joined = ", ".join(f"{network['interface']} {network['name']}" for network in status)
        found.setdefault(pod["metadata"]["labels"].get("app", "?"), set()).add(joined)
    return found


def wait_for(what: str, ready: Callable[[], bool], seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.3)


def kill_up(copy: Copy, node: str, pattern: str, after: float) -> None:
    """Start `up`, and kill it `after` seconds after a process that matches `pattern` is seen on a node."""
    process = copy.start("up", STACK, "--yes", "--non-interactive")
    # With the brackets the pattern does not match its own process.
    seen = f"pgrep -f '[{pattern[0]}]{pattern[1:]}'"
    try:
        wait_for(
            f"{pattern} on {node}",
            lambda: process.poll() is not None or copy.on(node, seen).returncode == 0,
            UP_TIMEOUT_SECONDS,
        )
        assert process.poll() is None, copy.log.read_text()[-5000:]
        time.sleep(after)
    finally:
        if process.poll() is None:
            copy.kill(process)


@pytest.fixture(scope="module")
def before(copy: Copy, new: str) -> dict[str, set[str]]:
    """The pods' networks in a lab of the old version that passes every check."""
    assert new != copy.version()
    copy.read("up", STACK, "--yes", "--non-interactive")
    copy.read("verify", STACK, "--wait", "300")
    assert {line.split()[0] for line in kubelets(copy).values()} == {f"v{copy.version()}"}
    return networks(copy)


def test_a_lab_of_the_old_version(before: dict[str, set[str]]) -> None:
    assert set(before) == {"firewall", "normal", "normal-default-calico", "normal-egress"}


def test_review_and_preview_say_what_happens(copy: Copy, new: str) -> None:
    copy.commit()
    old = copy.version()
    copy.change_version(new)
    review = copy.read("plan", STACK, "--against", "HEAD")
    assert f"3 machines drained and upgraded from Kubernetes {old} to {new}, one after the other" in review
    assert f"({', '.join(NODES)}); control plane upgraded" in review
    preview = copy.read("preview", STACK, "--non-interactive")
    for worker in WORKERS:
        assert f"{worker}-drain" in preview and f"{worker}-upgrade" in preview
    assert not re.search(r"replace|delete", preview), preview


def test_an_up_is_killed_while_the_control_plane_is_upgraded(copy: Copy) -> None:
    """Meanwhile the workers' pods reach each other."""
    pods = {
        pod["spec"]["nodeName"]: pod
        for pod in json.loads(copy.kubectl("get pods -l app=normal-default-calico -o json"))["items"]
    }
    source, target = (pods[worker] for worker in reversed(WORKERS))
    words = {"source": source["metadata"]["name"], "address": target["status"]["podIP"]}
    with ThreadPoolExecutor(1) as pool:
        probe = pool.submit(copy.on, WORKERS[1], PROBE % words, 2 * UP_TIMEOUT_SECONDS)
        kill_up(copy, FIRST, "kubeadm upgrade apply", 15)
        old = kubelets_once_the_api_answers(copy)
        assert old[WORKERS[0]] == old[WORKERS[1]] and "cordoned" not in old[WORKERS[0]]
        kill_up(copy, WORKERS[0], "apt-get .*kubelet=", 1)
        drained = int(copy.on(FIRST, f"stat --format %W /var/log/cni-lab/drain-{WORKERS[0]}.log").stdout)
        copy.kubectl(f"delete pod {words['source']} --wait=false")
        failures, count = probe_result(probe.result(timeout=120).stdout)
    print(f"{count} requests, {len(failures)} of them failed")
    assert count > 30
    assert not [moment - drained for moment in failures if moment < drained], (failures, drained)


def probe_result(output: str) -> tuple[list[int], int]:
    """The times of the requests that failed, and the number of all."""
    *failures, last = output.split("\n")[:-1]
    return [int(line) for line in failures], int(last.removeprefix("requests "))


def kubelets_once_the_api_answers(copy: Copy) -> dict[str, str]:
    wait_for("the API", lambda: copy.on(FIRST, "kubectl --request-timeout 5s get --raw /readyz").returncode == 0)
    return kubelets(copy)


def test_up_finishes_the_upgrade(copy: Copy, new: str) -> None:
    began = time.monotonic()
    copy.read("up", STACK, "--yes", "--non-interactive")
    print(f"up: {time.monotonic() - began:.0f} s")
    found = kubelets(copy)
    assert set(found) == set(NODES)
    for state in found.values():
        assert re.fullmatch(rf"v{new} {minor_of(new)}\.\d+", state), found
    for node in NODES:
        assert copy.read("ssh", STACK, node, "--", "apt-mark showhold").split() == [
            "cri-o", "kubeadm", "kubectl", "kubelet",
        ]  # fmt: skip
    copy.read("verify", STACK, "--wait", "300")


def test_pods_have_the_networks_that_they_had(copy: Copy, before: dict[str, set[str]]) -> None:
    assert networks(copy) == before


def test_the_servers_were_asked_for_what_the_list_has(copy: Copy) -> None:
    found, pulled = copy.needs(), copy.site.pulled()
    assert {need["source"] for need in found["image"]} <= pulled["cri-o"]
    debs = {path.rpartition("/")[2].partition("_")[:2] for path in copy.site.repositories.requests if ".deb" in path}
    assert {need["name"].partition("=")[0] for need in found["package"]} == {name for name, _ in debs}
    assert not copy.site.not_found()


def test_another_up_changes_nothing(copy: Copy) -> None:
    def state() -> list[str]:
        words = "crictl ps --quiet | sort; systemctl show -P ActiveEnterTimestampMonotonic crio kubelet"
        return [copy.on(node, words).stdout for node in NODES]

    before = state()
    copy.read("up", STACK, "--yes", "--non-interactive")
    assert state() == before
