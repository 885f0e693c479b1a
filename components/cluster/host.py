"""The files that kubeadm and CRI-O need on a host, rendered as text."""

from __future__ import annotations

from components.node.script import File
from components.spec import versions
from components.spec.addresses import kernel_modules
from components.spec.models import Lab


def pause_image(lab: Lab) -> str | None:
    """The pause image that this version of kubeadm names. CRI-O's default may be an older one; both would be pulled.

    None for an unknown minor: then kubeadm is asked on the node (ask_pause in packages.sh).
    """
    version = versions.pause(lab.kubernetes.version)
    return f"{versions.KUBERNETES_REGISTRY}/pause:{version}" if version else None


def host_files(lab: Lab) -> list[File]:
    """Kernel modules, sysctls, settings of networkd and CRI-O, and registry mirrors."""
    files = [
        File("/etc/modules-load.d/cni-lab.conf", "".join(f"{m}\n" for m in kernel_modules(lab))),
        File(
            "/etc/sysctl.d/99-cni-lab.conf",
            "net.ipv4.ip_forward = 1\n"
            # Traffic to a Service that crosses a Linux bridge (cni5) must still pass kube-proxy's rules.
            "net.bridge.bridge-nf-call-iptables = 1\n"
            "net.bridge.bridge-nf-call-ip6tables = 1\n",
        ),
        File(
            "/etc/systemd/networkd.conf.d/50-cni-lab.conf",
            "# Without this a restart of networkd deletes the routes that Calico wrote.\n"
            "[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n",
        ),
    ]
    if image := pause_image(lab):
        files.append(File("/etc/crio/crio.conf.d/20-cni-lab.conf", f'[crio.image]\npause_image = "{image}"\n'))
    if lab.mirrors.images:
        files.append(File("/etc/containers/registries.conf.d/50-cni-lab.conf", _mirrors(lab)))
    return files


def _mirrors(lab: Lab) -> str:
    """In the format of containers-registries.conf(5), version 2."""
    entries = []
    for image in lab.mirrors.images:
        insecure = str(image.insecure).lower()
        entries.append(
            f'[[registry]]\nprefix = "{image.registry}"\nlocation = "{image.registry}"\n\n'
            f'[[registry.mirror]]\nlocation = "{image.mirror}"\ninsecure = {insecure}\n'
        )
    return "\n".join(entries)
