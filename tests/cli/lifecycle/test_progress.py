"""Phases, nodes and failures from pulumi's events. They were recorded with a whole local lab, whose first `up` had a
mirror of Calico's manifests that did not exist."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.lifecycle import progress as model
from cli.lifecycle.progress import Progress, Run
from components.spec.load import load_stack_file
from components.spec.models import LocalMachines, MachineProvider
from tests.support.examples import examples
from tests.support.graphs import ROOT, STACKS, run_stack

EVENTS = Path(__file__).parents[2] / "data" / "events"
NODES = ("ip1001100", "ip-10-0-2-200", "ip-10-0-2-201")
LOCAL = LocalMachines(provider="local")


def recorded(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (EVENTS / name).read_text().splitlines()]


def played(events: list[Any], until: float = float("inf")) -> Progress:
    """The progress after the events of the first `until` seconds."""
    progress, start = Progress(NODES), events[0]["timestamp"]
    for event in events:
        if event["timestamp"] - start > until:
            break
        progress.take(event)
    return progress


def test_the_work_of_each_node() -> None:
    progress = played(recorded("up-failed.jsonl"), 36)
    now = {work.node: work.line for phase in progress.phases.values() for work in phase.running.values()}
    assert now == {
        "ip1001100": "ip1001100 has Kubernetes 1.36.3 and CRI-O 1.36.3 already: nothing to install",
        "ip-10-0-2-200": "kubelet set on hold.",
        "ip-10-0-2-201": "wrote /etc/kubernetes/cni-lab/patches/kubeletconfiguration+strategic.yaml",
    }
    assert {name for name, phase in progress.phases.items() if phase.running} == {"prepare", "cluster"}
    assert progress.phases["machines"].done == 23 and not progress.phases["machines"].running


def test_results_of_scripts_are_not_shown() -> None:
    seen = set()
    for events in (recorded("up-failed.jsonl"), recorded("up-again.jsonl")):
        progress = Progress(NODES)
        for event in events:
            progress.take(event)
            seen |= {work.line for phase in progress.phases.values() for work in phase.running.values()}
    assert len(seen) > 100 and not [
        line for line in seen if line.startswith(("{", '"')) or (line.isalnum() and len(line) > 40)
    ]


def test_a_failure_has_its_phase_its_node_and_the_last_lines_of_the_script() -> None:
    progress = played(recorded("up-failed.jsonl"))
    [failure] = progress.failures
    assert (failure.phase, failure.node, failure.what) == ("calico", "ip1001100", "lab-calico-install")
    assert failure.lines[0] == "cni-lab: calico.sh" and "cannot be fetched: open the way to it" in failure.lines[-1]
    assert progress.phases["calico"].failed and not progress.phases["joins"].failed


def test_a_rule_that_stops_the_run_is_a_failure() -> None:
    urn = "urn:pulumi:x::cni-lab::cnilab:index:Lab$cnilab:network:Network$aws:ec2/vpc:Vpc::lab-network"
    breach = {"resourceUrn": urn, "message": "<{%fg 1%}>no owner tag\n", "policyName": "owner-tags"}
    progress = Progress(NODES)
    for level in ("advisory", "mandatory"):
        progress.take({"timestamp": 1, "policyEvent": breach | {"enforcementLevel": level}})
    assert progress.failures == [model.Failure("machines", None, "lab-network", ("policy owner-tags: no owner tag",))]


def test_a_run_that_continues_where_the_last_one_stopped() -> None:
    progress = played(recorded("up-again.jsonl"))
    assert progress.failures == [] and not any(phase.running for phase in progress.phases.values())
    worked = [name for name in model.PHASES if name in progress.phases and progress.phases[name].began is not None]
    assert worked == ["calico", "node files", "workloads", "verification"]
    assert progress.phases["prepare"].unchanged == 2 and progress.phases["prepare"].done == 0
    assert progress.phases["node files"].done == 4  # three nodes and the reservation


def test_a_preview_counts_the_resources_of_each_phase() -> None:
    plan = played(recorded("preview.jsonl"))
    failed, again = (played(recorded(name)) for name in ("up-failed.jsonl", "up-again.jsonl"))
    assert list(plan.phases) and "upgrade" not in plan.phases
    for name, phase in plan.phases.items():
        assert phase.done == sum(run.phases[name].done for run in (failed, again) if name in run.phases), name


@pytest.mark.parametrize("stack", STACKS)
def test_every_resource_of_every_lab_has_its_phase(stack: str) -> None:
    lab = load_stack_file(ROOT / "stacks" / f"Pulumi.{stack}.yaml").lab
    found: dict[str, set[str]] = {}
    for resource in run_stack(stack).deployment.resources:
        if resource.custom and not resource.type.startswith("pulumi:"):
            phase = model.phase_of(resource.urn)
            assert phase, resource.urn
            found.setdefault(phase, set()).add(resource.urn)
    assert set(found) - {"upgrade"} == set(model.phases_of(lab))
    progress = Progress([node.name for node in lab.nodes])
    assert {progress.node_of(urn) for urn in found["joins"]} == {node.name for node in lab.nodes[1:]}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["timestamp", "resourcePreEvent", "resOutputsEvent", "resOpFailedEvent", "diagnosticEvent", "metadata",
                 "summaryEvent", "resourceChanges", "policyEvent", "enforcementLevel", "urn", "op", "type", "new",
                 "inputs", "node", "message", "severity"]
            ),
            inner | st.sampled_from(["create", "a::b::cnilab:node:Step::d", "cnilab:node:Step", "error", "::::"]),
            max_size=5,
        )
    ),
    max_leaves=12,
)  # fmt: skip


@examples(200)
@given(st.lists(JSON, max_size=6))
def test_unknown_events_are_ignored(events: list[Any]) -> None:
    progress = Progress(NODES)
    for event in events:
        progress.take(event)


def test_colours_and_control_characters_are_removed() -> None:
    assert model.clean("<{%fg 1%}>\x1b[31mred\x1b[0m\x07 \x9b31m\nnext<{%reset%}>") == "red   31m\nnext"


def test_expected_times_come_from_earlier_runs_else_from_the_typical_ones() -> None:
    progress = played(recorded("up-failed.jsonl"))
    run = model.run_of("up", progress)
    assert run is not None
    assert run.phases["prepare"] == (31.0, 41.0) and run.phases["cluster"] == (30.0, 56.0)
    assert run.adds["cluster"] == 15.0, "what ran beside prepare counts once"
    assert sum(run.adds.values()) == max(ended for _, ended in run.phases.values())

    guess = model.expected("up", LOCAL, ["prepare", "cluster"], [run, Run("destroy", {"prepare": (0, 99)})])
    assert (guess.phases, guess.total, guess.runs) == ({"prepare": 10.0, "cluster": 26.0}, 24.0, 1)
    thumb = model.expected("up", LOCAL, ["prepare", "node files"], [run])
    assert thumb.total == 9.0 + model.TYPICAL_SECONDS["up"]["node files"]
    assert model.expected("up", LOCAL, ["prepare"], []).runs == 0
    assert model.run_of("up", Progress(NODES)) is None


def test_each_phase_has_a_typical_time() -> None:
    assert set(model.TYPICAL_SECONDS["up"]) == set(model.PHASES)
    for provider in MachineProvider.__subclasses__():
        for phases in provider.typical_seconds.values():
            assert set(phases) <= set(model.PHASES), provider


def test_a_provider_without_typical_times_has_the_common_ones() -> None:
    machines = MachineProvider(provider="new")
    guess = model.expected("up", machines, model.PHASES, [])
    assert guess.phases == model.TYPICAL_SECONDS["up"]
    assert model.expected("destroy", machines, ["machines"], []).total == 0
