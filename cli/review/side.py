"""One side of a comparison, in a process of its own: plans stacks of a tree with that tree's program.

`python side.py TREE OUT STACK…` writes a line of JSON to OUT for each stack, as soon as it has it: its resources,
outputs, control planes and lab, or `error`, one line. Both sides run on this tree's engine, so that only the labs
themselves can differ; `components` and `__main__.py` are those of TREE.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BLOCKS = "-calico-blocks"
"""The command whose answer is each node's blocks ends so."""


def plan(tree: Path, stack: str) -> dict[str, Any]:
    """A stack's plan, as plan's JSON with `controlPlanes`, the names of those nodes, `lab` and `region`.

    Where there is no plan, it is {"error": one line}.
    """
    file = tree / "stacks" / f"Pulumi.{stack}.yaml"
    program = tree / "__main__.py"
    if not file.is_file():
        return {"error": None}
    if not program.is_file():
        return {"error": "there is no __main__.py, so there is no program to plan"}
    try:
        from components.spec.load import SpecError, load_stack_file
        from engine.model import ProgramError
        from engine.run import run_program
    except ImportError as error:
        return {"error": f"its program cannot be loaded: {_line(error)}"}
    try:
        spec = load_stack_file(file)
        secrets = spec.secret_keys
        deployment = run_program(program, stack=stack, config=spec.config, secret_keys=secrets, known=_known(spec.lab))
    except SpecError as error:
        count = len(error.findings)
        more = f" (and {count - 1} more)" if count > 1 else ""
        return {"error": f"{file.name} is not valid{more}: {' '.join(str(error.findings[0]).split())}"}
    except ProgramError as error:
        return {"error": f"its program fails: {_line(error)}"}
    # The code of an old tree may raise anything. That stack gets the error, and the others are planned all the same.
    except Exception as error:
        return {"error": f"it cannot be planned: {type(error).__name__}: {_line(error)}"}
    if errors := [message.text for message in deployment.messages if message.severity == "error"]:
        return {"error": f"its program logs an error: {' '.join(errors[0].split())}"}
    return deployment.to_json() | {
        "controlPlanes": [node.name for node in spec.lab.control_planes],
        "lab": spec.lab.model_dump(mode="json", by_alias=True),
        "region": spec.config.get("aws:region"),
    }


def _line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__).strip()


def _known(lab: Any) -> Callable[[Any], dict[str, Any]] | None:
    """The blocks that Calico's rule gives the nodes, so that both sides show the files that are computed from them.

    None where the models of the tree have no such keys. Selectors of pools are not looked at: every node has a block in
    each pool, so that a change of a selector changes no file that does not depend on it.
    """
    try:
        blocks: dict[str, list[str]] = {node.name: [] for node in lab.nodes}
        for pool in lab.calico.pools:
            foreseen = _first_blocks().foreseen_blocks(pool.cidr, pool.block_size, list(blocks))
            for name, block in foreseen.items():
                blocks[name].append(str(block))
    except AttributeError:
        return None
    stdout = json.dumps(blocks)
    return lambda resource: {"stdout": stdout} if resource.name.endswith(BLOCKS) else {}


@cache
def _first_blocks() -> ModuleType:
    """This tree's rule, for both sides: an older tree has none."""
    spec = importlib.util.spec_from_file_location("first_blocks", ROOT / "components/calico/first_blocks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    tree, out, stacks = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    # `engine` comes from this tree, `components` from TREE.
    sys.path.insert(0, str(ROOT))
    import engine.run

    assert Path(engine.run.__file__).parents[1] == ROOT
    sys.path[:] = [str(tree), *(entry for entry in sys.path if Path(entry or ".").resolve() != ROOT)]
    os.chdir(tree)
    with out.open("w", encoding="utf-8") as lines:
        for stack in stacks:
            lines.write(json.dumps({"stack": stack} | plan(tree, stack)) + "\n")
            lines.flush()


if __name__ == "__main__":
    main()
