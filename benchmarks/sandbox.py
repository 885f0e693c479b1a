"""How fast a lab is alive: `python benchmarks/sandbox.py [RUNS]` (default 3).

Ratios, each from the best of RUNS runs, which alternate so that other work on the computer meets both: `./lab demo
--fast` takes at most 4 times as long as `./lab plan` of the same stack, and a sandbox of 12 nodes at most 3 times as
long as one of 3. A walk in it takes at most 1.5 times as long, because it reads two nodes of either, and at most 3 s.
Exit code 1 where a bound is broken, 3 where no sandbox can be built.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.ratio import report  # noqa: E402
from components.sandbox import life  # noqa: E402
from components.sandbox.requirements import examine  # noqa: E402
from components.verify.read.reading import LiveLab  # noqa: E402
from components.verify.walk.live import walk_live  # noqa: E402
from tests.verify.replica_labs import of_size  # noqa: E402

STACK = "cfos-egress"
DEMO_TO_PLAN, TWELVE_TO_THREE, WALK_IN_TWELVE, WALK_SECONDS = 4.0, 3.0, 1.5, 3.0


def command(*words: str) -> float:
    """Seconds that a command of `./lab` takes."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "cli", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"lab {' '.join(words)}: {done.stderr or done.stdout}")
    return time.perf_counter() - started


def build(nodes: int) -> tuple[float, float]:
    """Seconds until a sandbox with three pods on each node is up; and of a walk between two of its nodes."""
    lab = of_size(nodes, 3 * nodes)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        running = life.build("lab", lab, Path(folder, "home"), stay=False)
        built = time.perf_counter()
        try:
            live = LiveLab.of(running.plan.lab, running.outputs, None)
            found = asyncio.run(walk_live(live, "load@node-001", "load@node-002")).walk
            walked = time.perf_counter()
        finally:
            running.stop()
    if not found.holds:
        sys.exit(f"the walk in a sandbox of {nodes} nodes stops: {found.ping.difference}")
    return built - started, walked - built


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    if problem := examine().problem:
        print(problem)
        return 3
    times: dict[str, list[float]] = {"plan": [], "demo": [], "3": [], "walk in 3": [], "12": [], "walk in 12": []}
    for _ in range(runs):
        times["plan"].append(command("plan", STACK))
        times["demo"].append(command("demo", STACK, "--fast"))
        for nodes in (3, 12):
            built, walked = build(nodes)
            times[f"{nodes}"].append(built)
            times[f"walk in {nodes}"].append(walked)
    best = {name: min(seconds) for name, seconds in times.items()}
    print(", ".join(f"{name}: {seconds:.2f} s" for name, seconds in best.items()))
    broken = report("./lab demo --fast / ./lab plan", best["demo"] / best["plan"], DEMO_TO_PLAN)
    broken |= report("sandbox of 12 nodes / 3", best["12"] / best["3"], TWELVE_TO_THREE)
    broken |= report("walk in 12 nodes / in 3", best["walk in 12"] / best["walk in 3"], WALK_IN_TWELVE)
    return int(broken | report("seconds of a walk", best["walk in 12"], WALK_SECONDS))


if __name__ == "__main__":
    sys.exit(main())
