"""A whole local lab on a closed network: a plain machine image from a registry, packages by apt from signed
repositories, images through the mirrors, manifests over HTTP, and machines without a default route. The tests are one
story and run in this order.

Needs root, podman, pulumi with its plugins, docker-registry on PATH, and the folder of CNILAB_AIRGAP
(tests/airgap/site.py), with the versions of stacks/Pulumi.local.yaml, or of the Kubernetes that
CNILAB_AIRGAP_KUBERNETES names. CNILAB_RUN_ARGS: as for other tests with machines. No other local lab may stand
meanwhile.
"""

from __future__ import annotations

import time

import pytest

from tests.airgap.lab import NODES, STACK, UP_TIMEOUT_SECONDS, Copy

pytestmark = [pytest.mark.timeout(3 * UP_TIMEOUT_SECONDS), pytest.mark.xdist_group("hosts")]


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
