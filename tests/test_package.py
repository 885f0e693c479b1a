"""The lab for other programs: as a component package of the engine, and as an import in Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import grpc
import pulumi
import pytest
from google.protobuf import struct_pb2
from pulumi.output import Unknown
from pulumi.runtime.proto import provider_pb2, provider_pb2_grpc
from pydantic.alias_generators import to_camel

from components import package
from components.spec.models import Lab
from engine.run import run_program
from tests.support.graphs import ROOT
from tests.support.plugins import skip_without_plugins

LOCAL: dict[str, Any] = {
    "machines": {"provider": "local"},
    "calico": {"mtu": 1400.0},
    "ttl_hours": 3.0,
    "stack": "blue",
}


def test_the_arguments_are_the_keys_of_a_stack_file() -> None:
    given = {to_camel(name) for name in package.LabArgs.__annotations__}
    # `verify` runs this repository's Python on the computer that runs `up`, and a user of the package may not have it.
    assert given == {field.alias for field in Lab.model_fields.values()} - {"verify"} | {"stack"}
    assert package.LabArgs.__required_keys__ == {"machines"}


def test_the_plugin_answers_with_its_schema() -> None:
    """The engine starts it with a folder and its own address, and reads the port from stdout."""
    command = [sys.executable, str(ROOT), "127.0.0.1:1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as plugin:
        try:
            assert plugin.stdout
            port = int(plugin.stdout.readline())
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = provider_pb2_grpc.ResourceProviderStub(channel)
                schema = json.loads(stub.GetSchema(provider_pb2.GetSchemaRequest(), timeout=60).schema)
                info = stub.GetPluginInfo(struct_pb2.Struct(), timeout=60)
        finally:
            plugin.terminate()
    assert (schema["name"], schema["version"], info.version) == ("cnilab", package.VERSION, package.VERSION)
    assert set(schema["resources"]) == {"cnilab:index:Lab"}
    lab = schema["resources"]["cnilab:index:Lab"]
    assert lab["isComponent"] and lab["requiredInputs"] == ["machines"]
    assert set(lab["properties"]) == {"kubeconfig", "nodes", "blocks"}
    assert all(inputs["description"] and inputs["plain"] for inputs in lab["inputProperties"].values())
    assert lab["inputProperties"]["ttlHours"]["type"] == "integer"


def test_the_package_makes_the_same_lab_as_an_import() -> None:
    made = run_program(lambda: package.Lab("blue", LOCAL) and None)  # type: ignore[typeddict-item]
    outer, inner = [r for r in made.resources if r.type == "cnilab:index:Lab"]
    assert inner.parent == outer.urn and inner.inputs["ttlHours"] == 3

    from cnilab import Lab, LabArgs, parse_lab

    spec = parse_lab({"machines": {"provider": "local"}, "calico": {"mtu": 1400}, "ttlHours": 3})
    direct = run_program(lambda: Lab("blue", LabArgs(spec, "blue")) and None)

    def shown(resources: Any) -> list[Any]:
        return [(r.type, r.name, r.inputs) for r in resources if r.type != "pulumi:pulumi:Stack"]

    assert shown(made.resources)[1:] == shown(direct.resources)


@pytest.mark.parametrize("value", [pulumi.Output.from_input("x"), Unknown()], ids=["output", "unknown"])
def test_an_input_that_is_not_plain_is_named(value: Any) -> None:
    with pytest.raises(pulumi.InputPropertyError) as error:
        package.plain({"nodes": [{"address": value}]}, "lab")
    assert error.value.property_path == "lab.nodes[0].address"
    assert "known before `up`" in error.value.reason


def test_python_and_the_engine_have_the_same_version() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == package.VERSION


def test_an_installed_copy_has_all_its_files(tmp_path: Path) -> None:
    """The package that pip would install, built by setuptools alone, works outside the repository."""
    source, built = tmp_path / "source", tmp_path / "built"
    for folder in ("cnilab", "components"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for file in ("pyproject.toml", "requirements.txt"):
        shutil.copy(ROOT / file, source)
    build = ["-c", "from setuptools import setup; setup()", "-q", "build_py", "--build-lib", str(built)]
    done = subprocess.run([sys.executable, *build], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    def files(folder: Path) -> set[str]:
        found = (p.relative_to(folder) for name in ("cnilab", "components") for p in (folder / name).rglob("*"))
        return {str(path) for path in found if (folder / path).is_file() and "egg-info" not in str(path)}

    assert files(built) == files(source)
    code = "import cnilab, components.node.step, components.machines.local; print(cnilab.__file__)"
    environment = dict(os.environ) | {"PYTHONPATH": str(built)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(built))


CONSUMER = """
import json
import pulumi

class Lab(pulumi.ComponentResource):
    kubeconfig: pulumi.Output[str]

    def __init__(self, name, props):
        super().__init__("cnilab:index:Lab", name, {**props, "kubeconfig": None}, None, remote=True)

props = json.load(open("lab.json"))
if "secret" in props:
    props["owner"] = pulumi.Output.secret(props.pop("secret"))
pulumi.export("kubeconfig", Lab("blue", props).kubeconfig)
"""


def consumer(folder: Path, props: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """`pulumi preview` of a program that uses the lab as a package, with this repository as the plugin."""
    cli = shutil.which("pulumi")
    if cli is None:
        pytest.skip("pulumi is not on the PATH")
    if not (ROOT / ".venv").exists():
        pytest.skip("the program's own .venv is not there: run ./lab once")
    runtime = {"name": "python", "options": {"toolchain": "pip", "virtualenv": str(ROOT / ".venv")}}
    plugins = {"providers": [{"name": "cnilab", "path": str(ROOT)}]}
    (folder / "Pulumi.yaml").write_text(json.dumps({"name": "consumer", "runtime": runtime, "plugins": plugins}))
    (folder / "__main__.py").write_text(CONSUMER)
    (folder / "lab.json").write_text(json.dumps(props))
    (folder / "state").mkdir()
    own = {"PULUMI_BACKEND_URL": (folder / "state").as_uri(), "PULUMI_CONFIG_PASSPHRASE": "test"}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [cli, *arguments, "--stack", "s", "--non-interactive"]
        return subprocess.run(
            command, cwd=folder, env=dict(os.environ) | own, capture_output=True, text=True, timeout=280
        )

    assert run("stack", "init").returncode == 0
    done = run("preview")
    skip_without_plugins(done)
    return done


def test_the_real_engine_makes_the_lab_for_a_program_in_another_language(tmp_path: Path) -> None:
    done = consumer(tmp_path, {"machines": {"provider": "local"}, "stack": "blue"})
    assert done.returncode == 0, done.stdout + done.stderr
    for part in ("cnilab:index:Lab blue", "cnilab:cluster:Cluster blue-cluster", "operator.tigera.io/v1:Installation"):
        assert part in done.stdout, part
    assert "kubeconfig: [secret]" in done.stdout


@pytest.mark.parametrize(
    ("props", "says"),
    [
        (
            {"machines": {"provider": "locl"}, "ttlHours": 3000},
            ["did you mean local?", "3000 — is out of range. Fix: make it at most 720"],
        ),
        ({"machines": {"provider": "local"}, "secret": "me"}, ["a lab must be plain and known before `up`"]),
    ],
    ids=["findings", "secret"],
)
def test_the_real_engine_reports_the_mistakes_of_a_lab(tmp_path: Path, props: dict[str, Any], says: list[str]) -> None:
    done = consumer(tmp_path, props)
    assert done.returncode != 0
    for part in says:
        assert part in done.stdout, done.stdout + done.stderr
    assert "components/package.py" not in done.stdout, "no traceback of ours"
