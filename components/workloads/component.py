"""The lab's Deployments, made when the nodes can give their pods the right networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pulumi

from components.cluster.api import Api
from components.spec import names
from components.spec.models import Lab
from components.workloads import manifests


@dataclass(frozen=True)
class WorkloadsArgs:
    """`after`: the resources without which a pod would start on the wrong network."""

    lab: Lab
    api: Api
    after: Sequence[pulumi.Resource]


class Workloads(pulumi.ComponentResource):
    """`ready`: a resource for each workload, done when its pods run."""

    ready: list[pulumi.Resource]

    def __init__(self, name: str, args: WorkloadsArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(names.WORKLOADS, name, {}, opts)
        spaces = [
            args.api.object(f"{name}-namespace-{space}", manifest, parent=self)
            for space, manifest in manifests.namespaces(args.lab).items()
        ]
        self.ready = [
            args.api.object(
                f"{name}-{workload.namespace}-{workload.name}",
                manifests.workload_object(args.lab, workload),
                parent=self,
                after=[*args.after, *spaces],
            )
            for workload in args.lab.workloads
        ]
        for workload in args.lab.workloads:
            if (service := manifests.service_object(args.lab, workload)) is not None:
                # Its own object: the pods do not wait for it, and it does not wait for them.
                resource = f"{name}-{workload.namespace}-{workload.name}-service"
                self.ready.append(args.api.object(resource, service, parent=self, after=spaces))
        self.register_outputs({})
