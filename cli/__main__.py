"""`python -m cli`."""

import os

from cli.main import app

if "_LAB_COMPLETE" in os.environ:
    # Typer registers its shells only for programs whose completion it installs itself.
    from typer._completion_classes import completion_init

    completion_init()
app(prog_name="lab")
