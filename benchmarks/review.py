"""Time of `plan --against` for every shipped stack: `python benchmarks/review.py`.

1. `plan --against HEAD` takes at most 2.5 times as long as a `plan` of each stack, in wall time and in CPU time.
2. A change of the library of all scripts changes every stack: from the plans to the comment it takes less than 1 s.

Wall times are measured in pairs, and the lowest ratio counts, because other work of the computer slows down both.
Exit code 1 if a bound is exceeded.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.ratio import report  # noqa: E402
from cli.project import stack_files  # noqa: E402
from cli.review.changes import compare  # noqa: E402
from cli.review.pages import Report, markdown  # noqa: E402
from components.spec.load import load_stack_file  # noqa: E402
from engine.run import run_program  # noqa: E402

RUNS = 2
FILES = stack_files()


def timed(commands: list[list[str]]) -> tuple[float, float]:
    """Wall time and CPU time, in seconds, of some `./lab` commands, one after the other."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    for command in commands:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run(
            [sys.executable, "-m", "cli", *command], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True
        )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - began, cpu


def comment() -> float:
    """CPU seconds that it takes to make the comment from two plans of each stack."""
    pairs = []
    for file in FILES.values():
        spec = load_stack_file(file)
        plan = run_program(ROOT / "__main__.py", stack=spec.name, config=spec.config).to_json()
        plan["controlPlanes"] = [node.name for node in spec.lab.control_planes]
        changed = dict(plan, resources=[changed_library(resource) for resource in plan["resources"]])
        pairs.append((spec.name, plan, changed))
    began = time.process_time()
    comparisons = tuple(compare(*pair) for pair in pairs)
    text = markdown(Report("HEAD", "0" * 40, 0, comparisons))
    seconds = time.process_time() - began
    touched = sum(len(comparison.changes) for comparison in comparisons)
    print(f"{touched} changed resources of {len(pairs)} stacks: {seconds:.2f} s, {len(text)} characters")
    return seconds


def changed_library(resource: dict[str, Any]) -> dict[str, Any]:
    scripts = resource["inputs"].get("scripts")
    if not scripts:
        return resource
    return resource | {"inputs": resource["inputs"] | {"scripts": {k: f"{v}# changed\n" for k, v in scripts.items()}}}


def main() -> int:
    names = list(FILES)
    ratios = []
    for _ in range(RUNS):
        wall, cpu = timed([["plan", "--against", "HEAD"]])
        wall_each, cpu_each = timed([["plan", name] for name in names])
        ratios.append((wall / wall_each, cpu / cpu_each))
        print(f"--against: {wall:.2f} s, {cpu:.2f} s CPU; one plan of each: {wall_each:.2f} s, {cpu_each:.2f} s CPU")
    broken = report("plan --against / plan of each, wall time", min(r[0] for r in ratios), 2.5)
    broken |= report("plan --against / plan of each, CPU", min(r[1] for r in ratios), 2.5)
    return int(broken | report("comment, s CPU", min(comment() for _ in range(RUNS)), 1.0))


if __name__ == "__main__":
    sys.exit(main())
