"""Changes of a live lab on the real engine: what the review says, and what then happens to every resource.

The whole program runs, with the stand-in for the aws provider; commands and Kubernetes objects are simulated. The
review compares the two stack files as `./lab plan --against` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli.review import side
from cli.review.changes import Comparison, compare
from cli.review.verdict import Verdict
from components.spec.changes import refused_changes
from components.spec.load import parse_lab
from tests.support.aws_engine import INSTANCE, NEEDS_CLI, NODES, STACK, W2, Engine, lab, lab_engine
from tests.support.engine_provider import Event

pytestmark = [NEEDS_CLI, pytest.mark.timeout(2400)]

W3 = {"name": "w3", "role": "worker", "subnet": "two", "address": "10.0.2.12"}
NARROW = {"subnets": {"one": "10.0.1.0/24", "two": "10.0.2.0/25"}}


@dataclass
class Live:
    """A lab that stands. `change` brings it to another stack file."""

    engine: Engine
    lab: dict[str, Any]
    plan: dict[str, Any]

    def change(self, wanted: dict[str, Any], *, refused: str = "") -> tuple[Verdict, list[Event]]:
        """Review and make a change; the two must agree. `refused`: the key for which `./lab up` would not even try."""
        self.engine.write(wanted)
        after = side.plan(self.engine.folder, STACK)
        assert "error" not in after, after["error"]
        found = compare(STACK, self.plan, after)
        assert found.verdict is not None
        keys = {finding.key for finding in refused_changes(parse_lab(self.lab), parse_lab(wanted))}
        assert keys == ({refused} if refused else set())
        events = self.engine.up(wanted)
        assert said(found) == done(self.engine), f"{found.verdict}"
        assert machines(events) == {
            "added": set(found.verdict.added),
            "replaced": set(found.verdict.replaced),
            "restarted": set(found.verdict.restarted),
            "removed": set(found.verdict.removed),
        }
        self.lab, self.plan = wanted, after
        return found.verdict, events


def said(found: Comparison) -> dict[tuple[str, str], str]:
    """What the review says of each custom resource, by type and name; a Step is its command."""
    actions = {
        (_type(change.urn), change.urn.split("::")[3]): "changed" if change.action == "runs again" else change.action
        for change in found.changes
    }
    return {key: action for key, action in actions.items() if action != "same"}


def done(engine: Engine) -> dict[tuple[str, str], str]:
    """The same of what the engine did. A Step runs again whether its command is updated or replaced."""
    words = {"create": "added", "delete": "removed", "update": "changed", "replace": "replaced"}
    found = {}
    for urn, operations in engine.ops.items():
        kind = urn.split("::")[2].split("$")[-1]
        # Components do nothing, and the review has no default providers.
        if kind.startswith(("cnilab:", "pulumi:pulumi:")) or "::default_" in urn:
            continue
        (operation,) = operations - {"same", "create-replacement", "delete-replaced", "refresh", "read"} or {""}
        if operation:
            is_step = _type(urn) == "Step"
            action = "changed" if is_step and operation in ("update", "replace") else words[operation]
            found[(_type(urn), urn.split("::")[3])] = action
    return found


def _type(urn: str) -> str:
    types = urn.split("::")[2].split("$")
    return "Step" if "cnilab:node:Step" in types[-2:] else types[-1]


def machines(events: list[Event]) -> dict[str, set[str]]:
    """What happened to machines, by the names of their nodes."""
    by = {
        operation: {
            e.name.removeprefix("lab-machines-") for e in events if (e.operation, e.type) == (operation, INSTANCE)
        }
        for operation in ("create", "delete", "restart")
    }
    both = by["create"] & by["delete"]
    return {
        "added": by["create"] - both,
        "replaced": both,
        "restarted": by["restart"],
        "removed": by["delete"] - both,
    }


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    with lab_engine(tmp_path, lab([*NODES, W2, W3])) as engine:
        engine.up(lab())
        yield Live(engine, lab(), side.plan(tmp_path, STACK))


def test_changes_that_a_live_lab_takes(live: Live) -> None:
    """One after the other, each on the lab that the one before left."""
    engine = live.engine
    first = engine.ids()["10.0.1.10"]

    verdict, _ = live.change(lab([*NODES, W2]))
    assert verdict.added == ("w2",) and verdict.control_plane == "untouched"

    large = {"volumeSize": 44}
    verdict, events = live.change(lab([*NODES, W2], machines=large))
    assert not verdict.restarted and {event.operation for event in events} == {"update"}
    volumes = engine.aws.cloud.ec2.describe_volumes()["Volumes"]
    assert {volume["Size"] for volume in volumes} == {44}

    larger = large | {"instanceType": "t3.xlarge"}
    verdict, _ = live.change(lab([*NODES, W2], machines=larger))
    assert set(verdict.restarted) == {"cp", "w1", "w2"} and verdict.control_plane == "restarted"
    assert set(engine.machines().values()) == {"t3.xlarge"}

    elsewhere = larger | {"operatorCidrs": ["198.18.0.2/32", "198.18.1.0/24"]}
    verdict, events = live.change(lab([*NODES, W2], machines=elsewhere))
    assert {event.type for event in events} == {"aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"}
    assert verdict == Verdict(control_plane="untouched", cost=verdict.cost)

    # There is a newer image: machines keep theirs, and a new one gets it.
    cloud = engine.aws.cloud
    newer = cloud.image = cloud.ec2.register_image(Name="ubuntu-newer", Architecture="x86_64")["ImageId"]
    verdict, _ = live.change(lab([*NODES, W2, W3], machines=elsewhere))
    assert verdict.added == ("w3",)
    images = {i["PrivateIpAddress"]: i["ImageId"] for i in engine.aws.refusals.running()}
    assert images["10.0.2.12"] == newer and images["10.0.1.10"] == images["10.0.2.11"] != newer

    verdict, events = live.change(lab([*NODES, W3], machines=elsewhere))
    assert verdict.removed == ("w2",)
    admission = Event("delete", "command:remote:Command", "lab-cluster-w2-admit")
    assert events.index(admission) < events.index(Event("delete", INSTANCE, "lab-machines-w2")), "drained first"

    private = elsewhere | {"workerAccess": "InstanceConnect"}
    verdict, _ = live.change(lab([*NODES, W3], machines=private))
    assert set(verdict.replaced) == {"w1", "w3"} and verdict.control_plane != "REPLACED"
    assert engine.up(lab([*NODES, W3], machines=private), "--refresh") == [], "everything has the id that it had"
    live.change(lab([*NODES, W3], machines=elsewhere))

    assert engine.ids()["10.0.1.10"] == first, "in all this the control plane's machine is the same"
    engine.destroy()
    assert engine.left() == []


def test_changes_that_make_machines_anew(live: Live) -> None:
    """`./lab up` refuses some of them, because the control plane is lost; the review says so, and it is so."""
    engine = live.engine
    verdict, _ = live.change(lab(network=NARROW))
    assert verdict.replaced == ("w1",) and verdict.control_plane != "REPLACED"

    def there(**keys: Any) -> dict[str, Any]:
        return lab(network=NARROW | {"vpcCidr": "10.0.0.0/17"}, machines=keys)

    verdict, _ = live.change(there())
    assert set(verdict.replaced) == {"cp", "w1"} and verdict.control_plane == "REPLACED"

    verdict, _ = live.change(there(instanceType="t4g.large"), refused="machines.instanceType")
    assert set(verdict.replaced) == {"cp", "w1"} and not verdict.restarted, "no processor runs both"

    own = engine.aws.cloud.ec2.register_image(Name="own", Architecture="x86_64")["ImageId"]
    verdict, _ = live.change(there(image=own), refused="machines.image")
    assert set(verdict.replaced) == {"cp", "w1"}

    for spot in (True, False):
        verdict, _ = live.change(there(image=own, spot=spot), refused="machines.spot")
        assert set(verdict.replaced) == {"cp", "w1"} and verdict.control_plane == "REPLACED"
    engine.destroy()
    assert engine.left() == []


def test_a_node_is_renamed_by_taking_it_out_first(live: Live) -> None:
    """Another name at the same address is another machine, and EC2 has the address in use until the old one is gone."""
    renamed = lab([NODES[0], NODES[1] | {"name": "w3"}])
    (finding,) = refused_changes(parse_lab(lab()), parse_lab(renamed))
    assert finding.key == "nodes[1].name" and "remove w1 from the file, bring that up, then add w3" in finding.fix
    assert "InvalidIPAddress.InUse" in live.engine.refused(renamed)
    live.engine.up(lab())
    # The way that the finding names.
    verdict, _ = live.change(lab([NODES[0], W2]))
    assert (verdict.added, verdict.removed) == (("w2",), ("w1",))
    verdict, _ = live.change(lab([NODES[0], W2, NODES[1] | {"name": "w3"}]))
    assert verdict.added == ("w3",)
