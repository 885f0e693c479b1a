"""How generated tests draw their examples: the same ones in every default run, new ones in an exploration."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis.internal.conjecture import providers

EXPLORING = os.environ.get("CNILAB_EXPLORE") == "1"
EXPLORATION_FACTOR = 10


def load_profile() -> None:
    """Call it before any test module is imported: settings made earlier do not follow the profile.

    Neither run keeps a database of examples. What an exploration finds is repeated from its seed, and stays in the
    default run as an `@example`.
    """
    settings.register_profile("repeatable", derandomize=True, deadline=None, database=None, print_blob=True)
    settings.register_profile(
        "exploration", deadline=None, database=None, print_blob=True, max_examples=100 * EXPLORATION_FACTOR
    )
    settings.load_profile("exploration" if EXPLORING else "repeatable")
    # Hypothesis mixes in the constants of whichever modules of this project the process has imported so far, so the
    # examples would follow the order of the tests, every change of the program and the path of the checkout. There is
    # no setting for it: without this line its table of such constants stays empty.
    providers._get_local_constants = lambda: providers._local_constants


def examples(count: int) -> settings:
    """Settings for a test that draws `count` examples in the default run, and more in an exploration.

    That drawing is slow says nothing here: a whole lab takes a tenth of a second on a busy machine.
    """
    return settings(
        max_examples=count * EXPLORATION_FACTOR if EXPLORING else count,
        suppress_health_check=list(HealthCheck),
    )
