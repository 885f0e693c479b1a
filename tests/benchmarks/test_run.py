"""The runner of the benchmarks: what it reads, what it remembers, and when it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import run
from benchmarks.ratio import Ratio, ratios, report


def test_a_ratio_is_read_as_it_was_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert report("plan / import", 1.504, 1.5) is True
    assert report("connections to nodes at destroy", 0, 0) is False
    print("100 nodes, 1870 resources: 14.43 s CPU, 415 MB")
    assert list(ratios(capsys.readouterr().out)) == [
        Ratio("plan / import", 1.5, 1.5),
        Ratio("connections to nodes at destroy", 0, 0),
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(run, "HERE", tmp_path)
    monkeypatch.setattr(run, "HISTORY", tmp_path / "history.csv")
    monkeypatch.setattr(run, "git", lambda *words: "0123abc" if words[0] == "rev-parse" else "")
    return tmp_path


def benchmark(folder: Path, name: str, value: float, code: int = 0) -> None:
    (folder / f"{name}.py").write_text(f"import sys\nprint('a / b: {value:.2f} (at most 2)')\nsys.exit({code})\n")


def test_a_recorded_run_is_shown_beside_the_next(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    benchmark(folder, "plan", 1.5)
    assert run.main(["plan", "--record"]) == 0
    benchmark(folder, "plan", 1.9)
    capsys.readouterr()
    assert run.main(["plan"]) == 0
    assert "a / b: 1.90, was 1.50 at 0123abc" in capsys.readouterr().out
    head, *lines = (folder / "history.csv").read_text().splitlines()
    assert head == "date,commit,benchmark,name,value,bound,cores,load"
    assert len(lines) == 1 and ",0123abc,plan,a / b,1.50,2," in lines[0]


@pytest.mark.parametrize(("first", "second", "code"), [(0, 0, 0), (0, 3, 3), (1, 0, 1), (3, 1, 1), (1, 3, 1)])
def test_the_worst_result_is_the_exit_code(folder: Path, first: int, second: int, code: int) -> None:
    benchmark(folder, "plan", 1, first)
    benchmark(folder, "verify", 1, second)
    assert run.main(["plan", "verify"]) == code


def test_a_benchmark_that_measures_nothing_fails(folder: Path) -> None:
    (folder / "plan.py").write_text("")
    assert run.main(["plan"]) == 1


def test_only_a_commit_is_recorded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "git", lambda *words: " M engine/run.py")
    with pytest.raises(SystemExit):
        run.main(["plan", "--record"])


def test_the_committed_history_can_be_read() -> None:
    lines = run.read(Path(run.__file__).with_name("history.csv"))
    assert {benchmark for benchmark, _ in lines} <= set(run.NAMES)
    assert all(float(line["value"]) >= 0 and line["commit"] for line in lines.values())
