"""The whole lab: the mapping under `cni-lab:lab`."""

from __future__ import annotations

from typing import Annotated, Final, Self

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from components.spec.models.base import Model
from components.spec.models.calico import Calico, Pool, default_pool
from components.spec.models.cluster import (
    MOST_CONTROL_PLANES,
    Kubernetes,
    Network,
    Node,
    counted_nodes,
    default_nodes,
)
from components.spec.models.machines import Machines
from components.spec.models.mirrors import Mirrors
from components.spec.models.pods import CALICO_NETWORK, AttachedNetwork, Delegate, Multus, Workload
from components.spec.modes import TUNNELS, WIREGUARD, Tunnel

NODE_COUNT: Final = "node_count"
"""The type of the errors of count_error."""


def count_error(key: str, count: int | None, problem: str, fix: str) -> PydanticCustomError:
    """An error of a whole lab that belongs to the key `controlPlanes` or `workers`."""
    return PydanticCustomError(NODE_COUNT, "{problem}", {"key": key, "count": count, "problem": problem, "fix": fix})


class Lab(Model):
    """One Kubernetes networking lab."""

    machines: Machines
    """What the nodes run on: EC2 instances, containers on this computer, or existing hosts."""
    network: Network = Network.model_construct()
    """Network of the machines."""
    nodes: tuple[Node, ...] = Field(default_factory=default_nodes, min_length=1)
    """Machines of the lab. Default: one control plane and two workers."""
    control_plane_count: Annotated[int, Field(ge=1, le=MOST_CONTROL_PLANES)] | None = Field(
        default=None, alias="controlPlanes"
    )
    """Number of control planes, instead of nodes. They are control1, control2, … in the first subnet. Default: 1."""
    worker_count: Annotated[int, Field(ge=0, le=500)] | None = Field(default=None, alias="workers")
    """Number of workers, instead of nodes. They are worker1, worker2, … in the other subnets in turn. Default: 2."""
    kubernetes: Kubernetes = Kubernetes.model_construct()
    """The Kubernetes cluster, which kubeadm makes."""
    calico: Calico = Calico.model_construct()
    """Calico, the pods' first network."""
    multus: Multus | None = None
    """Multus, for pods with several networks. Default: Calico alone."""
    networks: tuple[AttachedNetwork, ...] = ()
    """Networks for further interfaces of pods (NetworkAttachmentDefinitions)."""
    workloads: tuple[Workload, ...] = ()
    """Pods to try the networks with: Deployments, DaemonSets or single pods."""
    mirrors: Mirrors = Mirrors.model_construct()
    """Other sources for everything that is downloaded."""
    # With {1,128} in place of + and max_length, building the expression would take longer than all other keys together.
    owner: Annotated[str, StringConstraints(pattern=r"^[\w .:/=+@-]+$", max_length=128)] = "cni-lab"
    """Owner of the lab, a tag on every resource in a cloud."""
    verify: bool = False
    """Check the whole lab at the end of `up`, as `./lab verify` does. The report is the output `verification`."""
    ttl_hours: Annotated[int, Field(ge=1, le=720)] | None = None
    """Hours to live. A stack that has them is ephemeral: `./lab reap` destroys it when they are over."""

    @model_validator(mode="after")
    def _count_nodes(self) -> Self:
        """Put the nodes in place of their numbers, so that nothing else has to know of the numbers."""
        given = {"controlPlanes": self.control_plane_count, "workers": self.worker_count}
        key = next((key for key, count in given.items() if count is not None), None)
        if key is None:
            return self
        if "nodes" in self.model_fields_set:
            raise count_error(key, given[key], "is a second way to give the nodes, beside nodes", "keep one of the two")
        if self.machines.hosts_stay:
            problem = "cannot name hosts that exist already, with their addresses and host keys"
            raise count_error(key, given[key], problem, "list them under nodes")
        control_planes = 1 if self.control_plane_count is None else self.control_plane_count
        workers = 2 if self.worker_count is None else self.worker_count
        first_host = self.machines.first_node_host
        try:
            nodes = counted_nodes(control_planes, workers, self.network.subnets, first_host)
        except ValueError as error:
            problem = f"does not fit into network.subnets.{error} ({self.network.subnets[str(error)]})"
            raise count_error(key, given[key], problem, "choose a larger range there, or fewer nodes") from None
        # As below: the model is not in use yet.
        self.__dict__.update(nodes=nodes, control_plane_count=None, worker_count=None)
        self.model_fields_set.difference_update({"control_plane_count", "worker_count"})
        self.model_fields_set.add("nodes")
        return self

    @model_validator(mode="after")
    def _follow_pod_cidr(self) -> Self:
        """Put the default pool into the lab's own kubernetes.podCidr."""
        if "pools" not in self.calico.model_fields_set:
            pool = default_pool(self.kubernetes.pod_cidr, len(self.nodes))
            calico = self.calico.model_copy(update={"pools": (pool,)})
            # The file has no pools, and a copy of this lab with another podCidr must see that as well.
            calico.model_fields_set.discard("pools")
            # The model is frozen, but here it is not in use yet.
            self.__dict__["calico"] = calico
        return self

    @property
    def control_planes(self) -> tuple[Node, ...]:
        return tuple(n for n in self.nodes if n.role == "control-plane")

    @property
    def workers(self) -> tuple[Node, ...]:
        return tuple(n for n in self.nodes if n.role == "worker")

    @property
    def private_workers(self) -> bool:
        """Whether the workers have no public addresses."""
        return self.machines.private_workers

    @property
    def link_mtu(self) -> int:
        """MTU between nodes, in bytes."""
        return self.network.mtu or self.machines.default_link_mtu

    @property
    def encapsulations(self) -> frozenset[str]:
        return frozenset(pool.encapsulation for pool in self.calico.pools)

    @property
    def tunnels(self) -> tuple[Tunnel, ...]:
        """The kinds of tunnel that the nodes have."""
        found = {pool.mode.tunnel for pool in self.calico.pools}
        if self.calico.wireguard:
            found.add(WIREGUARD)
        return tuple(tunnel for tunnel in TUNNELS if tunnel in found)

    @property
    def sends_plain(self) -> bool:
        """Whether a pool sends packets between some nodes without its own tunnel. WireGuard may still wrap them."""
        return any(pool.mode.sends_plain for pool in self.calico.pools)

    def default_network(self, workload: Workload) -> str:
        """Name of the network of the eth0 of a workload's pods: a delegate's, or Calico's own."""
        if self.multus is None:
            return CALICO_NETWORK
        return workload.default_network or self.multus.cluster_network

    def delegate_of(self, workload: Workload) -> Delegate | None:
        """The delegate that gives a workload's pods their eth0. None if Calico's own network does."""
        name = self.default_network(workload)
        return next((d for d in (self.multus.delegates if self.multus else ()) if d.name == name), None)

    def pool_of(self, delegate: Delegate) -> Pool:
        """The pool in whose blocks the delegate's range is. Raises KeyError if there is no pool of that name."""
        if delegate.pool is None:
            return self.calico.pools[0]
        return {pool.name: pool for pool in self.calico.pools}[delegate.pool]


# The one model that is validated as a whole. Its validator, and with it the keys' aliases, are there from the start.
Lab.model_rebuild()
