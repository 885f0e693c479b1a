"""The outputs of a stack, and what is known without reading them."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import project
from cli.errors import USAGE, CommandError
from cli.live import stack as live


def test_a_lab_that_was_never_up_is_reported_without_the_cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project, "HOME", tmp_path)
    monkeypatch.setattr(live, "find_pulumi", lambda: pytest.fail("it was asked for"))
    monkeypatch.delenv("PULUMI_BACKEND_URL", raising=False)
    with pytest.raises(CommandError, match=r"local is not up: run `./lab up local`, or") as caught:
        live.outputs("local")
    assert caught.value.code == USAGE and list(tmp_path.iterdir()) == []
