"""The table of addresses on the replica: who gives them, who has them, and which were given twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from io import StringIO

import pytest
from rich.console import Console

from cli.live import addresses as command
from components.verify import addresses
from components.verify.read.reading import LiveLab
from tests.verify import replica_labs as labs
from tests.verify.bed import bed, read
from tests.verify.replica import Replica

Bed = tuple[Replica, LiveLab]


@pytest.fixture(scope="module")
def egress() -> Iterator[Bed]:
    with bed(labs.EGRESS, ssh=False) as made:
        yield made


def table(live: LiveLab) -> list[addresses.Block]:
    return addresses.table(live, asyncio.run(command.read_blocks(live)))


def test_every_pod_is_in_the_table_once(egress: Bed) -> None:
    replica, live = egress
    blocks = table(live)
    assert [(str(b.cidr), b.node) for b in blocks] == [
        ("10.244.6.0/24", "ip1001100"),
        ("10.244.93.0/24", "ip-10-0-2-201"),
        ("10.244.97.0/24", "ip-10-0-2-200"),
    ], "seed 000's blocks, which follow from the nodes' names"
    given = [address for block in blocks for address in {**block.calico, **block.host_local}]
    assert len(given) == len(set(given))
    assert {str(pod.address) for pod in replica.pods if not pod.host_network} <= set(given)
    for block in blocks:
        assert not block.collisions
        # .50-.100 and .150-.250 are the delegates'.
        assert block.reserved == 51 + 101
        assert block.free == 256 - 152 - len(block.calico)


def test_an_address_given_twice_is_found_and_verify_reports_it(egress: Bed) -> None:
    replica, live = egress
    ours = replica.pod("normal", "ip-10-0-2-200")
    blocks = replica.api.objects["/apis/crd.projectcalico.org/v1/ipamblocks"]
    block = next(b for b in blocks if b["spec"]["cidr"] == "10.244.97.0/24")
    spec, ordinal = block["spec"], int(str(ours.address).rpartition(".")[2])
    before = json.loads(json.dumps(spec))
    spec["attributes"].append({"handle_id": "h", "secondary": {"namespace": "default", "pod": "late", "node": "x"}})
    spec["allocations"][ordinal] = len(spec["attributes"]) - 1
    try:
        found = next(b for b in table(live) if str(b.cidr) == "10.244.97.0/24")
        assert list(found.collisions) == [str(ours.address)]
        assert "two pods have it" in found.collisions[str(ours.address)]
        page = StringIO()
        command.show("lab", [found], asyncio.run(command.read_blocks(live)), Console(file=page, width=200))
        assert "collision" in page.getvalue() and "default/late" in page.getvalue()
        _, results = read(live)
        failed = [r.expectation.id for r in results if r.status == "failed"]
        assert failed == ["ip-10-0-2-200/free/net-calico"]
    finally:
        block["spec"] = before
