"""One test cluster for all tests of a session, also when several processes share the work.

A cluster that was up before stays up afterwards: `scripts/kubernetes up` once, then test as often as you
like.
"""

import fcntl
from collections.abc import Iterator
from contextlib import suppress
from typing import IO

import pytest
from tests.cluster.kubernetes import layout
from tests.cluster.kubernetes.cluster import Cluster, planned
from tests.cluster.kubernetes.layout import DEFAULT_NAME

_OURS = "of-tests"
"""A file in the folder of a cluster that tests made: the last one to go takes it down."""


@pytest.fixture(scope="session")
def kubernetes() -> Iterator[Cluster]:
    """Up, with two nodes that are Ready.  Tests leave it so, and use namespaces of their own."""
    layout.STATE.mkdir(parents=True, exist_ok=True)
    with (layout.STATE / f"{DEFAULT_NAME}.users").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        cluster = _raised()
        yield cluster
        if _is_last(users) and (cluster.layout.folder / _OURS).exists():
            cluster.down()


def _raised() -> Cluster:
    """The mark is there before the plan: whoever comes second knows the cluster, and is not who made it."""
    folder = layout.STATE / DEFAULT_NAME
    if layout.saved(DEFAULT_NAME) is None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _OURS).touch()
    cluster = Cluster(planned(DEFAULT_NAME))
    cluster.up()
    return cluster


def _is_last(users: IO[str]) -> bool:
    """Nobody else holds it; a process that was killed does not, either."""
    with suppress(BlockingIOError):
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
