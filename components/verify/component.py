"""The lab's checks as the last step of `up`: read the live lab from this computer, and keep the report as an output."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pulumi
from pulumi_command import local

from components.spec import models, names


@dataclass(frozen=True)
class VerificationArgs:
    """`stack`: what components.verify.__main__ reads, with secrets. `after`: resources that must be finished before a
    check can pass."""

    lab: models.Lab
    stack: pulumi.Input[dict[str, Any]]
    after: Sequence[pulumi.Resource]


class Verification(pulumi.ComponentResource):
    """`result`: the report, with at, passed, failed, unknown, and each check that did not pass. `up` does not fail when
    a check does."""

    result: pulumi.Output[dict[str, Any]]

    def __init__(self, name: str, args: VerificationArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__(names.VERIFICATION, name, {}, opts)
        lab = args.lab.model_dump(mode="json", by_alias=True)
        text = pulumi.Output.from_input(args.stack).apply(lambda s: json.dumps(s | {"lab": lab}))
        read = local.Command(
            name,
            # `./lab` names its Python; an absolute path would tie the state to one clone.
            create='"${CNI_LAB_PYTHON:-.venv/bin/python}" -m components.verify',
            stdin=text,
            add_previous_output_in_env=False,
            opts=pulumi.ResourceOptions(parent=self, depends_on=list(args.after)),
        )
        # The input is secret, the report is not: it has names of checks, lines of `ip`, and addresses.
        self.result = pulumi.Output.unsecret(read.stdout).apply(_report)
        self.register_outputs({"result": self.result})


def _report(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise pulumi.RunError(f"the verification printed no report but {text[:200]!r}")
    return found
