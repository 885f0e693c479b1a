"""`python -m cli`."""

import os

from engine.garbage import collect_rarely

collect_rarely()

from cli.main import app  # noqa: E402

if "_LAB_COMPLETE" in os.environ:
    # Typer registers its shells only for programs whose completion it installs itself.
    from typer._completion_classes import completion_init

    completion_init()
app(prog_name="lab")
