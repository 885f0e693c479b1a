"""Everything that a lab fetches: images, packages, files, and what this computer needs, read from the lab's plan.

A node with a baked image fetches less: it installs no packages that it has, and pulls no image that its store has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version as version_of
from typing import Any, Literal

from cli.lifecycle import pulumi_cli
from components.machines.local.containers import BASE_IMAGE
from components.spec import versions
from components.spec.images import image_parameter
from components.spec.models import AwsMachines, Lab
from components.spec.models.mirrors import ImageMirror
from components.spec.names import LOCAL_SCRIPTS, STEP
from engine.model import Deployment, Json, Resource

Kind = Literal["image", "machine-image", "package", "distribution-package", "file", "program", "plugin"]

# What install_packages in components/node/packages.sh asks apt for; its tests compare them.
KUBERNETES_PACKAGES = ("kubelet", "kubeadm", "kubectl")
UNVERSIONED_PACKAGES = ("cri-tools", "kubernetes-cni")
# What use_repositories there installs first, from the distribution, where it is missing.
DISTRIBUTION_PACKAGES = ("ca-certificates", "curl", "gpg")


@dataclass(frozen=True)
class Need:
    """One thing that a lab fetches.

    `name`: an image's reference, `PACKAGE=VERSION` as apt reads it, a file's URL, or `NAME VERSION`. `source`: where
    this stack's file says to get it; for an image, the reference that is asked first. `check`: how it is verified,
    `sha256:…` or the fingerprint of a key; empty where its name and tag are all that is checked.
    """

    kind: Kind
    name: str
    source: str
    check: str = ""


@dataclass(frozen=True)
class Needs:
    """`needs` in the order in which an `up` fetches them, without duplicates. `notes`: what the plan cannot know."""

    needs: tuple[Need, ...]
    notes: tuple[str, ...]

    def of(self, kind: Kind) -> list[Need]:
        return [need for need in self.needs if need.kind == kind]


def needs_of(deployment: Deployment, lab: Lab) -> Needs:
    """What an `up` of the planned lab fetches. Raises versions.PinsError."""
    found = [
        *_this_computer(deployment),
        *_machine_image(deployment, lab),
        *_from_steps(deployment),
        *(_image(lab, name) for name in _images(deployment, lab)),
    ]
    # The first of equal names: a package that the machine image brings is not installed again.
    first = {(need.kind, need.name): need for need in reversed(found)}
    ordered = sorted(first.values(), key=found.index)
    return Needs(tuple(ordered), tuple(_notes(lab, ordered)))


def mirrored(image: str, mirrors: tuple[ImageMirror, ...]) -> str | None:
    """The reference under which a mirror is asked for an image, or None if no mirror has its registry.

    Of several that match, the longest `registry` counts, as in containers-registries.conf(5).
    """
    matching = [mirror for mirror in mirrors if f"{image}/".startswith(f"{mirror.registry}/")]
    if not matching:
        return None
    best = max(matching, key=lambda mirror: len(mirror.registry))
    return best.mirror + image.removeprefix(best.registry)


def _image(lab: Lab, name: str) -> Need:
    return Need("image", name, mirrored(name, lab.mirrors.images) or name)


def _images(deployment: Deployment, lab: Lab) -> Iterator[str]:
    """Images that the nodes pull: of the control plane, of Calico, and of every object that the plan makes."""
    yield from versions.kubeadm_images(lab.kubernetes.version) or ()
    yield from versions.calico_images(lab.calico.version, lab.calico.install)
    for resource in deployment.resources:
        if resource.type.startswith("kubernetes:"):
            yield from images_in(resource.inputs)


def images_in(value: Any) -> Iterator[str]:
    """Every `image` of the containers in a Kubernetes object, at any depth."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("containers", "initContainers") and isinstance(inner, list):
                yield from (container["image"] for container in inner if "image" in container)
            else:
                yield from images_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from images_in(inner)


def _machine_image(deployment: Deployment, lab: Lab) -> Iterator[Need]:
    """The image that machines boot, and the distribution's packages that are installed into it."""
    if isinstance(lab.machines, AwsMachines):
        image = lab.machines.image or image_parameter(lab.machines)
        yield Need("machine-image", image, image)
    for resource in deployment.resources:
        environment = _local_script(resource, "image")
        if "BASE_IMAGE" in environment:
            # The variable already names the mirror, if there is one.
            yield Need("machine-image", f"docker.io/{BASE_IMAGE}", environment["BASE_IMAGE"])
            for package in environment["PACKAGES"].split():
                yield Need("distribution-package", package, "the package sources of the base image")
        elif environment:
            yield Need("machine-image", environment["IMAGE"], environment["IMAGE"])


def _local_script(resource: Resource, script: str) -> Mapping[str, str]:
    """The variables of a command that runs a script of components/machines/local; empty for another resource."""
    run = str(resource.inputs.get("create", "")) if resource.type == "command:local:Command" else ""
    return resource.inputs.get("environment", {}) if f"{LOCAL_SCRIPTS}{script}.sh " in run else {}


def _from_steps(deployment: Deployment) -> Iterator[Need]:
    """Packages and files that the scripts on the nodes fetch, from the variables that the scripts get."""
    steps: list[Json] = [resource.inputs for resource in deployment.resources if resource.type == STEP]
    for inputs in steps:
        variables = inputs.get("variables")
        if not isinstance(variables, dict):
            continue
        if "prepare.sh" in inputs["scripts"]:
            for package in DISTRIBUTION_PACKAGES:
                yield Need("distribution-package", package, "the distribution, where the machine lacks it")
            yield from _packages(variables)
        if "calicoctl.sh" in inputs["scripts"]:
            for line in variables["CALICOCTL_SHA256"].splitlines():
                architecture, total = line.split()
                yield _file(f"{variables['CALICOCTL_BASE']}/calicoctl-linux-{architecture}", f"sha256:{total}")
        if "calico.sh" in inputs["scripts"]:
            for line in variables["SOURCES"].splitlines():
                total, name = line.split()
                yield _file(f"{variables['BASE']}/{name}", f"sha256:{total}")


def _file(url: str, check: str) -> Need:
    return Need("file", url, url, check)


def _packages(variables: Mapping[str, str]) -> Iterator[Need]:
    """The two repositories of packages.sh: their keys, and what is installed from them."""
    crio = variables["CRIO_VERSION"]
    # As CRIO_PATTERN in packages.sh: a minor stands for any of its patch releases.
    crio_pattern = f"{crio}-*" if crio.count(".") == 2 else f"{crio}.*"
    kubernetes = [f"{name}={variables['KUBERNETES_VERSION']}-*" for name in KUBERNETES_PACKAGES]
    for repository, packages in (
        ("KUBERNETES", [*kubernetes, *UNVERSIONED_PACKAGES]),
        ("CRIO", [f"cri-o={crio_pattern}"]),
    ):
        base, key = variables[f"{repository}_PACKAGES"], variables[f"{repository}_KEY"]
        url = f"{base}/v{variables['KUBERNETES_MINOR']}/deb/"
        yield _file(f"{url}Release.key", key)
        yield from (Need("package", package, url, key) for package in packages)


def _this_computer(deployment: Deployment) -> Iterator[Need]:
    """The pulumi CLI, and the provider plugins of the plan's resources, in the versions that up looks for."""
    yield Need("program", f"pulumi {pulumi_cli.VERSION}", "https://www.pulumi.com/docs/install/")
    packages = set()
    for resource in deployment.resources:
        package, _, rest = resource.type.partition(":")
        # pulumi:providers:kubernetes is of the package kubernetes.
        packages.add(rest.rpartition(":")[2] if resource.type.startswith("pulumi:providers:") else package)
    for package in sorted(packages - {"pulumi", "cnilab"}):
        yield Need("plugin", f"{package} {version_of(f'pulumi-{package}')}", "https://get.pulumi.com/releases/plugins/")


def _notes(lab: Lab, found: list[Need]) -> Iterator[str]:
    wanted = lab.kubernetes.version
    known = versions.KUBERNETES.get(versions.minor_of(wanted))
    if known is None:
        yield (
            f"the images of kubeadm {wanted} are not known here: add what "
            f"`kubeadm config images list --kubernetes-version v{wanted}` names"
        )
    elif versions.numbers(wanted)[2] != known.patch:
        yield (
            f"etcd, CoreDNS and pause are those of kubeadm {versions.minor_of(wanted)}.{known.patch}: compare them "
            f"with `kubeadm config images list --kubernetes-version v{wanted}`"
        )
    if lab.calico.install == "operator" and versions.calico_release(lab.calico.version) is None:
        yield (
            f"the image of the operator of Calico {lab.calico.version} is not known here: it is in "
            "tigera-operator.yaml; `./lab pin` records it"
        )
    if lab.calico.version != versions.DEFAULT_CALICO:
        yield (
            f"Calico's images are the list of {versions.DEFAULT_CALICO} with the tag of {lab.calico.version}: compare "
            "them with the release"
        )
    yield "packages bring their dependencies from the distribution, such as iptables, conntrack, ethtool and socat"
    if lab.mirrors.images:
        registries = {
            need.name.split("/")[0]: need for need in found if need.kind == "image" and need.source == need.name
        }
        for registry in registries:
            yield f"no mirror of {registry} is named: add it to mirrors.images"
