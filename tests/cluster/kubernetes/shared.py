"""One test cluster for all tests of a session, by a fixture.  Processes that share the work have one each.

So nobody is disturbed by who kills an API server, or deletes the account that all clusters have.  A cluster
that was up before stays up afterwards: `scripts/kubernetes up` once, then test as often as you like.
"""

import fcntl
import os
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
    name = name_for(os.environ.get("PYTEST_XDIST_WORKER", ""))
    with (layout.STATE / f"{name}.users").open("w") as users:
        fcntl.flock(users, fcntl.LOCK_SH)
        cluster = _raised(name)
        yield cluster
        if _is_last(users) and (cluster.layout.folder / _OURS).exists():
            cluster.down()


def name_for(worker: str) -> str:
    """The first of pytest's processes, and one that is alone, have the cluster that commands mean."""
    number = worker.removeprefix("gw")
    return DEFAULT_NAME if number in ("", "0") else f"{DEFAULT_NAME}{number}"


def _raised(name: str) -> Cluster:
    """The mark is there before the plan: whoever comes second knows the cluster, and is not who made it."""
    folder = layout.STATE / name
    if layout.saved(name) is None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / _OURS).touch()
    cluster = Cluster(planned(name))
    cluster.up()
    return cluster


def _is_last(users: IO[str]) -> bool:
    """Nobody else holds it; a process that was killed does not, either."""
    with suppress(BlockingIOError):
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
