"""`./lab test`, with a program in place of Python that reports how it was called."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.cli import lab

REPORTING = """\
#!/bin/sh
echo "$* (explore: ${CNILAB_EXPLORE:-no})" >>"$LOG"
[ "$2" != pytest ] || [ -z "$PYTHONDONTWRITEBYTECODE" ] || exit 9
echo "it was $2"
case " $FAILING " in *" $2 "*) exit 1 ;; esac
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with a line for each program that ran."""
    python, log = tmp_path / "python", tmp_path / "log"
    python.write_text(REPORTING)
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    monkeypatch.setenv("LOG", str(log))
    monkeypatch.setenv("FAILING", "")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.delenv("CNILAB_EXPLORE", raising=False)
    return log


def test_everything_runs_and_pytest_gets_the_options(calls: Path) -> None:
    assert lab("test", "tests/spec", "-k", "overlap", "--explore") == 0
    assert sorted(calls.read_text().splitlines()) == [
        "-m codespell_lib (explore: no)",
        "-m mypy (explore: no)",
        "-m pytest -p xdist -n 8 --dist loadgroup tests/spec -k overlap (explore: 1)",
        "-m ruff check . (explore: no)",
        "-m ruff format --check . (explore: no)",
    ]


@pytest.mark.parametrize(
    ("failing", "named"), [("mypy", "mypy"), ("pytest", "pytest"), ("ruff pytest", "pytest, ruff")]
)
def test_what_fails_is_named_and_what_it_said_comes_last(
    calls: Path, failing: str, named: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAILING", failing)
    assert lab("test") == 1
    said = capfd.readouterr()
    assert said.err.startswith(f"lab test: failed: {named}")
    shown = [line.removeprefix("it was ") for line in said.out.splitlines() if line.startswith("it was ")]
    assert shown[0] == "pytest" and set(shown[1:]) == set(failing.split()) - {"pytest"}
