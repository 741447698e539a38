"""What is watched is known, whatever becomes of the connection."""

import asyncio
from collections.abc import Callable

import pytest
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Pod
from tests.providers.kubernetes.scripted import (
    Answer,
    ScriptedServer,
    bare,
    bookmark,
    document,
    events,
    pod,
    pods,
    serve,
    status,
)

from skep.model.errors import Forbidden, Unavailable
from skep.providers.kubernetes.client.cluster import Cluster
from skep.providers.kubernetes.client.feeds import Told
from skep.providers.kubernetes.client.patience import delay
from skep.providers.kubernetes.client.watching import Change, Memory, Watched, key

PODS = "GET /api/v1/pods"


def a_pod(name: str, version: str = "1") -> Pod:
    return Pod(metadata=ObjectMeta(name=name, namespace="n", resourceVersion=version))


async def watched(
    *answers: Answer, until: Callable[[Watched[Pod]], bool]
) -> tuple[ScriptedServer, list[str]]:
    """What was asked, and the names known in the end."""
    async with serve(*answers) as server, Cluster(server.config(), "i") as cluster:
        found = await cluster.watched(Pod)
        async with asyncio.timeout(20):
            while not until(found):
                await asyncio.sleep(0.01)
        while len(server.asked) <= len(answers):  # it has gone on after the last
            await asyncio.sleep(0.01)
        return server, sorted(name for _, name in map(key, found.all()))


def versions(server: ScriptedServer) -> list[str | None]:
    """From which versions it was watched; None is a list."""
    return [asked.get("resourceVersion") for _, asked in server.asked]


def test_a_new_list_tells_what_came_what_changed_and_what_went_meanwhile() -> None:
    memory: Memory[Pod] = Memory()
    memory.replace([a_pod("kept"), a_pod("changed"), a_pod("gone")])

    told = memory.replace([a_pod("kept"), a_pod("changed", "2"), a_pod("new")])

    assert told == [
        Change(a_pod("gone"), a_pod("gone"), gone=True),
        Change(a_pod("changed", "2"), a_pod("changed")),
        Change(a_pod("new")),
    ]


def test_events_tell_before_and_after_and_bookmarks_tell_nothing() -> None:
    memory: Memory[Pod] = Memory()

    told = [
        memory.take(Told("ADDED", "1", a_pod("a"))),
        memory.take(Told("MODIFIED", "2", a_pod("a", "2"))),
        memory.take(Told("BOOKMARK", "2", None)),
    ]
    gone = memory.take(Told("DELETED", "3", a_pod("a", "3")))

    assert told == [[Change(a_pod("a"))], [Change(a_pod("a", "2"), a_pod("a"))], []]
    assert gone == [Change(a_pod("a", "3"), a_pod("a", "2"), gone=True)]
    assert memory.objects == {}


@pytest.mark.parametrize(("failures", "least"), [(0, 0.2), (3, 1.6), (50, 10.0)])
def test_each_failure_makes_the_pause_longer_up_to_ten_seconds(failures: int, least: float) -> None:
    error = ConnectionError()

    assert delay(failures, error, 0.0, 0.0) == least
    assert delay(failures, error, 1.0, 0.0) == least * 1.25


async def test_a_watch_that_the_server_ends_goes_on_from_the_last_version() -> None:
    server, names = await watched(
        pods("a", version="5"),
        events(("ADDED", pod("b", "7"))),
        events(("DELETED", pod("a", "8"))),
        until=lambda found: found.get("a", "n") is None and found.get("b", "n") is not None,
    )

    assert names == ["b"]
    assert versions(server) == [None, "5", "7", "8"]
    asked = server.asked[1][1]
    assert asked["labelSelector"] == "app.kubernetes.io/managed-by=skep,skep.dev/installation=i"
    assert asked["allowWatchBookmarks"] == "true"


async def test_bookmarks_are_where_a_watch_goes_on() -> None:
    server, _ = await watched(pods(version="5"), events(bookmark("90")), until=lambda found: found.lists == 1)

    assert versions(server) == [None, "5", "90"]


async def test_a_watch_that_breaks_in_the_middle_of_an_event_goes_on_before_it() -> None:
    server, names = await watched(
        pods(version="5"),
        events(("ADDED", pod("a", "6")), cut=True),
        events(("ADDED", pod("b", "7"))),
        until=lambda found: found.get("b", "n") is not None,
    )

    assert names == ["a", "b"]
    assert versions(server) == [None, "5", "6", "7"]


@pytest.mark.parametrize("gone", [events(("ERROR", status(410))), document(status(410), 410)])
async def test_a_version_that_is_no_longer_kept_is_a_new_list(gone: Answer) -> None:
    server, names = await watched(
        pods("a", version="5"), gone, pods("b", version="50"), until=lambda found: found.lists == 2
    )

    assert names == ["b"]
    assert versions(server) == [None, "5", None, "50"]


@pytest.mark.parametrize("busy", [document(status(429), 429, Retry_After="0"), bare(503), bare(502)])
async def test_a_busy_server_is_asked_again_from_where_it_was(busy: Answer) -> None:
    server, names = await watched(
        busy,
        pods(version="5"),
        busy,
        events(("ADDED", pod("a", "6"))),
        until=lambda found: found.get("a", "n") is not None,
    )

    assert names == ["a"]
    assert versions(server) == [None, None, "5", "5", "6"]


async def test_who_follows_hears_of_all_and_a_follower_that_fails_harms_nobody() -> None:
    heard: list[tuple[str, bool]] = []

    def failing(_: Change[Pod]) -> None:
        raise ValueError

    happens = events(("ADDED", pod("b", "6")), ("DELETED", pod("b", "7")))
    async with (
        serve(pods("a", version="5"), happens) as server,
        Cluster(server.config(), "i") as cluster,
        asyncio.timeout(20),
    ):
        found = await cluster.watched(Pod)
        found.subscribe(failing)
        found.subscribe(lambda change: heard.append((key(change.object)[1], change.gone)))
        await found.until(lambda: len(heard) == 3)

    assert heard == [("a", False), ("b", False), ("b", True)]


async def test_who_waits_for_what_never_comes_hears_why() -> None:
    forbidden = document(status(403, "pods is forbidden"), 403)
    async with serve(forbidden) as server, Cluster(server.config(), "i") as cluster:
        found = await cluster.watched(Pod)
        while found.failing is None:
            await asyncio.sleep(0.01)
        with pytest.raises(Forbidden, match="pods is forbidden"):
            await found.synced(patience=0.01)


async def test_one_watch_serves_all_who_ask_for_a_kind() -> None:
    async with serve(pods(version="5")) as server, Cluster(server.config(), "i") as cluster:
        first, second = await cluster.watched(Pod), await cluster.watched(Pod)
        await first.synced()

        assert first is second
    assert [what for what, _ in server.asked][:1] == [PODS]


async def test_a_cluster_that_does_not_answer_is_said_to_be_so() -> None:
    async with serve() as server, Cluster(server.config(), "i") as cluster:
        with pytest.raises(Unavailable, match="list pods"):
            await (await cluster.watched(Pod)).synced(patience=0.01)
