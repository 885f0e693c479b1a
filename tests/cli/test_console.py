"""The pages that commands print."""

from __future__ import annotations

import pytest
from rich.table import Table

from cli.console import page


def test_no_line_of_a_table_ends_with_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(box=None, header_style="bold")
    table.add_column("block", min_width=30)
    table.add_column("to", min_width=30)
    table.add_row("10.244.0.0/26", "two\nlines")
    table.add_row("10.244.0.64/26", "")
    page().print(table)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["block", "to"],
        ["10.244.0.0/26", "two"],
        ["lines"],
        ["10.244.0.64/26"],
    ]
    assert lines == [line.rstrip() for line in lines]
    assert lines[2].index("lines") == lines[1].index("two")
