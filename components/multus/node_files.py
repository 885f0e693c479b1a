"""The files that make Multus a node's default network. One step writes them on each node, 00-multus.conf last."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from typing import Any

import pulumi

from components.calico.blocks import Blocks, block_of, range_of, reserved
from components.calico.component import Calico, or_run_error
from components.calico.manifests import ip_reservation
from components.cluster.api import Api
from components.cluster.pki import Client
from components.machines.machine import Machine
from components.multus import delegates
from components.multus.component import Multus
from components.node.script import File
from components.node.step import Step, StepArgs
from components.spec import names
from components.spec.models import BridgeNetwork, Delegate, Lab

MULTUS_FILE = "/etc/cni/net.d/00-multus.conf"


@dataclass(frozen=True)
class NodeFilesArgs:
    """`machines`: by node name. `credentials`: the certificate of Multus' plugin for the API, see manifests.USER."""

    lab: Lab
    machines: Mapping[str, Machine]
    api: Api
    calico: Calico
    multus: Multus
    credentials: Client


class NodeFiles(pulumi.ComponentResource):
    """`ready`: a resource for each node, done when CRI-O uses Multus there."""

    ready: list[pulumi.Resource]

    def __init__(self, name: str, args: NodeFilesArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(names.NODE_FILES, name, {}, opts)
        lab, self._blocks = args.lab, args.calico.blocks
        after = [args.calico.ready, *args.multus.ready]
        multus = lab.multus
        assert multus is not None
        if multus.delegates:
            # Without the reservation, a delegate and calico-ipam could give the same address to two pods.
            cidrs = self._from_blocks(lambda blocks: reserved(lab, blocks))
            reservation = ip_reservation(lab, cidrs)
            after.append(args.api.object(f"{name}-reservation", reservation, parent=self, after=[args.calico.ready]))
        kubeconfig = args.credentials.kubeconfig(delegates.api_server(lab))
        self.ready = []
        for node, machine in args.machines.items():
            ranges = self._from_blocks(partial(_ranges, lab, node))
            step = StepArgs(
                machine=machine,
                phase="files",
                scripts=[*(["vacate.sh"] if multus.delegates else []), "files.sh"],
                variables={
                    **({"NODE_NAME": node, "RANGES": ranges} if multus.delegates else {}),
                    "DEFAULT_NETWORK": delegates.DEFAULT_NETWORK,
                    "PLUGINS": " ".join(delegates.plugins(lab)),
                    "TIMEOUT_SECONDS": "120",
                },
                files=self._files(lab, node, kubeconfig),
                after=after,
            )
            self.ready.append(Step(names.node_files_step(name, node), step, pulumi.ResourceOptions(parent=self)).done)
        self.register_outputs({})

    def _from_blocks(self, compute: Callable[[Blocks], Any]) -> pulumi.Output[Any]:
        return self._blocks.apply(lambda blocks: or_run_error(lambda: compute(blocks)))

    def _files(self, lab: Lab, node: str, kubeconfig: dict[str, Any]) -> list[File]:
        """The files in the order in which they are written. Only the values that come from the cluster are outputs."""
        assert lab.multus is not None
        files = [
            File(f"{delegates.DELEGATE_DIRECTORY}/{delegate.name}.conf", self._delegate(lab, node, delegate))
            for delegate in lab.multus.delegates
        ]
        files.append(File(delegates.KUBECONFIG, kubeconfig, "0600"))
        bridges = sorted({network.bridge for network in lab.networks if isinstance(network, BridgeNetwork)})
        if bridges:
            # reset.sh removes these bridges from a host that stays.
            files.append(File("/var/lib/cni-lab/bridges", "".join(f"{bridge}\n" for bridge in bridges)))
        files.append(File(MULTUS_FILE, delegates.multus_config(lab.multus)))
        return files

    def _delegate(self, lab: Lab, node: str, delegate: Delegate) -> dict[str, Any]:
        def block(blocks: Blocks) -> IPv4Network:
            return block_of(lab, blocks, node, delegate)

        def limits(blocks: Blocks) -> tuple[IPv4Address, IPv4Address]:
            return range_of(lab, blocks, node, delegate)

        return delegates.delegate_config(
            lab,
            delegate,
            subnet=self._from_blocks(lambda blocks: str(block(blocks))),
            start=self._from_blocks(lambda blocks: str(limits(blocks)[0])),
            end=self._from_blocks(lambda blocks: str(limits(blocks)[1])),
        )


def _ranges(lab: Lab, node: str, blocks: Blocks) -> str:
    """Lines of the form "DELEGATE FIRST LAST" for one node."""
    lines = []
    for delegate in lab.multus.delegates if lab.multus else ():
        first, last = range_of(lab, blocks, node, delegate)
        lines.append(f"{delegate.name} {first} {last}\n")
    return "".join(lines)
