"""Deletes what lost ephemeral stacks left in AWS: stacks that no state knows, and whose time is over.

Only tags count. Things without the tags `cni-lab:stack` and `cni-lab:ttl-hours` stay, and so do the things of a stack
that the state knows. All things of a stack are deleted together, when the time to live of the newest one is over. The
time runs from the creation. Some kinds (VPCs, subnets, addresses) have no creation time: they are deleted with the
others. If a stack has only such things, the first sweep tags them with `cni-lab:lost-since`: the time runs from then.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from cli.reap.account import LOST, OWNER, TTL, Account, Thing, error_code, is_gone
from components.aws_client import AwsSettings, clients

TIMEOUT_SECONDS = 600.0
"""For deleting a stack's things: instances and network interfaces take minutes."""

PAUSE_SECONDS = 10.0

_REFUSED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}
"""Codes of errors that another try does not change."""


class SweepError(Exception):
    """A region cannot be swept; the message is one line."""

    def __init__(self, message: str, *, no_credentials: bool = False) -> None:
        super().__init__(message)
        self.no_credentials = no_credentials


@dataclass(frozen=True)
class Sweep:
    """What was found of one lost stack, and what happened to it."""

    stack: str
    outcome: Literal["destroyed", "would be destroyed", "kept", "left behind"]
    why: str


def sweep(aws: AwsSettings, now: datetime, known: frozenset[str], *, dry_run: bool) -> list[Sweep]:
    """Delete what lost ephemeral stacks left in an account's region. `known`: the stacks of the state.

    Raises SweepError.
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        stacks: dict[str, list[Thing]] = defaultdict(list)
        for thing in Account(clients(aws)).things():
            if _hours(thing) is not None and thing.tags[OWNER] not in known:
                stacks[thing.tags[OWNER]].append(thing)
        return [_sweep_stack(stack, things, now, dry_run=dry_run) for stack, things in sorted(stacks.items())]
    except NoCredentialsError:
        message = "not looked at: no AWS credentials (aws configure, AWS_PROFILE)"
        raise SweepError(message, no_credentials=True) from None
    except (BotoCoreError, ClientError, ValueError) as error:  # an invalid region's name is a ValueError
        raise SweepError(f"cannot be looked at: {_line(error)}") from None


def _sweep_stack(stack: str, things: Sequence[Thing], now: datetime, *, dry_run: bool) -> Sweep:
    count = ", ".join(f"{number} {kind}" for kind, number in sorted(Counter(t.kind for t in things).items()))
    times = [time for thing in things if (time := thing.born or _lost_since(thing)) is not None]
    hours = max(_hours(thing) or 0 for thing in things)
    if not times:
        if not dry_run:
            tag = [{"Key": LOST, "Value": now.strftime("%Y-%m-%dT%H:%M:%SZ")}]
            for thing in things:
                if thing.mark:
                    thing.mark(tag)
        return Sweep(stack, "kept", f"{count}: none has a creation time, so the {hours} h to live count from now")
    end = max(times) + timedelta(hours=hours)
    if now < end:
        return Sweep(stack, "kept", f"{count}: until {end:%Y-%m-%d %H:%M} UTC")
    why = f"{count}: {hours} h to live, over since {end:%Y-%m-%d %H:%M} UTC"
    if dry_run:
        return Sweep(stack, "would be destroyed", why)
    left = _delete(things)
    if left:
        name, reason = next(iter(left.items()))
        return Sweep(stack, "left behind", f"{len(left)} of {len(things)} resources, such as {name}: {reason}")
    return Sweep(stack, "destroyed", why)


def _delete(things: Sequence[Thing]) -> dict[str, str]:
    """Delete in passes, because some things can only be deleted after others.

    Returns why those that are left could not be deleted, by "KIND ID".
    """
    from botocore.exceptions import BotoCoreError, ClientError

    deadline = time.monotonic() + TIMEOUT_SECONDS
    left = list(things)
    refused: dict[str, str] = {}
    while True:
        failed: list[Thing] = []
        reasons: dict[str, str] = {}
        for thing in left:
            try:
                thing.delete()
            except (BotoCoreError, ClientError) as error:
                if error_code(error) in _REFUSED:
                    refused[f"{thing.kind} {thing.id}"] = _line(error)
                elif not is_gone(error):
                    failed.append(thing)
                    reasons[f"{thing.kind} {thing.id}"] = _line(error)
        if not failed or time.monotonic() > deadline:
            return refused | reasons
        # Without progress in this pass, AWS needs time.
        if len(failed) == len(left):
            time.sleep(PAUSE_SECONDS)
        left = failed


def _hours(thing: Thing) -> int | None:
    """The time to live by a thing's tags; None if they are not those of an ephemeral lab."""
    text = thing.tags.get(TTL, "")
    return int(text) if OWNER in thing.tags and text.isascii() and text.isdigit() and int(text) >= 1 else None


def _lost_since(thing: Thing) -> datetime | None:
    try:
        return datetime.fromisoformat(thing.tags.get(LOST, ""))
    except ValueError:
        return None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
