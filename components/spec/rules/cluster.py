"""Kubernetes: versions that go together, control planes, labels and taints that kubelet takes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address

from components.spec import pins
from components.spec.findings import Finding, nearest, shown, shown_key
from components.spec.models import Lab
from components.spec.rules.core import listed, rule

NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
PREFIX = re.compile(r"(?=.{1,253}$)[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
# What kubelet lets a node say of itself in these two domains (k8s.io/kubernetes pkg/util/node, KubeletLabels).
KUBELET_LABELS = {
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
KUBELET_DOMAINS = ("kubelet.kubernetes.io", "node.kubernetes.io")


@rule("kubernetes.version")
def kubernetes_version(lab: Lab) -> Iterator[Finding]:
    key, version = "kubernetes.version", lab.kubernetes.version
    minor, _, patch = version.rpartition(".")
    newest = pins.KUBERNETES.get(minor)
    if newest is None:
        known = listed([f"{m}.{p}" for m, p in pins.KUBERNETES.items()])
        # Same major, and beside the known minors in number: one released too late or too early for the pins.
        near = min(pins.KUBERNETES, key=lambda m: abs(_number(m) - _number(minor)))
        fix = f"write {near}.{pins.KUBERNETES[near]}; known minors up to {known}"
        yield Finding(key, version, "is of a minor that is not known to work with the rest", fix)
    elif int(patch) > newest or str(int(patch)) != patch:
        problem = f"is not a known patch of {minor}"
        yield Finding(key, version, problem, f"write {minor}.{newest} or an earlier patch")


def _number(minor: str) -> int:
    major, _, rest = minor.partition(".")
    return int(major) * 1000 + int(rest)


@rule("calico.version")
def calico_version(lab: Lab) -> Iterator[Finding]:
    yield from _pinned("calico.version", lab.calico.version, list(pins.CALICO), pins.DEFAULT_CALICO)


@rule("multus.version")
def multus_version(lab: Lab) -> Iterator[Finding]:
    if lab.multus is not None:
        yield from _pinned("multus.version", lab.multus.version, list(pins.MULTUS), pins.DEFAULT_MULTUS)


def _pinned(key: str, version: str, known: list[str], default: str) -> Iterator[Finding]:
    if version not in known:
        problem = "is not a version whose checksums are known here"
        yield Finding(key, version, problem, f"write {nearest(version, known) or default}; known: {listed(known)}")


@rule("nodes[].role", "kubernetes.allowEvenControlPlanes")
def control_planes(lab: Lab) -> Iterator[Finding]:
    count = len(lab.control_planes)
    if not count:
        fix = "give one of them role: control-plane"
        yield Finding("nodes", f"{len(lab.nodes)} workers", "no node is a control plane", fix)
    elif count % 2 == 0 and not lab.kubernetes.allow_even_control_planes:
        problem = f"tolerate no more losses than {count - 1} would"
        fix = "make their number odd, or set kubernetes.allowEvenControlPlanes: true"
        yield Finding("nodes", f"{count} control planes", problem, fix)


@rule("kubernetes.controlPlaneEndpoint")
def endpoint(lab: Lab) -> Iterator[Finding]:
    given = lab.kubernetes.control_plane_endpoint
    if given is None:
        return
    host, _, port = given.rpartition(":")
    key = "kubernetes.controlPlaneEndpoint"
    if not 1 <= int(port) <= 65535:
        yield Finding(key, shown(given), "has a port that does not exist", "choose one from 1 to 65535, e.g. 6443")
    elif not _is_host(host):
        problem = "has no host name or IPv4 address before the port"
        yield Finding(key, shown(given), problem, "write e.g. 10.0.1.10:6443")


def _is_host(text: str) -> bool:
    if re.fullmatch(r"[\d.]+", text):
        try:
            IPv4Address(text)
        except ValueError:
            return False
        return True
    return PREFIX.fullmatch(text.lower()) is not None


@rule("kubernetes.dnsDomain")
def dns_domain(lab: Lab) -> Iterator[Finding]:
    given = lab.kubernetes.dns_domain
    if not PREFIX.fullmatch(given) or any(len(label) > 63 for label in given.split(".")):
        fix = "write lower-case labels with dots, e.g. cluster.local"
        yield Finding("kubernetes.dnsDomain", shown(given), "is not a DNS domain", fix)


@rule("nodes[].labels", "nodes[].taints", each="nodes[]")
def labels_and_taints(lab: Lab) -> Iterator[Finding]:
    for index, node in enumerate(lab.nodes):
        key = f"nodes[{index}]"
        yield from label_findings(f"{key}.labels", node.labels)
        for name in node.labels:
            domain = name.partition("/")[0] if "/" in name else ""
            known = name in KUBELET_LABELS or any(_inside(domain, d) for d in KUBELET_DOMAINS)
            if any(_inside(domain, d) for d in ("kubernetes.io", "k8s.io")) and not known:
                place, problem = f"{key}.labels.{shown_key(name)}", "kubelet may not give its own node this label"
                yield Finding(place, shown(node.labels[name]), problem, "use a prefix of your own, e.g. example.com/")
        for number, taint in enumerate(node.taints):
            yield from label_findings(f"{key}.taints[{number}]", {taint.key: taint.value})


def _inside(domain: str, outer: str) -> bool:
    return domain == outer or domain.endswith(f".{outer}")


def label_findings(key: str, labels: Mapping[str, str]) -> Iterator[Finding]:
    """What is wrong with labels (kubernetes.io "Labels and Selectors", syntax and character set)."""
    for name, value in labels.items():
        prefix, slash, last = name.rpartition("/")
        if not NAME.fullmatch(last) or (slash and not PREFIX.fullmatch(prefix)):
            problem = "is not a label's key"
            fix = "write [prefix/]name, the name of at most 63 letters, digits, - _ and ."
            yield Finding(f"{key}.{shown_key(name)}", shown(value), problem, fix)
        if value and not NAME.fullmatch(value):
            fix = "write at most 63 letters, digits, - _ and . with a letter or digit at both ends"
            yield Finding(f"{key}.{shown_key(name)}", shown(value), "is not a label's value", fix)


RULES = (
    kubernetes_version,
    calico_version,
    multus_version,
    control_planes,
    endpoint,
    dns_domain,
    labels_and_taints,
)
