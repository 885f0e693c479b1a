"""Kubernetes: versions that work together, control planes, and labels and taints that kubelet accepts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address

from components.spec import pins
from components.spec.findings import Finding, nearest, shown, shown_key
from components.spec.grammar.labels import is_domain, is_key, is_value, kubelet_may_set
from components.spec.models import Lab
from components.spec.rules.core import listed, repeated, rule


@rule("kubernetes.version")
def kubernetes_version(lab: Lab) -> Iterator[Finding]:
    key, version = "kubernetes.version", lab.kubernetes.version
    minor, _, patch = version.rpartition(".")
    newest = pins.KUBERNETES.get(minor)
    if newest is None:
        known = listed([f"{m}.{p}" for m, p in pins.KUBERNETES.items()])
        # The nearest known minor: the one that is given may be too new or too old for the pins.
        near = min(pins.KUBERNETES, key=lambda m: abs(_number(m) - _number(minor)))
        fix = f"write {near}.{pins.KUBERNETES[near]}; known are the minor versions up to {known}"
        yield Finding(key, version, "has a minor version that is not known to work with the rest", fix)
    elif int(patch) > newest or str(int(patch)) != patch:
        problem = f"is not a known patch version of {minor}"
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
        problem = "is not a version with known checksums"
        yield Finding(key, version, problem, f"write {nearest(version, known) or default}; known is {listed(known)}")


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
        yield Finding(key, shown(given), "has an impossible port", "choose one from 1 to 65535, e.g. 6443")
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
    return is_domain(text.lower())


@rule("kubernetes.dnsDomain")
def dns_domain(lab: Lab) -> Iterator[Finding]:
    given = lab.kubernetes.dns_domain
    if not is_domain(given) or any(len(label) > 63 for label in given.split(".")):
        fix = "write lower-case labels with dots, e.g. cluster.local"
        yield Finding("kubernetes.dnsDomain", shown(given), "is not a DNS domain", fix)


@rule("nodes[].labels", "nodes[].taints", each="nodes[]")
def labels_and_taints(lab: Lab) -> Iterator[Finding]:
    for index, node in enumerate(lab.nodes):
        key = f"nodes[{index}]"
        yield from label_findings(f"{key}.labels", node.labels)
        for name in node.labels:
            if not kubelet_may_set(name):
                place, problem = f"{key}.labels.{shown_key(name)}", "kubelet may not set this label on its own node"
                yield Finding(place, shown(node.labels[name]), problem, "use a prefix of your own, e.g. example.com/")
        taints = node.taints or ()
        for number, taint in enumerate(taints):
            yield from label_findings(f"{key}.taints[{number}]", {taint.key: taint.value})
        for number, first in repeated([(taint.key, taint.effect) for taint in taints]):
            problem = f"has the same key and effect as taints[{first}], which the API refuses"
            yield Finding(f"{key}.taints[{number}].key", taints[number].key, problem, "remove one of the two")


def label_findings(key: str, labels: Mapping[str, str]) -> Iterator[Finding]:
    """What is wrong with the keys and values of labels."""
    for name, value in labels.items():
        if not is_key(name):
            problem = "is not a valid label key"
            fix = "write [prefix/]name; the name has at most 63 letters, digits, - _ and ."
            yield Finding(f"{key}.{shown_key(name)}", shown(value), problem, fix)
        if not is_value(value):
            fix = "write at most 63 letters, digits, - _ and . with a letter or digit at both ends"
            yield Finding(f"{key}.{shown_key(name)}", shown(value), "is not a valid label value", fix)


RULES = (
    kubernetes_version,
    calico_version,
    multus_version,
    control_planes,
    endpoint,
    dns_domain,
    labels_and_taints,
)
