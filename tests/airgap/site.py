"""A closed network's own servers on this computer: a registry, signed package repositories, and Calico's manifests.

CNILAB_AIRGAP names a folder with:

- `registry`: the storage of Debian's docker-registry, which has each image under the name of the registry it came from,
  such as registry.k8s.io/pause, and the machine image as `machine:1`;
- `packages`: real packages with Debian's file names (kubelet_1.36.3-1.1_amd64.deb and so on, and cri-o). With those of
  the next minor too, and its images in `registry`, test_upgrade.py runs;
- `calico`: vVERSION/manifests/ with the release's manifests.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.node.packages import Repositories

ADDRESS = "10.254.254.1"
"""An address that this computer has before a lab's networks exist, and that the machines reach through them."""
PORT = 5055
REGISTRY = f"{ADDRESS}:{PORT}"
START_TIMEOUT_SECONDS = 30


def folder() -> Path | None:
    """The folder of CNILAB_AIRGAP, or None."""
    named = os.environ.get("CNILAB_AIRGAP")
    return Path(named) if named else None


@dataclass(frozen=True)
class Site:
    repositories: Repositories
    access_log: Path

    def pulled(self) -> dict[str, set[str]]:
        """The references that were asked of the registry and found, by the program that asked, such as cri-o."""
        found: dict[str, set[str]] = {}
        asked = r'"(?:GET|HEAD) /v2/(\S+)/manifests/(\S+) HTTP/[\d.]+" 200 \S+ "[^"]*" "(\w[\w-]*)'
        for name, tag, program in re.findall(asked, self.access_log.read_text()):
            # After a tag, a manifest is fetched once more by its digest.
            if not tag.startswith("sha256:"):
                found.setdefault(program, set()).add(f"{REGISTRY}/{name}:{tag}")
        return found

    def not_found(self) -> set[str]:
        """What was asked of the registry and is not there."""
        return set(re.findall(r'"(?:GET|HEAD) (/v2/\S+) HTTP/[\d.]+" 404 ', self.access_log.read_text()))

    def mirrors(self) -> dict[str, object]:
        """The key `mirrors` of a stack file with which everything comes from here."""
        repositories = self.repositories
        origins = ("registry.k8s.io", "quay.io", "ghcr.io", "docker.io")
        return {
            "kubernetesPackages": repositories.kubernetes,
            "kubernetesKey": repositories.key.fingerprint,
            "crioPackages": repositories.crio,
            "crioKey": repositories.key.fingerprint,
            "calicoManifests": f"{repositories.base}/calico",
            "images": [{"registry": name, "mirror": f"{REGISTRY}/{name}", "insecure": True} for name in origins],
        }


@contextmanager
def site(given: Path, work: Path) -> Iterator[Site]:
    """Serve the folder `given` while the block runs. `work` is an empty folder."""
    # On lo, because not every kernel has dummy devices.
    subprocess.run(["ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"], check=True)
    try:
        with _registry(given / "registry", work) as access_log:
            packages = work / "packages"
            packages.mkdir()
            repositories = Repositories(packages, ADDRESS, real=given / "packages")
            (packages / "www" / "calico").symlink_to(given / "calico")
            try:
                yield Site(repositories, access_log)
            finally:
                repositories.close()
    finally:
        subprocess.run(["ip", "address", "delete", f"{ADDRESS}/32", "dev", "lo"], check=True)


@contextmanager
def _registry(storage: Path, work: Path) -> Iterator[Path]:
    """Run docker-registry; its access log."""
    settings, access_log = work / "registry.yaml", work / "access.log"
    settings.write_text(
        f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '{REGISTRY}', secret: of-no-use}}\n"
        f"storage: {{filesystem: {{rootdirectory: '{storage}'}}, maintenance: {{readonly: {{enabled: true}}}}}}\n"
    )
    with access_log.open("w") as output:
        server = subprocess.Popen(["docker-registry", "serve", str(settings)], stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while True:
            try:
                urllib.request.urlopen(f"http://{REGISTRY}/v2/", timeout=2).close()
                break
            except urllib.error.URLError:
                assert server.poll() is None and time.monotonic() < deadline, access_log.read_text()
                time.sleep(0.2)
        yield access_log
    finally:
        server.terminate()
        server.wait(timeout=30)
