"""The key `mirrors`: where everything that is downloaded comes from."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

from components.spec import versions
from components.spec.models.base import Model
from components.spec.versions import Sha256

Registry = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._/-]+)?$")]


class ImageMirror(Model):
    registry: Registry
    """Registry that is mirrored, e.g. registry.k8s.io."""
    mirror: Registry
    """The mirror, host[:port][/path]. It is asked before the registry."""
    insecure: bool = False
    """Accept plain HTTP, and certificates of an unknown authority."""


Url = Annotated[str, StringConstraints(pattern=r"^(https?|file)://[^\s]+[^/\s]$")]


Fingerprint = Annotated[str, StringConstraints(pattern=r"^[0-9A-F]{40}$")]


class CalicoctlSums(Model):
    """Checksums of calicoctl, from the release's SHA256SUMS."""

    amd64: Sha256 | None = None
    """SHA-256 of calicoctl-linux-amd64."""
    arm64: Sha256 | None = None
    """SHA-256 of calicoctl-linux-arm64."""


class Mirrors(Model):
    """Every address outside the lab. URLs have no final slash."""

    kubernetes_packages: Url = "https://pkgs.k8s.io/core:/stable:"
    """Base URL of the Kubernetes packages: BASE/v1.36/deb/ is a repository."""
    kubernetes_key: Fingerprint = versions.KUBERNETES_KEY
    """Fingerprint of the key that signs the Kubernetes packages. Packages signed with another key are refused."""
    crio_packages: Url = "https://download.opensuse.org/repositories/isv:/cri-o:/stable:"
    """Base URL of the CRI-O packages: BASE/v1.36/deb/ is a repository."""
    crio_key: Fingerprint = versions.CRIO_KEY
    """Fingerprint of the key that signs the CRI-O packages. Packages signed with another key are refused."""
    calico_manifests: Url = "https://raw.githubusercontent.com/projectcalico/calico"
    """Base URL of Calico's manifests: they are in BASE/v3.32.1/manifests/. Their checksums are pinned."""
    calicoctl: Url = "https://github.com/projectcalico/calico/releases/download"
    """Base URL of calicoctl: it is in BASE/v3.32.1/."""
    calicoctl_sha256: CalicoctlSums = CalicoctlSums.model_construct()
    """Checksums of calicoctl, by architecture, for a version that has none pinned. Without a checksum calicoctl is not
    installed."""
    images: tuple[ImageMirror, ...] = ()
    """Mirrors of container registries."""
