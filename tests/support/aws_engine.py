"""A stack on EC2 under the real pulumi engine, whose provider of aws is the stand-in."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml

from tests.support.aws_provider import Event, StandIn, machines
from tests.support.engine_provider import Simulated, serving
from tests.support.graphs import ROOT, made_up_blocks
from tests.support.moto_ec2 import REGION, cloud

NEEDS_CLI = pytest.mark.skipif(
    not (shutil.which("pulumi") and shutil.which("pulumi-resource-tls")),
    reason="the pulumi CLI and its tls plugin are not on PATH",
)
INSTANCE = "aws:ec2/instance:Instance"
STACK = "test"
NODES = [
    {"name": "cp", "role": "control-plane", "subnet": "one", "address": "10.0.1.10"},
    {"name": "w1", "role": "worker", "subnet": "two", "address": "10.0.2.10"},
]
W2 = {"name": "w2", "role": "worker", "subnet": "two", "address": "10.0.2.11"}
CONTROL_PLANES = [
    {"name": f"cp{i}", "role": "control-plane", "subnet": "one", "address": f"10.0.1.1{i}"} for i in (1, 2, 3)
]
HA = [*CONTROL_PLANES, NODES[1]]

_MACHINES_ONLY = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
import pulumi
from components.machines.aws import make_machines
from components.machines.machine import MachinesArgs
from components.spec.load import parse_lab
from tests.support.older_graphs import make_older
make_older(os.environ.get("OLDER_GRAPH"))
lab = parse_lab(pulumi.Config("cni-lab").require_object("lab"))
make_machines("lab", MachinesArgs(lab, "test", {{"cni-lab:stack": "test"}}), pulumi.ResourceOptions())
"""
_WHOLE_LAB = f"""
import runpy, sys
sys.path.insert(0, {str(ROOT)!r})
runpy.run_path({str(ROOT / "__main__.py")!r}, run_name="__main__")
"""


def lab(nodes: list[dict[str, Any]] | None = None, **keys: Any) -> dict[str, Any]:
    """A lab of one control plane and one worker, unless `nodes` says otherwise. `keys` are the stack file's."""
    own = {"provider": "aws", "operatorCidrs": ["198.18.0.1/32"], **keys.pop("machines", {})}
    network = {"vpcCidr": "10.0.0.0/16", "subnets": {"one": "10.0.1.0/24", "two": "10.0.2.0/24"}}
    return {"machines": own, "network": network | keys.pop("network", {}), "nodes": nodes or NODES, **keys}


class Engine:
    """`aws`: the stand-in; its events are those of every provider. `older`: a graph of tests/support/older_graphs.py.

    `file`: the stack file. `ops`: what the engine did with each resource in the last `up`, by URN, in its own words.
    """

    def __init__(self, folder: Path, stand_in: StandIn, address: str, program: str) -> None:
        self.folder, self.aws, self.older = folder, stand_in, ""
        self.ops: dict[str, set[str]] = {}
        (folder / "Pulumi.yaml").write_text("name: cni-lab\nruntime: python\nstackConfigDir: stacks\n")
        (folder / "__main__.py").write_text(program)
        (folder / "state").mkdir()
        (folder / "stacks").mkdir()
        self.environment = {
            key: value for key, value in os.environ.items() if not key.startswith(("PULUMI_", "AWS_"))
        } | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PULUMI_BACKEND_URL": (folder / "state").as_uri(),
            "PULUMI_CONFIG_PASSPHRASE": "test",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DEBUG_PROVIDERS": address,
            "PULUMI_DEBUG_COMMANDS": "true",  # for --event-log
            "PULUMI_DIY_BACKEND_DISABLE_CHECKPOINT_BACKUPS": "true",
        }
        done = self.call("stack", "init", STACK)
        assert done.returncode == 0, done.stdout + done.stderr
        self.file = folder / "stacks" / f"Pulumi.{STACK}.yaml"
        self._salt = yaml.safe_load(self.file.read_text())

    def write(self, wanted: dict[str, Any]) -> None:
        """The stack file."""
        config = {"aws:region": REGION, "cni-lab:lab": wanted}
        self.file.write_text(yaml.safe_dump(self._salt | {"config": config}))

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["pulumi", "--non-interactive", *words],
            cwd=self.folder, env=self.environment | {"OLDER_GRAPH": self.older},
            capture_output=True, text=True, timeout=900,
        )  # fmt: skip

    def up(self, wanted: dict[str, Any], *options: str) -> list[Event]:
        """An `up` that must succeed; returns what it did."""
        done = self.try_up(wanted, *options)
        assert done.returncode == 0, done.stdout + done.stderr
        return list(self.aws.events)

    def try_up(self, wanted: dict[str, Any], *options: str) -> subprocess.CompletedProcess[str]:
        self.write(wanted)
        self.aws.events.clear()
        log = self.folder / "events"
        log.unlink(missing_ok=True)
        done = self.call("up", "--yes", "--skip-preview", "--event-log", str(log), *options)
        self.ops = {}
        for line in log.read_text().splitlines() if log.is_file() else ():
            if event := json.loads(line).get("resourcePreEvent"):
                self.ops.setdefault(event["metadata"]["urn"], set()).add(event["metadata"]["op"])
        return done

    def refused(self, wanted: dict[str, Any], *options: str) -> str:
        """What an `up` that must fail says."""
        done = self.try_up(wanted, *options)
        assert done.returncode != 0, done.stdout
        return done.stdout + done.stderr

    def destroy(self) -> None:
        self.aws.events.clear()
        done = self.call("destroy", "--yes", "--skip-preview")
        assert done.returncode == 0, done.stdout + done.stderr

    def machines(self) -> dict[str, str]:
        """Private address → instance type, of the machines that are not terminated."""
        return {address: instance["InstanceType"] for address, instance in machines(self.aws).items()}

    def ids(self) -> dict[str, str]:
        """Private address → id."""
        return {address: instance["InstanceId"] for address, instance in machines(self.aws).items()}

    def left(self) -> list[str]:
        """What is left of the lab in the account."""
        cloud = self.aws.cloud
        vpcs = [v["VpcId"] for v in cloud.ec2.describe_vpcs()["Vpcs"] if not v["IsDefault"]]
        roles = [r["RoleName"] for r in cloud.iam.list_roles()["Roles"] if r["RoleName"].startswith("cni-lab-")]
        profiles = [p["InstanceProfileName"] for p in cloud.iam.list_instance_profiles()["InstanceProfiles"]]
        parameters = [
            p["Name"] for p in cloud.ssm.describe_parameters()["Parameters"] if p["Name"].startswith("/cni-lab/")
        ]
        addresses = [a["AllocationId"] for a in cloud.ec2.describe_addresses()["Addresses"]]
        keys = [k["KeyName"] for k in cloud.ec2.describe_key_pairs()["KeyPairs"]]
        balancers = [b["LoadBalancerArn"] for b in cloud.elb.describe_load_balancers()["LoadBalancers"]]
        return [*vpcs, *roles, *profiles, *parameters, *addresses, *keys, *balancers, *self.machines()]

    def shape(self) -> dict[str, int]:
        """How many resources of each type the state has."""
        kinds = [r["type"] for r in self.state() if not r.get("delete")]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds))}

    def state(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.call("stack", "export").stdout)["deployment"]["resources"]
        return found


Kind = TypeVar("Kind", bound=Engine)


@contextmanager
def machines_engine(folder: Path, kind: type[Kind] = Engine) -> Iterator[Kind]:  # type: ignore[assignment]
    """The network and the machines of a lab alone."""
    with cloud() as aws:
        stand_in = StandIn(aws)
        with serving(stand_in) as address:
            yield kind(folder, stand_in, address, _MACHINES_ONLY)


@contextmanager
def lab_engine(folder: Path, nodes: dict[str, Any]) -> Iterator[Engine]:
    """The whole program. Commands and Kubernetes objects are simulated. `nodes`: a lab with every node that will be."""
    from components.spec.load import parse_lab

    blocks = {"stdout": json.dumps(made_up_blocks(parse_lab(nodes)))}
    with cloud() as aws:
        events: list[Event] = []
        stand_in = StandIn(aws, events)
        command = Simulated("command", events, {"-calico-blocks": blocks})
        with serving(stand_in, command, Simulated("kubernetes", events)) as address:
            yield Engine(folder, stand_in, address, _WHOLE_LAB)
