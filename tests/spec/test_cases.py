"""Configurations and bug reports that people published: each is accepted, or gives the findings that it expects."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.spec.changes import refused_changes
from components.spec.load import SpecError, load_stack_file
from tests.spec.test_bad_files import expected

CASES = sorted((Path(__file__).parents[1] / "data" / "cases").glob("*.yaml"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_published_configuration_is_answered(path: Path) -> None:
    wanted = expected(path)
    try:
        load_stack_file(path)
    except SpecError as error:
        left = list(error.findings)
        for key, words in wanted:
            found = [finding for finding in left if finding.key == key and words in str(finding)]
            assert found, f"no finding at {key} with {words!r} in:\n{error}"
            left.remove(found[0])
        assert not left, f"findings beyond those expected:\n{error}"
    else:
        assert not wanted, "the file is accepted"


def test_a_live_pool_keeps_its_block_size() -> None:
    before, after = (load_stack_file(CASES[0].with_name(f"blocksize-{when}.yaml")).lab for when in ("before", "after"))
    (finding,) = refused_changes(before, after)
    assert finding.key == "calico.pools[0].blockSize" and "26 → 28" in finding.value
