"""`./lab up` and `preview` refuse what a live lab cannot take, before anything is touched."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from pydantic import ValidationError

from cli.errors import USAGE, CommandError
from cli.live.stack import outputs
from components.spec.changes import Made, refused_by_state, refused_changes
from components.spec.findings import Finding
from components.spec.models import Lab


def refuse_changes(command: str, stack: str, lab: Lab, made: Made | None = None) -> None:
    """Raise CommandError if the lab that there is cannot take what its stack file says now.

    The live lab is the one of the last `up` that ran to its end. `made`: what the state has on EC2, also after an `up`
    that did not.
    """
    found = list(_of_live_lab(command, stack, lab))
    condition = "is up, and a live lab"
    if not found and made is not None:
        found, condition = refused_by_state(made, lab), "has machines already, and what was made"
    if found:
        lines = "".join(f"\n  {finding}" for finding in found)
        raise CommandError(f"{stack} {condition} cannot take this:{lines}", USAGE)


def _of_live_lab(command: str, stack: str, lab: Lab) -> Iterator[Finding]:
    try:
        stored = outputs(stack).get("lab")
    except CommandError:
        return  # there is no such stack yet; any other reason, pulumi itself reports next
    if stored is None:
        return
    try:
        live = Lab.model_validate(stored)
    except ValidationError:
        print(
            f"lab {command}: another version of this program brought {stack} up, so it is not checked whether the "
            "lab can take this change",
            file=sys.stderr,
        )
        return
    yield from refused_changes(live, lab)
