"""What changes is seen to in the background."""

import asyncio

from skep.control.telling.following import Following
from skep.model.ids import ReplicaId

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
