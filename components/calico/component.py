"""Calico on a running cluster: install it, configure it, wait for it, and read the nodes' blocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import pulumi

from components.calico import manifests
from components.calico.blocks import claimed_pools, parse_blocks
from components.calico.probes import probe_policy
from components.cluster.api import Api, KubeObject
from components.machines.machine import Machine
from components.node.script import File
from components.node.step import Step, StepArgs
from components.spec import names, versions
from components.spec.models import Lab

DIRECTORY = "/var/lib/cni-lab/calico"

T = TypeVar("T")


def or_run_error(compute: Callable[[], T]) -> T:
    """The result of `compute`. A ValueError becomes a RunError, which Pulumi shows without a traceback."""
    try:
        return compute()
    except ValueError as error:
        raise pulumi.RunError(str(error)) from None


@dataclass(frozen=True)
class CalicoArgs:
    """`machine`: the first control plane. `joined`: a resource for each further node, done when the node has joined.
    `passwords`: those of the BGP peers, by the peer's name."""

    lab: Lab
    machine: Machine
    api: Api
    joined: Sequence[pulumi.CustomResource]
    passwords: Mapping[str, pulumi.Input[str]] = field(default_factory=dict)


class Calico(pulumi.ComponentResource):
    """Calico of one cluster.

    `installed` is done when Calico's CRDs exist and the programs that read them run, `ready` when pods get addresses on
    every node. `blocks` has the CIDRs of the blocks that each node has claimed, by the node's name.
    """

    installed: pulumi.CustomResource
    ready: pulumi.CustomResource
    blocks: pulumi.Output[dict[str, list[str]]]

    def __init__(self, name: str, args: CalicoArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(names.CALICO, name, {}, opts)
        self._name, self._lab, self._args = name, args.lab, args
        by_operator = args.lab.calico.install == "operator"

        self.installed = self._install()
        wanted = self._by_operator() if by_operator else self._by_manifest()
        # Without the operator, the settings are stored objects and can exist before Calico runs. With the operator,
        # Calico's API server serves them, so they must wait for it.
        if not by_operator:
            wanted += self._settings([self.installed])
        read = self._read_blocks(wanted)
        self.ready = read.done
        if by_operator:
            self._settings([self.ready])

        nodes = [node.name for node in args.lab.nodes]
        self.blocks = read.stdout.apply(lambda text: or_run_error(lambda: parse_blocks(text, nodes)))
        self.register_outputs({"blocks": self.blocks})

    def _install(self) -> pulumi.CustomResource:
        lab = self._lab
        by_operator = lab.calico.install == "operator"
        sources = versions.calico_manifests(lab.calico.install, lab.calico.bgp)
        sums = versions.calico_sums(lab.calico.version, lab.calico.sha256)
        # In the directory to which calico.sh downloads the manifests: kustomize reads no files outside it.
        files = [
            File(f"{DIRECTORY}/kustomization.yaml", manifests.kustomization(lab)),
            File(f"{DIRECTORY}/calico-node.yaml", manifests.node_patch(lab)),
            File(f"{DIRECTORY}/calico-config.yaml", manifests.config_patch(lab)),
        ]
        step = StepArgs(
            machine=self._args.machine,
            phase="calico",
            scripts=["calico.sh"],
            variables={
                "INSTALL": lab.calico.install,
                "DIRECTORY": DIRECTORY,
                "BASE": f"{lab.mirrors.calico_manifests}/v{lab.calico.version}/manifests",
                "SOURCES": "".join(f"{sums[source]} {source}\n" for source in sources),
            },
            files=[] if by_operator else files,
            after=[self._args.api.ready],
        )
        return Step(f"{self._name}-install", step, pulumi.ResourceOptions(parent=self)).done

    def _object(
        self, name: str, manifest: manifests.Manifest, after: Sequence[pulumi.Resource], *, patch: bool = False
    ) -> KubeObject:
        return self._args.api.object(f"{self._name}-{name}", manifest, parent=self, after=after, patch=patch)

    def _by_operator(self) -> list[KubeObject]:
        # They change pods that are created after them.
        probes = [self._object(name, manifest, []) for name, manifest in probe_policy(self._lab).items()]
        return [
            self._object("installation", manifests.installation(self._lab), [self.installed, *probes]),
            self._object("apiserver", manifests.api_server(), [self.installed, *probes]),
        ]

    def _by_manifest(self) -> list[KubeObject]:
        pools = manifests.ip_pools(self._lab)
        return [self._object(f"pool-{name}", pool, [self.installed]) for name, pool in pools.items()]

    def _settings(self, after: list[pulumi.CustomResource]) -> list[KubeObject]:
        """The settings of Felix, BGP and IPAM that differ from Calico's defaults.

        The BGP configuration, which may switch off the mesh, comes after the peers, so that routes are never lost.
        """
        lab = self._lab
        made: list[KubeObject] = []
        if felix := manifests.felix_configuration(lab):
            made.append(self._object("felix", felix, after, patch=True))
        if ipam := manifests.ipam_configuration(lab):
            made.append(self._object("ipam", ipam, after, patch=True))
        reflectors = [
            self._object(f"reflector-{node}", patch, [*after, *self._args.joined], patch=True)
            for node, patch in manifests.route_reflectors(lab).items()
        ]
        numbers = [
            self._object(f"as-{node}", patch, [*after, *self._args.joined], patch=True)
            for node, patch in manifests.node_as_numbers(lab).items()
        ]
        secrets = [
            self._object(name, manifest, after)
            for name, manifest in manifests.bgp_secrets(lab, self._args.passwords).items()
        ]
        before = [*after, *reflectors, *numbers, *secrets]
        peers = [self._object(f"peer-{name}", peer, before) for name, peer in manifests.bgp_peers(lab).items()]
        made += [*reflectors, *numbers, *secrets, *peers]
        if bgp := manifests.bgp_configuration(lab):
            made.append(self._object("bgp", bgp, [*after, *peers], patch=True))
        return made

    def _read_blocks(self, wanted: Sequence[pulumi.Resource]) -> Step:
        lab = self._lab
        pools = [f"{pool.name}={pool.cidr}" for pool in claimed_pools(lab)]
        step = StepArgs(
            machine=self._args.machine,
            phase="blocks",
            scripts=["blocks.sh"],
            variables={
                "INSTALL": lab.calico.install,
                "IPAM": lab.calico.ipam,
                "NODES": " ".join(node.name for node in lab.nodes),
                "POOLS": " ".join(pools),
                "TIMEOUT_SECONDS": "900",
            },
            after=[*wanted, *self._args.joined],
            # With other machines or other pools the blocks are different.
            triggers=[
                *(leaf.id for leaf in self._args.joined),
                *(f"{pool.name} {pool.cidr} /{pool.block_size}" for pool in lab.calico.pools),
            ],
            timeout_seconds=1500,
        )
        return Step(names.blocks_step(self._name), step, pulumi.ResourceOptions(parent=self))
