"""The replacements that a comparison predicts, compared with those of pulumi and its providers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cli.review.changes import compare
from cli.review.paths import different
from cli.review.rules import matching, replacing
from engine.run import run_program
from tests.support import aws_schema
from tests.support.aws_engine import HA, lab
from tests.support.graphs import run_lab
from tests.support.plugins import skip_without_plugins

PROGRAM = """\
import pulumi
import pulumi_command as command
import pulumi_random as random
import pulumi_tls as tls

new = pulumi.Config("p").get_bool("new")
key = tls.PrivateKey("key", algorithm="ECDSA" if new else "ED25519")
random.RandomPassword("password", length=13 if new else 12)
random.RandomBytes("same", length=16)
ca = tls.PrivateKey("ca", algorithm="ED25519")
certificate = {
    "private_key_pem": ca.private_key_pem,
    "allowed_uses": ["cert_signing"],
    "is_ca_certificate": True,
    "subject": {"common_name": "test"},
}
tls.SelfSignedCert("renewed-early", validity_period_hours=99, early_renewal_hours=2 if new else 1, **certificate)
tls.SelfSignedCert("longer", validity_period_hours=98 if new else 99, **certificate)
tls.SelfSignedCert("of-key", validity_period_hours=99, **certificate | {"private_key_pem": key.private_key_pem})


def run(name, triggers=(), create="true", environment=None, **options):
    opts = pulumi.ResourceOptions(**options)
    return command.local.Command(name, create=create, triggers=list(triggers), environment=environment, opts=opts)


first = run("triggered", ["b" if new else "a"])
run("changed", create=": new" if new else "true")
run("ignored", create=": new" if new else "true", ignore_changes=["create"])
run("deleted-with", deleted_with=first)
run("replaced-with", replace_with=[first])
run("triggered-by-it", [first.id])
run("after-it", depends_on=[first])
gone = run("deleted-first", ["b" if new else "a"], delete_before_replace=True)
run("deleted-with-gone", deleted_with=gone)
run("after-gone", depends_on=[gone])
run("environment-of-gone", environment={"A": gone.stdout})
run("one-more", ["a", "b"] if new else ["a"])
"""


@pytest.mark.parametrize("kind", aws_schema.TYPES)
def test_the_rules_for_aws_are_the_providers(kind: str) -> None:
    """Written down twice, from the same source, by two hands."""
    found = aws_schema.TYPES[kind]
    rules = replacing({"type": kind, "inputs": {}})
    assert set(matching(found.replace, rules)) == set(found.replace)
    assert matching(found.in_place, rules) == []


def test_every_input_of_the_labs_has_a_rule_of_the_provider() -> None:
    """Nobody has forgotten to look up how the provider changes it."""
    graph = run_lab(lab(HA, machines={"workerAccess": "InstanceConnect", "spot": True}), dry_run=False)
    for resource in graph.deployment.resources:
        if resource.type.startswith("aws:"):
            ignored = aws_schema.IGNORED_BY_THE_LABS.get(resource.type, ())
            paths = [path for path in different({}, resource.inputs) if not aws_schema.is_below(path, ignored)]
            aws_schema.replacing(resource.type, [path for path in paths if path], resource.inputs)


def test_the_engine_replaces_what_the_comparison_says(tmp_path: Path) -> None:
    pulumi = shutil.which("pulumi")
    if pulumi is None:
        pytest.skip("the pulumi CLI is not on PATH")
    (tmp_path / "__main__.py").write_text(PROGRAM)
    (tmp_path / "Pulumi.yaml").write_text("name: p\nruntime: python\n")
    (tmp_path / "state").mkdir()
    environment = os.environ | {
        "PULUMI_BACKEND_URL": (tmp_path / "state").as_uri(),
        "PULUMI_CONFIG_PASSPHRASE": "test",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }

    def call(*arguments: str) -> str:
        command = [pulumi, "--non-interactive", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250)
        skip_without_plugins(done)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    call("stack", "init", "s")
    call("up", "--yes", "--skip-preview", "--stack", "s")
    call("config", "set", "new", "true", "--stack", "s")
    steps = json.loads(call("preview", "--json", "--stack", "s"))["steps"]

    def names(*operations: str) -> set[str]:
        return {step["urn"].rpartition("::")[2] for step in steps if step["op"] in operations}

    runs = [
        run_program(tmp_path / "__main__.py", project="p", stack="s", config=config).to_json() | {"controlPlanes": []}
        for config in ({}, {"p:new": "true"})
    ]
    changes = compare("s", *runs).changes
    ours = {
        action: {change.urn.rpartition("::")[2] for change in changes if change.action == action}
        for action in ("replaced", "changed", "added", "removed")
    }
    # Before 3.260 the engine kept what is only deletedWith a replaced resource (pulumi/pulumi#23818).
    later = {"deleted-with", "deleted-with-gone"}
    version = tuple(int(part) for part in call("version").strip().removeprefix("v").split(".")[:2])
    assert ours["replaced"] - (later if version < (3, 260) else set()) == names("replace", "create-replacement")
    assert ours["changed"] == names("update")
    assert ours["added"] == ours["removed"] == names("create", "delete") == set()
    assert later < ours["replaced"] and "environment-of-gone" in ours["changed"]
