"""`python -m components.verify`: a lab on stdin, its report on stdout. `up` runs it where the lab has `verify: true`.

stdin: JSON with lab (as in the stack file), name, region, account (the other keys under `aws:` that say which account
it is), and the outputs blocks, access, kubeconfig and nodes. Checks that fail are repeated for RETRY_SECONDS, because
Felix writes the last routes a moment after the last pod runs.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

from components.aws_client import AwsSettings
from components.spec import models
from components.verify.read.reading import LiveLab, read_lab
from components.verify.report import document, verify

RETRY_SECONDS = 60.0
_PAUSE_SECONDS = 5.0


def main() -> int:
    """Returns 0 also where checks fail: the report is an output, and no reason for `up` to fail."""
    stack = json.load(sys.stdin)
    aws = AwsSettings.of({"aws:region": stack.get("region") or "", **(stack.get("account") or {})})
    live = LiveLab.of(models.Lab.model_validate(stack["lab"]), stack, aws)
    name = str(stack.get("name", "lab"))
    end = time.monotonic() + RETRY_SECONDS
    while True:
        reading = asyncio.run(read_lab(live))
        report = document(name, reading, verify(live, reading))
        if not (report["failed"] or report["unknown"]) or time.monotonic() > end:
            break
        time.sleep(_PAUSE_SECONDS)
    not_passed = [check for check in report.pop("checks") if check["status"] != "passed"]
    print(json.dumps(report | {"checks": not_passed}, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
