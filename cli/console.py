"""Where commands print for people."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
from rich.segment import Segment
from rich.table import Table

WIDTH = 120
"""Columns of a page that goes into a file or a pipe. On a terminal the page is as wide as the terminal."""


def page(width: int = WIDTH) -> Console:
    """A console on stdout without rich's own colouring of numbers and paths, and without spaces at the end of a table's
    lines."""
    console = Console(width=None if sys.stdout.isatty() else width, highlight=False)
    console.push_render_hook(_TablesTrimmed())
    return console


class _TablesTrimmed(RenderHook):
    """Rich fills every cell of a table, also those of the last column."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Trimmed(it) if isinstance(it, Table) else it for it in renderables]


class _Trimmed:
    def __init__(self, table: Table) -> None:
        self._table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterable[Segment]:
        for line in console.render_lines(self._table, options, pad=False):
            while line and not line[-1].text.rstrip():
                line.pop()
            if line:
                text, style, control = line.pop()
                line.append(Segment(text.rstrip(), style, control))
            yield from line
            yield Segment.line()
