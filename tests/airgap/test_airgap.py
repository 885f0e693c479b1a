"""A whole local lab on a closed network: a plain machine image from a registry, packages by apt from signed
repositories, images through the mirrors, manifests over HTTP, and machines without a default route. The tests are one
story and run in this order.

Needs root, podman, pulumi with its plugins, docker-registry on PATH, and the folder of CNILAB_AIRGAP
(tests/airgap/site.py), with the versions of stacks/Pulumi.local.yaml. CNILAB_RUN_ARGS: as for other tests with
machines. No other local lab may stand meanwhile.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
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
UP_TIMEOUT_SECONDS = 1500

# Each start of sshd takes the default route away. What is left is the way to the lab and to the site, and a route to
# 169.254.1.1, the gateway of Calico's pods: without one, no node answers for it (prepare.sh).
NO_DEFAULT_ROUTE = """\
[Service]
ExecStartPre=/bin/sh -c 'ip -4 route show default | while read -r _ _ gateway _ device _; do \
ip route replace 10.0.0.0/8 via $$gateway && ip route replace 169.254.1.1 dev $$device && \
ip route delete default; done'
"""

pytestmark = [pytest.mark.timeout(3 * UP_TIMEOUT_SECONDS), pytest.mark.xdist_group("hosts")]


@dataclass(frozen=True)
class Copy:
    """A copy of the checkout with a stack of its own, so that no other stack and no state is touched."""

    path: Path
    site: Site

    def lab(self, *words: str, timeout_seconds: float = UP_TIMEOUT_SECONDS) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "cli", *words],
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

    def write_stack(self) -> None:
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
        made.write_stack()
        # An image of an earlier run would not be pulled.
        remove_image = ["podman", "rmi", "--ignore", f"{REGISTRY}/machine:1"]
        subprocess.run(remove_image, check=True)
        yield made
        gone = made.lab("destroy", STACK, "--yes")
        assert gone.returncode == 0, gone.stdout[-5000:]
        subprocess.run(remove_image, check=True)


def test_a_lab_comes_up_from_the_site_alone(copy: Copy) -> None:
    began = time.monotonic()
    copy.read("up", STACK, "--yes", "--non-interactive")
    print(f"up: {time.monotonic() - began:.0f} s")
    for node in NODES:
        assert copy.read("ssh", STACK, node, "--", "ip -4 route show default") == ""
        held = copy.read("ssh", STACK, node, "--", "apt-mark showhold").split()
        assert held == ["cri-o", "kubeadm", "kubectl", "kubelet"]
    copy.read("verify", STACK, "--wait", "300")


def test_the_servers_were_asked_for_what_the_list_has(copy: Copy) -> None:
    found, served, pulled = copy.needs(), copy.site.repositories, copy.site.pulled()
    # apt also asks for the repositories' indexes.
    files = {path for path in served.requests if not path.endswith((".deb", "/InRelease", "/Packages"))}
    assert {f"{served.base}{path}" for path in files} == {need["source"] for need in found["file"]}
    debs = [path.rpartition("/") for path in served.requests if path.endswith(".deb")]
    installed = {(f"{served.base}{folder}/", name.partition("_")[0]) for folder, _, name in debs}
    assert installed == {(need["source"], need["name"].partition("=")[0]) for need in found["package"]}
    assert pulled["cri-o"] == {need["source"] for need in found["image"]}
    # The machine image is podman's, on this computer.
    others = set().union(*(pulled[program] for program in pulled if program != "cri-o"))
    assert others == {need["source"] for need in found["machine-image"]}
    assert not copy.site.not_found()
