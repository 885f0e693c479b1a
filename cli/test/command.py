"""`./lab test`: the tests, and beside them lint, types and spelling."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from cli.errors import CommandError
from cli.project import ROOT

_CHECKS = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["codespell_lib"], ["mypy"])


def run(arguments: Sequence[str], *, explore: bool) -> None:
    """Run everything. `arguments`: further ones of pytest. What a check found is printed after pytest's report.

    Raises CommandError, which names what failed.
    """
    print("ruff, codespell and mypy run beside the tests", flush=True)
    checks = [(check, _start(check)) for check in _CHECKS]
    # Four workers more than processors, because a third of the tests' time is waiting.
    workers = str((os.cpu_count() or 1) + 4)
    tests = [sys.executable, "-m", "pytest", "-p", "xdist", "-n", workers, "--dist", "loadgroup", *arguments]
    # Without it: else each worker and each `./lab` that a test starts would compile the program again.
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment = kept | ({"CNILAB_EXPLORE": "1"} if explore else {})
    failed = ["pytest"] if subprocess.run(tests, cwd=ROOT, env=environment).returncode else []
    for check, process in checks:
        said, _ = process.communicate()
        if process.returncode:
            failed.append(check[0])
            print(f"\n{' '.join(check)}:\n{said}", end="", flush=True)
    if failed:
        raise CommandError(f"failed: {', '.join(failed)}", 1)


def _start(check: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *check], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
