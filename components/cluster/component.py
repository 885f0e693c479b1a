"""The cluster: prepare every machine at once, initialise the first control plane, admit and join the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi
import pulumi_kubernetes as kubernetes
from pulumi_command import remote

from components.cluster import kubeadm
from components.cluster.api import Api
from components.cluster.host import host_files, minor, modules
from components.cluster.pki import Client, Pki
from components.machines.machine import Machine
from components.node.script import File, read_script
from components.node.step import Step, StepArgs
from components.spec import pins
from components.spec.models import Lab, Node

LIBRARY = "/usr/local/lib/cni-lab"


@dataclass(frozen=True)
class ClusterArgs:
    """`machines` by node name, one for every node of the lab. `stack`: whose hosts they are from now on.
    `endpoint`: host:port at which the nodes reach the API."""

    lab: Lab
    machines: Mapping[str, Machine]
    stack: str
    endpoint: pulumi.Input[str]


class Cluster(pulumi.ComponentResource):
    """`api`: what later rooms make objects with. `joined`: one leaf per further node, done when it has joined.
    `kubeconfig`: YAML text for a person outside, secret. `multus`: the client that Multus shows the API."""

    api: Api
    joined: list[remote.Command]
    kubeconfig: pulumi.Output[str]
    multus: Client

    def __init__(self, name: str, args: ClusterArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("cnilab:cluster:Cluster", name, {}, opts)
        self._name, self._lab, self._machines, self._stack = name, args.lab, args.machines, args.stack
        self._endpoint = pulumi.Output.from_input(args.endpoint)
        self._pki = Pki(f"{name}-pki", pulumi.ResourceOptions(parent=self))
        self.multus = self._pki.multus
        first, *others = args.lab.control_planes

        # One connection does both on the first control plane: nothing else waits for its preparation alone.
        self._init = self._initialise(first)
        prepared = {n.name: self._prepare(n) for n in args.lab.nodes if n != first}

        self.joined = []
        previous: list[remote.Command] = []
        for node in (*others, *args.lab.workers):
            after = [prepared[node.name]]
            if node.role == "control-plane":
                # etcd takes one learner at a time.
                after += previous
            join = self._join(node, after)
            if node.role == "control-plane":
                previous = [join]
            self.joined.append(join)

        api_host = args.machines[first.name].api_host
        server = pulumi.Output.concat("https://", api_host, f":{kubeadm.API_PORT}")
        self.kubeconfig = pulumi.Output.secret(pulumi.Output.json_dumps(self._pki.admin.kubeconfig(server), indent=2))
        provider = kubernetes.Provider(
            f"{name}-api",
            # The provider looks for its cluster when it is configured, and never again: not before there is one. The
            # command's id is unknown only while the cluster is made, so an edit leaves the provider configured.
            kubeconfig=pulumi.Output.all(self.kubeconfig, self._init.id).apply(lambda known: str(known[0])),
            # The cluster is another one when its machine is: a kubeconfig that changed does not replace everything.
            cluster_identifier=args.machines[first.name].id,
            delete_unreachable=True,
            opts=pulumi.ResourceOptions(parent=self),
        )
        self.api = Api(provider, self._init)
        self.register_outputs({"server": server})

    def _variables(self, node: Node) -> dict[str, pulumi.Input[str]]:
        lab = self._lab
        return {
            "OWNER": f"cni-lab/{self._stack}",
            "NODE_NAME": node.name,
            "NODE_ADDRESS": str(node.address),
            "MACHINE_KIND": lab.machines.provider,
            "KUBERNETES_VERSION": lab.kubernetes.version,
            "KUBERNETES_MINOR": minor(lab.kubernetes.version),
            "CRIO_VERSION": pins.CRIO[minor(lab.kubernetes.version)],
            "KUBERNETES_PACKAGES": lab.mirrors.kubernetes_packages,
            "KUBERNETES_KEY": lab.mirrors.kubernetes_key,
            "CRIO_PACKAGES": lab.mirrors.crio_packages,
            "CRIO_KEY": lab.mirrors.crio_key,
            "MODULES": " ".join(modules(lab)),
            "MULTUS": "yes" if lab.multus else "no",
        }

    def _host_files(self) -> list[File]:
        files = host_files(self._lab)
        if self._lab.machines.provider == "existing":
            files.append(File(f"{LIBRARY}/reset.sh", read_script("lib.sh") + read_script("reset.sh"), "0755"))
        return files

    @property
    def _undo(self) -> str | None:
        """Only a host that stays must be cleaned; the others are taken away whole."""
        stays = self._lab.machines.provider == "existing"
        return f"timeout --kill-after=30 300 bash {LIBRARY}/reset.sh" if stays else None

    def _prepare(self, node: Node) -> remote.Command:
        args = StepArgs(
            machine=self._machines[node.name],
            phase="prepare",
            scripts=["prepare.sh"],
            variables=self._variables(node),
            files=self._host_files(),
            delete=self._undo,
        )
        return Step(f"{self._name}-{node.name}-prepare", args, pulumi.ResourceOptions(parent=self)).done

    def _initialise(self, node: Node) -> remote.Command:
        machine = self._machines[node.name]
        documents = kubeadm.init_documents(
            self._lab,
            endpoint=self._endpoint,
            token=self._pki.token,
            machine=machine.id.apply(kubeadm.machine_label),
            # A person outside comes to the one, a node to the other.
            sans=[machine.api_host, self._endpoint.apply(lambda known: known.rpartition(":")[0])],
        )
        args = StepArgs(
            machine=machine,
            phase="init",
            scripts=["prepare.sh", "init.sh"],
            variables=self._variables(node) | {"API_ENDPOINT": self._endpoint},
            files=[
                *self._host_files(),
                File("/etc/kubernetes/pki/ca.crt", self._pki.ca_certificate),
                File("/etc/kubernetes/pki/ca.key", self._pki.ca_key, "0600"),
                File(f"{kubeadm.DIRECTORY}/init.yaml", documents, "0600"),
                File(f"{LIBRARY}/remove-node.sh", read_script("lib.sh") + read_script("remove-node.sh"), "0755"),
            ],
            timeout=1800,
            delete=self._undo,
        )
        return Step(f"{self._name}-{node.name}-init", args, pulumi.ResourceOptions(parent=self)).done

    def _join(self, node: Node, after: list[remote.Command]) -> remote.Command:
        """Admit on the first control plane (a live token, no stale Node of that name), then join on the node."""
        machine = self._machines[node.name]
        label = machine.id.apply(kubeadm.machine_label)
        certificate_key = self._pki.certificate_key if node.role == "control-plane" else None
        admit = StepArgs(
            machine=self._machines[self._lab.control_planes[0].name],
            phase="admit",
            scripts=["admit.sh"],
            variables={
                "JOINER": node.name,
                "JOINER_ROLE": node.role,
                "JOINER_MACHINE": label,
                "BOOTSTRAP_TOKEN": self._pki.token,
                "CERTIFICATE_KEY": certificate_key or "",
            },
            after=[self._init],
            triggers=[machine.id],
            timeout=600,
            delete=f"timeout --kill-after=30 240 {LIBRARY}/remove-node.sh {node.name}",
            # When the cluster goes as a whole, nobody asks it to drain its nodes first.
            deleted_with=self._init,
        )
        admitted = Step(f"{self._name}-{node.name}-admit", admit, pulumi.ResourceOptions(parent=self)).done
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
            files=[File(f"{kubeadm.DIRECTORY}/join.yaml", document, "0600")],
            after=[admitted, *after],
            # A cluster made anew knows none of its nodes.
            triggers=[self._init.id],
        )
        return Step(f"{self._name}-{node.name}-join", join, pulumi.ResourceOptions(parent=self)).done
