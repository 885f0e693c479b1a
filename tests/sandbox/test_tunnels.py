"""A sandbox in the modes that not every kernel has: verify and walk pass, and WireGuard's keys do what they are for."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from components.sandbox.requirements import examine
from components.slowdown import scaled
from components.spec.models import Lab
from components.verify.walk.live import walk_live
from tests.sandbox.test_stacks import check, sandbox
from tests.verify import replica_labs as labs
from tests.verify.replica import Replica, skip_without_kernel, standing

if examine().problem:
    pytest.skip(f"no sandbox can be built here: {examine().problem}", allow_module_level=True)


@pytest.mark.parametrize(
    ("lab", "device"),
    [pytest.param(labs.IPIP, "tunl0", id="IPIP"), pytest.param(labs.WIREGUARD, "wireguard.cali", id="WireGuard")],
)
def test_verify_and_walk_pass_in_a_sandbox_with_the_tunnel(lab: Lab, device: str, tmp_path: Path) -> None:
    skip_without_kernel(lab)
    with sandbox(lab, tmp_path / "home") as (live, standing):
        assert not [note for note in standing.notes if "this kernel" in note], "nothing stands in for the tunnel"
        assert check(live) == {}
        found = asyncio.run(walk_live(live, "multitool@control1", "multitool@worker1", captured=True))
        assert found.walk.ping.status == "passed"
        assert [hop.sentence for hop in found.walk.hops if hop.status != "passed"] == []
        assert {hop.device for hop in found.walk.hops if hop.kind == "tunnel"} == {device}
        assert all(sighting.request and sighting.reply for sighting in found.sightings)


def test_wireguard_s_handshakes_and_what_the_wire_shows() -> None:
    with standing(labs.WIREGUARD, system_pods=False, ssh=False) as replica:
        source, target = replica.pod("multitool", "control1"), replica.pod("multitool", "worker1")
        assert replica.ping(source, target.address).returncode == 0
        keys = {node: wg(replica, node, "public-key")[0] for node in ("control1", "worker1", "worker2")}
        handshakes = dict(line.split() for line in wg(replica, "control1", "latest-handshakes"))
        assert set(handshakes) == {keys["worker1"], keys["worker2"]}
        assert int(handshakes[keys["worker1"]]) > 0, "nothing was encrypted for worker1"
        script = (
            f"timeout {scaled(60)} tcpdump -n -l -c 4 -i eth0 'udp port 51820 or icmp' & sleep 5; "
            f"nsenter --net=/run/netns/{source.netns} ping -c 2 -w 20 {target.address} >/dev/null; wait"
        )
        seen = replica.exec("control1", ["bash", "-c", script], timeout=120).stdout
        assert "10.0.1.20.51820 > 10.0.2.30.51820: UDP" in seen, seen
        assert "ICMP" not in seen, "a packet between pods can be read on the wire"


def wg(replica: Replica, node: str, what: str) -> list[str]:
    done = replica.exec(node, ["wg", "show", "wireguard.cali", what])
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
