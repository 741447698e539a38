"""An engine over a real cluster."""

from collections.abc import AsyncIterator

import pytest
from tests.providers.kubernetes.yard import Yard

from skep.providers.kubernetes.pods.engine import ClusterEngine


@pytest.fixture
async def engine(place: Yard) -> AsyncIterator[ClusterEngine]:
    async with place.engine() as engine:
        yield engine
