"""The egress of cfos-egress: a pod on each node's bridge is the gateway of the pods beside it, with real packets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.sandbox.model import OUTSIDE
from components.sandbox.requirements import examine
from components.sandbox.requirements import find as find_program
from components.spec.load import load_stack_file
from components.verify.faults.inject import inject, mend
from components.verify.faults.model import Refused
from components.verify.faults.symptoms import aim, symptoms
from components.verify.faults.table import find
from components.verify.model import Pod
from components.verify.read.reading import LiveLab, observed, read_cluster
from components.verify.walk.live import walk_live
from tests.sandbox.test_stacks import ROOT, check, on, sandbox

if examine().problem:
    pytest.skip(f"no sandbox can be built here: {examine().problem}", allow_module_level=True)

NODE = "ip-10-0-2-200"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveLab]:
    lab = load_stack_file(ROOT / "stacks" / "Pulumi.cfos-egress.yaml").lab
    with sandbox(lab, tmp_path_factory.mktemp("firewall") / "home") as (found, _):
        yield found


def pod_of(live: LiveLab, workload: str, node: str = NODE) -> Pod:
    pods = asyncio.run(read_cluster(live)).pods
    return next(pod for pod in pods if (pod.workload, pod.node) == (workload, node))


def walk(live: LiveLab, source: Pod, target: str, **options: Any) -> Any:
    return asyncio.run(walk_live(live, source.id, target, **options))


def test_a_packet_goes_through_the_firewall_and_out(live: LiveLab) -> None:
    source, firewall = pod_of(live, "normal-egress"), pod_of(live, "firewall")
    found = walk(live, source, OUTSIDE, captured=True)
    assert found.walk.ping.status == "passed" and found.walk.stopped is None
    kinds = [hop.kind for hop in found.walk.hops]
    inside = ["pod route", "firewall", "pod route", "gateway arp", "host veth"]
    assert kinds == [*inside, "host route", "masquerade", "outside"]
    through = found.walk.hops[1]
    assert firewall.id in through.sentence and "10.1.128.2" in through.sentence
    assert through.packet.source == firewall.address, "the firewall translates the source to its own address"
    assert [hop.packet.ttl for hop in found.walk.hops] == [64, 64, 63, 63, 63, 62, 62, 62]
    seen = {sighting.point.where: sighting.request for sighting in found.sightings}
    by_firewall = next(line for where, line in seen.items() if where.startswith(firewall.interface))
    assert f"{firewall.address} > {OUTSIDE}" in by_firewall


def test_pods_of_the_cluster_are_reached_beside_the_firewall(live: LiveLab) -> None:
    other = pod_of(live, "normal", "ip-10-0-2-201")
    found = walk(live, pod_of(live, "normal-egress"), other.id).walk
    assert found.ping.status == "passed" and "firewall" not in [hop.kind for hop in found.hops]


@pytest.mark.parametrize(
    ("address", "kinds"),
    [
        ("10.1.128.1", ["pod route", "bridge", "delivery"]),
        ("10.1.128.2", ["pod route", "outside"]),
        ("10.244.97.0", ["pod route", "gateway arp", "host veth", "delivery", "delivery"]),
        ("10.0.2.200", ["pod route", "gateway arp", "host veth", "delivery", "delivery"]),
    ],
)
def test_what_is_on_the_bridge_or_on_the_node_itself_is_not_sent_out(
    live: LiveLab, address: str, kinds: list[str]
) -> None:
    """The node's address on the bridge, the firewall's own, the node's end of the tunnel, its address in the subnet."""
    found = walk(live, pod_of(live, "normal-egress"), address).walk
    assert found.ping.status == "passed" and found.stopped is None
    assert [hop.kind for hop in found.hops] == kinds
    assert not [hop for hop in found.hops if "out of the lab" in hop.sentence]


def test_on_local_machines_the_bridges_own_route_leads_to_this_computer(tmp_path: Path) -> None:
    """cfos-egress has 10.0.0.2 there, the resolver of a VPC, which answers on EC2 only."""
    lab = load_stack_file(ROOT / "stacks" / "Pulumi.local.yaml").lab
    with sandbox(lab, tmp_path / "home") as (local, _):
        found = walk(local, pod_of(local, "normal-egress"), "10.0.1.1").walk
        assert found.ping.status == "passed" and found.stopped is None
        assert [hop.kind for hop in found.hops] == ["pod route", "bridge", "host route", "masquerade", "outside"]
        found = walk(local, pod_of(local, "normal-egress"), OUTSIDE).walk
        assert found.ping.status == "passed" and "firewall" in [hop.kind for hop in found.hops]


@pytest.mark.parametrize("name", ["firewall-gone", "firewall-drops"])
def test_what_depends_on_the_firewall(live: LiveLab, name: str) -> None:
    of = observed(live, asyncio.run(read_cluster(live)))
    fault = find(name, live.spec)
    target = aim(fault, of)
    wanted = symptoms(fault, of, target)
    source = pod_of(live, "normal-egress", target.node)
    before = on(live, target.node, "bash", "-c", STATE).stdout
    asyncio.run(inject(live, "lab", fault, target))
    try:
        assert set(check(live)) == {expectation.id for expectation in wanted.failed}
        assert wanted.walk is not None and wanted.walk[0] == source.id
        found = walk(live, source, OUTSIDE).walk
        assert found.ping.status == "failed"
        assert found.stopped is not None and (found.stopped.kind, found.stopped.node) == (wanted.hop, wanted.node)
        # What does not leave through the firewall is as before.
        other = pod_of(live, "normal", "ip-10-0-2-201" if target.node == NODE else NODE)
        assert walk(live, source, other.id).walk.ping.status == "passed"
    finally:
        mended = asyncio.run(mend(live, "lab"))
    assert not mended.failed and [undone.result for undone in mended.undone] == ["put back"]
    assert on(live, target.node, "bash", "-c", STATE).stdout == before
    assert check(live) == {}
    assert walk(live, source, OUTSIDE).walk.ping.status == "passed"


STATE = r"""
for name in /run/netns/*; do
  echo "$name"
  ip -n "${name##*/}" -4 route
  ip netns exec "${name##*/}" iptables-save | grep '^-A'
done
"""


def test_a_firewall_drops_nothing_on_a_node_without_iptables(live: LiveLab) -> None:
    program = find_program("iptables")
    if program is None:
        pytest.skip("iptables is not installed")
    iptables = str(Path(program).resolve())
    of = observed(live, asyncio.run(read_cluster(live)))
    fault = find("firewall-drops", live.spec)
    target = aim(fault, of, None)
    assert on(live, target.node, "mount", "--bind", "/dev/null", iptables).returncode == 0
    try:
        with pytest.raises(
            Refused, match="is made with iptables, which is not installed here: apt-get install iptables"
        ):
            asyncio.run(inject(live, "lab", fault, target))
    finally:
        assert on(live, target.node, "umount", iptables).returncode == 0
    assert asyncio.run(mend(live, "lab")).undone == ()


def test_the_pods_behind_it_get_no_address_of_a_firewall(live: LiveLab, tmp_path: Path) -> None:
    status = pod_of(live, "normal-egress").networks["net1"]
    assert status["ips"] == ["10.1.128.10"]
    assert pod_of(live, "firewall").networks["net1"]["name"] == "default/cfosdefaultcni5-fixed"
