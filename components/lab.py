"""The lab as a whole: the only place that knows the order of the rooms.

Machines → cluster → Calico → Multus → reservation → node files → workloads. Each room gets what the one before it
returned; waits are on named leaves, so what does not depend on one another runs at the same time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pulumi

from components.calico.component import Calico, CalicoArgs
from components.cluster.component import Cluster, ClusterArgs
from components.machines.aws import AwsMachines, AwsMachinesArgs
from components.machines.existing import ExistingMachines, ExistingMachinesArgs
from components.machines.local import LocalMachines, LocalMachinesArgs
from components.machines.machine import Machine
from components.multus.component import Multus, MultusArgs
from components.multus.node_files import NodeFiles, NodeFilesArgs
from components.network.component import Network, NetworkArgs
from components.spec import models
from components.workloads.component import Workloads, WorkloadsArgs


@dataclass(frozen=True)
class LabArgs:
    """`stack` names the lab's stack: part of cloud names and tags, so that two stacks never meet."""

    lab: models.Lab
    stack: str


class Lab(pulumi.ComponentResource):
    """One lab. `kubeconfig` is secret; `blocks` maps each node to the pod CIDRs it holds once the lab stands,
    `nodes` to its machine's id."""

    kubeconfig: pulumi.Output[str]
    blocks: pulumi.Output[dict[str, list[str]]]
    nodes: dict[str, pulumi.Output[str]]

    def __init__(self, name: str, args: LabArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("cnilab:index:Lab", name, {}, opts)
        lab, own = args.lab, pulumi.ResourceOptions(parent=self)

        machines = self._machines(name, args)
        cluster = Cluster(f"{name}-cluster", ClusterArgs(lab, machines), own)
        first = machines[lab.control_planes[0].name]
        calico = Calico(f"{name}-calico", CalicoArgs(lab, first, cluster.api, cluster.joined), own)
        # Pods started before the node files stand would get addresses that the delegates hand out.
        ready: list[pulumi.Resource] = [calico.ready]
        if lab.multus:
            multus = Multus(f"{name}-multus", MultusArgs(lab, cluster.api), own)
            files = NodeFilesArgs(lab, machines, cluster.api, calico, multus, cluster.multus)
            ready = NodeFiles(f"{name}-node-files", files, own).ready
        if lab.workloads:
            Workloads(f"{name}-workloads", WorkloadsArgs(lab=lab, api=cluster.api, after=ready), own)

        self.kubeconfig = cluster.kubeconfig
        self.blocks = calico.blocks
        self.nodes = {node: machine.id for node, machine in machines.items()}
        self.register_outputs({"blocks": self.blocks})

    def _machines(self, name: str, args: LabArgs) -> Mapping[str, Machine]:
        lab, own = args.lab, pulumi.ResourceOptions(parent=self)
        match lab.machines:
            case models.AwsMachines():
                tags = {"cni-lab:stack": args.stack, "cni-lab:owner": lab.owner}
                if lab.ttl_hours is not None:
                    tags["cni-lab:ttl-hours"] = str(lab.ttl_hours)
                network = Network(f"{name}-network", NetworkArgs(lab=lab, tags=tags), own)
                return AwsMachines(
                    f"{name}-machines", AwsMachinesArgs(lab=lab, network=network, stack=args.stack, tags=tags), own
                ).machines
            case models.LocalMachines():
                return LocalMachines(f"{name}-machines", LocalMachinesArgs(lab=lab, stack=args.stack), own).machines
            case models.ExistingMachines():
                return ExistingMachines(f"{name}-machines", ExistingMachinesArgs(lab=lab), own).machines
