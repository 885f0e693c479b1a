"""The versions that are known, and the checksums of what is downloaded: versions.yaml and stacks/pins.yaml as values.

`./lab pin` adds releases of Calico to stacks/pins.yaml.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Final, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from components.spec.own_yaml import read_yaml

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Manifest = Literal["v1_crd_projectcalico_org.yaml", "tigera-operator.yaml", "calico.yaml", "calico-vxlan.yaml"]

PINS: Final = Path(__file__).parents[2] / "stacks" / "pins.yaml"
Version = Annotated[str, StringConstraints(pattern=r"^[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}$")]


class PinsError(Exception):
    """stacks/pins.yaml cannot be used. The text is one line that says why."""


class _Data(BaseModel):
    # versions.yaml is ours and tests/spec/test_versions.py checks it, so most commands need no validator.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class KubernetesMinor(_Data):
    """`patch`: the last known patch release. `released`, `patched`: when its first and that release were made. `pause`:
    the version of the pause image that its kubeadm names; `etcd`, `coredns`: of those images."""

    patch: int
    released: date
    patched: date
    pause: str
    etcd: str
    coredns: str


class CalicoRelease(_Data):
    """`pinned`: when the checksums were taken. `operator`: the version of the Tigera operator. `sha256`: of each
    manifest. `calicoctl`: the checksum of calicoctl-linux-ARCHITECTURE, by architecture."""

    pinned: date
    operator: Version
    sha256: dict[Manifest, Sha256] = Field(min_length=1)
    calicoctl: dict[Literal["amd64", "arm64"], Sha256] = {}


class Pins(_Data):
    """The content of stacks/pins.yaml: releases of Calico by version."""

    calico: dict[Version, CalicoRelease] = {}


_KNOWN: Final = read_yaml(Path(__file__).with_suffix(".yaml"))

KUBERNETES: Final[Mapping[str, KubernetesMinor]] = {
    minor: KubernetesMinor.model_construct(**found) for minor, found in _KNOWN["kubernetes"]["minors"].items()
}
KUBERNETES_REGISTRY: Final = "registry.k8s.io"
DEFAULT_KUBERNETES: Final[str] = _KNOWN["kubernetes"]["default"]
KUBERNETES_KEY: Final[str] = _KNOWN["kubernetes"]["key"]
CRIO_KEY: Final[str] = _KNOWN["crio"]["key"]

CALICO_IMAGES: Final[Mapping[str, list[str]]] = _KNOWN["calico"]["images"]
"""By calico.install, the names of Calico's images."""
CALICO: Final[Mapping[str, CalicoRelease]] = {
    version: CalicoRelease.model_construct(**found) for version, found in _KNOWN["calico"]["releases"].items()
}
DEFAULT_CALICO: Final[str] = _KNOWN["calico"]["default"]
OLDEST_CALICO: Final[str] = _KNOWN["calico"]["oldest"]

DEFAULT_MULTUS: Final[str] = _KNOWN["multus"]["default"]
OLDEST_MULTUS: Final[str] = _KNOWN["multus"]["oldest"]

WHEREABOUTS: Final[str] = _KNOWN["whereabouts"]["default"]


def numbers(version: str) -> tuple[int, ...]:
    """The numbers of a version, for comparisons: (1, 36, 3) for 1.36.3."""
    return tuple(int(part) for part in version.split("."))


def minor_of(version: str) -> str:
    """The minor of a version: 1.36 for 1.36.3."""
    return version.rpartition(".")[0]


def crio(kubernetes: str) -> str:
    """The version of CRI-O for a version of Kubernetes. A minor alone stands for its last patch release."""
    minor = minor_of(kubernetes)
    found: str = _KNOWN["crio"]["versions"].get(minor, minor)
    return found


def pause(kubernetes: str) -> str | None:
    """The version of the pause image. None for an unknown minor: then kubeadm is asked on the node."""
    known = KUBERNETES.get(minor_of(kubernetes))
    return known.pause if known else None


def kubeadm_images(kubernetes: str) -> list[str] | None:
    """The images that kubeadm pulls on a node, as `kubeadm config images list` names them. None for an unknown minor.

    Another patch release than the table's may name another etcd or CoreDNS.
    """
    known = KUBERNETES.get(minor_of(kubernetes))
    if known is None:
        return None
    programs = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy")
    images = [
        *(f"{program}:v{kubernetes}" for program in programs),
        f"coredns/coredns:v{known.coredns}",
        f"pause:{known.pause}",
        f"etcd:{known.etcd}",
    ]
    return [f"{KUBERNETES_REGISTRY}/{image}" for image in images]


def calico_images(version: str, install: str) -> list[str]:
    """The images that an installation of Calico pulls. The operator's own is left out if its version is not known."""
    images = [f"quay.io/calico/{name}:v{version}" for name in CALICO_IMAGES[install]]
    release = calico_release(version)
    if install == "operator" and release is not None:
        images.append(f"quay.io/tigera/operator:v{release.operator}")
    return images


def calico_manifests(install: str, bgp: str) -> tuple[Manifest, ...]:
    """The release's files that an installation reads, in the order in which they are applied."""
    if install == "operator":
        return ("v1_crd_projectcalico_org.yaml", "tigera-operator.yaml")
    # The manifest with BIRD, or the one with VXLAN alone.
    return ("calico.yaml",) if bgp == "Enabled" else ("calico-vxlan.yaml",)


def calico_release(version: str) -> CalicoRelease | None:
    """A pinned release of Calico. Raises PinsError if stacks/pins.yaml is needed and that file is broken.

    The checksums of calicoctl may come from that file although the manifests' are shipped.
    """
    shipped = CALICO.get(version)
    if shipped is not None and shipped.calicoctl:
        return shipped
    pinned = pins().calico.get(version)
    if shipped is None or pinned is None:
        return shipped or pinned
    return shipped.model_copy(update={"calicoctl": pinned.calicoctl})


def calico_sums(version: str, given: Mapping[Manifest, str]) -> dict[Manifest, str]:
    """The known checksums of a release's manifests. `given`: those of the stack file. Raises PinsError."""
    release = CALICO.get(version) or pins().calico.get(version)
    return {**(release.sha256 if release else {}), **given}


def pins() -> Pins:
    """stacks/pins.yaml. Empty if there is no such file. Raises PinsError."""
    try:
        text = PINS.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Pins()
    except (OSError, UnicodeDecodeError) as error:
        raise PinsError(f"stacks/pins.yaml cannot be read: {error}") from None
    return parse_pins(text)


@cache
def parse_pins(text: str) -> Pins:
    """The text of a pins file as values. Raises PinsError."""
    try:
        return Pins.model_validate(yaml.safe_load(text) or {})
    except yaml.YAMLError as error:
        raise PinsError(f"stacks/pins.yaml is not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise PinsError(f"stacks/pins.yaml: {place}: {first['msg'][0].lower()}{first['msg'][1:]}") from None
