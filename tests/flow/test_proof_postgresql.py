"""The laws hold on PostgreSQL too."""

from collections.abc import Iterator
from functools import partial

import pytest
from structlog.testing import capture_logs
from tests.flow.postgresql import Cluster, fresh_database
from tests.flow.test_proof_laws import make_registry
from tests.flow.workshop import Workshop

from skep.flow.testing import Databases, laws, prove


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Tracebacks of injected failures are no news, and take longer than the trials."""
    with capture_logs():
        yield


@pytest.fixture
def databases(cluster: Cluster) -> Databases:
    return partial(fresh_database, cluster)


test_a_flow_of_mixed_steps = prove(
    "inner",
    {"name": "a"},
    registry=make_registry,
    world=Workshop,
    databases="databases",
    every=6,
    only={"crash anywhere": laws.crash_anywhere, "repeat anywhere": laws.repeat_anywhere},
)
