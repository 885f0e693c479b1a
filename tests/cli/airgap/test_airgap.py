"""`./lab airgap`: the list against the plan's own text, the node scripts, and the upstream manifests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.airgap.needs import DISTRIBUTION_PACKAGES, KUBERNETES_PACKAGES, UNVERSIONED_PACKAGES, Needs, mirrored, needs_of
from cli.plan.command import plan
from components.spec import versions
from components.spec.load import parse_lab
from components.spec.models.mirrors import ImageMirror
from engine.run import run_program
from tests.calico.schemas import upstream
from tests.support.cli import lab
from tests.support.graphs import STACKS

ROOT = Path(__file__).resolve().parents[3]
KEY = "A" * 40
MIRRORS = {
    "kubernetesPackages": "http://10.0.1.1:8099/kubernetes",
    "kubernetesKey": KEY,
    "crioPackages": "http://10.0.1.1:8099/cri-o",
    "crioKey": "B" * 40,
    "calicoManifests": "http://10.0.1.1:8099/calico",
    "calicoctl": "http://10.0.1.1:8099/calicoctl",
    "calicoctlSha256": {"amd64": "c" * 64},
    "images": [
        {"registry": "quay.io", "mirror": "10.0.1.1:5000/quay.io"},
        {"registry": "quay.io/tigera", "mirror": "10.0.1.1:5001"},
    ],
}


def needs(**keys: Any) -> Needs:
    """What a lab of these keys fetches."""
    given = {"machines": {"provider": "local"}, **keys}
    config = {"cni-lab:lab": json.dumps(given)}
    return needs_of(run_program(ROOT / "__main__.py", stack="test", config=config), parse_lab(given))


def names(found: Needs, kind: Any) -> set[str]:
    return {need.name for need in found.of(kind)}


def written(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in folder.rglob("*"):
        if path.is_file():
            yield path, path.read_text(encoding="utf-8")


@pytest.mark.parametrize("stack", STACKS)
def test_the_list_has_every_image_and_address_that_a_plan_writes(
    stack: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan(stack, as_json=False, out=tmp_path) == 0
    capsys.readouterr()
    assert lab("airgap", stack, "--json") == 0
    found = json.loads(capsys.readouterr().out)["needs"]
    images = {need["name"] for need in found if need["kind"] == "image"}
    sources = {need["source"] for need in found}
    for path, text in written(tmp_path / "kubernetes"):
        # Objects whose `image` is a container's: every line of this form in the YAML.
        assert set(re.findall(r"^\s*(?:- )?image: (\S+)$", text, re.MULTILINE)) <= images, path
    steps = {path: text for path, text in written(tmp_path / "nodes") if path.parent.name == "steps"}
    files = {path: text for path, text in written(tmp_path / "nodes") if path not in steps}
    pauses = {image for text in files.values() for image in re.findall(r'pause_image = "(.+)"', text)}
    assert pauses and pauses <= images
    # The variables of a step stand before the text of its scripts.
    addresses = {url for text in steps.values() for url in re.findall(r"https?://[^\s'\"]+", text.split("# --- ")[0])}
    assert len(addresses) == 3
    for address in addresses:
        assert any(source.startswith(address) for source in sources), address
    # Everything in a plan's objects is needed, and the rest is kubeadm's and Calico's.
    of_objects = {
        image
        for _, text in written(tmp_path / "kubernetes")
        for image in re.findall(r"^\s*(?:- )?image: (\S+)$", text, re.MULTILINE)
    }
    assert {image.split("/")[0] for image in images - of_objects} == {"registry.k8s.io", "quay.io"}


def test_a_stack_with_mirrors_gets_everything_from_them() -> None:
    found = needs(
        mirrors=MIRRORS,
        multus={"clusterNetwork": "a", "delegates": [{"name": "a", "rangeStart": 50, "rangeEnd": 100}]},
        calico={"install": "operator"},
        workloads=[{"name": "w", "image": "quay.io/example/w:1", "replicas": 1}],
    )
    assert [(need.name, need.check) for need in found.of("file")] == [
        ("http://10.0.1.1:8099/kubernetes/v1.36/deb/Release.key", KEY),
        ("http://10.0.1.1:8099/cri-o/v1.36/deb/Release.key", "B" * 40),
        ("http://10.0.1.1:8099/calicoctl/v3.32.1/calicoctl-linux-amd64", f"sha256:{'c' * 64}"),
        *(
            (
                f"http://10.0.1.1:8099/calico/v3.32.1/manifests/{name}",
                f"sha256:{versions.CALICO['3.32.1'].sha256[name]}",
            )
            for name in versions.calico_manifests("operator", "Disabled")
        ),
    ]
    assert [(need.name, need.source) for need in found.of("package")] == [
        *(
            (name, "http://10.0.1.1:8099/kubernetes/v1.36/deb/")
            for name in ("kubelet=1.36.3-*", "kubeadm=1.36.3-*", "kubectl=1.36.3-*", "cri-tools", "kubernetes-cni")
        ),
        ("cri-o=1.36.3-*", "http://10.0.1.1:8099/cri-o/v1.36/deb/"),
    ]
    sources = {need.name: need.source for need in found.of("image")}
    assert sources["quay.io/example/w:1"] == "10.0.1.1:5000/quay.io/example/w:1"
    assert sources["quay.io/tigera/operator:v1.42.3"] == "10.0.1.1:5001/operator:v1.42.3"
    assert sources["ghcr.io/k8snetworkplumbingwg/multus-cni:v4.3.0"] == "ghcr.io/k8snetworkplumbingwg/multus-cni:v4.3.0"
    assert {note.split(" is named")[0] for note in found.notes if "is named" in note} == {
        "no mirror of ghcr.io",
        "no mirror of registry.k8s.io",
    }


def test_whereabouts_and_a_given_machine_image_are_in_the_list() -> None:
    network = {
        "name": "n",
        "type": "macvlan",
        "master": "eth0",
        "subnet": "10.9.0.0/24",
        "ipam": {"type": "whereabouts"},
    }
    found = needs(
        machines={"provider": "local", "image": "registry.example:5000/machine:1"},
        networks=[network],
        multus={"clusterNetwork": "k8s-pod-network"},
    )
    assert "ghcr.io/k8snetworkplumbingwg/whereabouts:v0.9.4" in names(found, "image")
    assert names(found, "machine-image") == {"registry.example:5000/machine:1"}
    assert names(found, "distribution-package") == set(DISTRIBUTION_PACKAGES)


def test_what_a_plan_cannot_know_is_a_note() -> None:
    found = needs(kubernetes={"version": "1.99.2"})
    assert "kubeadm config images list --kubernetes-version v1.99.2" in " ".join(found.notes)
    assert not [name for name in names(found, "image") if name.startswith("registry.k8s.io/kube-")]
    assert "cri-o=1.99.*" in names(found, "package")
    assert "1.36.3: compare them" in " ".join(needs(kubernetes={"version": "1.36.2"}).notes)


def test_the_longest_mirror_counts_and_whole_parts_are_compared() -> None:
    mirrors = tuple(
        ImageMirror(registry=registry, mirror=mirror)
        for registry, mirror in (("quay.io", "m:5000/q"), ("quay.io/calico", "n:5000"))
    )
    assert mirrored("quay.io/calico/node:v1", mirrors) == "n:5000/node:v1"
    assert mirrored("quay.io/calico2/node:v1", mirrors) == "m:5000/q/calico2/node:v1"
    assert mirrored("quay.io.example/node:v1", mirrors) is None


def test_the_packages_are_those_that_the_node_scripts_install() -> None:
    script = (ROOT / "components/node/packages.sh").read_text()
    body = re.search(r"^install_packages\(\) \{\n(.*?)^\}", script, re.MULTILINE | re.DOTALL)
    assert body
    words = body[1].partition("have_versions")[0].replace("\\\n", " ").replace('"', "").split()[1:]
    assert {word.partition("=")[0] for word in words} == {*KUBERNETES_PACKAGES, *UNVERSIONED_PACKAGES, "cri-o"}
    tools = re.search(r"for tool in (.*); do", script)
    assert tools and {*tools[1].split(), "ca-certificates"} == set(DISTRIBUTION_PACKAGES)


def test_no_other_node_script_fetches_anything() -> None:
    """A script that fetches more must also be read by cli/airgap/needs.py."""
    fetching = {
        path.name
        for path in (ROOT / "components/node").glob("*.sh")
        if re.search(
            r"^\s*(?:(?:if !|retry \d+) )?(?:fetch|download|curl|wget|apt_get|trust) ", path.read_text(), re.MULTILINE
        )
    }
    assert fetching == {"lib.sh", "packages.sh", "calico.sh", "calicoctl.sh"}


@pytest.mark.parametrize(
    ("install", "bgp"), [("operator", "Enabled"), ("manifest", "Enabled"), ("manifest", "Disabled")]
)
def test_calicos_images_are_those_of_the_released_manifests(install: str, bgp: str) -> None:
    version = versions.DEFAULT_CALICO
    seen: set[str] = set()
    for name in versions.calico_manifests(install, bgp):
        text = upstream(f"calico-v{version}", name).read_text()
        seen |= set(re.findall(r"^\s+(?:- )?image: (\S+)$", text, re.MULTILINE))
    found = set(versions.calico_images(version, install))
    assert seen <= found if install == "operator" else seen == found
    assert seen


def test_the_page_and_the_lines(capsys: pytest.CaptureFixture[str]) -> None:
    assert lab("airgap", "local", "--list") == 0
    printed = capsys.readouterr()
    assert "note: packages bring their dependencies" in printed.err
    lines = printed.out.splitlines()
    assert len(set(lines)) == len(lines)
    assert "image registry.k8s.io/etcd:3.6.8-0" in lines and "plugin tls 5.6.2" in lines
    assert lab("airgap", "local") == 0
    page = capsys.readouterr().out
    for line in lines:
        assert line.partition(" ")[2].replace(" ", "@" if line.startswith("plugin") else " ") in page
    assert lab("airgap", "no-such-stack") == 2
