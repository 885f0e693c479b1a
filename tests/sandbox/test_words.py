"""Each file of tests/data/words has a word that no shipped stack has. Each stands as a sandbox, passes verify, and its
pods reach each other."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from components.sandbox.requirements import examine
from components.spec.load import load_stack_file
from components.verify.faults import table
from components.verify.read.reading import read_cluster
from components.verify.walk.live import walk_live
from tests.sandbox.test_stacks import check, sandbox

WORDS = sorted((Path(__file__).parents[1] / "data" / "words").glob("*.yaml"))

if examine().problem:
    pytest.skip(f"no sandbox can be built here: {examine().problem}", allow_module_level=True)


@pytest.mark.parametrize("path", WORDS, ids=lambda path: path.stem)
def test_a_lab_stands_and_passes_verify(path: Path, tmp_path: Path) -> None:
    lab = load_stack_file(path).lab
    with sandbox(lab, tmp_path / "home") as (live, _):
        assert check(live) == {}
        pods = [pod for pod in asyncio.run(read_cluster(live)).pods if pod.workload is not None and pod.running]
        for workload in lab.workloads:
            own = [pod for pod in pods if pod.workload == workload.name]
            other = next((pod for pod in pods if pod.node != own[0].node), None)
            if other is not None:
                found = asyncio.run(walk_live(live, own[0].id, other.id)).walk
                assert found.ping.status == "passed" and found.stopped is None, found


def test_a_lab_without_delegates_has_no_delegate_to_break() -> None:
    lab = load_stack_file(WORDS[0].with_name("multus-plain.yaml")).lab
    assert table.FAULTS["delegate-renamed"].refusal(lab) == "multus.delegates: the lab has none"
    assert table.FAULTS["multus-emptied"].refusal(lab) is None
