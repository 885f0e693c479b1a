"""The lab as a whole. Only this file knows the order of its parts.

Machines → cluster → Calico → Multus → reservation → node files → workloads. Each part gets what the part before it
returned. A part waits for single resources, never for a component, so that independent things run in parallel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pulumi

from components.calico.component import Calico, CalicoArgs
from components.cluster.component import Cluster, ClusterArgs
from components.machines.machine import MachinesArgs
from components.machines.providers import PROVIDERS
from components.multus.component import Multus, MultusArgs
from components.multus.node_files import NodeFiles, NodeFilesArgs
from components.spec import models, names
from components.spec.notes import notes
from components.verify.component import Verification, VerificationArgs
from components.workloads.component import Workloads, WorkloadsArgs


@dataclass(frozen=True)
class LabArgs:
    """`stack` names the lab's stack. It is part of every name in a cloud or on this computer, so that two stacks never
    touch each other's things. The checks at the end of `up` need two things on EC2: `region` is the AWS region, and
    `account` the keys under `aws:` that say which account it is, where the environment does not.
    `passwords`: those that calico.peers name, by the key of the configuration."""

    lab: models.Lab
    stack: str
    region: str | None = None
    account: Mapping[str, str] = field(default_factory=dict)
    passwords: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)


class Lab(pulumi.ComponentResource):
    """One lab. By node name: `blocks` has the pod CIDRs that the node holds in the end, `nodes` its machine's id, and
    `access`, secret, how SSH reaches it. `kubeconfig`: secret. `verification`: the report of the lab's checks, if the
    stack file asks for it."""

    kubeconfig: pulumi.Output[str]
    blocks: pulumi.Output[dict[str, list[str]]]
    nodes: dict[str, pulumi.Output[str]]
    access: pulumi.Output[dict[str, Any]]
    verification: pulumi.Output[dict[str, Any]] | None

    def __init__(self, name: str, args: LabArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        # By these inputs `reap` recognises an ephemeral stack. They are in the state before anything else is.
        ephemeral = {} if args.lab.ttl_hours is None else {"ttlHours": args.lab.ttl_hours, "owner": args.lab.owner}
        super().__init__(names.LAB, name, ephemeral, opts)
        lab, own = args.lab, pulumi.ResourceOptions(parent=self)

        tags = {"cni-lab:stack": args.stack, "cni-lab:owner": lab.owner}
        if lab.ttl_hours is not None:
            tags["cni-lab:ttl-hours"] = str(lab.ttl_hours)
        for note in notes(lab):
            (pulumi.warn if note.warning else pulumi.info)(str(note))
        made = PROVIDERS[lab.machines.provider](name, MachinesArgs(lab, args.stack, tags), own)
        machines = made.by_node
        cluster = Cluster(f"{name}-cluster", ClusterArgs(lab, machines, args.stack, made.api_endpoint), own)
        first = machines[lab.control_planes[0].name]
        passwords = {peer: pulumi.Output.secret(args.passwords[key]) for peer, key in lab.calico.passwords.items()}
        calico = Calico(names.calico(name), CalicoArgs(lab, first, cluster.api, cluster.joined, passwords), own)
        # A pod that starts before the node files are written would get an address of the delegates' ranges.
        ready: list[pulumi.Resource] = [calico.ready]
        if lab.multus:
            multus = Multus(f"{name}-multus", MultusArgs(lab, cluster.api), own)
            files = NodeFilesArgs(lab, machines, cluster.api, calico, multus, cluster.multus)
            ready = NodeFiles(names.node_files(name), files, own).ready
        if lab.workloads:
            workloads = WorkloadsArgs(lab=lab, api=cluster.api, after=ready)
            ready = Workloads(f"{name}-workloads", workloads, own).ready

        self.kubeconfig = cluster.kubeconfig
        self.blocks = calico.blocks
        self.nodes = {node: machine.id for node, machine in machines.items()}
        self.access = pulumi.Output.all(**{node: machine.access for node, machine in machines.items()})
        self.verification = None
        if lab.verify:
            self.verification = Verification(names.verification(name), self._verification(args, ready), own).result
        self.register_outputs({"blocks": self.blocks})

    def _verification(self, args: LabArgs, after: Sequence[pulumi.Resource]) -> VerificationArgs:
        stack = pulumi.Output.all(
            name=args.stack,
            blocks=self.blocks,
            access=self.access,
            kubeconfig=self.kubeconfig,
            nodes=self.nodes,
            region=args.region,
            # Absent where there is none: one more key would be a change of every live lab.
            **({"account": dict(args.account)} if args.account else {}),
        )
        return VerificationArgs(args.lab, stack, after)
