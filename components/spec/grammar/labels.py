"""Labels of Kubernetes: the syntax of keys and values, and the labels that kubelet may set on its own node.

Taints have keys and values of the same syntax. Sources: kubernetes.io "Labels and Selectors"; k8s.io/kubernetes
staging/src/k8s.io/apimachinery/pkg/util/validation and staging/src/k8s.io/kubelet/pkg/apis/well_known_labels.go.
"""

from __future__ import annotations

import re
from typing import Final

_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_DOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")

# The labels in Kubernetes' own domains that kubelet may set on its own node.
_KUBELET_LABELS: Final = {
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
}
_KUBELET_DOMAINS: Final = ("kubelet.kubernetes.io", "node.kubernetes.io")
_KUBERNETES_DOMAINS: Final = ("kubernetes.io", "k8s.io")


def is_domain(text: str) -> bool:
    """Whether the text is a DNS name in lower case (RFC 1123)."""
    return _DOMAIN.fullmatch(text) is not None


def is_key(text: str) -> bool:
    """Whether the text is a label's key: [prefix/]name."""
    prefix, slash, name = text.rpartition("/")
    return _NAME.fullmatch(name) is not None and (not slash or is_domain(prefix))


def is_value(text: str) -> bool:
    """Whether the text is a label's value. A value may be empty."""
    return not text or _NAME.fullmatch(text) is not None


def kubelet_may_set(key: str) -> bool:
    """Whether kubelet may set this label on its own node (the NodeRestriction admission plugin)."""
    domain = key.partition("/")[0] if "/" in key else ""
    if not _inside(domain, _KUBERNETES_DOMAINS):
        return True
    return key in _KUBELET_LABELS or _inside(domain, _KUBELET_DOMAINS)


def _inside(domain: str, outers: tuple[str, ...]) -> bool:
    return any(domain == outer or domain.endswith(f".{outer}") for outer in outers)
