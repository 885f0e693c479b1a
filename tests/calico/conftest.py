"""One API server for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.calico.cluster import Cluster, running_cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running
