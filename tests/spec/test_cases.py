"""Configurations and bug reports that people published: each is accepted, or gives the findings that it expects."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.spec.load import SpecError, load_stack_file
from tests.spec.test_bad_files import check_findings, expected

CASES = sorted((Path(__file__).parents[1] / "data" / "cases").glob("*.yaml"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_a_published_configuration_is_answered(path: Path) -> None:
    try:
        load_stack_file(path)
    except SpecError as error:
        check_findings(path, error)
    else:
        assert not expected(path), "the file is accepted"
