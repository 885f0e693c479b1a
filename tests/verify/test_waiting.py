"""`./lab verify --wait`: a lab that is still coming up, and one that never does."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest

from cli.live import verify as command
from components.verify import waiting
from components.verify.read.reading import LiveLab, read_lab
from tests.verify import replica_labs as labs
from tests.verify.bed import bed
from tests.verify.clock import ReadingClock
from tests.verify.replica import Replica
from tests.verify.test_workloads import Cluster, waits

Bed = tuple[Replica, LiveLab]
READING_SECONDS = 10.0


@pytest.fixture(scope="module")
def lab() -> Iterator[Bed]:
    with bed(labs.CROSS_SUBNET, ssh=False) as it:
        yield it


class Coming(ReadingClock):
    """CoreDNS' first pod, on a clock of its own, on which each reading of the lab takes READING_SECONDS."""

    def __init__(self, replica: Replica) -> None:
        super().__init__(READING_SECONDS)
        self.pods: list[dict[str, Any]] = replica.api.objects["/api/v1/pods"]
        self.index = next(i for i, it in enumerate(self.pods) if it["metadata"]["name"].startswith("coredns-"))
        self.whole = deepcopy(self.pods[self.index])

    def waits(self, reason: str) -> None:
        waits(self.pods[self.index], reason)

    def runs(self) -> None:
        self.pods[self.index] = deepcopy(self.whole)


@pytest.fixture
def coming(lab: Bed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Coming]:
    made = Coming(lab[0])
    made.install(monkeypatch)
    monkeypatch.setattr(command, "chosen_live", lambda _, sandbox: lab[1])
    yield made
    made.runs()


def test_it_says_what_is_missing_when_that_changes_and_reports_what_never_comes(
    coming: Coming, capsys: pytest.CaptureFixture[str]
) -> None:
    coming.waits("ContainerCreating")
    coming.before = {3: lambda: coming.waits("ErrImagePull")}
    assert command.verify("lab", wait_seconds=60) == 1
    assert (coming.readings, coming.now) == (5, 70), "one reading more than the time has, at most"
    printed = capsys.readouterr()
    first, second = printed.err.splitlines()
    assert first.startswith("lab verify: after 10 s of 60 s: 1 of ")
    assert "Deployment kube-system/coredns" in first and "1 of 2 Ready" in first and "ContainerCreating" in first
    assert second.startswith("lab verify: after 40 s of 60 s: ") and "ErrImagePull" in second
    assert "FAILED" in printed.out and "ErrImagePull" in printed.out


def test_it_ends_as_soon_as_all_pass(coming: Coming, capsys: pytest.CaptureFixture[str]) -> None:
    coming.waits("ContainerCreating")
    coming.before = {2: coming.runs}
    assert command.verify("lab", as_json=True, wait_seconds=600) == 0
    assert coming.readings == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)["failed"] == 0, "stdout has the report alone"
    assert len(printed.err.splitlines()) == 1


def test_without_waiting_it_reads_once_and_says_nothing_before_the_report(
    coming: Coming, capsys: pytest.CaptureFixture[str]
) -> None:
    coming.waits("ContainerCreating")
    assert command.verify("lab") == 1
    assert coming.readings == 1 and capsys.readouterr().err == ""


def test_many_reasons_are_counted(lab: Bed) -> None:
    """A lab of which no node answers yet, and one without pods."""
    away = asyncio.run(read_lab(LiveLab(lab[1].spec, {}, {}, "")))
    line = waiting.missing_of(waiting.verify(lab[1], away))
    assert "not as expected: the stack has no output `kubeconfig`" in line
    empty = Cluster()
    empty.pods.clear()
    line = waiting.missing_of(empty.results())
    assert "Pod kube-system/etcd-ip1001100 is Ready: it is not there; " in line and re.search(r"; and \d+ more$", line)
