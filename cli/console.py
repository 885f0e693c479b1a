"""Where commands print for people."""

from __future__ import annotations

import sys

from rich.console import Console

WIDTH = 120
"""Columns of a page that goes into a file or a pipe. On a terminal the page is as wide as the terminal."""


def page(width: int = WIDTH) -> Console:
    """A console on stdout without rich's own colouring of numbers and paths."""
    return Console(width=None if sys.stdout.isatty() else width, highlight=False)
