"""`python -m components.verify`: a lab on stdin, its report on stdout. What `up` runs where the lab says `verify`.

stdin: JSON with lab (as in the stack file), name, blocks, access, kubeconfig, nodes, region. Checks that fail are
tried again for PATIENCE seconds, for Felix writes the last routes a moment after the last pod runs.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

from components.spec import models
from components.verify.read.access import access_of
from components.verify.reading import Live, read_lab, verify
from components.verify.report import document

PATIENCE = 60.0
PAUSE = 5.0


def live_of(stack: dict[str, Any]) -> Live:
    """A lab from what stands on stdin, or from the outputs of a stack with its lab."""
    return Live(
        lab=models.Lab.model_validate(stack["lab"]),
        blocks=stack.get("blocks") or {},
        access={node: access_of(node, entry) for node, entry in (stack.get("access") or {}).items()},
        kubeconfig=str(stack.get("kubeconfig") or ""),
        instances={node: str(machine) for node, machine in (stack.get("nodes") or {}).items()},
        region=stack.get("region"),
    )


def main() -> int:
    stack = json.load(sys.stdin)
    live, name = live_of(stack), str(stack.get("name", "lab"))
    end = time.monotonic() + PATIENCE
    while True:
        reading = asyncio.run(read_lab(live))
        report = document(name, reading, verify(live, reading))
        if not (report["failed"] or report["unknown"]) or time.monotonic() > end:
            break
        time.sleep(PAUSE)
    wrong = [check for check in report.pop("checks") if check["status"] != "passed"]
    print(json.dumps(report | {"checks": wrong}, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
