"""The versions that are known to work together, and the checksums of the files that are downloaded.

Only these versions are supported; any other is refused before anything is made. Sources: the release assets of Calico
and Multus; https://kubernetes.io/releases/ for Kubernetes, and the same minor versions of CRI-O.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

# Minor version → newest known patch version. Earlier patches exist; later ones are refused until they are added here.
KUBERNETES: Final[dict[str, int]] = {"1.34": 4, "1.35": 4, "1.36": 3}
DEFAULT_KUBERNETES: Final = "1.36.3"

# Kubernetes' minor version → CRI-O's version, which has the same minor. Without a patch version any patch is used.
CRIO: Final[dict[str, str]] = {"1.34": "1.34", "1.35": "1.35", "1.36": "1.36.3"}
# The fingerprint of the key that signs the Kubernetes packages (pkgs.k8s.io, project isv:kubernetes).
KUBERNETES_KEY: Final = "DE15B14486CD377B9E876E1A234654DA9A296436"
# The fingerprint of the key that signs the CRI-O packages (project isv:cri-o; as shown in cri-o/cri-o#9298).
CRIO_KEY: Final = "85B67D5C50100B1AC8CEFE49CBA9C85640A2B579"
# The version of the pause image for each minor version (k8s.io/kubernetes cmd/kubeadm/app/constants).
PAUSE: Final[dict[str, str]] = {"1.34": "3.10.1", "1.35": "3.10.1", "1.36": "3.10.2"}


@dataclass(frozen=True)
class CalicoPin:
    """A release of Calico.

    `operator`: the version of the Tigera operator. `sha256`: the checksum of each manifest, by its file name.
    `calicoctl`: the checksum of calicoctl-linux-ARCHITECTURE, by architecture (amd64, arm64).
    """

    operator: str
    sha256: dict[str, str]
    calicoctl: dict[str, str] = field(default_factory=dict)


CALICO: Final[dict[str, CalicoPin]] = {
    "3.32.1": CalicoPin(
        operator="1.42.3",
        sha256={
            "v1_crd_projectcalico_org.yaml": "192f8b2d934ef24b62e86b7e1a6e1762d1c8af26a916f78057bc13fa5ed60f71",
            "tigera-operator.yaml": "f18e073794207d372606bc3ea6f8fd73972f86d6828f4ba666dfe0d4aa8ab07f",
            "calico.yaml": "a1df919d9721cf667accdc3e72848911b0cb25cfab7d2478ad0c996302c95744",
            "calico-vxlan.yaml": "c2ab4f9a4ecde01d66e6f040d6745cd7f174d5ded573164c809ffb9f40a9d566",
        },
        # No checksum of calicoctl: the release's SHA256SUMS is not known yet. The stack file may give the checksum.
    ),
}
DEFAULT_CALICO: Final = "3.32.1"

MULTUS: Final = ("4.3.0",)
DEFAULT_MULTUS: Final = "4.3.0"
