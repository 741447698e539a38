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
from tests.cluster.kubernetes.cluster import Cluster
from tests.cluster.kubernetes.layout import DEFAULT_NAME, Layout
from tests.cluster.kubernetes.wires import free_number

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
    found = layout.saved(DEFAULT_NAME)
    cluster = Cluster(found or Layout(DEFAULT_NAME, free_number()))
    if found is None:
        cluster.layout.folder.mkdir(parents=True, exist_ok=True)
        (cluster.layout.folder / _OURS).touch()
    cluster.up()
    return cluster


def _is_last(users: IO[str]) -> bool:
    """Nobody else holds it; a process that was killed does not, either."""
    with suppress(BlockingIOError):
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
