"""`python -m cli`."""

import gc
import os

# Modules and their objects live to the end. At the threshold of 700 that Python sets, it would search them for garbage
# hundreds of times while they load: a sixth of a command's time.
gc.set_threshold(100_000)

from cli.main import app  # noqa: E402

if "_LAB_COMPLETE" in os.environ:
    # Typer registers its shells only for programs whose completion it installs itself.
    from typer._completion_classes import completion_init

    completion_init()
app(prog_name="lab")
