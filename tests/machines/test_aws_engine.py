"""The network and the machines of a lab on the real pulumi engine, with a stand-in for the aws provider.

The order of events is the engine's own: what it creates, replaces and deletes first, and how it goes on after a
failure.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.aws_provider import Event, StandIn, refusal, serving
from tests.support.graphs import ROOT
from tests.support.moto_ec2 import cloud

pytestmark = [
    pytest.mark.skipif(
        not (shutil.which("pulumi") and shutil.which("pulumi-resource-tls")),
        reason="the pulumi CLI and its tls plugin are not on PATH",
    ),
    pytest.mark.timeout(1800),
]

PROGRAM = f"""
import json, os, sys
sys.path.insert(0, {str(ROOT)!r})
from components.machines.aws import make_machines
from components.machines.machine import MachinesArgs
from components.spec.load import parse_lab
import pulumi
lab = parse_lab(json.loads(os.environ["LAB"]))
make_machines("lab", MachinesArgs(lab, "test", {{"cni-lab:stack": "test"}}), pulumi.ResourceOptions())
"""
INSTANCE = "aws:ec2/instance:Instance"
NODES = [
    {"name": "cp", "role": "control-plane", "subnet": "one", "address": "10.0.1.10"},
    {"name": "w1", "role": "worker", "subnet": "two", "address": "10.0.2.10"},
]
W2 = {"name": "w2", "role": "worker", "subnet": "two", "address": "10.0.2.11"}


def lab(nodes: list[dict[str, Any]] | None = None, **keys: Any) -> dict[str, Any]:
    machines = {"provider": "aws", "operatorCidrs": ["198.18.0.1/32"], **keys.pop("machines", {})}
    network = {"vpcCidr": "10.0.0.0/16", "subnets": {"one": "10.0.1.0/24", "two": "10.0.2.0/24"}}
    return {"machines": machines, "network": network | keys.pop("network", {}), "nodes": nodes or NODES, **keys}


class Engine:
    """A stack whose provider of aws is the stand-in."""

    def __init__(self, folder: Path, stand_in: StandIn, address: str) -> None:
        self.folder, self.aws = folder, stand_in
        (folder / "Pulumi.yaml").write_text("name: standin\nruntime: python\n")
        (folder / "__main__.py").write_text(PROGRAM)
        (folder / "state").mkdir()
        self._environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("PULUMI_", "AWS_"))
        } | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PULUMI_BACKEND_URL": (folder / "state").as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "test",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DEBUG_PROVIDERS": address,
            "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "true",
        }
        self.call("stack", "init", "test")
        self.call("config", "set", "aws:region", "us-west-2")

    def call(self, *words: str, lab: dict[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["pulumi", "--non-interactive", *words],
            cwd=self.folder, env=self._environment | {"LAB": json.dumps(lab)},
            capture_output=True, text=True, timeout=240,
        )  # fmt: skip

    def up(self, wanted: dict[str, Any]) -> list[Event]:
        """An `up` that must succeed; returns what it did."""
        done = self.try_up(wanted)
        assert done.returncode == 0, done.stdout + done.stderr
        return self.aws.events

    def try_up(self, wanted: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        self.aws.events = []
        return self.call("up", "--yes", "--skip-preview", lab=wanted)

    def destroy(self) -> None:
        done = self.call("destroy", "--yes", "--skip-preview", lab=lab())
        assert done.returncode == 0, done.stdout + done.stderr

    def machines(self) -> dict[str, str]:
        """Private address → instance type, of the machines that are not terminated."""
        return {i["PrivateIpAddress"]: i["InstanceType"] for i in self.aws._running()}

    def left(self) -> list[str]:
        """What is left of the lab in the account."""
        cloud = self.aws.cloud
        vpcs = [v["VpcId"] for v in cloud.ec2.describe_vpcs()["Vpcs"] if not v["IsDefault"]]
        roles = [r["RoleName"] for r in cloud.iam.list_roles()["Roles"] if r["RoleName"].startswith("cni-lab-")]
        profiles = [p["InstanceProfileName"] for p in cloud.iam.list_instance_profiles()["InstanceProfiles"]]
        parameters = [p["Name"] for p in cloud.ssm.describe_parameters()["Parameters"]]
        addresses = [a["AllocationId"] for a in cloud.ec2.describe_addresses()["Addresses"]]
        keys = [k["KeyName"] for k in cloud.ec2.describe_key_pairs()["KeyPairs"]]
        balancers = [b["LoadBalancerArn"] for b in cloud.elb.describe_load_balancers()["LoadBalancers"]]
        return [*vpcs, *roles, *profiles, *parameters, *addresses, *keys, *balancers, *self.machines()]

    def shape(self) -> dict[str, int]:
        """How many resources of each type the state has."""
        state = json.loads(self.call("stack", "export").stdout)["deployment"]["resources"]
        kinds = [r["type"] for r in state if not r.get("delete")]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with cloud() as aws:
        stand_in = StandIn(aws)
        with serving(stand_in) as address:
            yield Engine(tmp_path, stand_in, address)


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
        engine.aws.events = []
        done = engine.call("destroy", "--yes", "--skip-preview", lab=lab())
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


def test_too_small_a_quota_leaves_a_lab_that_can_be_finished(engine: Engine) -> None:
    """The second machine is refused; with a larger quota the same `up` goes on."""
    engine.aws.vcpu_quota = 2
    done = engine.try_up(lab())
    assert done.returncode != 0 and "VcpuLimitExceeded" in done.stdout + done.stderr
    assert len(engine.machines()) == 1
    engine.aws.vcpu_quota = 100
    engine.up(lab())
    assert len(engine.machines()) == 2
    engine.destroy()
    assert engine.left() == []


def of(events: list[Event], kind: str) -> list[tuple[str, str]]:
    return [(event.operation, event.name) for event in events if event.type == kind]


def test_changes_of_a_live_lab(engine: Engine) -> None:
    """One after the other, each on the lab that the one before left."""
    engine.up(lab())

    added = engine.up(lab([*NODES, W2]))
    assert {event.operation for event in added} == {"create"} and all("w2" in event.name for event in added)

    larger = engine.up(lab([*NODES, W2], machines={"instanceType": "t3.xlarge"}))
    assert {event.operation for event in larger} == {"update"} and len(larger) == 3, "no machine is replaced"
    assert set(engine.machines().values()) == {"t3.xlarge"}

    fewer = engine.up(lab(machines={"instanceType": "t3.xlarge"}))
    assert {event.operation for event in fewer} == {"delete"} and all("w2" in event.name for event in fewer)
    assert set(engine.machines()) == {"10.0.1.10", "10.0.2.10"}

    narrow = {"subnets": {"one": "10.0.1.0/24", "two": "10.0.2.0/25"}}
    moved = engine.up(lab(machines={"instanceType": "t3.xlarge"}, network=narrow))
    assert of(moved, INSTANCE) == [("delete", "lab-machines-w1"), ("create", "lab-machines-w1")]
    assert of(moved, "aws:ec2/subnet:Subnet") == [("delete", "lab-network-two"), ("create", "lab-network-two")]

    other = engine.up(lab(machines={"instanceType": "t3.xlarge"}, network=narrow | {"vpcCidr": "10.0.0.0/17"}))
    assert of(other, "aws:ec2/vpc:Vpc") == [("delete", "lab-network-vpc"), ("create", "lab-network-vpc")]
    assert of(other, "aws:ec2/internetGateway:InternetGateway") == [
        ("delete", "lab-network-gateway"),
        ("create", "lab-network-gateway"),
    ]
    assert set(engine.machines()) == {"10.0.1.10", "10.0.2.10"}
    engine.destroy()
    assert engine.left() == []


def test_spot_both_ways(engine: Engine) -> None:
    """`up` refuses this on a live lab (components/spec/changes.py). The graph must be right all the same."""
    engine.up(lab())
    for spot in (True, False):
        changed = engine.up(lab(machines={"spot": spot}))
        machines = of(changed, INSTANCE)
        assert sorted(machines) == sorted(
            (operation, f"lab-machines-{node}") for operation in ("create", "delete") for node in ("cp", "w1")
        )
        assert len(engine.machines()) == 2
    engine.destroy()
    assert engine.left() == []


HA = [
    *({"name": f"cp{i}", "role": "control-plane", "subnet": "one", "address": f"10.0.1.1{i}"} for i in (1, 2, 3)),
    NODES[1],
]


def test_a_lab_with_everything_comes_and_goes(engine: Engine) -> None:
    """Balancer, NAT gateway and Instance Connect Endpoint."""
    everything = lab(HA, machines={"workerAccess": "InstanceConnect"})
    engine.up(everything)
    assert engine.up(everything) == []
    assert len(engine.machines()) == 4
    engine.destroy()
    assert engine.left() == []
