"""What changes is seen to in the background."""

import asyncio
from pathlib import Path

import msgspec
from tests.control.installation import installation
from tests.control.simulation import app, service

from skep.control.events import Observations
from skep.control.telling.following import Following
from skep.model.host import ContainerState
from skep.model.ids import ReplicaId
from skep.store import replicas

A, B, C = (ReplicaId(name) for name in "abc")


async def test_the_first_change_is_seen_to_at_once_and_those_of_meanwhile_together() -> None:
    seen: list[set[ReplicaId]] = []
    begun, go_on, done = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def see_to(changed: set[ReplicaId]) -> None:
        seen.append(changed)
        begun.set()
        await go_on.wait()
        if len(seen) == 2:
            done.set()

    following = Following("test", see_to)
    following.changed(A)
    await begun.wait()
    following.changed(B)
    following.changed(C)
    go_on.set()
    await done.wait()
    await following.close()

    assert seen == [{A}, {B, C}]


async def test_one_that_fails_does_not_keep_the_next_from_being_seen_to() -> None:
    seen: list[set[ReplicaId]] = []
    done = asyncio.Event()

    async def see_to(changed: set[ReplicaId]) -> None:
        seen.append(changed)
        if changed == {A}:
            following.changed(B)
            raise ValueError("no")
        done.set()

    following = Following("test", see_to)
    following.changed(A)
    await done.wait()
    await following.close()

    assert seen == [{A}, {B}]


async def test_what_a_cluster_tells_of_is_kept_and_followed_by_nobody(tmp_path: Path) -> None:
    followed, woken = list[ReplicaId](), asyncio.Event()
    async with installation(tmp_path) as house:
        await house.finish(await house.control.apps.apply(house.admin, app(web=service())))
        (status,) = await house.host.engine.list()
        ended = msgspec.structs.replace(status, state=ContainerState.EXITED, exit_code=3)
        news = Observations(house.database, house.bus, woken.set, house.clock, followed.append)

        await news.unfollowed().observed(ended)
        async with house.database.read() as connection:
            row = await replicas.by_container(connection, status.id)
        in_cluster = list(followed)
        await news.observed(status)

    assert row is not None
    assert row.status == ended
    assert woken.is_set()
    assert in_cluster == []
    assert followed == [status.replica]
