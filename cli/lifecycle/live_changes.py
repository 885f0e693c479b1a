"""`./lab up` and `preview` refuse what a live lab cannot take, before anything is touched."""

from __future__ import annotations

import sys

from pydantic import ValidationError

from cli.errors import USAGE, CommandError
from cli.live.stack import outputs
from components.spec.changes import Made, refused_by_state, refused_changes
from components.spec.models import Lab


def live_lab(command: str, stack: str) -> Lab | None:
    """The lab of the last `up` that ran to its end. None if there was none, or if another version of this program
    wrote it, which stderr then says."""
    try:
        stored = outputs(stack).get("lab")
    except CommandError:
        return None  # there is no such stack yet; any other reason, pulumi itself reports next
    if stored is None:
        return None
    try:
        return Lab.model_validate(stored)
    except ValidationError:
        print(
            f"lab {command}: another version of this program brought {stack} up, so it is not checked whether the "
            "lab can take this change",
            file=sys.stderr,
        )
        return None


def refuse_changes(stack: str, live: Lab | None, lab: Lab, made: Made | None = None) -> None:
    """Raise CommandError if the lab that there is cannot take what its stack file says now.

    `live`: the lab of the last `up` that ran to its end. `made`: what the state has on EC2, also after an `up` that did
    not.
    """
    found = [] if live is None else list(refused_changes(live, lab))
    condition = "is up, and a live lab"
    if not found and made is not None:
        found, condition = refused_by_state(made, lab), "has machines already, and what was made"
    if found:
        lines = "".join(f"\n  {finding}" for finding in found)
        raise CommandError(f"{stack} {condition} cannot take this:{lines}", USAGE)
