"""The lab of this folder's tests. They share it, because it takes minutes to come up."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator

import pytest

from tests.airgap.lab import ROOT, STACK, Copy
from tests.airgap.site import REGISTRY, folder, site


@pytest.fixture(scope="package")
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
