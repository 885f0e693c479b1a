"""How fast a lab is alive: `python benchmarks/sandbox.py [RUNS]` (default 3).

Two ratios, each from the best of RUNS runs, which alternate so that other work on the computer meets both: `./lab demo
--fast` takes at most 4 times as long as `./lab plan` of the same stack, and a sandbox of 12 nodes at most 3 times as
long as one of 3. Exit code 1 where a bound is broken, 3 where no sandbox can stand.
"""

from __future__ import annotations

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
from tests.verify.replica_labs import of_size  # noqa: E402

STACK = "cfos-egress"
DEMO_TO_PLAN, TWELVE_TO_THREE = 4.0, 3.0


def command(*words: str) -> float:
    """Seconds that a command of `./lab` takes."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "cli", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"lab {' '.join(words)}: {done.stderr or done.stdout}")
    return time.perf_counter() - started


def build(nodes: int) -> float:
    """Seconds until a sandbox with three pods on each node stands."""
    lab = of_size(nodes, 3 * nodes)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        running = life.build("lab", lab, Path(folder, "home"), stay=False)
        seconds = time.perf_counter() - started
        running.stop()
    return seconds


def main() -> int:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    if problem := examine().problem:
        print(problem)
        return 3
    times: dict[str, list[float]] = {"plan": [], "demo": [], "3": [], "12": []}
    for _ in range(runs):
        times["plan"].append(command("plan", STACK))
        times["demo"].append(command("demo", STACK, "--fast"))
        times["3"].append(build(3))
        times["12"].append(build(12))
    best = {name: min(seconds) for name, seconds in times.items()}
    print(", ".join(f"{name}: {seconds:.2f} s" for name, seconds in best.items()))
    broken = report("./lab demo --fast / ./lab plan", best["demo"] / best["plan"], DEMO_TO_PLAN)
    return int(broken | report("sandbox of 12 nodes / 3", best["12"] / best["3"], TWELVE_TO_THREE))


if __name__ == "__main__":
    sys.exit(main())
