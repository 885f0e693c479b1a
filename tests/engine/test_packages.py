"""engine/packages.py: packages of an SDK that load one module at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pulumi import _utils

from engine import packages
from tests.support.graphs import ROOT

FILES = {
    "__init__.py": "from .route_table import *\nfrom .get_ami import *\nfrom .odd import *\nWHOLE = True\n",
    "_inputs.py": "__all__ = ['RouteTableRouteArgs']\nclass RouteTableRouteArgs: ...\n",
    "outputs.py": "from . import outputs\n__all__ = ['Route']\nclass Route: ...\n",
    "route_table.py": "from . import outputs\n"
    "from ._inputs import *\n__all__ = ['RouteTable']\nclass RouteTable: ...\n",
    "get_ami.py": "__all__ = ['get_ami', 'get_ami_output']\ndef get_ami(): ...\ndef get_ami_output(): ...\n",
    "odd.py": "__all__ = ['VPCLink']\nclass VPCLink: ...\n",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A package of a made-up SDK, as that SDK's own file would load it."""
    (tmp_path / "made_up_sdk/ec2").mkdir(parents=True)
    (tmp_path / "made_up_sdk/__init__.py").touch()
    for name, text in FILES.items():
        (tmp_path / "made_up_sdk/ec2" / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    packages.install()
    yield _utils.lazy_import("made_up_sdk.ec2")
    for name in loaded():
        del sys.modules[name]


def loaded() -> set[str]:
    return {name for name in sys.modules if name.partition(".")[0] == "made_up_sdk"}


def modules() -> set[str]:
    return {name.removeprefix("made_up_sdk.ec2.") for name in loaded()} - {"made_up_sdk", "made_up_sdk.ec2"}


def test_a_class_loads_its_module_and_what_that_imports(package: ModuleType) -> None:
    assert package.RouteTable.__module__ == "made_up_sdk.ec2.route_table"
    assert modules() == {"route_table", "outputs", "_inputs"}
    assert package.outputs.Route.__name__ == "Route"


def test_a_function_hides_the_module_of_its_name(package: ModuleType) -> None:
    assert package.get_ami_output.__name__ == "get_ami_output"
    assert callable(package.get_ami)
    assert modules() == {"get_ami"}


def test_arguments_are_found_in_the_module_that_has_those_of_all(package: ModuleType) -> None:
    assert package.RouteTableRouteArgs.__module__ == "made_up_sdk.ec2._inputs"
    assert modules() == {"_inputs"}


@pytest.mark.parametrize("name", ["VPCLink", "WHOLE", "__all__", "Missing"])
def test_any_other_name_loads_the_whole_package(package: ModuleType, name: str) -> None:
    before = package.RouteTable
    assert hasattr(package, name) == (name in ("VPCLink", "WHOLE"))
    assert package.WHOLE
    assert package.RouteTable is before
    assert modules() >= {"odd", "route_table", "get_ami"}


def test_import_star_gives_every_name(package: ModuleType) -> None:
    names: dict[str, Any] = {}
    exec("from made_up_sdk.ec2 import *", names)
    assert {"RouteTable", "get_ami", "VPCLink", "WHOLE"} <= names.keys()


# For a new process: this one may have loaded the SDK. Prints how many modules of a package a plan loads, what
# the package is before and after it is loaded as a whole, how many names it has, and which are others than before.
OF_AWS = """
import json, sys
from importlib import import_module
from cli.plan.program import planned
from cli.project import stack_file
from components.spec.load import load_stack_file
planned(load_stack_file(stack_file("cfos-egress")))
loaded = [name for name in sys.modules if name.startswith("pulumi_aws.ec2.")]
package = sys.modules["pulumi_aws.ec2"]
before = type(package).__name__
lines = open(package.__spec__.origin).read().splitlines()
modules = [line.split()[1] for line in lines if line.startswith("from .") and line.endswith(" import *")]
names = {name for module in modules for name in import_module(f"pulumi_aws.ec2{module}").__all__}
one_by_one = {name: getattr(package, name) for name in names}
hasattr(package, "__all__")
after = type(package).__name__
others = [name for name in names if one_by_one[name] is not getattr(package, name)]
print(json.dumps([len(loaded), before, after, len(names), others]))
"""


def test_a_plan_loads_few_modules_of_the_real_sdk_and_the_same_names() -> None:
    done = subprocess.run(
        [sys.executable, "-c", OF_AWS], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    count, before, after, names, others = json.loads(done.stdout)
    assert count < 30
    assert (before, after) == ("Package", "module")
    assert names > 500
    assert others == []
