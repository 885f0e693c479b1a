"""Configurations and bug reports that people published: each is accepted, or gives the findings that it expects."""

from __future__ import annotations

from pathlib import Path

import pytest

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
