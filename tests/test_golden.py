"""The plan of every shipped stack, compared with a file that a reviewer can read.

After an intended change: `CNILAB_UPDATE_GOLDEN=1 ./lab test tests/test_golden.py`, and read the difference before it is
committed. tests/support/golden.py says what is in a file, and what is left out.
"""

from __future__ import annotations

import difflib
import os
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support import golden
from tests.support.examples import examples
from tests.support.graphs import ROOT, STACKS, run_stack

FOLDER = ROOT / "tests" / "golden"
# Labs that are nearly the same: their files say what differs.
BASE = {"local": "cfos-egress", "nightly": "cfos-egress"}


def agreed(stack: str) -> golden.Plan:
    file = FOLDER / f"{stack}.yaml"
    assert file.is_file(), f"{file} is missing: run with CNILAB_UPDATE_GOLDEN=1 and commit it"
    plan = golden.read(file.read_text())
    return golden.apply(agreed(BASE[stack]), plan) if stack in BASE else plan


@pytest.mark.parametrize("stack", STACKS)
def test_plan_is_as_agreed(stack: str) -> None:
    now = golden.plan_of(run_stack(stack))
    if os.environ.get("CNILAB_UPDATE_GOLDEN"):
        base = BASE.get(stack)
        shown = golden.difference(golden.plan_of(run_stack(base)), now) if base else now
        (FOLDER / f"{stack}.yaml").write_text(golden.written(shown))
    lines = [golden.written(plan).splitlines() for plan in (agreed(stack), now)]
    if changes := list(difflib.unified_diff(*lines, "agreed", "now", n=8, lineterm="")):
        pytest.fail("\n".join(["the plan is not as agreed", *changes]), pytrace=False)


leaves = st.none() | st.booleans() | st.integers(0, 1) | st.sampled_from(["", "a", "a\nb\n", "'1'", "no", "<secret>"])
plans = st.recursive(
    leaves | st.lists(leaves, max_size=2),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=4) | st.lists(inner, max_size=2),
    max_leaves=12,
).map(lambda value: {"resources": value})


@examples(200)
@given(plans, plans)
@example({"files": {"a": 1, "b": 2}}, {"files": {"b": 2, "a": 1}})
@example({"files": {"b": 1, "c": 2}}, {"files": {"b": 1, "a": 3, "c": 2}})
@example({"timeout": 1}, {"timeout": True})
def test_a_file_of_differences_loses_nothing(base: dict[str, Any], now: dict[str, Any]) -> None:
    """Neither a value, nor its type, nor the order of keys."""
    stored = golden.read(golden.written(golden.difference(base, now)))
    assert repr(golden.apply(base, stored)) == repr(now)
    assert golden.difference(base, base) == {}
