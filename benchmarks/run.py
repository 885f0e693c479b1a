"""Runs benchmarks and remembers their ratios: `python benchmarks/run.py [NAME ...]`.

NAME is plan, review, verify, page, sandbox, up or kind. Without a name, plan, review and verify run, which need no tool
and no root. Each ratio is shown beside its value in the latest recorded run. `--record` adds a line for each ratio to
history.csv; it needs a commit without changes.

A new benchmark is a file here that prints its ratios by `ratio.report`, and its name in NAMES.

Exit code 1 if a bound is exceeded or a benchmark fails, 3 if one cannot run here.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from benchmarks.ratio import Ratio, ratios  # noqa: E402

HISTORY = HERE / "history.csv"
COLUMNS = ("date", "commit", "benchmark", "name", "value", "bound", "cores", "load")
"""`load`: the number of runnable processes before the benchmark, on average over a minute."""
NAMES = ("plan", "review", "verify", "page", "sandbox", "up", "kind")
DEFAULT = ("plan", "review", "verify")
EXCEEDED, MISSING = 1, 3


def git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()


def read(history: Path) -> dict[tuple[str, str], dict[str, str]]:
    """The latest line of each ratio, by benchmark and name."""
    if not history.exists():
        return {}
    with history.open(encoding="utf-8", newline="") as file:
        return {(line["benchmark"], line["name"]): line for line in csv.DictReader(file)}


def run(name: str, earlier: dict[tuple[str, str], dict[str, str]]) -> tuple[int, list[Ratio]]:
    """Run a benchmark. Its exit code and its ratios."""
    done = subprocess.run([sys.executable, HERE / f"{name}.py"], stdout=subprocess.PIPE, text=True, check=False)
    found = list(ratios(done.stdout))
    print(f"# {name}\n{done.stdout}", end="")
    for ratio in found:
        if before := earlier.get((name, ratio.name)):
            print(f"  {ratio.name}: {ratio.value:.2f}, was {before['value']} at {before['commit']} ({before['date']})")
    if not found and done.returncode == 0:
        print(f"{name} printed no ratio", file=sys.stderr)
        return EXCEEDED, found
    return done.returncode, found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--record", action="store_true", help="add the ratios to history.csv")
    given = parser.parse_args(arguments)
    if unknown := [name for name in given.names if name not in NAMES]:
        parser.error(f"there is no benchmark {unknown[0]}: write {', '.join(NAMES)}")
    if given.record and git("status", "--porcelain", "--untracked-files=no"):
        parser.error("there are changes that are not committed, so the commit would not say what was measured")
    commit, earlier, code = git("rev-parse", "--short", "HEAD"), read(HISTORY), 0
    for name in given.names or DEFAULT:
        load = os.getloadavg()[0]
        result, found = run(name, earlier)
        # A bound that is exceeded is worse news than a tool that is missing.
        code = EXCEEDED if EXCEEDED in (code, result) else max(code, result)
        if given.record:
            date = datetime.now(UTC).date().isoformat()
            rows = [
                (date, commit, name, r.name, f"{r.value:.2f}", f"{r.bound:g}", os.cpu_count(), f"{load:.0f}")
                for r in found
            ]
            record(HISTORY, rows)
    return code


def record(history: Path, rows: Sequence[Sequence[object]]) -> None:
    is_new = not history.exists()
    with history.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([COLUMNS, *rows] if is_new else rows)


if __name__ == "__main__":
    sys.exit(main())
