"""What is said of a container whose end is ordered, until its node has said that it has ended."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from tests.providers.kubernetes.pods.test_plans import DEPLOYMENT, SET, entry, ledger, seen
from tests.providers.kubernetes.rules import ruled

from skep.model.errors import NotFound
from skep.model.ids import ContainerId
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.pods.carrier import Around, Carrier
from skep.providers.kubernetes.pods.naming import CarrierKind

A = ContainerId("a")
RUNS = seen("pod-1", "a", since=900.0, node="node-1")
ENDS = replace(RUNS, deleting=True)
WAITS = f"{entry('a').name} is being ended: its node node-1 has not said so yet."


@pytest.fixture
async def cluster() -> AsyncIterator[Cluster]:
    async with ruled(set(), {}) as server, Cluster(server.config(), "i") as cluster:
        yield cluster


def carrier(cluster: Cluster, kind: CarrierKind) -> Carrier:
    made = Carrier(ledger(kind, entry("a")), Around(cluster, lambda *_: None, lambda work: work.close()))
    made.heard(RUNS, gone=False)
    return made


async def test_one_that_is_stopped_waits_for_its_node(cluster: Cluster) -> None:
    found = carrier(cluster, DEPLOYMENT)
    before = found.inspect(A).error

    found.roster.stop(A, 5)
    found.heard(ENDS, gone=False)
    meanwhile = found.inspect(A).error
    found.heard(ENDS, gone=True)

    assert (before, meanwhile, found.inspect(A).error) == ("", WAITS, "")


async def test_one_that_is_removed_is_told_of_until_it_has_ended(cluster: Cluster) -> None:
    found = carrier(cluster, SET)

    async with asyncio.timeout(20):
        removal = asyncio.create_task(found.remove(A))
        await asyncio.sleep(0)
        found.heard(ENDS, gone=False)
        meanwhile = found.inspect(A).error
        found.heard(ENDS, gone=True)
        await removal

    assert meanwhile == WAITS
    with pytest.raises(NotFound):
        found.inspect(A)


async def test_what_goes_on_in_another_pod_does_not_wait_for_the_one_before(cluster: Cluster) -> None:
    found = carrier(cluster, DEPLOYMENT)

    found.heard(ENDS, gone=False)
    restarting = found.inspect(A).error
    found.heard(replace(RUNS, name="pod-2"), gone=False)

    assert (restarting, found.inspect(A).error) == (WAITS, "")
