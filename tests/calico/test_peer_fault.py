"""The fault wrong-peer-as on a real API server: what it writes, and that every state of it can be undone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
import yaml

from components.calico import manifests
from components.verify.faults import objects
from components.verify.faults.inject import inject, mend
from components.verify.faults.model import Refused, Undone
from components.verify.faults.symptoms import aim
from components.verify.faults.table import find
from components.verify.model import ObservedLab, Scope
from components.verify.read import api
from components.verify.read.reading import LiveLab
from tests.calico import schemas
from tests.calico.cluster import TOKEN, Cluster, running_cluster
from tests.calico.labs import calico_lab

LAB = calico_lab(
    install="manifest",
    bgp="Enabled",
    nodeToNodeMesh=False,
    peers=[{"name": "tor", "peerIP": "10.0.1.1", "asNumber": 64999}],
    pools=[{"name": "p", "cidr": "10.244.0.0/16", "encapsulation": "None"}],
    containerIPForwarding="Disabled",
)
RECORD = {"cni-lab/fault": "64999"}


@pytest.fixture(scope="module")
def peered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """An API of its own with Calico's kinds: other tests need one that has none yet."""
    with running_cluster(tmp_path_factory.mktemp("peered")) as cluster:
        cluster.kubectl(
            "apply", "--server-side", "-f", str(schemas.upstream("calico-v3.32.1", schemas.CALICO_FILES[0]))
        )
        cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "customresourcedefinitions", "--all")
        yield cluster


@pytest.fixture
def live(peered: Cluster, monkeypatch: pytest.MonkeyPatch) -> LiveLab:
    """A lab without nodes that answer: what is read and changed is in the API."""
    server = yaml.safe_load(peered.kubeconfig.read_text())["clusters"][0]["cluster"]["server"]

    @asynccontextmanager
    async def connected(kubeconfig: str) -> AsyncIterator[httpx.AsyncClient]:
        head = {"Authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(base_url=server, verify=False, headers=head, trust_env=False) as client:
            yield client

    monkeypatch.setattr(api, "connected", connected)
    peered.kubectl("delete", "bgppeers.crd.projectcalico.org", "--all")
    peered.create(*manifests.bgp_peers(LAB).values())
    return LiveLab(LAB, blocks={}, access={}, kubeconfig="")


def peer(cluster: Cluster) -> tuple[int, dict[str, str]]:
    found = cluster.read("bgppeers.crd.projectcalico.org", "tor")
    return found["spec"]["asNumber"], found["metadata"].get("annotations", {})


def undo(live: LiveLab) -> list[Undone]:
    mended = asyncio.run(mend(live, "rack"))
    assert "Kubernetes" not in mended.failed, mended.failed
    return list(mended.undone)


def test_it_is_made_once_and_undone(peered: Cluster, live: LiveLab) -> None:
    fault = find("wrong-peer-as", LAB)
    target = aim(fault, ObservedLab.of(LAB, {}, Scope(), [], {}))
    asyncio.run(inject(live, "rack", fault, target))
    assert peer(peered) == (65000, RECORD)
    with pytest.raises(Refused, match="is broken on tor already: mend first"):
        asyncio.run(inject(live, "rack", fault, target))
    assert peer(peered) == (65000, RECORD)
    assert undo(live) == [Undone("tor", "wrong-peer-as", "put back")]
    assert peer(peered) == (64999, {})
    assert undo(live) == []


def test_what_was_repaired_by_hand_is_left(peered: Cluster, live: LiveLab) -> None:
    asyncio.run(objects.change(live, "wrong-peer-as", "tor"))
    by_hand = json.dumps({"spec": {"asNumber": 64999}})
    peered.kubectl("patch", "bgppeers.crd.projectcalico.org", "tor", "--type", "merge", "-p", by_hand)
    assert undo(live) == [Undone("tor", "wrong-peer-as", "its asNumber has been changed since")]
    assert peer(peered) == (64999, {})


@pytest.mark.parametrize("killed", ["before the patch", "after the patch"])
@pytest.mark.parametrize("during", ["break", "mend"])
def test_killed_anywhere_it_can_be_undone(
    peered: Cluster, live: LiveLab, monkeypatch: pytest.MonkeyPatch, during: str, killed: str
) -> None:
    """There is one request that changes anything, so there are two places."""

    class Killed(Exception):
        pass

    real = objects._patch

    async def patch(*arguments: object) -> None:
        if killed == "after the patch":
            await real(*arguments)  # type: ignore[arg-type]
        raise Killed

    if during == "mend":
        asyncio.run(objects.change(live, "wrong-peer-as", "tor"))
    with monkeypatch.context() as cut:
        cut.setattr(objects, "_patch", patch)
        with pytest.raises(Killed):
            asyncio.run(objects.change(live, "wrong-peer-as", "tor") if during == "break" else objects.restore(live))
    assert peer(peered) in [(65000, RECORD), (64999, {})], "changed and recorded, or neither"
    undo(live)
    assert peer(peered) == (64999, {})


def test_a_peer_that_is_gone_is_named(peered: Cluster, live: LiveLab) -> None:
    peered.kubectl("delete", "bgppeers.crd.projectcalico.org", "tor")
    with pytest.raises(Refused, match="there is no BGPPeer tor"):
        asyncio.run(objects.change(live, "wrong-peer-as", "tor"))
