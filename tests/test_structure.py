"""The tree's own rules: no import cycles, what may import what, and how long a file may be."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import LONGEST
from tests.support.graphs import ROOT

PACKAGES = ("cli", "cnilab", "components", "engine", "page", "policy")
MAX_LINES = 450


def scripts() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.sh"))


def browser_files() -> list[Path]:
    """What the page of a lab is made of beside Python."""
    found = [path for end in ("css", "js", "j2") for path in sorted((ROOT / "page").rglob(f"*.{end}"))]
    assert len(found) > 15
    return found


def modules(root: Path) -> dict[str, Path]:
    """Every product module by its dotted name; a package stands for its __init__.py."""
    found = {}
    for path in [root / "__main__.py", *(p for package in PACKAGES for p in sorted((root / package).rglob("*.py")))]:
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(path: Path) -> Iterator[str]:
    """The absolute names that a module imports: at its top, in functions, and for type checking."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import, which this test does not follow"
            # Each name may be a module, or an attribute of the one before it.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports(root: Path) -> dict[str, set[str]]:
    """The product modules that each product module imports, with the packages that Python loads before them."""
    known = modules(root)
    graph: dict[str, set[str]] = {}
    for module, path in known.items():
        graph[module] = set()
        for name in imported(path):
            parts = name.split(".")
            graph[module] |= {".".join(parts[:end]) for end in range(1, len(parts) + 1)} & known.keys()
        # A module's own packages are loaded before it; they are no import of its own.
        graph[module] -= {module, *(".".join(module.split(".")[:end]) for end in range(1, module.count(".") + 1))}
    return graph


@cache
def product() -> Mapping[str, set[str]]:
    return imports(ROOT)


def reaches(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """Every module that importing `start` may load."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for module in graph[waiting.pop()] - seen:
            seen.add(module)
            waiting.append(module)
    return seen


def cycle(graph: Mapping[str, set[str]]) -> str | None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return " -> ".join(reversed(error.args[1]))
    return None


def test_no_module_imports_itself_through_others() -> None:
    found = cycle(product())
    assert found is None, f"{found}: move what both sides need into a module that imports neither"


def test_an_import_in_a_function_counts_for_a_cycle(tmp_path: Path) -> None:
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    (tmp_path / "__main__.py").touch()
    (tmp_path / "cli/a.py").write_text("from cli import b\n")
    (tmp_path / "cli/b.py").write_text("from engine.c import name\n")
    (tmp_path / "engine/c.py").write_text("import json\n")
    assert cycle(imports(tmp_path)) is None
    (tmp_path / "engine/c.py").write_text("def late():\n    import cli.a\n")
    assert cycle(imports(tmp_path)) in (
        "cli.a -> cli.b -> engine.c -> cli.a",
        "cli.b -> engine.c -> cli.a -> cli.b",
        "engine.c -> cli.a -> cli.b -> engine.c",
    )


def test_the_engine_imports_nothing_of_the_lab() -> None:
    """A review runs the program of another revision on this revision's engine, in one process."""
    for module in product():
        if module.split(".")[0] == "engine":
            assert {found.split(".")[0] for found in reaches(product(), module)} <= {"engine"}, module


def test_components_import_no_command() -> None:
    for module in product():
        if module.split(".")[0] in ("cnilab", "components", "policy"):
            found = {name for name in reaches(product(), module) if name.split(".")[0] in ("cli", "engine")}
            # The policy pack is loaded by pulumi, and the package by programs that have no `cli`.
            assert not found, f"{module} imports {', '.join(sorted(found))}"


def test_the_page_imports_no_command_and_no_pulumi() -> None:
    known = modules(ROOT)
    for module in (name for name in known if name.split(".")[0] == "page"):
        assert not {name for name in product()[module] if name.split(".")[0] == "cli"}, module
        assert not [name for name in imported(known[module]) if name.split(".")[0].startswith("pulumi")], module


def test_the_specification_needs_no_pulumi() -> None:
    known = modules(ROOT)
    for module in known:
        if module.startswith("components.spec"):
            for name in {module, *reaches(product(), module)}:
                assert not [found for found in imported(known[name]) if found.split(".")[0].startswith("pulumi")], (
                    f"{module} needs {name}, which imports pulumi"
                )


def test_mypy_reads_every_service_that_the_program_uses() -> None:
    """pyproject.toml lets it skip the others. It knows nothing of a skipped module, and accepts every use of it."""
    overrides = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]["overrides"]
    read = {name for o in overrides if o.get("follow_imports") == "normal" for name in o["module"]}
    used = set()
    for path in modules(ROOT).values():
        text = path.read_text(encoding="utf-8")
        for package, alias in re.findall(r"^import (pulumi_(?:aws|kubernetes)) as (\w+)$", text, re.MULTILINE):
            used |= {f"{package}.{service}.*" for service in re.findall(rf"(?<![\w.]){alias}\.([a-z]\w*)\.", text)}
        others = re.findall(
            r"^ *(?:from pulumi_(?:aws|kubernetes)|import pulumi_(?:aws|kubernetes)(?! as)).*", text, re.M
        )
        assert not others, f"{path}: write `import pulumi_aws as aws`, which this test can follow, instead of {others}"
    assert {name for name in used if name.startswith("pulumi_aws")} >= {"pulumi_aws.ec2.*", "pulumi_aws.vpc.*"}
    assert used <= read, f"mypy skips {', '.join(sorted(used - read))}: add it to pyproject.toml"


@pytest.mark.parametrize(
    "path", [*modules(ROOT).values(), *scripts(), *browser_files()], ids=lambda path: str(path.relative_to(ROOT))
)
def test_no_file_is_too_long(path: Path) -> None:
    count = len(path.read_text(encoding="utf-8").splitlines())
    assert count <= MAX_LINES, f"{count} lines: split the file by what its parts are for"


@pytest.mark.parametrize("name", LONGEST)
def test_the_files_and_groups_that_begin_a_run_exist(name: str) -> None:
    tests = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    assert (ROOT / name).is_file() or any(f'xdist_group("{name}")' in text for text in tests)


@pytest.mark.xdist_group("a group")
def test_a_worker_knows_the_group_of_a_test(request: pytest.FixtureRequest) -> None:
    """Else the tests of a group would run anywhere: those on real machines at the same time."""
    if not request.config.getoption("loadgroup", False):
        pytest.skip("only ./lab test spreads tests over workers")
    assert request.node.nodeid.endswith("@a group")
