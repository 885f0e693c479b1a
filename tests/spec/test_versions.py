"""Versions: which are accepted, what is said about those that were not tried, and where checksums come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from components.cluster.host import host_files
from components.spec import versions
from components.spec.findings import SpecError
from components.spec.load import parse_lab
from components.spec.models import Lab
from components.spec.notes import notes

SUM = "a" * 64


def test_the_shipped_table_is_what_its_models_say() -> None:
    """The program does not validate its own file."""
    file = yaml.safe_load(Path(versions.__file__).with_suffix(".yaml").read_text(encoding="utf-8"))
    minors = file["kubernetes"]["minors"]
    assert {minor: versions.KubernetesMinor(**found) for minor, found in minors.items()} == versions.KUBERNETES
    assert versions.Pins(calico=file["calico"]["releases"]).calico == versions.CALICO


def lab(**keys: Any) -> Lab:
    return parse_lab({"machines": {"provider": "local"}, **keys})


def said(**keys: Any) -> list[tuple[str, bool]]:
    return [(str(note), note.warning) for note in notes(lab(**keys))]


def multus(version: str) -> dict[str, Any]:
    delegate = {"name": "a", "rangeStart": 50, "rangeEnd": 100}
    return {"version": version, "clusterNetwork": "a", "delegates": [delegate]}


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    file = tmp_path / "pins.yaml"
    monkeypatch.setattr(versions, "PINS", file)
    return file


def pin(file: Path, *releases: str) -> None:
    sums = "".join(f"      {name}: {SUM}\n" for name in ("v1_crd_projectcalico_org.yaml", "tigera-operator.yaml"))
    entries = [f"  {v}:\n    pinned: 2026-11-25\n    operator: 1.43.0\n    sha256:\n{sums}" for v in releases]
    file.write_text("calico:\n" + "".join(entries))


def test_known_versions_need_no_note() -> None:
    assert said(multus=multus(versions.DEFAULT_MULTUS)) == []
    for minor, known in versions.KUBERNETES.items():
        for version in (f"{minor}.{known.patch}", f"{minor}.0"):
            assert said(kubernetes={"version": version}) == []


def test_a_later_patch_is_accepted_and_noted() -> None:
    [(text, warning)] = said(kubernetes={"version": "1.36.4"})
    assert text == "kubernetes.version: 1.36.4 — a later patch release than 1.36.3; not tried here"
    assert not warning
    assert said(multus=multus("4.3.1")) == [
        ("multus.version: 4.3.1 — a later patch release than 4.3.0; not tried here", False)
    ]


def test_a_later_minor_is_accepted_with_a_warning_that_names_what_was_not_tried() -> None:
    [(text, warning)] = said(kubernetes={"version": "1.99.2"})
    assert warning
    for part in ("v1beta4", "CRI-O 1.99", "Calico 3.32.1", "upgrade", "pause is asked of kubeadm"):
        assert part in text
    [(text, warning)] = said(multus=multus("4.4.0"))
    assert warning and "not tried here" in text and "4.3.0" in text


def test_what_an_unknown_minor_decides_is_not_in_the_files() -> None:
    def drop_ins(version: str) -> list[str]:
        return [f.path for f in host_files(lab(kubernetes={"version": version})) if "crio.conf.d" in f.path]

    assert drop_ins("1.36.4") == ["/etc/crio/crio.conf.d/20-cni-lab.conf"]
    assert drop_ins("1.99.0") == []
    assert versions.pause("1.99.0") is None
    assert (versions.crio("1.36.4"), versions.crio("1.99.2")) == ("1.36.3", "1.99")


def test_a_pinned_release_of_calico_is_accepted(pinned: Path) -> None:
    for version in ("3.31.7", "3.33.0", "3.32.2"):
        with pytest.raises(SpecError, match=f"run ./lab pin calico {version}"):
            lab(calico={"version": version})
    pin(pinned, "3.31.7", "3.33.0", "3.32.2")
    for version, warning in (("3.31.7", True), ("3.33.0", True), ("3.32.2", False)):
        [(text, is_warning)] = said(calico={"version": version})
        assert is_warning == warning and "not tried here" in text
    # Only the operator's manifests are pinned.
    with pytest.raises(SpecError, match=r"the checksum of calico-vxlan\.yaml is not known"):
        lab(calico={"version": "3.33.0", "install": "manifest"})


def test_checksums_in_the_stack_file_are_enough(pinned: Path) -> None:
    sums = {"v1_crd_projectcalico_org.yaml": SUM, "tigera-operator.yaml": "b" * 64}
    accepted = lab(calico={"version": "3.33.0", "sha256": sums})
    assert versions.calico_sums("3.33.0", accepted.calico.sha256) == sums
    # They win over what is pinned elsewhere: the file's author wrote them for this lab.
    pin(pinned, "3.33.0")
    assert versions.calico_sums("3.33.0", accepted.calico.sha256) == sums


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("calico: [", "stacks/pins.yaml is not YAML"),
        ("calico: {3.33.0: {operator: 1.43.0}}", "calico.3.33.0.pinned: field required"),
        ("- calico", "the file: input should be"),
        ("calico: {3.33.0: {pinned: 2026-11-25, operator: 1.43.0, sha256: {calico.yaml: abc}}}", "calico.yaml: string"),
    ],
)
def test_a_broken_pins_file_is_named(pinned: Path, text: str, part: str) -> None:
    pinned.write_text(text)
    with pytest.raises(SpecError) as caught:
        lab(calico={"version": "3.33.0"})
    [finding] = caught.value.findings
    assert finding.key == "calico.version" and part in str(finding)
    # A known release does not need the file.
    assert said() == []


@pytest.mark.parametrize("is_folder", [True, False])
def test_a_pins_file_that_cannot_be_read(pinned: Path, is_folder: bool) -> None:
    if is_folder:
        pinned.mkdir()
    else:
        pinned.write_bytes(b"\xff")
    with pytest.raises(versions.PinsError, match=r"stacks/pins\.yaml cannot be read"):
        versions.pins()


def test_a_pinned_release_has_one_manifest_at_least() -> None:
    assert Path(__file__).parents[2] / "stacks" / "pins.yaml" == versions.PINS
    text = "calico: {3.33.0: {pinned: 2026-11-25, operator: 1.43.0, sha256: {%s}}}"
    assert list(versions.parse_pins(text % f"calico.yaml: {SUM}").calico) == ["3.33.0"]
    with pytest.raises(versions.PinsError, match=r"calico\.3\.33\.0\.sha256: .* at least 1 item"):
        versions.parse_pins(text % "")


def test_a_shipped_release_takes_only_the_calicoctl_of_the_pins(pinned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release = versions.CALICO[versions.DEFAULT_CALICO]
    whole, bare = (release.model_copy(update={"calicoctl": sums}) for sums in ({"amd64": SUM}, {}))
    monkeypatch.setattr(versions, "CALICO", {"1.0.0": whole, "1.0.1": bare})
    assert [versions.calico_release(f"1.0.{patch}") for patch in range(3)] == [whole, bare, None]
    pin(pinned, "1.0.0", "1.0.1", "1.0.2")
    other = {"amd64": "b" * 64}
    pinned.write_text(pinned.read_text().replace("    sha256:", f"    calicoctl: {other}\n    sha256:"))
    third = versions.pins().calico["1.0.2"]
    assert third.calicoctl == other
    taken = [whole, bare.model_copy(update={"calicoctl": other}), third]
    assert [versions.calico_release(f"1.0.{patch}") for patch in range(3)] == taken


def test_the_images_of_known_and_unknown_versions(pinned: Path) -> None:
    images = versions.kubeadm_images(versions.DEFAULT_KUBERNETES)
    assert images is not None and f"registry.k8s.io/kube-proxy:v{versions.DEFAULT_KUBERNETES}" in images
    assert versions.kubeadm_images("1.99.0") is None
    operator = f"quay.io/tigera/operator:v{versions.CALICO[versions.DEFAULT_CALICO].operator}"
    assert operator in versions.calico_images(versions.DEFAULT_CALICO, "operator")
    for version, install in ((versions.DEFAULT_CALICO, "manifest"), ("3.99.0", "operator")):
        assert not [image for image in versions.calico_images(version, install) if "tigera" in image]
