"""The cluster: prepare all machines in parallel, initialise the first control plane, then admit and join the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as kubernetes
from pulumi_command import remote

from components.cluster import kubeadm
from components.cluster.api import Api
from components.cluster.host import host_files
from components.cluster.pki import Client, Pki
from components.machines.machine import Machine
from components.node.script import File, installed_script
from components.node.step import Step, StepArgs
from components.spec import names, versions
from components.spec.addresses import API_PORT, kernel_modules
from components.spec.models import Lab, Node
from components.spec.modes import TUNNELS, links_for_shell
from components.spec.placement import node_taints

LIBRARY = "/usr/local/lib/cni-lab"
# How a node of a cluster gets another version: with kubeadm, then a drain, then kubelet and CRI-O.
UPGRADE = ("upgrade-kubeadm.sh", "drain.sh", "upgrade-kubelet.sh")


@dataclass(frozen=True)
class ClusterArgs:
    """`machines` by node name, one for every node of the lab. `stack`: the stack that the hosts belong to from now on.
    `endpoint`: the host:port at which the nodes reach the API."""

    lab: Lab
    machines: Mapping[str, Machine]
    stack: str
    endpoint: pulumi.Input[str]


class Cluster(pulumi.ComponentResource):
    """`api`: with which the components that follow make objects. `joined`: one resource for each node but the first,
    which is done when the node has joined. `kubeconfig`: YAML text for people outside the lab, secret. `multus`: the
    client certificate that Multus uses."""

    api: Api
    joined: list[remote.Command]
    kubeconfig: pulumi.Output[str]
    multus: Client

    def __init__(self, name: str, args: ClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(names.CLUSTER, name, {}, opts)
        self._name, self._lab, self._machines, self._stack = name, args.lab, args.machines, args.stack
        self._endpoint = pulumi.Output.from_input(args.endpoint)
        self._pki = Pki(f"{name}-pki", pulumi.ResourceOptions(parent=self))
        self.multus = self._pki.multus
        first, *others = args.lab.control_planes
        given = args.lab.mirrors.calicoctl_sha256.model_dump(exclude_none=True)
        try:
            release = versions.calico_release(args.lab.calico.version)
        except versions.PinsError as error:
            raise pulumi.RunError(f"{error}. Fix: correct that file, or remove it and run ./lab pin again") from None
        self._calicoctl: dict[str, str] = dict(release.calicoctl if release else {}) | given

        # One step prepares and initialises the first control plane, because nothing waits for its preparation alone.
        self._init = self._initialise(first)
        prepared = {n.name: self._prepare(n) for n in args.lab.nodes if n != first}

        self.joined = []
        previous: list[remote.Command] = []
        # Nodes are upgraded one after the other, each before it joins. So a changed version reaches every node of the
        # cluster, and no kubelet joins that is newer than an API server. On a first up these steps do nothing.
        turn = self._init
        for node in (*others, *args.lab.workers):
            turn = self._upgrade(node, turn)
            after = [prepared[node.name], turn]
            if node.role == "control-plane":
                # etcd accepts one learner at a time.
                after += previous
            join = self._join(node, after)
            if node.role == "control-plane":
                previous = [join]
            self.joined.append(join)

        api_host = args.machines[first.name].api_host
        server = pulumi.Output.concat("https://", api_host, f":{API_PORT}")
        admin = self._pki.admin.kubeconfig(server, args.lab.machines.api_proxy)
        self.kubeconfig = pulumi.Output.secret(pulumi.Output.json_dumps(admin, indent=2))
        provider = kubernetes.Provider(
            f"{name}-api",
            # The provider looks for its cluster when it is configured, and never again, so it must not be configured
            # before there is one. The command's id is unknown only while the cluster is being created: a later edit
            # leaves the provider configured.
            kubeconfig=pulumi.Output.all(self.kubeconfig, self._init.id).apply(lambda known: str(known[0])),
            # Another machine means another cluster. A changed kubeconfig alone must not replace every object.
            cluster_identifier=args.machines[first.name].id,
            delete_unreachable=True,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.api = Api(provider, self._init)
        self.register_outputs({"server": server})

    def _has_calicoctl(self, node: Node) -> bool:
        return node.role == "control-plane" and bool(self._calicoctl)

    def _scripts(self, node: Node, *more: str) -> list[str]:
        return ["prepare.sh", *(["calicoctl.sh"] if self._has_calicoctl(node) else []), *more]

    @property
    def _versions(self) -> dict[str, pulumi.Input[str]]:
        version = self._lab.kubernetes.version
        return {"KUBERNETES_VERSION": version, "CRIO_VERSION": versions.crio(version)}

    @property
    def _packages(self) -> dict[str, pulumi.Input[str]]:
        mirrors = self._lab.mirrors
        return self._versions | {
            "KUBERNETES_MINOR": versions.minor_of(self._lab.kubernetes.version),
            "KUBERNETES_PACKAGES": mirrors.kubernetes_packages,
            "KUBERNETES_KEY": mirrors.kubernetes_key,
            "CRIO_PACKAGES": mirrors.crio_packages,
            "CRIO_KEY": mirrors.crio_key,
            **({} if versions.pause(self._lab.kubernetes.version) else {"PAUSE": "ask kubeadm"}),
        }

    def _variables(self, node: Node) -> dict[str, pulumi.Input[str]]:
        lab = self._lab
        variables = self._packages
        if self._has_calicoctl(node):
            variables |= {
                "CALICOCTL_BASE": f"{lab.mirrors.calicoctl}/v{lab.calico.version}",
                "CALICOCTL_SHA256": "".join(f"{name} {sha256}\n" for name, sha256 in self._calicoctl.items()),
            }
        return variables | {
            "OWNER": f"cni-lab/{self._stack}",
            "NODE_NAME": node.name,
            "NODE_ADDRESS": str(node.address),
            "MACHINE_KIND": lab.machines.provider,
            "MODULES": " ".join(kernel_modules(lab)),
            "TUNNEL_LINKS": links_for_shell(lab.tunnels),
            "MULTUS": "yes" if lab.multus else "no",
        }

    def _host_files(self) -> list[File]:
        files = host_files(self._lab)
        if self._lab.machines.hosts_stay:
            # The devices of all tunnels, because the lab may have had another mode before.
            devices = " ".join(tunnel.device for tunnel in TUNNELS)
            script = installed_script("reset.sh", {"TUNNEL_DEVICES": devices})
            files.append(File(f"{LIBRARY}/reset.sh", script, "0755"))
        return files

    @property
    def _reset(self) -> str | None:
        """The command that frees a host which outlives the lab. Other machines are deleted as a whole."""
        stays = self._lab.machines.hosts_stay
        return f"timeout --kill-after=30 300 bash {LIBRARY}/reset.sh" if stays else None

    def _step(self, node: Node, args: StepArgs) -> remote.Command:
        name = names.cluster_step(self._name, node.name, args.phase)
        return Step(name, args, pulumi.ResourceOptions(parent=self)).done

    def _prepare(self, node: Node) -> remote.Command:
        args = StepArgs(
            machine=self._machines[node.name],
            phase="prepare",
            scripts=self._scripts(node),
            variables=self._variables(node),
            files=self._host_files(),
            delete=self._reset,
        )
        return self._step(node, args)

    def _initialise(self, node: Node) -> remote.Command:
        machine = self._machines[node.name]
        documents = kubeadm.init_documents(
            self._lab,
            endpoint=self._endpoint,
            token=self._pki.token,
            machine=machine.id.apply(kubeadm.machine_label),
            # People outside the lab connect to the first of these names, nodes to the second.
            sans=[machine.api_host, self._endpoint.apply(lambda known: known.rpartition(":")[0])],
        )
        args = StepArgs(
            machine=machine,
            phase="init",
            scripts=self._scripts(node, "init.sh", "labels.sh", *UPGRADE),
            variables={
                **self._variables(node),
                **_labels(node),
                "API_ENDPOINT": self._endpoint,
                "PART": "apply",
                "DRAINED": node.name,
            },
            files=[
                *self._host_files(),
                File("/etc/kubernetes/pki/ca.crt", self._pki.ca_certificate),
                File("/etc/kubernetes/pki/ca.key", self._pki.ca_key, "0600"),
                *kubeadm.patch_files(self._lab),
                File(f"{kubeadm.DIRECTORY}/init.yaml", documents, "0600"),
                File(f"{LIBRARY}/remove-node.sh", installed_script("remove-node.sh"), "0755"),
            ],
            timeout_seconds=1800,
            delete=self._reset,
        )
        return self._step(node, args)

    def _upgrade(self, node: Node, after: remote.Command) -> remote.Command:
        """Upgrade a node of the cluster when the version changes. A control plane drains itself. A worker's credentials
        do not permit that, so the first control plane drains it."""
        scripts = list(UPGRADE)
        variables = self._packages | {"NODE_NAME": node.name, "PART": "node"}
        if node.role == "control-plane":
            variables["DRAINED"] = node.name
        else:
            scripts.remove("drain.sh")
            drain = StepArgs(
                machine=self._machines[self._lab.control_planes[0].name],
                phase="drain",
                scripts=["drain.sh"],
                variables=self._versions | {"DRAINED": node.name},
                after=[after],
                subject=node.name,
                for_changes=True,
            )
            after = self._step(node, drain)
        upgrade = StepArgs(
            machine=self._machines[node.name],
            phase="upgrade",
            scripts=scripts,
            variables=variables,
            after=[after],
            timeout_seconds=1800,
            # Never at the same time as the node's preparation, because both change its packages.
            lock="prepare",
            for_changes=True,
        )
        return self._step(node, upgrade)

    def _join(self, node: Node, after: list[remote.Command]) -> remote.Command:
        """Admit the node on the first control plane (valid token, no stale Node of that name), then join it.

        A change of its labels or taints runs the admission again, which then changes the Node.
        """
        machine = self._machines[node.name]
        label = machine.id.apply(kubeadm.machine_label)
        certificate_key = self._pki.certificate_key if node.role == "control-plane" else None
        admit = StepArgs(
            machine=self._machines[self._lab.control_planes[0].name],
            phase="admit",
            scripts=["admit.sh", "labels.sh"],
            variables={
                "JOINER": node.name,
                "JOINER_ROLE": node.role,
                "JOINER_MACHINE": label,
                "BOOTSTRAP_TOKEN": self._pki.token,
                "CERTIFICATE_KEY": certificate_key or "",
                **_labels(node),
            },
            after=[self._init],
            triggers=[machine.id],
            subject=node.name,
            # Nodes are admitted in parallel, so each admission has a lock of its own.
            lock=f"admit-{node.name}",
            timeout_seconds=600,
            delete=f"timeout --kill-after=30 240 {LIBRARY}/remove-node.sh {node.name}",
            # When the whole cluster is deleted, its nodes are not drained first.
            deleted_with=self._init,
        )
        admitted = self._step(node, admit)
        document = kubeadm.join_document(
            node,
            endpoint=self._endpoint,
            token=self._pki.token,
            ca_hash=self._pki.ca_hash,
            machine=label,
            certificate_key=certificate_key,
        )
        join = StepArgs(
            machine=machine,
            phase="join",
            scripts=["join.sh"],
            variables={"NODE_NAME": node.name, "API_ENDPOINT": self._endpoint},
            files=[*kubeadm.patch_files(self._lab), File(f"{kubeadm.DIRECTORY}/join.yaml", document, "0600")],
            after=[admitted, *after],
            # A new cluster knows none of the nodes.
            triggers=[self._init.id],
        )
        return self._step(node, join)


def _labels(node: Node) -> dict[str, pulumi.Input[str]]:
    """What labels.sh takes."""
    taints = [f"{t.key}={t.value}:{t.effect}" if t.value else f"{t.key}:{t.effect}" for t in node_taints(node)]
    return {
        "LABELLED": node.name,
        "LABELS": " ".join(f"{key}={value}" for key, value in sorted(node.labels.items())),
        "TAINTS": " ".join(taints),
    }
