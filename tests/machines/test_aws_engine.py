"""The network and the machines of a lab on the real pulumi engine, with a stand-in for the aws provider.

The order of events is the engine's own: what it creates, replaces and deletes first, and how it goes on after a
failure.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.aws_engine import HA, NEEDS_CLI, Engine, lab, machines_engine
from tests.support.aws_provider import Event, refusal

pytestmark = [NEEDS_CLI, pytest.mark.timeout(1800)]


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with machines_engine(tmp_path) as found:
        yield found


def test_a_lab_comes_up_stays_as_it_is_and_goes_without_a_trace(engine: Engine) -> None:
    made = engine.up(lab())
    assert {event.operation for event in made} == {"create"} and len(made) > 30
    assert set(engine.machines()) == {"10.0.1.10", "10.0.2.10"}
    assert engine.up(lab()) == [], "a second up changes nothing"
    engine.destroy()
    assert engine.left() == []


def once_each(operation: str, seen: set[Event]) -> Any:
    """Refuses every step the first time that it is asked for."""

    def refuse(event: Event) -> None:
        if event.operation == operation and event not in seen:
            seen.add(event)
            raise refusal("InternalError", f"{event.name} fails once")

    return refuse


def test_every_step_fails_once_and_the_next_up_goes_on(engine: Engine) -> None:
    """However an `up` or a `destroy` is stopped half-way, the next one ends as if nothing had happened."""
    undisturbed = {(event.type, event.name) for event in engine.up(lab())}
    shape, machines = engine.shape(), engine.machines()
    engine.destroy()
    assert engine.left() == []

    failed: set[Event] = set()
    engine.aws.before = once_each("create", failed)
    for _ in range(40):
        done = engine.try_up(lab())
        if done.returncode == 0:
            break
        assert "fails once" in done.stdout + done.stderr, done.stdout + done.stderr
    assert done.returncode == 0
    assert {(event.type, event.name) for event in failed} == undisturbed
    assert engine.shape() == shape and engine.machines() == machines
    engine.aws.before = lambda event: None
    assert engine.up(lab()) == []

    failed = set()
    engine.aws.before = once_each("delete", failed)
    for _ in range(40):
        done = engine.call("destroy", "--yes", "--skip-preview")
        if done.returncode == 0:
            break
        assert "fails once" in done.stdout + done.stderr, done.stdout + done.stderr
    assert done.returncode == 0 and len(failed) == len(undisturbed)
    assert engine.left() == []


def test_a_parameter_that_the_state_has_lost_does_not_stop_the_next_up(engine: Engine) -> None:
    """PutParameter was done, and the `up` was killed before the state had it."""

    def lose(event: Event) -> None:
        if event.name == "lab-machines-w1-host-key" and event.operation == "create":
            engine.aws.after = lambda event: None
            raise refusal("RequestTimeout", "the answer was lost")

    engine.aws.after = lose
    assert engine.try_up(lab()).returncode != 0
    engine.up(lab())
    assert set(engine.machines()) == {"10.0.1.10", "10.0.2.10"}
    engine.destroy()
    assert engine.left() == []


def test_a_lab_with_everything_comes_and_goes(engine: Engine) -> None:
    """Balancer, NAT gateway and Instance Connect Endpoint."""
    everything = lab(HA, machines={"workerAccess": "InstanceConnect"})
    engine.up(everything)
    assert engine.up(everything) == []
    assert len(engine.machines()) == 4
    engine.destroy()
    assert engine.left() == []
