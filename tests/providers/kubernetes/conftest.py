"""A yard of each test's own in the cluster."""

from collections.abc import Iterator

import pytest
from tests.cluster.kubernetes.cluster import Cluster as ACluster
from tests.providers.kubernetes.yard import Yard, yard


@pytest.fixture
def place(kubernetes: ACluster) -> Iterator[Yard]:
    with yard(kubernetes) as found:
        yield found
