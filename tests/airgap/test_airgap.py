"""A whole local lab on a closed network: a plain machine image from a registry, packages by apt from signed
repositories, images through the mirrors, manifests over HTTP, and machines without a default route. Then, if the folder
has packages of a later minor, the upgrade to it through `./lab up`. The tests are one story and run in this order.

Needs root, podman, pulumi with its plugins, docker-registry on PATH, and the folder of CNILAB_AIRGAP
(tests/airgap/site.py). CNILAB_UPGRADE: the two versions, "1.36.3 1.37.2" by default. CNILAB_RUN_ARGS: as for other
tests with machines. No other local lab may stand meanwhile.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.airgap.site import REGISTRY, Site, folder, site

ROOT = Path(__file__).resolve().parents[2]
STACK = "airgap"
NODES = ("ip1001100", "ip-10-0-2-200")
OLD, NEW = os.environ.get("CNILAB_UPGRADE", "1.36.3 1.37.2").split()
UP_TIMEOUT_SECONDS = 1500

# Each start of sshd takes the default route away. What is left is the way to the lab and to the site.
NO_DEFAULT_ROUTE = """\
[Service]
ExecStartPre=/bin/sh -c 'ip -4 route show default | while read -r _ _ gateway _; do \
ip route replace 10.0.0.0/8 via $$gateway && ip route delete default; done'
"""

pytestmark = [pytest.mark.timeout(3 * UP_TIMEOUT_SECONDS), pytest.mark.xdist_group("hosts")]


@dataclass(frozen=True)
class Copy:
    """A copy of the checkout with a stack of its own, so that no other stack and no state is touched."""

    path: Path
    site: Site

    def lab(self, *words: str, timeout_seconds: float = UP_TIMEOUT_SECONDS) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.path / "lab"), *words],
            cwd=self.path,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
        )

    def read(self, *words: str) -> str:
        """The output of a command that succeeds."""
        done = self.lab(*words)
        assert done.returncode == 0, f"{words}: {done.stdout[-20000:]}\n{done.stderr[-5000:]}"
        return done.stdout

    def write_stack(self, version: str) -> None:
        document = yaml.safe_load((ROOT / "stacks" / "Pulumi.local.yaml").read_text())
        lab = document["config"]["cni-lab:lab"]
        unit = self.path / "no-default-route.conf"
        unit.write_text(NO_DEFAULT_ROUTE)
        lab["machines"] = {
            "provider": "local",
            "engine": "podman",
            "image": f"{REGISTRY}/machine:1",
            "runArgs": os.environ.get("CNILAB_RUN_ARGS", "").split(),
            "extraMounts": [
                {
                    "hostPath": str(unit),
                    "containerPath": "/etc/systemd/system/ssh.service.d/10-no-default-route.conf",
                    "readOnly": True,
                }
            ],
        }
        # A control plane and a worker fetch everything that more nodes would.
        lab["nodes"] = [node for node in lab["nodes"] if node["name"] in NODES]
        lab["kubernetes"]["version"] = version
        lab["mirrors"] = self.site.mirrors()
        (self.path / "stacks" / f"Pulumi.{STACK}.yaml").write_text(yaml.safe_dump(document, sort_keys=False))

    def needs(self) -> dict[str, list[dict[str, Any]]]:
        """What `./lab airgap` lists, by kind."""
        found: dict[str, list[dict[str, Any]]] = {}
        for need in json.loads(self.read("airgap", STACK, "--json"))["needs"]:
            found.setdefault(need["kind"], []).append(need)
        return found


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    given = folder()
    if given is None:
        pytest.skip("CNILAB_AIRGAP is not set: a folder with images, packages and manifests (tests/airgap/site.py)")
    for tool in ("docker-registry", "podman", "pulumi", "gpg", "dpkg-deb"):
        assert shutil.which(tool), f"{tool} is not on PATH"
    work = tmp_path_factory.mktemp("airgap")
    path = work / "checkout"
    path.mkdir()
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "--null", "-T", "-", "-cf", str(work / "c.tar")], cwd=ROOT, input=files, check=True)
    subprocess.run(["tar", "-xf", str(work / "c.tar")], cwd=path, check=True)
    (path / ".venv").symlink_to(ROOT / ".venv")
    (work / "site").mkdir()
    with site(given, work / "site") as served:
        made = Copy(path, served)
        made.write_stack(OLD)
        # An image of an earlier run would not be pulled.
        subprocess.run(["podman", "rmi", "--ignore", "--force", f"{REGISTRY}/machine:1"], check=True)
        yield made
        gone = made.lab("destroy", STACK, "--yes")
        assert gone.returncode == 0, gone.stdout[-5000:]


def kubelets(copy: Copy) -> set[str]:
    path = '{range .items[*]}{.status.nodeInfo.kubeletVersion}{"\\n"}{end}'
    return set(copy.read("ssh", STACK, "ip1001100", "--", f"sudo kubectl get nodes -o jsonpath='{path}'").split())


def check_asked(copy: Copy, found: dict[str, list[dict[str, Any]]]) -> None:
    """What the servers were asked for is what the list has."""
    served = copy.site.repositories
    base = served.base
    files = {path for path in served.requests if not path.endswith((".deb", "/InRelease", "/Packages"))}
    assert {f"{base}{path}" for path in files} == {need["source"] for need in found["file"]}
    debs = {path for path in served.requests if path.endswith(".deb")}
    installed = {(f"{base}{path.rpartition('/')[0]}/", path.rpartition("/")[2].split("_")[0]) for path in debs}
    assert installed == {(need["source"], need["name"].partition("=")[0]) for need in found["package"]}
    pulled = copy.site.pulled()
    assert pulled["cri-o"] == {need["source"] for need in found["image"]}
    assert not copy.site.not_found()


def test_a_lab_comes_up_from_the_site_alone(copy: Copy) -> None:
    began = time.monotonic()
    copy.read("up", STACK, "--yes", "--non-interactive")
    print(f"up: {time.monotonic() - began:.0f} s")
    for node in NODES:
        assert copy.read("ssh", STACK, node, "--", "ip -4 route show default") == ""
        held = copy.read("ssh", STACK, node, "--", "apt-mark showhold").split()
        assert held == ["cri-o", "kubeadm", "kubectl", "kubelet"]
    assert kubelets(copy) == {f"v{OLD}"}
    copy.read("verify", STACK, "--wait", "300")


def test_the_servers_were_asked_for_what_the_list_has(copy: Copy) -> None:
    check_asked(copy, copy.needs())
    # The machine image is podman's, on this computer.
    pulled = copy.site.pulled()
    assert set().union(*(pulled[program] for program in pulled if program != "cri-o")) == {f"{REGISTRY}/machine:1"}


def test_an_upgrade_to_the_next_minor(copy: Copy) -> None:
    given = folder()
    assert given is not None
    if not list((given / "packages").glob(f"kubelet_{NEW}-*.deb")):
        pytest.skip(f"CNILAB_AIRGAP has no packages of Kubernetes {NEW}")
    before = copy.needs()
    copy.write_stack(NEW)
    after = copy.needs()
    began = time.monotonic()
    copy.read("up", STACK, "--yes", "--non-interactive")
    print(f"upgrade: {time.monotonic() - began:.0f} s")
    assert kubelets(copy) == {f"v{NEW}"}
    copy.read("verify", STACK, "--wait", "300")
    both = {kind: before.get(kind, []) + after.get(kind, []) for kind in before}
    check_asked(copy, both)
