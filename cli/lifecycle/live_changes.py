"""`./lab up` and `preview` refuse what a live lab cannot take, before anything is touched."""

from __future__ import annotations

import sys

from pydantic import ValidationError

from cli.errors import USAGE, CommandError
from cli.live.stack import outputs
from components.spec.changes import refused_changes
from components.spec.models import Lab


def refuse_changes(command: str, stack: str, lab: Lab) -> None:
    """Raise CommandError if the live lab cannot take what its stack file says now.

    The live lab is the one of the last `up` that ran to its end; without such an `up` nothing is refused here.
    """
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
    if found := refused_changes(live, lab):
        lines = "".join(f"\n  {finding}" for finding in found)
        raise CommandError(f"{stack} is up, and a live lab cannot take this:{lines}", USAGE)
