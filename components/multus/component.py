"""Multus on a running cluster. It needs no other CNI first, because its pods use the node's network."""

from __future__ import annotations

from dataclasses import dataclass

import pulumi

from components.cluster.api import Api
from components.multus import manifests, whereabouts
from components.multus.kinds import Manifest
from components.spec import names
from components.spec.models import Lab


@dataclass(frozen=True)
class MultusArgs:
    """`lab.multus` must be set."""

    lab: Lab
    api: Api


class Multus(pulumi.ComponentResource):
    """`ready`: the resources that must exist before a node uses Multus: its DaemonSet and every network."""

    ready: list[pulumi.Resource]

    def __init__(self, name: str, args: MultusArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(names.MULTUS, name, {}, opts)
        multus = args.lab.multus
        if multus is None:
            raise pulumi.RunError("cni-lab:lab: multus is missing. Fix: add it, or leave this component out")

        def make(suffix: str, manifest: Manifest, *after: pulumi.Resource) -> pulumi.Resource:
            return args.api.object(f"{name}-{suffix}", manifest, parent=self, after=after)

        account = make("account", manifests.service_account())
        role = make("role", manifests.cluster_role())
        binding = make("binding", manifests.cluster_role_binding(), role, account)
        config = make("config", manifests.config_map(multus))
        daemon_set = make("daemonset", manifests.daemon_set(multus), account, config)
        definition = make("definition", manifests.definition())
        # Their order is that in which they need one another, and each waits for all before it.
        shared: list[pulumi.Resource] = []
        for suffix, manifest in whereabouts.objects(args.lab).items():
            shared.append(make(suffix, manifest, *shared))
        spaces = [make(f"namespace-{space}", it) for space, it in manifests.namespaces(args.lab).items()]
        networks = [
            make(f"network-{key.replace('/', '-')}", network, definition, *spaces)
            for key, network in manifests.attachments(args.lab).items()
        ]
        self.ready = [binding, daemon_set, *shared, *networks]
        self.register_outputs({})
