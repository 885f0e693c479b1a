"""What the Kubernetes API must have: pools, blocks, the reservation."""

from __future__ import annotations

from collections.abc import Iterator

from components.spec import addresses, models
from components.verify.model import Expectation, ObservedLab, Repair, Topic


def cluster(observed: ObservedLab) -> Iterator[Expectation]:
    """The cluster's own, in the order in which they are best read."""
    spec = observed.spec
    yield from map(_pool, spec.calico.pools)
    for node, cidrs in observed.blocks.items():
        for cidr in cidrs:
            yield _block(spec, node, cidr)
    yield from _blocks_known(observed)
    if spec.calico.bgp == "Enabled":
        yield from map(_peer, spec.calico.peers)
    if spec.multus:
        for reserved in addresses.reservation(spec, observed.blocks):
            yield Expectation(
                topic=Topic.RESERVATION,
                key=str(reserved),
                expected={},
                sentence=f"calico-ipam leaves {reserved} to the delegates",
                command="kubectl get ipreservations.crd.projectcalico.org -o yaml",
                because="the delegates' ranges in every node's block (multus.delegates)",
                cause="the IPReservation was changed or removed: two pods may get the same address",
                repair=Repair.REFRESH,
            )


def _pool(pool: models.Pool) -> Expectation:
    return Expectation(
        topic=Topic.POOL,
        key=pool.name,
        expected={
            "cidr": str(pool.cidr),
            "blockSize": str(pool.block_size),
            "ipipMode": pool.mode.ipip_mode,
            "vxlanMode": pool.mode.vxlan_mode,
        },
        sentence=f"IPPool {pool.name} is {pool.cidr} in blocks of /{pool.block_size}, {pool.encapsulation}",
        command=f"kubectl get ippools.crd.projectcalico.org {pool.name} -o yaml",
        because="calico.pools in the stack file",
        cause="somebody changed the pool by hand. Where the operator installed Calico, it undoes such a change; where "
        "the manifest did, the change stays",
        repair=Repair.REFRESH,
    )


def _peer(peer: models.BgpPeer) -> Expectation:
    return Expectation(
        topic=Topic.PEER,
        key=peer.name,
        expected={"peerIP": str(peer.peer_ip), "asNumber": str(peer.as_number)},
        sentence=f"BGPPeer {peer.name} is {peer.peer_ip} in AS {peer.as_number}",
        command=f"kubectl get bgppeers.crd.projectcalico.org {peer.name} -o yaml",
        because="calico.peers in the stack file",
        cause="somebody changed the BGPPeer by hand. With another AS number BIRD refuses the peer: Bad peer AS",
        advice="if `./lab break` did it: `./lab mend STACK`",
        repair=Repair.REFRESH,
    )


def _block(spec: models.Lab, node: str, cidr: str) -> Expectation:
    listed = "blockaffinities.crd.projectcalico.org -o custom-columns=N:.spec.node,C:.spec.cidr"
    if spec.calico.ipam == "HostLocal":
        listed = "nodes -o custom-columns=N:.metadata.name,C:.spec.podCIDR"
    return Expectation(
        topic=Topic.AFFINITY,
        key=cidr,
        expected={"node": node, "state": "confirmed"},
        sentence=f"block {cidr} belongs to {node}",
        command=f"kubectl get {listed}",
        because="`up` read this block and computed the delegates' ranges from it",
        cause="the block moved: the node was made anew, or Calico released the block",
        repair=Repair.BLOCKS,
    )


def _blocks_known(observed: ObservedLab) -> Iterator[Expectation]:
    """Every node has a block of every pool that delegates give from. Without this the delegates' files would not be
    expected either, and all would pass."""
    spec = observed.spec
    pools = {pool.name: pool for pool in map(spec.pool_of, spec.multus.delegates if spec.multus else ())}
    for node in spec.nodes:
        for pool in pools.values():
            if addresses.block_in_pool(observed.blocks.get(node.name, ()), pool) is None:
                yield Expectation(
                    topic=Topic.AFFINITY,
                    key=f"{pool.name} of {node.name}",
                    expected={},
                    sentence=f"`up` has read {node.name}'s block of pool {pool.name}, which has the delegates' ranges",
                    command="./lab addresses STACK",
                    because="each node's delegates are written for its own block (multus.delegates)",
                    cause="the last `up` ended before it read the blocks. The node's files are not written, and not "
                    "checked here",
                    repair=Repair.BLOCKS,
                )
