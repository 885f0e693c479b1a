"""Generated tests draw the same examples in every run, whatever else the process has done."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from tests.support.examples import examples


def drawn() -> list[tuple[int, str]]:
    found = []

    @examples(200)
    @given(st.integers(), st.text())
    def draw(number: int, text: str) -> None:
        found.append((number, text))

    draw()
    return found


def test_examples_do_not_follow_the_modules_that_are_imported(tmp_path: Path) -> None:
    first = drawn()
    file = tmp_path / "constants.py"
    file.write_text("\n".join(f"A{n} = {123456 + n}, 'constant {n}'" for n in range(300)))
    spec = importlib.util.spec_from_file_location("constants", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["constants"] = module
    try:
        spec.loader.exec_module(module)
        assert drawn() == first
    finally:
        del sys.modules["constants"]
