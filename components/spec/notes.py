"""What the author of a valid stack file should know: versions that were not tried here, an address that no computer
has, an image that people may not reach.

`./lab plan`, `preview` and `up` print these notes. They refuse nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from components.spec import versions
from components.spec.models import AwsMachines, Lab
from components.spec.placement import perhaps_selected
from components.spec.rules.machines import placeholders


@dataclass(frozen=True)
class Note:
    """A remark about the value at `key`. `warning`: what is said may make the lab fail."""

    key: str
    value: str
    text: str
    warning: bool

    def __str__(self) -> str:
        return f"{self.key}: {self.value} — {self.text}"


def notes(lab: Lab) -> list[Note]:
    """Every note about a lab that the rules accept, in the order of the file's keys."""
    found = [*_operators(lab), *_instance_connect(lab), *_kubernetes(lab), *_calico(lab), *_without_peers(lab)]
    if lab.multus is not None:
        text = "not tried here: its image, and its flags and objects, which this program writes as for"
        found += _later("multus.version", lab.multus.version, versions.DEFAULT_MULTUS, text)
    return found


def _operators(lab: Lab) -> Iterator[Note]:
    for finding in placeholders(lab):
        yield Note(finding.key, finding.value, f"{finding.problem}. Before up: {finding.fix}", warning=True)


def _instance_connect(lab: Lab) -> Iterator[Note]:
    """Debian, "Cloud/AmazonEC2Image": its images have the user admin, and no ec2-instance-connect."""
    machines = lab.machines
    if isinstance(machines, AwsMachines) and machines.private_workers and machines.image is not None:
        text = (
            f"people reach the workers of {machines.image} by `aws ec2-instance-connect ssh --connection-type eice "
            f"--os-user {machines.user}` only if the AMI has the package ec2-instance-connect: Ubuntu's have it, "
            "Debian's (whose user is admin) do not. `up` and ./lab ssh do not need it"
        )
        yield Note("machines.workerAccess", "InstanceConnect", text, warning=False)


def _kubernetes(lab: Lab) -> Iterator[Note]:
    key, version = "kubernetes.version", lab.kubernetes.version
    minor = versions.minor_of(version)
    known = versions.KUBERNETES.get(minor)
    if known is None:
        last = max(versions.KUBERNETES, key=versions.numbers)
        text = (
            f"a later minor than {last}, the last that was tried here. Not tried: its kubeadm with this program's "
            f"configuration (v1beta4), CRI-O {minor}, Calico {lab.calico.version} on it, and an upgrade to it. The "
            "image of pause is asked of kubeadm on each node"
        )
        yield Note(key, version, text, warning=True)
    elif versions.numbers(version)[2] > known.patch:
        yield Note(key, version, f"a later patch release than {minor}.{known.patch}; not tried here", warning=False)


def _calico(lab: Lab) -> Iterator[Note]:
    tried, version = versions.DEFAULT_CALICO, lab.calico.version
    text = "not tried here: its manifests with this program's settings and patches, which are written for"
    if versions.numbers(version) < versions.numbers(tried) and version not in versions.CALICO:
        yield Note("calico.version", version, f"{text} {tried}", warning=True)
    if version not in versions.CALICO:
        yield from _later("calico.version", version, tried, text)


def _without_peers(lab: Lab) -> Iterator[Note]:
    """With the mesh off, a node learns the others' routes from its peers alone."""
    calico = lab.calico
    if calico.bgp == "Disabled" or calico.mesh or calico.route_reflectors:
        return
    peered = {node.name for peer in calico.peers for node in perhaps_selected(lab, peer.node_selector)}
    if lonely := [node.name for node in lab.nodes if node.name not in peered]:
        text = (
            f"no calico.peers[].nodeSelector selects {', '.join(lonely[:8])}: without a BGP peer a node gets no route "
            "to the pods of other nodes"
        )
        yield Note("calico.nodeToNodeMesh", "false", text, warning=True)


def _later(key: str, version: str, tried: str, text: str) -> Iterator[Note]:
    """A note about a version that is later than the one that was tried. Of a patch release little is to be feared."""
    if versions.numbers(version) > versions.numbers(tried):
        if versions.minor_of(version) == versions.minor_of(tried):
            yield Note(key, version, f"a later patch release than {tried}; not tried here", warning=False)
        else:
            yield Note(key, version, f"{text} {tried}", warning=True)
