"""`python -m components.verify`: a lab on stdin, its report on stdout. `up` runs it where the lab has `verify: true`.

stdin: JSON with lab (as in the stack file), name, region, account (the other keys under `aws:` that say which account
it is), and the outputs blocks, access, kubeconfig and nodes. A lab that was just made is still coming up: Kubernetes
starts the last pods, and Felix writes the last routes a moment after they run. So this waits for WAIT_SECONDS, and
prints on stderr what is missing.
"""

from __future__ import annotations

import json
import sys

from components.aws_client import AwsSettings
from components.slowdown import scaled
from components.spec import models
from components.verify.read.reading import LiveLab
from components.verify.report import document
from components.verify.waiting import verify_until

WAIT_SECONDS = 300.0
"""Enough for the pods that nothing in `up` waits for, such as CoreDNS', and for their images."""


def main() -> int:
    """Returns 0 also where checks fail: the report is an output, and no reason for `up` to fail."""
    stack = json.load(sys.stdin)
    aws = AwsSettings.of({"aws:region": stack.get("region") or "", **(stack.get("account") or {})})
    live = LiveLab.of(models.Lab.model_validate(stack["lab"]), stack, aws)
    reading, results = verify_until(live, scaled(WAIT_SECONDS), lambda line: print(f"cni-lab: {line}", file=sys.stderr))
    report = document(str(stack.get("name", "lab")), reading, results)
    not_passed = [check for check in report.pop("checks") if check["status"] != "passed"]
    print(json.dumps(report | {"checks": not_passed}, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
