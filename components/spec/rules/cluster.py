"""Kubernetes: versions that work together, control planes, and labels and taints that kubelet accepts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address

from components.spec import versions
from components.spec.findings import Finding, shown, shown_key
from components.spec.grammar.labels import is_domain, is_key, is_value, kubelet_may_set
from components.spec.models import Lab
from components.spec.rules.core import listed, repeated, rule


@rule("kubernetes.version")
def kubernetes_version(lab: Lab) -> Iterator[Finding]:
    """Later versions than the known ones are accepted, with a note (components/spec/notes.py)."""
    version = lab.kubernetes.version
    if malformed := _malformed("kubernetes.version", version):
        yield malformed
        return
    oldest, *_, newest = sorted(versions.KUBERNETES, key=versions.numbers)
    minor = versions.minor_of(version)
    first = f"{oldest}.0"
    if versions.numbers(version) < versions.numbers(first):
        known = versions.KUBERNETES[oldest].patch
        problem = f"is earlier than {first}, the oldest version that is supported"
        yield Finding("kubernetes.version", version, problem, f"write {oldest}.{known} or a later version")
    elif minor not in versions.KUBERNETES and minor.split(".")[0] != newest.split(".")[0]:
        problem = "has a major version that is not known"
        fix = f"write {newest}.{versions.KUBERNETES[newest].patch}"
        yield Finding("kubernetes.version", version, problem, fix)


@rule("calico.version", "calico.sha256", "calico.install", "calico.bgp")
def calico_version(lab: Lab) -> Iterator[Finding]:
    calico = lab.calico
    key, version = "calico.version", calico.version
    if malformed := _malformed(key, version):
        yield malformed
        return
    if versions.numbers(version) < versions.numbers(versions.OLDEST_CALICO):
        yield _too_old(key, version, versions.OLDEST_CALICO, versions.DEFAULT_CALICO)
        return
    try:
        sums = versions.calico_sums(version, calico.sha256)
    except versions.PinsError as error:
        fix = "correct that file, or remove it and run ./lab pin again"
        yield Finding(key, version, f"its checksums cannot be looked up: {error}", fix)
        return
    if missing := [name for name in versions.calico_manifests(calico.install, calico.bgp) if name not in sums]:
        problem = f"the checksum of {' and of '.join(missing)} is not known"
        fix = f"run ./lab pin calico {version}, which fetches and shows it, or write {versions.DEFAULT_CALICO}"
        yield Finding(key, version, problem, fix)


@rule("multus.version")
def multus_version(lab: Lab) -> Iterator[Finding]:
    if lab.multus is not None:
        key, version = "multus.version", lab.multus.version
        if malformed := _malformed(key, version):
            yield malformed
        elif versions.numbers(version) < versions.numbers(versions.OLDEST_MULTUS):
            yield _too_old(key, version, versions.OLDEST_MULTUS, versions.DEFAULT_MULTUS)


def _malformed(key: str, version: str) -> Finding | None:
    plain = ".".join(str(number) for number in versions.numbers(version))
    if plain == version:
        return None
    return Finding(key, version, "has a number with a leading zero", f"write {plain}")


def _too_old(key: str, version: str, oldest: str, default: str) -> Finding:
    problem = f"is earlier than {oldest}, the oldest version that is supported"
    return Finding(key, version, problem, f"write {default}")


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
    if re.fullmatch(r"[0-9.]+", text):
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


OWN_ARGUMENTS = {
    "advertise-address": "nodes[].address",
    "secure-port": "kubernetes.controlPlaneEndpoint",
    "service-cluster-ip-range": "kubernetes.serviceCidr",
}
"""Arguments of kube-apiserver that another key of the stack file gives, and that key."""


@rule("kubernetes.apiServer")
def api_server_arguments(lab: Lab) -> Iterator[Finding]:
    args = lab.kubernetes.api_server.extra_args
    for index, argument in enumerate(args):
        if argument.name in OWN_ARGUMENTS:
            key = f"kubernetes.apiServer.extraArgs[{index}].name"
            problem = "follows from another key of this file"
            yield Finding(key, argument.name, problem, f"write {OWN_ARGUMENTS[argument.name]}, and remove it here")
    for index, first in repeated([argument.name for argument in args]):
        key = f"kubernetes.apiServer.extraArgs[{index}].name"
        yield Finding(key, args[index].name, f"is extraArgs[{first}] already", "keep one of the two")


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


_KUBE_PROXY_TARGET_SINCE = (1, 37)
"""The first minor whose kubeadm patches kube-proxy (cmd/kubeadm/app/util/patches, KubeProxyDaemonSet)."""


@rule("kubernetes.patches[].target", "kubernetes.version", each="kubernetes.patches[]")
def patch_targets(lab: Lab) -> Iterator[Finding]:
    version = lab.kubernetes.version
    if versions.numbers(version)[:2] >= _KUBE_PROXY_TARGET_SINCE:
        return
    for index, it in enumerate(lab.kubernetes.patches):
        if it.target == "kubeproxydaemonset":
            problem = f"is a target that the kubeadm of Kubernetes {version} does not have"
            fix = "leave the patch out, or set kubernetes.version to 1.37 or later"
            yield Finding(f"kubernetes.patches[{index}].target", it.target, problem, fix)


@rule("kubernetes.patches[].type", "kubernetes.patches[].patch", each="kubernetes.patches[]")
def patches(lab: Lab) -> Iterator[Finding]:
    for index, it in enumerate(lab.kubernetes.patches):
        key = f"kubernetes.patches[{index}].patch"
        if it.type != "json":
            if not isinstance(it.patch, dict):
                problem = f"is not the mapping that a {it.type} patch is"
                fix = "write the part of the object that changes, e.g. {metadata: {labels: {a: b}}}"
                yield Finding(key, shown(it.patch), problem, fix)
        elif not isinstance(it.patch, list):
            fix = "write e.g. [{op: add, path: /metadata/labels/a, value: b}]"
            yield Finding(key, shown(it.patch), "is not the list of operations that a json patch is", fix)
        else:
            for number, operation in enumerate(it.patch):
                if not _is_operation(operation):
                    fix = f"write op ({listed(_OPERATIONS)}) and path, e.g. /metadata/labels/a"
                    yield Finding(f"{key}[{number}]", shown(operation), "is no operation of a json patch", fix)


def _is_operation(value: object) -> bool:
    """Whether it is an operation of RFC 6902, as far as its name and its path tell."""
    return isinstance(value, dict) and value.get("op") in _OPERATIONS and str(value.get("path", "")).startswith("/")


_OPERATIONS = ("add", "remove", "replace", "move", "copy", "test")

RULES = (
    kubernetes_version,
    calico_version,
    multus_version,
    control_planes,
    endpoint,
    dns_domain,
    labels_and_taints,
    api_server_arguments,
    patch_targets,
    patches,
)
