"""`python -m cli`."""

import io
import os
import sys

from engine.garbage import collect_rarely

collect_rarely()

from cli.main import app  # noqa: E402

if "_LAB_COMPLETE" in os.environ:
    # Typer registers its shells only for programs whose completion it installs itself.
    from typer._completion_classes import completion_init

    completion_init()
for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
        # A terminal of another encoding than UTF-8 shows a question mark where it has no arrow.
        stream.reconfigure(errors="replace")
app(prog_name="lab")
