"""The rules in the real engine: the pack starts, reports each broken sample, and lets the good ones pass."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pulumi_policy.proxy import UNKNOWN_STRING_VALUE, unknown_checking_proxy

from policy.__main__ import plain
from policy.model import PlannedResource
from policy.rules import RULES
from policy.values import UNKNOWN
from tests.policy.samples import SAMPLES, Sample
from tests.support.graphs import ROOT

# Components stand in for the resources, because they need no cloud provider. A policy over the whole stack sees the
# outputs that they register.
PROGRAM = """
import json
import pulumi

class Standin(pulumi.ComponentResource):
    def __init__(self, type_, name, props, parent):
        super().__init__(type_, name, props, pulumi.ResourceOptions(parent=parent))
        self.register_outputs(props)

for number, sample in enumerate(json.load(open("samples.json"))):
    for type_, name, within, props in sample:
        parent = None
        for depth, component in enumerate(within):
            parent = Standin(component, f"{name}-{number}-{depth}", {}, parent)
        if "userData" in props:
            props["userData"] = pulumi.Output.secret(props["userData"])
        Standin(type_, f"{name}-{number}", props, parent)
"""


def test_unknown_values_are_marked_at_every_depth() -> None:
    props = {"a": UNKNOWN_STRING_VALUE, "b": [1, UNKNOWN_STRING_VALUE, {"c": UNKNOWN_STRING_VALUE}], "d": {"e": "f"}}
    expected = {"a": UNKNOWN, "b": [1, UNKNOWN, {"c": UNKNOWN}], "d": {"e": "f"}}
    assert plain(unknown_checking_proxy(props)) == expected


def preview(
    folder: Path, samples: list[list[PlannedResource]], config: dict[str, Any]
) -> subprocess.CompletedProcess[str]:
    """`pulumi preview --policy-pack policy` on a stack of these resources, with `config` in its stack file."""
    pulumi = shutil.which("pulumi")
    if pulumi is None:
        pytest.skip("pulumi is not on the PATH")
    venv = ROOT / ".venv"
    if not list(venv.glob("lib/python3*/site-packages/pulumi_policy")):
        pytest.skip("the program's own .venv is missing or has no pulumi-policy: run ./lab once")
    options = {"toolchain": "pip", "virtualenv": str(venv)}
    (folder / "Pulumi.yaml").write_text(json.dumps({"name": "p", "runtime": {"name": "python", "options": options}}))
    (folder / "__main__.py").write_text(PROGRAM)
    listed = [[(r.type, r.name, r.within, r.props) for r in sample] for sample in samples]
    (folder / "samples.json").write_text(json.dumps(listed))
    state = folder / "state"
    state.mkdir()
    environment = dict(os.environ) | {
        "PULUMI_BACKEND_URL": state.as_uri(),
        "PULUMI_CONFIG_PASSPHRASE": "test",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [pulumi, *arguments, "--stack", "s", "--non-interactive"]
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)

    made = run("stack", "init")
    assert made.returncode == 0, made.stderr
    with (folder / "Pulumi.s.yaml").open("a") as file:  # pulumi has written the salt into it
        file.write(f"config: {json.dumps(config)}\n")
    return run("preview", "--policy-pack", str(ROOT / "policy"))


def engine_samples() -> list[Sample]:
    """The samples that fit into one stack. A sample with further resources would change what the others mean."""
    return [s for s in SAMPLES if not s.stack and "<secret>" not in s.broken.values()]


def test_the_engine_reports_each_broken_sample(tmp_path: Path) -> None:
    samples = engine_samples()
    plain_pools = [s for s in SAMPLES if s.rule == "source-dest-check-for-pods"][:1]
    broken = [sample.resources(sample.broken) for sample in [*samples, *plain_pools]]
    done = preview(tmp_path, broken, {"cni-lab:lab": {"ttlHours": 4}})
    assert done.returncode != 0
    found = set(re.findall(r"\[mandatory\]\s+([a-z0-9-]+)\s+\(\S+ (\S+)\)", done.stdout))
    assert {rule for rule, _ in found} == {rule.name for rule in RULES}, done.stdout + done.stderr
    for number, sample in enumerate(samples):
        assert (sample.rule, f"sample-{number}") in found, sample


def test_the_engine_lets_good_samples_pass(tmp_path: Path) -> None:
    good = [sample.resources(sample.good) for sample in engine_samples()]
    done = preview(tmp_path, good, {})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "✅ cni-lab" in done.stdout
