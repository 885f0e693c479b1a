from pathlib import Path

import pytest

from tests.spec.grammar import oracle


@pytest.fixture(scope="session")
def go_oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that answers for Go's regexp and Calico's selectors."""
    return oracle.build(tmp_path_factory.mktemp("oracle"))
