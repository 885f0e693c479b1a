"""The files that turn a plain host into one that kubeadm and CRI-O accept, rendered as text."""

from __future__ import annotations

from components.node.script import File
from components.spec import pins
from components.spec.addresses import kernel_modules
from components.spec.models import Lab


def minor(version: str) -> str:
    """1.36 of 1.36.3."""
    return version.rpartition(".")[0]


def pause_image(lab: Lab) -> str:
    """The sandbox image kubeadm names; CRI-O's own default may lag behind, and two would be pulled."""
    return f"registry.k8s.io/pause:{pins.PAUSE[minor(lab.kubernetes.version)]}"


def host_files(lab: Lab) -> list[File]:
    """Modules, sysctls, CRI-O's drop-in, mirrors, and a networkd that leaves Felix's routes alone."""
    files = [
        File("/etc/modules-load.d/cni-lab.conf", "".join(f"{m}\n" for m in kernel_modules(lab))),
        File(
            "/etc/sysctl.d/99-cni-lab.conf",
            "net.ipv4.ip_forward = 1\n"
            # Service traffic that crosses a Linux bridge (cni5) must still meet kube-proxy's rules.
            "net.bridge.bridge-nf-call-iptables = 1\n"
            "net.bridge.bridge-nf-call-ip6tables = 1\n",
        ),
        File(
            "/etc/systemd/networkd.conf.d/50-cni-lab.conf",
            "# Without this a restart of networkd deletes the routes that Calico wrote.\n"
            "[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n",
        ),
        File("/etc/crio/crio.conf.d/20-cni-lab.conf", f'[crio.image]\npause_image = "{pause_image(lab)}"\n'),
    ]
    if lab.mirrors.images:
        files.append(File("/etc/containers/registries.conf.d/50-cni-lab.conf", _mirrors(lab)))
    return files


def _mirrors(lab: Lab) -> str:
    """containers-registries.conf(5), version 2."""
    entries = []
    for image in lab.mirrors.images:
        insecure = str(image.insecure).lower()
        entries.append(
            f'[[registry]]\nprefix = "{image.registry}"\nlocation = "{image.registry}"\n\n'
            f'[[registry.mirror]]\nlocation = "{image.mirror}"\ninsecure = {insecure}\n'
        )
    return "\n".join(entries)
