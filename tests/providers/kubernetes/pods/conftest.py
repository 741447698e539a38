"""An engine over a real cluster, with a yard of its own there."""

from collections.abc import AsyncIterator, Iterator

import pytest
from tests.cluster.kubernetes.cluster import Cluster as ACluster
from tests.cluster.kubernetes.shared import kubernetes
from tests.providers.kubernetes.yard import Yard, yard

from skep.providers.kubernetes.pods.engine import ClusterEngine

__all__ = ["kubernetes"]


@pytest.fixture
def place(kubernetes: ACluster) -> Iterator[Yard]:
    with yard(kubernetes) as found:
        yield found


@pytest.fixture
async def engine(place: Yard) -> AsyncIterator[ClusterEngine]:
    async with place.engine() as engine:
        yield engine
