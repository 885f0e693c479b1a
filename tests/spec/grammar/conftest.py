from pathlib import Path

import pytest

from tests.spec.grammar import oracle


@pytest.fixture(scope="session")
def go_oracle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that asks Go's regexp and Calico's selector parser."""
    return oracle.build(tmp_path_factory.mktemp("oracle"))
